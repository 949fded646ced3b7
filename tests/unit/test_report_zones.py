"""One picture of rasters in several UTM zones: where things lie, what is shown where two overlap, and how it fails."""

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.warp import transform as reproject_points

from chipmill.core.errors import AssetReadError
from chipmill.report.images import read_small
from chipmill.report.map import _pictured
from chipmill.report.zones import pixels_of, read_together

EAST, WEST = 32633, 32632
NORTH = 5_100_000


def save(path, pixels, epsg, left, nodata=255, name="class"):
    """Write one band `(y, x)` of 10 m at an easting."""
    height, width = pixels.shape
    profile = {
        "driver": "GTiff",
        "height": height,
        "width": width,
        "count": 1,
        "dtype": pixels.dtype,
        "nodata": nodata,
    }
    with rasterio.open(
        path, "w", crs=f"EPSG:{epsg}", transform=Affine(10, 0, left, 0, -10, NORTH), **profile
    ) as target:
        target.write(pixels, 1)
        target.set_band_description(1, name)
    return path


@pytest.fixture
def zones(tmp_path):
    """Two rasters on both sides of 12 degrees east: 1 in the west, 2 in the east."""
    (x_west,), _ = reproject_points("EPSG:4326", f"EPSG:{WEST}", [12.0], [46.03])
    (x_east,), _ = reproject_points("EPSG:4326", f"EPSG:{EAST}", [12.0], [46.03])
    west = save(
        tmp_path / "classes-32632.tif", np.full((300, 100), 1, np.uint8), WEST, x_west // 10 * 10 - 1000
    )
    east = save(tmp_path / "classes-32633.tif", np.full((300, 200), 2, np.uint8), EAST, x_east // 10 * 10)
    return west, east


def test_one_raster_is_read_as_it_is(zones):
    for side in (400, 50):
        alone, plain = read_together(zones[:1], ["class"], side), read_small(zones[0], ["class"], side)
        assert np.array_equal(alone.data, plain.data) and np.array_equal(alone.valid, plain.valid)


def test_zones_lie_side_by_side_at_one_scale(zones):
    small = read_together(zones, ["class"], 1000)
    assert 300 <= min(small.valid.shape) <= max(small.valid.shape) < 345, "10 m, as the files"
    codes = np.where(small.valid, small.data[0], 0)
    middle = codes[codes.shape[0] // 2]
    assert list(dict.fromkeys(middle[middle > 0])) == [1, 2], "west before east"
    assert (codes == 1).sum() == pytest.approx(300 * 100, rel=0.02)
    assert (codes == 2).sum() == 300 * 200, "the largest is not warped"


def test_a_picture_is_never_larger_than_asked(zones):
    small = read_together(zones, ["class"], 64, smooth=True)
    assert max(small.valid.shape) == 64
    assert set(np.unique(small.data[0][small.valid])) <= {1, 2}


def test_where_two_hold_a_place_the_earlier_counts(tmp_path):
    left = np.array([[1, 255], [1, 1]], np.uint8)
    one = save(tmp_path / "a.tif", left, EAST, 300_000)
    two = save(tmp_path / "b.tif", np.full((2, 2), 2, np.uint8), EAST, 300_000)
    small = read_together([one, two], ["class"], 10)
    assert small.data[0].tolist() == [[1, 2], [1, 1]]
    assert small.valid.all()


def test_pixels_are_counted_over_all(zones):
    assert pixels_of(zones) == 300 * 300


def test_a_band_that_one_lacks_is_named(zones, tmp_path):
    other = save(tmp_path / "other.tif", np.zeros((4, 4), np.uint8), EAST, 300_000, name="else")
    with pytest.raises(AssetReadError, match=r"other\.tif has no band class, only else"):
        read_together([zones[0], other], ["class"], 100)


def test_a_broken_file_is_named(zones, tmp_path):
    (tmp_path / "broken.tif").write_bytes(zones[0].read_bytes()[:200])
    with pytest.raises(AssetReadError, match=r"broken\.tif cannot be read for the report"):
        read_together([zones[0], tmp_path / "broken.tif"], ["class"], 100)


@pytest.mark.parametrize(
    ("rasters", "pictures"),
    [
        (["32633"], [("32633",)]),
        (["32632", "32633"], [("32632", "32633")]),
        (["boadella-2020", "boadella-2021"], [("boadella-2020",), ("boadella-2021",)]),
        ([], []),
    ],
)
def test_zones_share_a_picture_and_label_items_do_not(rasters, pictures):
    assert _pictured(rasters) == pictures
