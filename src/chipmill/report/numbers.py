"""How numbers are written for people: counts, shares, bytes, durations, dates, in reports and in the terminal."""

import datetime as dt
import math

DASH = "–"
"""Stands where there is no number; never 0."""


def count(value: float | None) -> str:
    """Return ``12,345``; integers without decimals, None and NaN as a dash."""
    if value is None or math.isnan(value):
        return DASH
    return f"{value:,.0f}"


def decimal(value: float | None, digits: int = 3) -> str:
    """Return a number with a fixed number of decimals, None and NaN as a dash."""
    if value is None or math.isnan(value):
        return DASH
    return f"{value:,.{digits}f}"


def percent(fraction: float | None, digits: int = 1) -> str:
    """Return a fraction (0 to 1) as ``12.3 %``, None and NaN as a dash."""
    if fraction is None or math.isnan(fraction):
        return DASH
    return f"{100 * fraction:.{digits}f} %"


def size(value_bytes: float | None) -> str:
    """Return bytes in the decimal unit that fits: ``512 B``, ``1.4 MB``."""
    if value_bytes is None:
        return DASH
    value, units = float(value_bytes), ("B", "kB", "MB", "GB", "TB", "PB")
    for unit in units:
        if value < 999.5 or unit == units[-1]:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1000
    raise AssertionError("the last unit takes every size")


def duration(seconds: float | None) -> str:
    """Return seconds as ``0.4 s``, ``12 s``, ``3 min 05 s`` or ``2 h 07 min``."""
    if seconds is None or math.isnan(seconds):
        return DASH
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def day(moment: dt.datetime | dt.date | str | None) -> str:
    """Return the date of an instant, ``2019-07-01``; strings are ISO 8601."""
    if moment is None:
        return DASH
    return str(moment)[:10]


def interval(start: dt.datetime | str, end: dt.datetime | str) -> str:
    """Return a half-open time range as its two days; the second is not part of it."""
    return f"{day(start)} to {day(end)} (end excluded)"


def plural(number: int, word: str, many: str | None = None) -> str:
    """Return ``1 tile``, ``2 tiles``."""
    return f"{number:,} {word if number == 1 else many or word + 's'}"
