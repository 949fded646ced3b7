"""Five periods for each label chip, and none of the faults of the notebook that this example replaces."""

import datetime as dt

import numpy as np
import pytest
import rasterio
from examples.landcovernet.make_data import CHIPS, CLEAR, NO_FOURTH, SCENES, SIDE
from tests.examples.conftest import Built, make

from chipmill.core.tables import CHIPS as CHIP_TABLE
from chipmill.core.tables import TILES, read_table

PICKED = {"p1": "20180125", "p2": "20180410", "p3": "20180701", "p4": "20180910", "p5": "20181231"}
"""Day of the scene of each period, worked out by hand from the script's list."""
STARTS = ("2018-01-01", "2018-03-15", "2018-05-27", "2018-08-08", "2018-10-20", "2019-01-01")
KEYS = {"red": "B04", "green": "B03", "blue": "B02"}


@pytest.fixture(scope="module")
def built(example):
    return example("landcovernet")


def source(built, item, key):
    with rasterio.open(built.folder / "data" / "imagery" / item / f"{key}.tif") as raster:
        return raster.read(1)


def label(built, tile):
    """uint8 `(y, x)` by the rules of the region file: value - 1, 255 where there is none or the annotators disagreed."""
    with rasterio.open(built.folder / "data" / "labels" / tile / "labels.tif") as raster:
        classes, confidence = raster.read()
    return np.where((classes > 0) & (confidence >= 60), classes - 1, 255).astype(np.uint8)


def test_every_label_item_is_a_tile_on_its_own_unrounded_grid(built):
    tiles = read_table(built.version.tiles, TILES).to_pylist()
    assert {one["source_id"]: (one["epsg"], one["transform"]) for one in tiles} == {
        name: (place.epsg, list(place.transform)[:6]) for name, place in CHIPS.items()
    }
    assert {one["state"] for one in tiles} == {"done"}


def test_periods_are_cut_at_midnight_and_hold_every_instant_once(built):
    spans = {(row["slot"], row["slot_start"], row["slot_end"]) for row in built.rows}
    days = [dt.datetime.fromisoformat(day).replace(tzinfo=dt.UTC) for day in STARTS]
    assert spans == {(f"p{k}", days[k - 1], days[k]) for k in range(1, 6)}
    ranked = [name for row in built.rows for name in row["item_ids"]]
    assert len(ranked) == len(set(ranked)) == len(CHIPS) * len(SCENES) - 2
    edge = [row["slot"] for row in built.rows if row["datetime"] == days[4]]
    assert edge == ["p5"] * len(CHIPS), "a scene at the instant of the cut belongs to the later period alone"


@pytest.mark.parametrize("tile", CHIPS)
def test_each_period_has_its_one_scene(built, tile):
    expected = {slot: day for slot, day in PICKED.items() if (tile, slot) != (NO_FOURTH, "p4")}
    found = {slot: [name[-8:] for name in built.chosen(tile, slot)] for slot in PICKED}
    assert found == {slot: [expected[slot]] if slot in expected else [] for slot in PICKED}


def test_why_the_others_were_left_out(built):
    reasons = {name[-8:]: reason for name, reason in built.reasons("lcn_36nzh_01").items()}
    assert reasons["20180204"] == "beyond n_best 1", (
        "of three equal ones it is the middle date, not one past it"
    )
    assert reasons["20180930"] == "beyond n_best 1", "of two equal ones it is the earlier, the lower median"
    assert reasons["20180720"] == "no clear pixel over the tile", "although its scene has 1 % cloud"
    assert reasons["20180701"] == "chosen", "although its scene has 85 % cloud"
    assert reasons["20180601"].endswith("below 0.9"), "the cloudy second period did not loosen the third"
    assert reasons["20181231"] == "chosen", "the last day of the year is not lost"


