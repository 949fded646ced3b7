"""How long one answer of a catalog is waited for in all: urllib3 bounds each wait, and nothing bounds their sum.

A server that stalls at each try, that sends a byte a minute, or that asks to wait again and again ends with the
budget, by an error that says so. The file to change for how patient searches are.
"""

import contextlib
import socket
import threading
import time
import weakref
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Final, Self

from requests import Response
from requests.exceptions import ChunkedEncodingError, ContentDecodingError, RequestException
from requests.exceptions import ConnectionError as BrokenConnectionError
from urllib3 import BaseHTTPResponse, Retry
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import ConnectionPool
from urllib3.exceptions import MaxRetryError, ResponseError

BUDGET_S: Final = 400.0
"""Of one page with all its tries: one wait of 300 s that a server may ask for fits, and so do seven tries without one."""
_MAX_BYTES: Final = 256 << 20
"""Of one page, unpacked: hundred thousands of items."""
_CHUNK: Final = 1 << 20


class OutOfPatienceError(RequestException):
    """There was no whole answer within the budget."""


class Patience(Retry):
    """urllib3's retries that end with a budget; make it by :func:`patient`."""

    ends: float = 0.0
    """time.monotonic() after which nothing is tried any more."""

    def new(self, **changes: Any) -> Self:
        """Return a copy, as urllib3 does for each try."""
        made = super().new(**changes)
        made.ends = self.ends
        return made

    def increment(
        self,
        method: str | None = None,
        url: str | None = None,
        response: BaseHTTPResponse | None = None,
        error: Exception | None = None,
        _pool: ConnectionPool | None = None,
        _stacktrace: TracebackType | None = None,
    ) -> Self:
        """Count a failed try; raises MaxRetryError where the next one would begin after the end."""
        made = super().increment(method, url, response, error, _pool, _stacktrace)
        wait = (self.get_retry_after(response) if response is not None else None) or made.get_backoff_time()
        if time.monotonic() + wait >= self.ends:
            told = f"the next try would begin after more than the {BUDGET_S:g} s that a page may take"
            raise MaxRetryError(_pool, url, ResponseError(told))  # type: ignore[arg-type]  # as urllib3 does
        return made


def patient(retries: Retry, ends: float) -> Patience:
    """Return ``retries`` that end at ``ends`` (time.monotonic())."""
    made = Patience(**{name: getattr(retries, name) for name in _SETTINGS})
    made.ends = ends
    return made


_SETTINGS: Final = (
    "total", "connect", "read", "redirect", "status", "other", "allowed_methods", "status_forcelist",
    "backoff_factor", "backoff_max", "raise_on_redirect", "raise_on_status", "history",
    "respect_retry_after_header", "remove_headers_on_redirect", "backoff_jitter", "retry_after_max",
)  # fmt: skip


class Connections:
    """The connections of one session, so that they can be cut when time is up: a read that drips has no timeout."""

    def __init__(self) -> None:
        self._all: weakref.WeakSet[HTTPConnection] = weakref.WeakSet()

    def add(self, connection: HTTPConnection) -> None:
        """Keep an eye on a connection."""
        self._all.add(connection)

    def cut(self) -> None:
        """Break what is open: the read that waits on it fails at once."""
        for connection in list(self._all):
            sock = getattr(connection, "sock", None)
            if sock is not None:
                with contextlib.suppress(OSError):  # it has just ended by itself
                    sock.shutdown(socket.SHUT_RDWR)

    @contextlib.contextmanager
    def until(self, ends: float) -> Iterator[None]:
        """Cut them at ``ends`` (time.monotonic()) if the block still runs then."""
        timer = threading.Timer(max(0.0, ends - time.monotonic()), self.cut)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()


def take_body(response: Response) -> None:
    """Read the whole body into ``response``; raises RequestException where it is cut, stalls or is without end."""
    parts: list[bytes] = []
    size = 0
    for part in response.iter_content(_CHUNK):
        parts.append(part)
        size += len(part)
        if size > _MAX_BYTES:
            raise OutOfPatienceError(f"the answer is longer than {_MAX_BYTES:,} bytes")
    response._content = b"".join(parts)  # noqa: SLF001 - what requests does when it reads the body itself


BROKEN: Final = (ChunkedEncodingError, BrokenConnectionError, ContentDecodingError)
"""What a body that is cut or stalls raises: worth another try."""
