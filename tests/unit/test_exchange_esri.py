"""Esri Classified Tiles: what ArcGIS would make of ours, and what we make of its."""

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from tests import exchange_world as ew

from chipmill.core.errors import AssetMismatchError, AssetReadError, BadInputError, LabelError, OutputError
from chipmill.dataset.description import BandFacts
from chipmill.dataset.reader import open_dataset
from chipmill.exchange.chips import ImportOptions
from chipmill.exchange.esri import export_esri, import_esri
from chipmill.exchange.esri_files import read_emd, read_map
from chipmill.exchange.esri_tally import Tally

OPTIONS = ImportOptions(name="toy", date="2019-06-01")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return ew.dataset(tmp_path_factory)


@pytest.fixture(scope="module")
def exported(dataset, tmp_path_factory):
    out = tmp_path_factory.mktemp("esri") / "out"
    assert export_esri(dataset.parts[0].root, out).chips == len(dataset)
    return out


def as_arcgis_reads(folder: Path) -> list[tuple[np.ndarray, np.ndarray, dict[int, str]]]:
    """Repeat the rules of arcgis.learn's reader, independently of our own code; returns (image, label, classes)."""
    emd = json.loads((folder / "esri_model_definition.emd").read_text())
    stats = json.loads((folder / "esri_accumulated_stats.json").read_text())
    lines = (folder / "map.txt").read_text().splitlines()
    assert emd["MetaDataMode"] == stats["MetaDataMode"] == "Classified_Tiles"
    assert emd["ImageSpaceUsed"] in {"MAP_SPACE", "PIXEL_SPACE"} and emd["IsMultidimensional"] is False
    classes = {one["Value"]: one["Name"] for one in emd["Classes"]}
    assert all(len(one["Color"]) == 3 for one in emd["Classes"])
    classes.pop(0, None)  # it takes value 0 for NoData
    extension = lines[0].split()[1].rsplit(".", 1)[1]
    found, pixels, band_values = [], dict.fromkeys(classes, 0), []
    for image_path in sorted((folder / "images").glob("*.tif")):
        label_path = image_path.parent.parent / "labels" / f"{image_path.stem}.{extension}"
        with rasterio.open(image_path) as image, rasterio.open(label_path) as label:
            assert image.dtypes and label.count == 1 and label.dtypes == ("uint8",)
            found.append((image.read(masked=True), label.read(1), classes))
            assert (image.height, image.width) == (emd["ImageHeight"], emd["ImageWidth"])
            assert (image.width, image.height) == (stats["TileSizeX"], stats["TileSizeY"])
            assert image.count == stats["NumBands"] == len(emd["InputRastersProps"]["BandNames"])
        assert f"images\\{image_path.name}  labels\\{label_path.name} " in lines
        for value in classes:
            pixels[value] += int((found[-1][1] == value).sum())
        assert set(np.unique(found[-1][1])) <= {0, *classes}
    assert len(lines) == len(found) == stats["NumTiles"] == stats["ClassPixelStats"]["NumImagesTotal"]
    assert stats["ClassPixelStats"]["NumPixelsPerClass"] == [pixels[one["Value"]] for one in emd["Classes"]]
    per_image = [len(set(np.unique(label)) & set(classes)) for _, label, _ in found]
    spread = stats["ClassPixelStats"]["NumClassesPerImage"]
    assert (spread["Min"], spread["Max"], spread["Sum"]) == (min(per_image), max(per_image), sum(per_image))
    for band, (state, told) in enumerate(zip(stats["BandStatsState"], emd["AllTilesStats"], strict=True)):
        band_values = np.concatenate([image[band].compressed() for image, _, _ in found]).astype(np.float64)
        assert (state["Num"], state["Min"], state["Max"]) == (
            band_values.size,
            band_values.min(),
            band_values.max(),
        )
        np.testing.assert_allclose(state["M1"], band_values.mean(), rtol=1e-12)
        np.testing.assert_allclose(state["M2"], ((band_values - band_values.mean()) ** 2).sum(), rtol=1e-9)
        np.testing.assert_allclose(
            [told["Mean"], told["StdDev"]], [band_values.mean(), band_values.std()], rtol=1e-9
        )
    return found


