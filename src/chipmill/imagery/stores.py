"""Object stores: where an object (s3://bucket/key) is on the web, and who asks for it. :mod:`.objects` reads it.

Which store that is, and who asks it, is said by the environment of whoever operates the process, never by a region
file: the endpoint by ``AWS_ENDPOINT_URL_S3`` or ``AWS_ENDPOINT_URL`` (without them Amazon's), its region by
``AWS_REGION``, the login by two ``CHIPMILL_SECRET_*`` variables, used where a source has ``auth: {kind: s3}``. All is
read as from any other catalog: over http(s), where the source may lead.
"""

import datetime as dt
import hashlib
import hmac
import os
import re
from typing import Final
from urllib.parse import parse_qsl, quote, unquote, urlsplit, urlunsplit

from chipmill.core.errors import BadInputError
from chipmill.region.fields import S3_LOGIN
from chipmill.region.patterns import STORE_PATTERN

_ENDPOINTS: Final = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
_REGIONS: Final = ("AWS_REGION", "AWS_DEFAULT_REGION")
_REGION: Final = re.compile(r"[a-z0-9-]{1,40}")
_ALGORITHM: Final = "AWS4-HMAC-SHA256"
_VALID_S: Final = 3600
_STEP_MINUTES: Final = 10


def is_store(text: str) -> bool:
    """Tell whether a source's ``items`` names an object of a store."""
    return re.fullmatch(STORE_PATTERN, text) is not None


def object_url(place: str) -> str:
    """Return the http(s) URL of ``s3://bucket/key``, by path below the store's endpoint.

    Raises BadInputError where the environment names an endpoint or a region that cannot be one.
    """
    return f"{_endpoint()}/{quote(place.removeprefix('s3://'))}"


def folder_url(place: str) -> str:
    """Return the URL of the folder of ``s3://bucket/key``, with a slash at its end; raises as :func:`object_url`."""
    return object_url(place).rpartition("/")[0] + "/"


def login_hint() -> str:
    """Return what to look at where an object cannot be read, for the end of a sentence."""
    return (
        f"check the name, the variables {_ENDPOINTS[0]} and {_REGIONS[0]}, and where it is not public auth of kind s3 with "
        f"{S3_LOGIN[0]} and {S3_LOGIN[1]}"
    )


def holds(url: str) -> bool:
    """Tell whether a URL lies in the store."""
    return url.startswith(f"{_endpoint()}/")


def presigned(url: str, now: dt.datetime | None = None) -> str:
    """Return a URL of the store with a signature in its query that allows to read it (GET) for an hour.

    After "Authenticating Requests: Using Query Parameters (AWS Signature Version 4)" of Amazon S3's API reference. The
    time signed is the last full ten minutes, so that one object keeps one URL for a while, which caches go by. Raises
    BadInputError where there is no login.
    """
    login = [os.environ.get(name, "") for name in S3_LOGIN]
    if not all(login):
        raise BadInputError(
            f"auth of kind s3 needs a login, and {S3_LOGIN[0]} or {S3_LOGIN[1]} is not set: set both where this process "
            "and the workers start, or leave auth out for a public bucket"
        )
    now = now or dt.datetime.now(dt.UTC)
    stamp = f"{now.replace(minute=now.minute // _STEP_MINUTES * _STEP_MINUTES, second=0):%Y%m%dT%H%M%SZ}"
    scope = f"{stamp[:8]}/{_region()}/s3/aws4_request"
    fields = {
        "X-Amz-Algorithm": _ALGORITHM,
        "X-Amz-Credential": f"{login[0]}/{scope}",
        "X-Amz-Date": stamp,
        "X-Amz-Expires": str(_VALID_S),
        "X-Amz-SignedHeaders": "host",
    }
    parts = urlsplit(url)
    given = [*parse_qsl(parts.query, keep_blank_values=True), *fields.items()]
    query = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in sorted(given))
    path = quote(unquote(parts.path), safe="/-_.~")
    asked = "\n".join(("GET", path, query, f"host:{parts.netloc}", "", "host", "UNSIGNED-PAYLOAD"))
    told = "\n".join((_ALGORITHM, stamp, scope, hashlib.sha256(asked.encode()).hexdigest()))
    key = f"AWS4{login[1]}".encode()
    for part in (*scope.split("/"), told):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return urlunsplit(parts._replace(path=path, query=f"{query}&X-Amz-Signature={key.hex()}"))


def _endpoint() -> str:
    """Return the URL of the store without a slash at its end."""
    given = next((value for name in _ENDPOINTS if (value := os.environ.get(name))), None)
    url = (given or f"https://s3.{_region()}.amazonaws.com").rstrip("/")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc or parts.query:
        raise BadInputError(
            f"{_ENDPOINTS[0]} is no http(s) URL of a store without login: set it to one like https://s3.example.org"
        )
    return url


def _region() -> str:
    region = next((value for name in _REGIONS if (value := os.environ.get(name))), "us-east-1")
    if not _REGION.fullmatch(region):
        raise BadInputError(f"{_REGIONS[0]} is no name of a store's region: expected one like us-east-1")
    return region
