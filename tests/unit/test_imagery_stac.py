"""STAC dialects, and the rule for Sentinel-2's offset."""

import json
import math

import pytest

from chipmill.core.errors import AssetMismatchError, ItemSearchError
from chipmill.imagery.profiles import sentinel2_offset
from chipmill.imagery.stac import find_asset, parse_item, parse_time
from chipmill.region.imagery import Imagery

ROOT = "https://example.org/api"
BASE = "https://example.org/api/collections/c/items/i"


def entry(**more):
    values = {"name": "s2", "source": {"stac": ROOT}, "bands": {"red": "red"}, "mask": None}
    return Imagery.model_validate(values | more)


def raw(assets=None, **properties):
    return {
        "id": "i", "collection": "sentinel-2-l2a", "bbox": [1, 2, 3, 4],
        "geometry": {"type": "Polygon", "coordinates": [[[1, 2], [3, 2], [3, 4], [1, 4], [1, 2]]]},
        "properties": {"datetime": "2020-05-01T10:00:00Z", **properties},
        "assets": {"red": {"href": "https://example.org/x/red.tif"}} if assets is None else assets,
    }  # fmt: skip


def parsed(item, **more):
    return parse_item(entry(**more), item, ROOT, BASE)


@pytest.mark.parametrize(
    ("properties", "declared", "expected"),
    [
        ({"earthsearch:boa_offset_applied": True}, -0.1, (0.0, "boa_offset_applied")),
        ({"earthsearch:boa_offset_applied": False}, -0.1, (-0.1, "declared")),
        (
            {"earthsearch:boa_offset_applied": False, "s2:processing_baseline": "05.09"},
            None,
            (-0.1, "baseline"),
        ),
        ({}, -0.1, (-0.1, "declared")),
        ({}, 0.0, (0.0, "declared")),
        ({"s2:processing_baseline": "04.00"}, None, (-0.1, "baseline")),
        ({"s2:processing_baseline": "05.10"}, 0.0, (0.0, "declared")),
        ({"s2:processing_baseline": "03.01"}, None, (0.0, "none")),
        ({"s2:processing_baseline": "03.01"}, 0.0, (0.0, "declared")),
        ({}, None, (0.0, "none")),
    ],
)
def test_the_first_statement_about_the_offset_counts(properties, declared, expected):
    assert sentinel2_offset(raw(**properties), declared) == expected


@pytest.mark.parametrize(("share", "problem"), [(100.0, "holds no data"), (99.99, ""), (None, "")])
def test_an_item_that_says_that_it_is_empty_is_left_out(share, problem):
    item = parsed(raw(**{"s2:nodata_pixel_percentage": share}))
    assert problem in item.problem
    assert bool(item.problem) == bool(problem)


@pytest.mark.parametrize(
    ("properties", "declared"),
    [({"s2:boa_offset_applied": False}, 0.0), ({"s2:processing_baseline": "02.14"}, -0.1)],
)
def test_contradictions_leave_the_item_out_with_the_reason(properties, declared):
    asset = {"href": "https://example.org/x/red.tif", "raster:bands": [{"scale": 1e-4, "offset": declared}]}
    item = parsed(raw({"red": asset}, **properties))
    assert "contradict" in item.problem
    assert not parsed(raw({"red": asset}, **properties), offset_override=0.0).problem


def test_override_and_none_come_before_all():
    asset = {"href": "https://example.org/x/red.tif", "raster:bands": [{"offset": -0.1}]}
    assert parsed(raw({"red": asset}), offset_override=-0.2).assets["red"].offset == -0.2
    assert parsed(raw({"red": asset}), offset="none").assets["red"].offset == 0.0


def test_bands_without_reflectance_have_no_offset_of_sentinel2():
    assets = {key: {"href": f"https://example.org/{key}.tif"} for key in ("red", "aot", "scl")}
    item = parsed(raw(assets, **{"s2:processing_baseline": "05.00"}), bands={"red": "red", "aot": "aot"},
                  mask={"asset": "scl"})  # fmt: skip
    assert [item.assets[name].offset for name in ("red", "aot", "mask")] == [-0.1, 0.0, 0.0]
    assert [item.assets[name].scale for name in ("red", "aot", "mask")] == [1e-4, None, None]


def test_other_sensors_are_taken_at_their_word():
    item = {**raw({"red": {"href": "https://example.org/r.tif", "raster:bands": [{"scale": 2.75e-5, "offset": -0.2}]}}),
            "collection": "landsat-c2-l2"}  # fmt: skip
    asset = parsed(item).assets["red"]
    assert (asset.scale, asset.offset) == (2.75e-5, -0.2)


@pytest.mark.parametrize(
    "asset",
    [
        {"eo:bands": [{"name": "B04", "common_name": "red"}], "raster:bands": [{"scale": 0.5, "nodata": 7}]},
        {"bands": [{"name": "B04", "eo:common_name": "red", "raster:scale": 0.5, "nodata": 7}]},
        {"bands": [{"name": "red"}], "raster:scale": 0.5, "nodata": 7},
    ],
    ids=["1.0 extensions", "1.1 bands", "on the asset"],
)
def test_dialects_of_bands_scale_and_nodata(asset):
    found = find_asset(raw({"B04": {"href": "https://example.org/x.tif", **asset}}), "red", ROOT, BASE)
    assert (found.key, found.scale, found.nodata, found.band) == ("B04", 0.5, 7, 1)