def test_arcgis_finds_every_chip_of_every_split_in_ours(dataset, exported):
    names = [one.name for one in dataset.manifest.classes]
    for split in ("train", "val", "test"):
        chips = sorted(dataset.split(split), key=lambda sample: sample.chip_id)
        if not chips:
            assert not (exported / split).exists()
            continue
        found = as_arcgis_reads(exported / split)
        for sample, (image, label, classes) in zip(chips, found, strict=True):
            assert classes == {code + 1: name for code, name in enumerate(names)}
            np.testing.assert_array_equal(np.moveaxis(image.data, 0, 2), sample.image)
            np.testing.assert_array_equal(
                label, np.where(sample.label == 255, 0, sample.label.astype(int) + 1)
            )


def test_pictures_keep_place_nodata_and_names_and_labels_their_colours(dataset, exported):
    chips = sorted(dataset.split("train"), key=lambda sample: sample.chip_id)
    with rasterio.open(exported / "train" / "images" / "000000000.tif") as image:
        assert image.crs.to_string() == chips[0].crs and tuple(image.transform)[:6] == chips[0].transform
        assert image.descriptions == tuple(band.name for band in dataset.manifest.bands)
        assert image.nodata == dataset.manifest.bands[0].nodata and image.compression.name == "lzw"
    with rasterio.open(exported / "train" / "labels" / "000000000.tif") as label:
        color = label.colormap(1)[1]
        assert "#" + bytes(color[:3]).hex() == dataset.manifest.classes[0].color and label.nodata == 0
    text = (exported / "train" / "stats.txt").read_text().splitlines()
    assert text[0] == f"images = {len(chips)} *{len(dataset.manifest.bands)}*32*32"
    assert text[1] == f"classes = {len(dataset.manifest.classes)}" and text[2].startswith(
        "classes per image = [min"
    )
    assert len(text) == 4 + len(dataset.manifest.classes)


def test_the_figures_of_wide_integers_do_not_overflow():
    info = np.iinfo(np.int32)
    image = np.full((1, 256, 256), info.max, np.int32)
    image[0, 0, 0] = info.min
    band = BandFacts(
        name="b", kind="band", source="", slot="", dtype="int32", scale=1, offset=0, nodata=0, statistics=None
    )
    tally = Tally(1, [band])
    tally.add("a", image, np.ones((256, 256), np.uint8))
    (found,) = tally.sums
    values = image.astype(float)
    assert (found.low, found.high, found.n) == (info.min, info.max, values.size)
    np.testing.assert_allclose([found.mean, found.std], [values.mean(), values.std()], rtol=1e-9)


def test_the_same_dataset_gives_the_same_bytes(dataset, exported, tmp_path):
    export_esri(dataset.parts[0].root, tmp_path / "again")
    files = sorted(path.relative_to(exported) for path in exported.rglob("*") if path.is_file())
    assert files == sorted(
        p.relative_to(tmp_path / "again") for p in (tmp_path / "again").rglob("*") if p.is_file()
    )
    assert all((exported / one).read_bytes() == (tmp_path / "again" / one).read_bytes() for one in files)


def test_an_export_comes_back_as_the_dataset_that_it_was(dataset, exported, tmp_path):
    done = import_esri(exported, tmp_path / "back", ImportOptions())
    back = open_dataset(tmp_path / "back")
    assert done.chips == len(back) == len(dataset) and done.notes == ()
    for split in ("train", "val", "test"):
        ours = {sample.chip_id: sample for sample in dataset.split(split)}
        theirs = {sample.chip_id: sample for sample in back.split(split)}
        assert ours.keys() == theirs.keys()
        for chip_id, sample in theirs.items():
            np.testing.assert_array_equal(sample.image, ours[chip_id].image)
            np.testing.assert_array_equal(sample.label, ours[chip_id].label)
            assert (sample.anchor, sample.crs) == (ours[chip_id].anchor, ours[chip_id].crs)
            assert sample.transform == ours[chip_id].transform
    facts = [
        (one.name, one.kind, one.source, one.slot, one.scale, one.offset, one.nodata)
        for one in back.manifest.bands
    ]
    assert facts == [
        (one.name, one.kind, one.source, one.slot, one.scale, one.offset, one.nodata)
        for one in dataset.manifest.bands
    ]
    assert [one.name for one in back.manifest.classes] == [one.name for one in dataset.manifest.classes]


