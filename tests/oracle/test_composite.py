"""Composites from files to file, against what numpy, scipy and rasterio make of the same pixels."""

import dataclasses
import json
import warnings

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.warp import Resampling, reproject
from scipy import ndimage
from tests import imagery_world as iw
from tests.fault_archive import serve

from chipmill.core import tiff
from chipmill.core.store import read_sidecar, sha256_file
from chipmill.core.tables import RANKING, read_table
from chipmill.imagery import composite, orders, reader_pool, strips
from chipmill.imagery.masks import dilate

DATES = ("2019-02-01", "2019-03-01", "2019-04-01", "2019-05-01")
SHAPE = (iw.SIDE, iw.SIDE)


def scene(seed, cloud=0.2, empty=0.1):
    """Return DN of red and nir with nodata 0 (not at the same pixels) and a mask."""
    rng = np.random.default_rng(seed)
    bands = {name: rng.integers(1, 6000, SHAPE).astype(np.uint16) for name in ("red", "nir")}
    bands["red"][rng.random(SHAPE) < empty] = 0
    bands["nir"][rng.random(SHAPE) < empty / 2] = 0
    mask = np.full(SHAPE, iw.CLEAR, np.uint8)
    mask[rng.random(SHAPE) < cloud] = iw.CLOUD
    mask[:3] = iw.EMPTY
    return bands, mask


@pytest.fixture
def archive(tmp_path):
    made = iw.Archive(tmp_path / "archive")
    made.scenes = [scene(seed, cloud=0.1 + 0.1 * seed) for seed in range(len(DATES))]
    for when, (bands, mask) in zip(DATES, made.scenes, strict=True):
        made.scene(when, bands, mask)
    made.path = made.write()
    return made


def config(tmp_path, archive, **imagery):
    clear = {"threshold": 0.0, "floor": 0.0}
    return iw.region(
        tmp_path, {"catalog": str(archive.path)}, imagery={"clear": clear} | imagery, indices=["ndvi"]
    )


def validity(scenes):
    masks = np.stack([mask for _, mask in scenes])
    good = np.stack([(bands["red"] != 0) & (bands["nir"] != 0) for bands, _ in scenes])
    return (masks == iw.CLEAR) & good, masks


