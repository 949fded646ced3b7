"""Charts of numbers as pure functions: curves, bars, shares, intervals, reliability; markup out."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup

from chipmill.report.images import PALETTE
from chipmill.report.numbers import percent
from chipmill.report.svg import clip, dot, drawing, ink_on, path, rect, rule, words

type Scale = Callable[[float], float]

_QUARTERS: Final = (0.0, 0.25, 0.5, 0.75, 1.0)


def nice_ticks(low: float, high: float, wanted: int = 5) -> tuple[float, ...]:
    """Return round numbers that cover the range in about ``wanted`` steps of 1, 2 or 5 times a power of 10."""
    span = high - low
    if not math.isfinite(span) or span <= 0:
        return (low, low + 1)
    power = 10 ** math.floor(math.log10(span / wanted))
    step = next(power * factor for factor in (1, 2, 5, 10) if span / (power * factor) <= wanted)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return tuple(index * step for index in range(first, last + 1))


@dataclass(frozen=True, slots=True)
class Series:
    """One line of a chart: values over 1, 2, 3, ...; None and NaN leave a gap."""

    name: str
    values: Sequence[float | None]
    color: str
    dashed: bool = False

    def points(self) -> list[tuple[int, float]]:
        """Return (step from 0, value) of the finite values."""
        return [
            (step, value)
            for step, value in enumerate(self.values)
            if value is not None and math.isfinite(value)
        ]


def line_chart(series: Sequence[Series], label: str, x_name: str, *, width: float = 500) -> Markup:
    """Draw values over steps that count from 1, with each line named at its right end."""
    height, left, right, top, bottom = 260.0, 48, 96, 12, 40
    known = [value for one in series for _, value in one.points()]
    ticks = nice_ticks(min(known, default=0.0), max(known, default=1.0))
    steps = max((len(one.values) for one in series), default=1)

    def x(step: float) -> float:
        return left + (width - left - right) * (step / (steps - 1) if steps > 1 else 0.5)

    def y(value: float) -> float:
        return top + (height - top - bottom) * (1 - (value - ticks[0]) / (ticks[-1] - ticks[0]))

    body = []
    for tick in ticks:
        body.append(rule(left, y(tick), width - right, y(tick)))
        body.append(words(left - 8, y(tick) + 4, f"{tick:g}", anchor="end", style="soft"))
    inner = {round(tick) - 1 for tick in nice_ticks(1, steps) if steps > 1 and 1 < tick < steps - steps / 10}
    body += [
        words(x(step), height - bottom + 18, str(step + 1), anchor="middle", style="soft")
        for step in sorted({0, steps - 1} | inner)
    ]
    body.append(words((left + width - right) / 2, height - 4, x_name, anchor="middle", style="soft"))
    for one in series:
        body += _runs(one, x, y)
    return drawing(width, height, label, body + _end_names(series, x, y, height - bottom))


def _runs(one: Series, x: Scale, y: Scale) -> list[str]:
    """Draw a series as unbroken runs; a run of one value is a dot."""
    runs: list[list[tuple[float, float]]] = []
    last = -2
    for step, value in one.points():
        if step != last + 1:
            runs.append([])
        runs[-1].append((x(step), y(value)))
        last = step
    return [
        path(run, one.color, dashed=one.dashed) if len(run) > 1 else dot(*run[0], 3, one.color)
        for run in runs
    ]


def _end_names(series: Sequence[Series], x: Scale, y: Scale, floor: float) -> list[str]:
    """Name each line at its last value, moved apart where lines end close together."""
    ends = sorted(
        ((y(points[-1][1]), x(points[-1][0]), one) for one in series if (points := one.points())),
        key=lambda end: end[0],
    )
    names, last = [], -math.inf
    for place, (height, across, one) in enumerate(ends):
        last = max(min(height, floor - 15 * (len(ends) - 1 - place)), last + 15)
        names.append(words(across + 8, last + 4, clip(one.name, 13), fill=one.color))
    return names


@dataclass(frozen=True, slots=True)
class Bar:
    """One horizontal bar."""

    name: str
    value: float
    color: str
    note: str
    """Text at the end of the bar: the number with its unit."""


def bar_chart(bars: Sequence[Bar], label: str, *, width: float = 860, name_px: float = 250) -> Markup:
    """Draw horizontal bars from a common zero, with names on the left and numbers at their ends."""
    largest = max((bar.value for bar in bars), default=0) or 1
    room, step, body = width - name_px - 150, 30, []
    for row, bar in enumerate(bars):
        top, length = row * step + 3, max(room * bar.value / largest, 1.5)
        body.append(words(name_px - 10, top + 15, clip(bar.name, int(name_px / 6.6)), anchor="end"))
        body.append(rect(name_px, top, length, 20, bar.color, f"{bar.name}: {bar.note}", 'rx="3"'))
        body.append(words(name_px + length + 8, top + 15, bar.note, style="soft"))
    return drawing(width, len(bars) * step + 2, label, body)


def share_bars(
    rows: Mapping[str, Sequence[float]], names: Sequence[str], colors: Sequence[str], label: str
) -> Markup:
    """Draw one bar of full width per row, divided in proportion to its values; larger shares are written in."""
    width, left, step, body = 860.0, 90.0, 36, []
    for place, (row, values) in enumerate(rows.items()):
        total, x, top = sum(values), left, place * step + 4
        body.append(words(left - 10, top + 18, clip(row, 12), anchor="end"))
        for name, value, color in zip(names, values, colors, strict=True):
            share = value / total if total else 0.0
            length = share * (width - left)
            body.append(rect(x, top, length, 26, color, f"{row}, {name}: {percent(share)}"))
            if share >= 0.05:
                body.append(
                    words(x + length / 2, top + 17, percent(share, 0), anchor="middle", fill=ink_on(color))
                )
            x += length
    return drawing(width, len(rows) * step + 4, label, body)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number between 0 and 1 with its confidence interval; each may be unknown."""

    name: str
    value: float | None
    low: float | None = None
    high: float | None = None
    color: str = PALETTE[0]