def test_what_arcgis_exported_is_read_by_its_own_rules(tmp_path):
    made = ew.esri(tmp_path / "arcgis")
    ew.pair(tmp_path / "arcgis", "000000099", 99)
    done = import_esri(tmp_path / "arcgis", tmp_path / "out", OPTIONS)
    assert done.notes == ("1 images of arcgis are not in map.txt (000000099.tif): left out",)
    found = open_dataset(tmp_path / "out")
    assert found.manifest.classes[0].color == "#0a14ff"
    assert [one.name for one in found.manifest.classes] == ["open_water", "for_t"]
    assert [one.name for one in found.manifest.bands] == ["b1", "b2", "b3"]
    assert {sample.chip_id for sample in found} == set(made)
    for sample in found:
        image, label = made[sample.chip_id]
        np.testing.assert_array_equal(np.moveaxis(sample.image, 2, 0), image)
        np.testing.assert_array_equal(sample.label, np.array([255, 1, 0], np.uint8)[label[0]])
        assert (sample.anchor, sample.crs) == ("2019-06-01", "EPSG:32633")


def lines(text):
    return lambda folder: (folder / "map.txt").write_text(text)


def emd(**changes):
    def change(folder):
        path = folder / "esri_model_definition.emd"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def label(at, shape=(1, 16, 16), value=1):
    return lambda folder: ew.save(folder / "labels" / "000000001.tif", np.full(shape, value, np.uint8), at)


def linked(folder):
    path = folder / "images" / "000000001.tif"
    path.unlink()
    path.symlink_to("000000000.tif")


DAMAGE = {
    "no emd": lambda folder: (folder / "esri_model_definition.emd").unlink(),
    "no stats": lambda folder: (folder / "esri_accumulated_stats.json").unlink(),
    "other mode": emd(MetaDataMode="Labeled_Tiles"),
    "no class": emd(Classes=[{"Value": 0, "Name": "NoData"}]),
    "not JSON": lambda folder: (folder / "esri_model_definition.emd").write_text("{"),
    "names differ": lines("images\\000000000.tif  labels\\000000001.tif \n"),
    "leaves the folder": lines("..\\secret.tif  labels\\secret.tif \n"),
    "absolute": lines("C:\\secret.tif  labels\\secret.tif \n"),
    "file gone": lambda folder: (folder / "labels" / "000000003.tif").unlink(),
    "undeclared value": label(1, value=7),
    "label elsewhere": label(2),
    "label of another size": label(1, (1, 16, 8)),
    "a VRT by the name of a TIFF": lambda folder: (folder / "images" / "000000001.tif").write_text(
        "<VRTDataset/>"
    ),
    "a link": linked,
}


@pytest.mark.parametrize(
    ("what", "error", "says"),
    [
        ("no emd", BadInputError, "has no esri_model_definition.emd"),
        ("no stats", BadInputError, "lacks esri_accumulated_stats.json"),
        ("other mode", BadInputError, "'Labeled_Tiles', expected 'Classified_Tiles'"),
        ("no class", BadInputError, "names no class but NoData"),
        ("not JSON", BadInputError, "is not JSON"),
        ("names differ", BadInputError, "line 1: expected two files of one name"),
        ("leaves the folder", BadInputError, "line 1"),
        ("absolute", BadInputError, "line 1"),
        ("file gone", AssetMismatchError, r"names 1 files that are not there \(000000003.tif\)"),
        ("undeclared value", LabelError, r"000000001.tif holds 1 values that no class declares \(7\)"),
        ("label elsewhere", AssetMismatchError, "lies on another grid than its image"),
        ("label of another size", AssetMismatchError, r"\(1, 16, 8\), expected \(1, 16, 16\)"),
        ("a VRT by the name of a TIFF", AssetReadError, "neither GeoTIFF, PNG nor JPEG"),
        ("a link", BadInputError, r"1 links \(000000001.tif\), and links are not followed"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_left(tmp_path, what, error, says):
    ew.esri(tmp_path / "arcgis")
    DAMAGE[what](tmp_path / "arcgis")
    with pytest.raises(error, match=says):
        import_esri(tmp_path / "arcgis", tmp_path / "out", OPTIONS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["arcgis"]


def test_without_a_date_none_is_made_up(tmp_path):
    ew.esri(tmp_path / "arcgis")
    with pytest.raises(BadInputError, match="does not say when it is from"):
        import_esri(tmp_path / "arcgis", tmp_path / "out", ImportOptions())


def test_the_readers_take_a_map_and_classes_by_themselves(tmp_path):
    ew.esri(tmp_path)
    assert [pair.name for pair in read_map(tmp_path)] == [f"{number:09d}" for number in range(4)]
    classes, bands = read_emd(tmp_path)
    assert [(one.value, one.name, one.color) for one in classes] == [
        (2, "Open Water", "#0a14ff"),
        (1, "Forêt", None),
    ]
    assert bands == ()


def test_nothing_is_overwritten(dataset, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(OutputError, match="is there already"):
        export_esri(dataset.parts[0].root, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []
