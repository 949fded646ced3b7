"""A loopback object store: the few calls of S3 that reading needs, over the files of a folder, bucket by bucket."""

import contextlib
import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Store:
    """What a test sees of the server."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = ""
        self.requests: list[tuple[str, str, str | None, str]] = []
        """Method, path, Range and signature (query or header) of each request."""
        self.login = ""
        """Access key that alone is answered; "" = the buckets are public."""
        self.broken = 0
        """So many requests are answered by 503 first."""
        self.half = ""
        """cut: bodies end in the middle; short: they are half of what was asked for, and say so;
        other: they are of another range; stall: half, then silence; html: a page instead."""
        self.end = threading.Event()
        """Set at the end: wakes who stalls."""


class Handler(http.server.BaseHTTPRequestHandler):
    """One request of S3; the server holds the store."""

    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self._answer()

    def do_GET(self):
        self._answer()

    def _answer(self):
        store: Store = self.server.store
        parts = urlsplit(self.path)
        asked = unquote(parts.query) + self.headers.get("Authorization", "")
        store.requests.append((self.command, parts.path, self.headers.get("Range"), asked))
        path = store.folder / unquote(parts.path).lstrip("/")
        if store.broken > 0:
            store.broken -= 1
            self._error(503, "SlowDown")
        elif store.login and f"Credential={store.login}/" not in asked:
            self._error(403, "AccessDenied")
        elif store.half == "html":
            self._send(200, b"<html>we are sorry</html>")
        elif path.is_file():
            self._part(path.read_bytes())
        else:
            self._error(404, "NoSuchKey")

    def _part(self, data):
        whole, wanted = len(data), self.headers.get("Range")
        if wanted is None:
            return self._send(200, data)
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        start = int(first) if first else max(0, whole - int(last))
        end = min(int(last), whole - 1) if first and last else whole - 1
        if self.server.store.half == "short":
            end = (start + end) // 2
        if self.server.store.half == "other":
            start, end = start // 2, end // 2
        return self._send(
            206,
            data[start : end + 1],
            **{"Content-Range": f"bytes {start}-{end}/{whole}", "ETag": _tag(data)},
        )

    def _error(self, status, code):
        self._send(status, f"<Error><Code>{code}</Code></Error>".encode())

    def _send(self, status, data, **extra):
        self.send_response(status)
        fixed = {"Accept-Ranges": "bytes"}
        for name, value in {"Content-Length": str(len(data)), **fixed, **extra}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            broken = self.server.store.half in ("cut", "stall")
            self.wfile.write(data[: len(data) // 2] if broken else data)
            self.close_connection = broken
            if self.server.store.half == "stall":
                self.server.store.end.wait(60)

    def log_message(self, *_):
        pass


def _tag(data):
    return f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'


@contextlib.contextmanager
def serve_store(folder: Path) -> Iterator[Store]:
    """Serve ``folder/<bucket>/<key>`` as ``<url>/<bucket>/<key>`` on a free port of the loopback."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    store = server.store = Store(folder)
    store.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield store
    finally:
        store.end.set()
        server.shutdown()
        server.server_close()
        thread.join()
