"""Selection: the order of reasons, rules that act on train alone, and shards planned to the byte."""

import dataclasses
import hashlib
import tracemalloc

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests import dataset_world as dw

from chipmill.core.errors import BadInputError, CountError, SplitError
from chipmill.core.tables import CHIPS, WINDOWS, read_table, write_table
from chipmill.core.units import load_batches
from chipmill.dataset import selection, splits
from chipmill.dataset.filters import class_matrix, key_fractions, quality_reasons, row_max, row_totals, texts
from chipmill.dataset.records import RecordSpec, record_bytes_bound
from chipmill.dataset.selection import (
    draws,
    kept_negatives,
    lacks_key,
    over_quota,
    quota_limits,
)
from chipmill.dataset.shard_plan import Candidates, candidates, plan_shards
from chipmill.region.dataset import Chips, Quota, Select

GOOD = {
    "chip_id": "c", "tile_id": "t", "lattice": "l", "anchor": "2019-01-01", "col_off": 0, "row_off": 0, "width": 16,
    "height": 16, "block": "l_0_0", "class_px": [200, 56], "ignore_px": 0, "slots": ["p1", "p2"],
    "nodata_fraction": [0.0, 0.0], "cloud_fraction": [0.0, 0.0], "valid_fraction": 1.0, "empty_slot": False,
    "failed_reason": None, "dense": False, "excluded_reason": None, "static_nodata_fraction": 0.0,
    "imagery_nodata_fraction": [],
}  # fmt: skip
BAD = {
    "rejected": {"excluded_reason": "rejected", "class_px": [], "nodata_fraction": [], "cloud_fraction": []},
    "composite_tiles": {
        "failed_reason": "composite_tiles",
        "class_px": [],
        "nodata_fraction": [],
        "cloud_fraction": [],
    },
    "empty_slot": {"empty_slot": True},
    "nodata": {"nodata_fraction": [0.0, 0.3]},
    "cloud": {"cloud_fraction": [0.6, 0.0]},
    "static_nodata": {"static_nodata_fraction": 0.5},
    "no_label": {"class_px": [0, 0], "ignore_px": 256},
}
CHIPS_RULES = Chips(
    size_px=16,
    stride_px=16,
    max_nodata_fraction=0.2,
    max_cloud_fraction=0.5,
    max_static_nodata_fraction=0.4,
)


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
    rows = table(
        {"nodata_fraction": [0.2, 0.2]}, {"cloud_fraction": [0.5, 0.5]}, {"static_nodata_fraction": 0.4}
    )
    assert quality_reasons(rows, CHIPS_RULES).tolist() == ["", "", ""]


def test_of_several_imagery_the_one_that_lacks_most_in_a_slot_is_named():
    rows = table(
        {"nodata_fraction": [0.5, 0.3], "imagery_nodata_fraction": [0.4, 0.3, 0.1, 0.3]},
        BAD["composite_tiles"],
        {"nodata_fraction": [0.5, 0.9], "imagery_nodata_fraction": [0.5, 0.0, 0.1, 0.9]},
        {},
    )
    assert quality_reasons(rows, CHIPS_RULES, ["s2", "s1"]).tolist() == [
        "nodata:s2", "composite_tiles", "nodata:s1", "",
    ]  # fmt: skip
    assert quality_reasons(rows, CHIPS_RULES, ["s2"]).tolist() == ["nodata", "composite_tiles", "nodata", ""]


def test_lists_of_any_length_are_read():
    rows = table({}, BAD["composite_tiles"], {"class_px": [1, 2], "nodata_fraction": [0.5, 0.25]})
    assert class_matrix(rows, 2).tolist() == [[200, 56], [0, 0], [1, 2]]
    assert row_max(rows["nodata_fraction"]).tolist() == [0.0, 0.0, 0.5]
    assert row_totals(rows["class_px"]).tolist() == [256.0, 0.0, 3.0]
    joined = pa.concat_tables([rows.slice(1), rows.slice(0, 1)])
    assert class_matrix(joined, 2).tolist() == [[0, 0], [1, 2], [200, 56]]
    assert row_max(joined["nodata_fraction"]).tolist() == [0.0, 0.5, 0.0]
    assert row_totals(joined["class_px"]).tolist() == [0.0, 3.0, 256.0]


