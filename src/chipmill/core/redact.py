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
import warnings
from types import TracebackType
from typing import Any, Final
from urllib.parse import quote, quote_plus

from chipmill.core.plain import plain

SECRET_PREFIX: Final = "CHIPMILL_SECRET_"  # noqa: S105 - a name
"""Secrets come in variables of this name, and no others are sent anywhere."""
_SIGNATURE: Final = re.compile(
    r"^(sig|se|sp|sv|sr|st|spr|sk[a-z]+|x-(amz|goog)-.*|signature|expires|key-pair-id)$", re.IGNORECASE
)
"""Names of query parameters that sign a URL for a while."""

_URL: Final = re.compile(r"(?P<scheme>https?|s3|gs|az)://(?P<rest>[^\s'\"<>)\]]+)", re.IGNORECASE)
_CREDENTIAL: Final = re.compile(r"\b(bearer|basic)(\s+)[A-Za-z0-9+/_.~=-]{8,}", re.IGNORECASE)
_HOST: Final = re.compile(r"[^:]*|[^:]*:\d*|\[[0-9A-Fa-f:.]+\](:\d*)?")
_MIN_SECRET: Final = 4
"""Shorter values would blank out ordinary words."""
_WORDS: Final = ("key", "sig", "signature", "token", "apikey", "accesstoken", "password", "secret", "credential")  # fmt: skip
"""What the names of query parameters that are a secret end in, after "_" or "-" or nothing."""
_SECRET_NAME: Final = (
    rf"([^&=#]*[_-])?({'|'.join(f'[{word[0].upper()}{word[0]}]{word[1:]}' for word in _WORDS)})="
)
_SECRET_URLS: Final = (
    r"[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*@",
    r"[A-Za-z][A-Za-z0-9+.-]*://[^/?#:]*:[0-9]*[^0-9/?#][^?#]*@",  # a password with a slash in it
    rf"[A-Za-z][A-Za-z0-9+.-]*://[^?#]*\?([^#]*&)?{_SECRET_NAME}",
)
"""URLs with user or password, or with a key or signature in their query; as schemas can say it, which have no flags."""


def secret_parameter(name: str) -> bool:
    """Tell whether a query parameter signs a URL or is a credential, by its name."""
    # "key" alone is an object's name in the hrefs of some stores
    named = re.fullmatch(_SECRET_NAME, f"{name}=", re.IGNORECASE) is not None and name.lower() != "key"
    return named or _SIGNATURE.match(name) is not None


def redact(text: str) -> str:
    """Return ``text`` without URL queries, credentials and the values of secret variables."""
    secrets = [
        (name, os.environ.get(name, "")) for name in list(os.environ) if name.startswith(SECRET_PREFIX)
    ]
    for name, value in sorted(secrets, key=lambda one: -len(one[1])):
        if len(value) >= _MIN_SECRET:
            # as it is, and as it stands in a URL or in a repr
            for form in {value, quote(value, safe=""), quote_plus(value), repr(value)[1:-1]}:
                text = text.replace(form, f"<{name}>")
    return _CREDENTIAL.sub(r"\1\2<...>", _URL.sub(_clean_url, text))


def _clean_url(match: re.Match[str]) -> str:
    place, question, _ = match["rest"].partition("?")
    host, slash, path = place.partition("/")
    if _has_user(host, path):
        host, slash, path = place.rpartition("@")[2].partition("/")
    return f"{match['scheme']}://{host}{slash}{path}{'?...' if question else ''}"


def _has_user(host: str, path: str) -> bool:
    # A password with a slash in it: what stands before the slash is then no host with a port.
    return "@" in host or ("@" in path and not _HOST.fullmatch(host))


def holds_secret(text: str) -> bool:
    """Tell whether a text is a URL with user or password, or with a key or signature in its query."""
    return any(re.match(one, text, re.IGNORECASE) for one in _SECRET_URLS)


def secret_free(schema: dict[str, Any]) -> None:
    """Make the text fields of a JSON schema refuse what :func:`holds_secret` tells of.

    A server checks a run's parameters by this schema before it stores them; a validator of ours would see them after.
    """
    pattern = "^" + "".join(f"(?!{one})" for one in _SECRET_URLS)
    for field in schema.get("properties", {}).values():
        inner = (
            field.get("items"),
            field.get("additionalProperties"),
            *field.get("patternProperties", {}).values(),
        )
        for one in (field, *inner, *field.get("anyOf", ())):
            if (
                isinstance(one, dict)
                and one.get("type") == "string"
                and one.keys().isdisjoint(("pattern", "enum", "const", "format"))
            ):
                one["pattern"] = pattern


class RedactingFilter(logging.Filter):
    """Redacts a record in place: its message with the arguments put in, its exception, its stack.

    Control characters of strangers are shown as text, too: a log is read on a terminal.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Return True: every record passes, redacted."""
        try:
            text = record.getMessage()
        except (TypeError, ValueError, KeyError):  # a wrong call of a stranger's logger must not end a run
            text = f"{record.msg} {record.args}"
        record.msg, record.args = plain(redact(text)), None
        if record.exc_info and record.exc_info[1] is not None:
            record.exc_text = _shown(record.exc_info[1]).rstrip("\n")
            # A formatter that makes the text itself, as those with colours do, would make it from this.
            record.exc_info = None
        if record.stack_info:
            record.stack_info = redact(record.stack_info)
        return True


_filter: Final = RedactingFilter()
_lock: Final = threading.Lock()


def install() -> None:
    """Redact every log record that this process makes, its warnings, and what it prints of errors that end it or a thread.

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
        warned = warnings.formatwarning
        warnings.formatwarning = lambda *args, **more: plain(redact(warned(*args, **more)))
        sys.excepthook = _excepthook
        threading.excepthook = _thread_excepthook


def _excepthook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    sys.stderr.write(_shown(error.with_traceback(trace)))


def _shown(error: BaseException) -> str:
    return plain(redact("".join(traceback.format_exception(error))))


def _thread_excepthook(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is not None:
        _excepthook(args.exc_type, args.exc_value, args.exc_traceback)
