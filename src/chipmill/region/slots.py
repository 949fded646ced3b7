"""Slots: the relative time bins of a cell, half-open and in UTC. Their intervals are values in tables, never in names."""

import calendar
import dataclasses
import datetime as dt
import itertools
import re
from collections.abc import Iterator, Sequence

from chipmill.core.errors import RegionFileError
from chipmill.region.config import Region, Slots

_DAY = dt.timedelta(days=1)


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class TimeRange:
    """A half-open interval of UTC instants: start <= t < end."""

    start: dt.datetime
    end: dt.datetime

    def holds(self, instant: dt.datetime) -> bool:
        """Tell whether an instant lies in the interval."""
        return self.start <= instant < self.end

    @property
    def is_day(self) -> bool:
        """Whether it is one day, as that of a label is."""
        return self.end - self.start == _DAY

    @property
    def start_date(self) -> str:
        """ISO date of the start."""
        return self.start.date().isoformat()

    @property
    def end_date(self) -> str:
        """ISO date of the end, which is excluded."""
        return self.end.date().isoformat()


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class Slot:
    """One bin: its name prefixes bands (``p1_red``); its interval is what was composited."""

    name: str
    time: TimeRange


def midnight(day: dt.date) -> dt.datetime:
    """Return the first instant of a day in UTC."""
    return dt.datetime(day.year, day.month, day.day, tzinfo=dt.UTC)


def cell_range(region: Region) -> TimeRange:
    """Return the interval of the region's cell."""
    start, end = region.time.range
    return TimeRange(midnight(start), midnight(end))


def year_range(year: int) -> TimeRange:
    """Return the interval of a calendar year."""
    return TimeRange(midnight(dt.date(year, 1, 1)), midnight(dt.date(year + 1, 1, 1)))


def slot_names(region: Region) -> tuple[str, ...]:
    """Return the names of the slots in order; they are the same for every tile."""
    if region.time.slots.around_label is not None:
        return ("p1",)
    rule = region.tiles.year
    slots = cell_slots(region) if rule is None else _year_slots(region, rule.years(*region.time.range)[0])
    return tuple(slot.name for slot in slots)


def check_year_slots(region: Region, years: Sequence[int]) -> None:
    """Raise RegionFileError where ``time.slots`` cuts years into unlike slots, as 73 days do with leap years."""
    names = {year: tuple(slot.name for slot in _year_slots(region, year)) for year in years}
    if unlike := [year for year in years if names[year] != names[years[0]]]:
        first, other = years[0], unlike[0]
        raise RegionFileError(
            f"time.slots cuts {first} into {len(names[first])} slots and {other} into {len(names[other])}: tiles with "
            "years of their own need the same ones, give n, or every in months"
        )


def cell_slots(region: Region) -> tuple[Slot, ...]:
    """Return the slots of a cell; empty for slots around label dates, which each tile has of its own.

    Where tiles have years, they are those of every available year, one year after the other.
    """
    if (rule := region.tiles.year) is None:
        return _slots_of(region.time.slots, *region.time.range)
    return tuple(slot for year in rule.years(*region.time.range) for slot in _year_slots(region, year))


def _year_slots(region: Region, year: int) -> tuple[Slot, ...]:
    return _slots_of(region.time.slots, dt.date(year, 1, 1), dt.date(year + 1, 1, 1))


def _slots_of(slots: Slots, start: dt.date, end: dt.date) -> tuple[Slot, ...]:
    if slots.n is not None:
        return _numbered(equal_bins(start, end, slots.n))
    if slots.every is not None:
        return _numbered(list(calendar_bins(start, end, slots.every)))
    if slots.seasons is not None:
        return _season_slots(start, end, slots.seasons)
    if slots.list is not None:
        return tuple(
            Slot(span.name, TimeRange(midnight(span.start), midnight(span.end))) for span in slots.list
        )
    return ()


def tile_slots(region: Region, time: TimeRange | None) -> tuple[Slot, ...]:
    """Return the slots of a tile; ``time`` is the day of its label, or the year that it was given.

    A tile that was given none, and is rejected for it, has those of the first available year. Raises RegionFileError
    when slots around the label are asked for and the tile has no date.
    """
    if (rule := region.tiles.year) is not None:
        return _year_slots(region, time.start.year if time else rule.years(*region.time.range)[0])
    around = region.time.slots.around_label
    if around is None:
        return cell_slots(region)
    if time is None:
        raise RegionFileError(
            "time.slots.around_label needs tiles with a date: use tiles from label-items, or from a file with time"
        )
    day = midnight(time.start.date())
    span = TimeRange(day - around.before_days * _DAY, day + (around.after_days + 1) * _DAY)
    return (Slot("p1", span),)


def equal_bins(start: dt.date, end: dt.date, n: int) -> list[tuple[dt.date, dt.date]]:
    """Cut whole days into n bins; the remainder goes to the first ones, so every instant lies in exactly one."""
    days = (end - start).days
    if n > days:
        raise RegionFileError(f"time.slots.n: {n} bins do not fit into {days} days: use at most {days}")
    size, longer = divmod(days, n)
    cuts = [start + dt.timedelta(days=size * k + min(k, longer)) for k in range(n + 1)]
    return list(itertools.pairwise(cuts))


def calendar_bins(start: dt.date, end: dt.date, every: str) -> Iterator[tuple[dt.date, dt.date]]:
    """Yield bins of an ISO 8601 duration from the start on; the last one ends with the range."""
    match = re.fullmatch(r"P(\d+)([DWMY])", every)
    assert match is not None, "the pattern of the field"  # noqa: S101
    count, unit = int(match[1]), match[2]
    step = 0
    left = start
    while left < end:
        step += count
        right = min(_advance(start, step, unit), end)
        yield left, right
        left = right


def _advance(start: dt.date, step: int, unit: str) -> dt.date:
    if unit in "DW":
        return start + dt.timedelta(days=step * (7 if unit == "W" else 1))
    months = start.month - 1 + step * (12 if unit == "Y" else 1)
    year, month = start.year + months // 12, months % 12 + 1
    return dt.date(year, month, min(start.day, calendar.monthrange(year, month)[1]))


def _season_slots(start: dt.date, end: dt.date, seasons: dict[str, tuple[int, int]]) -> tuple[Slot, ...]:
    """One slot per season and year (summer, summer2, ...); a season whose last month is before its first crosses New Year."""
    found: list[tuple[dt.date, dt.date, str]] = []
    for year in range(start.year - 1, end.year + 1):
        for name, (first, last) in seasons.items():
            left = dt.date(year, first, 1)
            right = _advance(dt.date(year + (last < first), last, 1), 1, "M")
            left, right = max(left, start), min(right, end)
            if left < right:
                found.append((left, right, name))
    found.sort()
    counts: dict[str, int] = {}
    slots: list[Slot] = []
    for left, right, name in found:
        counts[name] = counts.get(name, 0) + 1
        number = counts[name]
        slots.append(
            Slot(name if number == 1 else f"{name}{number}", TimeRange(midnight(left), midnight(right)))
        )
    return tuple(slots)


def _numbered(bins: list[tuple[dt.date, dt.date]]) -> tuple[Slot, ...]:
    return tuple(
        Slot(f"p{number}", TimeRange(midnight(left), midnight(right)))
        for number, (left, right) in enumerate(bins, 1)
    )
