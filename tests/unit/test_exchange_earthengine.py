"""Earth Engine's TFRecords: patches on a mixer's grid, neighbourhoods of points, and rasters in patches."""

import collections
import gzip
import json

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from tests import exchange_world as ew

from chipmill.core.errors import AssetMismatchError, BadInputError, DamagedFileError
from chipmill.dataset.examples import Feature
from chipmill.dataset.reader import open_dataset
from chipmill.dataset.verify import verify_dataset
from chipmill.exchange.chips import ImportOptions
from chipmill.exchange.earthengine import RecordOptions, import_earthengine
from chipmill.exchange.earthengine_map import import_raster
from chipmill.exchange.earthengine_out import RasterOptions, export_chips, export_raster
from chipmill.exchange.ee_records import (
    iter_examples,
    list_content,
    list_values,
    new_records,
    pack_varints,
    unpack_varints,
    write_example,
)
from chipmill.exchange.ee_values import Storing, parse_scales
from chipmill.exchange.mixer import Mixer, infer_margin, read_mixer

MIXER = Mixer("EPSG:32633", (10, 0, 500000, 0, -10, 5100000), (8, 8), 3, 6)
OPTIONS = ImportOptions(name="toy", date="2019-06-01", classes={0: "other", 1: "crop"})


def whole(rng=8, size=(24, 16), margin=(0, 0)):
    """Pixels of the whole of MIXER with its margin: R and NDVI, and a label."""
    rng = np.random.default_rng(rng)
    shape = (size[1] + margin[1], size[0] + margin[0])
    return {
        "R": rng.integers(0, 3000, shape).astype(np.float32),
        "NDVI": rng.uniform(-1, 1, shape).astype(np.float32),
        "label": rng.integers(0, 2, shape).astype(np.float32),
    }


def patches(mixer, pixels, margin=(0, 0)):
    """Cut an image into the patches that Earth Engine makes of it, by plain slicing."""
    for number in range(mixer.total):
        col, row = mixer.corner(number)
        yield {
            name: one[row : row + mixer.patch[1] + margin[1], col : col + mixer.patch[0] + margin[0]]
            for name, one in pixels.items()
        }


def export(folder, records, mixer=MIXER, kinds=None, per_file=4, suffix=".gz"):
    """Write records as Earth Engine does, over several files."""
    folder.mkdir(parents=True, exist_ok=True)
    records, kinds = list(records), kinds or collections.defaultdict(lambda: "float")
    for number, start in enumerate(range(0, len(records), per_file)):
        path = folder / f"toy-{number:05d}.tfrecord{suffix}"
        with new_records(path, compressed=bool(suffix)) as stream:
            for one in records[start : start + per_file]:
                # any order: a map in protobuf has none
                names = sorted(one, reverse=bool(start % 3))
                write_example(stream, {name: list_content(one[name], kinds[name], "") for name in names})
    if mixer:
        (folder / "toy-mixer.json").write_text(json.dumps(mixer.facts()))


def chips_of(out):
    return {sample.chip_id: sample for sample in open_dataset(out)}


@given(st.lists(st.integers(-(2**63), 2**63 - 1)))
def test_integers_are_packed_as_protobuf_packs_them(values):
    packed = pack_varints(np.array(values, np.int64))
    assert Feature("int64", [memoryview(packed)]).ints == values
    assert unpack_varints(packed).tolist() == values


@pytest.mark.parametrize("data", [b"\x80", b"\xff" * 11 + b"\x01"])
def test_what_is_no_list_of_integers_is_refused(data):
    with pytest.raises(DamagedFileError, match="here cannot be read"):
        list_values(Feature("int64", [memoryview(data)]), None, None, "here")


def test_a_real_mixer_is_read(tmp_path):
    text = (
        '{"projection": {"crs": "EPSG:4326", "affine": {"doubleMatrix": [8.983152841195215E-4, 0.0, 13.599595086285436, '
        '0.0, -8.983152841195215E-4, 45.40175277468474]}}, "patchDimensions": [256, 256], "patchesPerRow": 5, '
        '"totalPatches": 10}'
    )
    (tmp_path / "a-mixer.json").write_text(text)
    mixer = read_mixer(tmp_path / "a-mixer.json")
    assert (mixer.size, mixer.rows, mixer.corner(7), mixer.epsg) == ((1280, 512), 2, (512, 256), "EPSG:4326")
    assert mixer.facts() == json.loads(text)
    assert tuple(mixer.patch_transform(7, (64, 64)))[2] == pytest.approx(
        13.599595086285436 + 448 * 8.983152841195215e-4
    )


