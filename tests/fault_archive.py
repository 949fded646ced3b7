"""A small HTTP server that serves files by ranges and answers as it is told to: for tests of reads and searches."""

import contextlib
import http.server
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from urllib.parse import parse_qs, urlsplit


class FaultServer:
    """What the handler shares with the test: faults to come, by path, and the requests so far."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.faults: dict[str, list[int | str]] = {}
        """Path -> answers still to be given before the right one: a status, "cut" or "html"."""
        self.search: Callable[[dict], dict] | None = None
        """Body or query of a search -> the page."""
        self.requests: list[str] = []
        self.allows: Callable[[str, Mapping[str, str]], bool] = lambda path, headers: True
        """Path with its query, and headers -> whether to answer; else 401, with both in it as careless servers do."""
        self.url = ""

    def fault(self, path: str) -> int | str | None:
        queue = self.faults.get(path)
        return queue.pop(0) if queue else None


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
        fault = server.fault(parts.path)
        if not server.allows(self.path, self.headers):
            told = {"code": "401", "description": f"{self.path} {dict(self.headers)}"}
            self._send(401, json.dumps(told).encode(), {"Content-Type": "application/json"})
        elif isinstance(fault, int):
            self._send(fault, b"{}", {"Retry-After": "0"} if fault in (429, 503) else {})
        elif fault == "html":
            self._send(200, b"<html>sign in</html>", {"Content-Type": "text/html"})
        elif parts.path == "/stac":
            self._json(_landing(server.url))
        elif parts.path == "/stac/search" and server.search is not None:
            query = {key: values[0] for key, values in parse_qs(parts.query).items()}
            self._json(server.search(body or query))
        else:
            self._file(server.folder / parts.path.lstrip("/"), cut=fault == "cut")

    def _json(self, value: dict) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _file(self, path: Path, *, cut: bool) -> None:
        if not path.is_file():
            self._send(404, b"", {})
            return
        data = path.read_bytes()
        wanted = self.headers.get("Range")
        if not wanted:
            self._send(200, data, {"Accept-Ranges": "bytes"}, cut=cut)
            return
        first, last = wanted.removeprefix("bytes=").split("-")
        part = data[int(first) : int(last) + 1 if last else None]
        place = f"bytes {first}-{int(first) + len(part) - 1}/{len(data)}"
        self._send(206, part, {"Content-Range": place, "Accept-Ranges": "bytes"}, cut=cut)

    def _send(self, status: int, data: bytes, headers: dict[str, str], *, cut: bool = False) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[: len(data) // 2] if cut else data)
        if cut:
            self.close_connection = True


def _landing(url: str) -> dict:
    conforms = ["https://api.stacspec.org/v1.0.0/core", "https://api.stacspec.org/v1.0.0/item-search"]
    links = [
        {"rel": "self", "href": f"{url}/stac"},
        {"rel": "root", "href": f"{url}/stac"},
        {"rel": "search", "href": f"{url}/stac/search", "method": "POST", "type": "application/geo+json"},
    ]
    return {"type": "Catalog", "stac_version": "1.0.0", "id": "fault", "description": "x", "conformsTo": conforms,
            "links": links}  # fmt: skip


@contextlib.contextmanager
def serve(folder: Path) -> Iterator[FaultServer]:
    """Serve a folder on a free port of the loopback until the block ends."""
    shared = FaultServer(folder)
    httpd = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), type("Handler", (_Handler,), {"shared": shared})
    )
    httpd.daemon_threads = True
    shared.url = f"http://127.0.0.1:{httpd.server_port}"
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield shared
    finally:
        httpd.shutdown()
        httpd.server_close()
        thread.join(timeout=10)
