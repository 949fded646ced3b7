"""Own archives without STAC: names and headers become items; what is not whole, or leads out, is said."""

import datetime as dt
import json
import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pystac
import pytest
import rasterio
import shapely
import stac_geoparquet.arrow as sga
from tests import imagery_world as iw
from typer.testing import CliRunner

from chipmill import cli
from chipmill.core.errors import AssetReadError, BadInputError, ItemSearchError
from chipmill.core.store import sha256_file
from chipmill.imagery import archive as module
from chipmill.imagery.archive import archive_items, find_files, item_of
from chipmill.imagery.geoparquet import parquet_items
from chipmill.imagery.ready import ready_times
from chipmill.region.patterns import parse_pattern
from chipmill.region.slots import TimeRange, midnight

DAILY = "{date:%Y%m%d}_{tile}_{band}.tif"
YEAR = TimeRange(midnight(dt.date(2019, 1, 1)), midnight(dt.date(2020, 1, 1)))
WORLD = (-180.0, -90.0, 180.0, 90.0)
PIXELS = np.full((16, 16), 500, np.uint16)


def fill(folder, *names, **more):
    for name in names:
        iw.save(folder / name, PIXELS, nodata=0, **more)


def found(folder, pattern=DAILY, *, time=YEAR, bounds=WORLD, collection=None, checksums=False):
    archive = find_files(folder, parse_pattern(pattern))
    return list(
        archive_items(
            archive,
            collection=collection,
            bounds=bounds,
            when=lambda reading: reading.day if time.holds(reading.day) else None,
            checksums=checksums,
        )
    )


def test_files_of_one_date_and_tile_are_one_item(tmp_path):
    fill(tmp_path, "20190301_t1_red.tif", "20190301_t1_nir.tif", "20190301_t2_red.tif", "20190201_t1_red.tif")
    assert [(one["id"], sorted(one["assets"])) for one in found(tmp_path)] == [
        ("20190201_t1", ["red"]),
        ("20190301_t1", ["nir", "red"]),
        ("20190301_t2", ["red"]),
    ]


def test_an_item_holds_what_name_and_header_say(tmp_path):
    path = iw.save(tmp_path / "20190301_t1_red.tif", PIXELS, nodata=0)
    one = found(tmp_path, collection="mine")[0]
    assert one["properties"] == {
        "tile": "t1",
        "datetime": "2019-03-01T12:00:00Z",
        "start_datetime": "2019-03-01T00:00:00Z",
        "end_datetime": "2019-03-01T23:59:59Z",
    }
    assert one["collection"] == "mine"
    assert one["assets"]["red"] == {
        "href": "./20190301_t1_red.tif",
        "roles": ["data"],
        "file:size": path.stat().st_size,
        "proj:code": "EPSG:32633",
        "proj:shape": [16, 16],
        "proj:transform": list(iw.transform())[:6],
        "bands": [{"name": "red", "data_type": "uint16"}],
    }
    left, top = iw.transform() @ (0, 0)
    right, bottom = iw.transform() @ (16, 16)
    box = shapely.box(*rasterio.warp.transform_bounds("EPSG:32633", "EPSG:4326", left, bottom, right, top))
    outline = shapely.geometry.shape(one["geometry"])
    assert outline.difference(box.buffer(1e-9)).is_empty
    assert outline.area > 0.95 * box.area
    assert one["bbox"] == list(outline.bounds)


def test_the_scale_that_a_file_tells_and_its_bands_names_are_kept(tmp_path):
    path = iw.save(tmp_path / "20190301.tif", np.stack([PIXELS, PIXELS, PIXELS]), nodata=0)
    with rasterio.open(path, "r+") as target:
        target.descriptions = ("red", "nir", None)
        target.scales, target.offsets = (1e-4, 1.0, 1.0), (-0.1, 0.0, 0.0)
    bands = found(tmp_path, "{date:%Y%m%d}.tif")[0]["assets"]["data"]["bands"]
    assert bands == [
        {"name": "red", "data_type": "uint16", "raster:scale": 1e-4, "raster:offset": -0.1},
        {"name": "nir", "data_type": "uint16"},
        {"name": "b3", "data_type": "uint16"},
    ]


