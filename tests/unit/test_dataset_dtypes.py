"""Bands of several types in one stack and one record: nothing is cut, nothing is cast in silence."""

import itertools

import numpy as np
import pytest
import rasterio
from tests import stack_world as sw

from chipmill.core.errors import BadInputError
from chipmill.core.store import read_sidecar
from chipmill.dataset.cutting import record_dtype
from chipmill.dataset.dtypes import common_dtype
from chipmill.dataset.labels import static_path
from chipmill.dataset.pixels import read_stack
from chipmill.region.grid import Window

INTEGERS = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "int64", "uint64")


@pytest.mark.parametrize(("one", "other"), list(itertools.combinations_with_replacement(INTEGERS, 2)))
def test_the_common_type_holds_the_ends_of_both_and_no_smaller_one_does(one, other):
    ends = [end for name in (one, other) for end in (np.iinfo(name).min, np.iinfo(name).max)]
    holding = [
        name for name in INTEGERS if np.iinfo(name).min <= min(ends) and np.iinfo(name).max >= max(ends)
    ]
    if not holding:
        with pytest.raises(BadInputError, match="share no integer type without loss"):
            common_dtype([one, other])
        return
    common = common_dtype([one, other])
    assert common.itemsize == min(np.dtype(name).itemsize for name in holding) and common.name in holding


@pytest.mark.parametrize("types", [["int16", "float32"], ["float64"], []])
def test_floats_are_scaled_before_or_refused(types):
    with pytest.raises(BadInputError, match=r"out\.dtype and out\.scale"):
        common_dtype(types)


def _sources(folder, area):
    """Rasters of four types with the values that a wrong cast would change."""
    rng = np.random.default_rng(7)
    counts = rng.integers(0, 65_536, (64, 64)).astype(np.uint16)
    counts[0, :3] = 0, 32_768, 65_534
    classes = rng.integers(0, 256, (64, 64)).astype(np.uint8)
    low = rng.integers(-32_767, 32_768, (64, 64)).astype(np.int16)
    heights = rng.normal(1200.25, 700, (64, 64))
    heights[5, 5], heights[6, 6] = np.nan, 9e9
    sw.save_raster(folder / "counts.tif", counts, area, nodata=65_535)
    sw.save_raster(folder / "two.tif", np.stack([classes * 0, classes]), area)
    sw.save_raster(folder / "low.tif", low, area)
    sw.save_raster(folder / "dem.tif", heights.astype(np.float32), area, nodata=np.nan)
    return counts, classes, low, heights.astype(np.float32).astype(np.float64)


def test_int16_uint16_uint8_and_scaled_floats_lie_in_one_stack_as_they_are(tmp_path):
    area = sw.place(1, 1)
    counts, classes, low, heights = _sources(tmp_path, area)
    static = [
        {"name": "counts", "path": "counts.tif", "out": {"dtype": "uint16", "scale": 1.0, "nodata": 65_535}},
        {"name": "classes", "path": "two.tif", "band": 2, "resampling": "nearest",
         "out": {"dtype": "uint8", "scale": 1.0, "nodata": 255}},
        {"name": "low", "path": "low.tif", "out": {"scale": 1.0}},
        {"name": "dem", "path": "dem.tif", "out": {"dtype": "uint16", "scale": 0.1, "nodata": 0}},
    ]  # fmt: skip
    world = sw.world(tmp_path, 1, 1, static=static)
    stack, tile = world.stack(), world.plan.tiles()[0]
    assert record_dtype(stack.predictors) == np.int32
    types = dict(zip(stack.bands, (layer.dtype for layer in stack.layers), strict=True))
    assert [types[name] for name in ("p1_red", "counts", "classes", "low", "dem", "label")] == [
        "int16", "uint16", "uint8", "int16", "uint16", "uint8",
    ]  # fmt: skip
    with rasterio.open(world.plan.version.stack(tile.tile_id)) as dataset:
        assert dataset.dtypes == tuple(layer.dtype for layer in stack.layers)
        assert dataset.nodatavals == tuple(layer.nodata for layer in stack.layers)
    pixels = read_stack(world.plan.version.stack(tile.tile_id), Window(0, 0, 64, 64))
    assert pixels.dtype == np.int32
    found = dict(zip(stack.bands, pixels, strict=True))
    np.testing.assert_array_equal(found["p1_red"], world.data[0, 0])
    np.testing.assert_array_equal(found["counts"], counts)
    np.testing.assert_array_equal(found["low"], low)
    # 255 is nodata of the layer: a value that would be taken for it moves by one, and is counted
    np.testing.assert_array_equal(found["classes"], np.minimum(classes, 254))
    expected = np.clip(np.rint(heights / 0.1), 1, 65_535)
    expected[5, 5] = 0
    np.testing.assert_array_equal(found["dem"], expected)
    sidecars = [read_sidecar(static_path(world.plan, layer, tile)) for layer in world.plan.region.static]
    below = int(np.count_nonzero(heights < 0.05))
    lost = [sidecar.extra["saturated_px"] for sidecar in sidecars]
    assert lost == [0, int(np.count_nonzero(classes == 255)), 0, 1 + below] and below > 50
