"""Real labels and chips of LandCoverNet through the formats of other programs; rasterio and numpy are the judges."""

import shutil

import numpy as np
import pytest
import rasterio

from chipmill.dataset.reader import open_dataset
from chipmill.dataset.verify import verify_dataset
from chipmill.exchange.chips import ImportOptions
from chipmill.exchange.dtypes import DtypeOptions, convert_dtype
from chipmill.exchange.earthengine import RecordOptions
from chipmill.exchange.earthengine_map import import_raster
from chipmill.exchange.earthengine_out import RasterOptions, export_raster
from chipmill.exchange.esri import export_esri, import_esri
from chipmill.exchange.folders import import_folders

pytestmark = pytest.mark.real
SCENE = {
    2: "dark",
    3: "shadow",
    4: "tree",
    5: "bare",
    6: "water",
    7: "other",
    8: "cloud",
    9: "thick",
    10: "cirrus",
    11: "snow",
}


def read(path):
    with rasterio.open(path) as file:
        return file.read()


@pytest.fixture(scope="module")
def landcovernet(shared_data):
    return shared_data / "landcovernet"


def test_the_class_band_of_every_label_in_one_byte(landcovernet, tmp_path):
    options = DtypeOptions("uint8", bands=(1,), nodata=0, suffix="_class", exclude=("s2_chips",))
    done = convert_dtype(landcovernet, tmp_path / "out", options)
    sources = sorted(landcovernet.glob("*/labels.tif"))
    assert done.chips == len(sources) == 24 and "did not fit" not in " ".join(done.notes)
    for path in sources:
        found = read(tmp_path / "out" / path.parent.name / "labels_class.tif")
        np.testing.assert_array_equal(found[0], read(path)[0])


@pytest.fixture(scope="module")
def pairs(landcovernet, tmp_path_factory):
    """Red, near infrared and the scene classes of two real chips, as a folder of pairs."""
    folder = tmp_path_factory.mktemp("real") / "in"
    first, second = landcovernet / "s2_chips" / "image1", landcovernet / "s2_chips" / "image2"
    chips = {
        "chip1": (first / "red.tif", first / "NIR.tif", first / "Scene Classification Layer.tif"),
        "chip2": tuple(next(second.glob(f"*_{band}_10m.tif")) for band in ("B04", "B08", "SCL")),
    }
    for name, (*bands, label) in chips.items():
        for kind in ("images", "labels"):
            (folder / kind).mkdir(parents=True, exist_ok=True)
        with rasterio.open(bands[0]) as file:
            profile = file.profile | {"count": 2, "compress": "lzw"}
        with rasterio.open(folder / "images" / f"{name}.tif", "w", **profile) as target:
            target.write(np.concatenate([read(path) for path in bands]))
        shutil.copyfile(label, folder / "labels" / f"{name}.tif")
    return folder


def test_real_pairs_become_a_dataset_and_go_on_to_esri_and_back(pairs, tmp_path):
    options = ImportOptions(date="2018-07-20", classes=SCENE, ignore=(0, 1, 255), bands=("red", "nir"))
    import_folders(pairs, tmp_path / "first", options)
    export_esri(tmp_path / "first", tmp_path / "esri")
    import_esri(tmp_path / "esri", tmp_path / "second", ImportOptions())
    assert verify_dataset(tmp_path / "second", data=True).problems == ()
    codes = {value: code for code, value in enumerate(SCENE)}
    for out in ("first", "second"):
        for sample in open_dataset(tmp_path / out):
            image = read(pairs / "images" / f"{sample.chip_id}.tif")
            label = read(pairs / "labels" / f"{sample.chip_id}.tif")[0]
            np.testing.assert_array_equal(np.moveaxis(sample.image, 2, 0), image)
            np.testing.assert_array_equal(
                sample.label, np.vectorize(lambda value: codes.get(value, 255))(label)
            )
    images = np.stack([read(path) for path in sorted((pairs / "images").iterdir())]).astype(np.int64)
    for number, band in enumerate(open_dataset(tmp_path / "second").manifest.bands):
        valid = images[:, number][images[:, number] != 0]
        assert (band.statistics.sums.n, band.statistics.sums.total) == (valid.size, int(valid.sum()))


def test_a_real_chip_is_rebuilt_from_patches_with_a_margin(pairs, tmp_path):
    export_raster(pairs / "images" / "chip2.tif", tmp_path / "ee", RasterOptions((60, 44), (16, 16)))
    import_raster(tmp_path / "ee", tmp_path / "back", (), RecordOptions())
    found, real = read(tmp_path / "back" / "ee.tif"), read(pairs / "images" / "chip2.tif")
    assert found.shape == (2, 264, 300) and found.dtype == np.float32
    np.testing.assert_array_equal(found[:, :256, :256], real)
