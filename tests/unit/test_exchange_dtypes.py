"""`convert dtype`: the same tree in another pixel type, nothing wrapped and everything counted."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
from tests import exchange_world as ew

from chipmill.core.errors import AssetReadError, BadInputError, OutputError, RegionFileError
from chipmill.exchange.dtypes import DtypeOptions, convert_dtype, fitted, is_excluded


@pytest.fixture
def tree(tmp_path):
    """Reflectance as float32 with NaN and values out of range, and integers with a nodata of their own."""
    values = np.array([[0.0, 0.12345, np.nan, 3.2767], [3.3, -1.0, -3.2768, 1e9]], np.float32)
    ew.save(tmp_path / "in" / "2019" / "a.tif", np.stack([values, values[::-1]]), nodata=None)
    ints = np.arange(16, dtype=np.uint16).reshape(1, 4, 4)
    ew.save(tmp_path / "in" / "2020" / "deep" / "b.TIF", ints, nodata=3)
    ew.save(tmp_path / "in" / "2020" / "b_mask.tif", ints)
    (tmp_path / "in" / "notes.txt").write_text("by hand")
    return tmp_path / "in"


def read(path):
    with rasterio.open(path) as file:
        names = ("nodata", "scales", "dtypes", "crs", "transform", "descriptions")
        return file.read(), SimpleNamespace(**{name: getattr(file, name) for name in names})


def test_values_are_scaled_rounded_and_counted_and_the_tree_stays(tree, tmp_path):
    done = convert_dtype(
        tree, tmp_path / "out", DtypeOptions("int16", 0.0001, suffix="_i", exclude=("*_mask.tif",))
    )
    assert done.chips == 2
    made = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*"))
    assert made == ["2019/a_i.tif", "2020/deep/b_i.TIF", "converted.json"]
    pixels, file = read(tmp_path / "out" / "2019" / "a_i.tif")
    wanted = np.array([[0, 1234, -32768, 32767], [32767, -10000, -32767, 32767]], np.int16)
    wanted[0, 1] = round(float(np.float32(0.12345)) / 0.0001)
    np.testing.assert_array_equal(pixels, np.stack([wanted, wanted[::-1]]))
    assert (file.nodata, file.scales, file.dtypes) == (-32768, (0.0001, 0.0001), ("int16", "int16"))
    assert file.crs.to_epsg() == 32633 and file.transform.c == ew.CORNER[0]
    pixels, file = read(tmp_path / "out" / "2020" / "deep" / "b_i.TIF")
    assert pixels[0, 0].tolist() == [0, 10000, 20000, -32768]  # 3 is nodata in the source
    facts = json.loads((tmp_path / "out" / "converted.json").read_text())
    lost = {one["source"]: one["saturated_px"] for one in facts["files"]}
    assert lost == {"2019/a.tif": [3, 3], "2020/deep/b.TIF": [12]}
    assert done.notes[0].startswith("18 pixels of 2 files did not fit")
    assert done.notes[1:] == (
        "1 files were excluded by their names", "1 files are no GeoTIFF by their ending and were left out",
    )  # fmt: skip


def test_bands_are_chosen_in_the_order_that_is_asked_for_and_tags_of_the_source_count(tmp_path):
    pixels = np.arange(12, dtype=np.uint16).reshape(3, 2, 2)
    ew.save(tmp_path / "in" / "a.tif", pixels)
    with rasterio.open(tmp_path / "in" / "a.tif", "r+") as file:
        file.scales, file.offsets, file.descriptions = (1, 1, 0.5), (0, 0, 10.0), ("r", "g", "b")
    convert_dtype(tmp_path / "in", tmp_path / "out", DtypeOptions("uint8", bands=(3, 1)))
    found, file = read(tmp_path / "out" / "a.tif")
    # 0.5 x 9 + 10 = 14.5 and 15.5: half to even
    np.testing.assert_array_equal(found, [[[14, 14], [15, 16]], [[0, 1], [2, 3]]])
    assert (file.descriptions, file.nodata) == (("b", "r"), 255)
    plain = convert_dtype(tmp_path / "in", tmp_path / "float", DtypeOptions("float32", bands=(3,)))
    assert plain.notes == () and read(tmp_path / "float" / "a.tif")[0].ravel().tolist() == [
        14,
        14.5,
        15,
        15.5,
    ]


def test_all_blocks_of_a_large_raster_arrive(tmp_path):
    pixels = np.random.default_rng(8).integers(-3000, 3000, (1, 1100, 700)).astype(np.float32)
    ew.save(tmp_path / "in" / "a.tif", pixels)
    convert_dtype(tmp_path / "in", tmp_path / "out", DtypeOptions("int16"))
    np.testing.assert_array_equal(read(tmp_path / "out" / "a.tif")[0], pixels.astype(np.int16))


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32"])
def test_no_value_becomes_nodata_or_wraps(dtype):
    info = np.iinfo(dtype)
    values = np.array([info.min - 1, info.min, info.max, info.max + 1, math.inf, -math.inf, math.nan, 7.0])
    pixels, lost = fitted(values, DtypeOptions(dtype))
    empty = DtypeOptions(dtype).empty
    assert (pixels == empty).tolist() == [False] * 6 + [True, False]
    kept = (pixels == values)[[1, 2, 7]].sum()
    assert lost == 7 - kept and pixels[7] == 7
    ordered = pixels[[5, 0, 1, 7, 2, 3, 4]].astype(np.int64)
    assert (np.diff(ordered) >= 0).all()


def test_a_float_beyond_its_range_is_counted():
    pixels, lost = fitted(np.array([1e300, np.nan, 1.5]), DtypeOptions("float32"))
    assert lost == 1 and np.isfinite(pixels[0]) and np.isnan(pixels[1]) and pixels[2] == 1.5


@pytest.mark.parametrize("nodata", [0.0, -9999.0, float(np.finfo(np.float32).max)])
def test_a_float_that_is_the_nodata_value_is_moved_and_counted(nodata):
    pixels, lost = fitted(np.array([nodata, np.nan, 1.5]), DtypeOptions("float32", nodata=nodata))
    assert lost == 1 and pixels[0] != np.float32(nodata) and pixels[1] == np.float32(nodata)
    assert pixels[0] == pytest.approx(nodata, rel=1e-6, abs=1e-6) and np.isfinite(pixels[0])


@pytest.mark.parametrize(
    ("pattern", "name", "hit"),
    [
        ("*_mask.tif", "2020/b_mask.tif", True),
        ("2020", "2020/b_mask.tif", True),
        ("20", "2020/b_mask.tif", False),
        ("2020/*.tif", "2020/b_mask.tif", True),
        ("2020/*.tif", "2020/deep/b.tif", False),
        ("2020/**", "2020/deep/b.tif", True),
        ("**/b.tif", "2020/deep/b.tif", True),
        ("**/b.tif", "b.tif", True),
        ("2020/**/b.tif", "2020/b.tif", True),
        ("2020/**/deep/**/b.tif", "2020/x/deep/y/z/b.tif", True),
        ("2020/**/deep/**/b.tif", "2019/x/deep/y/z/b.tif", False),
        ("/b.tif", "b.tif", False),
    ],
)
def test_what_a_pattern_excludes(pattern, name, hit):
    assert is_excluded(name, (pattern,)) is hit


def test_a_pattern_of_many_stars_answers_at_once():
    assert not is_excluded("/".join("a" * 60), ("/".join(["**", "a"] * 40) + "/b",))


def broken(folder):
    (folder / "2019" / "a.tif").write_bytes((folder / "2019" / "a.tif").read_bytes()[:300])


def linked(folder):
    (folder / "c.tif").symlink_to(folder / "2019" / "a.tif")


@pytest.mark.parametrize(
    ("change", "options", "error", "says"),
    [
        (broken, {}, AssetReadError, "a.tif cannot be read"),
        (linked, {}, BadInputError, r"1 links \(c.tif\)"),
        (None, {"bands": (3,)}, BadInputError, "has 2 bands, and band 3 is asked for"),
        (None, {"exclude": ("**",)}, BadInputError, "holds no GeoTIFF"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_left(tree, tmp_path, change, options, error, says):
    if change:
        change(tree)
    with pytest.raises(error, match=says):
        convert_dtype(tree, tmp_path / "out", DtypeOptions("int16", **options))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]


@pytest.mark.parametrize(
    "options",
    [
        {"scale": 0},
        {"scale": math.nan},
        {"bands": (0,)},
        {"suffix": "/x"},
        {"nodata": 70000},
        {"nodata": 0.5},
    ],
)
def test_options_that_make_no_sense_are_refused(options):
    with pytest.raises(BadInputError):
        DtypeOptions("int16", **options)


def test_two_results_of_one_name_and_an_output_that_stands_are_refused(tree, tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(OutputError, match="is there already"):
        convert_dtype(tree, tmp_path / "out", DtypeOptions("int16"))
    assert (tmp_path / "out").read_text() == "mine"


def test_places_outside_the_roots_are_refused(tree, tmp_path, monkeypatch):
    (tmp_path / "allowed").mkdir()
    monkeypatch.setenv("CHIPMILL_ROOTS", str(tmp_path / "allowed"))
    with pytest.raises(RegionFileError, match="source"):
        convert_dtype(tree, tmp_path / "allowed" / "out", DtypeOptions("int16"))
    monkeypatch.setenv("CHIPMILL_ROOTS", str(tree))
    with pytest.raises(RegionFileError, match="out"):
        convert_dtype(tree, tmp_path / "out", DtypeOptions("int16"))
