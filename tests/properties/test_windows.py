"""Every window that fits belongs to exactly one tile, whatever size, stride and shape of the tiling."""

import shapely
from hypothesis import given
from hypothesis import strategies as st

from chipmill.region.dataset import Chips
from chipmill.region.grid import Window, lattice_of
from chipmill.region.tiles import Tile
from chipmill.region.windows import block_of, chip_id, iter_windows, neighbours, tile_index, touched_tiles

LATTICE = lattice_of(32633, 10)
SIDE = 64
COVER = shapely.to_wkb(shapely.box(0, 0, 1, 1))


def _tile(window, lattice_tile=True):
    name = f"{window.col_off}-{window.row_off}"
    return Tile(name, LATTICE, window, name, "2019-01-01", None, lattice_tile, None, None, False, COVER)


PLACES = st.sets(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=1, max_size=12)
CHIPS = st.builds(Chips, size_px=st.integers(16, 150), stride_px=st.integers(7, 150))


@given(places=PLACES, chips=CHIPS)
def test_windows_of_a_lattice_are_all_that_fit_each_once(places, chips):
    tiles = [_tile(Window(ix * SIDE, iy * SIDE, SIDE, SIDE)) for ix, iy in sorted(places)]
    index = tile_index(tiles)
    found = [(tile, window) for tile in tiles for window in iter_windows(tile, index, chips)]
    windows = [window for _, window in found]
    assert len(set(windows)) == len(windows)
    pixels = {(x, y) for ix, iy in places for x in range(ix * SIDE, ix * SIDE + SIDE) for y in (iy * SIDE,)}
    starts = {(x, y) for x, _ in pixels for y in range(-4 * SIDE, 4 * SIDE)}
    expected = {
        (col, row)
        for col, row in starts
        if col % chips.stride_px == 0
        and row % chips.stride_px == 0
        and all(
            (x // SIDE, y // SIDE) in places
            for x in {*range(col, col + chips.size_px, SIDE), col + chips.size_px - 1}
            for y in {*range(row, row + chips.size_px, SIDE), row + chips.size_px - 1}
        )
    }
    assert {(window.col_off, window.row_off) for window in windows} == expected
    for tile, window in found:
        assert tile.window.contains(Window(window.col_off, window.row_off, 1, 1))
        reach = {tile.tile_id, *(one.tile_id for one in neighbours(tile, index, chips.size_px))}
        assert {one.tile_id for one in touched_tiles(window, tile, index)} <= reach


@given(
    width=st.integers(16, 400),
    height=st.integers(16, 400),
    chips=CHIPS,
    edge=st.sampled_from(["drop", "shift"]),
)
def test_windows_of_a_lone_tile_end_at_its_edge(width, height, chips, edge):
    chips = chips.model_copy(update={"edge": edge})
    tile = _tile(Window(5, -9, width, height), lattice_tile=False)
    windows = list(iter_windows(tile, {}, chips))
    assert all(tile.window.contains(window) for window in windows) and len(set(windows)) == len(windows)
    if width < chips.size_px or height < chips.size_px:
        assert windows == []
        return
    assert windows[0] == Window(5, -9, chips.size_px, chips.size_px)
    reached = max(window.col_end for window in windows) == tile.window.col_end
    exact = (width - chips.size_px) % chips.stride_px == 0
    assert reached if edge == "shift" else reached == exact


def test_names_of_blocks_and_chips():
    window = Window(100, -40, 64, 64)
    assert block_of(window, LATTICE, 128) == f"{LATTICE.lattice_id}_1_-1"
    assert chip_id(window, LATTICE, "2019-01-01") == f"{LATTICE.lattice_id}_100_-40_2019-01-01"
