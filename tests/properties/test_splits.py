"""Whatever the region, the blocks and the buffer: no train pixel is ever seen in validation or test, and deals stick."""

from types import SimpleNamespace

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st

from chipmill.core.errors import SplitError
from chipmill.dataset.blocks import Dealt, deal_blocks
from chipmill.dataset.certificate import held_apart
from chipmill.dataset.dealing import FREE, deal
from chipmill.dataset.places import BUFFER, KEPT, NONE, STRADDLES, TEST, TRAIN, VAL, Places
from chipmill.dataset.splits import place_windows
from chipmill.region.dataset import Splits

LATTICE = "32633-00000000"


@st.composite
def layouts(draw):
    """Windows on a lattice, some left out, with weights; blocks and buffer that need not fit to them."""
    size = draw(st.sampled_from([4, 6, 8]))
    stride = draw(st.integers(1, size))
    columns, rows = draw(st.integers(4, 9)), draw(st.integers(4, 9))
    left, top = draw(st.integers(-40, 40)), draw(st.integers(-40, 40))
    col, row = (
        axis.ravel()
        for axis in np.meshgrid(left + stride * np.arange(columns), top + stride * np.arange(rows))
    )
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    keep = rng.random(len(col)) < draw(st.sampled_from([0.5, 0.9, 1.0]))
    assume(keep.any())
    col, row = col[keep].astype(np.int64), row[keep].astype(np.int64)
    side = np.full(len(col), size)
    places = Places(np.full(len(col), LATTICE, dtype=object), col, row, side, side)
    usable = (rng.random(len(col)) < 0.9).astype(float)
    weights = np.column_stack(
        [np.ones(len(col)), usable, rng.integers(0, 30, (len(col), 3)) * usable[:, None]]
    )
    folds = draw(st.sampled_from([None, None, 2, 3]))
    rules = Splits.model_validate(
        {
            "train": 0.6, "val": 0.2, "test": 0.2, "seed": draw(st.integers(0, 99)), "folds": folds, "fold": 0,
            "block_px": 16 if draw(st.booleans()) else 20, "buffer_px": draw(st.integers(0, 12)),
        }
    )  # fmt: skip
    return places, weights, rules


def placed(places, rules, blocks):
    plan = SimpleNamespace(
        region=SimpleNamespace(dataset=SimpleNamespace(splits=rules, chips=SimpleNamespace(size_px=8))),
        tiles=lambda: (),
    )
    return place_windows(plan, places, np.full(len(places.col), NONE), blocks)


def dealt(places, weights, rules, known=None):
    try:
        return deal_blocks(places, weights, rules, known or Dealt({}, {}))
    except SplitError:
        assume(False)


def ground(places, rows):
    """The pixels of some windows, one by one."""
    return {
        (x, y)
        for at in np.flatnonzero(rows)
        for x in range(places.col[at], places.col[at] + places.width[at])
        for y in range(places.row[at], places.row[at] + places.height[at])
    }


@given(layouts())
def test_no_pixel_is_shared_and_the_buffer_is_kept(layout):
    places, weights, rules = layout
    blocks = dealt(places, weights, rules).splits
    splits, drops = placed(places, rules, blocks)
    train = ground(places, (splits == TRAIN) & (drops == KEPT))
    held = ground(places, (splits > TRAIN) & (drops == KEPT))
    assert not train & held
    for x, y in train:
        for (_, bx, by), split in blocks.items():
            if split == TRAIN:
                continue
            px = rules.block_px
            across = max(bx * px - x, x - (bx + 1) * px + 1, 0)
            down = max(by * px - y, y - (by + 1) * px + 1, 0)
            assert max(across, down) > rules.buffer_px


@given(layouts())
def test_what_is_dropped_had_to_be(layout):
    places, weights, rules = layout
    blocks = dealt(places, weights, rules).splits
    splits, drops = placed(places, rules, blocks)
    px = rules.block_px
    for at in np.flatnonzero(drops != KEPT):
        grow = rules.buffer_px if drops[at] == BUFFER else 0
        found = {
            split
            for (_, bx, by), split in blocks.items()
            if places.col[at] - grow < (bx + 1) * px and bx * px < places.col[at] + places.width[at] + grow
            and places.row[at] - grow < (by + 1) * px and by * px < places.row[at] + places.height[at] + grow
        }  # fmt: skip
        if drops[at] == BUFFER:
            assert splits[at] == TRAIN
            assert found & {VAL, TEST}
        else:
            assert drops[at] == STRADDLES
            assert splits[at] in (VAL, TEST)
            assert found - {splits[at]}


@given(layouts())
def test_the_certificate_sees_what_pixels_say(layout):
    places, weights, _ = layout
    train = weights[:, 1] > 0
    assume(train.any() and not train.all())
    shared, nearest = held_apart(places.take(train), places.take(~train))
    common = ground(places, train) & ground(places, ~train)
    assert shared == len(common)
    assert (nearest == 0) or not common


@given(layouts(), st.integers(0, 100))
def test_blocks_stick_when_the_region_grows(layout, cut):
    places, weights, rules = layout
    order = np.arange(len(places.col)) * 100 < cut * len(places.col)
    assume(order.any())
    first = dealt(places.take(order), weights[order], rules)
    second = dealt(places, weights, rules, first)
    assert first.splits.items() <= second.splits.items()
    assert first.folds.items() <= second.folds.items()
    assert deal_blocks(places, weights, rules, second) == second


@given(layouts(), st.randoms(use_true_random=False))
def test_the_deal_does_not_depend_on_the_order_of_windows(layout, random):
    places, weights, rules = layout
    order = np.arange(len(places.col))
    random.shuffle(order)
    assert dealt(places, weights, rules) == dealt(places.take(order), weights[order], rules)


@given(layouts())
def test_every_split_gets_a_usable_window(layout):
    places, weights, rules = layout
    blocks = dealt(places, weights, rules).splits
    splits, drops = placed(places, rules, blocks)
    usable = weights[:, 1] > 0
    for part in (VAL, TEST):
        assert (usable & (splits == part) & (drops == KEPT)).any()


@given(
    st.integers(3, 40), st.integers(1, 5), st.integers(0, 2**32),
    st.sampled_from([(0.7, 0.15, 0.15), (0.5, 0.5, 0.0), (1.0, 0.0, 0.0), (0.34, 0.33, 0.33)]),
)  # fmt: skip
def test_fixed_blocks_stay_and_no_part_without_share_gets_one(count, features, seed, shares):
    rng = np.random.default_rng(seed)
    weights = rng.random((count, features)) * (rng.random((count, features)) < 0.6)
    wanted = np.flatnonzero(np.array(shares) > 0)
    fixed = np.where(rng.random(count) < 0.3, rng.choice(wanted, count), FREE)
    parts = deal(weights, shares, [f"b{k}" for k in range(count)], seed % 100, fixed)
    assert set(parts) <= set(wanted)
    assert (parts[fixed != FREE] == fixed[fixed != FREE]).all()
