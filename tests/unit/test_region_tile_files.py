"""Tiles from the polygons of a vector file, with all that the file says of them."""

import datetime as dt
from typing import get_args

import numpy as np
import pyogrio.raw
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from chipmill.cli.work import TILE_KINDS
from chipmill.core.errors import AoiError, GridError, RegionFileError
from chipmill.imagery.planning import make_tiles, place_remarks
from chipmill.region.attributes import day_of, is_rejected, split_of, text_of, year_of
from chipmill.region.config import Region
from chipmill.region.grid import Window, lattice_of, reproject_shape
from chipmill.region.identity import config_fingerprint, named_files
from chipmill.region.plan import load_tiles, write_tiles
from chipmill.region.roots import paths_of
from chipmill.region.slots import tile_slots
from chipmill.region.tiles import cover_mask
from chipmill.region.tiling import Tiles
from chipmill.region.windows import iter_windows

LATTICE = lattice_of(32633, 10.0)
PLACE = Window(50_048, -500_032, 64, 64)
IMAGERY = [{"name": "s2", "source": {"catalog": "c"}, "bands": {"red": "red"}}]
AOI = {"bbox": list(LATTICE.footprint(PLACE.padded(500)).bounds)}


def square(right: int, down: int, side: int = 64, shift: float = 0.0):
    """A square of lattice pixels, in metres, moved by a part of a pixel."""
    window = Window(PLACE.col_off + right, PLACE.row_off + down, side, side)
    return shapely.transform(shapely.box(*LATTICE.bounds(window)), lambda xy: xy + shift * 10)


def save(path, shapes, epsg=32633, **fields):
    columns = [np.array(values, dtype=object if None in values else None) for values in fields.values()]
    pyogrio.raw.write(
        path, np.array([shape.wkb for shape in shapes], dtype=object), columns, list(fields), crs=f"EPSG:{epsg}",
        geometry_type="Unknown",
    )  # fmt: skip
    return path


def region(folder, tiles=None, **changes):
    values = {
        "name": "r", "file": str(folder / "r.yaml"), "aoi": AOI, "imagery": IMAGERY,
        "time": {"range": ("2018-01-01", "2020-01-01")}, "grid": {"crs": "EPSG:32633"},
        "dataset": {"chips": {"size_px": 32, "stride_px": 32}},
        "tiles": {"from": "file", "path": "tiles.gpkg"} | (tiles or {}),
    }  # fmt: skip
    return Region.model_validate(values | changes)


def test_a_square_of_the_lattice_is_that_window_and_one_beside_it_grows_outward(tmp_path):
    save(tmp_path / "tiles.gpkg", [square(0, 0), square(100, 0, shift=0.4)])
    first, second = make_tiles(region(tmp_path))
    assert first.window == PLACE and first.lattice == LATTICE
    assert second.window == Window(PLACE.col_off + 100, PLACE.row_off - 1, 65, 65)
    assert not first.lattice_tile and first.anchor == "2018-01-01" and first.time is None
    assert [tile.tile_id for tile in (first, second)] == ["1", "2"], "the numbers of the features in a GPKG"


def test_a_square_in_degrees_is_the_same_window(tmp_path):
    degrees = reproject_shape(square(0, 0), 32633, 4326)
    save(tmp_path / "tiles.geojson", [degrees], epsg=4326)
    (tile,) = make_tiles(region(tmp_path, {"path": "tiles.geojson"}))
    assert tile.window == PLACE


