"""The embedded world: the files it promises, their grid, their bytes and what they show."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyogrio
import pystac
import pytest
import rasterio
from rasterio.features import geometry_mask, rasterize
from rasterio.warp import reproject, transform_geom
from rio_cogeo import cog_validate

from chipmill.core.errors import BadInputError
from chipmill.demo import world as world_module
from chipmill.demo.granules import EAST, WEST
from chipmill.demo.stac_files import lonlat_polygon
from chipmill.demo.world import SIZES, make_world


@pytest.fixture
def tiny(monkeypatch):
    """Worlds of 96 px, for tests that make several."""
    monkeypatch.setitem(SIZES, "small", 96)


def files(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def items(world) -> list[pystac.Item]:
    catalog = pystac.Catalog.from_file(str(world.catalog / "catalog.json"))
    return sorted(catalog.get_items(recursive=True), key=lambda item: (item.datetime, item.id))


def read(item: pystac.Item, asset: str) -> np.ndarray:
    with rasterio.open(item.assets[asset].get_absolute_href()) as source:
        return source.read(1)


def test_equal_arguments_give_equal_bytes_and_another_seed_gives_others(tmp_path, tiny):
    first, second, other = (
        files(make_world(tmp_path / name, "small", seed).root)
        for name, seed in (("a", 8), ("b", 8), ("c", 9))
    )
    assert (
        len(first) == 29 * 7 + 2 + 6 - 1
    )  # items with six COGs each, two catalog files, five files and the stamp
    assert first == second
    changed = {name for name in first if first[name] != other[name]}
    clear, covered = ("20190726_0/scl.tif", "20190726_1/scl.tif"), "20191113_1/scl.tif"
    pixels = {name for name in first if name.endswith(".tif") and not name.endswith((*clear, covered))}
    assert pixels <= changed


def test_a_finished_world_is_returned_untouched(tmp_path, tiny):
    world = make_world(tmp_path / "w", "small")
    before = {p: p.stat().st_mtime_ns for p in world.root.rglob("*")}
    assert make_world(tmp_path / "w", "small") == world
    assert {p: p.stat().st_mtime_ns for p in world.root.rglob("*")} == before


def test_an_interrupted_world_heals(tmp_path, tiny, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(world_module, "write_polygons", interrupted)
        with pytest.raises(KeyboardInterrupt):
            make_world(tmp_path / "w", "small")
    assert not (tmp_path / "w").exists()
    make_world(tmp_path / "w", "small")
    assert [p.name for p in tmp_path.iterdir()] == ["w"]
    (tmp_path / "w" / "world.json").unlink()  # as if it had been killed while an old world was replaced
    (tmp_path / "w" / "dem.tif").unlink()
    assert make_world(tmp_path / "w", "small").dem.exists()


def test_another_seed_replaces_the_world_but_foreign_files_are_kept(tmp_path, tiny):
    before = files(make_world(tmp_path / "w", "small").root)
    assert files(make_world(tmp_path / "w", "small", seed=3).root) != before
    (tmp_path / "w" / "thesis.txt").write_text("mine")
    with pytest.raises(BadInputError, match=r"found thesis\.txt; name another folder"):
        make_world(tmp_path / "w", "small", seed=4)
    assert (tmp_path / "w" / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize("arguments", [{"size": "huge"}, {"cloud": -0.1}, {"cloud": float("nan")}])
def test_arguments_out_of_range_are_refused(tmp_path, arguments):
    with pytest.raises(BadInputError, match="demo world"):
        make_world(tmp_path / "w", **arguments)
    assert not (tmp_path / "w").exists()


def test_no_clouds_when_asked_for_none(tmp_path, tiny):
    covers = [i.properties["eo:cloud_cover"] for i in items(make_world(tmp_path / "w", "small", cloud=0))]
    assert covers == [0.0] * 29


def test_every_raster_is_a_valid_cog_on_the_lattice(small_world):
    western = {item.id for item in items(small_world) if item.ext.proj.code == WEST}
    assert len(western) == 14
    rasters = sorted(small_world.root.rglob("*.tif"))
    assert len(rasters) == 29 * 6 + 2
    for path in rasters:
        valid, errors, warnings = cog_validate(path, strict=False)
        assert (valid, errors, warnings) == (True, [], []), path
        with rasterio.open(path) as source:
            assert source.crs.to_string() == (WEST if path.parent.name in western else EAST)
            assert source.transform.a == -source.transform.e == 10
            assert source.transform.c % 10 == source.transform.f % 10 == 0
            assert source.compression.name == "zstd"


def test_overviews_exist_where_a_raster_is_larger_than_a_block(tmp_path, monkeypatch):
    from chipmill.demo.rasters import write_cog

    pixels = np.arange(1100 * 700, dtype=np.uint16).reshape(1100, 700)
    write_cog(tmp_path / "a.tif", pixels, rasterio.Affine(10, 0, 0, 0, -10, 0), "EPSG:32633", 0)
    with rasterio.open(tmp_path / "a.tif") as source:
        assert source.overviews(1) == [2, 4]
        assert source.block_shapes == [(512, 512)]
        assert np.array_equal(source.read(1), pixels)
    assert cog_validate(tmp_path / "a.tif", strict=True)[0]


def test_labels_hold_the_six_classes_and_a_small_unlabelled_part(small_world):
    with rasterio.open(small_world.labels) as source:
        labels = source.read(1)
        assert source.transform == small_world.transform
        assert (source.dtypes[0], source.shape) == ("uint8", small_world.shape)
    share = np.bincount(labels.ravel(), minlength=61) / labels.size
    assert set(np.flatnonzero(share)) == {0, *small_world.classes}
    assert 0 < share[0] < 0.04
    assert min(share[value] for value in small_world.classes) > 0.03


def test_label_polygons_burn_back_to_the_raster(small_world):
    import shapely

    meta, _, geometry, fields = pyogrio.raw.read(small_world.labels_vector)
    assert meta["crs"] == small_world.crs
    values = fields[list(meta["fields"]).index("class")]
    burnt = rasterize(
        zip(shapely.from_wkb(geometry), values.tolist(), strict=True),
        out_shape=small_world.shape,
        transform=small_world.transform,
        dtype="uint8",
    )
    with rasterio.open(small_world.labels) as source:
        assert np.array_equal(burnt, source.read(1))


def test_polygons_are_cut_at_strips_and_still_cover_all(tmp_path, monkeypatch):
    import shapely

    from chipmill.demo import rasters

    monkeypatch.setattr(rasters, "STRIP_PX", 7)
    classes = np.full((20, 5), 10, np.uint8)
    classes[3:12, 2] = 20
    count = rasters.write_polygons(
        tmp_path / "a.gpkg", classes, rasterio.Affine(10, 0, 50, 0, -10, 90), "EPSG:32633", {10: "x", 20: "y"}
    )
    _, _, geometry, fields = pyogrio.raw.read(tmp_path / "a.gpkg")
    assert count == len(geometry) == 5
    area = {v: shapely.area(shapely.from_wkb(geometry[fields[0] == v])).sum() for v in (10, 20)}
    assert area == {10: 91 * 100, 20: 9 * 100}


def test_terrain_is_plausible_and_water_lies_low(small_world):
    with rasterio.open(small_world.dem) as dem, rasterio.open(small_world.labels) as labels:
        height, cover = dem.read(1), labels.read(1)
        assert dem.dtypes[0] == "float32"
    assert 100 < height.min() < height.max() < 2500
    means = {name: height[cover == value].mean() for value, name in small_world.classes.items()}
    assert max(means, key=means.get) == "bare"
    assert means["water"] < np.median(height)


def test_aoi_covers_most_of_the_region(small_world):
    collection = json.loads(small_world.aoi.read_text())
    geometry = transform_geom("EPSG:4326", small_world.crs, collection["features"][0]["geometry"])
    inside = geometry_mask([geometry], small_world.shape, small_world.transform, invert=True)
    assert 0.88 < inside.mean() < 0.98


def test_items_are_valid_stac_and_say_what_their_files_hold(small_world):
    found = items(small_world)
    assert len(found) == 29
    for item in found:
        extension = item.ext.proj
        with rasterio.open(item.assets["red"].get_absolute_href()) as source:
            assert extension.code == source.crs.to_string()
            assert extension.shape == list(source.shape)
            assert extension.transform == list(source.transform)[:6]
            assert (source.dtypes[0], source.nodata) == ("uint16", 0)
        assert list(item.assets["red"].extra_fields["raster:bands"][0].items()) >= [("data_type", "uint16")]
        assert item.assets["red"].extra_fields["raster:bands"][0]["scale"] == 0.0001
        size = Path(item.assets["scl"].get_absolute_href()).stat().st_size
        assert item.assets["scl"].extra_fields["file:size"] == size
        scl = read(item, "scl")
        cloudy = 100 * np.isin(scl, [8, 9, 10]).sum() / (scl > 0).sum()
        assert item.properties["eo:cloud_cover"] == pytest.approx(cloudy, abs=1e-3)


def test_nodata_agrees_over_bands_mask_and_footprint(small_world):
    partial = 0
    for item in items(small_world):
        scl = read(item, "scl")
        with rasterio.open(item.assets["scl"].get_absolute_href()) as source:
            geometry = transform_geom("EPSG:4326", source.crs, item.geometry)
            footprint = geometry_mask([geometry], source.shape, source.transform, invert=True)
        for band in small_world.bands:
            assert np.array_equal(read(item, band) == 0, scl == 0)
        assert ((scl > 0) != footprint).mean() < 1e-3
        partial += bool((scl == 0).any()) and item.ext.proj.code == EAST
    assert partial == 2


def test_clouds_differ_and_every_quarter_has_a_clear_pass(small_world):
    covers = {item.datetime: item.properties["eo:cloud_cover"] for item in items(small_world)}
    for first in (1, 4, 7, 10):
        assert min(cover for when, cover in covers.items() if first <= when.month < first + 3) < 5
    assert min(covers.values()) == 0
    assert max(covers.values()) > 90
    assert len({round(cover) for cover in covers.values()}) >= 10
    masks = [
        np.isin(read(i, "scl"), [8, 9, 10]) for i in items(small_world) if i.id.endswith(("0117_0", "1218_0"))
    ]
    assert 0.02 < (masks[0] & masks[1]).mean() < 0.25  # not the same clouds twice


def test_clouds_are_white_and_shadows_dark(small_world):
    item = next(i for i in items(small_world) if i.id.endswith("20190407_0"))
    scl, blue, nir = read(item, "scl"), read(item, "blue"), read(item, "nir")
    assert np.median(blue[scl == 9]) > 4 * np.median(blue[scl == 4])
    assert np.median(nir[scl == 3]) < 0.8 * np.median(nir[np.isin(scl, [4, 5])])


def test_one_date_is_two_granules_that_overlap_and_agree(small_world):
    eastern = [item for item in items(small_world) if item.ext.proj.code == EAST]
    pairs = [(a, b) for a, b in pairwise(eastern) if a.datetime.date() == b.datetime.date()]
    assert [(a.id, b.id) for a, b in pairs] == [("S2A_DEMO_20190616_0", "S2A_DEMO_20190616_1")]
    left, right = pairs[0]
    assert left.properties["platform"] == right.properties["platform"]
    assert left.datetime != right.datetime
    start = round((right.ext.proj.transform[2] - left.ext.proj.transform[2]) / 10)
    one, two = read(left, "red"), read(right, "red")
    shared = one.shape[1] - start
    assert shared > 50
    assert np.array_equal(one[:, start:], two[:, :shared])


@pytest.mark.parametrize("size", SIZES)
def test_the_region_lies_in_two_zones(small_world, size):
    import shapely

    side = SIZES[size]
    transform = world_module.grid_of(side)
    outline = lonlat_polygon([(x * side, y * side) for x, y in world_module.AOI], transform, EAST)
    aoi = shapely.from_geojson(json.dumps(outline))
    assert 6 < aoi.bounds[0] < 12 < aoi.bounds[2] < 18
    assert 0.15 < aoi.intersection(shapely.box(6, 0, 12, 84)).area / aoi.area < 0.2
    if size == "small":
        assert json.loads(small_world.aoi.read_text())["features"][0]["geometry"] == outline


def test_granules_of_two_zones_overlap_and_show_the_same_ground(small_world):
    days: dict = {}
    for item in items(small_world):
        days.setdefault(item.datetime.date(), {}).setdefault(item.ext.proj.code, item)
    assert len(days) == 14
    for day in days.values():
        assert day[WEST].properties["platform"] == day[EAST].properties["platform"]
        west, there = read(day[WEST], "red"), day[WEST].ext.proj.transform
        east = np.zeros_like(west)
        with rasterio.open(day[EAST].assets["red"].get_absolute_href()) as source:
            reproject(rasterio.band(source, 1), east, dst_transform=rasterio.Affine(*there), dst_crs=WEST)
        both = (west > 0) & (east > 0)
        assert 0.3 < both.mean() < 0.7
        assert (west[both] == east[both]).mean() > 0.99


def test_fields_turn_green_and_harvested(small_world):
    with rasterio.open(small_world.labels) as source:
        crop = source.read(1)[:, -461:] == 30  # as wide as an eastern granule
    ndvi = {}
    for item in items(small_world):
        if item.properties["eo:cloud_cover"] < 5 and item.ext.proj.code == EAST:
            red, nir = (read(item, band)[crop].astype(float) for band in ("red", "nir"))
            ndvi[item.datetime.month] = np.median((nir - red) / (nir + red))
    assert ndvi[5] > ndvi[2] + 0.2
    assert ndvi[5] > ndvi[10] + 0.2
