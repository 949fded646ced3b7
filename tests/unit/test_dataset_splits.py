"""Splits: dealing, what sticks, what is refused, and the rules at a block's edge."""

import dataclasses

import numpy as np
import pyarrow as pa
import pytest
from tests import dataset_world as dw
from tests import stack_world

from chipmill.core.errors import DamagedFileError, SplitError
from chipmill.core.store import sidecar_path
from chipmill.core.tables import BLOCKS, WINDOWS, read_table, write_table
from chipmill.dataset import splits
from chipmill.dataset.block_deals import deal_blocks
from chipmill.dataset.blocks import Dealt, read_blocks, rule_facts, write_blocks
from chipmill.dataset.dealing import FREE, deal
from chipmill.dataset.places import (
    BUFFER,
    KEPT,
    NONE,
    STRADDLES,
    TEST,
    TRAIN,
    VAL,
    Places,
    drop_reasons,
    near_ground,
)
from chipmill.region.dataset import Splits
from chipmill.region.grid import Window
from chipmill.region.plan import Plan

L = "32633-00000000"


def places(*corners, size=4):
    col, row = (np.array(axis, dtype=np.int64) for axis in zip(*corners, strict=True))
    side = np.full(len(col), size)
    return Places(np.full(len(col), L, dtype=object), col, row, side, side)


def grid(count, block_px=16):
    """One window in the middle of each of count x count blocks."""
    return places(*[(x * block_px + 2, y * block_px + 2) for y in range(count) for x in range(count)])


def even(count, classes=2):
    return np.ones((count, 2 + classes))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    world = stack_world.world(tmp_path_factory.mktemp("splits"), 4, 4, dataset=dw.DATASET)
    return world.plan, dw.index(world)[1]


@pytest.fixture
def world(made, tmp_path):
    """The plan with an output of its own, and windows that may be changed."""
    plan, windows = made
    region = plan.region.model_copy(update={"output": str(tmp_path / "out")})
    own = tmp_path / "windows.parquet"
    own.write_bytes(windows.path.read_bytes())
    return dataclasses.replace(plan, region=region), dataclasses.replace(windows, path=own)


def with_splits(plan, **changes):
    dataset = plan.region.dataset
    rules = dataset.splits.model_copy(update=changes)
    region = plan.region.model_copy(update={"dataset": dataset.model_copy(update={"splits": rules})})
    return dataclasses.replace(plan, region=region)


# dealing


def test_shares_are_met_when_blocks_are_even():
    parts = deal(even(100), (0.7, 0.15, 0.15), [f"b{k}" for k in range(100)], 8, np.full(100, FREE))
    assert np.bincount(parts).tolist() == [70, 15, 15]


def test_a_class_of_three_blocks_is_in_every_split():
    weights = np.zeros((30, 2))
    weights[:, 0] = 1
    weights[[3, 17, 22], 1] = [5, 1, 1]
    parts = deal(weights, (0.7, 0.15, 0.15), [f"b{k}" for k in range(30)], 8, np.full(30, FREE))
    assert set(parts[[3, 17, 22]]) == {TRAIN, VAL, TEST}


def test_a_class_of_one_block_is_learnt():
    weights = np.zeros((30, 2))
    weights[:, 0] = 1
    weights[11, 1] = 40
    parts = deal(weights, (0.7, 0.15, 0.15), [f"b{k}" for k in range(30)], 8, np.full(30, FREE))
    assert parts[11] == TRAIN


def test_the_seed_deals_and_the_order_of_rows_does_not():
    names = [f"b{k}" for k in range(40)]
    weights = np.random.default_rng(1).random((40, 3))
    first = deal(weights, (0.6, 0.2, 0.2), names, 8, np.full(40, FREE))
    order = np.random.default_rng(2).permutation(40)
    again = deal(weights[order], (0.6, 0.2, 0.2), [names[k] for k in order], 8, np.full(40, FREE))
    assert (first[order] == again).all()
    assert (first != deal(even(40, 1), (0.6, 0.2, 0.2), names, 9, np.full(40, FREE))).any()


def test_folds_part_all_blocks_and_do_not_depend_on_the_one_that_is_tested():
    windows, weights = grid(6), even(36)
    tested = []
    for fold in range(3):
        rules = Splits(folds=3, fold=fold, val=0.25, block_px=16, buffer_px=0)
        dealt = deal_blocks(windows, weights, rules, Dealt({}, {}))
        tested.append({block for block, split in dealt.splits.items() if split == TEST})
        counts = np.bincount(list(dealt.splits.values()))
        assert counts.tolist() == [18, 6, 12]
    assert len(set.union(*tested)) == 36
    assert sum(map(len, tested)) == 36