@pytest.mark.parametrize(
    "change",
    [
        {"totalPatches": 7},
        {"patchesPerRow": 0},
        {"patchDimensions": [8]},
        {"projection": {}},
        {"totalPatches": 1 << 40},
        {"patchDimensions": [1 << 20, 1 << 20]},
    ],
)
def test_a_mixer_that_makes_no_grid_is_refused(tmp_path, change):
    (tmp_path / "mixer.json").write_text(json.dumps(MIXER.facts() | change))
    with pytest.raises(BadInputError, match=r"mixer\.json"):
        read_mixer(tmp_path / "mixer.json")


@given(st.integers(1, 400), st.integers(1, 400), st.integers(0, 300))
def test_a_margin_is_found_from_the_number_of_values(width, height, margin):
    values = (width + margin) * (height + margin)
    assert infer_margin(values, (width, height), None, "x") == (margin, margin)
    assert infer_margin(values, (width, height), (margin, margin), "x") == (margin, margin)


def test_a_margin_that_cannot_be_found_must_be_given():
    assert infer_margin(12 * 8, (8, 8), (4, 0), "x") == (4, 0)
    for values, given_one in ((12 * 8, None), (60, None), (12 * 8, (0, 0))):
        with pytest.raises(BadInputError, match="give the margin"):
            infer_margin(values, (8, 8), given_one, "record 3")


