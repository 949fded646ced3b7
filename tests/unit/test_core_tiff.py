"""Windows of a raster by whole blocks: the pixels are those that GDAL gives, whatever the window cuts."""

import itertools

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.windows import Window

from chipmill.core import tiff
from chipmill.core.tiff import open_tiff, read_blocks

HEIGHT, WIDTH, BLOCK = 75, 90, 32
EDGES = (0, 1, 31, 32, 33, 64, 75)


@pytest.fixture(params=["tiles", "strips"])
def raster(request, tmp_path):
    shape = {"tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK} if request.param == "tiles" else {}
    pixels = np.random.default_rng(5).integers(-9, 9000, (3, HEIGHT, WIDTH)).astype(np.int16)
    path = tmp_path / "a.tif"
    profile = {"driver": "GTiff", "count": 3, "height": HEIGHT, "width": WIDTH, "dtype": "int16"}
    place = {"crs": "EPSG:32633", "transform": Affine(10, 0, 0, 0, -10, 0)}
    with rasterio.open(path, "w", interleave="band", compress="zstd", **profile, **place, **shape) as target:
        target.write(pixels)
    return path, pixels


def places():
    """Windows that begin and end on, before and behind the edges of blocks and of the raster."""
    rows = [*itertools.combinations(EDGES, 2)]
    for (top, bottom), (left, right) in itertools.product(rows, [*rows, (64, WIDTH), (0, WIDTH)]):
        yield left, top, right - left, bottom - top


@pytest.mark.parametrize("numbers", [2, [1, 3]], ids=["one", "two"])
@pytest.mark.parametrize("whole", [tiff._WHOLE_BYTES, 0], ids=["by blocks", "by gdal"])
def test_every_window_holds_the_pixels_that_are_there(raster, numbers, whole, monkeypatch):
    monkeypatch.setattr(tiff, "_WHOLE_BYTES", whole)
    path, pixels = raster
    some = pixels[1] if numbers == 2 else pixels[[0, 2]]
    with open_tiff(str(path)) as dataset:
        for left, top, width, height in places():
            out = np.full((*some.shape[:-2], height, width), -99, np.int32)  # a wider type
            read_blocks(dataset, numbers, (left, top, width, height), out)
            assert np.array_equal(out, some[..., top : top + height, left : left + width])


def test_gdal_is_asked_for_whole_blocks_alone(raster):
    path, _ = raster
    asked = []
    with open_tiff(str(path)) as dataset:

        class Watched:
            block_shapes, dtypes = dataset.block_shapes, dataset.dtypes
            width, height = dataset.width, dataset.height

            def read(self, numbers, window, out):
                asked.append(window)
                dataset.read(numbers, window=window, out=out)

        for place in places():
            read_blocks(Watched(), 1, place, np.empty((place[3], place[2]), np.int16))
        tall, wide = dataset.block_shapes[0]
    for window in asked:
        assert isinstance(window, Window)
        assert (window.col_off % wide, window.row_off % tall) == (0, 0)
        assert (window.col_off + window.width) % wide == 0 or window.col_off + window.width == WIDTH
        assert (window.row_off + window.height) % tall == 0 or window.row_off + window.height == HEIGHT