def test_every_attribute_arrives_and_comes_back_from_the_table(tmp_path):
    save(
        tmp_path / "tiles.gpkg", [square(0, 0), square(100, 0), square(200, 0)],
        Name=["North_1", "South 2", "East"], when=["2018-05-04", "2019-12-31T23:30:00-02:00", "2018-01-01"],
        fold=["dev", None, "TEST"], bad=[0, 1, None], year=[2013.0, float("nan"), 2015.5], who=["a", "b", None],
    )  # fmt: skip
    wanted = {"id": "Name", "time": "when", "split": "fold", "reject": "bad", "attributes": ["year", "who"]}
    middle = LATTICE.footprint(Window(PLACE.col_off + 100, PLACE.row_off, 64, 64)).bounds
    with pytest.raises(AoiError, match=r"2 outside the AOI by aoi\.rule intersects, 1 outside time\.range"):
        make_tiles(region(tmp_path, wanted, aoi={"bbox": list(middle)}))
    tiles = make_tiles(region(tmp_path, wanted, time={"range": ("2018-01-01", "2021-01-01")}))
    assert [tile.tile_id for tile in tiles] == ["east", "north_1", "south-2"]
    assert [tile.source_id for tile in tiles] == ["East", "North_1", "South 2"]
    assert [tile.anchor for tile in tiles] == ["2018-01-01", "2018-05-04", "2020-01-01"]
    assert tiles[1].time.end - tiles[1].time.start == dt.timedelta(days=1)
    assert [tile.split for tile in tiles] == ["test", "val", None]
    assert [tile.reject for tile in tiles] == [False, False, True]
    assert [tile.attributes for tile in tiles] == [
        {"year": "2015.5"},
        {"year": "2013", "who": "a"},
        {"who": "b"},
    ]
    write_tiles(tmp_path / "tiles.parquet", tiles, "f")
    assert load_tiles(tmp_path / "tiles.parquet") == tiles


PART = st.floats(0, 300, allow_nan=False).map(lambda value: round(value, 4))


@given(st.tuples(PART, PART, PART, PART))
def test_the_window_is_the_smallest_that_holds_the_polygon(tmp_path_factory, corners):
    folder = tmp_path_factory.mktemp("tiles")
    left, right, top, bottom = (
        corners[0],
        corners[0] + corners[1] + 1,
        corners[2],
        corners[2] + corners[3] + 1,
    )
    x, y = LATTICE.bounds(PLACE)[0], LATTICE.bounds(PLACE)[3]
    save(folder / "tiles.gpkg", [shapely.box(x + left * 10, y - bottom * 10, x + right * 10, y - top * 10)])
    aoi = {"bbox": list(LATTICE.footprint(PLACE.padded(1000)).bounds)}
    (tile,) = make_tiles(region(folder, aoi=aoi))
    col, row = tile.window.col_off - PLACE.col_off, tile.window.row_off - PLACE.row_off
    rim = 2e-3  # a border nearer than this to that of a pixel is on it
    assert col - rim <= left < col + 1 + rim and row - rim <= top < row + 1 + rim
    assert col + tile.window.width - 1 - rim <= right <= col + tile.window.width + rim
    assert row + tile.window.height - 1 - rim <= bottom <= row + tile.window.height + rim


def test_slots_around_the_date_of_each_tile(tmp_path):
    save(tmp_path / "tiles.gpkg", [square(0, 0), square(100, 0)], day=["2018-03-01", "2018-07-01"])
    slots = {"around_label": {"before_days": 2, "after_days": 1}}
    config = region(tmp_path, {"time": "day"}, time={"range": ("2018-01-01", "2019-01-01"), "slots": slots})
    spans = [tile_slots(config, tile.time)[0].time for tile in make_tiles(config)]
    assert [(span.start_date, span.end_date) for span in spans] == [
        ("2018-02-27", "2018-03-03"), ("2018-06-29", "2018-07-03"),
    ]  # fmt: skip


def test_the_cover_is_the_polygon_inside_the_aoi(tmp_path):
    triangle = shapely.Polygon(list(square(0, 0).exterior.coords)[:3])
    save(tmp_path / "tiles.gpkg", [triangle])
    (tile,) = make_tiles(region(tmp_path))
    assert tile.window == PLACE
    assert 0.45 < cover_mask(tile).mean() < 0.55


def test_what_makes_no_tile_is_counted_with_its_reason(tmp_path):
    far = shapely.transform(square(0, 0), lambda xy: xy + 50_000)
    line = shapely.LineString(list(square(0, 0).exterior.coords)[:2])
    save(
        tmp_path / "tiles.gpkg",
        [square(0, 0), far, line, line, shapely.Polygon()],
        bad=["no", "", "", "", ""],
    )
    config = region(tmp_path, {"reject": "bad"})
    assert len(make_tiles(config)) == 1
    assert place_remarks(config) == (
        "tiles.gpkg: 1 features make no tile: no geometry",
        "tiles.gpkg: 1 features make no tile: outside the AOI by aoi.rule intersects",
        "tiles.gpkg: 2 features make no tile: no polygon",
    )
    save(tmp_path / "tiles.gpkg", [square(0, 0), square(100, 0)], bad=["no", "yes"])
    assert place_remarks(config) == ("tiles.gpkg: 1 of 2 tiles are rejected",)
    assert place_remarks(region(tmp_path, {"from": "lattice", "path": None})) == ()