def test_nan_as_text_is_nan():
    found = find_asset(raw({"red": {"href": "https://e.org/x.tif", "nodata": "nan"}}), "red", ROOT, BASE)
    assert math.isnan(found.nodata)


def test_the_file_of_one_band_is_preferred_to_a_composite_and_tif_to_jp2():
    colour = {"href": "https://e.org/v.tif", "eo:bands": [{"common_name": "blue"}, {"common_name": "red"}]}
    single = {"href": "https://e.org/r.tif", "type": "image/tiff", "eo:bands": [{"common_name": "red"}]}
    other = {"href": "https://e.org/r.jp2", "type": "image/jp2", "eo:bands": [{"common_name": "red"}]}
    assert (
        find_asset(raw({"visual": colour, "B04-jp2": other, "B04": single}), "red", ROOT, BASE).key == "B04"
    )
    found = find_asset(raw({"visual": colour}), "red", ROOT, BASE)
    assert (found.key, found.band) == ("visual", 2)
    with pytest.raises(AssetMismatchError, match="several assets"):
        find_asset(raw({"a": single, "b": single}), "red", ROOT, BASE)


def test_projection_of_item_asset_and_code():
    place = {"proj:shape": [5490, 5490], "proj:transform": [20, 0, 600000, 0, -20, 10000000, 0, 0, 1]}
    item = raw(
        {"red": {"href": "https://e.org/r.tif", **place}}, **{"proj:code": "EPSG:32636", "proj:shape": [1, 1]}
    )
    asset = find_asset(item, "red", ROOT, BASE)
    assert (asset.epsg, asset.shape, asset.transform) == (
        32636,
        (5490, 5490),
        (20, 0, 600000, 0, -20, 10000000),
    )
    assert find_asset(raw(**{"proj:epsg": 4326}), "red", ROOT, BASE).epsg == 4326


def test_time_without_zone_is_utc_and_an_interval_counts_by_its_start():
    assert (
        parse_time({"datetime": "2020-01-01T02:00:00+02:00"}, "i").isoformat() == "2020-01-01T00:00:00+00:00"
    )
    assert parse_time({"datetime": "2020-01-01T00:00:00"}, "i").tzinfo is not None
    interval = {
        "datetime": None,
        "start_datetime": "2020-03-01T00:00:00Z",
        "end_datetime": "2020-03-06T00:00:00Z",
    }
    assert parse_time(interval, "i").month == 3
    with pytest.raises(ItemSearchError, match="no usable datetime"):
        parse_time({"datetime": None}, "i")


@pytest.mark.parametrize("geometry", [None, {}, {"type": "Polygon"}, {"type": "Nope", "coordinates": []}])
def test_an_item_without_place_is_an_error_that_names_it(geometry):
    with pytest.raises(ItemSearchError, match="item i has no usable geometry"):
        parsed({**raw(), "geometry": geometry})


@pytest.mark.parametrize(
    "day", [("2020-05-01T23:30:00Z", 30.0, "2020-05-02"), ("2020-05-01T00:10:00Z", -90.0, "2020-04-30")]
)
def test_solar_day_follows_the_longitude(day):
    when, longitude, expected = day
    item = parsed({**raw(datetime=when), "bbox": [longitude - 1, 0, longitude + 1, 1]})
    assert item.solar_day.isoformat() == expected


def test_solar_day_across_the_antimeridian():
    item = parsed({**raw(datetime="2020-05-01T23:00:00Z"), "bbox": [179, 0, -179, 1]})
    assert item.solar_day.isoformat() == "2020-05-02"


def test_recorded_answers_of_earth_search_are_understood(shared_data):
    page = json.loads((shared_data / "stac-json" / "earthsearch_v1_sentinel-2-l2a_items.json").read_text())
    imagery = entry(bands={"red": "red", "nir": "nir", "swir16": "swir16"}, mask={"asset": "scl"})
    for feature in page["features"]:
        item = parse_item(imagery, feature, ROOT, BASE)
        assert not item.problem
        assert (item.assets["red"].scale, item.assets["red"].offset, item.offset_evidence) == (
            1e-4,
            -0.1,
            "declared",
        )
        assert item.assets["mask"].shape == (5490, 5490)


def test_recorded_answers_of_other_apis_are_understood(shared_data):
    folder = shared_data / "stac-json"
    scene = json.loads((folder / "S2A_28QCH_20200714_0_L2A.json").read_text())
    item = parse_item(entry(bands={"red": "B04"}, mask={"asset": "SCL"}), scene, ROOT, BASE)
    assert (item.problem, item.assets["red"].epsg, item.offset_evidence) == ("", 32628, "none")
    landsat = json.loads((folder / "LC08_L2SP_028030_20200114_20200824_02_T1_SR.json").read_text())
    item = parse_item(entry(bands={"red": "red"}), landsat, ROOT, BASE)
    assert item.problem == ""
    assert item.assets["red"].key
