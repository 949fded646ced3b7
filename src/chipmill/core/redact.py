"""One redactor for everything that people read: logs, errors, artifacts, manifests, reports.

Query strings and credentials of URLs are cut, and the values of ``CHIPMILL_SECRET_*`` variables are replaced.
"""

import os
import re
from typing import Final

_URL: Final = re.compile(r"(?P<scheme>https?|s3|gs|az)://(?P<rest>[^\s'\"<>)\]]+)")
_MIN_SECRET: Final = 4
"""Shorter values would blank out ordinary words."""


def redact(text: str) -> str:
    """Return ``text`` without URL queries, credentials and the values of secret variables."""
    for name, value in os.environ.items():
        if name.startswith("CHIPMILL_SECRET_") and len(value) >= _MIN_SECRET:
            text = text.replace(value, f"<{name}>")
    return _URL.sub(_clean_url, text)


def _clean_url(match: re.Match[str]) -> str:
    rest = match["rest"]
    host, slash, path = rest.partition("/")
    host = host.rpartition("@")[2]
    clean, question, _ = (host + slash + path).partition("?")
    return f"{match['scheme']}://{clean}{'?...' if question else ''}"