def test_a_polygon_that_crosses_itself_is_mended_and_said(tmp_path):
    corners = list(square(0, 0).exterior.coords)
    save(tmp_path / "tiles.gpkg", [shapely.Polygon([corners[0], corners[2], corners[1], corners[3]])])
    (tile,) = make_tiles(region(tmp_path))
    assert tile.window == PLACE and 0.4 < cover_mask(tile).mean() < 0.6
    (remark,) = place_remarks(region(tmp_path))
    assert "1 polygons were invalid (Self-intersection" in remark and "were mended" in remark


def test_a_tile_larger_than_any_of_a_lattice_is_refused(tmp_path):
    save(tmp_path / "tiles.gpkg", [square(0, 0, 16384), square(0, 0, 16385)])
    with pytest.raises(
        RegionFileError, match=r"feature '2' of tiles\.gpkg spans 16,385 x 16,385 px, a tile has 16,384"
    ):
        make_tiles(region(tmp_path))


def test_the_rule_of_the_aoi_holds_for_tiles_of_a_file_too(tmp_path):
    save(tmp_path / "tiles.gpkg", [square(0, 0), square(700, 0), square(530, 0)])
    counts = [
        len(make_tiles(region(tmp_path, aoi=AOI | {"rule": rule}))) for rule in ("intersects", "within")
    ]
    assert counts == [2, 1]


def test_zones_come_from_the_place_of_each_tile(tmp_path):
    west, east = shapely.box(17.90, 46.0, 17.91, 46.01), shapely.box(18.05, 46.0, 18.06, 46.01)
    save(tmp_path / "tiles.geojson", [west, east], epsg=4326)
    changes = {"grid": {"crs": "auto"}, "aoi": {"bbox": [17.8, 45.9, 18.2, 46.2]}}
    tiles = make_tiles(region(tmp_path, {"path": "tiles.geojson"}, **changes))
    assert [tile.crs for tile in tiles] == ["EPSG:32633", "EPSG:32634"]


@pytest.mark.parametrize(
    ("fields", "tiles", "message"),
    [
        ({"fold": ["holdout", "train"]}, {"split": "fold"}, r"feature 1: 'fold': 'holdout' is no split: expected train"),
        ({"bad": ["perhaps", "no"]}, {"reject": "bad"}, "'perhaps' is neither yes nor no"),
        ({"when": ["spring", "2018-01-01"]}, {"time": "when"}, "'spring' is no date: expected one like"),
        ({"when": [None, "2018-01-01"]}, {"time": "when"}, "feature 1 has no date in 'when'"),
        ({"name": [None, "a"]}, {"id": "name"}, "feature 1 has nothing in 'name': give every feature an id"),
        ({"name": ["b", "a"]}, {"id": "nome"}, "has no attribute 'nome', but 'name'"),
    ],
)  # fmt: skip
def test_a_value_that_means_nothing_is_an_error_that_names_it(tmp_path, fields, tiles, message):
    save(tmp_path / "tiles.gpkg", [square(0, 0), square(100, 0)], **fields)
    with pytest.raises(RegionFileError, match=message):
        make_tiles(region(tmp_path, tiles))


def test_ids_that_become_one_file_name_are_refused(tmp_path):
    save(tmp_path / "tiles.gpkg", [square(0, 0), square(100, 0)], name=["A", "a"])
    with pytest.raises(GridError, match="both become 'a'"):
        make_tiles(region(tmp_path, {"id": "name"}))


def test_windows_that_two_tiles_share_are_refused_before_work_unless_their_dates_differ(tmp_path):
    shapes = [square(0, 0), square(32, 0)]
    save(tmp_path / "tiles.gpkg", shapes, day=["2018-01-01", "2018-01-02"])
    with pytest.raises(RegionFileError, match=r"tiles 1 and 2 of tiles\.gpkg share 2 windows of 32 px"):
        make_tiles(region(tmp_path))
    assert len(make_tiles(region(tmp_path, {"time": "day"}))) == 2
    save(tmp_path / "tiles.gpkg", [square(0, 0), square(64, 0), square(33, 100)])
    tiles = make_tiles(region(tmp_path))
    chips = region(tmp_path).dataset.chips
    laid = [window for tile in tiles for window in iter_windows(tile, {}, chips)]
    assert len(laid) == len(set(laid)) == 12


