"""How numbers are written for people."""

import datetime as dt
import math

import pytest

from chipmill.report import numbers


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 B"),
        (512, "512 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (1_400_000, "1.4 MB"),
        (999_600_000, "1.0 GB"),
        (345e9, "345 GB"),
        (2e18, "2000 PB"),
    ],
)
def test_a_size_has_the_decimal_unit_that_fits(value, text):
    assert numbers.size(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (12.4, "12 s"),
        (59.6, "1 min 00 s"),
        (185, "3 min 05 s"),
        (7620, "2 h 07 min"),
    ],
)
def test_a_duration_has_two_units_at_most(seconds, text):
    assert numbers.duration(seconds) == text


def test_what_is_not_known_is_a_dash_and_never_a_zero():
    unknown = [numbers.count(None), numbers.count(math.nan), numbers.percent(None), numbers.percent(math.nan)]
    unknown += [numbers.decimal(None), numbers.size(None), numbers.duration(None), numbers.day(None)]
    assert set(unknown) == {numbers.DASH}


def test_counts_shares_days_and_plurals():
    assert numbers.count(1234567) == "1,234,567"
    assert numbers.percent(0.12345, 2) == "12.35 %"
    assert numbers.day(dt.datetime(2019, 7, 1, 10, tzinfo=dt.UTC)) == "2019-07-01"
    assert numbers.interval("2019-01-01", "2020-01-01") == "2019-01-01 to 2020-01-01 (end excluded)"
    assert (numbers.plural(1, "tile"), numbers.plural(2000, "tile")) == ("1 tile", "2,000 tiles")
    assert numbers.plural(2, "lattice", "lattices") == "2 lattices"
