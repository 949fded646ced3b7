"""Who asks a source: the secret of ``auth``, read from the environment where it is sent, and to the source's origin only."""

import os
import re
from typing import Final
from urllib.parse import quote, urlsplit, urlunsplit

from chipmill.core.errors import BadInputError
from chipmill.imagery.reach import Reach, auth_of, origin, reach_of
from chipmill.region.fields import Auth

_BREAKS: Final = re.compile(r"[\x00-\x1f\x7f]")


def secret(auth: Auth) -> str:
    """Return the secret; raises BadInputError where the variable is not set or holds line breaks. Never store it."""
    value = os.environ.get(auth.env or "", "")
    if not value or _BREAKS.search(value):
        raise BadInputError(
            f"the variable {auth.env} is {'not one line' if value else 'not set'}, but auth of an imagery names it: "
            "set it where this process and the workers start"
        )
    return value


def asks(url: str, root: str) -> bool:
    """Tell whether the secret of a root's source belongs to a URL: same scheme, host and port."""
    reach = reach_of(root)
    if auth_of(root).kind == "none" or reach.only is None:
        return False
    scheme, host, port = origin(url)
    # http would show the secret to everyone on the way; a loopback has no way.
    return (host, port) == reach.only and (scheme == "https" or origin(root)[0] == "http")


def header(url: str, root: str) -> tuple[str, str] | None:
    """Return name and value of the header that a request to ``url`` carries, or None."""
    auth = auth_of(root)
    return (str(auth.name), secret(auth)) if auth.kind == "header" and asks(url, root) else None


def with_query(url: str, root: str) -> str:
    """Return ``url`` with the secret in its query, where its source wants it there."""
    auth = auth_of(root)
    if auth.kind != "query" or not asks(url, root):
        return url
    parts = urlsplit(url)
    pair = f"{auth.name}={quote(secret(auth), safe='')}"
    return urlunsplit(parts._replace(query=f"{parts.query}&{pair}" if parts.query else pair))


def reach_for(url: str, root: str) -> Reach:
    """Return where a request to ``url`` may be led: with a secret to its origin alone, else as far as the source may."""
    reach = reach_of(root)
    return reach if asks(url, root) else Reach(reach.home, reach.allow_hosts)
