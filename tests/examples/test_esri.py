"""Polygons -> chips of ArcGIS -> TFRecords: the same pixels and splits at the end, and every pair by its name."""

import numpy as np
import pytest
import rasterio
from examples.esri.make_data import CROPS, PLACE, crops

from chipmill.dataset.reader import open_dataset
from chipmill.exchange.chips import ImportOptions
from chipmill.exchange.esri import export_esri, import_esri


@pytest.fixture(scope="module")
def built(example):
    return example("esri")


@pytest.fixture(scope="module")
def tiles(built):
    export_esri(built.path, built.folder / "tiles")
    return built.folder / "tiles"


@pytest.fixture(scope="module")
def again(built, tiles):
    import_esri(tiles, built.folder / "again", ImportOptions())
    return open_dataset(built.folder / "again")


def test_labels_are_what_the_polygons_say(built):
    truth = crops()
    assert [one.name for one in built.dataset.classes] == ["no-field", *CROPS]
    assert len(built.dataset) > 10
    for chip in built.dataset:
        x, y = (
            round(chip.transform[2] - PLACE.left),
            round(PLACE.top - chip.transform[5]),
        )
        known = chip.label != 255  # beyond the area of interest nothing is known
        assert known.mean() > 0.5
        np.testing.assert_array_equal(chip.label[known], truth[y : y + 64, x : x + 64][known])


def test_arcgis_reads_classes_from_one_and_zero_is_no_data(built, tiles):
    for split in ("train", "val", "test"):
        folder = tiles / split
        pairs = [line.split() for line in (folder / "map.txt").read_text().splitlines()]
        assert len(pairs) == len(built.dataset.split(split))
        for image, label in pairs:
            with rasterio.open(folder / image.replace("\\", "/")) as raster:
                assert (raster.count, raster.shape, raster.dtypes[0]) == (3, (64, 64), "uint8")
            with rasterio.open(folder / label.replace("\\", "/")) as raster:
                assert raster.nodata == 0
                assert set(np.unique(raster.read(1))) <= {0, 1, 2, 3, 4}


def test_they_come_back_as_the_records_that_they_were(built, again):
    assert set(again.chip_ids) == set(built.dataset.chip_ids)
    for split in ("train", "val", "test"):
        ours = {one.chip_id: one for one in built.dataset.split(split)}
        for one in again.split(split):
            np.testing.assert_array_equal(one.image, ours[one.chip_id].image)
            np.testing.assert_array_equal(one.label, ours[one.chip_id].label)
            assert one.transform == ours[one.chip_id].transform
    assert again.manifest.certificate.shared_px == 0
