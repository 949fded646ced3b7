"""Our VRTs against rasterio's own merge and, where it is installed, gdalbuildvrt."""

import shutil
import subprocess

import numpy as np
import pytest
import rasterio
from rasterio.merge import merge
from rasterio.warp import transform_bounds
from tests import stack_world as sw

from chipmill.core.errors import AssetMismatchError, LabelError
from chipmill.core.units import load_batches
from chipmill.dataset.labels import check_label_values, grid_layers, label_path
from chipmill.dataset.rasters import read_header, write_layer
from chipmill.dataset.vrt import Band, Source, vrt_xml
from chipmill.imagery.planning import tile_aoi
from chipmill.region.config import Region
from chipmill.region.grid import Lattice, Window, lattice_of

UTM = lattice_of(32633, 10.0)
DEGREES = Lattice(4326, 2.7920278066359443, 42.36457137143557, 0.00012103616459715589, 9.016627702064337e-05)


def _tiles(folder, lattice, columns=3, rows=2, side=50, nodata=-32768, dtype=np.int16):
    """Write a block of adjoining rasters with one missing; return them by place."""
    rng = np.random.default_rng(7)
    found = {}
    for row in range(rows):
        for column in range(columns):
            if (column, row) == (1, 1):
                continue
            window = Window(50_000 + column * side, -400_000 + row * side, side, side)
            pixels = rng.integers(0, 200, (2, side, side)).astype(dtype)
            pixels[:, :4] = nodata
            path = folder / f"tile & {column} {row}.tif"
            write_layer(path, "f", pixels, (lattice, window), nodata=nodata, names=["a", "b"])
            found[column, row] = (path, window)
    return found


def _mosaic(lattice, window, paths, folder=None, **changes):
    bands = [
        Band(name, changes.get("dtype", "int16"), changes.get("nodata", -32768), tuple(
            Source(read_header(path), number) for path in paths
        ))
        for number, name in ((1, "a<b>"), (2, "b&c"))
    ]  # fmt: skip
    return vrt_xml(lattice, window, bands, folder)


@pytest.mark.parametrize("lattice", [UTM, DEGREES], ids=["utm", "degrees"])
def test_a_mosaic_equals_the_merge_of_rasterio(tmp_path, lattice):
    tiles = _tiles(tmp_path, lattice)
    whole = Window(50_000, -400_000, 150, 100)
    path = tmp_path / "deep" / "mosaic.vrt"
    path.parent.mkdir()
    path.write_text(_mosaic(lattice, whole, [path for path, _ in tiles.values()], path.parent))
    merged, transform = merge([str(path) for path, _ in tiles.values()])
    with rasterio.open(path) as dataset:
        np.testing.assert_array_equal(dataset.read(), merged)
        assert (dataset.read()[:, 50:, 50:100] == -32768).all()
        np.testing.assert_allclose(tuple(dataset.transform), tuple(transform), rtol=1e-12)
        assert dataset.crs.to_epsg() == lattice.epsg and dataset.descriptions == ("a<b>", "b&c")
        with rasterio.open(tiles[0, 0][0]) as source:  # axes of a geographic CRS are not swapped
            assert transform_bounds(dataset.crs, source.crs, *dataset.bounds) == pytest.approx(dataset.bounds)


def test_a_part_and_a_reach_beyond_equal_the_same_window_of_the_whole(tmp_path):
    tiles = _tiles(tmp_path, UTM)
    paths = [path for path, _ in tiles.values()]
    merged, _ = merge([str(path) for path in paths])
    for left, top, width, height in ((30, 20, 60, 60), (49, 49, 2, 2), (0, 0, 1, 1)):
        xml = _mosaic(UTM, Window(50_000 + left, -400_000 + top, width, height), paths)
        with rasterio.open(xml) as dataset:
            np.testing.assert_array_equal(dataset.read(), merged[:, top : top + height, left : left + width])
    with rasterio.open(_mosaic(UTM, Window(49_990, -400_010, 170, 120), paths)) as dataset:
        np.testing.assert_array_equal(dataset.read()[:, 10:110, 10:160], merged)
        assert (dataset.read()[:, :10] == -32768).all()


@pytest.mark.skipif(shutil.which("gdalbuildvrt") is None, reason="gdalbuildvrt is not installed")
@pytest.mark.parametrize("lattice", [UTM, DEGREES], ids=["utm", "degrees"])
def test_a_mosaic_equals_gdalbuildvrt(tmp_path, lattice):
    tiles = _tiles(tmp_path, lattice)
    paths = [str(path) for path, _ in tiles.values()]
    subprocess.run(["gdalbuildvrt", "-strict", "-q", str(tmp_path / "gdal.vrt"), *paths], check=True)
    (tmp_path / "own.vrt").write_text(
        _mosaic(lattice, Window(50_000, -400_000, 150, 100), [path for path, _ in tiles.values()], tmp_path)
    )
    with rasterio.open(tmp_path / "gdal.vrt") as gdal, rasterio.open(tmp_path / "own.vrt") as own:
        np.testing.assert_array_equal(own.read(), gdal.read())
        assert own.nodatavals == gdal.nodatavals and own.crs == gdal.crs
        np.testing.assert_allclose(tuple(own.transform), tuple(gdal.transform), rtol=1e-12)