def test_only_files_of_the_time_are_opened(tmp_path):
    fill(tmp_path, "20190301_t1_red.tif")
    (tmp_path / "20180301_t1_red.tif").write_bytes(b"damaged, and not asked for")
    assert [one["id"] for one in found(tmp_path)] == ["20190301_t1"]


def test_where_nothing_is_near_all_are_given(tmp_path):
    fill(tmp_path, "20190301_t1_red.tif", "20180301_t1_red.tif")
    assert [one["id"] for one in found(tmp_path, bounds=(0, 0, 1, 1))] == ["20190301_t1", "20180301_t1"]
    empty = TimeRange(midnight(dt.date(2001, 1, 1)), midnight(dt.date(2002, 1, 1)))
    assert [one["id"] for one in found(tmp_path, time=empty)] == ["20180301_t1", "20190301_t1"]


def test_a_file_changed_at_its_size_is_another_by_its_checksum(tmp_path):
    path = iw.save(tmp_path / "20190301_t1_red.tif", PIXELS, compress=None)
    before = found(tmp_path, checksums=True)[0]["assets"]["red"]
    assert before["file:checksum"] == f"1220{sha256_file(path)}"
    iw.save(path, PIXELS + 1, compress=None)
    after = found(tmp_path, checksums=True)[0]["assets"]["red"]
    assert after["file:size"] == before["file:size"]
    assert after["file:checksum"] != before["file:checksum"]


@pytest.mark.parametrize("name", ["20190301_t1_red.tif", "20190301_t1_nir.tif"])
def test_a_file_that_cannot_be_placed_is_named(tmp_path, name):
    fill(tmp_path, "20190301_t1_red.tif", "20190301_t1_nir.tif")
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:200])
    with pytest.raises(AssetReadError, match=name):
        found(tmp_path)
    iw.save(tmp_path / name, PIXELS, crs=None)
    with pytest.raises(AssetReadError, match=f"{name} has no CRS"):
        found(tmp_path)


def test_a_disguised_file_is_not_opened(tmp_path):
    fill(tmp_path, "secret.tif")
    vrt = (
        f"<VRTDataset rasterXSize='16' rasterYSize='16'><VRTRasterBand dataType='UInt16' band='1'><SimpleSource>"
        f"<SourceFilename>{tmp_path / 'secret.tif'}</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>"
    )
    (tmp_path / "20190301_t1_red.tif").write_text(vrt)
    with pytest.raises(AssetReadError, match="not an image"):
        found(tmp_path)


def test_links_that_lead_out_are_refused_and_others_are_read(tmp_path):
    inside, outside = tmp_path / "archive", tmp_path / "elsewhere"
    fill(inside, "2019/20190301_t1_red.tif")
    fill(outside, "20190401_t1_red.tif")
    pattern = "{year}/" + DAILY
    link = inside / "2019" / "20190401_t1_red.tif"
    link.symlink_to(outside / "20190401_t1_red.tif")
    with pytest.raises(ItemSearchError, match=r"20190401_t1_red.tif is a link that leads out"):
        found(inside, pattern)
    link.unlink()
    link.symlink_to("20190301_t1_red.tif")
    assert [one["id"] for one in found(inside, pattern)] == ["20190301_t1", "20190401_t1"]
    link.unlink()
    (inside / "other").symlink_to(outside)  # no year: it cannot hold a file of the pattern
    assert len(found(inside, pattern)) == 1
    (inside / "2020").symlink_to(outside)
    with pytest.raises(ItemSearchError, match=r"2020 is a link that leads out"):
        found(inside, pattern)


