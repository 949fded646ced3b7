"""The nearest-date mosaic: which day is wanted, in which order acquisitions are taken, which dates are refused.

Reduced like first-valid: each pixel comes from the acquisition nearest in time that is clear there. Distances are
whole days of UTC, so that the hour of an overpass decides nothing; of two equally near days the earlier comes first.
"""

import datetime as dt

from chipmill.region.imagery import Nearest
from chipmill.region.slots import TimeRange


def reference_day(nearest: Nearest | None, label_time: TimeRange | None, slot: TimeRange) -> dt.date:
    """Return the wanted day: that of the region file, else the label's, else the middle of the slot (UTC).

    A tile's time that is longer than a day is its year, not that of a label.
    """
    if nearest is not None and nearest.reference is not None:
        return nearest.reference
    if label_time is not None and label_time.is_day:
        return label_time.start.date()
    return (slot.start + (slot.end - slot.start) / 2).date()


def nearness(reference: dt.date, when: dt.datetime, acquisition_id: str) -> tuple[int, dt.date, str]:
    """Return a key by which acquisitions sort, the one to be taken first first.

    Args:
        reference: the wanted day.
        when: instant of the acquisition, with its zone.
        acquisition_id: breaks the last ties.
    """
    day = when.astimezone(dt.UTC).date()
    return abs((day - reference).days), day, acquisition_id


def refusal(nearest: Nearest | None, when: dt.datetime) -> str:
    """Return why an acquisition of that instant is out of the dates that may be used, "" where it is not."""
    if nearest is None:
        return ""
    day = when.astimezone(dt.UTC).date()
    if nearest.min_date is not None and day < nearest.min_date:
        return f"{day} lies before nearest.min_date {nearest.min_date}"
    if nearest.max_date is not None and day >= nearest.max_date:
        return f"{day} does not lie before nearest.max_date {nearest.max_date}"
    return ""
