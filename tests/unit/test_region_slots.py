import datetime as dt
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chipmill.core.errors import RegionFileError
from chipmill.region.config import Region
from chipmill.region.slots import (
    TimeRange,
    calendar_bins,
    cell_slots,
    equal_bins,
    midnight,
    slot_names,
    tile_slots,
)


def _region(slots, start="2018-01-01", end="2019-01-01"):
    imagery = [{"name": "s2", "source": {"catalog": "c"}, "bands": {"red": "red"}}]
    time = {"range": [start, end], "slots": slots}
    return Region.model_validate(
        {"name": "r", "aoi": {"bbox": [0, 0, 1, 1]}, "time": time, "imagery": imagery}
    )


DAYS = st.dates(dt.date(1990, 1, 1), dt.date(2040, 1, 1))


@given(start=DAYS, days=st.integers(1, 3000), n=st.integers(1, 30))
def test_equal_bins_cover_each_day_once_and_differ_by_a_day_at_most(start, days, n):
    end = start + dt.timedelta(days=days)
    if n > days:
        with pytest.raises(RegionFileError, match="do not fit"):
            equal_bins(start, end, n)
        return
    bins = equal_bins(start, end, n)
    assert bins[0][0] == start and bins[-1][1] == end and len(bins) == n
    assert all(left[1] == right[0] for left, right in itertools.pairwise(bins))
    lengths = [(right - left).days for left, right in bins]
    assert max(lengths) - min(lengths) <= 1 and lengths == sorted(lengths, reverse=True)


@given(start=DAYS, days=st.integers(1, 3000), count=st.integers(1, 40), unit=st.sampled_from("DWMY"))
def test_calendar_bins_cover_each_day_once(start, days, count, unit):
    end = start + dt.timedelta(days=days)
    bins = list(calendar_bins(start, end, f"P{count}{unit}"))
    assert bins[0][0] == start and bins[-1][1] == end
    assert all(left < right for left, right in bins)
    assert all(left[1] == right[0] for left, right in itertools.pairwise(bins))


def test_months_start_on_the_same_day_even_after_a_short_month():
    bins = list(calendar_bins(dt.date(2019, 1, 31), dt.date(2019, 4, 30), "P1M"))
    assert [left.isoformat() for left, _ in bins] == ["2019-01-31", "2019-02-28", "2019-03-31"]


def test_the_last_day_of_the_year_lies_in_exactly_one_slot():
    # The LandCoverNet notebook lost an image of 31 December 10:30 and put edge instants into two periods.
    slots = cell_slots(_region({"n": 5}))
    instant = dt.datetime(2018, 12, 31, 10, 30, tzinfo=dt.UTC)
    assert [slot.name for slot in slots if slot.time.holds(instant)] == ["p5"]
    edges = [slot.time.start for slot in slots]
    assert all(sum(slot.time.holds(edge) for slot in slots) == 1 for edge in edges)
    assert not slots[-1].time.holds(slots[-1].time.end)


def test_seasons_are_cut_per_year_and_numbered():
    slots = cell_slots(_region({"seasons": {"summer": [6, 8], "winter": [12, 2]}}, end="2019-07-01"))
    spans = [(slot.name, slot.time.start_date, slot.time.end_date) for slot in slots]
    assert spans == [
        ("winter", "2018-01-01", "2018-03-01"),
        ("summer", "2018-06-01", "2018-09-01"),
        ("winter2", "2018-12-01", "2019-03-01"),
        ("summer2", "2019-06-01", "2019-07-01"),
    ]


def test_a_list_keeps_its_names_and_gaps():
    listed = [{"name": "a", "start": "2018-02-01", "end": "2018-03-01"}]
    assert slot_names(_region({"list": listed})) == ("a",)


def test_slots_around_a_label_are_its_days():
    region = _region({"around_label": {"before_days": 2, "after_days": 1}})
    label = TimeRange(dt.datetime(2018, 5, 10, 9, tzinfo=dt.UTC), midnight(dt.date(2018, 5, 11)))
    (slot,) = tile_slots(region, label)
    assert (slot.time.start_date, slot.time.end_date) == ("2018-05-08", "2018-05-12")
    assert slot_names(region) == ("p1",)
    with pytest.raises(RegionFileError, match="tiles with a date"):
        tile_slots(region, None)