def test_a_name_that_no_list_could_hold_is_refused(tmp_path):
    fill(tmp_path, "20190301_t1_red.tif")
    (tmp_path / "20190301_t1_red.tif").rename(os.fsdecode(os.fsencode(tmp_path) + b"/20190301_t\xff_red.tif"))
    with pytest.raises(ItemSearchError, match=r"name is no Unicode, '20190301_t.udcff_red.tif'"):
        found(tmp_path)


def test_a_link_to_nothing_is_an_error_not_a_missing_date(tmp_path):
    fill(tmp_path, "20190301_t1_red.tif")
    (tmp_path / "20190401_t1_red.tif").symlink_to(tmp_path / "gone.tif")
    with pytest.raises(AssetReadError, match=r"20190401_t1_red\.tif does not exist"):
        found(tmp_path)


def test_nothing_that_fits_is_an_error_that_shows_what_is_there(tmp_path):
    with pytest.raises(ItemSearchError, match="is no folder"):
        found(tmp_path / "gone")
    fill(tmp_path, "x.tif")
    with pytest.raises(
        ItemSearchError, match=r"no file below .* fits the pattern .*, for example 'x.tif' does not"
    ):
        found(tmp_path)


def test_two_names_of_one_item_are_an_error(tmp_path):
    fill(tmp_path, "a_b/c/2019.tif", "a/b_c/2019.tif")
    with pytest.raises(ItemSearchError, match="mean the same item a_b_c_2019"):
        found(tmp_path, "{x}/{y}/{year}.tif")


def test_an_archive_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_MAX_FILES", 2)
    for number in range(3):
        (tmp_path / f"{number}.txt").touch()
    with pytest.raises(ItemSearchError, match="more than 2 files"):
        found(tmp_path)


def test_an_item_over_the_antimeridian_is_cut_there(tmp_path):
    place = rasterio.Affine(10_000.0, 0, 900_000.0, 0, -10_000.0, 100_000.0)
    iw.save(tmp_path / "20190301_t1_red.tif", PIXELS, place=place, crs="EPSG:32601")
    wide = rasterio.Affine(0.5, 0, 178.0, 0, -0.5, 4.0)
    iw.save(tmp_path / "20190302_t1_red.tif", PIXELS, place=wide, crs="EPSG:4326")
    for one in found(tmp_path):
        assert shapely.geometry.shape(one["geometry"]).area < 8.5 * 8.5


def call(*words):
    return CliRunner().invoke(cli.app, [str(word) for word in words])


def test_index_writes_what_the_pattern_would_find(tmp_path):
    folder = tmp_path / "archive"
    fill(folder, "20190301_t1_red.tif", "20190301_t1_nir.tif", "20190201_t1_red.tif")
    (folder / "notes.txt").touch()
    done = call("index", folder, "--pattern", DAILY, "--collection", "mine", "--json")
    told = json.loads(done.stdout)
    assert (done.exit_code, told["items"], told["files"], told["not_fitting"]) == (0, 2, 3, ["notes.txt"])
    rows = parquet_items(Path(told["path"]), "list", collection="mine", time=YEAR, bounds=WORLD)
    assert json.loads(json.dumps(list(rows))) == json.loads(json.dumps(found(folder, collection="mine")))
    others = [pystac.Item.from_dict(one) for one in sga.stac_table_to_items(pq.read_table(told["path"]))]
    assert [(one.id, one.datetime.isoformat()) for one in others] == [
        ("20190201_t1", "2019-02-01T12:00:00+00:00"),
        ("20190301_t1", "2019-03-01T12:00:00+00:00"),
    ]
    assert others[1].assets["nir"].extra_fields["proj:code"] == "EPSG:32633"
    first = (folder / "items.parquet").read_bytes()
    assert call("index", folder, "--pattern", DAILY, "--collection", "mine").exit_code == 0
    assert (folder / "items.parquet").read_bytes() == first


