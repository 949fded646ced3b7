"""Shards: the pixels of the truth, the same bytes however they are made, and exact statistics."""

import hashlib

import numpy as np
import pyarrow as pa
import pytest
from tests import dataset_world as dw

from chipmill.core.store import sidecar_path
from chipmill.core.tables import CHIPS, read_table
from chipmill.core.units import Batch, unit_table
from chipmill.dataset import shards
from chipmill.dataset.framing import iter_frames
from chipmill.dataset.records import decode_example, record_key
from chipmill.dataset.statistics import BandSums, band_sums, merge, unclaimed
from chipmill.region.grid import Window


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    made = dw.planned(tmp_path_factory.mktemp("shards"))
    assert all(result.failed == () for result in made.write_shards())
    return made


def planned_windows(chain):
    rows = read_table(chain.chips.path, CHIPS).to_pylist()
    return {
        row["chip_id"]: Window(row["col_off"], row["row_off"], row["width"], row["height"])
        for row in rows
        if row["state"] == "planned"
    }


def hashes(chain):
    files = sorted(chain.plan.version.shards.iterdir())
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def sums_in_sidecars(chain):
    units = [unit for unit in dw.by_shard(chain) if unit.startswith("train-")]
    return merge([shards.shard_sums(chain.plan, chain.chips, unit, ()) for unit in units], 6)


def true_sums(chain, windows):
    """Sums over the union of windows, from the pixels of the world."""
    area = chain.world.area
    mask = unclaimed(area, windows, [])
    image = np.moveaxis(chain.image(area), -1, 0)
    return band_sums(image, [-32768] * len(image), mask)


def test_every_chip_holds_the_pixels_of_its_window(chain):
    windows = planned_windows(chain)
    found = {}
    for path in sorted(chain.plan.version.shards.glob("*.tfrecord")):
        for frame in iter_frames(path):
            sample = decode_example(frame.data, "int16")
            found[sample.chip_id] = sample
    assert found.keys() == windows.keys()
    assert len(windows) > 50
    for chip_id, window in windows.items():
        sample = found[chip_id]
        np.testing.assert_array_equal(sample.image, chain.image(window))
        np.testing.assert_array_equal(sample.label, chain.label(window))
        assert sample.crs == "EPSG:32633"
        assert sample.anchor == "2019-01-01"
        assert sample.transform == tuple(dw.stack_world.LATTICE.transform(window))[:6]


def test_histograms_of_the_index_are_those_of_the_written_labels(chain):
    rows = {row["chip_id"]: row for row in read_table(chain.chips.path, CHIPS).to_pylist()}
    for path in chain.plan.version.shards.glob("*.tfrecord"):
        for frame in iter_frames(path):
            sample = decode_example(frame.data, "int16")
            counts = np.bincount(sample.label.ravel(), minlength=256)
            assert counts[:3].tolist() == rows[sample.chip_id]["class_px"]
            assert counts[255] == rows[sample.chip_id]["ignore_px"]


def test_records_lie_in_the_order_of_their_hashes_where_the_result_says(chain):
    places = {row["chip_id"]: row for row in unit_table(chain.plan.attempt, shards.STAGE).to_pylist()}
    for unit, chips in dw.by_shard(chain).items():
        frames = list(iter_frames(chain.plan.version.shards / f"{unit}.tfrecord"))
        ids = [decode_example(frame.data, "int16").chip_id for frame in frames]
        assert ids == sorted((chip.chip_id for chip in chips), key=record_key)
        for chip_id, frame in zip(ids, frames, strict=True):
            row = places[chip_id]
            assert (row["offset"], row["length"], row["crc"]) == (frame.offset, frame.length, frame.crc)


def test_shards_are_as_large_as_planned(chain):
    for path in chain.plan.version.shards.glob("*.tfrecord"):
        assert path.stat().st_size <= dw.DATASET["shards"]["target_mb"] * 1e6


