"""The HTTP session of searches: it connects where a source may go, stays on its host, and shows its secret there only.

requests follows redirects, and sends headers of its own making along; so each hop is checked here before it is sent,
and the address at the connection. How long all of it may take is in :mod:`.patience`.
"""

import socket
import time
from typing import Any, Final

from requests import PreparedRequest, Response, Session
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager, Retry
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import NameResolutionError, NewConnectionError
from urllib3.util import Timeout

from chipmill.core.errors import ItemSearchError
from chipmill.core.redact import redact
from chipmill.imagery import hosts, patience
from chipmill.imagery.auth import header, with_query
from chipmill.imagery.reach import ForbiddenHostError, Reach, origin, reach_of

_CONNECT_S: Final = 10.0
_MAX_REDIRECTS: Final = 5


class SourceAdapter(HTTPAdapter):
    """Sends the requests of one source; ``root`` is the base URL of its API."""

    def __init__(self, root: str, retries: Retry) -> None:
        self._root = root
        self._retries = retries
        self._connections = patience.Connections()
        hosts.prepare()
        super().__init__(max_retries=retries)

    def init_poolmanager(self, *args: Any, **more: Any) -> None:
        """Make the pools connect by the source's reach."""
        super().init_poolmanager(*args, **more)
        self.poolmanager: PoolManager
        self.poolmanager.pool_classes_by_scheme = _pools(reach_of(self._root), self._connections)

    def send(self, request: PreparedRequest, *args: Any, **more: Any) -> Response:
        """Send one hop and take the whole answer, within the budget of a page.

        Raises ItemSearchError where it leaves the source's host, or https for http; RequestException as requests does.
        """
        url = str(request.url)
        there, home = origin(url), origin(self._root)
        same = there[1:] == home[1:] or (there[0], there[1], home[0]) == ("https", home[1], "http")
        if not same or (home[0] == "https" and there[0] != "https"):
            raise ItemSearchError(
                f"{redact(self._root)} sends its answer to {redact(url)}: another host is not followed: "
                "use the URL that the API itself names"
            )
        if (pair := header(url, self._root)) is not None:
            request.headers[pair[0]] = pair[1]
        request.url = with_query(url, self._root)
        response = self._whole(request, *args, **more)
        response.url = url  # what later errors show
        return response

    def _whole(self, request: PreparedRequest, *args: Any, **more: Any) -> Response:
        """Send, and send again where the body breaks off: urllib3 itself tries again only until the head has come."""
        ends = time.monotonic() + patience.BUDGET_S
        left = self._retries.total or 0
        _, host, port = origin(str(request.url))
        with hosts.Turn(host, port) as turn, self._connections.until(ends):
            try:
                turn.take(patience.BUDGET_S)
            except hosts.NoTurnError as error:
                raise patience.OutOfPatienceError(str(error)) from error
            while True:
                self.max_retries = patience.patient(self._retries, ends)
                response = super().send(request, *args, **(more | {"stream": True}))
                try:
                    patience.take_body(response)
                except patience.BROKEN as error:
                    if time.monotonic() >= ends:
                        raise patience.OutOfPatienceError(
                            f"there was no whole answer within {patience.BUDGET_S:g} s"
                        ) from error
                    if not left:
                        raise
                    left -= 1
                else:
                    return response


def source_session(session: Session, root: str, retries: Retry) -> None:
    """Make a session send by :class:`SourceAdapter` alone, and take no login from the machine's netrc."""
    adapter = SourceAdapter(root, retries)
    for scheme in ("http://", "https://"):
        session.mount(scheme, adapter)
    session.auth = _no_netrc
    session.max_redirects = _MAX_REDIRECTS


def _no_netrc(request: PreparedRequest) -> PreparedRequest:
    return request


def _pools(reach: Reach, connections: patience.Connections) -> dict[str, type[HTTPConnectionPool]]:
    class Http(HTTPConnection):
        def _new_conn(self) -> socket.socket:
            connections.add(self)
            return _connect(reach, self)

    class Https(HTTPSConnection):
        def _new_conn(self) -> socket.socket:
            connections.add(self)
            return _connect(reach, self)

    class HttpPool(HTTPConnectionPool):
        ConnectionCls = Http

    class HttpsPool(HTTPSConnectionPool):
        ConnectionCls = Https

    return {"http": HttpPool, "https": HttpsPool}


def _connect(reach: Reach, connection: HTTPConnection) -> socket.socket:
    timeout = Timeout.resolve_default_timeout(connection.timeout) or _CONNECT_S
    try:
        return reach.connect(connection.host, connection.port or 0, timeout)
    except ForbiddenHostError as error:
        raise ItemSearchError(f"the catalog is not asked: {error}") from error
    except socket.gaierror as error:
        raise NameResolutionError(connection.host, connection, error) from error
    except OSError as error:
        raise NewConnectionError(connection, f"no connection: {error}") from error