def nan_reduced(function, scenes, band):
    valid, _ = validity(scenes)
    values = np.where(valid, np.stack([bands[band] for bands, _ in scenes]).astype(float), np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        found = np.rint(function(values, axis=0))
    return np.where(np.isnan(found), -32768, found).astype(np.int16)


def test_median_composite_is_the_masked_median(tmp_path, archive):
    _, _, path, failed = iw.run(config(tmp_path, archive))
    assert not failed
    bands = iw.read(path)
    assert list(bands) == ["red", "nir", "ndvi", "valid_count", "observed_count"]
    for name in ("red", "nir"):
        np.testing.assert_array_equal(bands[name], nan_reduced(np.nanmedian, archive.scenes, name))
    valid, masks = validity(archive.scenes)
    np.testing.assert_array_equal(bands["valid_count"], valid.sum(axis=0))
    np.testing.assert_array_equal(bands["observed_count"], (valid | (masks == iw.CLOUD)).sum(axis=0))
    red, nir = bands["red"].astype(float), bands["nir"].astype(float)
    held = bands["valid_count"] > 0
    expected = np.rint((nir - red)[held] / (nir + red)[held] * 10000)
    assert np.abs(bands["ndvi"][held] - expected).max() <= 1  # rint of almost-halves
    assert (bands["ndvi"][~held] == -32768).all()


def test_mean_least_cloudy_and_first_valid(tmp_path, archive):
    *_, path, _ = iw.run(config(tmp_path, archive, reduce="mean"))
    np.testing.assert_array_equal(iw.read(path)["red"], nan_reduced(np.nanmean, archive.scenes, "red"))
    valid, _ = validity(archive.scenes)
    red = np.stack([bands["red"] for bands, _ in archive.scenes]).astype(np.int16)
    for reduce in ("first-valid", "least-cloudy"):
        _, rows, path, _ = iw.run(config(tmp_path, archive, reduce=reduce))
        ranked = [DATES.index(row["datetime"].strftime("%Y-%m-%d")) for row in rows]
        assert rows[0]["clear_fraction"] > rows[-1]["clear_fraction"]
        order = ranked if reduce == "least-cloudy" else sorted(ranked)
        first = np.take_along_axis(red[order], valid[order].argmax(axis=0)[np.newaxis], axis=0)[0]
        expected = np.where(valid.any(axis=0), first, -32768).astype(np.int16)
        np.testing.assert_array_equal(iw.read(path)["red"], expected)


def test_least_cloudy_order_is_by_rank_not_by_time(tmp_path):
    archive = iw.Archive(tmp_path / "archive")
    for when, value, clouds in (("2019-02-01", 100, 20), ("2019-03-01", 200, 5)):
        bands = {name: np.full(SHAPE, value, np.uint16) for name in ("red", "nir")}
        mask = np.full(SHAPE, iw.CLEAR, np.uint8)
        mask[:clouds] = iw.CLOUD
        archive.scene(when, bands, mask)
    archive.path = archive.write()
    *_, path, _ = iw.run(config(tmp_path, archive, reduce="least-cloudy"))
    red = iw.read(path)["red"]
    assert (red[5:] == 200).all()
    assert (red[:5] == -32768).all()  # both clouded there


def test_bytes_do_not_depend_on_the_strips(tmp_path, archive, monkeypatch):
    settings = {"mask": {"asset": "scl", "dilation_px": 2}}
    *_, path, _ = iw.run(config(tmp_path, archive, **settings))
    whole = sha256_file(path)
    path.unlink()
    monkeypatch.setattr(strips, "BUDGET_BYTES", 64 * 4 * 5 * 7)  # seven rows
    monkeypatch.setattr(composite, "IN_MEMORY_BYTES", 0)
    monkeypatch.setattr(tiff, "IN_MEMORY_BYTES", 0)
    *_, again, _ = iw.run(config(tmp_path, archive, **settings))
    assert (again, sha256_file(again)) == (path, whole)


def test_a_good_composite_is_not_made_again_and_a_damaged_one_is(tmp_path, archive):
    region = config(tmp_path, archive)
    *_, path, _ = iw.run(region)
    inode = path.stat().st_ino
    iw.run(region)
    assert path.stat().st_ino == inode
    path.write_bytes(path.read_bytes()[:-9])
    iw.run(region)
    assert read_sidecar(path).sha256 == sha256_file(path)


def test_a_new_item_changes_the_name(tmp_path, archive):
    *_, path, _ = iw.run(config(tmp_path, archive))
    made, _, _, _ = iw.run(config(tmp_path, archive))
    archive.items[0]["properties"]["updated"] = "2024-01-01T00:00:00Z"
    archive.write()
    made.version.items.unlink()
    *_, other, _ = iw.run(config(tmp_path, archive))
    assert other != path
    assert path.exists()


@pytest.mark.parametrize("radius", [1, 2, 5])
def test_dilation_is_scipys_with_a_disk(radius):
    pixels = np.random.default_rng(radius).random((40, 50)) < 0.02
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    disk = x * x + y * y <= radius * radius
    np.testing.assert_array_equal(dilate(pixels, radius), ndimage.binary_dilation(pixels, disk))


def test_dilated_clouds_count_as_observed_and_not_as_valid(tmp_path):
    archive = iw.Archive(tmp_path / "archive")
    mask = np.full(SHAPE, iw.CLEAR, np.uint8)
    mask[30, 30] = iw.CLOUD
    mask[:10] = iw.EMPTY
    archive.scene("2019-02-01", {name: np.full(SHAPE, 500, np.uint16) for name in ("red", "nir")}, mask)
    archive.path = archive.write()
    *_, path, _ = iw.run(config(tmp_path, archive, mask={"asset": "scl", "dilation_px": 2}))
    bands = iw.read(path)
    assert (bands["valid_count"][10:] == 0).sum() == 13  # a disk of radius 2
    assert (bands["observed_count"][10:] == 1).all()
    assert (bands["observed_count"][:10] == 0).all()  # not observed does not grow


def test_two_granules_of_one_pass_are_one_acquisition(tmp_path):
    archive = iw.Archive(tmp_path / "archive")
    mask = np.full(SHAPE, iw.CLEAR, np.uint8)
    for name, value, hidden in (("a", 100, np.s_[:, 40:]), ("b", 300, np.s_[:, :20])):
        bands = {band: np.full(SHAPE, value, np.uint16) for band in ("red", "nir")}
        for pixels in bands.values():
            pixels[hidden] = 0
        archive.scene(f"2019-02-01T10:00:{'00' if name == 'a' else '20'}Z", bands, mask, name=name)
    archive.path = archive.write()
    _, rows, path, _ = iw.run(config(tmp_path, archive))
    assert [row["item_ids"] for row in rows] == [["a", "b"]]
    bands = iw.read(path)
    assert (bands["red"][:, :40] == 100).all()  # the first valid one counts where both are
    assert (bands["red"][:, 40:] == 300).all()
    assert (bands["valid_count"] == 1).all()


def test_different_offsets_are_harmonised_before_the_median(tmp_path):
    archive = iw.Archive(tmp_path / "archive")
    mask = np.full(SHAPE, iw.CLEAR, np.uint8)
    for when, dn, offset in (("2019-02-01", 2001, 0.0), ("2019-03-01", 3000, -0.1)):
        item = archive.scene(when, {name: np.full(SHAPE, dn, np.uint16) for name in ("red", "nir")}, mask)
        for band in ("red", "nir"):
            item["assets"][band]["raster:bands"][0]["offset"] = offset
    archive.path = archive.write()
    *_, path, _ = iw.run(config(tmp_path, archive))
    assert (iw.read(path)["red"] == 2000).all()  # the middle of 2001 and 2000, half to even


@pytest.mark.parametrize("resampling", ["nearest", "bilinear"])
def test_another_grid_is_warped_as_rasterio_does(tmp_path, resampling):
    rng = np.random.default_rng(3)
    place = iw.transform() @ Affine.translation(-20.3, -15.7) @ Affine.scale(1.3)
    pixels = {name: rng.integers(1000, 3000, (90, 90)).astype(np.uint16) for name in ("red", "nir")}
    archive = iw.Archive(tmp_path / "archive")
    archive.scene("2019-02-01", pixels, np.full((90, 90), iw.CLEAR, np.uint8), place=place)
    archive.path = archive.write()
    *_, path, _ = iw.run(config(tmp_path, archive, resampling=resampling))
    expected = np.zeros(SHAPE, np.uint16)
    reproject(pixels["red"], expected, src_transform=place, src_crs="EPSG:32633", src_nodata=0, dst_nodata=0,
              dst_transform=iw.transform(), dst_crs="EPSG:32633", resampling=Resampling[resampling])  # fmt: skip
    np.testing.assert_array_equal(iw.read(path)["red"], expected)


def test_another_zone_and_the_end_of_the_scene(tmp_path):
    """A scene of zone 32 that ends in the middle of the tile: nodata beyond its edge, values of it before."""
    left, top, right, bottom = 500_480, 5_000_320, 500_480 + 640, 5_000_320 - 640
    west, south, east, north = rasterio.warp.transform_bounds(
        "EPSG:32633", "EPSG:32632", left, bottom, right, top
    )
    place = Affine(10, 0, round(west - 300, -1), 0, -10, round(north + 300, -1))
    width = int(((west + east) / 2 - place.c) / 10)
    shape = (int((place.f - south) / 10) + 30, width)
    bands = {name: np.full(shape, 700, np.uint16) for name in ("red", "nir")}
    archive = iw.Archive(tmp_path / "archive")
    archive.scene("2019-02-01", bands, np.full(shape, iw.CLEAR, np.uint8), place=place, crs="EPSG:32632")
    archive.path = archive.write()
    _, rows, path, failed = iw.run(config(tmp_path, archive))
    red = iw.read(path)["red"]
    assert not failed
    assert set(np.unique(red)) == {-32768, 700}
    share = (red == 700).mean()
    assert 0.3 < share < 0.7
    assert abs(rows[0]["coverage_fraction"] - share) < 0.05


def test_files_without_nodata_value_do_not_read_as_zero_beyond_their_edge(tmp_path):
    place = iw.transform() @ Affine.translation(32, 0)
    bands = {name: np.full(SHAPE, 5, np.uint16) for name in ("red", "nir")}
    bands["red"][0, 0] = 0  # a real zero
    archive = iw.Archive(tmp_path / "archive")
    archive.scene("2019-02-01", bands, None, place=place, nodata=None)
    archive.scene("2019-03-01", bands, None, place=place @ Affine.translation(0.5, 0), nodata=None)
    archive.path = archive.write()
    region = config(tmp_path, archive, mask=None)
    *_, path, _ = iw.run(region)
    bands = iw.read(path)
    assert (bands["red"][:, :31] == -32768).all()
    assert (bands["observed_count"][:, :31] == 0).all()
    assert bands["red"][0, 32] == 0


def test_empty_slots(tmp_path, archive):
    region = config(tmp_path, archive, clear={"threshold": 1.0, "floor": 1.0})
    _made, rows, path, failed = iw.run(region)
    bands = iw.read(path)
    assert not failed
    assert not any(row["chosen"] for row in rows)
    assert all((bands[name] == -32768).all() for name in ("red", "nir", "ndvi"))
    assert not bands["observed_count"].any()
    *_, failed = iw.run(config(tmp_path, archive, clear={"threshold": 1.0, "floor": 1.0}, empty="fail"))
    assert "no acquisition that is clear enough" in failed[0].reason


def test_the_file_is_tiled_compressed_and_named(tmp_path, archive):
    *_, path, _ = iw.run(config(tmp_path, archive))
    with rasterio.open(path) as source:
        assert source.profile["compress"] == "zstd"
        assert source.block_shapes[0] == (64, 64)
        assert source.nodata == -32768
        assert source.scales == (1e-4, 1e-4, 1e-4, 1.0, 1.0)
        assert source.transform == iw.transform()
    sidecar = read_sidecar(path)
    assert sidecar.extra["saturated_px"] == {"red": 0, "nir": 0, "ndvi": 0}
    assert len(sidecar.extra["acquisitions"]) == 4


def test_saturation_is_counted(tmp_path):
    archive = iw.Archive(tmp_path / "archive")
    archive.scene("2019-02-01", {name: np.full(SHAPE, 40000, np.uint16) for name in ("red", "nir")},
                  np.full(SHAPE, iw.CLEAR, np.uint8))  # fmt: skip
    archive.path = archive.write()
    *_, path, _ = iw.run(config(tmp_path, archive))
    assert read_sidecar(path).extra["saturated_px"]["red"] == 64 * 64
    assert (iw.read(path)["red"] == 32767).all()


def test_order_of_items_does_not_matter(tmp_path, archive):
    *_, path, _ = iw.run(config(tmp_path, archive))
    digest = sha256_file(path)
    archive.items.reverse()
    archive.write()
    other = config(tmp_path, archive).model_copy(update={"output": "other"})
    *_, again, _ = iw.run(other)
    assert (again.name, sha256_file(again)) == (path.name, digest)


def test_reader_pool_reopens_what_it_closed(tmp_path, archive, monkeypatch):
    *_, path, _ = iw.run(config(tmp_path, archive))
    digest = sha256_file(path)
    path.unlink()
    monkeypatch.setattr(strips, "ReaderPool", lambda: reader_pool.ReaderPool(limit=2))
    *_, again, _ = iw.run(config(tmp_path, archive))
    assert sha256_file(again) == digest


def test_items_are_read_once_for_all_composites_and_no_others(tmp_path, archive, monkeypatch):
    made, *_ = iw.run(config(tmp_path, archive, clear={"threshold": 0.75, "floor": 0.75}))
    table = read_table(made.version.ranking, RANKING)
    calls, real = [], orders.read_items
    monkeypatch.setattr(orders, "read_items", lambda path, ids: (calls.append(ids), real(path, ids))[1])
    known = orders.Orders(made, table)
    tile, imagery = made.tiles()[0], made.region.imagery[0]
    (slot,) = made.slots(tile)
    used = {
        item.item_id
        for _ in range(3)
        for one in known.acquisitions(tile, imagery, slot)
        for item in one.items
    }
    assert calls == [used]
    assert 0 < len(used) < len(DATES)


def test_order_is_a_value(tmp_path, archive):
    region = config(tmp_path, archive)
    grid = iw.plan(region).tiles()[0]
    order = orders.Order(region, region.imagery[0], orders.tile_grid(grid), ())
    assert dataclasses.replace(order).fingerprint == order.fingerprint
    other = region.imagery[0].model_copy(update={"reduce": "mean"})
    assert dataclasses.replace(order, imagery=other).fingerprint != order.fingerprint


def test_served_over_http_with_a_fault_on_the_way_it_is_the_same_file(tmp_path, archive):
    """Another place of the archive, and a request that failed once, change neither name nor bytes."""
    *_, path, _ = iw.run(config(tmp_path, archive))
    digest = sha256_file(path)
    with serve(archive.folder) as server:
        features = json.loads(json.dumps(archive.items))
        for item in features:
            for asset in item["assets"].values():
                file = archive.folder / item["id"] / asset["href"][2:]
                asset["href"], asset["file:size"] = (
                    f"{server.url}/{item['id']}/{file.name}",
                    file.stat().st_size,
                )
        server.search = lambda body: {"type": "FeatureCollection", "features": features, "links": []}
        server.faults["/s2019-03-01/nir.tif"] = [503]
        server.faults["/stac/search"] = [503]
        region = config(tmp_path, archive, source={"stac": f"{server.url}/stac", "collection": "toy"})
        *_, again, failed = iw.run(region.model_copy(update={"output": "remote"}))
    assert not failed
    assert (again.name, sha256_file(again)) == (path.name, digest)
    assert again != path


def test_a_broken_asset_fails_its_tile_and_no_file_is_left(tmp_path, archive):
    file = archive.folder / "s2019-03-01" / "nir.tif"
    file.write_bytes(file.read_bytes()[:2000])
    *_, path, failed = iw.run(config(tmp_path, archive))
    assert "nir.tif cannot be read" in failed[0].reason
    assert not failed[0].transient
    assert list(path.parent.iterdir()) == []
