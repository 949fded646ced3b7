"""Composites that are ready: which slot each of them is for.

Their files take the way of all imagery, by which they come onto the tile's grid and into its layout. But nothing is
left to decide on: no mask is read, all that a slot has is chosen, and one date reduced is that date. So slots and
periods of composites must be one to one, which is checked here before any work.
"""

import datetime as dt
from collections.abc import Iterable

from chipmill.core.errors import BadInputError
from chipmill.region.config import Region
from chipmill.region.patterns import Reading
from chipmill.region.slots import Slot, cell_slots

type Period = tuple[dt.datetime, dt.datetime]
"""Half-open, UTC: a year, a month or a day."""


def ready_times(region: Region, readings: Iterable[Reading]) -> dict[Period, dt.datetime]:
    """Return the datetime of each period that a slot of the cell uses: noon of its first day in the slot.

    A composite of a year is so that of a season of this year, too. Raises BadInputError where a slot meets several
    periods (they would be reduced again), a period several slots, or slots are those of labels.
    """
    if region.time.slots.around_label is not None:
        raise BadInputError(
            "ready composites need slots that all tiles share, and around_label gives each its own: use every: P1Y"
        )
    periods = sorted({(one.start, one.end) for one in readings})
    times: dict[Period, dt.datetime] = {}
    for slot in cell_slots(region):
        met = [period for period in periods if period[0] < slot.time.end and slot.time.start < period[1]]
        doubled = [period for period in met if period in times]
        if len(met) > 1 or doubled:
            raise BadInputError(_unlike(slot, met))
        times |= {period: max(period[0], slot.time.start) + _noon(period) for period in met}
    return times


def _noon(period: Period) -> dt.timedelta:
    """Return what makes a day's beginning its noon, which is the same day at any longitude."""
    return min(dt.timedelta(hours=12), (period[1] - period[0]) / 2)


def _unlike(slot: Slot, met: list[Period]) -> str:
    named = ", ".join(f"{start:%Y-%m-%d} to {end:%Y-%m-%d}" for start, end in met[:4])
    told = f"holds {len(met)} of them" if len(met) > 1 else "shares one with another slot"
    return (
        f"slot {slot.name} ({slot.time.start_date} to {slot.time.end_date}) is not cut as the ready composites are, it "
        f"{told} ({named}): set time.slots to their periods, for example every: P1Y, or give their pattern as files to "
        "reduce several"
    )
