"""Yearly composites and terrain, pixel by pixel, and none of the faults of the scripts that this example replaces."""

import shutil

import numpy as np
import pytest
from examples.glacier_yearly.make_data import DEBRIS, GAP, NODATA, PLACE, SIDE, composite, glaciers, terrain
from tests.examples.conftest import Built, make

from chipmill.core.tables import CHIPS, read_table
from chipmill.imagery.freeze import read_items
from chipmill.report.acquisitions import acquisition_section

OPTICAL = ("blue", "green", "red", "nir", "swir16")
BANDS = (*(f"p1_{band}" for band in OPTICAL), "elevation", "slope")
FIRST = round(PLACE.left / 30), round(-PLACE.top / 30)
"""Column and row of the lattice at which the images begin."""


@pytest.fixture(scope="module")
def built(example):
    return example("glacier_yearly")


def stacked(year):
    """int16 `(y, x, band)` of the whole place as a record must hold it."""
    bands = [np.where(pixels == NODATA, -32768, pixels) for pixels in composite(year).values()]
    height, slope = (layer.astype(np.float64) for layer in terrain())
    return np.stack([*bands, np.rint(height), np.rint(slope / 0.01)], axis=-1).astype(np.int16)


def chips(built):
    """Yield (row of chips.parquet, sample, slices of the place) of each chip."""
    rows = {row["chip_id"]: row for row in read_table(built.version.chips, CHIPS).to_pylist()}
    for chip in built.dataset:
        row = rows[chip.chip_id]
        left, top = row["col_off"] - FIRST[0], row["row_off"] - FIRST[1]
        yield row, chip, np.s_[top : top + 48, left : left + 48]


def test_bands_stand_in_the_order_of_the_region_file_and_hold_the_pixels_of_their_year(built):
    assert tuple(band.name for band in built.dataset.manifest.bands) == BANDS
    assert [band.scale for band in built.dataset.manifest.bands] == [1e-4] * 5 + [1.0, 0.01]
    expected, seen = stacked(2001), 0
    for _, chip, place in chips(built):
        assert chip.image.shape == (48, 48, 7), (
            "48 does not divide the tile: no chip is cut short or stretched"
        )
        np.testing.assert_array_equal(chip.image, expected[place])
        seen += 1
    assert seen > 10


def test_slope_keeps_its_fractions_of_a_degree(built):
    degrees = np.concatenate([chip.image[:, :, -1].ravel() for _, chip, _ in chips(built)]) * 0.01
    assert len(np.unique(np.rint(degrees))) < len(np.unique(degrees)) / 10


def test_what_was_never_seen_is_ignored_and_is_no_class(built):
    gap = np.zeros((SIDE, SIDE), bool)
    gap[GAP] = True
    touched = 0
    for _, chip, place in chips(built):
        np.testing.assert_array_equal(chip.label, np.where(gap, 255, glaciers(2001))[place])
        assert (chip.image[gap[place]][:, :5] == -32768).all()
        touched += gap[place].any()
    assert touched
    assert (stacked(2001)[:, :, 2] == 1).any(), "a reflectance of nearly nothing is data"


def test_the_year_is_read_from_the_folders_name_and_not_from_a_part_of_it(built):
    (item,) = read_items(built.version.items)
    assert item.datetime.year == 2001
    (row,) = {(row["reason"], row["chosen"], tuple(row["item_ids"])) for row in built.rows}
    assert row == ("chosen", True, (item.item_id,))
    tile = built.tiles[4].tile_id
    made = built.composite(tile, "landsat", "p1")
    np.testing.assert_array_equal(made["valid_count"], (made["blue"] != -32768).astype(int))


def test_the_page_shows_the_composite_as_ready(built):
    section = acquisition_section(built.version, built.region, built.region)
    captions = {
        picture.caption for block in section.blocks if block.kind == "gallery" for (picture,) in block.groups
    }
    assert captions == {"2001-01-01, a composite that was ready"}


def test_another_year_is_another_cell_and_overwrites_nothing(built, tmp_path):
    folder = make("glacier_yearly", tmp_path)
    text = (
        (folder / "region.yaml").read_text().replace("[2001-01-01, 2002-01-01]", "[2002-01-01, 2003-01-01]")
    )
    (folder / "region.yaml").write_text(text)
    shutil.copytree(built.folder / "out", folder / "out")
    before = sorted((path, path.stat().st_mtime_ns) for path in (folder / "out").rglob("*.tfrecord"))
    other = Built(folder)
    assert not set(other.dataset.chip_ids) & set(built.dataset.chip_ids), "the id holds the year"
    for _, chip, place in chips(other):
        np.testing.assert_array_equal(chip.image, stacked(2002)[place])
    assert [pair for pair in before if pair[0].stat().st_mtime_ns != pair[1]] == []
    assert [slot.name for slot in other.dataset.manifest.slots] == ["p1"], "a model of one year maps another"


def test_training_chips_without_enough_of_the_key_class_are_listed_not_moved_away(built):
    rows = read_table(built.version.chips, CHIPS).to_pylist()
    refused = [row for row in rows if row["reason"] == "key_class"]
    assert refused
    assert {row["split"] for row in refused} == {"train"}
    assert all(row["class_px"][DEBRIS] < 0.05 * sum(row["class_px"]) for row in refused)
    kept = [row for row in rows if row["state"] == "written" and row["split"] == "train"]
    poor = [row for row in kept if row["class_px"][DEBRIS] < 0.05 * sum(row["class_px"])]
    assert len(poor) < len(refused), "about one of ten is kept all the same"
    counts = built.dataset.manifest.counts
    assert counts.filtered["key_class"] == len(refused)
    assert counts.planned == counts.written + sum(counts.filtered.values())


def test_statistics_are_those_of_the_ground_and_not_a_mean_of_means(built):
    """Each pixel under a training chip once, however many chips overlap it, and no nodata."""
    covered = np.zeros((SIDE, SIDE), bool)
    for row, _, place in chips(built):
        if row["split"] == "train":
            covered[place] = True
    valid = covered & (stacked(2001)[:, :, 0] != -32768)
    for index, band in enumerate(built.dataset.manifest.bands[:5]):
        pixels = stacked(2001)[:, :, index][valid].astype(np.float64)
        assert (band.statistics.mean, band.statistics.std) == pytest.approx(
            (pixels.mean(), pixels.std()), rel=1e-9
        )


def test_training_and_validation_share_no_pixel(built):
    assert built.dataset.manifest.certificate.shared_px == 0
    assert set(built.dataset.manifest.counts.splits) == {"train", "val", "test"}
