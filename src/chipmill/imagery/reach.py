"""Which hosts a source may lead to, and the one place that connects: the address connected to is the one checked.

A catalog is not trusted. It may lead to any public host, to the host that the region file names, and to what
``allow_hosts`` opens; never to another machine of the private network, the loopback or a cloud's metadata service,
by whatever name. A source that gets a secret leads to its own origin alone.
"""

import dataclasses
import ipaddress
import socket
from typing import Final, Self
from urllib.parse import urlsplit

from chipmill.region.fields import Auth

_PRIVATE_NAMES: Final = (".localhost", ".local", ".internal", ".lan", ".home.arpa")
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")
_PORTS: Final = {"http": 80, "https": 443}

type Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class ForbiddenHostError(OSError):
    """A connection that a source may not make; its text says which and why."""


@dataclasses.dataclass(frozen=True, slots=True)
class Reach:
    """What one source may be connected to."""

    home: str = ""
    """Host that the region file names; "" for a catalog on disk."""
    allow_hosts: tuple[str, ...] = ()
    """More hosts that may be private."""
    only: tuple[str, int] | None = None
    """Host and port that alone may be connected to: a secret travels."""

    def refusal(self, host: str, port: int) -> str:
        """Return why a host and port may not be asked for, by their names; "" where they may."""
        host = plain_host(host)
        if self.only is not None and (host, port) != self.only:
            return (
                f"{host}:{port} is not {self.only[0]}:{self.only[1]}, which alone may see the source's secret"
            )
        if host not in (self.home, *self.allow_hosts) and private_name(host):
            return f"{host} is a private host: name it in allow_hosts if it is yours"
        return ""

    def address_refusal(self, host: str, address: str) -> str:
        """Return why a host may not be connected to at an address that it has; "" where it may."""
        host = plain_host(host)
        own = host in self.allow_hosts or (host == self.home and private_name(host))
        if own or public_address(ipaddress.ip_address(address.partition("%")[0])):
            return ""
        return f"{host} has the private address {address}: name it in allow_hosts if it is yours"

    def connect(self, host: str, port: int, timeout_s: float) -> socket.socket:
        """Return a connection to the first address of a host that answers, each checked before.

        Raises ForbiddenHostError where the name or all of its addresses are refused, OSError as sockets do.
        """
        host = plain_host(host)
        if why := self.refusal(host, port):
            raise ForbiddenHostError(why)
        last: OSError = OSError(f"{host} has no address")
        for family, kind, protocol, _, place in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            if why := self.address_refusal(host, str(place[0])):
                last = ForbiddenHostError(why)
                continue
            connection = socket.socket(family, kind, protocol)
            try:
                connection.settimeout(timeout_s)
                connection.connect(place)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except OSError as error:
                connection.close()
                last = error
                continue
            return connection
        raise last


def plain_host(host: str) -> str:
    """Return a host in lower case, without brackets and final dot."""
    return host.lower().strip("[]").rstrip(".")


def origin(url: str) -> tuple[str, str, int]:
    """Return scheme, host and port of a URL."""
    parts = urlsplit(url)
    scheme = parts.scheme.lower()
    return scheme, plain_host(parts.hostname or ""), parts.port or _PORTS.get(scheme, 0)


def private_name(host: str) -> bool:
    """Tell whether a host is private by its name: a private address in any notation, or a name without a domain."""
    address = literal_address(host)
    if address is not None:
        return not public_address(address)
    return "." not in host or host.endswith(_PRIVATE_NAMES)


def literal_address(host: str) -> Address | None:
    """Return the address that a host is written as, also as ``127.1``, ``0x7f.1`` or ``2130706433``; None for a name."""
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        pass
    try:
        return ipaddress.IPv4Address(socket.inet_aton(host))
    except (OSError, UnicodeEncodeError):
        return None


def public_address(address: Address) -> bool:
    """Tell whether an address lies in the public network, seen through what carries IPv4 in IPv6."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo and address.teredo[1])
        if inner is None and address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return public_address(inner)
    return address.is_global and not address.is_multicast


class Root(str):
    """The root of a source, that also knows where the source may lead and who asks it; only its text is stored."""

    __slots__ = ("auth", "reach")
    reach: Reach
    auth: Auth

    def __new__(cls, text: str, reach: Reach, auth: Auth) -> Self:
        """Return a text with what belongs to it."""
        made = super().__new__(cls, text)
        made.reach, made.auth = reach, auth
        return made

    def __reduce__(self) -> tuple[type[Self], tuple[str, Reach, Auth]]:
        """Keep both on the way to another process."""
        return type(self), (str(self), self.reach, self.auth)


class Location(Root):
    """The URL or path of one asset, with what its source may do."""

    __slots__ = ()


def reach_of(root: str) -> Reach:
    """Return where a root or location may lead: its own reach, else that of the host in its text alone."""
    return root.reach if isinstance(root, Root) else Reach(home=origin(root)[1])


def auth_of(root: str) -> Auth:
    """Return who asks a root or location."""
    return root.auth if isinstance(root, Root) else Auth()