def test_index_beside_its_files_is_refused_and_above_them_is_right(tmp_path):
    fill(tmp_path / "archive" / "deep", "20190301_t1_red.tif")
    pattern = "deep/" + DAILY
    refused = call(
        "index", tmp_path / "archive", "--pattern", pattern, "--out", tmp_path / "other" / "x.parquet"
    )
    assert refused.exit_code == 2
    assert "outside its own folder" in refused.stderr
    assert (
        call("index", tmp_path / "archive", "--pattern", pattern, "--out", tmp_path / "x.json").exit_code == 2
    )
    done = call(
        "index", tmp_path / "archive", "--pattern", pattern, "--out", tmp_path / "x.parquet", "--checksums"
    )
    assert done.exit_code == 0, done.stderr
    assert "1 items of 1 files" in done.stdout
    assert call("index", tmp_path / "archive", "--pattern", "{band}.tif").exit_code == 2


def times(tmp_path, names, time, pattern="{year}/{band}.tif"):
    """Return the days of the slots that composites of these names are given."""
    region = iw.region(tmp_path, {"composites": pattern}, imagery={"mask": None}, time=time)
    readings = [parse_pattern(pattern).read(name) for name in names]
    return [f"{when:%Y-%m-%d %H}" for when in ready_times(region, readings).values()]


THREE = ["2017/red.tif", "2018/red.tif", "2019/red.tif"]
TWO_YEARS = ("2018-01-01", "2020-01-01")


@pytest.mark.parametrize(
    ("time", "days"),
    [
        ({"range": TWO_YEARS, "slots": {"every": "P1Y"}}, ["2018-01-01 12", "2019-01-01 12"]),
        ({"range": TWO_YEARS, "slots": {"seasons": {"s": (6, 8)}}}, ["2018-06-01 12", "2019-06-01 12"]),
        ({"range": ("2018-11-01", "2018-12-01")}, ["2018-11-01 12"]),
        ({"range": ("2016-07-01", "2017-07-01"), "slots": {"n": 1}}, ["2017-01-01 12"]),
        ({"range": ("2001-01-01", "2002-01-01")}, []),
    ],
)
def test_a_ready_composite_holds_for_its_whole_period(tmp_path, time, days):
    assert times(tmp_path, THREE, time) == days


@pytest.mark.parametrize(
    ("time", "why"),
    [
        (
            {"range": TWO_YEARS, "slots": {"n": 1}},
            r"slot p1 .* holds 2 of them \(2018-01-01 to 2019-01-01, 2019-",
        ),
        ({"range": TWO_YEARS, "slots": {"every": "P6M"}}, "slot p2 .* shares one with another slot"),
        ({"range": TWO_YEARS, "slots": {"seasons": {"w": (12, 2)}}}, "holds 2 of them"),
        ({"range": TWO_YEARS, "slots": {"around_label": {}}}, "around_label gives each its own"),
    ],
)
def test_slots_that_are_not_cut_as_the_ready_composites_are_refused(tmp_path, time, why):
    with pytest.raises(BadInputError, match=why):
        times(tmp_path, THREE, time)


def test_ready_composites_of_hours_keep_their_hour(tmp_path):
    names = ["20180101T00_red.tif"]
    assert times(tmp_path, names, {"range": ("2018-01-01", "2018-01-02")}, "{date:%Y%m%dT%H}_{band}.tif") == [
        "2018-01-01 00"
    ]


def test_ready_composites_take_no_mask(tmp_path):
    with pytest.raises(ValueError, match="composites are ready, nothing is masked"):
        iw.region(tmp_path, {"composites": "{year}/{band}.tif"})


def test_an_item_is_made_of_all_its_files(tmp_path):
    fill(tmp_path, "20190301_t1_red.tif")
    iw.save(
        tmp_path / "20190301_t1_nir.tif", PIXELS, place=iw.transform() @ rasterio.Affine.translation(16, 0)
    )
    archive = find_files(tmp_path, parse_pattern(DAILY))
    one = item_of(archive, archive.entries[0], "c", archive.entries[0].reading.day)
    parts = [shapely.geometry.shape(one["geometry"]).bounds[2 * end] for end in (0, 1)]
    assert parts[1] - parts[0] > 1.5 * 160 / 111_000
