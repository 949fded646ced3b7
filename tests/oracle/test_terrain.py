"""Derived layers against gdaldem, against surfaces whose derivatives are known, and against themselves across tiles."""

import dataclasses
import math
import os
import shutil
import subprocess

import numpy as np
import pytest
import rasterio
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Geod
from rasterio.warp import Resampling
from tests import dataset_world as dw
from tests import stack_world as sw

from chipmill.core.errors import AssetMismatchError, AssetReadError, BadInputError
from chipmill.dataset.labels import static_fingerprint
from chipmill.dataset.manifest import publish_dataset
from chipmill.dataset.reader import open_dataset
from chipmill.dataset.static import check_static_layers, warp_static
from chipmill.dataset.terrain import aspect_deg, distance_m, gradient, hillshade, sides_in_metres, slope_deg
from chipmill.region.grid import Lattice, Window, lattice_of, reproject_shape
from chipmill.region.layers import Static

UTM = lattice_of(32633, 10.0)
NIGHTLY = os.environ.get("CHIPMILL_PROFILE") == "nightly"
PLACE = Window(50_000, -500_000, 64, 64)


def _hills(shape, seed=1, roughness=40.0):
    """Smooth random heights, metres."""
    rng = np.random.default_rng(seed)
    rough = np.fft.fft2(rng.normal(size=shape))
    rows, columns = np.meshgrid(np.fft.fftfreq(shape[0]), np.fft.fftfreq(shape[1]), indexing="ij")
    smooth = np.real(np.fft.ifft2(rough / (0.02 + np.hypot(rows, columns)) ** 2))
    return 800 + smooth / smooth.std() * roughness


def _tile(folder, window=PLACE, **changes):
    area = sw.place(1, 1)
    tile = sw.plan(folder, sw.region(folder, area, labels=None)).tiles()[0]
    return dataclasses.replace(tile, window=window, **changes)


def _layer(kind, **changes):
    return Static(name="x", path="dem.tif", derive=kind, **changes)


def _stored(layer, path, tile):
    pixels, lost = warp_static(layer, str(path), tile)
    assert pixels.dtype == layer.stored.dtype and lost == 0
    return pixels[0]


def _physical(layer, path, tile):
    stored = _stored(layer, path, tile)
    return np.where(stored == layer.stored.nodata, math.nan, stored * layer.stored.scale)


def _gdaldem(kind, source, target, *options):
    subprocess.run(["gdaldem", kind, "-q", *options, str(source), str(target)], check=True)
    with rasterio.open(target) as dataset:
        found = dataset.read(1, masked=True)
    return np.ma.filled(found.astype(np.float64), math.nan)


@pytest.mark.skipif(shutil.which("gdaldem") is None, reason="gdaldem is not installed")
@pytest.mark.parametrize(
    ("kind", "options", "changes", "tolerance"),
    [
        ("slope", (), {}, 0.006),
        ("aspect", (), {}, 0.02),  # gdaldem computes in single precision
        ("hillshade", (), {}, 1.0),  # gdaldem rounds half up in single precision
        ("hillshade", ("-az", "120", "-alt", "20"), {"azimuth_deg": 120, "altitude_deg": 20}, 1.0),
    ],
)
def test_derivatives_equal_those_of_gdaldem(tmp_path, kind, options, changes, tolerance):
    around = PLACE.padded(8)
    heights = _hills(around.shape).astype(np.float32)
    heights[30:33, 40] = -9999
    heights[50:60, 10:20] = 700
    sw.save_raster(tmp_path / "dem.tif", heights, around, nodata=-9999)
    layer = _layer(kind, **changes)
    own = _physical(layer, tmp_path / "dem.tif", _tile(tmp_path))
    theirs = _gdaldem(kind, tmp_path / "dem.tif", tmp_path / "gdal.tif", *options)[8:-8, 8:-8]
    np.testing.assert_array_equal(np.isnan(own), np.isnan(theirs))
    assert np.isnan(own[21:26, 31:34]).all()  # a hole and its neighbours are unknown, not made up
    away = np.abs(own - theirs)
    away = np.minimum(away, 360 - away) if kind == "aspect" else away
    assert np.nanmax(away) <= tolerance
    if kind == "hillshade":
        assert np.nanmean(away > 0) < 0.001 and np.nanmin(own) >= 1 and np.nanmax(own) <= 255
    if kind == "aspect":
        assert np.isnan(own[43:51, 3:11]).all()  # flat ground has none


