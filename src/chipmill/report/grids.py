"""Charts of places and times as pure functions: clear share by tile and slot, the calendar, the split map."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup, escape

from chipmill.report.images import ramp_color
from chipmill.report.numbers import percent
from chipmill.report.svg import clip, drawing, ink_on, name_width, rect, rule, words

SPLIT_COLORS: Final = {"train": "#4a7fc4", "val": "#e0a526", "test": "#b2508a"}
"""Colour of each split, readable on light and dark pages."""

_ROUND: Final = 'rx="3"'


def heat_map(
    rows: Sequence[str], columns: Sequence[str], values: Sequence[Sequence[float | None]], label: str
) -> Markup:
    """Draw fractions (0 to 1) as coloured cells with their percentage; None is an empty cell."""
    left, top, cell_h = name_width(rows), 24, 26
    cell_w = min((1040 - left) / max(len(columns), 1), 110)
    body = [
        words(
            left + cell_w * (index + 0.5), 15, clip(name, int(cell_w / 7) + 1), anchor="middle", style="soft"
        )
        for index, name in enumerate(columns)
    ]
    for place, row in enumerate(rows):
        y = top + place * cell_h
        body.append(words(left - 10, y + 17, clip(row, 34), anchor="end", style="soft"))
        for index, (column, value) in enumerate(zip(columns, values[place], strict=True)):
            body.append(_heat_cell(left + index * cell_w, y, cell_w, cell_h, value, f"{row}, {column}"))
    return drawing(left + cell_w * len(columns) + 2, top + len(rows) * cell_h + 4, label, body)


def _heat_cell(x: float, y: float, width: float, height: float, value: float | None, name: str) -> str:
    if value is None:
        return rect(x + 1, y + 1, width - 2, height - 2, "var(--check)", f"{name}: nothing", _ROUND)
    color = ramp_color(value)
    box = rect(x + 1, y + 1, width - 2, height - 2, color, f"{name}: {percent(value)}", _ROUND)
    return box + words(x + width / 2, y + 17, percent(value, 0), anchor="middle", fill=ink_on(color))


@dataclass(frozen=True, slots=True)
class Pass:
    """One acquisition in one row of the calendar."""

    row: str
    when: dt.datetime
    fraction: float | None
    """Clear share, 0 to 1; None where it was not measured."""
    chosen: bool
    name: str


def calendar_chart(
    passes: Sequence[Pass], start: dt.datetime, end: dt.datetime, label: str, *, width: float = 1040
) -> Markup:
    """Draw acquisitions along time, one line per row: colour is the clear share, tall marks were chosen."""
    rows = list(dict.fromkeys(one.row for one in passes))
    left, step = name_width(rows), 34
    bottom, span = len(rows) * step + 6, max((end - start).total_seconds(), 1)

    def x(when: dt.datetime) -> float:
        return left + (width - left - 24) * (when - start).total_seconds() / span

    body = []
    for index, month in enumerate(_months(start, end)):
        name = f"{month:%b %Y}" if index == 0 or month.month == 1 else f"{month:%b}"
        body += [
            rule(x(month), 2, x(month), bottom + 6),
            words(x(month) + 4, bottom + 16, name, style="soft"),
        ]
    for place, row in enumerate(rows):
        body.append(words(left - 10, place * step + 22, clip(row, 34), anchor="end", style="soft"))
    for one in passes:
        height = 26 if one.chosen else 10
        y = rows.index(one.row) * step + 18 - height / 2
        color = "var(--check)" if one.fraction is None else ramp_color(one.fraction)
        note = f"{one.name}: {percent(one.fraction)} clear, {'used' if one.chosen else 'not used'}"
        body.append(rect(x(one.when) - 4, y, 8, height, color, note, 'rx="2" class="mark"'))
    return drawing(width, bottom + 24, label, body)


def _months(start: dt.datetime, end: dt.datetime) -> list[dt.datetime]:
    """Return the first instants of months inside the range, thinned to at most 14."""
    months, year, month = [], start.year, start.month
    while (first := dt.datetime(year, month, 1, tzinfo=start.tzinfo)) < end:
        if first >= start:
            months.append(first)
        year, month = (year + 1, 1) if month == 12 else (year, month + 1)
    return months[:: max(1, -(-len(months) // 14))]


@dataclass(frozen=True, slots=True)
class Square:
    """A split block, in pixels of the picture below it."""

    x: float
    y: float
    side_x: float
    side_y: float
    split: str
    name: str


def split_chart(
    uri: str, shape: tuple[int, int], squares: Sequence[Square], label: str, *, width: float = 500
) -> Markup:
    """Draw blocks as outlines over a picture of ``shape`` (height, width), given in the picture's own pixels."""
    scale = width / max(shape[1], 1)
    height = shape[0] * scale
    size = f'width="{width:.1f}" height="{height:.1f}"'
    body = [f'<image href="{escape(uri)}" x="0" y="0" {size} preserveAspectRatio="none"/>']
    for one in squares:
        stroke = f'stroke="{SPLIT_COLORS.get(one.split, "#888888")}" stroke-width="2" pointer-events="all"'
        x, y, w, h = (value * scale for value in (one.x, one.y, one.side_x, one.side_y))
        body.append(rect(x + 1, y + 1, w - 2, h - 2, "none", f"{one.name}: {one.split}", stroke))
    return drawing(width, height, label, body)
