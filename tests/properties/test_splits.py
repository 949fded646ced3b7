"""Whatever the region, the blocks and the buffer: no train pixel is ever seen in validation or test, and deals stick."""

from types import SimpleNamespace

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st

from chipmill.core.errors import SplitError
from chipmill.dataset.block_deals import deal_blocks, deal_groups
from chipmill.dataset.blocks import Dealt
from chipmill.dataset.certificate import covered_px, held_apart, shared_px
from chipmill.dataset.dealing import FREE, deal
from chipmill.dataset.places import BUFFER, KEPT, NONE, STRADDLES, TEST, TRAIN, VAL, Places, near_reasons
from chipmill.dataset.split_kinds import by_chance
from chipmill.dataset.splits import place_groups, place_windows
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
    region = SimpleNamespace(dataset=SimpleNamespace(splits=rules, chips=None))
    return place_windows(region, (), places, np.full(len(places.col), NONE), blocks)


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


# splits that are not dealt by blocks


@st.composite
def scattered(draw):
    """Windows anywhere on two lattices, with a split or none each."""
    count = draw(st.integers(2, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    col, row = rng.integers(-40, 40, (2, count))
    width, height = rng.integers(1, 12, (2, count))
    lattice = np.array([LATTICE, "32634-00000000"], dtype=object)[rng.integers(0, 2, count)]
    return Places(lattice, col, row, width, height), rng.integers(NONE, 3, count), draw(st.integers(0, 9))


@given(scattered())
def test_windows_are_dropped_where_they_are_too_near_and_nowhere_else(scene):
    places, splits, buffer_px = scene
    drops = near_reasons(places, splits, buffer_px)

    def gap(a, b):
        across = max(
            places.col[b] - places.col[a] - places.width[a], places.col[a] - places.col[b] - places.width[b]
        )
        down = max(
            places.row[b] - places.row[a] - places.height[a], places.row[a] - places.row[b] - places.height[b]
        )
        return max(across, down)

    for at in range(len(splits)):
        gaps = {
            split: [
                gap(at, other)
                for other in range(len(splits))
                if splits[other] == split and places.lattice[other] == places.lattice[at]
            ]
            for split in (VAL, TEST)
        }
        if splits[at] == TRAIN:
            near = min([*gaps[VAL], *gaps[TEST]], default=99)
            assert drops[at] == (BUFFER if near < 0 or near < buffer_px else KEPT)
        elif splits[at] == VAL:
            assert drops[at] == (STRADDLES if min(gaps[TEST], default=99) < 0 else KEPT)
        else:
            assert drops[at] == KEPT


@given(scattered())
def test_shared_ground_is_counted_as_pixel_by_pixel(scene):
    places, splits, _ = scene
    one, other = (places.take(splits == code) for code in (TRAIN, TEST))

    def pixels(some):
        return {
            (lattice, *pixel)
            for lattice in set(some.lattice)
            for pixel in ground(
                some.take(some.lattice == lattice), np.ones((some.lattice == lattice).sum(), bool)
            )
        }

    assert shared_px(one, other) == len(pixels(one) & pixels(other))
    assert covered_px(places) == len(pixels(places))


@given(layouts(), st.integers(2, 8))
def test_groups_stay_whole_and_share_no_pixel(layout, count):
    places, weights, rules = layout
    groups = np.array([f"g{number % count}" for number in range(len(places.col))], dtype=object)
    rules = rules.model_copy(update={"by": "group", "attribute": "g"})
    try:
        blocks = deal_groups(groups.tolist(), weights, rules, Dealt({}, {})).splits
    except SplitError:
        assume(False)
    splits, drops = place_groups(places, groups, blocks, rules.buffer_px)
    assert all(len(set(splits[groups == group])) == 1 for group in set(groups))
    train, held = (ground(places, (drops == KEPT) & rows) for rows in (splits == TRAIN, splits > TRAIN))
    assert not train & held
    val, test = (ground(places, (drops == KEPT) & (splits == code)) for code in (VAL, TEST))
    assert not val & test


@given(st.lists(st.text(), unique=True, min_size=1), st.integers(0, 99))
def test_chance_does_not_see_other_chips(ids, seed):
    rules = Splits(by="random", train=0.4, val=0.3, test=0.3, seed=seed)
    together = by_chance(ids, rules)
    assert together.tolist() == [int(by_chance([one], rules)[0]) for one in ids]
