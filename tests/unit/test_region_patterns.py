"""File patterns: what names mean, what is refused, and that no name is read in a way that was not meant."""

import datetime as dt

import pytest
from pydantic import ValidationError

from chipmill.core.errors import RegionFileError
from chipmill.region.fields import Source
from chipmill.region.patterns import parse_pattern, source_file


def read(pattern, path):
    return parse_pattern(pattern).read(path)


def said(pattern, path):
    """Return the fields but the date's, and the period as two dates."""
    found = read(pattern, path)
    fields = {name: text for name, text in found.fields.items() if name[0] != "%"}
    return fields, f"{found.start:%Y-%m-%d %H:%M:%S}", f"{found.end:%Y-%m-%d %H:%M:%S}"


def utc(*parts):
    return dt.datetime(*parts, tzinfo=dt.UTC)


def test_a_name_gives_its_fields_and_its_day():
    found = said("{date:%Y%m%d}_{tile}_{band}.tif", "20190228_33uwq_red.tif")
    assert found == ({"tile": "33uwq", "band": "red"}, "2019-02-28 00:00:00", "2019-03-01 00:00:00")


@pytest.mark.parametrize(
    ("pattern", "path", "start", "end"),
    [
        ("{year}/{band}.tif", "2019/red.tif", utc(2019, 1, 1), utc(2020, 1, 1)),
        ("{date:%Y-%m}_{band}.tif", "2019-12_red.tif", utc(2019, 12, 1), utc(2020, 1, 1)),
        ("{date:%Y%j}_{band}.tif", "2020366_red.tif", utc(2020, 12, 31), utc(2021, 1, 1)),
        ("{date:%Y%m%dT%H%M%S}.tif", "20190101T235959.tif", utc(2019, 1, 1, 23, 59, 59), utc(2019, 1, 2)),
        ("{date:%Y%m%dT%H}.tif", "20190101T23.tif", utc(2019, 1, 1, 23), utc(2019, 1, 2)),
        ("{date:%Y}/{date:%m}/{date:%d}.tif", "2019/02/03.tif", utc(2019, 2, 3), utc(2019, 2, 4)),
        ("{year}/{date:%Y%m%d}.tif", "2019/20190203.tif", utc(2019, 2, 3), utc(2019, 2, 4)),
    ],
)
def test_the_period_is_what_the_date_leaves_open(pattern, path, start, end):
    found = read(pattern, path)
    assert (found.start, found.end) == (start, end)


def test_the_time_of_a_day_is_noon_and_of_an_hour_that_hour():
    assert read("{date:%Y%m%d}.tif", "20190101.tif").day == utc(2019, 1, 1, 12)
    assert read("{date:%Y%m%dT%H%M}.tif", "20190101T0130.tif").day == utc(2019, 1, 1, 1, 30)


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("{date:%Y%m%d}_{band}.tif", "20190230_red.tif"),  # no such day
        ("{date:%Y%j}.tif", "2019366.tif"),
        ("{date:%Y%m%d}_{band}.tif", "2019010_red.tif"),
        ("{date:%Y%m%d}_{band}.tif", "20190101_red.tiff"),
        ("{date:%Y%m%d}_{band}.tif", "20190101_.tif"),
        ("{date:%Y%m%d}_{band}.tif", "20190101_a/b.tif"),  # a field holds no slash
        ("{date:%Y%m%d}_{band}.tif", "sub/20190101_a.tif"),
        ("{date:%Y%m%d}_{band}.tif", "２０１９0101_a.tif"),  # wide digits
        ("{year}/{date:%Y%m%d}.tif", "2019/20200101.tif"),  # says two years
        ("{tile}/{tile}_{year}.tif", "a/b_2019.tif"),
        ("{tile:3}_{year}.tif", "ab_2019.tif"),
        ("{tile:3}_{year}.tif", "abcd_2019.tif"),
    ],
)
def test_what_does_not_fit_is_not_read(pattern, path):
    assert read(pattern, path) is None


def test_a_field_named_twice_says_the_same_twice():
    assert said("{tile}/{year}_{tile}_{band}.tif", "a_b/2019_a_b_red.tif")[0] == {
        "tile": "a_b",
        "band": "red",
    }


