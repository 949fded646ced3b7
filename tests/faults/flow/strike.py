"""What the tests do to a run that holds at a planted place."""

import contextlib
import signal

import psutil

OUTAGE_S = 20.0


def server_of(family):
    """The process of the run's own workflow server."""
    (server,) = [one for one in family if "chipmill.orchestration.server_child" in _words(one)]
    return server


def _words(process):
    """Its command line; none of a process that a planted fault has killed meanwhile."""
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []


def kill_server(family):
    """End the server as the kernel does when it needs its memory."""
    server = server_of(family)
    server.send_signal(signal.SIGKILL)
    assert not psutil.wait_procs([server], timeout=20)[1]


@contextlib.contextmanager
def silent_server(family):
    """Let the server answer nothing for 20 s, while the block runs and after it."""
    server = server_of(family)
    server.suspend()
    yield
    psutil.wait_procs([server], timeout=OUTAGE_S)
    server.resume()


@contextlib.contextmanager
def full(folder):
    """Take all space of a file system while the block runs."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as stream, contextlib.suppress(OSError):
        while True:
            stream.write(bytes(1 << 20))
    yield
    filler.unlink()