def interval_chart(
    rows: Sequence[Estimate], label: str, *, width: float = 480, name_px: float = 130
) -> Markup:
    """Draw values between 0 and 1 as dots with whiskers."""
    step, bottom, body = 28, len(rows) * 28 + 6, []

    def x(value: float) -> float:
        return name_px + (width - name_px - 20) * min(max(value, 0.0), 1.0)

    for tick in _QUARTERS:
        body += [rule(x(tick), 2, x(tick), bottom)]
        body += [words(x(tick), bottom + 16, f"{tick:g}", anchor="middle", style="soft")]
    for place, row in enumerate(rows):
        y = place * step + 18
        body.append(words(name_px - 12, y + 4, clip(row.name, int(name_px / 7)), anchor="end"))
        if row.low is not None and row.high is not None:
            body.append(path([(x(row.low), y), (x(row.high), y)], row.color))
        if row.value is not None and math.isfinite(row.value):
            body.append(dot(x(row.value), y, 5, row.color, f"{row.name}: {row.value:.3f}"))
    return drawing(width, bottom + 24, label, body)


def reliability_chart(bins: Sequence[tuple[float, float, float]], label: str, *, side: float = 320) -> Markup:
    """Draw ``(mean confidence, accuracy, pixels)`` per bin against the diagonal; a dot's area follows its pixels."""
    left, top, room = 62.0, 10.0, side - 78.0
    most = max((pixels for _, _, pixels in bins), default=1) or 1
    body = []
    for tick in _QUARTERS:
        x, y = left + room * tick, top + room * (1 - tick)
        body += [rule(left, y, left + room, y), rule(x, top, x, top + room)]
        body += [words(left - 8, y + 4, f"{tick:g}", anchor="end", style="soft")]
        body += [words(x, top + room + 18, f"{tick:g}", anchor="middle", style="soft")]
    body.append(path([(left, top + room), (left + room, top)], "var(--soft)", dashed=True))
    for confidence, accuracy, pixels in bins:
        note = f"confidence {confidence:.2f}, right {accuracy:.2f}, {pixels:,.0f} pixels"
        radius = 2.5 + 6.5 * math.sqrt(pixels / most)
        body.append(dot(left + room * confidence, top + room * (1 - accuracy), radius, "var(--accent)", note))
    body.append(
        words(left + room / 2, top + room + 40, "confidence of the model", anchor="middle", style="soft")
    )
    turned = words(0, 0, "share that is right", anchor="middle", style="soft")
    body.append(f'<g transform="translate(14 {top + room / 2:.0f}) rotate(-90)">{turned}</g>')
    return drawing(side, top + room + 48, label, body)
