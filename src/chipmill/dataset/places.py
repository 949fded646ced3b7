"""Where windows lie among the split blocks, for whole columns at once: pure integer geometry.

A block is a square of ``block_px`` of a lattice, counted from its origin; a window belongs to the block of its centre
pixel. Distances count the pixels between two rectangles, the larger of columns and rows (Chebyshev): 0 = they touch.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from chipmill.dataset.filters import column
from chipmill.region.grid import Window

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

SPLITS: Final = ("train", "val", "test")
TRAIN, VAL, TEST = range(3)
NONE: Final = -1
"""Code of a window or block without a split."""

KEPT, BUFFER, STRADDLES, NO_SPLIT = "", "buffer", "straddles", "no_split"

Block = tuple[str, int, int]
"""Lattice id, block column, block row."""

_PAIRED: Final = (
    1 << 16
)  # rectangles whose neighbours are looked for at a time: memory does not grow with the table
_BIAS: Final = 1 << 30  # makes block numbers positive, so that a pair fits one int64


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Places:
    """Rectangles of lattice pixels, one per row of a table."""

    lattice: npt.NDArray[Any]
    """Lattice ids, str."""
    col: Ints
    row: Ints
    width: Ints
    height: Ints

    @classmethod
    def of_table(cls, windows: pa.Table) -> "Places":
        """Take the columns of WINDOWS."""
        numbers = [
            column(windows, name).astype(np.int64) for name in ("col_off", "row_off", "width", "height")
        ]
        return cls(np.array(windows["lattice"].to_pylist(), dtype=object), *numbers)

    @classmethod
    def of_windows(cls, lattices: Sequence[str], windows: Sequence[Window]) -> "Places":
        """Take windows, each on its lattice."""
        fields = ("col_off", "row_off", "width", "height")
        numbers = [np.array([getattr(one, name) for one in windows], dtype=np.int64) for name in fields]
        return cls(np.array(lattices, dtype=object), *numbers)

    def take(self, rows: Ints | Bools) -> "Places":
        """Return some of the rectangles."""
        return Places(*(getattr(self, field.name)[rows] for field in dataclasses.fields(self)))

    def blocks(self, block_px: int) -> tuple[Ints, Ints]:
        """Return (bx, by) of the block of each centre pixel."""
        return (self.col + self.width // 2) // block_px, (self.row + self.height // 2) // block_px

    def interior(self, block_px: int) -> Bools:
        """Tell which rectangles lie wholly in one block."""
        left, top = self.col // block_px, self.row // block_px
        right, bottom = (self.col + self.width - 1) // block_px, (self.row + self.height - 1) // block_px
        return np.asarray((left == right) & (top == bottom), dtype=np.bool_)


def drop_reasons(
    places: Places, splits: Ints, blocks: Mapping[Block, int], block_px: int, buffer_px: int
) -> npt.NDArray[Any]:
    """Return for each window "" or why it cannot stay in its split.

    "buffer": it is train and overlaps a val or test block or has fewer than ``buffer_px`` pixels to it.
    "straddles": it is val or test and reaches into a block of another split.
    """
    reasons = np.full(len(splits), KEPT, dtype=object)
    for lattice in np.unique(places.lattice.astype(str)):
        table = _BlockTable({(bx, by): split for (own, bx, by), split in blocks.items() if own == lattice})
        here = np.flatnonzero(places.lattice == lattice)
        train = here[splits[here] == TRAIN]
        for rows, found in table.touched(places.take(train), block_px, buffer_px):
            reasons[train[rows[found > TRAIN]]] = BUFFER
        held = here[splits[here] > TRAIN]
        for rows, found in table.touched(places.take(held), block_px, 0):
            other = (found != NONE) & (found != splits[held[rows]])
            reasons[held[rows[other]]] = STRADDLES
    return reasons


def near_reasons(places: Places, splits: Ints, buffer_px: int) -> npt.NDArray[Any]:
    """As :func:`drop_reasons`, where no block but the windows of val and test themselves are the held-out ground.

    "buffer": it is train and overlaps a val or test window or has fewer than ``buffer_px`` pixels to one.
    "straddles": it is val and overlaps a test window.
    """
    reasons = np.full(len(splits), KEPT, dtype=object)
    reasons[near_any(places, splits == TRAIN, splits > TRAIN, buffer_px)] = BUFFER
    reasons[near_any(places, splits == VAL, splits == TEST, 0)] = STRADDLES
    return reasons


def near_any(places: Places, ours: Bools, others: Bools, px: int) -> Bools:
    """Tell which of ``ours`` overlap one of ``others`` on their lattice or have fewer than ``px`` pixels to one."""
    return near_ground(places, ours, places.take(others), px)


def near_ground(places: Places, ours: Bools, ground: Places, px: int) -> Bools:
    """As :func:`near_any`, where the others are rectangles of their own."""
    import shapely

    found = np.zeros(len(ours), dtype=np.bool_)
    for lattice in sorted(set(ground.lattice.tolist())):
        tree = shapely.STRtree(_boxes(ground.take(ground.lattice == lattice), 0.0))
        rows = np.flatnonzero((places.lattice == lattice) & ours)
        for start in range(0, len(rows), _PAIRED):
            some = rows[start : start + _PAIRED]
            # corners are whole numbers: half a pixel tells "overlaps or nearer than px" from "just px away"
            near, _ = tree.query(_boxes(places.take(some), px - 0.5))
            found[some[near]] = True
    return found


def _boxes(places: Places, grow: float) -> npt.NDArray[Any]:
    import shapely

    corners = places.col - grow, places.row - grow, places.col + places.width + grow
    return np.asarray(shapely.box(*corners, places.row + places.height + grow))


class _BlockTable:
    """Splits of the blocks of one lattice, looked up for arrays of block numbers."""

    def __init__(self, blocks: Mapping[tuple[int, int], int]) -> None:
        keys = np.array([self._key(bx, by) for bx, by in blocks], dtype=np.int64)
        order = np.argsort(keys)
        self._keys = keys[order]
        self._splits = np.array(list(blocks.values()), dtype=np.int64)[order]

    @staticmethod
    def _key(bx: Any, by: Any) -> Any:
        return ((bx + _BIAS) << 31) + (by + _BIAS)

    def _look_up(self, bx: Ints, by: Ints) -> Ints:
        if not len(self._keys):
            return np.full(len(bx), NONE)
        keys = self._key(bx, by)
        at = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        return np.where(self._keys[at] == keys, self._splits[at], NONE)

    def touched(self, places: Places, block_px: int, pad_px: int) -> Iterator[tuple[Ints, Ints]]:
        """Yield (rows, split) for each block that a rectangle grown by ``pad_px`` overlaps, one offset at a time."""
        if not len(places.col):
            return
        left, top = (places.col - pad_px) // block_px, (places.row - pad_px) // block_px
        right = (places.col + places.width + pad_px - 1) // block_px
        bottom = (places.row + places.height + pad_px - 1) // block_px
        for dx in range(int((right - left).max()) + 1):
            for dy in range(int((bottom - top).max()) + 1):
                rows = np.flatnonzero((left + dx <= right) & (top + dy <= bottom))
                yield rows, self._look_up(left[rows] + dx, top[rows] + dy)