def test_a_file_that_is_none_or_names_no_crs_is_refused(tmp_path):
    with pytest.raises(RegionFileError, match=r"does not exist: give tiles\.path"):
        make_tiles(region(tmp_path))
    (tmp_path / "tiles.gpkg").write_text("<VRT/>")
    with pytest.raises(RegionFileError, match=r"its content is not that of a \.gpkg file"):
        make_tiles(region(tmp_path))
    save(tmp_path / "tiles.shp", [square(0, 0)])
    (tmp_path / "tiles.prj").unlink()
    with pytest.raises(RegionFileError, match="names no CRS: save it in EPSG:4326"):
        make_tiles(region(tmp_path, {"path": "tiles.shp"}))


def test_geoparquet_holds_tiles_too(tmp_path):
    geopandas = pytest.importorskip("geopandas")
    frame = geopandas.GeoDataFrame(
        {"name": ["b", "a"]}, geometry=[square(0, 0), square(100, 0)], crs="EPSG:32633"
    )
    frame.to_parquet(tmp_path / "tiles.parquet")
    tiles = make_tiles(region(tmp_path, {"path": "tiles.parquet", "id": "name"}))
    assert [(tile.tile_id, tile.window.col_off - PLACE.col_off) for tile in tiles] == [("a", 100), ("b", 0)]


def test_the_file_is_named_and_its_content_is_part_of_the_identity(tmp_path):
    save(tmp_path / "tiles.gpkg", [square(0, 0)])
    config = region(tmp_path)
    assert named_files(config)["tiles.path"] == paths_of(config)["tiles.path"] == "tiles.gpkg"
    before = config_fingerprint(config)
    assert before != config_fingerprint(region(tmp_path, {"id": "name"}))
    save(tmp_path / "tiles.gpkg", [square(1, 0)])
    assert before != config_fingerprint(config)


@pytest.mark.parametrize(
    ("tiles", "message"),
    [
        ({"path": None}, "tiles from file need path"),
        ({"class": "kind"}, "tiles from file take no class: it is for tiles from points"),
        ({"from": "lattice"}, "tiles from lattice take no path: it is for tiles from file or points"),
        ({"from": "points", "reject": "bad"}, "tiles from points take no reject"),
        ({"time": "day", "year": {"attribute": "year"}}, "either time or year"),
    ],
)
def test_fields_that_their_source_does_not_read_are_refused(tmp_path, tiles, message):
    with pytest.raises(ValueError, match=message):
        region(tmp_path, tiles)


def test_the_bill_says_what_tiles_are_whatever_their_way():
    assert set(TILE_KINDS) == set(get_args(Tiles.model_fields["from_"].annotation))


def test_texts_of_values_do_not_depend_on_the_type_that_a_file_gives_them():
    assert [text_of(value) for value in (3, 3.0, np.float32(3), np.int64(3), "3")] == ["3"] * 5
    assert [text_of(value) for value in (None, float("nan"), np.float64("nan"))] == [None] * 3
    assert text_of(True) == text_of(np.bool_(True)) == "true" and text_of(0.25) == "0.25"


@pytest.mark.parametrize(
    ("value", "expected"),
    [(2015, 2015), (2015.0, 2015), ("2015", 2015), ("2015-03-01", 2015), ("2015-12-31T23:00:00-02:00", 2016), (None, None), (" ", None)],
)  # fmt: skip
def test_years(value, expected):
    assert year_of(value) == expected


@pytest.mark.parametrize("value", [2015.5, "15 May", "in 2015", 0, -3, "20156"])
def test_what_is_no_year_is_refused_and_none_is_found_inside_a_text(value):
    # The glacier code found years by substring.
    with pytest.raises(ValueError, match="is no year"):
        year_of(value)


@given(st.dates())
def test_days_are_read_as_they_are_written(day):
    assert day_of(day) == day_of(day.isoformat()) == day_of(f"{day.isoformat()}T23:59:59Z") == day


def test_splits_and_rejects_in_all_their_spellings():
    assert [split_of(value) for value in ("Train", "dev", "validation", "test", "", None)] == [
        "train", "val", "val", "test", None, None,
    ]  # fmt: skip
    assert all(is_rejected(value) for value in (True, 1, 2.0, "yes", "TRUE", "x", -1, "0.5"))
    assert not any(is_rejected(value) for value in (False, 0, 0.0, "no", "", None, float("nan"), "0.0"))
