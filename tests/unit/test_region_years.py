"""The year of each tile: mode of what overlaps it, snapped to an available year, ties as the rule says."""

import datetime as dt

import numpy as np
import pyogrio.raw
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from chipmill.core.errors import AoiError, RegionFileError
from chipmill.imagery.nearest import reference_day
from chipmill.imagery.planning import make_tiles, place_remarks
from chipmill.imagery.ready import ready_times
from chipmill.region.config import Region
from chipmill.region.grid import Window, lattice_of
from chipmill.region.identity import config_fingerprint, named_files
from chipmill.region.patterns import Reading
from chipmill.region.plan import load_tiles, write_tiles
from chipmill.region.slots import cell_slots, slot_names, tile_slots, year_range
from chipmill.region.tiling import TileYear
from chipmill.region.years import mode_year, snapped_year

LATTICE = lattice_of(32633, 10.0)
PLACE = Window(50_048, -500_032, 64, 64)
IMAGERY = [{"name": "s2", "source": {"catalog": "c"}, "bands": {"red": "red"}}]


def part(left: float, right: float, column: int = 0):
    """A rectangle of columns of a tile, in metres; ``column`` counts tiles to the right."""
    west, south, _, north = LATTICE.bounds(Window(PLACE.col_off + 64 * column, PLACE.row_off, 64, 64))
    return shapely.box(west + left * 10, south, west + right * 10, north)


def save(path, shapes, years, epsg=32633):
    pyogrio.raw.write(
        path, np.array([shape.wkb for shape in shapes], dtype=object), [np.array(years)], ["year"],
        crs=f"EPSG:{epsg}", geometry_type="Unknown",
    )  # fmt: skip
    return path


def region(folder, rule=None, tiles=None, columns=3, **changes):
    inner = Window(PLACE.col_off + 2, PLACE.row_off + 2, 64 * columns - 4, 60)
    values = {
        "name": "r", "file": str(folder / "r.yaml"), "imagery": IMAGERY,
        "aoi": {"bbox": list(LATTICE.footprint(inner).bounds)},
        "time": {"range": ("2013-01-01", "2018-01-01")}, "grid": {"crs": "EPSG:32633", "tile_px": 64},
        "tiles": {"year": {"attribute": "year", "path": "years.gpkg"} | (rule or {})} | (tiles or {}),
    }  # fmt: skip
    return Region.model_validate(values | changes)


def years(config):
    return [None if tile.time is None else tile.time.start.year for tile in make_tiles(config)]


def test_the_year_with_the_largest_area_wins_not_the_first_nor_the_most_features(tmp_path):
    small = [part(0, 8), part(8, 16), part(16, 24)]
    save(
        tmp_path / "years.gpkg",
        [*small, part(24, 60), part(0, 64, 1), part(0, 1, 2)],
        [2014] * 3 + [2016, 2015, 2017],
    )
    assert years(region(tmp_path)) == [2016, 2015, 2017]


def test_a_tile_that_nothing_overlaps_is_rejected_or_takes_the_default(tmp_path):
    save(tmp_path / "years.gpkg", [part(0, 64)], [2014])
    config = region(tmp_path)
    tiles = make_tiles(config)
    assert [tile.reject for tile in tiles] == [False, True, True]
    assert place_remarks(config) == ("2 of 3 tiles have no year and are rejected",)
    assert [tile.anchor for tile in tiles] == ["2014-01-01", "2013-01-01", "2013-01-01"]
    filled = region(tmp_path, {"default": 2015})
    assert years(filled) == [2014, 2015, 2015]
    assert place_remarks(filled) == ("2 of 3 tiles have no year and take 2015 by default",)
    save(tmp_path / "years.gpkg", [part(100, 164, 50)], [2014])
    with pytest.raises(AoiError, match="all 3 tiles of r are rejected"):
        make_tiles(config)