def test_texts_are_shared_by_their_rows():
    found = texts(table({}, BAD["composite_tiles"], BAD["composite_tiles"]), "failed_reason")
    assert found.tolist() == [None, "composite_tiles", "composite_tiles"] and found[1] is found[2]


def test_no_window_at_all():
    assert quality_reasons(WINDOWS.empty_table(), CHIPS_RULES).tolist() == []


def test_the_key_fraction_is_of_labelled_pixels():
    counts = np.array([[3, 1], [0, 0], [0, 9]])
    assert key_fractions(counts, 1).tolist() == [0.25, 0.0, 1.0]


def ids_of(count):
    return [f"chip{number}" for number in range(count)]


def chunked(ids):
    return pa.chunked_array([pa.array(ids, pa.string())])


def test_draws_depend_on_the_id_alone_however_many_are_drawn_together(monkeypatch):
    ids = ids_of(7)
    wanted = [int(hashlib.sha256(one.encode()).hexdigest()[:16], 16) for one in ids]
    assert draws(chunked(ids)).tolist() == wanted
    monkeypatch.setattr(selection, "_DRAWN_AT_ONCE", 2)
    assert draws(pa.chunked_array([ids[:3], ids[3:]])).tolist() == wanted
    assert draws(chunked([])).tolist() == []


def test_negatives_are_kept_by_their_id_alone():
    ids = ids_of(2000)
    kept = {one for one, keeps in zip(ids, kept_negatives(chunked(ids), 0.1), strict=True) if keeps}
    more = {one for one, keeps in zip(ids, kept_negatives(chunked(ids), 0.3), strict=True) if keeps}
    assert kept < more
    assert 140 < len(kept) < 260
    assert not kept_negatives(chunked(ids), 0.0).any()
    assert kept_negatives(chunked(ids), 1.0).all()
    draw = int(hashlib.sha256(b"chip0").hexdigest()[:16], 16) / 2**64
    assert kept_negatives(chunked(ids[:1]), draw + 1e-9).all()
    assert not kept_negatives(chunked(ids[:1]), draw).any()


def test_the_key_class_is_asked_by_share_or_by_count():
    counts = np.array([[90, 10], [995, 5], [0, 9], [0, 0]])
    by_share, by_count = Select(min_key_fraction=0.05), Select(min_key_fraction=0.05, min_key_px=10)
    assert lacks_key(counts, 1, by_share).tolist() == [False, True, False, True]
    assert lacks_key(counts, 1, by_count).tolist() == [False, True, True, True]


# quotas


def test_limits_are_the_most_that_fulfil_all_quotas():
    assert quota_limits([5, 9], [None, Quota(max_chips=4)]) == [5, 4]
    assert quota_limits([30, 70], [None, Quota(max_fraction=0.4)]) == [30, 20]
    # a number first, then the share of what is left
    assert quota_limits([30, 70, 8], [None, Quota(max_fraction=0.5), Quota(max_chips=0)]) == [30, 30, 0]
    # shares are decimals: 0.29 of 100 is 29, though 0.29 * 100 is 28.999999999999996 in floats
    assert quota_limits([71, 90], [None, Quota(max_fraction=0.29)]) == [71, 29]
    # shares that cannot fill a whole leave nothing
    assert quota_limits([10, 10], [Quota(max_fraction=0.4), Quota(max_fraction=0.4)]) == [0, 0]
    assert quota_limits([0, 0], [Quota(max_fraction=0.4), None]) == [0, 0]


@given(
    numbers=st.lists(st.integers(0, 60), min_size=1, max_size=4),
    percents=st.lists(st.one_of(st.none(), st.integers(0, 100)), min_size=4, max_size=4),
)
def test_no_other_choice_of_limits_keeps_more(numbers, percents):
    quotas = [None if one is None else Quota(max_fraction=one / 100) for one in percents[: len(numbers)]]
    found = quota_limits(numbers, quotas)

    def holds(limits):
        parts = zip(limits, numbers, percents, strict=False)
        return all(
            0 <= own <= most and (percent is None or 100 * own <= percent * sum(limits))
            for own, most, percent in parts
        )

    assert holds(found)
    for at in range(len(numbers)):
        assert not holds([limit + (row == at) for row, limit in enumerate(found)])
    assert (
        not holds([min(limit + 1, most) for limit, most in zip(found, numbers, strict=True)])
        or found == numbers
    )