def test_sources_that_gdal_would_take_silently_are_refused(tmp_path):
    window = Window(50_000, -400_000, 50, 50)
    pixels = np.ones((2, 50, 50), np.int16)
    wrong = {
        "the CRS": (lattice_of(32634, 10.0), window, pixels, -32768),
        "another pixel grid": (Lattice(32633, 3.0, 0.0, 10.0, 10.0), window, pixels, -32768),
        "pixels of": (lattice_of(32633, 10.001), window, pixels, -32768),
        "the data type": (UTM, window, pixels.astype(np.uint16), 0),
        "the nodata value": (UTM, window, pixels, -1),
    }
    for text, (lattice, place, values, nodata) in wrong.items():
        path = tmp_path / "wrong.tif"
        write_layer(path, "f", values, (lattice, place), nodata=nodata, names=["a", "b"])
        with pytest.raises(AssetMismatchError, match=text):
            _mosaic(UTM, window, [path])
    write_layer(path, "f", pixels, (UTM, window), nodata=-32768, names=["a", "b"])
    band = Band("a", "int16", -32768, (Source(read_header(path), 1),))
    with pytest.raises(AssetMismatchError, match="lies outside"):
        vrt_xml(UTM, window, [band], tmp_path / "stack", tmp_path / "stack")


def test_the_text_is_the_same_each_time(tmp_path):
    tiles = _tiles(tmp_path, UTM)
    paths = [path for path, _ in tiles.values()]
    whole = Window(50_000, -400_000, 150, 100)
    assert _mosaic(UTM, whole, paths, tmp_path) == _mosaic(UTM, whole, paths, tmp_path)


def _boadella(folder, shared_data, **labels):
    catalog = {"catalog": str(shared_data / "catalog" / "catalog.json")}
    return Region.model_validate(
        {
            "name": "boadella", "file": str(folder / "boadella.yaml"), "aoi": {"bbox": [2.70, 42.30, 2.90, 42.40]},
            "time": {"range": ("2020-01-01", "2022-01-01"),
                     "slots": {"around_label": {"before_days": 0, "after_days": 0}}},
            "tiles": {"from": "label-items", "source": catalog, "collection": "boadella-labels", "asset": "labels"},
            "imagery": [{"name": "s2", "source": catalog | {"collection": "boadella-s2-l2a"},
                         "bands": {"green": "green", "nir": "nir"}}],
            "labels": {"classes": {"0": "other", "1": "water"}, **labels},
            "dataset": {"layout": "single", "chips": {"size_px": 64, "stride_px": 32}},
        }
    )  # fmt: skip


@pytest.mark.real
def test_the_water_labels_of_boadella_are_gridded_as_they_are(tmp_path, shared_data):
    region = _boadella(tmp_path, shared_data)
    plan = tile_aoi(region)
    for batch in load_batches(plan.attempt, "grid_layers"):
        assert grid_layers(plan, batch).failed == ()
    assert len(plan.tiles()) == 4
    water = []
    for tile in plan.tiles():
        source = shared_data / "catalog" / "boadella-labels" / tile.source_id / "labels.tif"
        with rasterio.open(source) as truth, rasterio.open(label_path(plan, tile)) as own:
            np.testing.assert_array_equal(own.read(1), truth.read(1))
            np.testing.assert_allclose(tuple(own.transform), tuple(truth.transform), rtol=1e-12)
            water.append(int((own.read(1) == 1).sum()))
    assert water[0] == 26_968  # what the label item itself says of 2020-02-02
    check_label_values(region, plan.tiles())
    with pytest.raises(LabelError, match=r"labels\.tif holds 0"):
        check_label_values(_boadella(tmp_path, shared_data, classes={"1": "water"}), plan.tiles())


@pytest.mark.real
def test_noisy_labels_with_a_confidence_band(tmp_path, shared_data):
    source = shared_data / "landcovernet" / "ref_landcovernet_af_v1_labels_29PKL_03" / "labels.tif"
    with rasterio.open(source) as dataset:
        classes, sure = dataset.read()
        lattice = Lattice(32629, dataset.transform.c, dataset.transform.f, 10.0, 10.0)
    names = ("water", "artificial_bare", "natural_bare", "snow", "woody", "cultivated", "semi_natural")
    config = {"layers": [{"path": str(source)}], "confidence": {"band": 2, "min": 70, "weight": True},
              "classes": {str(value): name for value, name in enumerate(names, 1)}}  # fmt: skip
    window = Window(0, 0, 256, 256)
    west, south, east, north = lattice.footprint(window.padded(5)).bounds
    region = Region.model_validate(
        {
            "name": "lcn", "file": str(tmp_path / "lcn.yaml"), "aoi": {"bbox": [west, south, east, north]},
            "time": {"range": ("2018-01-01", "2019-01-01")}, "grid": {"like": str(source), "tile_px": 256},
            "imagery": [{"name": "s2", "source": {"catalog": "c"}, "bands": {"red": "red"}}], "labels": config,
        }
    )  # fmt: skip
    plan = sw.plan(tmp_path, region)
    tile = next(tile for tile in plan.tiles() if tile.window == window)
    batch = next(batch for batch in load_batches(plan.attempt, "grid_layers") if tile.tile_id in batch.units)
    assert grid_layers(plan, batch).failed == ()
    with rasterio.open(label_path(plan, tile)) as own:
        labelled = (sure >= 70) & (classes > 0)
        np.testing.assert_array_equal(own.read(1), np.where(labelled, classes - 1, 255))
        weight = np.rint(254 * np.minimum(sure / 100, 1))
        np.testing.assert_array_equal(own.read(2), np.where(labelled, weight, 0))
    assert (len(np.unique(classes)), len(np.unique(sure))) == (5, 20)  # else nothing above could fail