def test_a_name_with_two_readings_is_an_error_and_a_width_settles_it():
    with pytest.raises(RegionFileError, match=r"two ways, .*tile 'a'.*give a field its width"):
        read("{year}_{tile}_{band}.tif", "2019_a_b_c.tif")
    assert said("{year}_{tile:1}_{band}.tif", "2019_a_b_c.tif")[0] == {"tile": "a", "band": "b_c"}


def test_a_reading_with_an_impossible_date_is_no_second_reading():
    found = read("{tile}{date:%m%d}_{year}.tif", "x0101_2019.tif")
    assert found.start == utc(2019, 1, 1)


def test_a_hostile_name_ends_in_bounded_time():
    pattern = "{year}" + "".join(f"_{{f{number}}}" for number in range(15)) + ".tif"
    with pytest.raises(RegionFileError, match="too many ways"):
        read(pattern, "2019_" + "_" * 200 + "x.png")


def test_signs_of_other_languages_are_plain_text():
    """Neither a regular expression nor a shell's pattern nor Python's format has a meaning here."""
    assert read("a.(*)[b]?_{year}.tif", "a.(*)[b]?_2019.tif").start == utc(2019, 1, 1)
    assert read("a.(*)[b]?_{year}.tif", "axx_2019.tif") is None


def test_ids_leave_the_band_out_and_join_the_date():
    assert read("{date:%Y}/{date:%m%d}_{tile}_{band}.tif", "2019/0203_t_red.tif").item_id == "20190203_t"


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("", "no pattern"),
        ("s3://b/{year}.tif", "no pattern"),
        ("a\\{year}.tif", "no pattern"),
        ("a\n{year}.tif", "no pattern"),
        ("plain.tif", "0 fields"),
        ("{year}_" + "{a}_" * 16 + ".tif", "17 fields"),
        ("{band}.tif", "%Y is missing"),
        ("{date:%m%d}.tif", "%Y is missing"),
        ("{date:%Y%d}.tif", "%m is missing"),
        ("{date:%Y%m%H}.tif", "%d is missing"),
        ("{date:%Y%m%d%S}.tif", "%M is missing"),
        ("{date:%Y%m%j}.tif", "day of the year and by month"),
        ("{date}.tif", "not written as"),
        ("{date:%y%m%d}.tif", "not written as"),
        ("{date:%Y%%}.tif", "not written as"),
        ("{date:2019}.tif", "not written as"),
        ("{tile}{band}_{year}.tif", "without text between"),
        ("{tile:0}_{year}.tif", "number of characters"),
        ("{tile:x}_{year}.tif", "number of characters"),
        ("{tile.x}_{year}.tif", "brace that is no field"),
        ("{tile!r}_{year}.tif", "brace that is no field"),
        ("{{tile}}_{year}.tif", "brace that is no field"),
        ("{year}/../{band}.tif", "empty folder, . or .."),
        ("{year}//{band}.tif", "empty folder, . or .."),
    ],
)
def test_what_is_no_pattern_is_refused_with_its_reason(pattern, why):
    with pytest.raises(RegionFileError, match=why):
        parse_pattern(pattern)


@pytest.mark.parametrize(
    ("pattern", "folder"),
    [
        ("{year}.tif", "."),
        ("x_{year}.tif", "."),
        ("a/b/{year}/{band}.tif", "a/b"),
        ("../a/x{year}.tif", "../a"),
        ("/{year}.tif", "/"),
        ("/data/{year}.tif", "/data"),
    ],
)
def test_the_folder_is_what_stands_before_the_first_field(pattern, folder):
    assert parse_pattern(pattern).folder == folder


def test_the_folders_on_the_way_to_a_file_are_known():
    pattern = parse_pattern("{year}/{tile:2}/{band}.tif")
    assert [pattern.may_hold(path) for path in ("2019", "2019/ab", "201", "2019/abc", "2019/ab/red.tif")] == [
        True, True, False, False, False,
    ]  # fmt: skip


def test_a_source_is_one_of_its_kinds_and_knows_where_its_hrefs_begin():
    assert source_file(Source(files="a/{year}/{band}.tif")) == "a/files"
    assert source_file(Source(items="a/items.json")) == "a/items.json"
    with pytest.raises(ValidationError, match="exactly one of stac, catalog, items, files, composites"):
        Source(files="{year}.tif", composites="{year}.tif")
    with pytest.raises(ValidationError, match="tells no date"):
        Source(composites="{band}.tif")