@pytest.mark.parametrize("toward", range(0, 360, 15))
def test_a_plane_falls_where_it_was_tilted_to(toward):
    """Rise 0.5 m per metre towards one azimuth: the aspect is opposite to the rise."""
    rows, columns = np.mgrid[0:7, 0:9].astype(np.float64)
    angle = math.radians(toward)
    heights = -0.5 * (columns * 30.0 * math.sin(angle) - rows * 20.0 * math.cos(angle))
    ground = gradient(heights, (np.full((5, 1), 30.0), np.full((5, 1), 20.0)))
    np.testing.assert_allclose(slope_deg(ground), math.degrees(math.atan(0.5)), rtol=1e-12)
    aspect = aspect_deg(ground)
    assert np.abs((aspect - toward + 180) % 360 - 180).max() < 1e-9 and (aspect < 360).all()
    # lit from where it faces, at right angles to it: full light; from behind: none
    high = 90 - math.degrees(math.atan(0.5))
    np.testing.assert_allclose(hillshade(ground, toward, high), 255, rtol=1e-9)
    np.testing.assert_allclose(hillshade(ground, (toward + 180) % 360, 10), 1)


def test_an_aspect_just_west_of_north_is_north_not_360(tmp_path):
    rows, columns = np.mgrid[0:70, 0:70].astype(np.float64)
    heights = rows + columns * math.tan(
        math.radians(0.001)
    )  # it falls to the north, 0.001 degrees west of it
    sw.save_raster(tmp_path / "dem.tif", heights, PLACE.padded(3))
    assert (_stored(_layer("aspect"), tmp_path / "dem.tif", _tile(tmp_path)) == 0).all()


@pytest.mark.parametrize("latitude", [0.0, 45.0, -60.0, 84.0])
def test_pixels_in_degrees_are_as_long_as_on_the_ellipsoid(latitude):
    step = 0.001
    lattice = Lattice(4326, 14.0, 90.0, step, step)
    row = round((90.0 - latitude) / step)
    width, height = sides_in_metres(lattice, Window(5, row, 3, 1))
    geod, middle = Geod(ellps="WGS84"), 90.0 - (row + 0.5) * step
    assert width[0, 0] == pytest.approx(geod.inv(14.0, middle, 14.0 + step, middle)[2], rel=1e-6)
    north, south = middle + step / 2, middle - step / 2
    assert height[0, 0] == pytest.approx(geod.inv(14.0, north, 14.0, south)[2], rel=1e-6)


def test_pixels_in_feet_are_metres():
    width, height = sides_in_metres(lattice_of(2263, 30.0), Window(0, 0, 4, 4))  # New York, US survey feet
    assert width[0, 0] == height[0, 0] == pytest.approx(30 * 1200 / 3937)


def test_the_scale_of_the_source_is_heeded(tmp_path):
    """Heights stored in decimetres above 100 m."""
    around = PLACE.padded(3)
    heights = np.rint(_hills(around.shape) * 10)
    sw.save_raster(tmp_path / "dem.tif", (heights / 10).astype(np.float32), around)
    sw.save_raster(tmp_path / "scaled.tif", np.stack([heights * 0, heights - 1000]).astype(np.int16), around)
    with rasterio.open(tmp_path / "scaled.tif", "r+") as dataset:
        dataset.scales, dataset.offsets = (1.0, 0.1), (0.0, 100.0)
    tile, layer = _tile(tmp_path), _layer("slope")
    plain = _stored(layer, tmp_path / "dem.tif", tile)
    scaled = _stored(layer.model_copy(update={"band": 2}), tmp_path / "scaled.tif", tile)
    assert np.abs(plain - scaled.astype(int)).max() <= 1 and plain.std() > 10


