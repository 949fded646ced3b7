"""Where the workflow server comes from: the one that PREFECT_API_URL names, else a child of this process.

Our own server listens on 127.0.0.1 alone, asks for a random password, and ends with its parent, also by kill -9: it
reads its standard input, which closes when the parent is gone (`server_child`). Its database, home and log lie in the
first free `server-<k>/` of the state directory; the lock on that directory falls with the parent, too. What an earlier
run left there as running is set to Crashed before the flow starts.
"""

import contextlib
import dataclasses
import json
import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Final

from chipmill.core.errors import LockedError, ServerError
from chipmill.core.redact import redact
from chipmill.core.store import lock
from chipmill.orchestration.settings import make_state_dir, read_settings

_MAX_SERVERS: Final = 64
_GRACE_S: Final = 20.0
_LAG_S: Final = 60.0
_LAG_CUT_S: Final = 5.0
_PATIENCE_S: Final = 10.0
_CLIENT_ENVIRONMENT: Final = {
    "PREFECT_SERVER_EPHEMERAL_ENABLED": "false",  # else each Dask worker boots a server of its own
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
}


@dataclasses.dataclass(frozen=True, slots=True)
class ServerRef:
    """A server that answers."""

    url: str
    """Of its API, ending in /api."""
    own: bool
    """True where this process started it."""
    log: Path | None = None


@contextlib.contextmanager
def running_server(meanwhile: Callable[[], object] = lambda: None) -> Iterator[ServerRef]:
    """Give a server to run flows on, with Prefect's settings pointing at it inside the block.

    ``meanwhile`` is called while ours starts, which takes longer than importing the flows. Raises ServerError where
    the named server does not answer, or ours not within CHIPMILL_SERVER_TIMEOUT_S, with the path of its log.
    """
    settings = read_settings()
    os.environ.update(_CLIENT_ENVIRONMENT)
    if settings.api_url:
        if not _answers(settings.api_url, _PATIENCE_S):
            raise ServerError(
                f"the workflow server at PREFECT_API_URL {redact(settings.api_url)} does not answer: start it, or "
                "unset the variable and the run starts its own"
            )
        yield ServerRef(settings.api_url, own=False)
        return
    with (
        _free_home(make_state_dir(settings.state_dir)) as home,
        _child(home, settings.server_timeout_s, meanwhile) as found,
    ):
        server, password = found
        with _client_settings(server.url, password):
            from chipmill.orchestration.records import crash_left_overs, send_out, wait_for_records

            crash_left_overs()
            try:
                yield server
            finally:
                # Nothing may stay "Running": neither what the server has yet to write down nor what was cut off.
                send_out()
                wait_for_records(_LAG_S if sys.exception() is None else _LAG_CUT_S)
                crash_left_overs()


@contextlib.contextmanager
def _free_home(state_dir: Path) -> Iterator[Path]:
    """Hold the first `server-<k>/` that no other run uses."""
    with contextlib.ExitStack() as held:
        for number in range(_MAX_SERVERS):
            home = make_state_dir(state_dir / f"server-{number}")
            try:
                held.enter_context(lock(home / "lock", f"server-{number}"))
            except LockedError:
                continue
            # Prefect reads its home when it is first imported: profiles of the user must not redirect this run.
            os.environ["PREFECT_HOME"] = str(home)
            yield home
            return
    raise ServerError(
        f"{_MAX_SERVERS} servers run in {state_dir} already: end some of these runs, or set PREFECT_API_URL to one"
    )


@contextlib.contextmanager
def _child(home: Path, timeout_s: float, meanwhile: Callable[[], object]) -> Iterator[tuple[ServerRef, str]]:
    password = secrets.token_urlsafe(24)
    log = home / "server.log"
    with socket.create_server(("127.0.0.1", 0)) as listener, log.open("wb") as stream:
        port = listener.getsockname()[1]
        process = subprocess.Popen(
            [sys.executable, "-m", "chipmill.orchestration.server_child", str(listener.fileno()), str(port)],
            stdin=subprocess.PIPE,
            stdout=stream,
            stderr=stream,
            pass_fds=(listener.fileno(),),
            start_new_session=True,  # Ctrl-C is for the run; the server has to outlive it to record how it ended
            cwd=home,
            env={name: value for name, value in os.environ.items() if name != "PREFECT_API_KEY"},
        )
    server = ServerRef(f"http://127.0.0.1:{port}/api", own=True, log=log)
    try:
        _tell(process, password)
        meanwhile()
        _wait_until_it_answers(process, server, timeout_s)
        yield server, password
    finally:
        _end(process)


def _tell(process: subprocess.Popen[bytes], password: str) -> None:
    """Hand over the password through the pipe, where no process list and no environment shows it."""
    assert process.stdin is not None  # noqa: S101 - for the type checker; it was asked for as a pipe
    with contextlib.suppress(BrokenPipeError):  # a child that died is reported by the wait that follows
        process.stdin.write(json.dumps({"password": password}).encode() + b"\n")
        process.stdin.flush()


def _wait_until_it_answers(process: subprocess.Popen[bytes], server: ServerRef, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while (left := deadline - time.monotonic()) > 0:
        if process.poll() is not None:
            raise ServerError(
                f"the workflow server ended with code {process.returncode} while it started: see {server.log}, or set "
                "PREFECT_API_URL to a running one"
            )
        # The socket listens before the server does: a request made now waits in its queue and costs no polling.
        if _answers(server.url, min(left, _PATIENCE_S)):
            return
    raise ServerError(
        f"the workflow server did not answer within {timeout_s:g} s: see {server.log}, set CHIPMILL_SERVER_TIMEOUT_S "
        "higher, or set PREFECT_API_URL to a running one"
    )


def _answers(url: str, timeout_s: float) -> bool:
    """Tell whether the API at a URL is healthy; its answer to this question needs no password."""
    try:
        with urllib.request.urlopen(f"{url.rstrip('/')}/health", timeout=timeout_s) as answer:  # noqa: S310 - the user's
            return bool(answer.status == HTTPStatus.OK)
    except (urllib.error.URLError, TimeoutError, ConnectionError):
        return False


def _end(process: subprocess.Popen[bytes]) -> None:
    """Close the pipe, which tells the child to end, and wait for it."""
    assert process.stdin is not None  # noqa: S101 - for the type checker; it was asked for as a pipe
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()
    try:
        process.wait(_GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextlib.contextmanager
def _client_settings(url: str, password: str) -> Iterator[None]:
    """Point this process, and with every submitted task the workers, at the server."""
    from prefect.settings import (
        PREFECT_API_AUTH_STRING,
        PREFECT_API_KEY,
        PREFECT_API_URL,
        PREFECT_SERVER_ALLOW_EPHEMERAL_MODE,
        temporary_settings,
    )

    changes = {
        PREFECT_API_URL: url,
        PREFECT_API_AUTH_STRING: f"chipmill:{password}",
        PREFECT_SERVER_ALLOW_EPHEMERAL_MODE: False,
    }
    # A key for Prefect Cloud would win over the password and be refused by our server.
    with temporary_settings(updates=changes, restore_defaults={PREFECT_API_KEY}):
        yield
