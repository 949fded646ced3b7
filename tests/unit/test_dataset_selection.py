"""Selection: the order of reasons, rules that act on train alone, and shards planned to the byte."""

import dataclasses
import hashlib

import numpy as np
import pyarrow as pa
import pytest
from tests import dataset_world as dw

from chipmill.core.errors import CountError, SplitError
from chipmill.core.tables import CHIPS, WINDOWS, read_table, write_table
from chipmill.core.units import load_batches
from chipmill.dataset import selection, splits
from chipmill.dataset.filters import class_matrix, quality_reasons, row_max
from chipmill.dataset.selection import Candidate, is_kept_negative, key_fractions, plan_shards
from chipmill.region.dataset import Chips, Select

GOOD = {
    "chip_id": "c", "tile_id": "t", "lattice": "l", "anchor": "2019-01-01", "col_off": 0, "row_off": 0, "width": 16,
    "height": 16, "block": "l_0_0", "class_px": [200, 56], "ignore_px": 0, "slots": ["p1", "p2"],
    "nodata_fraction": [0.0, 0.0], "cloud_fraction": [0.0, 0.0], "valid_fraction": 1.0, "empty_slot": False,
    "failed_reason": None,
}  # fmt: skip
BAD = {
    "composite_tiles": {
        "failed_reason": "composite_tiles",
        "class_px": [],
        "nodata_fraction": [],
        "cloud_fraction": [],
    },
    "empty_slot": {"empty_slot": True},
    "nodata": {"nodata_fraction": [0.0, 0.3]},
    "cloud": {"cloud_fraction": [0.6, 0.0]},
    "no_label": {"class_px": [0, 0], "ignore_px": 256},
}
CHIPS_RULES = Chips(size_px=16, stride_px=16, max_nodata_fraction=0.2, max_cloud_fraction=0.5)


def table(*rows):
    return pa.Table.from_pylist([GOOD | row for row in rows], schema=WINDOWS)


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    return dw.planned(tmp_path_factory.mktemp("selection"))


def reselected(chain, windows=None, **changes):
    """Select again with other rules; ``changes`` are fields of dataset.select."""
    dataset = chain.plan.region.dataset
    dataset = dataset.model_copy(update={"select": dataset.select.model_copy(update=changes)})
    plan = dataclasses.replace(chain.plan, region=chain.plan.region.model_copy(update={"dataset": dataset}))
    return selection.select_chips(plan, chain.splits)


# reasons


@pytest.mark.parametrize("reason", BAD)
def test_each_reason_alone(reason):
    assert quality_reasons(table(BAD[reason], {}), CHIPS_RULES).tolist() == [reason, ""]


def test_the_first_reason_that_holds_is_written_down():
    names = list(BAD)
    for first in range(1, len(names)):
        together = {}
        for name in reversed(names[first:]):
            together |= BAD[name]
        assert quality_reasons(table(together), CHIPS_RULES).tolist() == [names[first]]
    everything = {key: value for name in reversed(names) for key, value in BAD[name].items()}
    assert quality_reasons(table(everything), CHIPS_RULES).tolist() == [names[0]]


def test_a_fraction_at_the_limit_is_allowed():
    rows = table({"nodata_fraction": [0.2, 0.2]}, {"cloud_fraction": [0.5, 0.5]})
    assert quality_reasons(rows, CHIPS_RULES).tolist() == ["", ""]


def test_lists_of_any_length_are_read():
    rows = table({}, BAD["composite_tiles"], {"class_px": [1, 2], "nodata_fraction": [0.5, 0.25]})
    assert class_matrix(rows, 2).tolist() == [[200, 56], [0, 0], [1, 2]]
    assert row_max(rows["nodata_fraction"]).tolist() == [0.0, 0.0, 0.5]
    joined = pa.concat_tables([rows.slice(1), rows.slice(0, 1)])
    assert class_matrix(joined, 2).tolist() == [[0, 0], [1, 2], [200, 56]]


def test_no_window_at_all():
    assert quality_reasons(WINDOWS.empty_table(), CHIPS_RULES).tolist() == []


def test_the_key_fraction_is_of_labelled_pixels():
    counts = np.array([[3, 1], [0, 0], [0, 9]])
    assert key_fractions(counts, 1).tolist() == [0.25, 0.0, 1.0]


def test_negatives_are_kept_by_their_id_alone():
    ids = [f"chip{number}" for number in range(2000)]
    kept = {one for one in ids if is_kept_negative(one, Select(keep_negatives=0.1))}
    more = {one for one in ids if is_kept_negative(one, Select(keep_negatives=0.3))}
    assert kept < more
    assert 140 < len(kept) < 260
    assert not any(is_kept_negative(one, Select(keep_negatives=0.0)) for one in ids)
    assert all(is_kept_negative(one, Select(keep_negatives=1.0)) for one in ids)
    draw = int(hashlib.sha256(b"chip0").hexdigest()[:16], 16) / 2**64
    assert is_kept_negative("chip0", Select(keep_negatives=draw + 1e-9))
    assert not is_kept_negative("chip0", Select(keep_negatives=draw))


# the stage