@settings(max_examples=100 if NIGHTLY else 15, deadline=None)
@given(data=st.data())
def test_tiles_fit_together_as_if_they_were_one_raster(tmp_path_factory, data):
    """Derived in parts and pasted equals derived at once, whatever the CRS of the source and where the parts meet."""
    folder = tmp_path_factory.mktemp("seams")
    kind = data.draw(st.sampled_from(["slope", "aspect", "hillshade", "distance"]))
    degrees = data.draw(st.booleans())
    resampling = data.draw(st.sampled_from(["nearest", "bilinear", "cubic", "average"]))
    left, bottom, right, top = (
        UTM.footprint(PLACE.padded(40)).bounds if degrees else UTM.bounds(PLACE.padded(40))
    )
    side = data.draw(st.sampled_from([17.0, 3.7])) * (1.2e-5 if degrees else 1.0)
    source = Lattice(4326 if degrees else 32633, left, top, side, side)
    window = Window(0, 0, round((right - left) / side), round((top - bottom) / side))
    heights = _hills(window.shape, data.draw(st.integers(0, 9)))
    if kind == "distance":
        heights = np.random.default_rng(1).choice([1, 2], window.shape, p=[0.997, 0.003])
    sw.save_raster(folder / "dem.tif", heights.astype(np.float32), window, source)
    layer = _layer(kind, resampling=resampling, **({"target": 2, "max_m": 150} if kind == "distance" else {}))
    column, row = data.draw(st.integers(1, 63)), data.draw(st.integers(1, 63))
    tile = _tile(folder)
    whole = _stored(layer, folder / "dem.tif", tile)
    pasted = np.empty_like(whole)
    for rows in (slice(0, row), slice(row, 64)):
        for columns in (slice(0, column), slice(column, 64)):
            part = Window(
                PLACE.col_off + columns.start, PLACE.row_off + rows.start,
                columns.stop - columns.start, rows.stop - rows.start,
            )  # fmt: skip
            pasted[rows, columns] = _stored(layer, folder / "dem.tif", dataclasses.replace(tile, window=part))
    np.testing.assert_array_equal(pasted, whole)
    assert len(np.unique(whole)) > 5


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 10_000), st.sampled_from([(10.0, 10.0), (30.0, 12.5)]), st.sampled_from([25.0, 120.0, 1e4]),
    st.sampled_from([0.0, 0.002, 0.1, 1.0]),
)  # fmt: skip
def test_distances_equal_brute_force(seed, side_m, max_m, share):
    sources = np.random.default_rng(seed).random((26, 31)) < share
    found = distance_m(sources, (6, 4), side_m, max_m)
    rows, columns = np.nonzero(sources)
    inner = np.mgrid[6:20, 4:27]
    away = np.full(inner.shape[1:], max_m)
    for row, column in zip(rows, columns, strict=True):
        here = np.hypot((inner[0] - row) * side_m[1], (inner[1] - column) * side_m[0])
        away = np.minimum(away, here)
    np.testing.assert_allclose(found, away, rtol=1e-12)


