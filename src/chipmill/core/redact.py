"""One redactor for everything that people read: logs, errors, artifacts, manifests, reports.

Query strings and credentials of URLs are cut, the values of ``CHIPMILL_SECRET_*`` variables are replaced, and so is
what follows ``Bearer`` or ``Basic``. :func:`install` puts it on every log record of a process, exceptions included.
"""

import logging
import os
import re
import sys
import threading
import traceback
from types import TracebackType
from typing import Any, Final
from urllib.parse import parse_qsl, quote, quote_plus, urlsplit

SECRET_PREFIX: Final = "CHIPMILL_SECRET_"  # noqa: S105 - a name
"""Secrets come in variables of this name, and no others are sent anywhere."""
SIGNATURE: Final = re.compile(
    r"^(sig|se|sp|sv|sr|st|spr|sk[a-z]+|x-(amz|goog)-.*|signature|expires|key-pair-id)$", re.IGNORECASE
)
"""Names of query parameters that sign a URL for a while."""

_URL: Final = re.compile(r"(?P<scheme>https?|s3|gs|az)://(?P<rest>[^\s'\"<>)\]]+)", re.IGNORECASE)
_CREDENTIAL: Final = re.compile(r"\b(bearer|basic)(\s+)[A-Za-z0-9+/_.~=-]{8,}", re.IGNORECASE)
_MIN_SECRET: Final = 4
"""Shorter values would blank out ordinary words."""
_TOKENS: Final = re.compile(
    r"^(sig|signature|token|access[_-]?token|api[_-]?key|apikey|key|subscription-key|password|secret"
    r"|x-(amz|goog)-(signature|credential|security-token))$",
    re.IGNORECASE,
)


def redact(text: str) -> str:
    """Return ``text`` without URL queries, credentials and the values of secret variables."""
    for name, value in sorted(os.environ.items(), key=lambda one: -len(one[1])):
        if name.startswith(SECRET_PREFIX) and len(value) >= _MIN_SECRET:
            # as it is, and as it stands in a URL or in a repr
            for form in {value, quote(value, safe=""), quote_plus(value), repr(value)[1:-1]}:
                text = text.replace(form, f"<{name}>")
    return _CREDENTIAL.sub(r"\1\2<...>", _URL.sub(_clean_url, text))


def _clean_url(match: re.Match[str]) -> str:
    rest = match["rest"]
    host, slash, path = rest.partition("/")
    host, mark, query = host.partition("?")
    host = host.rpartition("@")[2]
    clean, question, _ = (host + mark + query + slash + path).partition("?")
    return f"{match['scheme']}://{clean}{'?...' if question else ''}"


def holds_secret(text: str) -> bool:
    """Tell whether a text is a URL with user or password, or with a key or signature in its query."""
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    if not parts.scheme or not parts.netloc:
        return False
    return "@" in parts.netloc or any(_TOKENS.match(key) for key, _ in parse_qsl(parts.query))


class RedactingFilter(logging.Filter):
    """Redacts a record in place: its message with the arguments put in, its exception, its stack."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return True: every record passes, redacted."""
        try:
            text = record.getMessage()
        except (TypeError, ValueError, KeyError):  # a wrong call of a stranger's logger must not end a run
            text = f"{record.msg} {record.args}"
        record.msg, record.args = redact(text), None
        if record.exc_info and record.exc_info[1] is not None:
            record.exc_text = redact("".join(traceback.format_exception(record.exc_info[1]))).rstrip("\n")
            # A formatter that makes the text itself, as those with colours do, would make it from this.
            record.exc_info = None
        if record.stack_info:
            record.stack_info = redact(record.stack_info)
        return True


_filter: Final = RedactingFilter()
_lock: Final = threading.Lock()


def install() -> None:
    """Redact every log record that this process makes, and what it prints of errors that end it or a thread.

    It holds for loggers and handlers that are made later too, since it sits where records are made. Safe to repeat.
    """
    with _lock:
        if getattr(logging.getLogRecordFactory(), "chipmill", False):
            return
        make = logging.getLogRecordFactory()

        def factory(*args: Any, **more: Any) -> logging.LogRecord:
            record = make(*args, **more)
            _filter.filter(record)
            return record

        factory.chipmill = True  # type: ignore[attr-defined]
        logging.setLogRecordFactory(factory)
        sys.excepthook = _excepthook
        threading.excepthook = _thread_excepthook


def _excepthook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    sys.stderr.write(redact("".join(traceback.format_exception(kind, error, trace))))


def _thread_excepthook(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is not None:
        _excepthook(args.exc_type, args.exc_value, args.exc_traceback)