def test_a_period_without_scene_ends_and_filters_the_windows_of_that_chip_alone(built):
    rows = read_table(built.version.chips, CHIP_TABLE).to_pylist()
    filtered = [(row["tile_id"], row["reason"]) for row in rows if row["state"] == "filtered"]
    assert filtered == [(NO_FOURTH, "empty_slot")] * 4
    counts = built.dataset.manifest.counts
    assert (counts.planned, counts.written, counts.failed) == (len(CHIPS) * 4, len(CHIPS) * 4 - 4, {})


def test_every_pixel_is_that_of_the_picked_scene_and_bright_ones_are_not_cut(built):
    rows = {row["chip_id"]: row for row in read_table(built.version.chips, CHIP_TABLE).to_pylist()}
    tiles = {one["tile_id"]: one for one in read_table(built.version.tiles, TILES).to_pylist()}
    assert [band.name for band in built.dataset.manifest.bands] == [
        f"{slot}_{band}" for slot in PICKED for band in KEYS
    ]
    brightest = 0
    for chip in built.dataset:
        row = rows[chip.chip_id]
        tile = tiles[row["tile_id"]]
        top, left = row["row_off"] - tile["row_off"], row["col_off"] - tile["col_off"]
        part = np.s_[top : top + 64, left : left + 64]
        np.testing.assert_array_equal(chip.label, label(built, row["tile_id"])[part])
        image = []
        for slot in PICKED:
            (item,) = built.chosen(row["tile_id"], slot)
            clear = source(built, item, "SCL") == CLEAR
            image += [np.where(clear, source(built, item, key).astype(int), -32768) for key in KEYS.values()]
        series = np.stack(image).reshape(len(PICKED), len(KEYS), SIDE, SIDE)
        np.testing.assert_array_equal(chip.image, np.moveaxis(series, 1, -1)[:, *part])
        assert chip.crs == f"EPSG:{tile['epsg']}"
        brightest = max(brightest, int(chip.image.max()))
    assert brightest > 9000
    assert len(built.dataset) == 20


def test_all_samples_of_a_place_share_a_split_and_train_overlaps_nothing(built):
    certificate = built.dataset.manifest.certificate
    assert certificate.shared_px == 0
    splits = {}
    for row in read_table(built.version.chips, CHIP_TABLE).to_pylist():
        splits.setdefault(row["block"], set()).add(row["split"])
    assert all(len(found) == 1 for found in splits.values())
    assert {split for found in splits.values() for split in found} == {"train", "val", "test"}


def test_one_broken_chip_is_listed_and_the_others_are_written(built, tmp_path):
    folder = make("landcovernet", tmp_path)
    broken = folder / "data" / "imagery" / "s2a_29nmg_01_20180701" / "B03.tif"
    broken.write_bytes(broken.read_bytes()[:700])
    again = Built(folder)
    assert {(one.unit, "B03.tif" in one.reason) for one in again.failed} == {("lcn_29nmg_01", True)}
    counts = again.dataset.manifest.counts
    assert counts.failed == {"composite_tiles": 4}
    assert counts.written + sum(counts.filtered.values()) + 4 == counts.planned
    rows = read_table(again.version.chips, CHIP_TABLE).to_pylist()
    assert {row["tile_id"] for row in rows if row["state"] == "failed"} == {"lcn_29nmg_01"}
    # the blocks are dealt anew without the broken chip, the pixels of the others are what they were
    written = {one.chip_id: one.image for one in again.dataset}
    assert len(written) >= 14
    assert written.keys() <= set(built.dataset.chip_ids)
    for chip in built.dataset:
        if chip.chip_id in written:
            np.testing.assert_array_equal(chip.image, written[chip.chip_id])


def test_a_second_run_adds_nothing_twice(built):
    before = built.dataset.chip_ids
    again = Built(built.folder)
    assert again.dataset.chip_ids == before
    assert len(set(before)) == len(before)
    assert [one.sha256 for one in again.dataset.manifest.shards] == [
        one.sha256 for one in built.dataset.manifest.shards
    ]
    assert SIDE == 128