def test_too_few_blocks_are_refused_with_a_side_that_works():
    windows = places(*[(x, y) for x in range(0, 40, 4) for y in range(0, 40, 4)])
    rules = Splits(block_px=64, buffer_px=0)
    with pytest.raises(
        SplitError, match=r"3 blocks of 64 px .* 1 are there: set dataset.splits.block_px to (\d+)"
    ) as caught:
        deal_blocks(windows, even(100), rules, Dealt({}, {}))
    advised = int(str(caught.value).rsplit(" ", 1)[1])
    assert 4 <= advised < 64
    dealt = deal_blocks(windows, even(100), rules.model_copy(update={"block_px": advised}), Dealt({}, {}))
    assert set(dealt.splits.values()) == {TRAIN, VAL, TEST}


def test_an_area_of_one_window_is_refused_with_another_way_out():
    with pytest.raises(SplitError, match="a larger area"):
        deal_blocks(places((0, 0)), even(1), Splits(block_px=64), Dealt({}, {}))


# the rules at a block's edge; blocks of 8 px: (0, 0) is train, (1, 0) val, (2, 0) test

ROW = {(L, 0, 0): TRAIN, (L, 1, 0): VAL, (L, 2, 0): TEST}


@pytest.mark.parametrize(
    ("col", "split", "buffer_px", "reason"),
    [
        (0, TRAIN, 0, KEPT),
        (4, TRAIN, 0, KEPT),  # columns 4..7 touch block 1 and share nothing with it
        (5, TRAIN, 0, BUFFER),  # column 8 is val
        (4, TRAIN, 1, BUFFER),
        (3, TRAIN, 1, KEPT),  # one pixel between
        (2, TRAIN, 2, KEPT),
        (3, TRAIN, 2, BUFFER),
        (8, VAL, 5, KEPT),  # no buffer between val and test
        (12, VAL, 0, KEPT),
        (13, VAL, 0, STRADDLES),  # reaches into test
        (7, VAL, 0, STRADDLES),  # reaches into train
        (16, TEST, 0, KEPT),
        (22, TEST, 0, KEPT),  # beyond block 2 nobody has a split
        (15, TEST, 0, STRADDLES),
    ],
)
def test_rules_at_the_edge(col, split, buffer_px, reason):
    found = drop_reasons(places((col, 2)), np.array([split]), ROW, 8, buffer_px)
    assert found.tolist() == [reason]


def test_another_lattice_is_another_place():
    other = dataclasses.replace(places((5, 2)), lattice=np.array(["32634-00000000"], dtype=object))
    assert drop_reasons(other, np.array([TRAIN]), ROW, 8, 100).tolist() == [KEPT]


def test_blocks_left_of_the_origin_count_down():
    bx, by = places((-4, -1), (-1, -9), (0, 0)).blocks(8)
    assert (bx.tolist(), by.tolist()) == ([-1, 0, 0], [0, -1, 0])
    assert places((-8, -4), (-9, -8), (0, 0), (5, 0)).interior(8).tolist() == [True, False, True, False]


def is_near(window, px):
    ground = Places.of_windows([L], [window])
    return near_ground(places((0, 0)), np.array([True]), ground, px).tolist() == [True]


@pytest.mark.parametrize(("px", "near"), [(0, False), (3, False), (4, True)])
def test_distance_to_a_window(px, near):
    assert is_near(Window(7, 0, 2, 2), px) == near


def test_overlap_is_near_at_any_distance():
    assert is_near(Window(3, 3, 2, 2), 0)


# blocks.parquet


def test_blocks_come_back_as_they_were_written(tmp_path):
    path = tmp_path / "blocks.parquet"
    for rules in (Splits(block_px=16), Splits(block_px=16, folds=3, fold=1)):
        dealt = deal_blocks(grid(5), even(25), rules, Dealt({}, {}))
        write_blocks(path, dealt, rules, changed=True)
        assert read_blocks(path, rules) == dealt
        assert read_table(path, BLOCKS).num_rows == 25


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"block_px": 32}, "block_px was 16 and is now 32"),
        ({"seed": 9}, "seed was 8 and is now 9"),
        ({"folds": 3}, "folds was unset"),
    ],
)
def test_other_rules_are_refused(tmp_path, change, said):
    path, rules = tmp_path / "blocks.parquet", Splits(block_px=16)
    write_blocks(path, deal_blocks(grid(5), even(25), rules, Dealt({}, {})), rules, changed=True)
    good = path.read_bytes()
    with pytest.raises(
        SplitError, match=f"{said}.*choose another output, or deal anew with chipmill select --redeal"
    ):
        read_blocks(path, rules.model_copy(update=change))
    assert path.read_bytes() == good


def test_the_buffer_is_no_rule_of_the_deal():
    assert rule_facts(Splits(buffer_px=0)) == rule_facts(Splits(buffer_px=99))


