"""In which shard each chip goes, planned from sizes alone: no chip is cut for it.

The file to change for how shards are filled. Everything is done for whole columns: there is no object per window.
"""

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from chipmill.core.paths import VersionDir
from chipmill.dataset.cutting import record_spec
from chipmill.dataset.filters import column
from chipmill.dataset.places import SPLITS, Ints
from chipmill.dataset.records import record_bytes_bound
from chipmill.region.config import Region

SIZED_BY: Final = ["chip_id", "tile_id", "anchor", "row_off"]
"""Columns of WINDOWS that the plan of the shards depends on."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """The chips as far as shards are planned from them: columns with one entry per chip."""

    tiles: tuple[str, ...]
    """Ids of the tiles."""
    tile: Ints
    """Index into ``tiles``."""
    split: Ints
    """0 train, 1 val, 2 test."""
    row_off: Ints
    """First row of the window."""
    size_bytes: Ints
    """Of the record with its framing, at most."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class ShardPlan:
    """Which shards there will be, and where each chip goes."""

    stems: tuple[str, ...]
    """``<split>-00000-of-00008``: train, val, test, each by its number."""
    shard: Ints
    """Index into ``stems``, one per chip."""


def plan_shards(chips: Candidates, target_bytes: float) -> ShardPlan:
    """Return the shard of each chip; the order of the chips does not matter.

    The (tile, split) pairs go in order of sha256(tile_id) and fill shards of one split up to ``target_bytes``; a pair
    that is larger is cut between window rows, and a row is never cut.
    """
    rank = np.empty(len(chips.tiles), dtype=np.int64)
    rank[sorted(range(len(chips.tiles)), key=lambda at: tile_key(chips.tiles[at]))] = np.arange(
        len(chips.tiles)
    )
    place = rank[chips.tile]
    order = np.lexsort((chips.row_off, place, chips.split))
    split, pair, row = chips.split[order], place[order], chips.row_off[order]
    first = _changes(split, pair, row)
    sizes = np.add.reduceat(chips.size_bytes[order], first) if len(first) else first
    pairs = np.searchsorted(first, _changes(split, pair))
    stems: list[str] = []
    numbers = np.empty(len(first), dtype=np.int64)
    for code, name in enumerate(SPLITS):
        own = slice(*np.searchsorted(split[first], [code, code + 1]))
        cuts = pairs[(own.start <= pairs) & (pairs < own.stop)] - own.start
        numbers[own], count = _fill(sizes[own], cuts, target_bytes)
        numbers[own] += len(stems)
        stems += [VersionDir(Path()).shard(name, number, count).stem for number in range(count)]
    shard = np.empty(len(order), dtype=np.int64)
    shard[order] = np.repeat(numbers, np.diff(first, append=len(order)))
    return ShardPlan(tuple(stems), shard)


def _changes(*keys: Ints) -> Ints:
    """Where one of several sorted columns takes a new value, the first entry among them."""
    new = np.ones(len(keys[0]), dtype=bool)
    new[1:] = np.logical_or.reduce([key[1:] != key[:-1] for key in keys])
    return np.flatnonzero(new)


def _fill(sizes: Ints, pairs: Ints, target_bytes: float) -> tuple[Ints, int]:
    """Return the shard of each window row, given its bytes and where (tile, split) pairs begin, and how many there are."""
    numbers = np.empty(len(sizes), dtype=np.int64)
    number, filled = -1, 0.0
    for start, stop in zip(pairs, [*pairs[1:], len(sizes)], strict=False):
        whole = sizes[start:stop].sum() <= target_bytes
        for begin, end in [(start, stop)] if whole else [(at, at + 1) for at in range(start, stop)]:
            own = float(sizes[begin:end].sum())
            if number < 0 or filled + own > target_bytes:
                number, filled = number + 1, 0.0
            numbers[begin:end] = number
            filled += own
    return numbers, number + 1


def tile_key(tile_id: str) -> str:
    """Return what orders the tiles in the shards: sha256 of the id, so that a shard mixes places."""
    return hashlib.sha256(tile_id.encode()).hexdigest()


def candidates(region: Region, windows: pa.Table, split: Ints, crs: Mapping[str, str]) -> Candidates:
    """Return the columns that shards are planned from.

    Args:
        region: says what a record holds.
        windows: rows of WINDOWS, those that become chips; only the columns ``SIZED_BY`` are asked.
        split: code of the split of each row.
        crs: tile id -> its CRS, which each record names.
    """
    tiles = windows["tile_id"].combine_chunks().dictionary_encode()
    names = tuple(tiles.dictionary.to_pylist())
    codes = np.asarray(tiles.indices, dtype=np.int64)
    row_off = column(windows, "row_off").astype(np.int64)
    return Candidates(
        names, codes, split, row_off, _record_bytes(region, windows, [crs[name] for name in names], codes)
    )


def _record_bytes(region: Region, windows: pa.Table, crs: list[str], tile: Ints) -> Ints:
    """Bytes of each row's record: they depend on the texts only through their lengths, so few are worked out."""
    spec = record_spec(region)
    columns = [
        *(_lengths(windows[name]) for name in ("chip_id", "anchor")),
        np.array([len(one.encode()) for one in crs], dtype=np.int64)[tile],
    ]
    first, kind = _kinds(columns)
    sizes = [
        record_bytes_bound(spec, "i" * chip_id, "a" * anchor, "c" * own)
        for chip_id, anchor, own in zip(*(numbers[first].tolist() for numbers in columns), strict=True)
    ]
    return np.array(sizes, dtype=np.int64)[kind]


def _kinds(columns: list[Ints]) -> tuple[Ints, Ints]:
    """Return the first row of each distinct combination of values, and for each row which combination it is."""
    kind = np.zeros(len(columns[0]), dtype=np.int64)
    first = kind[:1]
    for numbers in columns:
        _, codes = np.unique(numbers, return_inverse=True)
        _, first, kind = np.unique(
            kind * (codes.max(initial=0) + 1) + codes, return_index=True, return_inverse=True
        )
    return first, kind


def _lengths(texts: pa.ChunkedArray) -> Ints:
    return np.asarray(pc.binary_length(texts).to_numpy(zero_copy_only=False), dtype=np.int64)
