"""Arrays to pictures: what is nodata stays transparent, and what was written can be read back."""

import base64

import numpy as np
import pytest
import rasterio
from rasterio.io import MemoryFile

from chipmill.core.errors import AssetReadError
from chipmill.report import images


def decode(uri):
    data = base64.b64decode(uri.removeprefix("data:image/png;base64,"))
    with (
        pytest.warns(rasterio.errors.NotGeoreferencedWarning),
        MemoryFile(data) as memory,
        memory.open() as source,
    ):
        return np.moveaxis(source.read(), 0, -1)


def test_a_picture_is_a_png_with_the_same_pixels():
    rgba = np.random.default_rng(1).integers(0, 256, (5, 7, 4)).astype(np.uint8)
    shown = images.picture(rgba, "alt", fill_px=30)
    assert np.array_equal(decode(shown.uri), rgba)
    assert (shown.width_px, shown.height_px, shown.enlarged) == (7, 5, 4)


def test_a_stretch_maps_its_limits_to_0_and_255_and_hides_what_is_not_valid():
    bands = np.array([[[0, 100, 200]], [[50, 50, 50]], [[300, 0, -32768]]], np.int16)
    valid = np.array([[True, True, False]])
    rgba = images.stretch(bands, valid, np.array([[0.0, 200.0], [0.0, 100.0], [0.0, 150.0]]))
    assert rgba[0, :, 0].tolist() == [0, 128, 255]
    assert rgba[0, :, 2].tolist() == [255, 0, 0]
    assert rgba[0, :, 3].tolist() == [255, 255, 0]


def test_limits_come_from_valid_pixels_alone():
    bands = np.array([[[1, 2, 3, 32000]]], np.int16)
    assert images.limits(bands, np.array([[True, True, True, False]]), 0, 100).tolist() == [[1.0, 3.0]]
    assert images.limits(bands, np.zeros((1, 4), bool)).tolist() == [[0.0, 1.0]]


def test_classes_have_their_colours_and_255_and_unknown_codes_are_transparent():
    rgba = images.paint_classes(np.array([[0, 1, 2, 255]], np.uint8), ["#010203", "#ffffff"])
    assert rgba[0].tolist() == [[1, 2, 3, 255], [255, 255, 255, 255], [0, 0, 0, 0], [0, 0, 0, 0]]


def test_fractions_run_along_the_ramp_and_nan_does_not_break_it():
    rgba = images.paint_fractions(np.array([[0.0, 1.0, np.nan]]), np.array([[True, True, False]]))
    assert rgba[0, 0, :3].tolist() == list(images.rgb(images.SEQUENCE[0]))
    assert rgba[0, 1, :3].tolist() == list(images.rgb(images.SEQUENCE[-1]))
    assert rgba[0, 2, 3] == 0
    assert images.ramp_color(-3) == images.SEQUENCE[0]
    assert images.ramp_color(7) == images.SEQUENCE[-1]


def test_classes_without_a_colour_of_their_own_get_one_from_the_palette():
    assert images.class_colors(["#123456", None, "red", "#12345g"]) == ("#123456", *images.PALETTE[1:4])
    with pytest.raises(ValueError, match="#rrggbb"):
        images.rgb("red")


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (["p1_blue", "p1_green", "p1_red", "p1_nir"], ("p1_red", "p1_green", "p1_blue")),
        (["green", "red", "nir"], ("nir", "red", "green")),
        (["p1_vv", "p1_vh"], ("p1_vv",)),
        (["a", "b", "c", "d"], ("a", "b", "c")),
    ],
)
def test_the_bands_that_are_shown(names, shown):
    assert images.color_bands(names) == shown


def write(path, data, nodata=None, names=("a", "b")):
    profile = {
        "driver": "GTiff",
        "count": len(data),
        "dtype": data.dtype,
        "nodata": nodata,
        "crs": "EPSG:32633",
    }
    shape = {
        "height": data.shape[1],
        "width": data.shape[2],
        "transform": rasterio.Affine(10, 0, 5e5, 0, -10, 5e6),
    }
    with rasterio.open(path, "w", **profile, **shape) as target:
        target.write(data)
        target.descriptions = names


def test_a_small_read_takes_the_named_bands_and_their_nodata(tmp_path):
    data = np.arange(2 * 8 * 16, dtype=np.int16).reshape(2, 8, 16)
    data[1, :, :4] = -1
    write(tmp_path / "a.tif", data, nodata=-1)
    small = images.read_small(tmp_path / "a.tif", ["b", "a"], 8)
    assert small.data.shape == (2, 4, 8)
    assert small.valid.tolist() == [[False] * 2 + [True] * 6] * 4
    assert images.trim(small).valid.shape == (4, 6)
    assert images.trim(small).valid.all()
    smooth = images.read_small(tmp_path / "a.tif", ["a"], 8, smooth=True)
    assert smooth.data[0, 0, 0] in (8, 9)  # the mean of 0, 1, 16 and 17
    assert images.raster_shape(tmp_path / "a.tif") == (8, 16)


def test_a_raster_that_is_broken_or_lacks_a_band_is_named(tmp_path):
    write(tmp_path / "a.tif", np.zeros((2, 4, 4), np.int16))
    with pytest.raises(AssetReadError, match=r"a\.tif has no band red, only a, b"):
        images.read_small(tmp_path / "a.tif", ["red"], 8)
    (tmp_path / "b.tif").write_bytes(b"no raster")
    with pytest.raises(AssetReadError, match=r"b\.tif cannot be read"):
        images.band_names(tmp_path / "b.tif")


def test_a_picture_without_any_data_is_not_trimmed_away():
    empty = images.Small(np.zeros((1, 3, 4), np.int16), np.zeros((3, 4), bool))
    assert images.trim(empty).data.shape == (1, 3, 4)
