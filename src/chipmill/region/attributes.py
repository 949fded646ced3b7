"""What the attributes of a vector file mean: texts, splits, rejects, dates and years. The file to change for a spelling.

Every function takes one value as a file gives it (text, number, truth value or null) and raises ValueError whose text
says what was expected.
"""

import datetime as dt
import math
import re
from typing import Any, Final

from chipmill.core.plain import quoted

_SPLITS: Final = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val", "dev": "val", "development": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
_YES: Final = ("1", "true", "t", "yes", "y", "x", "reject", "rejected")
_NO: Final = ("", "0", "false", "f", "no", "n", "keep", "kept")


def text_of(value: Any) -> str | None:
    """Return a value as text, None for null and NaN; whole numbers have no decimals, for files turn 3 into 3.0."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if hasattr(value, "item"):
        return text_of(value.item())
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, bool):
        return str(value).lower()
    return value.isoformat() if isinstance(value, dt.date) else str(value)


def split_of(value: Any) -> str | None:
    """Return train, val or test, None where nothing is said."""
    text = (text_of(value) or "").strip().lower()
    if text and text not in _SPLITS:
        raise ValueError(f"{quoted(text)} is no split: expected {', '.join(_SPLITS)}, or nothing")
    return _SPLITS.get(text)


def is_rejected(value: Any) -> bool:
    """Tell whether a feature is not to be used; null is not rejected."""
    text = (text_of(value) or "").strip().lower()
    if text in _NO or text in _YES:
        return text in _YES
    if not re.fullmatch(r"-?\d+(\.\d+)?", text):
        raise ValueError(
            f"{quoted(text)} is neither yes nor no: expected {', '.join(_YES)}, or {', '.join(_NO[1:])}"
        )
    return float(text) != 0


def day_of(value: Any) -> dt.date | None:
    """Return the day in UTC of a date or date and time (ISO 8601; without a zone it is UTC), None for null."""
    text = (text_of(value) or "").strip()
    if not text:
        return None
    try:
        when = dt.datetime.fromisoformat(text.replace("/", "-"))
    except ValueError as error:
        raise ValueError(f"{quoted(text)} is no date: expected one like 2019-06-30") from error
    return when.date() if when.tzinfo is None else when.astimezone(dt.UTC).date()


def year_of(value: Any) -> int | None:
    """Return the year of a number like 2015 or of a date, None for null."""
    text = (text_of(value) or "").strip()
    if re.fullmatch(r"\d{1,4}", text) and dt.MINYEAR <= int(text) < dt.MAXYEAR:
        return int(text)
    try:
        day = day_of(value)
    except ValueError as error:
        raise ValueError(f"{quoted(text)} is no year: expected a number like 2015, or a date") from error
    return None if day is None else day.year
