"""Where the workflow server comes from: PREFECT_API_URL names it, a `chipmill up` has it, else it is a child of ours.

Our own server listens on 127.0.0.1 alone, asks for a random password, and ends with its parent, also by kill -9: it
reads its standard input, which closes when the parent is gone (`server_child`). Its database, home and log lie in the
first free `server-<k>/` of the state directory; the lock on that directory falls with the parent, too. What an earlier
run left there as running is set to Crashed before the flow starts.
"""

import contextlib
import dataclasses
import os
import secrets
import socket
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Final

from chipmill.core.errors import BadInputError, LockedError, ServerError
from chipmill.core.redact import redact
from chipmill.core.state import make_state_dir
from chipmill.core.store import lock
from chipmill.orchestration.beacon import Beacon, read_beacon
from chipmill.orchestration.child import Child
from chipmill.orchestration.records import crash_left_overs, send_out, wait_for_records
from chipmill.orchestration.settings import Settings, read_settings

_SERVER: Final = "chipmill.orchestration.server_child"
_MAX_SERVERS: Final = 64
_GRACE_S: Final = 20.0
_LAG_S: Final = 60.0
_LAG_CUT_S: Final = 5.0
_PATIENCE_S: Final = 10.0
_START_POLL_S: Final = 2.0
CLIENT_ENVIRONMENT: Final = {
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
    user: str = ""
    """Of a running `chipmill up`; "" where PREFECT_API_URL names the server, whose login is the user's affair."""
    password: str = dataclasses.field(default="", repr=False)


@dataclasses.dataclass(frozen=True, slots=True)
class OwnServer:
    """A server that this process started, and what it takes to be let in."""

    ref: ServerRef
    password: str
    child: Child


@contextlib.contextmanager
def running_server(meanwhile: Callable[[], object] = lambda: None) -> Iterator[ServerRef]:
    """Give a server to run flows on, with Prefect's settings pointing at it inside the block.

    It is the one that PREFECT_API_URL names, else that of a running `chipmill up`, else our own, which ends with the
    block. ``meanwhile`` is called while ours starts, which takes longer than importing the flows. Raises ServerError
    where the named server does not answer, or ours not within CHIPMILL_SERVER_TIMEOUT_S, with the path of its log.
    """
    settings = read_settings()
    with standing_server(settings) as found:
        if found is not None:
            yield found
            return
    with (
        _free_home(make_state_dir(settings.state_dir)) as home,
        own_server(home, settings.server_timeout_s, meanwhile) as server,
        client_settings(server.ref.url, server.password),
    ):
        crash_left_overs()
        try:
            yield server.ref
        finally:
            # Nothing may stay "Running": neither what the server has yet to write down nor what was cut off.
            send_out()
            wait_for_records(_LAG_S if sys.exception() is None else _LAG_CUT_S)
            crash_left_overs()


@contextlib.contextmanager
def standing_server(settings: Settings) -> Iterator[ServerRef | None]:
    """Give the server that PREFECT_API_URL names, else that of a running `chipmill up`, else None: ours is needed.

    Prefect's settings point at it inside the block. Raises ServerError where the named server does not answer.
    """
    os.environ.update(CLIENT_ENVIRONMENT)
    if settings.api_url:
        _require_answer(settings.api_url)
        yield ServerRef(settings.api_url, own=False)
    elif beacon := _living_beacon(settings.state_dir):
        os.environ["PREFECT_HOME"] = str(make_state_dir(settings.state_dir / "client"))
        with client_settings(beacon.url, beacon.password):
            try:
                yield ServerRef(beacon.url, own=False, user=beacon.user, password=beacon.password)
            finally:
                send_out()
    else:
        yield None


def _require_answer(url: str) -> None:
    """Raise ServerError where the server that the user named does not answer."""
    if not answers(url, _PATIENCE_S):
        raise ServerError(
            f"the workflow server at PREFECT_API_URL {redact(url)} does not answer: start it, or unset the variable "
            "and the run starts its own"
        )


def _living_beacon(state_dir: Path) -> Beacon | None:
    """Return the address of a running `chipmill up` whose server answers, else None."""
    beacon = read_beacon(state_dir)
    return beacon if beacon and answers(beacon.url, _PATIENCE_S) else None


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
            yield home
            return
    raise ServerError(
        f"{_MAX_SERVERS} servers run in {state_dir} already: end some of these runs, or set PREFECT_API_URL to one"
    )


@contextlib.contextmanager
def own_server(
    home: Path, timeout_s: float, meanwhile: Callable[[], object] = lambda: None, port: int = 0
) -> Iterator[OwnServer]:
    """Start a server with database and log in ``home``, on 127.0.0.1 alone, and end it with the block.

    One that dies is started again on the same port: this process keeps the socket, in whose queue requests wait
    meanwhile. ``port`` 0 is any free one. Raises ServerError where it does not start.
    """
    # Prefect reads its home when it is first imported: profiles of the user must not redirect this run.
    os.environ["PREFECT_HOME"] = str(home)
    password = secrets.token_urlsafe(24)
    with _listener(port) as listener:
        number, log = listener.getsockname()[1], home / "server.log"
        words = (str(listener.fileno()), str(number))
        child = Child(_SERVER, words, {"password": password}, home, log, listener.fileno())
        ref = ServerRef(f"http://127.0.0.1:{number}/api", own=True, log=log)
        try:
            meanwhile()
            _wait_until_it_answers(child, ref, timeout_s)
            child.keep()
            yield OwnServer(ref, password, child)
        finally:
            child.end(_GRACE_S)


def _listener(port: int) -> socket.socket:
    try:
        return socket.create_server(("127.0.0.1", port))
    except (OSError, OverflowError) as error:
        raise BadInputError(
            f"port {port} of 127.0.0.1 cannot be used ({error}): take another one, or none and a free one is found"
        ) from error


def _wait_until_it_answers(child: Child, server: ServerRef, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while (left := deadline - time.monotonic()) > 0:
        if (code := child.ended_with()) is not None:
            raise ServerError(
                f"the workflow server ended with code {code} while it started: see {server.log}, or set "
                "PREFECT_API_URL to a running one"
            )
        # The socket listens before the server does: a request made now waits in its queue and costs no polling.
        if answers(server.url, min(left, _START_POLL_S)):
            return
    raise ServerError(
        f"the workflow server did not answer within {timeout_s:g} s: see {server.log}, set CHIPMILL_SERVER_TIMEOUT_S "
        "higher, or set PREFECT_API_URL to a running one"
    )


def answers(url: str, timeout_s: float) -> bool:
    """Tell whether the API at a URL is healthy; its answer to this question needs no password."""
    try:
        with urllib.request.urlopen(f"{url.rstrip('/')}/health", timeout=timeout_s) as answer:  # noqa: S310 - the user's
            return bool(answer.status == HTTPStatus.OK)
    except (urllib.error.URLError, TimeoutError, ConnectionError):
        return False


@contextlib.contextmanager
def client_settings(url: str, password: str) -> Iterator[None]:
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