@pytest.mark.parametrize(("ties", "wanted"), [("earliest", 2014), ("latest", 2016)])
def test_equal_areas_are_a_tie_whatever_their_order_and_last_bits(tmp_path, ties, wanted):
    halves = [part(0, 32), part(32, 64)]
    for order in ([2014, 2016], [2016, 2014]):
        save(tmp_path / "years.gpkg", halves, order)
        assert years(region(tmp_path, {"ties": ties}, columns=1)) == [wanted]
    save(tmp_path / "years.gpkg", [part(0, 32.01), part(32.01, 64)], [2016, 2014])
    assert years(region(tmp_path, {"ties": ties}, columns=1)) == [2016], "0.64 px more is no tie"


@pytest.mark.parametrize(
    ("ties", "wanted"), [("earliest", [2013, 2013, 2016]), ("latest", [2013, 2015, 2016])]
)
def test_years_are_snapped_to_the_nearest_available_one(tmp_path, ties, wanted):
    save(tmp_path / "years.gpkg", [part(0, 64, column) for column in range(3)], [1999, 2014, 2031])
    config = region(tmp_path, {"ties": ties, "available": [2016, 2015, 2013]})
    assert years(config) == wanted
    assert place_remarks(config) == tuple(
        f"1 of 3 tiles are of {year}, which is not available, and take {taken}"
        for year, taken in zip([1999, 2014, 2031], wanted, strict=True)
    )


def test_points_count_where_there_are_no_polygons(tmp_path):
    dots = [part(0, 10).centroid, part(10, 20).centroid, part(20, 30).centroid]
    save(tmp_path / "years.gpkg", dots, [2014, 2015, 2015])
    assert years(region(tmp_path, columns=1)) == [2015]
    save(tmp_path / "years.gpkg", [*dots, part(0, 1)], [2014, 2015, 2015, 2016])
    assert years(region(tmp_path, columns=1)) == [2016], "beside polygons points have no area"


def test_the_tiles_of_a_file_may_say_their_own_year(tmp_path):
    save(
        tmp_path / "tiles.gpkg", [part(0, 64), part(0, 64, 1), part(0, 64, 2)], [2014.0, float("nan"), 2020.0]
    )
    own = {"from": "file", "path": "tiles.gpkg", "year": {"attribute": "year"}}
    tiles = make_tiles(region(tmp_path, tiles=own))
    assert [(tile.anchor, tile.reject) for tile in tiles] == [
        ("2014-01-01", False), ("2013-01-01", True), ("2017-01-01", False),
    ]  # fmt: skip
    assert place_remarks(region(tmp_path, tiles=own)) == (
        "1 of 3 tiles have no year and are rejected",
        "1 of 3 tiles are of 2020, which is not available, and take 2017",
    )
    write_tiles(tmp_path / "tiles.parquet", tiles, "f")
    assert load_tiles(tmp_path / "tiles.parquet") == tiles
    own["year"]["default"] = 2015
    assert years(region(tmp_path, tiles=own)) == [2014, 2015, 2017]


def test_points_take_no_year_for_their_neighbourhoods_would_mix_them(tmp_path):
    with pytest.raises(
        ValueError, match="tiles from points take no year: it is for tiles from lattice or file"
    ):
        region(tmp_path, tiles={"from": "points", "path": "points.gpkg"})


def test_slots_and_dates_are_those_of_the_year(tmp_path):
    save(tmp_path / "years.gpkg", [part(0, 64), part(0, 64, 1), part(0, 64, 2)], [2014, 2016, 2016])
    config = region(tmp_path, time={"range": ("2013-01-01", "2018-01-01"), "slots": {"every": "P6M"}})
    first, second, third = make_tiles(config)
    assert (first.anchor, second.anchor, third.anchor) == ("2014-01-01", "2016-01-01", "2016-01-01")
    spans = [
        (slot.name, slot.time.start_date, slot.time.end_date) for slot in tile_slots(config, second.time)
    ]
    assert spans == [("p1", "2016-01-01", "2016-07-01"), ("p2", "2016-07-01", "2017-01-01")]
    assert slot_names(config) == ("p1", "p2")
    assert [slot.time.start.year for slot in cell_slots(config)] == [
        y for y in range(2013, 2018) for _ in "12"
    ]