def test_changed_blocks_are_refused_and_a_lost_sidecar_is_made_again(tmp_path):
    path, rules = tmp_path / "blocks.parquet", Splits(block_px=16)
    dealt = deal_blocks(grid(5), even(25), rules, Dealt({}, {}))
    write_blocks(path, dealt, rules, changed=True)
    good = path.read_bytes()
    sidecar_path(path).unlink()
    assert read_blocks(path, rules) == dealt
    write_blocks(path, dealt, rules, changed=False)
    assert sidecar_path(path).exists()
    path.write_bytes(good[:-1])
    with pytest.raises(DamagedFileError):
        read_blocks(path, rules)


def test_a_table_of_another_kind_is_refused(tmp_path):
    path = tmp_path / "blocks.parquet"
    write_table(path, BLOCKS.empty_table(), BLOCKS, "f")
    with pytest.raises(DamagedFileError, match="no table of split blocks"):
        read_blocks(path, Splits())


# the stage


def test_every_window_gets_the_split_of_its_block(world):
    plan, windows = world
    ref = splits.assign_splits(plan, windows)
    dealt = dict(
        zip(*(read_table(ref.blocks, BLOCKS)[name].to_pylist() for name in ("block", "split")), strict=True)
    )
    table, rows = read_table(windows.path, WINDOWS), read_table(ref.path, splits.SPLIT_TABLE)
    assert table["chip_id"].to_pylist() == rows["chip_id"].to_pylist()
    assert [dealt[block] for block in table["block"].to_pylist()] == rows["split"].to_pylist()
    assert set(rows["drop"].to_pylist()) == {KEPT, BUFFER, STRADDLES}
    assert ref.infeasible == ()


def test_running_again_changes_nothing(world):
    plan, windows = world
    first = splits.assign_splits(plan, windows)
    stat, bytes_ = first.blocks.stat(), first.path.read_bytes()
    assert splits.assign_splits(plan, windows) == first
    assert first.blocks.stat().st_mtime_ns == stat.st_mtime_ns
    assert first.path.read_bytes() == bytes_


def test_another_buffer_keeps_the_blocks_and_other_rules_stop(world):
    plan, windows = world
    first = splits.assign_splits(plan, windows)
    blocks = first.blocks.read_bytes()
    wider = splits.assign_splits(with_splits(plan, buffer_px=16), windows)
    assert wider.fingerprint != first.fingerprint
    assert first.blocks.read_bytes() == blocks
    with pytest.raises(SplitError, match="dealt by other rules"):
        splits.assign_splits(with_splits(plan, seed=9), windows)
    assert first.blocks.read_bytes() == blocks


def test_windows_of_failed_tiles_are_no_reason_to_stop(world):
    plan, windows = world
    table = read_table(windows.path, WINDOWS).to_pylist()
    for row in table[: len(table) // 3]:
        row.update(class_px=[], nodata_fraction=[], cloud_fraction=[], failed_reason="neighbour")
    write_table(windows.path, pa.Table.from_pylist(table, schema=WINDOWS), WINDOWS, "g")
    ref = splits.assign_splits(plan, windows)
    assert None not in read_table(ref.path)["split"].to_pylist()


def test_no_usable_window_is_said_with_its_reasons(world):
    plan, windows = world
    table = read_table(windows.path, WINDOWS).to_pylist()
    for number, row in enumerate(table):
        row.update({"empty_slot": True} if number % 2 else {"class_px": [0, 0, 0]})
    write_table(windows.path, pa.Table.from_pylist(table, schema=WINDOWS), WINDOWS, "g")
    with pytest.raises(SplitError, match=r"none of \d+ windows of toy is usable \((no_label|empty_slot) \d+"):
        splits.assign_splits(plan, windows)


def test_tiles_that_bring_their_split_keep_it_and_hold_others_off(world, monkeypatch):
    plan, windows = world
    tiles = plan.tiles()
    names = ["test", "train", "val", *["train"] * (len(tiles) - 3)]
    given = tuple(dataclasses.replace(tile, split=name) for tile, name in zip(tiles, names, strict=True))
    monkeypatch.setattr(Plan, "tiles", lambda self: given)
    ref = splits.assign_splits(plan, windows)
    assert not ref.blocks.exists()
    table, rows = read_table(windows.path, WINDOWS), read_table(ref.path)
    of_tile = {tile.tile_id: tile.split for tile in given}
    assert rows["split"].to_pylist() == [of_tile[tile_id] for tile_id in table["tile_id"].to_pylist()]
    held = [tile.window for tile in given if tile.split != "train"]
    for row, split, drop in zip(
        table.to_pylist(), rows["split"].to_pylist(), rows["drop"].to_pylist(), strict=True
    ):
        window = Window(row["col_off"], row["row_off"], row["width"], row["height"])
        if split == "train" and drop == KEPT:
            assert not any(window.padded(8).intersection(one) for one in held)


def test_a_window_without_block_has_no_split():
    assert splits.SPLIT_TABLE.field("split").nullable
    names = np.array([*("train", "val", "test"), None], dtype=object)
    assert names[np.array([NONE])].tolist() == [None]
