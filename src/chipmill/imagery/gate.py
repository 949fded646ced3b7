"""The gate that GDAL's reads go through: a SOCKS5 listener of this process that connects only where a source may go.

GDAL follows redirects to any host and resolves names by itself; it has no setting against either. So curl is told to
ask this listener for each connection, with the name that it wants, and :class:`Reach` decides at the connection. TLS
stays between GDAL and the server; of plain http the ranges are compared (:mod:`.ranges`), all else passes unread. The
listener is on the loopback, and a random password, sent with the name of the reach, keeps others out of it.
"""

import contextlib
import hmac
import os
import secrets
import select
import selectors
import socket
import struct
import threading
import time
import urllib.request
from collections import deque
from typing import Final

from chipmill.imagery import hosts
from chipmill.imagery.ranges import RangeCheck, WrongRangeError
from chipmill.imagery.reach import ForbiddenHostError, Reach

_CONNECT_S: Final = 10.0
_IDLE_S: Final = 300.0
_QUIET_S: Final = 0.2
_TURN_S: Final = 60.0
_CHUNK: Final = 1 << 18
_REFUSED, _UNREACHABLE, _DONE = 2, 4, 0


class Gate:
    """One listener; made on first use, once per process."""

    def __init__(self) -> None:
        hosts.prepare()  # here, where its error is heard, and not in the threads that need it
        self.pid = os.getpid()
        self._password = secrets.token_hex(16)
        self._reaches: dict[str, Reach] = {}
        self._names: dict[Reach, str] = {}
        self._refusals: deque[tuple[str, str]] = deque(maxlen=64)
        self._complaints: deque[tuple[str, float, str]] = deque(maxlen=64)
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        threading.Thread(target=self._serve, name="chipmill-gate", daemon=True).start()

    def options(self, reach: Reach) -> dict[str, str]:
        """Return the GDAL settings of an open that may connect to ``reach`` alone."""
        with self._lock:
            name = self._names.setdefault(reach, f"r{len(self._names)}")
            self._reaches[name] = reach
        port = self._listener.getsockname()[1]
        return {
            "GDAL_HTTP_PROXY": f"socks5h://127.0.0.1:{port}",
            "GDAL_HTTPS_PROXY": f"socks5h://127.0.0.1:{port}",
            "GDAL_HTTP_PROXYUSERPWD": f"{name}:{self._password}",
        }

    def refusal(self, reach: Reach) -> str:
        """Return, and forget, why the last connection of a reach was refused; "" where none was."""
        name = self._names.get(reach)
        with self._lock:
            for one in reversed(self._refusals):
                if one[0] == name:
                    self._refusals.remove(one)
                    return one[1]
        return ""

    def complaint(self, reach: Reach, since: float) -> str:
        """Return why an answer to a reach was cut off since a time (of time.monotonic()); "" where none was."""
        name = self._names.get(reach)
        with self._lock:
            found = [text for one, at, text in self._complaints if one == name and at >= since]
        return found[-1] if found else ""

    def close(self) -> None:
        """Stop listening; what is connected stays so until it ends."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return  # closed
            threading.Thread(target=self._handle, args=(client,), name="chipmill-gate", daemon=True).start()

    def _handle(self, client: socket.socket) -> None:
        # A broken connection is GDAL's to report: it sees its own side break.
        with client, contextlib.suppress(OSError, ValueError, EOFError):
            client.settimeout(_CONNECT_S)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            name = self._greet(client)
            host, port = _wanted(client)
            try:
                server = self._reaches[name].connect(host, port, _CONNECT_S)
            except ForbiddenHostError as error:
                with self._lock:
                    self._refusals.append((name, str(error)))
                _reply(client, _REFUSED)
                return
            except OSError:
                _reply(client, _UNREACHABLE)
                return
            with server, hosts.Turn(host, port) as turn:
                _reply(client, _DONE)
                try:
                    _pump(client, server, turn)
                except (WrongRangeError, hosts.NoTurnError) as error:
                    with self._lock:
                        self._complaints.append((name, time.monotonic(), str(error)))

    def _greet(self, client: socket.socket) -> str:
        """Do the SOCKS5 greeting with user and password (RFC 1928, 1929); return the name of the reach."""
        _take(client, _take(client, 2)[1])
        client.sendall(b"\x05\x02")
        name = _take(client, _take(client, 2)[1]).decode()
        password = _take(client, _take(client, 1)[0])
        known = name in self._reaches and hmac.compare_digest(password, self._password.encode())
        client.sendall(b"\x01\x00" if known else b"\x01\x01")
        if not known:
            raise ValueError("a stranger asked the gate")
        return name


def _wanted(client: socket.socket) -> tuple[str, int]:
    version, command, _, kind = _take(client, 4)
    if (version, command) != (5, 1):
        raise ValueError("only CONNECT is served")
    if kind == 3:
        host = _take(client, _take(client, 1)[0]).decode("ascii")
    else:
        family, size = (socket.AF_INET, 4) if kind == 1 else (socket.AF_INET6, 16)
        host = socket.inet_ntop(family, _take(client, size))
    return host, struct.unpack("!H", _take(client, 2))[0]


def _take(client: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = client.recv(count - len(data))
        if not part:
            raise EOFError
        data += part
    return data


def _reply(client: socket.socket, code: int) -> None:
    client.sendall(bytes((5, code, 0, 1, 0, 0, 0, 0, 0, 0)))


def _pump(client: socket.socket, server: socket.socket, turn: hosts.Turn) -> None:
    """Pass bytes both ways until both sides ended, one broke, or nothing came for a while.

    Bytes to the server after bytes from it begin a request, which waits for its turn; the turn ends with the answer,
    that is once the server has been quiet for a moment. GDAL gives up by its own timeouts while it waits.

    Raises WrongRangeError, before it reaches the client, for an answer that is not what was asked for, and
    NoTurnError where no turn became free.
    """
    last: socket.socket | None = None
    buffer = memoryview(bytearray(_CHUNK))
    check = RangeCheck()
    ways = {client: (server, check.sent), server: (client, check.received)}
    for end in ways:
        end.settimeout(_IDLE_S)
    with selectors.DefaultSelector() as ready:
        for end in ways:
            ready.register(end, selectors.EVENT_READ)
        while ready.get_map():
            answered = turn.held and last is server
            events = ready.select(_QUIET_S if answered else _IDLE_S)
            if not events and answered:
                turn.give()
                continue
            if not events:
                return
            for key, _ in events:
                end = client if key.fileobj is client else server
                other, look = ways[end]
                count = end.recv_into(buffer)
                if count:
                    if end is client and last is not client:
                        turn.give()  # others may have waited longer
                        turn.take(_TURN_S, lambda: not _gone(client))
                    last = end
                    look(buffer[:count])
                    other.sendall(buffer[:count])
                    continue
                ready.unregister(end)
                other.shutdown(socket.SHUT_WR)


def _gone(client: socket.socket) -> bool:
    """Tell whether a client hung up while its request waits: then nobody wants the answer."""
    # A socket with a timeout waits in recv whatever its flags say, so it is asked first.
    look = select.poll()
    look.register(client, select.POLLIN)
    return bool(look.poll(0)) and client.recv(1, socket.MSG_PEEK) == b""


_gate: Gate | None = None
_made: Final = threading.Lock()


def gate() -> Gate:
    """Return the gate of this process; a forked one makes its own."""
    global _gate  # noqa: PLW0603 - one listener per process
    with _made:
        if _gate is None or _gate.pid != os.getpid():
            _forget_no_proxy()
            _gate = Gate()
        return _gate


def close_gate() -> None:
    """Close this process's gate; a later read opens another, files that are open can be read no further."""
    global _gate  # noqa: PLW0603 - see gate
    with _made:
        if _gate is not None and _gate.pid == os.getpid():
            _gate.close()
        _gate = None


def proxied(url: str) -> bool:
    """Tell whether the environment sends a URL through a proxy: then that one connects, and its rules hold."""
    scheme, _, rest = url.partition("://")
    proxies = urllib.request.getproxies()
    host = rest.partition("/")[0].rpartition("@")[2].partition(":")[0]
    named = proxies.get(scheme.lower()) or proxies.get("all")
    return bool(named) and not urllib.request.proxy_bypass(host)


def _forget_no_proxy() -> None:
    """curl would go around the gate for the hosts of ``no_proxy``; without a proxy that variable does nothing else."""
    if not set(urllib.request.getproxies()) - {"no"}:
        for name in ("no_proxy", "NO_PROXY"):
            os.environ.pop(name, None)