def test_ready_composites_of_years_serve_the_tiles_of_each_year(tmp_path):
    config = region(tmp_path, {"available": [2014, 2016]})
    readings = [Reading({}, year_range(year).start, year_range(year).end) for year in (2014, 2015, 2016)]
    assert sorted(start.year for start, _ in ready_times(config, readings)) == [2014, 2016]


def test_the_nearest_date_is_that_of_the_slot_where_the_tile_has_a_year(tmp_path):
    year = year_range(2014)
    assert reference_day(None, year, year) == dt.date(2014, 7, 2)
    day = tile_slots(region(tmp_path), year)[0].time
    assert reference_day(None, day, year) == dt.date(2014, 7, 2)


@pytest.mark.parametrize(
    ("rule", "changes", "message"),
    [
        ({"available": [2012, 2014]}, {}, r"must hold each year of tiles\.year wholly .* lacks 2012"),
        ({}, {"time": {"range": ("2013-02-01", "2013-12-31")}}, "lacks none"),
        ({"default": 2020}, {}, r"default 2020 must be one of the available years \(2013 to 2017\)"),
        ({"available": []}, {}, "available must name a year"),
        ({"path": None}, {}, r"tiles\.year needs path"),
        ({}, {"time": {"range": ("2013-01-01", "2018-01-01"), "slots": {"around_label": {}}}}, "cut of any year"),
    ],
)  # fmt: skip
def test_years_that_cannot_be_are_refused_when_the_file_is_read(tmp_path, rule, changes, message):
    with pytest.raises(ValueError, match=message):
        region(tmp_path, rule, **changes)


def test_slots_that_leap_years_change_are_refused(tmp_path):
    save(tmp_path / "years.gpkg", [part(0, 64)], [2014])
    time = {"range": ("2013-01-01", "2018-01-01"), "slots": {"every": "P73D"}}
    with pytest.raises(RegionFileError, match="cuts 2013 into 5 slots and 2016 into 6"):
        make_tiles(region(tmp_path, time=time))
    make_tiles(region(tmp_path, {"available": [2013, 2014]}, time=time))


def test_a_text_that_holds_a_year_is_no_year(tmp_path):
    save(tmp_path / "years.gpkg", [part(0, 64), part(0, 64, 1)], ["2014", "RGI60-2014.01"])
    with pytest.raises(RegionFileError, match=r"feature 2: 'year': 'RGI60-2014\.01' is no year"):
        make_tiles(region(tmp_path))


def test_the_file_is_named_and_its_content_counts(tmp_path):
    save(tmp_path / "years.gpkg", [part(0, 64)], [2014])
    config = region(tmp_path)
    assert named_files(config)["tiles.year.path"] == "years.gpkg"
    before = config_fingerprint(config)
    save(tmp_path / "years.gpkg", [part(0, 64)], [2015])
    assert config_fingerprint(config) != before


AVAILABLE = st.lists(st.integers(1990, 2030), min_size=1, unique=True).map(sorted)


@given(AVAILABLE, st.integers(1980, 2040), st.sampled_from(["earliest", "latest"]))
def test_no_available_year_is_nearer_and_ties_go_as_the_rule_says(available, year, ties):
    rule = TileYear(attribute="year", ties=ties)
    found = snapped_year(rule, available, year)
    near = [one for one in available if abs(one - year) == min(abs(other - year) for other in available)]
    assert found == (min(near) if ties == "earliest" else max(near))


@given(
    st.dictionaries(st.integers(1990, 2030), st.integers(0, 5).map(float)),
    st.sampled_from(["earliest", "latest"]),
)
def test_the_mode_is_a_year_of_the_largest_weight(weights, ties):
    found = mode_year(TileYear(attribute="year", ties=ties), weights)
    best = [year for year, weight in weights.items() if weight == max(weights.values()) and weight > 0]
    assert found == (None if not best else min(best) if ties == "earliest" else max(best))