def test_a_chip_counts_for_the_class_it_holds_most_of_and_the_smallest_hashes_stay():
    # water is everywhere, debris is rare: a chip with a little debris counts for it all the same
    counts = np.array([[1000, 0], [1000, 0], [990, 10], [1000, 0], [1000, 0]])
    ids = ids_of(5)
    names = ["water", "debris"]
    over = over_quota(counts, chunked(ids), names, {"water": Quota(max_chips=2)})
    water = sorted(
        (one for row, one in enumerate(ids) if row != 2),
        key=lambda one: hashlib.sha256(one.encode()).digest(),
    )
    assert {one for one, lost in zip(ids, over, strict=True) if lost} == set(water[2:])
    both = {"water": Quota(max_chips=2), "debris": Quota(max_chips=0)}
    assert over_quota(counts, chunked(ids), names, both).tolist() == [*over[:2], True, *over[3:]]
    assert not over_quota(counts, chunked(ids), names, {}).any()
    assert over_quota(counts[:0], chunked([]), names, both).tolist() == []


def test_quotas_do_not_depend_on_the_order_of_windows():
    rng = np.random.default_rng(8)
    counts, ids = rng.integers(0, 300, (200, 3)), np.array(ids_of(200))
    quotas = {"a": Quota(max_chips=20), "b": Quota(max_fraction=0.25)}
    over = over_quota(counts, chunked(ids.tolist()), ["a", "b", "c"], quotas)
    order = rng.permutation(200)
    turned = over_quota(counts[order], chunked(ids[order].tolist()), ["a", "b", "c"], quotas)
    assert turned.tolist() == over[order].tolist() and 0 < over.sum() < 200


def test_a_quota_is_a_number_or_a_share():
    for values in ({}, {"max_chips": 3, "max_fraction": 0.5}):
        with pytest.raises(ValueError, match="exactly one of max_chips, max_fraction"):
            Quota.model_validate(values)


# the stage


def test_every_window_has_one_state(chain):
    rows = read_table(reselected(chain).path, CHIPS)
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
    rows = read_table(reselected(chain).path, CHIPS).to_pylist()
    assert {row["shard"] for row in rows if row["shard"]} == set(units)
    assert all(row["shard"].startswith(row["split"]) for row in rows if row["shard"])


def test_the_key_class_picks_train_chips_only(chain):
    all_rows = read_table(reselected(chain).path, CHIPS).to_pylist()
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


def test_quotas_take_train_chips_only_with_their_reason(chain):
    before = {row["chip_id"]: row for row in read_table(reselected(chain).path, CHIPS).to_pylist()}
    ref = reselected(chain, quotas={"tree": Quota(max_chips=3)})
    changed = [
        (before[row["chip_id"]], row)
        for row in read_table(ref.path, CHIPS).to_pylist()
        if row["state"] != before[row["chip_id"]]["state"]
    ]
    assert {(old["state"], old["split"], new["state"], new["reason"]) for old, new in changed} == {
        ("planned", "train", "filtered", "quota")
    }
    assert ref.kept == chain.chips.kept - len(changed)


def replaced(table, **columns):
    for name, values in columns.items():
        at = table.column_names.index(name)
        table = table.set_column(at, name, pa.array(values, table.schema.field(name).type))
    return table


