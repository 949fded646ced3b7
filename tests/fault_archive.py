"""A small HTTP server that serves files by ranges and answers as it is told to: for tests of reads and searches."""

import contextlib
import dataclasses
import http.server
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

HEADER_BYTES = 32_768
"""What is asked for at the opening of a file; a range that begins beyond it is one of blocks."""
KINDS = ("429", "500", "502", "503", "403", "cut", "short", "stall", "html", "loop", "duplicate")
"""What :meth:`FaultServer.plan` knows. cut: the connection ends before the body; short: the body is half of what was
asked for, and says so; stall: half a body, then silence; loop: a page or file that leads to itself; duplicate: the
answer that was given before, or another range. Besides these there is drip: a body that comes byte by byte."""
ALWAYS = 1_000


@dataclasses.dataclass
class Planned:
    """A fault to come: which requests it meets, what it does, and to how many of them."""

    path: str
    where: str
    """search, header or block."""
    kind: str
    times: int
    after: int = 0
    """So many requests of this sort are answered rightly first."""


@dataclasses.dataclass(frozen=True)
class Asked:
    """A request as it came."""

    path: str
    where: str
    at: float
    """time.monotonic()."""


class FaultServer:
    """What the handler shares with the test: faults to come, by path, and the requests so far."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.faults: dict[str, list[int | str]] = {}
        """Path -> answers still to be given before the right one: a status, "cut" or "html"; whatever is asked for."""
        self.search: Callable[[dict], dict] | None = None
        """Body or query of a search -> the page."""
        self.landing: Callable[[str], dict] = landing
        """URL of the server -> the landing page of its API."""
        self.requests: list[str] = []
        self.asked: list[Asked] = []
        self.allows: Callable[[str, Mapping[str, str]], bool] = lambda path, headers: True
        """Path with its query, and headers -> whether to answer; else 401, with both in it as careless servers do."""
        self.signed: Callable[[str], bool] = lambda path: True
        """Path with its query -> whether its signature holds; else 403, as object stores answer."""
        self.documents: dict[str, Callable[[], dict]] = {}
        """Path -> a JSON document made anew for each request."""
        self.url = ""
        self.released = threading.Event()
        """Set when the test ends: what stalls then goes on."""
        self.retry_after_s = 0
        """What answers of 429 and 503 tell the client to wait."""
        self._planned: list[Planned] = []
        self._last: dict[tuple[str, str], object] = {}
        self._lock = threading.Lock()

    def plan(self, path: str, where: str, kind: str, times: int = ALWAYS, after: int = 0) -> None:
        """Let ``times`` requests of a path meet a fault of :data:`KINDS`; ``where`` is search, header or block."""
        assert kind in (*KINDS, "drip")
        assert where in ("search", "header", "block")
        self._planned.append(Planned(path, where, kind, times, after))

    def mend(self) -> None:
        """Forget all faults that are still to come, and let go what stalls."""
        self.faults.clear()
        self._planned.clear()
        self.released.set()
        self.released = threading.Event()

    def count(self, path: str, where: str) -> int:
        """Return how often a path was asked for in this way."""
        return sum(one.path == path and one.where == where for one in self.asked)

    def fault(self, path: str, where: str) -> int | str | None:
        """Take the fault of this request, None where it is answered rightly."""
        with self._lock:
            self.asked.append(Asked(path, where, time.monotonic()))
            queue = self.faults.get(path)
            if queue:
                return queue.pop(0)
            for one in self._planned:
                if (one.path, one.where) == (path, where) and one.times:
                    if one.after:
                        one.after -= 1
                        return None
                    one.times -= 1
                    return int(one.kind) if one.kind.isdigit() else one.kind
        return None


class _Handler(http.server.BaseHTTPRequestHandler):
    """One request; a subclass per server brings ``shared``."""

    protocol_version = "HTTP/1.1"
    shared: FaultServer

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self._answer({})

    def do_HEAD(self) -> None:
        self._answer({})

    def do_POST(self) -> None:
        self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}"))

    def _answer(self, body: dict) -> None:
        parts, server = urlsplit(self.path), self.shared
        server.requests.append(f"{self.command} {self.path}")
        fault = server.fault(parts.path, self._where(parts.path))
        if not server.allows(self.path, self.headers):
            told = {"code": "401", "description": f"{self.path} {dict(self.headers)}"}
            self._send(401, json.dumps(told).encode(), {"Content-Type": "application/json"})
        elif not server.signed(self.path):
            self._send(403, b"<Error>AuthenticationFailed</Error>", {"Content-Type": "application/xml"})
        elif isinstance(fault, int):
            wait = {"Retry-After": str(server.retry_after_s)} if fault in (429, 503) else {}
            self._send(fault, b"{}", wait)
        elif fault == "html":
            self._send(200, b"<html>sign in</html>", {"Content-Type": "text/html"})
        elif parts.path == "/stac":
            self._json(server.landing(server.url), fault)
        elif parts.path == "/stac/search" and server.search is not None:
            query = {key: values[0] for key, values in parse_qs(parts.query).items()}
            self._page(body or query, fault)
        elif parts.path in server.documents:
            self._json(server.documents[parts.path]())
        else:
            self._file(server.folder / parts.path.lstrip("/"), fault)

    def _where(self, path: str) -> str:
        if path == "/stac/search":
            return "search"
        first = (self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").split("-")[0]
        return "block" if int(first) >= HEADER_BYTES else "header"

    def _json(self, value: object, fault: str | None = None) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"}, fault)

    def _page(self, asked: dict, fault: str | None) -> None:
        server = self.shared
        assert server.search is not None
        page = server.search(asked)
        if fault == "loop":
            here = {"rel": "next", "href": f"{server.url}/stac/search", "method": "POST", "body": asked}
            page = page | {"links": [here]}
        before = server._last.setdefault(("page", ""), page)
        if fault == "duplicate":
            page = before
        server._last["page", ""] = page
        self._json(page, fault)

    def _file(self, path: Path, fault: str | None) -> None:
        if fault == "loop":
            self._send(302, b"", {"Location": self.shared.url + self.path})
            return
        if not path.is_file():
            self._send(404, b"", {})
            return
        data = path.read_bytes()
        wanted = self.headers.get("Range")
        if not wanted:
            self._send(200, data, {"Accept-Ranges": "bytes"}, fault)
            return
        one, other = wanted.removeprefix("bytes=").split("-")
        first, last = int(one), min(int(other or len(data) - 1), len(data) - 1)
        if fault == "short":
            last = first + (last - first) // 2
        elif fault == "duplicate":
            size = last - first
            first = 0 if first else len(data) // 2
            last = min(first + size, len(data) - 1)
        place = f"bytes {first}-{last}/{len(data)}"
        self._send(206, data[first : last + 1], {"Content-Range": place, "Accept-Ranges": "bytes"}, fault)

    def _send(self, status: int, data: bytes, headers: dict[str, str], fault: str | None = None) -> None:
        half = len(data) // 2
        if fault == "short" and status == 200:
            data = data[:half]
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "HEAD":
            return
        with contextlib.suppress(ConnectionError):  # the client has gone: it had enough of us
            if fault not in ("cut", "stall", "drip"):
                self.wfile.write(data)
                return
            for byte in data if fault == "drip" else b"":
                self.wfile.write(bytes([byte]))
                if self.shared.released.wait(timeout=0.05):
                    break
            self.close_connection = True
            self.wfile.write(data[:half])
            if fault == "stall":
                self.wfile.flush()
                self.shared.released.wait(timeout=60)


def landing(url: str, *conforms: str) -> dict:
    """Return the landing page of an API below ``url`` that conforms to core, item search, and ``conforms``."""
    base = ["https://api.stacspec.org/v1.0.0/core", "https://api.stacspec.org/v1.0.0/item-search"]
    links = [
        {"rel": "self", "href": f"{url}/stac"},
        {"rel": "root", "href": f"{url}/stac"},
        {"rel": "search", "href": f"{url}/stac/search", "method": "POST", "type": "application/geo+json"},
    ]
    return {"type": "Catalog", "stac_version": "1.0.0", "id": "fault", "description": "x",
            "conformsTo": [*base, *conforms], "links": links}  # fmt: skip


class _Httpd(http.server.ThreadingHTTPServer):
    """Ends with its connections: what is kept alive would go on to be answered, in the middle of a later test."""

    daemon_threads = False  # so that server_close waits for them

    def __init__(self, *args: Any) -> None:
        self._open: set[socket.socket] = set()
        super().__init__(*args)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, *args: object) -> None:
        pass  # a client that breaks off is none of the test's concern

    def server_close(self) -> None:
        for one in list(self._open):
            with contextlib.suppress(OSError):  # it has just ended by itself
                socket.socket.shutdown(one, socket.SHUT_RDWR)
        super().server_close()


@contextlib.contextmanager
def serve(
    folder: Path, tls: ssl.SSLContext | None = None, address: str = "127.0.0.1"
) -> Iterator[FaultServer]:
    """Serve a folder on a free port of the loopback until the block ends; by https where ``tls`` is given.

    Ports come again, also from another tier that runs beside this one: where a request of somebody else or an answer
    that GDAL remembers would matter, give an ``address`` of the loopback that nobody else has.
    """
    shared = FaultServer(folder)
    httpd = _Httpd((address, 0), type("Handler", (_Handler,), {"shared": shared}))
    if tls is not None:
        httpd.socket = tls.wrap_socket(httpd.socket, server_side=True)
    shared.url = f"{'https' if tls else 'http'}://{address}:{httpd.server_port}"
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield shared
    finally:
        shared.released.set()
        httpd.shutdown()
        httpd.server_close()
        thread.join(timeout=10)
