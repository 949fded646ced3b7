"""The chips that were planned, as columns: those of a shard, and which ground others count before them.

The file to change for which chip counts a ground pixel. A worker meets every window of a region here, so there is no
object per window: 450,000 of them take about 30 MB.
"""

import dataclasses
import functools
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from chipmill.core.paths import VersionDir
from chipmill.core.tables import CHIPS, read_table
from chipmill.dataset.filters import column
from chipmill.dataset.places import SPLITS, TRAIN, Ints
from chipmill.dataset.selection import PLANNED, ChipsRef
from chipmill.dataset.shard_plan import tile_key
from chipmill.region.grid import Window
from chipmill.region.plan import load_tiles
from chipmill.region.tiles import Tile

_FAR: Final = 1 << 40
"""Beyond every pixel of a lattice."""
_PLACE: Final = ("col_off", "row_off", "width", "height")


@dataclasses.dataclass(frozen=True, slots=True)
class Chip:
    """One chip to be cut."""

    chip_id: str
    tile_id: str
    window: Window
    """In lattice pixels."""
    shard: str
    """Stem of its shard."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Planned:
    """All planned chips, in the order of windows.parquet."""

    ids: pa.ChunkedArray
    tiles: tuple[str, ...]
    shards: tuple[str, ...]
    """Stems in order, so that a smaller code is filled earlier among those of one split."""
    tile: Ints
    """Index into ``tiles``, which are in the order in which they fill shards."""
    shard: Ints
    """Index into ``shards``."""
    ground: Ints
    """Equal where chips may show the same pixels: one lattice, one date."""
    place: Ints
    """(chip, 4): column, row, width, height in lattice pixels."""
    extent: Ints
    """(tile, 4): first column and row of its pixels and those after the last: padding beyond them is no ground of its chips."""

    def chips(self, unit: str) -> list[Chip]:
        """Return the chips of a shard."""
        rows = np.flatnonzero(self.shard == self.shards.index(unit))
        ids = self.ids.take(pa.array(rows)).to_pylist()
        return [
            Chip(chip_id, self.tiles[tile], Window(*place), unit)
            for chip_id, tile, place in zip(ids, self.tile[rows], self.place[rows].tolist(), strict=True)
        ]

    def counted_before(self, unit: str, tile_id: str, lost: Collection[str] = ()) -> list[Window]:
        """Return the train windows that count ground of a tile's chips in a train shard before that shard does.

        The order is that in which shards are filled: by sha256(tile_id), then by shard. ``lost`` are shards that were
        not written and therefore count nothing.
        """
        shard, tile = self.shards.index(unit), self.tiles.index(tile_id)
        own = np.flatnonzero((self.shard == shard) & (self.tile == tile))
        corners, extents = self.place[:, :2], self.extent[self.tile]
        starts = np.maximum(corners, extents[:, :2])
        ends = np.minimum(corners + self.place[:, 2:], extents[:, 2:])
        touching = ((starts < ends[own].max(axis=0)) & (ends > starts[own].min(axis=0))).all(axis=1)
        counts = np.array([is_train(one) and one not in lost for one in self.shards])
        earlier = (self.tile < tile) | ((self.tile == tile) & (self.shard < shard))
        found = earlier & touching & (self.ground == self.ground[own[0]]) & counts[self.shard]
        return [Window(*one) for one in np.hstack([starts, ends - starts])[found].tolist()]


def is_train(unit: str) -> bool:
    """Tell whether a shard is one of the training split, by its stem."""
    return unit.startswith(f"{SPLITS[TRAIN]}-")


def planned_chips(chips: ChipsRef) -> Planned:
    """Return the planned chips; the table is read once for all shards of a worker."""
    return _planned(chips.path, chips.fingerprint)


@functools.lru_cache(maxsize=2)
def _planned(path: Path, _fingerprint: str) -> Planned:
    table = read_table(path, CHIPS, pc.field("state") == PLANNED)
    tiles, tile = _codes(table["tile_id"], tile_key)
    shards, shard = _codes(table["shard"], str)
    (_, lattice), (anchors, anchor) = (_codes(table[name], str) for name in ("lattice", "anchor"))
    return Planned(
        table["chip_id"],
        tiles,
        shards,
        tile,
        shard,
        lattice * len(anchors) + anchor,
        np.stack([column(table, name).astype(np.int64) for name in _PLACE], axis=1),
        tile_extents(load_tiles(VersionDir(path.parent.parent).tiles), tiles),
    )


def tile_extents(known: Iterable[Tile], names: Sequence[str]) -> Ints:
    """Return (tile, 4) for the tiles called ``names``: first column and row of their pixels and those after the last.

    A chip of a lattice tile reaches into the neighbours and shows their pixels: it has no end here.
    """
    found = {one.tile_id: one.window for one in known if not one.lattice_tile}
    whole = Window(-_FAR, -_FAR, 2 * _FAR, 2 * _FAR)
    windows = [found.get(name, whole) for name in names]
    ends = [(one.col_off, one.row_off, one.col_end, one.row_end) for one in windows]
    return np.array(ends, np.int64).reshape(-1, 4)


def _codes(names: pa.ChunkedArray, key: Callable[[str], str]) -> tuple[tuple[str, ...], Ints]:
    """Return the distinct names in the order of ``key``, and the place of each name among them."""
    coded = names.combine_chunks().dictionary_encode()
    known = coded.dictionary.to_pylist()
    order = sorted(range(len(known)), key=lambda at: key(known[at]))
    rank = np.empty(len(known), np.int64)
    rank[order] = np.arange(len(known))
    return tuple(known[at] for at in order), rank[np.asarray(coded.indices)]