def test_distance_to_features_across_a_seam(tmp_path):
    tile = _tile(tmp_path)
    lake = sw.box(tile, -30, 20, 10, 10)  # it ends 20 pixels left of the tile
    for name, epsg in (("lake.gpkg", 32633), ("lake.geojson", 4326)):
        shape = reproject_shape(shapely.segmentize(lake, 20.0), 32633, epsg)
        sw.save_vectors(tmp_path / name, [shape], epsg, kind=["x"])
        layer = Static(name="x", path=name, derive="distance", max_m=400)
        found = _physical(layer, tmp_path / name, tile)
        assert found[25, :25].tolist() == pytest.approx(
            [min(400, 10 * (21 + column)) for column in range(25)], abs=10
        )
        assert found[25, 0] < found[15, 0] < found[5, 0] and found[:, 40:].min() == 400
    with pytest.raises(BadInputError, match="limit is 2,048: lower max_m to 20480"):
        warp_static(layer.model_copy(update={"max_m": 50_000}), str(tmp_path / name), tile)
    degrees = dataclasses.replace(tile, lattice=Lattice(4326, 14.0, 50.0, 1e-4, 1e-4))
    with pytest.raises(BadInputError, match="distances need a grid in metres"):
        warp_static(layer, str(tmp_path / name), degrees)


@pytest.mark.parametrize(
    ("layer", "says"),
    [
        ({"path": "dem.tif", "band": 2}, "1 band(s), expected band 2"),
        ({"path": "dem.tif", "derive": "distance"}, "give target"),
        ({"path": "v.gpkg", "derive": "distance", "target": 1}, "it has features, remove target"),
        ({"path": "v.gpkg"}, "is a vector file, expected a raster"),
        ({"path": "v.gpkg", "derive": "slope"}, "is a vector file, expected a raster"),
        ({"path": "v.gpkg", "derive": "distance", "max_m": 30_000}, "limit is 2,048"),
        ({"path": "none.gpkg", "derive": "distance"}, "cannot be opened"),
        ({"path": "none.tif"}, "does not exist"),
    ],
)
def test_what_would_fail_every_tile_is_found_before_work(tmp_path, layer, says):
    sw.save_raster(tmp_path / "dem.tif", np.ones((64, 64), np.int16), PLACE)
    tile = _tile(tmp_path)
    sw.save_vectors(tmp_path / "v.gpkg", [sw.box(tile, 5, 5, 9, 9)])
    good = [{"name": "a", "path": "dem.tif"}, {"name": "b", "path": "v.gpkg", "derive": "distance"}]
    check_static_layers(sw.region(tmp_path, sw.place(1, 1), labels=None, static=good), [tile])
    region = sw.region(tmp_path, sw.place(1, 1), labels=None, static=[*good, {"name": "x", **layer}])
    with pytest.raises((BadInputError, AssetMismatchError, AssetReadError)) as caught:
        check_static_layers(region, [tile])
    assert says in str(caught.value)
    with pytest.raises(type(caught.value)):
        warp_static(region.static[-1], str(region.resolve(region.static[-1].path)), tile)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"derive": "distance", "max_m": 40_000}, "does not fit into int16"),
        ({"derive": "slope", "target": 3}, "target is for derive: distance"),
        ({"derive": "roughness"}, "slope"),
    ],
)  # fmt: skip
def test_derived_layers_that_contradict_themselves_are_refused(changes, says):
    with pytest.raises(ValueError, match=says):
        Static.model_validate({"name": "x", "path": "dem.tif", **changes})


def test_derived_layers_are_stored_finely_unless_told_otherwise():
    kinds = {
        kind: Static(name="x", path="d.tif", derive=kind).stored
        for kind in ("slope", "aspect", "hillshade", "distance")
    }
    assert [(out.dtype, out.scale) for out in kinds.values()] == [
        ("int16", 0.01), ("int16", 0.02), ("uint8", 1.0), ("int16", 1.0),
    ]  # fmt: skip
    coarse = Static.model_validate({"name": "x", "path": "d.tif", "derive": "slope", "out": {"scale": 1.0}})
    assert (coarse.stored.dtype, coarse.stored.scale) == ("int16", 1.0)
    assert Static(name="x", path="d.tif").stored.scale == 1.0


