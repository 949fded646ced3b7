"""Train, val and test for a folder that is not divided: chips that share ground stay together.

The file to change for how foreign chips are dealt. Groups are all chips that overlap, directly or through others; they
are dealt whole, in an order that depends on their names and the seed alone, each to the split that lacks most.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from chipmill.core.errors import BadInputError
from chipmill.dataset.places import SPLITS
from chipmill.exchange.chips import ImportOptions
from chipmill.exchange.pairs import Pair, Part
from chipmill.exchange.places import Lattices
from chipmill.exchange.rasters import read_place
from chipmill.region.grid import Window

_INSIDE_PX: Final = 0.25
"""Outlines are compared this much smaller: chips that only touch share no ground."""


def deal_parts(
    source: Path, parts: Sequence[Part], options: ImportOptions
) -> tuple[list[Part], tuple[str, ...]]:
    """Return the parts of ``source`` as ``options.shares`` asks for, and what to tell; unchanged where nothing is asked.

    Raises BadInputError where the source is divided already; GridError, AssetReadError for a picture without a grid.
    """
    if options.shares is None:
        return list(parts), ()
    if [part.folder for part in parts] != [source]:
        raise BadInputError(
            "shares: the folder is divided into train, val and test already: leave the shares out"
        )
    (part,) = parts
    groups, placeless = overlap_groups(part.pairs)
    split_of = deal_groups([[pair.name for pair in group] for group in groups], options.shares, options.seed)
    found: dict[str, list[Pair]] = {name: [] for name in SPLITS}
    for group, split in zip(groups, split_of, strict=True):
        found[split] += group
    dealt = [
        Part(name, part.folder, tuple(sorted(own, key=lambda pair: pair.name)))
        for name, own in found.items()
        if own
    ]
    told = [
        f"dealt {', '.join(f'{len(own):,} chips to {name}' for name, own in found.items())}, in {len(groups):,} groups"
    ]
    if placeless:
        told.append(
            f"{placeless:,} chips have no place on the map: whether they share ground with others is not known"
        )
    return dealt, tuple(told)


def overlap_groups(pairs: Sequence[Pair]) -> tuple[list[list[Pair]], int]:
    """Return the chips in groups that share ground on one lattice, and how many have no place: groups of their own."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    lattices = Lattices()
    places = [lattices.place(*read_place(pair.image), str(pair.image)) for pair in pairs]
    edges = [np.empty((0, 2), np.int64)]
    for name in lattices.known:
        rows = np.array([row for row, place in enumerate(places) if place and place[0] == name])
        edges.append(rows[_overlaps([place[1] for place in places if place and place[0] == name])])
    ones = np.concatenate(edges)
    graph = coo_array((np.ones(len(ones)), (ones[:, 0], ones[:, 1])), shape=(len(pairs), len(pairs)))
    count, labels = connected_components(graph, directed=False)
    groups: list[list[Pair]] = [[] for _ in range(count)]
    for pair, label in zip(pairs, labels.tolist(), strict=True):
        groups[label].append(pair)
    return groups, places.count(None)


def _overlaps(windows: Sequence[Window]) -> npt.NDArray[np.int64]:
    """Return (n, 2): the places in the list of each two windows that have a pixel in common."""
    import shapely

    corners = np.array([(one.col_off, one.row_off, one.col_end, one.row_end) for one in windows], np.float64)
    inside = np.array([_INSIDE_PX, _INSIDE_PX, -_INSIDE_PX, -_INSIDE_PX])
    boxes = shapely.box(*(corners + inside).T)
    return np.asarray(shapely.STRtree(boxes).query(boxes, predicate="intersects").T, np.int64)


def deal_groups(groups: Sequence[Sequence[str]], shares: tuple[float, float, float], seed: int) -> list[str]:
    """Return the split of each group of chip names: in a drawn order, each to the split that lacks most chips."""
    order = sorted(range(len(groups)), key=lambda at: _drawn(seed, min(groups[at])))
    wanted = np.array(shares) / sum(shares) * sum(map(len, groups))
    held = np.zeros(len(SPLITS))
    splits = [""] * len(groups)
    for at in order:
        choice = int(np.argmax(np.where(wanted > 0, wanted - held, -np.inf)))
        splits[at] = SPLITS[choice]
        held[choice] += len(groups[at])
    return splits


def _drawn(seed: int, name: str) -> str:
    return hashlib.sha256(f"{seed}/{name}".encode()).hexdigest()
