"""Folders of GeoTIFF pairs: paired by name, and an import is a dataset like any other."""

import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
import rasterio.shutil
from tests import exchange_world as ew

from chipmill.core.errors import AssetMismatchError, BadInputError, LabelError, RegionFileError
from chipmill.dataset.reader import iter_records, open_dataset
from chipmill.dataset.records import record_key
from chipmill.dataset.verify import verify_dataset
from chipmill.exchange.chips import (
    ImportOptions,
    LabelCodes,
    flat_image,
    left_out,
    parse_classes,
    usable,
    usable_all,
)
from chipmill.exchange.folders import export_folders, import_folders
from chipmill.exchange.origin import read_origin
from chipmill.exchange.pairs import imported_bands

OPTIONS = ImportOptions(
    date="2019-06-01", classes={2: "water", 1: "tree", 9: "water"}, ignore=(0,), bands=("r", "g", "b")
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return ew.dataset(tmp_path_factory)


@pytest.fixture(scope="module")
def exported(dataset, tmp_path_factory):
    out = tmp_path_factory.mktemp("folders") / "out"
    assert export_folders(dataset.parts[0].root, out).chips == len(dataset)
    return out


def test_a_picture_and_a_label_for_every_chip_by_its_id(dataset, exported):
    for split in ("train", "val", "test"):
        chips = {sample.chip_id: sample for sample in dataset.split(split)}
        images = {path.stem: path for path in (exported / split / "images").glob("*")} if chips else {}
        assert images.keys() == chips.keys()
        for chip_id, path in images.items():
            with (
                rasterio.open(path) as image,
                rasterio.open(exported / split / "labels" / path.name) as label,
            ):
                np.testing.assert_array_equal(np.moveaxis(image.read(), 0, 2), chips[chip_id].image)
                np.testing.assert_array_equal(label.read(1), chips[chip_id].label)
                assert (
                    image.transform == label.transform
                    and tuple(image.transform)[:6] == chips[chip_id].transform
                )
                assert (image.compression.name, label.compression.name, label.nodata) == ("lzw", "lzw", 255)
                assert image.scales == tuple(band.scale for band in dataset.manifest.bands)


def test_an_export_comes_back_as_the_dataset_that_it_was(dataset, exported, tmp_path):
    import_folders(exported, tmp_path / "back", ImportOptions())
    back = open_dataset(tmp_path / "back")
    assert sorted(back.chip_ids) == sorted(dataset.chip_ids)
    mine, theirs = ({s.chip_id: s for s in one} for one in (dataset, back))
    for chip_id, sample in mine.items():
        np.testing.assert_array_equal(sample.image, theirs[chip_id].image)
        np.testing.assert_array_equal(sample.label, theirs[chip_id].label)
        assert (sample.anchor, sample.crs, sample.transform) == theirs[chip_id][3:6]
    one, other = dataset.manifest, back.manifest
    assert (one.classes, one.slots, one.ignore, one.dtype) == (
        other.classes,
        other.slots,
        other.ignore,
        other.dtype,
    )
    assert one.counts.splits == other.counts.splits
    # its statistics are those of the original: each pixel of the ground once, exactly
    assert [band.statistics for band in one.bands] == [band.statistics for band in other.bands]
    assert (one.certificate.shared_px, one.certificate.class_px) == (0, other.certificate.class_px)
    assert (other.inputs.origin, other.certificate.kind) == ("folders", "given")


def test_an_import_is_a_dataset_like_any_other(tmp_path):
    made = {f"b{at}": ew.pair(tmp_path / "in", f"b{at}", at) for at in range(5)}
    done = import_folders(tmp_path / "in", tmp_path / "out", OPTIONS)
    assert (done.chips, done.notes) == (5, ())
    found = open_dataset(tmp_path / "out")
    assert list(found.chip_ids) == sorted(made, key=record_key)
    for sample in found:
        image, label = made[sample.chip_id]
        np.testing.assert_array_equal(np.moveaxis(sample.image, 2, 0), image)
        np.testing.assert_array_equal(sample.label, np.array([255, 1, 0], np.uint8)[label[0]])
    assert [one.chip_id for one in iter_records(tmp_path / "out", "train")] == list(found.chip_ids)
    assert verify_dataset(tmp_path / "out", data=True).problems == ()
    assert (tmp_path / "out" / "CURRENT").read_text() == "1\n"
    manifest = found.manifest
    assert [(one.name, one.values) for one in manifest.classes] == [("water", ("2", "9")), ("tree", ("1",))]
    assert (manifest.region, manifest.cell, manifest.counts.written) == (
        "in",
        ("2019-06-01", "2019-06-02"),
        5,
    )
    pixels = np.concatenate([image.reshape(3, -1) for image, _ in made.values()], axis=1).astype(np.int64)
    assert [band.statistics.sums.total for band in manifest.bands] == pixels.sum(axis=1).tolist()
    assert [band.statistics.sums.n for band in manifest.bands] == [5 * 256] * 3
    rows = pq.read_table(tmp_path / "out" / "versions" / "1" / "chips.parquet")
    assert set(rows["lattice"].to_pylist()) == {manifest.grids[0].lattice} and manifest.grids[0].origin == (
        0,
        0,
    )
    assert sorted(rows["col_off"].to_pylist()) == [50000 + 16 * at for at in range(5)]


def test_the_bytes_depend_on_the_pictures_alone(tmp_path):
    for name in ("in", "elsewhere/in"):
        for at in reversed(range(4)) if "/" in name else range(4):
            ew.pair(tmp_path / name, f"b{at}", at)
        import_folders(tmp_path / name, tmp_path / name.replace("in", "out"), OPTIONS)
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert len(files) == 7
    for path in files:
        other = tmp_path / "elsewhere" / path.relative_to(tmp_path)
        assert path.read_bytes() == other.read_bytes(), path


def test_overlapping_chips_count_their_common_ground_once_and_a_leak_is_told(tmp_path):
    image = np.arange(2 * 16 * 24, dtype=np.int16).reshape(2, 16, 24)
    for split, name, start in (("train", "a", 0), ("train", "b", 4), ("val", "c", 8)):
        part = np.ascontiguousarray(image[:, :, start : start + 16])
        where = rasterio.Affine(10, 0, 500000 + 10 * start, 0, -10, 5100000)
        for kind, pixels in (("images", part), ("labels", np.ones((1, 16, 16), np.uint8))):
            ew.save(tmp_path / "in" / split / kind / f"{name}.tif", pixels, transform=where)
    done = import_folders(
        tmp_path / "in", tmp_path / "out", ImportOptions(date="2019-01-01", classes={1: "tree"})
    )
    manifest = open_dataset(tmp_path / "out").manifest
    ground = image[:, :, :20].astype(np.int64).reshape(2, -1)
    assert [band.statistics.sums.total for band in manifest.bands] == ground.sum(axis=1).tolist()
    assert [band.statistics.sums.n for band in manifest.bands] == [16 * 20] * 2
    assert (manifest.certificate.kind, manifest.certificate.leak_px) == ("random", 16 * 12)
    assert len(done.notes) == 1 and done.notes[0].startswith("192 px")


def test_pictures_without_a_place_are_chips_without_one(tmp_path):
    for name, value in (("a", 7), ("b", 9)):
        ew.save(tmp_path / "in" / "images" / f"{name}.tif", np.full((1, 8, 8), value, np.uint8), None)
        ew.save(tmp_path / "in" / "labels" / f"{name}.tif", np.ones((1, 8, 8), np.uint8), None)
    import_folders(
        tmp_path / "in", tmp_path / "out", ImportOptions(date="2019-01-01", classes={1: "tree"}, split="test")
    )
    found = open_dataset(tmp_path / "out")
    assert {(sample.crs, sample.transform) for sample in found} == {("", (1, 0, 0, 0, 1, 0))}
    assert found.manifest.certificate is None and found.manifest.bands[0].statistics is None
    assert len(found.split("test")) == 2 and verify_dataset(tmp_path / "out", data=True).problems == ()


def test_pictures_of_other_formats_are_read_by_their_first_bytes(tmp_path):
    made = ew.pair(tmp_path / "tif", "a", 0)
    for kind in ("images", "labels"):
        (tmp_path / "in" / kind).mkdir(parents=True)
        rasterio.shutil.copy(
            tmp_path / "tif" / kind / "a.tif", tmp_path / "in" / kind / "a.png", driver="PNG"
        )
        for beside in (tmp_path / "in" / kind).glob("*.xml"):
            beside.unlink()
    import_folders(tmp_path / "in", tmp_path / "out", OPTIONS)
    (sample,) = open_dataset(tmp_path / "out")
    np.testing.assert_array_equal(np.moveaxis(sample.image, 2, 0), made[0])


def test_an_export_stays_inside_the_roots(dataset, tmp_path, monkeypatch):
    monkeypatch.setenv("CHIPMILL_ROOTS", str(tmp_path))
    with pytest.raises(RegionFileError, match=r"dataset: .*outside"):
        export_folders(dataset.parts[0].root, tmp_path / "out")


def gone(kind, *numbers):
    def change(folder):
        for number in numbers:
            (folder / kind / f"b{number}.tif").unlink()

    return change


def also(name, kind="images", **options):
    pixels = options.pop("pixels", np.zeros((3 if kind == "images" else 1, 16, 16), np.uint8))
    return lambda folder: ew.save(folder / kind / name, pixels, 1, **options)


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        (gone("labels", *range(6)), AssetMismatchError, r"6 images have no label of their name \(b0, b1, b2, b3, b4, \.\.\.\)"),
        (gone("images", 2), AssetMismatchError, r"1 labels have no image of their name \(b2\)"),
        (also("b1.tiff"), BadInputError, "have one name"),
        (also("sub/B1.tif"), AssetMismatchError, r"\(sub/B1\)"),
        (also("b1.tif", pixels=np.zeros((3, 32, 32), np.uint8)), AssetMismatchError, r"b1.tif.*expected \(1, 32, 32\)"),
        (also("b1.tif", pixels=np.zeros((2, 16, 16), np.uint8)), AssetMismatchError, "b1.tif has 2 bands, expected 3"),
        (also("b1.tif", pixels=np.zeros((3, 16, 16), np.int16)), AssetMismatchError, "int16.*expected .* uint8"),
        (also("b1.tif", "labels", pixels=np.full((1, 16, 16), 5, np.uint8)), LabelError, r"no class declares \(5\)"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named_and_nothing_is_left(tmp_path, change, error, says):
    for at in range(7):
        ew.pair(tmp_path / "in", f"b{at}", at)
    change(tmp_path / "in")
    with pytest.raises(error, match=says):
        import_folders(tmp_path / "in", tmp_path / "out", OPTIONS)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize(
    ("pixels", "says"),
    [
        (np.zeros((1, 16, 16), np.float32), "holds float32: expected integers.*chipmill convert dtype"),
        (np.zeros((1, 16, 8), np.uint8), "expected a square chip"),
    ],
)
def test_what_no_record_holds_is_refused_with_the_way_out(tmp_path, pixels, says):
    ew.save(tmp_path / "in" / "images" / "a.tif", pixels)
    ew.save(tmp_path / "in" / "labels" / "a.tif", np.ones((1, *pixels.shape[1:]), np.uint8))
    with pytest.raises(BadInputError, match=says):
        import_folders(
            tmp_path / "in", tmp_path / "out", ImportOptions(date="2019-01-01", classes={1: "tree"})
        )


def test_parts_that_count_their_pairs_from_0_are_told_apart(tmp_path):
    for at, split in enumerate(("train", "test")):
        ew.pair(tmp_path / "in" / split, "000000000", at)
    import_folders(tmp_path / "in", tmp_path / "out", OPTIONS)
    assert open_dataset(tmp_path / "out").chip_ids == ("train-000000000", "test-000000000")


def test_names_that_become_one_chip_are_refused(tmp_path):
    for at, name in enumerate(("a b", "a_b")):
        ew.pair(tmp_path / "in", name, at)
    with pytest.raises(BadInputError, match="would both be chip a_b"):
        import_folders(tmp_path / "in", tmp_path / "out", OPTIONS)


def test_what_the_caller_says_goes_before_the_file_of_an_export(dataset, exported):
    origin, image = read_origin(exported / "train"), next((exported / "train" / "images").iterdir())
    names = tuple(f"n{number}" for number in range(len(dataset.manifest.bands)))
    found = imported_bands(origin, names, image)
    assert tuple(one.name for one in found) == names
    assert [one.scale for one in found] == [band.scale for band in dataset.manifest.bands]
    with pytest.raises(BadInputError, match="1 bands are named"):
        imported_bands(origin, ("n",), image)
    label = np.array([[0, 1, 255]])
    assert LabelCodes.of(ImportOptions(ignore=(1,)), origin, exported).encode(label, "").tolist() == [
        [0, 255, 255]
    ]
    with pytest.raises(LabelError, match="label value 1 is to be ignored and names the class 'crop'"):
        LabelCodes.of(ImportOptions(classes={1: "crop"}, ignore=(0, 1)), None, exported)


def test_classes_are_never_guessed(tmp_path):
    ew.pair(tmp_path / "in", "b0", 0)
    with pytest.raises(LabelError, match="does not say what its label values mean"):
        import_folders(tmp_path / "in", tmp_path / "out", ImportOptions(date="2019-01-01"))


def test_facts_of_a_stranger_are_checked(exported, tmp_path):
    import shutil

    shutil.copytree(exported / "train", tmp_path / "in")
    facts = (tmp_path / "in" / "chipmill.json").read_text()
    for bad in (
        facts.replace("#", "javascript:"),
        facts[:-20],
        facts.replace('"schema_version": 1', '"schema_version": 9'),
    ):
        (tmp_path / "in" / "chipmill.json").write_text(bad)
        with pytest.raises(BadInputError, match="none of ours"):
            import_folders(tmp_path / "in", tmp_path / "out", ImportOptions())
    (tmp_path / "in" / "chipmill.json").write_text(facts)
    rows = (tmp_path / "in" / "chips.csv").read_text().splitlines()
    (tmp_path / "in" / "chips.csv").write_text("\n".join([rows[0], rows[1].replace("-", "/")]))
    with pytest.raises(BadInputError, match=r"chips.csv, line 2"):
        import_folders(tmp_path / "in", tmp_path / "out", ImportOptions())


def test_a_series_is_flattened_slot_by_slot_and_what_no_picture_holds_is_told(dataset):
    image = np.arange(2 * 3 * 3 * 2, dtype=np.int16).reshape(2, 3, 3, 2)
    static = np.full((3, 3, 1), 7, np.int16)
    sample = dataset[0]._replace(image=image, static=static)
    wanted = [image[0, ..., 0], image[0, ..., 1], image[1, ..., 0], image[1, ..., 1], static[..., 0]]
    np.testing.assert_array_equal(flat_image(sample), wanted)
    manifest = dataset.manifest
    assert left_out(manifest) == ()
    weight = manifest.features[0].model_copy(update={"name": "weight"})
    told = left_out(
        manifest.model_copy(update={"layout": "series", "features": (*manifest.features, weight)})
    )
    assert ["weight" in told[0], "slot by slot" in told[1]] == [True, True]


def test_small_things():
    assert parse_classes(["1=water", " 2 = Tree "]) == {1: "water", 2: "Tree"}
    for bad in (["1"], ["x=water"], ["1="], ["1=a", "1=b"]):
        with pytest.raises(BadInputError, match="class: "):
            parse_classes(bad)
    assert [usable(text, "other") for text in ("Open Water", "__", "Ä", "B2.x")] == [
        "open_water",
        "other",
        "other",
        "b2.x",
    ]
    with pytest.raises(BadInputError, match="have the same name red"):
        usable_all(["Red", "RED"], "band")
    codes = LabelCodes.of_names(["a"], [(3,)], (0,)).encode(np.array([[3.0, 0.0]]), "here")
    assert codes.tolist() == [[0, 255]] and codes.dtype == np.uint8