@pytest.mark.parametrize("margin", [(0, 0), (4, 4), (6, 2)])
@pytest.mark.parametrize("suffix", [".gz", ""])
def test_patches_become_chips_at_their_place(tmp_path, margin, suffix):
    pixels = whole(margin=margin)
    export(tmp_path / "in", patches(MIXER, pixels, margin), suffix=suffix)
    options = RecordOptions(
        storing=Storing("int16", {"NDVI": 0.0001}), margin=margin if margin[0] != margin[1] else None
    )
    done = import_earthengine(tmp_path / "in", tmp_path / "out", OPTIONS, options)
    assert (done.chips, done.notes) == (6, ())
    found = open_dataset(tmp_path / "out")
    assert [band.name for band in found.manifest.bands] == ["ndvi", "r"]  # by name: a record has no order
    assert [band.scale for band in found.manifest.bands] == [0.0001, 1.0]
    inner = {
        name: one[margin[1] // 2 : margin[1] // 2 + 16, margin[0] // 2 : margin[0] // 2 + 24]
        for name, one in pixels.items()
    }
    for number, sample in enumerate(found):
        col, row = MIXER.corner(number)
        part = {name: one[row : row + 8, col : col + 8] for name, one in inner.items()}
        np.testing.assert_array_equal(sample.image[..., 1], part["R"])
        np.testing.assert_array_equal(sample.image[..., 0], np.rint(part["NDVI"].astype(float) / 0.0001))
        np.testing.assert_array_equal(sample.label, part["label"])
        assert sample.transform == (10, 0, 500000 + 10 * col, 0, -10, 5100000 - 10 * row)
        assert (sample.crs, sample.anchor) == ("EPSG:32633", "2019-06-01")
    assert verify_dataset(tmp_path / "out", data=True).problems == ()


def test_margins_may_stay_and_their_ground_counts_once(tmp_path):
    pixels = whole(margin=(4, 4))
    export(tmp_path / "in", patches(MIXER, pixels, (4, 4)))
    options = RecordOptions(storing=Storing("uint16"), keep_margin=True)
    import_earthengine(tmp_path / "in", tmp_path / "out", ImportOptions(date="2019-06-01", classes={0: "other", 1: "crop"}, bands=("R",)), options)  # fmt: skip
    found = open_dataset(tmp_path / "out")
    assert found[4].image.shape == (12, 12, 1)
    np.testing.assert_array_equal(found[4].image[..., 0], pixels["R"][8:20, 8:20])
    assert found[4].transform[2::3] == (500000 + 10 * 8 - 20, 5100000 - 10 * 8 + 20)
    sums = found.manifest.bands[0].statistics.sums
    assert (sums.n, sums.total) == (28 * 20, int(pixels["R"].astype(int).sum()))


@pytest.mark.parametrize(
    ("kind", "dtype", "value_type"),
    [
        ("int64", "int16", None),
        ("int64", "int32", None),
        ("bytes", "uint8", None),
        ("bytes", "uint16", "uint16"),
    ],
)
def test_lists_of_integers_and_bytes_are_read_as_they_are(tmp_path, kind, dtype, value_type):
    info = np.iinfo(dtype)
    values = np.random.default_rng(8).integers(info.min, info.max, (16, 24), dtype=dtype, endpoint=True)
    pixels = {"R": values, "label": np.ones((16, 24), np.uint8)}
    export(tmp_path / "in", patches(MIXER, pixels), kinds={"R": kind, "label": "int64"})
    options = RecordOptions(storing=Storing(dtype), value_type=value_type)
    import_earthengine(tmp_path / "in", tmp_path / "out", OPTIONS, options)
    np.testing.assert_array_equal(open_dataset(tmp_path / "out")[5].image[..., 0], values[8:, 16:])


def test_bytes_of_an_unknown_type_must_be_named(tmp_path):
    pixels = {"R": np.ones((16, 24), np.uint16), "label": np.ones((16, 24), np.uint8)}
    export(tmp_path / "in", patches(MIXER, pixels), kinds={"R": "bytes", "label": "int64"})
    with pytest.raises(BadInputError, match="band R holds 128 bytes for 64 values: say the type"):
        import_earthengine(tmp_path / "in", tmp_path / "out", OPTIONS, RecordOptions())


def test_neighbourhoods_of_points_are_not_transposed_and_may_be_cut_to_an_even_side(tmp_path):
    side = 17
    made = [whole(number, (side, side)) for number in range(3)]
    export(tmp_path / "in", made, mixer=None)
    options = RecordOptions(storing=Storing("int16", {"NDVI": 0.0001}))
    import_earthengine(tmp_path / "in", tmp_path / "out", OPTIONS, options)
    found = open_dataset(tmp_path / "out")
    for sample, pixels in zip(found, made, strict=True):
        np.testing.assert_array_equal(sample.image[..., 1], pixels["R"])
        np.testing.assert_array_equal(sample.label, pixels["label"])
        assert sample.crs == ""
    assert found.chip_ids == tuple(f"toy-train-{number:07d}" for number in range(3))
    import_earthengine(
        tmp_path / "in", tmp_path / "even", OPTIONS, RecordOptions(storing=options.storing, size_px=16)
    )
    np.testing.assert_array_equal(open_dataset(tmp_path / "even")[2].image[..., 1], made[2]["R"][1:, 1:])


def test_values_that_do_not_fit_are_counted_and_nan_is_nodata(tmp_path):
    pixels = whole()
    pixels["NDVI"][0, :3] = 9.0, -9.0, np.nan
    pixels["R"][0, 0] = 0
    export(tmp_path / "in", patches(MIXER, pixels))
    done = import_earthengine(
        tmp_path / "in",
        tmp_path / "out",
        OPTIONS,
        RecordOptions(storing=Storing("int16", {"NDVI": 0.0001}, nodata=0)),
    )
    assert done.notes == (
        "2 values of band NDVI did not fit and stand at the end of the range: another scale would keep them",
    )
    found = open_dataset(tmp_path / "out")
    assert found[0].image[0, :3, 0].tolist() == [32767, -32767, -32768]
    assert [band.nodata for band in found.manifest.bands] == [-32768, 0]
    assert found.manifest.bands[0].statistics.sums.n == 24 * 16 - 1 - int((pixels["NDVI"] == 0).sum())


def cut(folder):
    path = folder / "toy-00001.tfrecord.gz"
    path.write_bytes(path.read_bytes()[:-30])


def flipped(folder):
    path = folder / "toy-00001.tfrecord.gz"
    data = bytearray(gzip.decompress(path.read_bytes()))
    data[200] ^= 1
    path.write_bytes(gzip.compress(bytes(data)))


def second_mixer(folder):
    (folder / "other-mixer.json").write_text(json.dumps(MIXER.facts()))


def one_more(folder):
    (folder / "toy-00002.tfrecord.gz").write_bytes((folder / "toy-00000.tfrecord.gz").read_bytes())


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        (cut, DamagedFileError, "toy-00001.tfrecord.gz is not good gzip"),
        (flipped, DamagedFileError, "fails its checksum"),
        (lambda folder: (folder / "toy-00001.tfrecord.gz").unlink(), AssetMismatchError, "holds 4 records, and its mixer names 6"),
        (one_more, AssetMismatchError, "holds more records, and its mixer names 6"),
        (second_mixer, BadInputError, "holds 2 mixers"),
        (lambda folder: (folder / "toy-mixer.json").write_text("{}"), BadInputError, "is no mixer"),
        (lambda folder: [path.unlink() for path in folder.glob("*.gz")], BadInputError, "holds no .tfrecord"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_and_nothing_is_left(tmp_path, change, error, says):
    export(tmp_path / "in", patches(MIXER, whole()))
    change(tmp_path / "in")
    with pytest.raises(error, match=says):
        import_earthengine(
            tmp_path / "in",
            tmp_path / "out",
            OPTIONS,
            RecordOptions(storing=Storing("int16", {"NDVI": 0.0001})),
        )
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize(
    ("records", "changes", "says"),
    [
        ({}, {}, r"record 0 .*band NDVI holds -?0\.\d+, which is no int16: give the band a scale"),
        ({"storing": Storing("uint8", {"NDVI": 0.01})}, {}, r"band R holds \d+\.0, which is no uint8"),
        ({"storing": Storing("int16", {"B9": 0.01})}, {}, "there is no band B9 but NDVI, R"),
        ({}, {"bands": ("R", "B9")}, "has no band B9 but NDVI, R, label: name its bands"),
        ({"label": "class"}, {"bands": ("R",)}, "has no class but NDVI, R, label"),
    ],
)
def test_bands_are_asked_for_by_name_and_never_cast_in_silence(tmp_path, records, changes, says):
    export(tmp_path / "in", patches(MIXER, whole()))
    options = ImportOptions(date="2019-06-01", classes={0: "other", 1: "crop"}, **changes)
    with pytest.raises((BadInputError, AssetMismatchError), match=says):
        import_earthengine(tmp_path / "in", tmp_path / "out", options, RecordOptions(**records))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return ew.dataset(tmp_path_factory)


@pytest.mark.parametrize(("kind", "compressed"), [("float", True), ("int64", False), ("bytes", True)])
def test_the_chips_of_a_dataset_come_back_from_their_records(dataset, tmp_path, kind, compressed):
    done = export_chips(dataset.parts[0].root, tmp_path / "ee", kind, compressed=compressed)
    ending = ".tfrecord.gz" if compressed else ".tfrecord"
    assert done.chips == len(dataset) and (tmp_path / "ee" / "train" / f"chips-00000{ending}").is_file()
    (_, first) = next(iter_examples([tmp_path / "ee" / "train" / f"chips-00000{ending}"]))
    assert list(first) == [*(band.name for band in dataset.manifest.bands), "label"]
    import_earthengine(tmp_path / "ee", tmp_path / "back", ImportOptions(), RecordOptions())
    back = open_dataset(tmp_path / "back")
    assert back.chip_ids == dataset.chip_ids
    for sample, other in zip(dataset, back, strict=True):
        np.testing.assert_array_equal(sample.image, other.image)
        np.testing.assert_array_equal(sample.label, other.label)
        assert sample[2:6] == other[2:6]
    mine, theirs = dataset.manifest, back.manifest
    assert [band.statistics for band in mine.bands] == [band.statistics for band in theirs.bands]
    assert mine.classes == theirs.classes and verify_dataset(tmp_path / "back", data=True).problems == ()


@pytest.fixture
def raster(tmp_path):
    """A raster that no patch divides, with a nodata value."""
    pixels = np.random.default_rng(8).integers(1, 255, (2, 37, 50), dtype=np.uint8)
    ew.save(tmp_path / "map.tif", pixels, nodata=255)
    return tmp_path / "map.tif", pixels


@pytest.mark.parametrize("margin", [(0, 0), (6, 6), (3, 5)])
@pytest.mark.parametrize("edges", ["pad", "drop"])
@pytest.mark.parametrize("kind", ["float", "int64", "bytes"])
def test_a_raster_comes_back_from_its_patches_bit_for_bit(raster, tmp_path, margin, edges, kind):
    path, pixels = raster
    options = RasterOptions((16, 12), margin, edges=edges, kind=kind, file_bytes=1000)
    done = export_raster(path, tmp_path / "ee", options)
    mixer = read_mixer(tmp_path / "ee" / "map-mixer.json")
    cols, rows = (4, 4) if edges == "pad" else (3, 3)
    assert (mixer.total, mixer.per_row, done.chips) == (cols * rows, cols, cols * rows)
    assert len(list((tmp_path / "ee").glob("map-0*.tfrecord.gz"))) > 1
    lost = 0 if edges == "pad" else 37 * 50 - 48 * 36
    assert done.notes == (
        (f"{lost:,} pixels at the right and lower edge fill no patch and were left out",) if lost else ()
    )
    back = import_raster(tmp_path / "ee", tmp_path / "back", (), RecordOptions(margin=margin))
    assert back.chips == mixer.total
    with rasterio.open(tmp_path / "back" / "ee.tif") as file:
        found, names, where = file.read(), file.descriptions, file.transform
    assert (names, where.c, where.f) == (("b1", "b2"), *ew.CORNER)
    assert found.shape == (2, rows * 12, cols * 16)
    np.testing.assert_array_equal(found[:, :37, :50], pixels[:, : rows * 12, : cols * 16])
    assert (found[:, 37:] == 255).all() and (found[:, :, 50:] == 255).all()


def test_the_margin_of_a_patch_is_what_lies_around_it(raster, tmp_path):
    path, pixels = raster
    export_raster(path, tmp_path / "ee", RasterOptions((16, 12), (6, 4)))
    padded = np.full((2, 48 + 4, 64 + 6), 255, np.uint8)
    padded[:, 2:39, 3:53] = pixels
    for number, (_, features) in enumerate(iter_examples(sorted((tmp_path / "ee").glob("*.gz")))):
        row, col = number // 4 * 12, number % 4 * 16
        np.testing.assert_array_equal(
            features["b2"].floats.reshape(16, 22), padded[1, row : row + 16, col : col + 22]
        )


def test_the_manifest_of_an_upload_names_all_files_as_one_source(raster, tmp_path):
    options = RasterOptions(
        (16, 16), file_bytes=4000, asset="projects/p/assets/map", bucket="gs://b/run/", kind="float"
    )
    export_raster(raster[0], tmp_path / "ee", options)
    upload = json.loads((tmp_path / "ee" / "upload.json").read_text())
    (source,) = upload["tilesets"][0]["sources"]
    names = sorted(path.name for path in (tmp_path / "ee").iterdir() if path.name != "upload.json")
    assert sorted(source["uris"]) == [f"gs://b/run/{name}" for name in names] and len(names) > 2
    assert (upload["name"], upload["pyramidingPolicy"]) == ("projects/p/assets/map", "MODE")
    with pytest.raises(BadInputError, match="gs://"):
        RasterOptions(asset="projects/p/assets/map")


def test_a_scale_is_not_dropped_where_chipmill_json_says_another(dataset, tmp_path):
    export_chips(dataset.parts[0].root, tmp_path / "ee")
    for storing in (Storing(scales={dataset.manifest.bands[0].name: 0.1}), Storing(nodata=0)):
        with pytest.raises(BadInputError, match=r"chipmill\.json how its bands are stored"):
            import_earthengine(
                tmp_path / "ee", tmp_path / "out", ImportOptions(), RecordOptions(storing=storing)
            )
    with pytest.raises(BadInputError, match="'ndvi' is named twice"):
        parse_scales(["ndvi=0.1", "ndvi=0.01"])


def test_a_stack_of_a_dataset_can_be_sent_and_no_other_vrt(dataset, tmp_path):
    root = dataset.parts[0].root
    stack = next(iter(sorted(root.glob("stack-*.vrt"))))
    done = export_raster(stack, tmp_path / "ee", RasterOptions((64, 64)))
    import_raster(tmp_path / "ee", tmp_path / "back", (dataset.manifest.bands[0].name,), RecordOptions())
    with rasterio.open(stack) as ours, rasterio.open(tmp_path / "back" / "ee.tif") as theirs:
        np.testing.assert_array_equal(theirs.read(1)[: ours.height, : ours.width], ours.read(1))
        assert done.chips == -(-ours.width // 64) * -(-ours.height // 64)
    (tmp_path / "evil.vrt").write_bytes(stack.read_bytes())
    with pytest.raises(BadInputError, match="a VRT, which may name any file"):
        export_raster(tmp_path / "evil.vrt", tmp_path / "out", RasterOptions())


def test_a_raster_without_mixer_or_smaller_than_a_patch_is_refused(raster, tmp_path):
    export(tmp_path / "in", [whole()], mixer=None)
    with pytest.raises(BadInputError, match=r"its mixer\.json in one folder"):
        import_raster(tmp_path / "in", tmp_path / "out", (), RecordOptions())
    with pytest.raises(BadInputError, match="less than a patch of 64 x 64: pad the edges"):
        export_raster(raster[0], tmp_path / "out", RasterOptions((64, 64), edges="drop"))


def test_a_crs_without_a_code_gives_chips_without_a_place_and_one_that_is_none_is_refused(tmp_path):
    wkt = rasterio.crs.CRS.from_proj4("+proj=sinu +R=6371007.181 +units=m").to_wkt()
    for name, crs in (("wkt", wkt), ("none", "NOWHERE:1")):
        mixer = Mixer(crs, *(getattr(MIXER, field) for field in ("transform", "patch", "per_row", "total")))
        export(tmp_path / name, patches(mixer, whole()), mixer)
    options = RecordOptions(storing=Storing("int16", {"NDVI": 0.0001}))
    done = import_earthengine(tmp_path / "wkt", tmp_path / "out", OPTIONS, options)
    assert done.notes[0].startswith("the CRS of wkt has no EPSG code")
    assert {sample.crs for sample in open_dataset(tmp_path / "out")} == {""}
    import_raster(tmp_path / "wkt", tmp_path / "map", ("R",), RecordOptions())
    with rasterio.open(tmp_path / "map" / "wkt.tif") as file:
        assert file.crs.to_dict()["proj"] == "sinu"
    with pytest.raises(BadInputError, match="which is none"):
        import_raster(tmp_path / "none", tmp_path / "x", (), RecordOptions())


def test_a_later_patch_that_the_type_of_the_first_cannot_hold_is_refused(tmp_path):
    pixels = {"b": np.arange(64, dtype=np.int64).reshape(8, 8)}
    mixer = Mixer(MIXER.crs, MIXER.transform, (8, 8), 2, 2)
    for name, value in (("half", 0.5), ("nan", np.nan)):
        export(tmp_path / name, [pixels], mixer, {"b": "int64"})
        with new_records(tmp_path / name / "toy-00001.tfrecord.gz", compressed=True) as stream:
            write_example(stream, {"b": list_content(np.full((8, 8), value, np.float32), "float", "")})
        with pytest.raises(AssetMismatchError, match=r"00001.* holds values that int32 cannot hold"):
            import_raster(tmp_path / name, tmp_path / "out", (), RecordOptions())


def test_integers_that_a_float_cannot_hold_are_refused(tmp_path):
    pixels = np.full((1, 8, 8), 16777217, np.int32)
    ew.save(tmp_path / "a.tif", pixels)
    with pytest.raises(BadInputError, match="write lists of int64"):
        export_raster(tmp_path / "a.tif", tmp_path / "out", RasterOptions((8, 8)))
    export_raster(tmp_path / "a.tif", tmp_path / "out", RasterOptions((8, 8), kind="int64"))
    import_raster(tmp_path / "out", tmp_path / "back", (), RecordOptions())
    with rasterio.open(tmp_path / "back" / "out.tif") as file:
        np.testing.assert_array_equal(file.read(), pixels)
