"""What a href of a catalog may be, and where it leads: http(s), or a file below the folder of a local catalog.

Nothing else is ever handed to GDAL, whose file names can be commands (``/vsizip/``, ``GTIFF_DIR:``, ``zip://``). Hosts
are checked here by name, and by address where they are connected to (:mod:`chipmill.imagery.reach`).
"""

import os
import re
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, urlencode, urljoin, urlsplit, urlunsplit

from chipmill.core.errors import ItemSearchError
from chipmill.core.redact import redact, secret_parameter
from chipmill.imagery.reach import Location, Reach, Root, auth_of, origin, reach_of
from chipmill.imagery.stores import folder_url, is_store
from chipmill.region.config import Region
from chipmill.region.fields import Auth, Source
from chipmill.region.patterns import source_file

_HOST: Final = re.compile(r"[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]")
"""Plain names and addresses: what curl and Python read alike. No percent, no wide letters, no zones."""
_UNSAFE: Final = re.compile(r"[\x00-\x20\x7f\\]")
_MAX_CHARS: Final = 8192
_NO_URL: Final = "is no URL: its host or port cannot be meant"
"""Without Python's own words, which repeat what stands in the place of the port: a part of a password."""


def source_path(region: Region, source: Source) -> Path:
    """Return the absolute path in whose folder the hrefs of a source on disk begin, without ``..``.

    That of its file, or a name in the folder of its pattern; paths can be compared by text.
    """
    return Path(os.path.normpath(region.resolve(source_file(source))))


def source_root(region: Region, source: Source, auth: Auth | None = None) -> Root:
    """Return the root of a source: the URL of its API or of its folder in a store, or the absolute folder of its files.

    ``auth`` is that of the imagery entry; its secret is read where it is sent, never before.
    """
    home = source.stac or (folder_url(source.items) if source.items and is_store(source.items) else None)
    auth = auth or Auth()
    if home is None:
        folder = str(source_path(region, source).parent)
        return Root(folder, Reach("", region.allow_hosts), auth if auth.at_assets else Auth())
    _, host, port = origin(home)
    only = (host, port) if auth.kind in ("header", "query") else None
    return Root(home, Reach(host, region.allow_hosts, only), auth)


def is_url(text: str) -> bool:
    """Tell whether a href or root is http(s)."""
    return text[:8].lower().startswith(("http://", "https://", "http:", "https:"))


def relative_href(root: str, base: str, href: str) -> str:
    """Return an asset's href as it is stored: unsigned, and relative to the root where it lies below it.

    Args:
        root: URL or absolute folder of the source.
        base: URL or absolute path of the document that holds ``href``.
        href: as written in the item.

    Raises:
        ItemSearchError: a scheme or host that is not read, or a local file outside the root.
    """
    if is_url(href) or is_url(base):
        url = _unsigned(_checked_url(_joined(base, href), root), auth_of(root).name)
        return _relative_url(url, root)
    return _as_path(Path(_checked_path(root, base, href)).relative_to(root).as_posix())


def resolve_href(root: str, href: str) -> Location:
    """Return the URL or absolute path of a stored href; raises ItemSearchError as :func:`relative_href` does."""
    if is_url(root) or is_url(href):
        text = _checked_url(_joined(root.rstrip("/") + "/", href), root)
    else:
        text = _checked_path(root, f"{root}/catalog.json", href)
    return Location(text, reach_of(root), auth_of(root))


def _joined(base: str, href: str) -> str:
    try:
        return urljoin(base, href)
    except ValueError as error:
        raise _refused(href, _NO_URL) from error


def _checked_url(url: str, root: str) -> str:
    if len(url) > _MAX_CHARS or _UNSAFE.search(url):
        raise _refused(url, "holds blanks, control characters or backslashes, or is too long")
    try:
        parts = urlsplit(url)
        scheme, host, port = origin(url)
    except ValueError as error:
        raise _refused(url, _NO_URL) from error
    if scheme not in ("http", "https") or not host:
        raise _refused(url, "is not http(s): other schemes are not read")
    if "@" in parts.netloc:
        raise _refused(url, "holds a user or password: give the secret by auth of the imagery")
    if not _HOST.fullmatch(parts.netloc.rpartition(":")[0] if parts.port is not None else parts.netloc):
        raise _refused(url, "has a host that is not plain ASCII: write it as it is in the DNS")
    reach = reach_of(root)
    # An open source's asset may lie on another public host; whether the secret goes there is decided at the read.
    if why := Reach(reach.home, reach.allow_hosts).refusal(host, port):
        raise _refused(url, f"of the catalog {redact(root)} leads to a private host: {why}")
    return url


def _checked_path(root: str, base: str, href: str) -> str:
    if urlsplit(href).scheme.lower() == "file" and not urlsplit(href).netloc:
        href = urlsplit(href).path
    elif re.match(r"[A-Za-z0-9_+.-]+:", href) or href.startswith(("/vsi", "\\", "//")) or "\0" in href:
        raise _refused(href, "has a scheme that is not read: expected http(s), or a file below the catalog")
    # by text: pathlib takes ten times as long, and every band of every slot asks
    path = os.path.normpath(href if href.startswith("/") else f"{base.rpartition('/')[0]}/{href}")
    if is_url(root) or not path.startswith(os.path.normpath(root).rstrip("/") + "/"):
        raise _refused(
            href,
            f"leads outside {redact(root)}: a catalog may name only files below its own folder: "
            "move them there, or the catalog up",
        )
    return path


def _refused(href: str, why: str) -> ItemSearchError:
    return ItemSearchError(f"the href {redact(href[:200])!r} {why}")


def _relative_url(url: str, root: str) -> str:
    """Below the root's path relative to it, on the same host from the slash on, else the whole URL."""
    one, base = urlsplit(url), urlsplit(root)
    if (one.scheme, one.netloc) != (base.scheme, base.netloc):
        return url
    folder = base.path.rstrip("/") + "/"
    path = one.path.removeprefix(folder) if one.path.startswith(folder) else one.path
    return _as_path(urlunsplit(("", "", path, one.query, "")))


def _as_path(href: str) -> str:
    """Return a relative href that is none of a scheme, also where its first name holds a colon (RFC 3986, 4.2)."""
    return f"./{href}" if ":" in href.partition("/")[0] else href


def _unsigned(url: str, own: str | None) -> str:
    """Cut signatures and credentials off, also what a catalog has put there of the parameter ``own`` of our auth."""
    parts = urlsplit(url)
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    kept = [(key, value) for key, value in pairs if key != own and not secret_parameter(key)]
    return url if len(kept) == len(pairs) else urlunsplit(parts._replace(query=urlencode(kept)))