def test_dense_windows_are_for_training_alone_and_what_a_rule_left_out_has_not_failed(chain):
    path = chain.plan.version.windows
    good = read_table(path, WINDOWS)
    number = good.num_rows
    excluded = ["rejected" if row % 7 == 0 else None for row in range(number)]
    failed = ["neighbour" if row % 7 == 1 else None for row in range(number)]
    dense = [row % 2 == 0 for row in range(number)]
    old = read_table(reselected(chain).path, CHIPS).to_pylist()
    try:
        write_table(
            path, replaced(good, dense=dense, excluded_reason=excluded, failed_reason=failed), WINDOWS, "g"
        )
        ref = reselected(chain)
        rows = read_table(ref.path, CHIPS).to_pylist()
    finally:
        write_table(path, good, WINDOWS, "f")
    seen = set()
    for number, (row, before) in enumerate(zip(rows, old, strict=True)):
        if number % 7 < 2:
            wanted = ("filtered", "rejected") if number % 7 == 0 else ("failed", "neighbour")
        elif dense[number] and before["split"] != "train":
            wanted = ("filtered", "not_train")
        else:
            wanted = (before["state"], before["reason"])
        assert (row["state"], row["reason"]) == wanted
        seen.add(wanted)
    assert {
        ("filtered", "not_train"),
        ("planned", ""),
        ("filtered", "rejected"),
        ("failed", "neighbour"),
    } <= seen


def test_no_python_object_is_held_per_window(chain, monkeypatch):
    """A str alone takes some 70 bytes: what more windows cost on Python's side is a few numbers each."""
    monkeypatch.setattr(selection, "_DRAWN_AT_ONCE", 256)
    path = chain.plan.version.windows
    good, dealt = read_table(path, WINDOWS), read_table(chain.splits.path, splits.SPLIT_TABLE)
    own = dataclasses.replace(chain.splits, path=chain.splits.path.with_name("many.parquet"))
    rules = {"key_class": "crop", "keep_negatives": 0.5, "quotas": {"tree": Quota(max_fraction=0.3)}}
    peaks = []
    try:
        for times in (10, 50):
            ids = [f"chip-{number}" for number in range(times * good.num_rows)]
            write_table(path, replaced(pa.concat_tables([good] * times), chip_id=ids), WINDOWS, "g")
            many = replaced(pa.concat_tables([dealt] * times), chip_id=ids)
            write_table(own.path, many, splits.SPLIT_TABLE, "g")
            del ids, many
            tracemalloc.start()
            reselected(dataclasses.replace(chain, splits=own), **rules)
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    finally:
        write_table(path, good, WINDOWS, "f")
    assert (peaks[1] - peaks[0]) / (40 * good.num_rows) < 60


def test_a_kept_window_without_a_split_is_an_error(chain):
    dealt = read_table(chain.splits.path, splits.SPLIT_TABLE)
    own = dataclasses.replace(chain.splits, path=chain.splits.path.with_name("none.parquet"))
    names = dealt["split"].to_pylist()
    first = read_table(reselected(chain).path, CHIPS)["state"].to_pylist().index("planned")
    write_table(
        own.path, replaced(dealt, split=[*names[:first], None, *names[first + 1 :]]), splits.SPLIT_TABLE, "g"
    )
    with pytest.raises(CountError, match="kept without a split"):
        selection.select_chips(chain.plan, own)


def test_rules_that_name_no_class_are_refused(chain):
    with pytest.raises(
        BadInputError, match=r"select.key_class 'ice' is no class: choose of crop, tree, water"
    ):
        reselected(chain, key_class="ice")
    with pytest.raises(BadInputError, match=r"select.quotas 'ice' is no class"):
        reselected(chain, quotas={"ice": Quota(max_chips=3)})


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


def chips_of(*rows):
    """Candidates of (tile, split, row, bytes)."""
    tiles = tuple(dict.fromkeys(tile for tile, *_ in rows))
    columns = [
        [tiles.index(row[0]) for row in rows],
        [["train", "val", "test"].index(row[1]) for row in rows],
        [row[2] for row in rows],
        [row[3] for row in rows],
    ]
    return Candidates(tiles, *(np.array(one, dtype=np.int64) for one in columns))


def shards_of(rows, target):
    planned = plan_shards(chips_of(*rows), target)
    return [planned.stems[at] for at in planned.shard]


def grid(*tiles, rows=4, size=10):
    return [(tile, split, row, size) for tile, split in tiles for row in range(rows)]


def key(name):
    return hashlib.sha256(name.encode()).hexdigest()


