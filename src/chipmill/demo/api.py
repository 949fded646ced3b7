"""The local STAC API: item search over static catalogs, and their files with HTTP ranges, on the loopback interface.

`make_app` is the application, `serve` runs it in a child process; what it answers is in `handlers`.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from chipmill.core.errors import BadInputError, ServerError
from chipmill.demo.engine import load_archive
from chipmill.demo.handlers import Site
from chipmill.demo.query import EXTENSIONS

LOOPBACK = ("127.0.0.1", "localhost", "::1")
READY = "ready"


async def _bad_input(_request: Request, error: Exception) -> Response:
    return JSONResponse({"code": "InvalidParameterValue", "description": str(error)}, 400)


async def _http_error(_request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    return JSONResponse({"code": str(status), "description": getattr(error, "detail", "")}, status)


def make_app(catalogs: list[Path], extensions: Collection[str] = tuple(EXTENSIONS)) -> Starlette:
    """Return the STAC API over the static catalogs in the folders `catalogs`; they are read now, once.

    It answers and claims those `extensions` (query, filter, sort, fields) and refuses the parameters of the others.
    Raises BadInputError as `load_archive` does, when two catalogs hold the same collection id, or for an extension
    that there is not.
    """
    site = Site(tuple(load_archive(folder) for folder in catalogs), extensions)
    one = "/collections/{collection}"
    routes = [
        Route("/", site.landing),
        Route("/conformance", site.conformance),
        Route("/api", site.description),
        Route("/queryables", site.queryables),
        Route("/collections", site.list_collections),
        Route(one, site.one_collection),
        Route(f"{one}/queryables", site.queryables),
        Route(f"{one}/items", site.collection_items),
        Route(f"{one}/items/{{item}}", site.one_item),
        Route("/search", site.search_get, methods=["GET"]),
        Route("/search", site.search_post, methods=["POST"]),
        Route("/data/{number:int}/{path:path}", site.data),
    ]
    return Starlette(
        routes=routes, exception_handlers={BadInputError: _bad_input, HTTPException: _http_error}
    )


@dataclass(frozen=True, slots=True)
class ApiServer:
    """A running STAC API."""

    url: str  # without a slash at the end


@contextmanager
def serve(
    catalogs: list[Path],
    host: str = "127.0.0.1",
    port: int = 0,
    extensions: Collection[str] = tuple(EXTENSIONS),
) -> Iterator[ApiServer]:
    """Serve the static catalogs in the folders `catalogs` while the context lasts; port 0 takes a free one.

    `extensions` are those of `make_app`: leave some out to be a server that knows less.

    The server is a process of its own: GDAL asks for some files without letting go of Python's lock, and would wait
    for ever for a server in a thread of the same process. It ends with the context, and with this process however
    that ends. Raises BadInputError for a host that is not this machine's loopback and for a catalog that cannot be
    read, ServerError when the port is taken or the server does not start.
    """
    if host not in LOOPBACK:
        raise BadInputError(f"STAC API: expected a loopback host, got {host!r}; use 127.0.0.1")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
            listener.listen()
        except OSError as error:
            raise ServerError(f"STAC API: {host}:{port} cannot be taken: {error}; use port 0") from error
        number = listener.getsockname()[1]
        child = _start_child(listener, catalogs, extensions)
    try:
        _await_ready(child)
        yield ApiServer(f"http://{f'[{host}]' if ':' in host else host}:{number}")
    finally:
        _end_child(child)


def _start_child(
    listener: socket.socket, catalogs: list[Path], extensions: Collection[str]
) -> subprocess.Popen[str]:
    handle = listener.fileno()
    folders = [str(folder.resolve()) for folder in catalogs]
    command = [sys.executable, "-m", __name__, str(handle), ",".join(extensions), *folders]
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        pass_fds=[handle],
        start_new_session=True,  # Ctrl-C is for us: the files must be there until we have finished with them
    )


def _await_ready(child: subprocess.Popen[str]) -> None:
    """Wait until `child` says READY; what else it says is why it cannot."""
    line = child.stdout.readline().strip() if child.stdout else ""
    if line == READY:
        return
    if line:
        raise BadInputError(line)
    raise ServerError(
        f"STAC API: the server ended with code {child.wait()} before it was ready; see its error above"
    )


def _end_child(child: subprocess.Popen[str]) -> None:
    with child:  # closes the pipes; the end of its standard input is the sign to stop
        if child.stdin:
            child.stdin.close()
        try:
            child.wait(timeout=10)
        except subprocess.TimeoutExpired:
            child.kill()


class _Server(uvicorn.Server):
    """uvicorn that says when it accepts requests, and stops when its standard input ends."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        threading.Thread(target=self._watch, daemon=True).start()
        await super().startup(sockets)
        sys.stdout.write(f"{READY}\n")
        sys.stdout.flush()

    def _watch(self) -> None:
        # a raw read: a thread that waits inside sys.stdin holds its lock and would break the interpreter's end
        while os.read(0, 1024):
            continue
        self.should_exit = True


def _run_child(handle: int, extensions: list[str], catalogs: list[Path]) -> None:
    """Serve `catalogs` on the inherited socket `handle` until standard input ends."""
    try:
        app = make_app(catalogs, extensions)
    except BadInputError as error:
        sys.stdout.write(f"{error}\n")
        return
    config = uvicorn.Config(
        app, lifespan="off", ws="none", log_config=None, access_log=False, timeout_graceful_shutdown=2
    )
    with socket.socket(fileno=handle) as listener:
        _Server(config).run([listener])


if __name__ == "__main__":
    names = [name for name in sys.argv[2].split(",") if name]
    _run_child(int(sys.argv[1]), names, [Path(folder) for folder in sys.argv[3:]])
