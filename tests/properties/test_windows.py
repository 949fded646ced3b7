"""Windows stay in the raster, or reach as far as the rule says, and cover what it says, whatever size, stride and tiling."""

import shapely
from hypothesis import given
from hypothesis import strategies as st

from chipmill.region.dataset import Chips
from chipmill.region.grid import Window, lattice_of
from chipmill.region.tiles import Point, Tile
from chipmill.region.windows import (
    count_windows,
    iter_windows,
    lay_windows,
    neighbours,
    reach_px,
    tile_index,
)

LATTICE = lattice_of(32633, 10)
SIDE = 64
COVER = shapely.to_wkb(shapely.box(0, 0, 1, 1))


def _tile(window, lattice_tile=True, **changes):
    name = f"{window.col_off}-{window.row_off}"
    return Tile(
        name, LATTICE, window, name, "2019-01-01", None, lattice_tile, None, None, False, COVER, **changes
    )


PLACES = st.sets(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=1, max_size=12)
EDGES = st.sampled_from(["drop", "shift", "pad"])


@st.composite
def chips_rules(draw):
    step = draw(st.integers(5, 60))
    stride = step * draw(st.integers(1, 3))
    dense = {"stride_px": step} if draw(st.booleans()) else None
    size = draw(st.integers(16, 150))
    return Chips.model_validate({"size_px": size, "stride_px": stride, "edge": draw(EDGES), "dense": dense})