def test_another_order_of_work_gives_the_same_bytes(chain, tmp_path):
    other = dw.planned(tmp_path)
    other.write_shards(order=-1)
    assert hashes(other) == hashes(chain)


def test_each_ground_pixel_counts_once_in_the_statistics(chain):
    own = planned_windows(chain)
    train = [
        own[chip.chip_id] for unit, chips in dw.by_shard(chain).items() for chip in chips if "train" in unit
    ]
    sums = sums_in_sidecars(chain)
    assert sums == true_sums(chain, train)
    assert len({chip for chip in dw.by_shard(chain) if "train" in chip}) > 2
    assert sum(window.width * window.height for window in train) > 1.5 * sums[0].n  # they overlap


def test_statistics_without_a_lost_shard_are_those_of_the_others(chain):
    own = planned_windows(chain)
    units = sorted(unit for unit in dw.by_shard(chain) if "train" in unit)
    for lost in units:
        rest = [unit for unit in units if unit != lost]
        sums = merge([shards.shard_sums(chain.plan, chain.chips, unit, [lost]) for unit in rest], 6)
        left = [own[chip.chip_id] for unit in rest for chip in dw.by_shard(chain)[unit]]
        assert sums == true_sums(chain, left)


def test_a_good_shard_is_not_written_again(chain):
    unit = min(dw.by_shard(chain))
    path = chain.plan.version.shards / f"{unit}.tfrecord"
    result = chain.plan.version.unit(shards.STAGE, unit)
    before, rows = path.stat(), read_table(result)
    result.unlink()
    again = shards.write_shards(chain.plan, chain.chips, Batch(shards.STAGE, 0, (unit,)))
    assert again.made == (unit,)
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert read_table(result) == rows


def test_a_bad_shard_is_written_again_to_the_same_bytes(chain):
    unit = max(dw.by_shard(chain))
    path = chain.plan.version.shards / f"{unit}.tfrecord"
    good = path.read_bytes()
    path.write_bytes(good[:-1])
    again = shards.write_shards(chain.plan, chain.chips, Batch(shards.STAGE, 0, (unit,)))
    assert again.made == (unit,)
    assert path.read_bytes() == good


def test_a_missing_composite_fails_the_shard_and_nothing_stands_in_its_place(tmp_path):
    chain = dw.planned(tmp_path)
    unit, chips = min(dw.by_shard(chain).items())
    tile = chain.plan.tile(chips[0].tile_id)
    dw.stack_world.composite_of(chain.world, tile, 0).unlink()
    result = shards.write_shards(chain.plan, chain.chips, Batch(shards.STAGE, 0, (unit,)))
    assert [failure.unit for failure in result.failed] == [unit]
    assert not (chain.plan.version.shards / f"{unit}.tfrecord").exists()
    assert not sidecar_path(chain.plan.version.shards / f"{unit}.tfrecord").exists()


def test_sums_are_exact_where_floats_are_not():
    values = np.full((1, 3, 3), 32767, np.int16)
    values[0, 0, 0] = -32768
    (one,) = band_sums(values, [-32768], np.ones((3, 3), bool))
    assert one == BandSums(8, 8 * 32767, 8 * 32767**2)
    assert (one.mean, one.std) == (32767.0, 0.0)
    huge = BandSums(2**60, 2**60 * 9999, 2**60 * 9999**2 + 2**60)
    assert BandSums.of_texts(huge.texts()) == huge
    assert huge.std == 1.0


def test_no_pixel_gives_no_statistics():
    assert (BandSums().mean, BandSums().std) == (0.0, 0.0)
    assert merge([], 2) == (BandSums(), BandSums())


def test_results_have_the_columns_of_the_contract(chain):
    table = unit_table(chain.plan.attempt, shards.STAGE)
    assert table.schema.equals(shards.OFFSETS)
    assert table["crc"].type == pa.uint32()