def test_every_window_has_one_state(chain):
    rows = read_table(chain.chips.path, CHIPS)
    windows = read_table(chain.plan.version.windows, WINDOWS)
    assert rows.select(windows.column_names).equals(windows)
    for row in rows.to_pylist():
        assert (row["state"], bool(row["reason"]), row["shard"] is None) in {
            ("planned", False, False),
            ("filtered", True, True),
        }
    assert chain.chips.kept == rows["state"].to_pylist().count("planned")


def test_batches_hold_the_shards_in_order(chain):
    units = [unit for batch in load_batches(chain.plan.attempt, "write_shards") for unit in batch.units]
    assert units == sorted(units, key=lambda one: (["train", "val", "test"].index(one.split("-")[0]), one))
    assert len(units) == len(set(units)) == chain.chips.shards
    rows = read_table(chain.chips.path, CHIPS).to_pylist()
    assert {row["shard"] for row in rows if row["shard"]} == set(units)
    assert all(row["shard"].startswith(row["split"]) for row in rows if row["shard"])


def test_the_key_class_picks_train_chips_only(chain):
    all_rows = read_table(chain.chips.path, CHIPS).to_pylist()
    shares = {
        row["chip_id"]: row["class_px"][2] / sum(row["class_px"]) for row in all_rows if sum(row["class_px"])
    }
    limit = sorted(shares[row["chip_id"]] for row in all_rows if row["state"] == "planned")[60]
    ref = reselected(chain, key_class="crop", min_key_fraction=limit)
    rows = {row["chip_id"]: row for row in read_table(ref.path, CHIPS).to_pylist()}
    for row in all_rows:
        got = rows[row["chip_id"]]
        poor = row["state"] == "planned" and row["split"] == "train" and shares[row["chip_id"]] < limit
        assert got["reason"] == ("key_class" if poor else row["reason"])
    assert 0 < ref.kept < chain.chips.kept
    assert ref.fingerprint != chain.chips.fingerprint
    assert (
        reselected(chain, key_class="crop", min_key_fraction=limit, keep_negatives=1.0).kept
        == chain.chips.kept
    )


def test_nothing_left_for_training_is_refused_with_the_funnel(chain):
    with pytest.raises(
        SplitError,
        match=r"no chip is left for training in toy: \d+ of \d+ windows are kept, .*\(key_class \d+",
    ):
        reselected(chain, key_class="crop", min_key_fraction=1.0)


def test_two_windows_of_one_id_are_refused(chain):
    path = chain.plan.version.windows
    good = read_table(path)
    try:
        doubled = pa.concat_tables([good, good])
        write_table(path, doubled, WINDOWS, "g")
        dealt = read_table(chain.splits.path)
        own = dataclasses.replace(chain.splits, path=chain.splits.path.with_name("doubled.parquet"))
        write_table(own.path, pa.concat_tables([dealt, dealt]), splits.SPLIT_TABLE, "g")
        with pytest.raises(CountError, match="2 windows have the id"):
            selection.select_chips(chain.plan, own)
    finally:
        write_table(path, good, WINDOWS, "f")


# shards


def candidates(*tiles, rows=4, size=10):
    return [Candidate(tile, split, row, size) for tile, split in tiles for row in range(rows)]


def key(name):
    return hashlib.sha256(name.encode()).hexdigest()


def test_pairs_fill_shards_in_the_order_of_their_hash():
    names = [f"t{number}" for number in range(6)]
    found = plan_shards(candidates(*[(name, "train") for name in names]), 100)
    of_tile = dict(zip([name for name in names for _ in range(4)], found, strict=True))
    assert [of_tile[name] for name in sorted(names, key=key)] == [
        f"train-0000{number}-of-00003" for number in (0, 0, 1, 1, 2, 2)
    ]


def test_splits_have_files_of_their_own():
    found = plan_shards(candidates(("a", "train"), ("a", "val"), ("b", "test")), 1000)
    assert sorted(set(found)) == ["test-00000-of-00001", "train-00000-of-00001", "val-00000-of-00001"]


def test_a_large_pair_is_cut_between_rows():
    chips = [Candidate("a", "train", row, 10) for row in range(5) for _ in range(3)]
    found = plan_shards(chips, 60)
    assert [found[3 * row] for row in range(5)] == [f"train-0000{k}-of-00003" for k in (0, 0, 1, 1, 2)]
    assert all(len(set(found[3 * row : 3 * row + 3])) == 1 for row in range(5))


def test_a_row_larger_than_a_shard_stays_whole():
    found = plan_shards([Candidate("a", "train", row, 50) for row in (0, 0, 1)], 60)
    assert found == ["train-00000-of-00002", "train-00000-of-00002", "train-00001-of-00002"]


def test_the_plan_does_not_depend_on_the_order_of_windows():
    chips = candidates(*[(f"t{number}", "train") for number in range(9)], ("x", "val"))
    order = np.random.default_rng(3).permutation(len(chips))
    first = plan_shards(chips, 70)
    assert plan_shards([chips[at] for at in order], 70) == [first[at] for at in order]


def test_nothing_is_planned_for_nothing():
    assert plan_shards([], 100) == []
