"""Where windows lie: pure integer geometry, known before a pixel is read.

Windows of lattice tiles start at multiples of the stride of the lattice and lie wholly in the union of tiles; those of
a tile without neighbours start at the tile's corner and end at its edge by the rule ``edge``.
"""

from collections.abc import Iterator, Mapping, Sequence

from chipmill.region.dataset import Chips
from chipmill.region.grid import Lattice, Window
from chipmill.region.tiles import Tile

TileIndex = Mapping[tuple[Lattice, int, int], Tile]
"""(lattice, tile column, tile row) -> lattice tile."""


def tile_index(tiles: Sequence[Tile]) -> TileIndex:
    """Return the lattice tiles by their place, for finding neighbours."""
    return {_key(tile): tile for tile in tiles if tile.lattice_tile}


def _key(tile: Tile) -> tuple[Lattice, int, int]:
    return tile.lattice, tile.window.col_off // tile.window.width, tile.window.row_off // tile.window.height


def neighbours(tile: Tile, index: TileIndex, reach_px: int) -> tuple[Tile, ...]:
    """Return the other tiles that a window of ``reach_px`` starting in this tile can touch: right and below."""
    if not tile.lattice_tile:
        return ()
    lattice, ix, iy = _key(tile)
    steps = -(-reach_px // tile.window.width)
    places = [(dx, dy) for dy in range(steps + 1) for dx in range(steps + 1) if (dx, dy) != (0, 0)]
    return tuple(index[place] for dx, dy in places if (place := (lattice, ix + dx, iy + dy)) in index)


def iter_windows(tile: Tile, index: TileIndex, chips: Chips) -> Iterator[Window]:
    """Yield the candidate windows that belong to a tile (its pixels hold their top left one), by row, then column."""
    if tile.lattice_tile:
        yield from _lattice_windows(tile, index, chips)
        return
    rows = _edge_starts(tile.window.height, chips)
    columns = _edge_starts(tile.window.width, chips)
    for row in rows:
        for column in columns:
            place = tile.window
            yield Window(place.col_off + column, place.row_off + row, chips.size_px, chips.size_px)


def _lattice_windows(tile: Tile, index: TileIndex, chips: Chips) -> Iterator[Window]:
    size, stride, place = chips.size_px, chips.stride_px, tile.window
    for row in range(-(-place.row_off // stride) * stride, place.row_end, stride):
        for column in range(-(-place.col_off // stride) * stride, place.col_end, stride):
            window = Window(column, row, size, size)
            if covered(window, tile, index):
                yield window


def covered(window: Window, tile: Tile, index: TileIndex) -> bool:
    """Tell whether a window of a lattice tile lies wholly in the union of tiles."""
    side = tile.window.width
    columns = range(window.col_off // side, (window.col_end - 1) // side + 1)
    rows = range(window.row_off // side, (window.row_end - 1) // side + 1)
    return all((tile.lattice, ix, iy) in index for iy in rows for ix in columns)


def touched_tiles(window: Window, tile: Tile, index: TileIndex) -> tuple[Tile, ...]:
    """Return the tiles that a window of ``tile`` reads from, the tile itself among them."""
    if not tile.lattice_tile:
        return (tile,)
    side = tile.window.width
    columns = range(window.col_off // side, (window.col_end - 1) // side + 1)
    rows = range(window.row_off // side, (window.row_end - 1) // side + 1)
    return tuple(index[tile.lattice, ix, iy] for iy in rows for ix in columns)


def _edge_starts(length_px: int, chips: Chips) -> list[int]:
    """Starts of windows along one side of a tile without neighbours."""
    last = length_px - chips.size_px
    starts = list(range(0, last + 1, chips.stride_px))
    if chips.edge == "shift" and starts and starts[-1] != last:
        starts.append(last)
    return starts


def block_of(window: Window, lattice: Lattice, block_px: int) -> str:
    """Return the id ``<lattice>_<bx>_<by>`` of the split block that holds the window's centre pixel."""
    bx = (window.col_off + window.width // 2) // block_px
    by = (window.row_off + window.height // 2) // block_px
    return f"{lattice.lattice_id}_{bx}_{by}"


def chip_id(window: Window, lattice: Lattice, anchor: str) -> str:
    """Return ``<lattice>_<col>_<row>_<anchor>``: stable over runs, unique over places and dates."""
    return f"{lattice.lattice_id}_{window.col_off}_{window.row_off}_{anchor}"