def fits(col, row, size, places):
    """Every pixel of the window lies in a tile: corners and one pixel of each tile between are enough."""
    columns = {*range(col, col + size, SIDE), col + size - 1}
    rows = {*range(row, row + size, SIDE), row + size - 1}
    return all((x // SIDE, y // SIDE) in places for x in columns for y in rows)


@given(places=PLACES, chips=chips_rules())
def test_windows_of_a_lattice_are_all_that_fit_each_once(places, chips):
    tiles = [_tile(Window(ix * SIDE, iy * SIDE, SIDE, SIDE)) for ix, iy in sorted(places)]
    index = tile_index(tiles)
    laid = {tile.tile_id: lay_windows(tile, index, chips) for tile in tiles}
    found = [(tile, window) for tile in tiles for window in laid[tile.tile_id]]
    assert [window for tile in tiles for window in iter_windows(tile, index, chips)] == [
        one for _, one in found
    ]
    assert len({window for _, window in found}) == len(found) == count_windows(tiles, index, chips)
    step = chips.dense.stride_px if chips.dense else chips.stride_px
    span = range(-4 * SIDE // step * step, 4 * SIDE, step)
    expected = {(col, row) for col in span for row in span if fits(col, row, chips.size_px, places)}
    assert {(window.col_off, window.row_off) for _, window in found} == expected
    assert {window.shape for _, window in found} <= {(chips.size_px, chips.size_px)}
    for tile in tiles:
        own = list(laid[tile.tile_id])
        assert own == sorted(own, key=lambda one: (one.row_off, one.col_off))
        wide = [not (one.col_off % chips.stride_px or one.row_off % chips.stride_px) for one in own]
        assert (~laid[tile.tile_id].dense).tolist() == wide
        reach = [tile, *neighbours(tile, index, chips.size_px)]
        for other in tiles:
            touched = [one.intersection(other.window) is not None for one in own]
            assert laid[tile.tile_id].touches(other.window).tolist() == touched
            assert other in reach or not any(touched)
        for window in own:
            assert tile.window.contains(Window(window.col_off, window.row_off, 1, 1))
            assert window.col_end <= tile.window.col_end + reach_px(tile, chips)
            assert window.row_end <= tile.window.row_end + reach_px(tile, chips)


def starts_by_hand(length, chips, stride):
    """Word for word: steps from the corner; drop: while they fit; shift: and one at the edge; pad: until one reaches it."""
    size, starts, at = chips.size_px, [], 0
    while at + size <= length:
        starts.append(at)
        at += stride
    reached = starts and starts[-1] + size == length
    if chips.edge == "shift" and starts and not reached:
        starts.append(length - size)
    if chips.edge == "pad" and not reached and at < length:
        starts.append(at)
    return starts


@given(width=st.integers(16, 400), height=st.integers(16, 400), chips=chips_rules())
def test_windows_of_a_lone_tile_follow_the_edge_rule(width, height, chips):
    tile = _tile(Window(5, -9, width, height), lattice_tile=False)
    laid = lay_windows(tile, {}, chips)
    windows = list(laid)
    wide = {
        (5 + x, y - 9)
        for y in starts_by_hand(height, chips, chips.stride_px)
        for x in starts_by_hand(width, chips, chips.stride_px)
    }
    assert {
        (one.col_off, one.row_off) for one, dense in zip(windows, laid.dense, strict=True) if not dense
    } == wide
    if chips.dense is None:
        assert not laid.dense.any()
    else:
        xs, ys = (
            {*starts_by_hand(n, chips, chips.stride_px), *starts_by_hand(n, chips, chips.dense.stride_px)}
            for n in (width, height)
        )
        assert {(one.col_off, one.row_off) for one in windows} == {(5 + x, y - 9) for x in xs for y in ys}
    assert len(set(windows)) == len(windows)
    assert windows == sorted(windows, key=lambda one: (one.row_off, one.col_off))
    for window in windows:
        assert window.shape == (chips.size_px, chips.size_px)
        assert window.intersection(tile.window) is not None
        if chips.edge != "pad":
            assert tile.window.contains(window)
        assert window.col_end <= tile.window.col_end + reach_px(tile, chips)
        assert window.row_end <= tile.window.row_end + reach_px(tile, chips)


@given(width=st.integers(16, 300), height=st.integers(16, 300), size=st.integers(16, 150), data=st.data())
def test_steps_no_longer_than_a_chip_leave_no_pixel_of_a_lone_tile_out(width, height, size, data):
    stride = data.draw(st.integers(1, size))
    edge = data.draw(EDGES)
    tile = _tile(Window(0, 0, width, height), lattice_tile=False)
    windows = list(lay_windows(tile, {}, Chips(size_px=size, stride_px=stride, edge=edge)))
    seen_cols = {x for one in windows for x in range(one.col_off, one.col_end)}
    seen_rows = {y for one in windows for y in range(one.row_off, one.row_end)}
    whole = seen_cols >= set(range(width)) and seen_rows >= set(range(height))
    if edge == "pad":
        assert whole
    elif min(width, height) < size:
        assert windows == []
    elif edge == "shift":
        assert whole


@given(
    points=st.sets(st.tuples(st.integers(0, SIDE - 1), st.integers(0, SIDE - 1)), max_size=9),
    size=st.integers(16, 257),
)
def test_windows_of_points_are_centred_on_them(points, size):
    half = size // 2
    marks = tuple(Point(x + half, y + half, f"p{x}-{y}", None) for x, y in points)
    tile = _tile(Window(0, 0, SIDE, SIDE), points=marks)
    laid = lay_windows(tile, tile_index([tile]), Chips(size_px=size, stride_px=size))
    windows = list(laid)
    assert {(one.col_off + half, one.row_off + half) for one in windows} == {
        (one.col, one.row) for one in marks
    }
    assert windows == sorted(windows, key=lambda one: (one.row_off, one.col_off)) and not laid.dense.any()


def test_a_step_that_does_not_divide_neither_stretches_a_chip_nor_leaves_the_tile():
    """A 24-px step over 256 px: the seed's last window reached beyond the edge and was stretched from 112 to 128 px."""
    tile = _tile(Window(0, 0, 256, 256), lattice_tile=False)
    for edge, last in (("drop", 120), ("shift", 128)):
        windows = list(lay_windows(tile, {}, Chips(size_px=128, stride_px=24, edge=edge)))
        assert {window.shape for window in windows} == {(128, 128)}
        assert all(tile.window.contains(window) for window in windows)
        assert max(window.col_off for window in windows) == last


@given(places=PLACES, chips=chips_rules(), block_px=st.integers(16, 300))
def test_names_of_chips_and_blocks_follow_their_pixels(places, chips, block_px):
    tiles = [_tile(Window(ix * SIDE, iy * SIDE, SIDE, SIDE)) for ix, iy in sorted(places)]
    laid = lay_windows(tiles[0], tile_index(tiles), chips)
    name = LATTICE.lattice_id
    assert laid.chip_ids(LATTICE, "2019-01-01") == [
        f"{name}_{one.col_off}_{one.row_off}_2019-01-01" for one in laid
    ]
    for window, block in zip(laid, laid.blocks(LATTICE, block_px), strict=True):
        bx, by = (int(part) for part in block.removeprefix(f"{name}_").split("_"))
        place = Window(bx * block_px, by * block_px, block_px, block_px)
        half = window.width // 2
        assert place.contains(Window(window.col_off + half, window.row_off + half, 1, 1))
