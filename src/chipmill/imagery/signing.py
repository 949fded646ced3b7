"""What an asset's URL or request gets when it is read, and not before: a signature, or a login for its host.

Items keep bare hrefs; what is added here lives for minutes and is never stored. ``planetary-computer``: a token per
container, fetched from the service that ``PC_SDK_SAS_URL`` names (default: Microsoft's), taken anew a minute before
it ends and when a server no longer takes it. ``earthdata``: a bearer token, sent to NASA's own hosts alone. ``s3``: a
signature of the store's login, for what lies in the store (:mod:`.stores`).
"""

import dataclasses
import datetime as dt
import os
import re
import threading
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

from chipmill.core.errors import AssetReadError, TransientReadError
from chipmill.core.redact import redact
from chipmill.imagery.auth import secret
from chipmill.imagery.reach import Reach, Root, auth_of, origin, reach_of
from chipmill.imagery.stores import holds, presigned
from chipmill.region.fields import Auth

SAS_URL: Final = "https://planetarycomputer.microsoft.com/api/sas/v1/token"
_BLOBS: Final = ".blob.core.windows.net"
_OPEN: Final = "ai4edatasetspublicassets"
"""The account of thumbnails: its containers are read without a token."""
_EARTHDATA: Final = (".earthdata.nasa.gov", ".earthdatacloud.nasa.gov")
_PART: Final = re.compile(r"[A-Za-z0-9$-]{1,63}")
_TOKEN: Final = re.compile(r"[A-Za-z0-9%&=._:+/~-]{1,4096}")
_SPARE: Final = dt.timedelta(seconds=60)


@dataclasses.dataclass(frozen=True, slots=True)
class _Token:
    query: str = dataclasses.field(repr=False)
    ends: dt.datetime


_tokens: Final[dict[tuple[str, str], _Token]] = {}
"""(service, account/container) -> its token, in this process only."""
_lock: Final = threading.Lock()


def sign(location: str) -> str:
    """Return the URL that a location is read by: as it is, or with the token of its container as query.

    Raises:
        TransientReadError: the service gave no token now.
        AssetReadError: the service knows no such container, or answered something else than a token.
    """
    if _in_store(location):
        return presigned(location)
    container = _container(location)
    if container is None:
        return location
    key = (_service(), container)
    with _lock:
        token = _tokens.get(key)
        if token is None or token.ends - _SPARE <= dt.datetime.now(dt.UTC):
            token = _tokens[key] = _fetch(*key, auth_of(location))
    parts = urlsplit(location)
    return urlunsplit(parts._replace(query="&".join(filter(None, (parts.query, token.query)))))


def signed(location: str) -> bool:
    """Tell whether a location is read with a signature, which a server may refuse although it was right before."""
    return _in_store(location) or _container(location) is not None


def forget(location: str) -> None:
    """Let the next :func:`sign` of a location fetch a new token."""
    container = _container(location)
    if container is not None:
        with _lock:
            _tokens.pop((_service(), container), None)


def login(location: str) -> tuple[str, str] | None:
    """Return name and value of the header that logs in at a location's host; None where there is none."""
    auth = auth_of(location)
    if auth.kind != "earthdata":
        return None
    scheme, host, _ = origin(location)
    # http would show the secret to everyone on the way; curl drops this header where a server leads to another host.
    there = scheme == "https" and host.endswith(_EARTHDATA)
    return ("Authorization", f"Bearer {secret(auth)}") if there else None


def reach_signed(location: str) -> Reach:
    """Return where a request with a signature may be led: to the host of the location alone."""
    _, host, port = origin(location)
    reach = reach_of(location)
    return dataclasses.replace(reach, only=(host, port))


def _in_store(location: str) -> bool:
    return auth_of(location).kind == "s3" and holds(location)


def _container(location: str) -> str | None:
    """Return ``account/container`` of a location that needs a token, else None."""
    if auth_of(location).kind != "planetary-computer":
        return None
    host = origin(location)[1]
    account, container = host.removesuffix(_BLOBS), urlsplit(location).path.lstrip("/").partition("/")[0]
    if not host.endswith(_BLOBS) or account == _OPEN:
        return None
    return f"{account}/{container}" if _PART.fullmatch(account) and _PART.fullmatch(container) else None


def _service() -> str:
    return (os.environ.get("PC_SDK_SAS_URL") or SAS_URL).rstrip("/")


def _fetch(service: str, container: str, auth: Auth) -> _Token:
    from requests import RequestException, Session
    from urllib3.util import Retry

    from chipmill.imagery.api import RETRY, TIMEOUT_S
    from chipmill.imagery.session import source_session

    _, host, port = origin(service)
    key = Auth(kind="header", name="Ocp-Apim-Subscription-Key", env=auth.env) if auth.env else Auth()
    what = f"the token of {container} from {redact(service)}"
    with Session() as session:
        source_session(session, Root(service, Reach(host, (), (host, port)), key), Retry(**RETRY))
        try:
            answer = session.get(f"{service}/{container}", timeout=TIMEOUT_S)
        except RequestException as error:
            raise TransientReadError(
                f"{what} did not come ({redact(str(error))}): try again later"
            ) from error
    if not answer.ok:
        raise AssetReadError(
            f"{what} was refused (HTTP {answer.status_code}): check that the asset is one of the Planetary Computer's"
        )
    return _token(answer, what)


def _token(answer: Any, what: str) -> _Token:
    try:
        told = answer.json()
        query, ends = str(told["token"]), dt.datetime.fromisoformat(str(told["msft:expiry"]))
    except (ValueError, KeyError, TypeError) as error:
        raise AssetReadError(f"{what} is no token with an expiry: check PC_SDK_SAS_URL") from error
    if not _TOKEN.fullmatch(query) or ends.tzinfo is None:
        raise AssetReadError(f"{what} is no token with an expiry: check PC_SDK_SAS_URL")
    return _Token(query, ends)