def test_what_a_derived_layer_depends_on(tmp_path):
    sw.save_raster(tmp_path / "dem.tif", np.ones((64, 64), np.int16), PLACE)
    region, tile = sw.region(tmp_path, sw.place(1, 1), labels=None), _tile(tmp_path)
    plain = Static(name="x", path="dem.tif")
    layers = [plain, plain.model_copy(update={"band": 2}), _layer("slope"), _layer("hillshade")]
    layers += [
        _layer("hillshade", azimuth_deg=90),
        _layer("distance", target=1),
        _layer("distance", target=1, max_m=10),
    ]
    assert len({static_fingerprint(region, layer, tile) for layer in layers}) == len(layers)


def test_terrain_lies_in_chips_across_tiles_as_in_one_raster(tmp_path):
    """From the heights to the samples of a reader: no chip shows where tiles meet."""
    area = sw.place(4, 4)
    around = area.padded(5)
    heights = _hills(around.shape).astype(np.float32)
    sw.save_raster(tmp_path / "dem.tif", heights, around)
    tops = (heights > np.quantile(heights, 0.99)).astype(np.uint8)
    sw.save_raster(tmp_path / "tops.tif", tops, around)
    static = [
        {"name": "elevation", "path": "dem.tif", "out": {"scale": 0.1}},
        {"name": "slope", "path": "dem.tif", "derive": "slope"},
        {"name": "aspect", "path": "dem.tif", "derive": "aspect"},
        {"name": "shade", "path": "dem.tif", "derive": "hillshade", "azimuth_deg": 200},
        {"name": "to_top", "path": "tops.tif", "derive": "distance", "target": 1, "max_m": 300},
    ]
    chain = dw.planned(tmp_path, static=static)
    assert chain.stack.bands[-6:] == ("elevation", "slope", "aspect", "shade", "to_top", "label")
    chain.write_shards()
    chain.seal()
    found = open_dataset(publish_dataset(chain.plan).path)
    known = heights.astype(np.float64)
    ground = gradient(known[4:-4, 4:-4], sides_in_metres(UTM, area))
    inner = np.s_[5:-5, 5:-5]
    truth = [
        known[inner] / 0.1, slope_deg(ground) / 0.01, np.rint(aspect_deg(ground) / 0.02) % 18_000, hillshade(ground, 200, 45),
        distance_m(tops == 1, (5, 5), (10.0, 10.0), 300.0),
    ]  # fmt: skip
    assert found.manifest.dtype == "int16" and len(found) > 20
    across = 0
    for sample in found:
        column, row = (
            round(sample.transform[2] / 10) - area.col_off,
            round(-sample.transform[5] / 10) - area.row_off,
        )
        across += column % 64 > 32 or row % 64 > 32
        for band, whole in enumerate(truth, start=-len(truth)):
            part = np.rint(whole)[row : row + 32, column : column + 32]
            np.testing.assert_array_equal(sample.image[..., band], part)
    assert across > 10


def test_average_of_a_finer_source_is_the_mean_below_a_pixel(tmp_path):
    """The oracle of the exact warp: a source twice as fine on the same corner, where the mean is known."""
    fine = lattice_of(32633, 5.0)
    window = Window(PLACE.col_off * 2, PLACE.row_off * 2, 128, 128)
    heights = _hills(window.shape)
    sw.save_raster(tmp_path / "dem.tif", heights.astype(np.float64), window, fine)
    mean = heights.reshape(64, 2, 64, 2).mean(axis=(1, 3))
    layer = _layer("slope", resampling=Resampling.average.name)
    found = _physical(layer, tmp_path / "dem.tif", _tile(tmp_path))
    ground = gradient(mean, (np.full((62, 1), 10.0), np.full((62, 1), 10.0)))
    np.testing.assert_allclose(found[1:-1, 1:-1], slope_deg(ground), atol=0.0051)
    # where the source ends nothing is known: GDAL gives the first row outside it a value
    assert np.isnan(found[[0, -1]]).all() and np.isnan(found[:, [0, -1]]).all()
