"""Debris of the year of each outline, and none of the faults of the scripts that this example replaces."""

import numpy as np
import pytest
from examples.glacier_debris.make_data import REJECTED, ROLES, TILE, kinds, year_of
from examples.glacier_yearly.make_data import DEBRIS, GAP, PLACE, SIDE, composite, terrain

from chipmill.core.tables import CHIPS, TILES, read_table

OPTICAL = ("blue", "green", "red", "nir", "swir16")
SIZE, STRIDE, DENSE = 32, 16, 8
FIRST = round(PLACE.left / 30), round(-PLACE.top / 30)
SPLITS = {"train": "train", "dev": "val", "test": "test"}


@pytest.fixture(scope="module")
def built(example):
    return example("glacier_debris")


@pytest.fixture(scope="module")
def rows(built):
    found = read_table(built.version.chips, CHIPS).to_pylist()
    return [row | {"x": row["col_off"] - FIRST[0], "y": row["row_off"] - FIRST[1]} for row in found]


@pytest.fixture(scope="module")
def chips(built):
    return {chip.chip_id: chip for chip in built.dataset}


def test_each_tile_has_the_year_of_its_outline_and_of_none_the_default(built):
    for tile in read_table(built.version.tiles, TILES).to_pylist():
        row, column = map(int, tile["tile_id"].split("-")[1:])
        assert tile["split"] == SPLITS[ROLES[row][column]]
        if tile["tile_id"] == REJECTED:
            assert (tile["state"], tile["reject"]) == ("rejected", True)
        else:
            wanted = 2001 if column == 0 else 2000 + row
            assert tile["time_start"].year == wanted


def test_optical_bands_are_of_that_year_and_the_label_is_the_outline_without_clean_ice(rows, chips):
    gap = np.zeros((SIDE, SIDE), bool)
    gap[GAP] = True
    truth = np.where(gap, 255, kinds() == DEBRIS)
    assert len(chips) > 30
    for row in rows:
        if row["state"] != "written":
            continue
        part = np.s_[row["y"] : row["y"] + SIZE, row["x"] : row["x"] + SIZE]
        year = 2001 if row["x"] < TILE else int(year_of(np.array(row["y"])))
        bands = np.stack([composite(year)[name] for name in OPTICAL], axis=-1)[part].astype(int)
        bands[bands == -9999] = -32768
        chip = chips[row["chip_id"]]
        np.testing.assert_array_equal(chip.image[..., :5], bands)
        np.testing.assert_array_equal(chip.label, truth[part])


def test_slope_is_that_of_the_heights_in_hundredths_of_a_degree(built, rows, chips):
    """numpy's central differences, which Horn's weights come close to on a smooth mountain."""
    names = [one.name for one in built.dataset.bands]
    assert names[5:] == ["elevation", "slope", "aspect", "hillshade"]
    _, slope = terrain()
    scale = built.dataset.bands[6].scale
    inner = np.zeros((SIDE, SIDE), bool)
    inner[1:-1, 1:-1] = True
    for row in rows:
        if row["state"] == "written":
            part = np.s_[row["y"] : row["y"] + SIZE, row["x"] : row["x"] + SIZE]
            found = chips[row["chip_id"]].image[..., 6] * scale
            np.testing.assert_allclose(found[inner[part]], slope[part][inner[part]], atol=0.1)


def test_dense_windows_lie_where_both_classes_are_and_are_for_training_alone(rows):
    dense = [row for row in rows if row["x"] % STRIDE or row["y"] % STRIDE]
    assert all(row["x"] % DENSE == 0 and row["y"] % DENSE == 0 for row in dense)
    kept = [row for row in dense if row["state"] == "written"]
    assert len(kept) > 10
    assert {row["split"] for row in kept} == {"train"}
    share = {
        (y, x): (kinds()[y * TILE : (y + 1) * TILE, x * TILE : (x + 1) * TILE] == DEBRIS).mean()
        for y, x in np.ndindex(3, 3)
    }
    assert all(share[row["y"] // TILE, row["x"] // TILE] > 0.02 for row in kept)
    assert {row["reason"] for row in dense if row["state"] == "filtered"} >= {
        "sparse",
        "not_train",
        "rejected",
    }


def test_no_window_is_cut_short_and_every_one_is_accounted_for(built, rows, chips):
    assert {chip.image.shape for chip in chips.values()} == {(SIZE, SIZE, 9)}
    counts = built.dataset.manifest.counts
    assert counts.planned == len(rows) == counts.written + sum(counts.filtered.values())
    assert {row["reason"] for row in rows if row["tile_id"] == REJECTED} == {"rejected"}


def test_train_windows_without_debris_are_dropped_and_listed_and_every_split_has_some(built, rows, chips):
    for row in rows:
        if row["reason"] == "key_class":
            assert row["split"] == "train"
            assert row["class_px"][1] < 0.02 * sum(row["class_px"])
    certificate = built.dataset.manifest.certificate
    assert certificate.shared_px == 0
    assert all(pixels[1] > 0 for pixels in certificate.class_px.values())