def test_pairs_fill_shards_in_the_order_of_their_hash():
    names = [f"t{number}" for number in range(6)]
    found = shards_of(grid(*[(name, "train") for name in names]), 100)
    of_tile = dict(zip([name for name in names for _ in range(4)], found, strict=True))
    assert [of_tile[name] for name in sorted(names, key=key)] == [
        f"train-0000{number}-of-00003" for number in (0, 0, 1, 1, 2, 2)
    ]


def test_splits_have_files_of_their_own():
    planned = plan_shards(chips_of(*grid(("a", "val"), ("a", "train"), ("b", "test"))), 1000)
    assert planned.stems == ("train-00000-of-00001", "val-00000-of-00001", "test-00000-of-00001")
    assert planned.shard.tolist() == [1] * 4 + [0] * 4 + [2] * 4


def test_a_large_pair_is_cut_between_rows():
    found = shards_of([("a", "train", row, 10) for row in range(5) for _ in range(3)], 60)
    assert [found[3 * row] for row in range(5)] == [f"train-0000{k}-of-00003" for k in (0, 0, 1, 1, 2)]
    assert all(len(set(found[3 * row : 3 * row + 3])) == 1 for row in range(5))


def test_a_row_larger_than_a_shard_stays_whole():
    found = shards_of([("a", "train", row, 50) for row in (0, 0, 1)], 60)
    assert found == ["train-00000-of-00002", "train-00000-of-00002", "train-00001-of-00002"]


def test_the_plan_does_not_depend_on_the_order_of_windows():
    chips = grid(*[(f"t{number}", "train") for number in range(9)], ("x", "val"))
    order = np.random.default_rng(3).permutation(len(chips))
    first = shards_of(chips, 70)
    assert shards_of([chips[at] for at in order], 70) == [first[at] for at in order]


def test_nothing_is_planned_for_nothing():
    planned = plan_shards(Candidates((), *[np.zeros(0, dtype=np.int64)] * 4), 100)
    assert planned.stems == () and planned.shard.tolist() == []


def by_hand(rows, target):
    """The rule word for word, one chip after the other."""
    stems, count = {}, {}
    for split in ("train", "val", "test"):
        number, filled = -1, 0
        for tile in sorted({row[0] for row in rows}, key=key):
            own = [row for row in rows if row[:2] == (tile, split)]
            pieces = [own] if sum(row[3] for row in own) <= target else []
            pieces = pieces or [
                [row for row in own if row[2] == at] for at in sorted({row[2] for row in own})
            ]
            for piece in filter(None, pieces):
                size = sum(row[3] for row in piece)
                if number < 0 or filled + size > target:
                    number, filled = number + 1, 0
                filled += size
                stems |= dict.fromkeys(piece, (split, number))
        count[split] = number + 1
    return [f"{split}-{number:05d}-of-{count[split]:05d}" for split, number in map(stems.get, rows)]


@given(
    rows=st.lists(
        st.tuples(
            st.sampled_from("abcdef"),
            st.sampled_from(["train", "val", "test"]),
            st.integers(-2, 3),
            st.integers(1, 40),
        ),
        max_size=40,
    ),
    target=st.integers(1, 120),
)
def test_shards_follow_the_rule(rows, target):
    assert shards_of(rows, target) == by_hand(rows, target)


def test_sizes_are_those_of_the_records(chain):
    windows = read_table(chain.plan.version.windows, WINDOWS)
    crs = {tile.tile_id: tile.crs for tile in chain.plan.tiles()}
    windows = windows.set_column(
        0, "chip_id", pa.array([f"{'x' * (row % 200)}" for row in range(windows.num_rows)])
    )
    found = candidates(chain.plan.region, windows, np.zeros(windows.num_rows, dtype=np.int64), crs)
    spec = RecordSpec("int16", bands=("b",) * 6, size_px=32)
    assert found.size_bytes.tolist() == [
        record_bytes_bound(spec, row["chip_id"], row["anchor"], "EPSG:32633") for row in windows.to_pylist()
    ]
    assert [found.tiles[at] for at in found.tile] == windows["tile_id"].to_pylist()
    assert found.row_off.tolist() == windows["row_off"].to_pylist()
