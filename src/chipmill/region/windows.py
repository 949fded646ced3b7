"""Where windows lie: pure integer geometry, known before a pixel is read.

Windows of lattice tiles start at multiples of the stride of the lattice and lie wholly in the union of tiles; those of
a tile without neighbours start at the tile's corner and end at its edge by the rule ``edge``; those of points are
centred on them. A tile's windows are columns, so that there is no object per window where there are millions.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from chipmill.region.dataset import Chips
from chipmill.region.grid import Lattice, Window
from chipmill.region.points import point_windows
from chipmill.region.tiles import Tile

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    type Ints = NDArray[np.int64]
    type Bools = NDArray[np.bool_]

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


def block_name(lattice: str, bx: int, by: int) -> str:
    """Return how tables and messages name a split block: by its lattice, and its column and row among the blocks."""
    return f"{lattice}_{bx}_{by}"


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Laid:
    """The candidate windows of a tile, one entry per window in each column, by row, then column."""

    col: "Ints"
    """First column on the lattice."""
    row: "Ints"
    """First row on the lattice."""
    dense: "Bools"
    """True for those that ``chips.dense`` adds to the others."""
    size_px: int
    """Side of each window."""

    def __len__(self) -> int:
        return len(self.col)

    def __iter__(self) -> Iterator[Window]:
        for col, row in zip(self.col.tolist(), self.row.tolist(), strict=True):
            yield Window(col, row, self.size_px, self.size_px)

    def chip_ids(self, lattice: Lattice, anchor: str) -> list[str]:
        """Return ``<lattice>_<col>_<row>_<anchor>`` of each window: stable over runs, unique over places and dates."""
        name = lattice.lattice_id
        return [
            f"{name}_{col}_{row}_{anchor}"
            for col, row in zip(self.col.tolist(), self.row.tolist(), strict=True)
        ]

    def blocks(self, lattice: Lattice, block_px: int) -> list[str]:
        """Return the name of the split block that holds the centre pixel of each window."""
        name, half = lattice.lattice_id, self.size_px // 2
        bx, by = (self.col + half) // block_px, (self.row + half) // block_px
        return [block_name(name, x, y) for x, y in zip(bx.tolist(), by.tolist(), strict=True)]

    def touches(self, place: Window) -> "Bools":
        """Tell which windows hold a pixel of ``place``, in lattice pixels."""
        across = (self.col < place.col_end) & (self.col + self.size_px > place.col_off)
        down = (self.row < place.row_end) & (self.row + self.size_px > place.row_off)
        return across & down


def lay_windows(tile: Tile, index: TileIndex, chips: Chips) -> Laid:
    """Return the candidate windows that belong to a tile (its pixels hold their top left one), by row, then column."""
    import numpy as np

    if tile.points is not None:
        found = list(point_windows(tile, chips.size_px))
        col = np.array([one.col_off for one in found], np.int64)
        row = np.array([one.row_off for one in found], np.int64)
        return Laid(col, row, np.zeros(len(found), bool), chips.size_px)
    lay = _lattice_starts if tile.lattice_tile else _edge_starts
    col, often_col = lay(tile.window.col_off, tile.window.width, chips)
    row, often_row = lay(tile.window.row_off, tile.window.height, chips)
    kept = np.ones((len(row), len(col)), bool)
    if tile.lattice_tile:
        kept = _covered(row, col, tile, index, chips.size_px)
    at_row, at_col = np.nonzero(kept)
    return Laid(col[at_col], row[at_row], ~(often_col[at_col] & often_row[at_row]), chips.size_px)


def iter_windows(tile: Tile, index: TileIndex, chips: Chips) -> Iterator[Window]:
    """Yield the windows of :func:`lay_windows` one by one."""
    yield from lay_windows(tile, index, chips)


def count_windows(tiles: Iterable[Tile], index: TileIndex, chips: Chips) -> int:
    """Return how many candidate windows tiles have together."""
    return sum(len(lay_windows(tile, index, chips)) for tile in tiles)


def reach_px(tile: Tile, chips: Chips) -> int:
    """Return how many pixels beyond its right and lower edges windows of a tile may reach, at most."""
    return chips.size_px if tile.lattice_tile or chips.edge == "pad" else 0


def _lattice_starts(first: int, length: int, chips: Chips) -> "tuple[Ints, Bools]":
    """Starts of windows along one side of a lattice tile, and which of them are those of the wide stride."""
    import numpy as np

    step = chips.stride_px if chips.dense is None else chips.dense.stride_px
    starts = np.arange(-(-first // step) * step, first + length, step, dtype=np.int64)
    return starts, starts % chips.stride_px == 0


def _edge_starts(first: int, length: int, chips: Chips) -> "tuple[Ints, Bools]":
    """As :func:`_lattice_starts`, along one side of a tile without neighbours."""
    import numpy as np

    own = _starts_of_stride(length, chips, chips.stride_px)
    every = own
    if chips.dense is not None:
        every = np.union1d(own, _starts_of_stride(length, chips, chips.dense.stride_px))
    return first + every, np.isin(every, own)


def _starts_of_stride(length: int, chips: Chips, stride_px: int) -> "Ints":
    import numpy as np

    last = length - chips.size_px
    if chips.edge == "pad":
        # windows go on until one reaches the edge, and each holds a pixel of the tile
        return np.arange(0, min(length, max(last, 0) + stride_px), stride_px, dtype=np.int64)
    starts = np.arange(0, last + 1, stride_px, dtype=np.int64)
    if chips.edge == "shift" and last >= 0:
        starts = np.union1d(starts, [last])
    return starts


def _covered(row: "Ints", col: "Ints", tile: Tile, index: TileIndex, size_px: int) -> "Bools":
    """Tell of the windows of a lattice tile (row, col) which lie wholly in the union of tiles."""
    import numpy as np

    side, (lattice, ix, iy) = tile.window.width, _key(tile)
    right, down = (col + size_px - 1) // side - ix, (row + size_px - 1) // side - iy
    kept = np.ones((len(row), len(col)), bool)
    for dy in range(int(down.max(initial=0)) + 1):
        for dx in range(int(right.max(initial=0)) + 1):
            if (lattice, ix + dx, iy + dy) not in index:
                kept &= ~((down >= dy)[:, None] & (right >= dx)[None, :])
    return kept
