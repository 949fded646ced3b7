"""What splits would make of a cell, from geometry alone: the look ahead of `plan` and of the checks before a run.

Every candidate window counts as usable here, since no pixel is read: the figures are bounds, not promises.
"""

import collections
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from chipmill.core.errors import SplitError
from chipmill.core.plain import quoted
from chipmill.core.tables import WINDOWS
from chipmill.dataset.block_deals import check_places, deal_blocks, deal_groups
from chipmill.dataset.blocks import Dealt, read_blocks, with_like
from chipmill.dataset.certificate import covered_px, leak_warning, shared_px
from chipmill.dataset.places import KEPT, NONE, SPLITS, TRAIN, Places
from chipmill.dataset.split_kinds import DEALT, Placed, given_splits, place_by_kind
from chipmill.dataset.splits import brings_split, group_names, place_groups, place_windows
from chipmill.dataset.window_rows import sources
from chipmill.region.config import Region
from chipmill.region.plan import region_dir
from chipmill.region.tiles import Tile
from chipmill.region.windows import lay_windows, tile_index


@dataclasses.dataclass(frozen=True, slots=True)
class Outlook:
    """Windows by what becomes of them at the edges of splits."""

    windows: int
    splits: dict[str, int]
    """Windows that stay, by split."""
    lost: dict[str, int]
    """Windows that do not, by reason: buffer, straddles, no_split."""
    warning: str
    """How much of the ground of val and test training would see, "" where nothing."""

    def told(self, kind: str) -> str:
        """Return it as a sentence: how many windows each split may have, and how many are lost between splits."""
        stay = ", ".join(f"{name} {number:,}" for name, number in self.splits.items())
        lost = ", ".join(f"{reason} {number:,}" for reason, number in self.lost.items())
        return f"splits by {kind} would take at most {stay} of {self.windows:,} windows; lost between them: {lost or 'none'}"


def look_ahead(region: Region, tiles: Sequence[Tile]) -> Outlook:
    """Return what the splits of a region with labels would make of its candidate windows; nothing is written.

    Blocks and groups that are not dealt yet are dealt here by their number of windows, a run deals them by classes.
    Raises SplitError where a run could only fail.
    """
    rules = region.dataset.splits
    check_attribute(region)
    table, places = candidate_table(region, tiles)
    splits, drops = _placed(region, tiles, table, places)
    kept = drops == KEPT
    lost = collections.Counter(str(reason) for reason in drops[~kept])
    train, held = (places.take(kept & rows) for rows in (splits == TRAIN, splits > TRAIN))
    shared = shared_px(train, held) if rules.by in ("time", "random") else 0
    return Outlook(
        table.num_rows,
        {name: int((kept & (splits == code)).sum()) for code, name in enumerate(SPLITS)},
        dict(sorted(lost.items())),
        leak_warning(rules.by, shared, covered_px(held) if shared else 0),
    )


def check_splits(region: Region, tiles: Sequence[Tile]) -> tuple[str, ...]:
    """Raise SplitError where geometry alone leaves a split empty or blocks have other rules; return remarks.

    Regions without labels need no splits. Blocks that are dealt already are enough.
    """
    rules = region.dataset.splits
    if region.labels is None:
        return ()
    check_attribute(region)
    if rules.by in DEALT:
        free = [
            tile for tile in tiles if not tile.reject and not (rules.by == "blocks" and brings_split(tile))
        ]
        if not free or _known(region).splits:
            return ()
        if rules.by == "blocks":
            check_places(candidate_table(region, free)[1], rules)
            return ()
    found = look_ahead(region, tiles)
    _refuse_empty(region, found)
    remarks = [f"splits by {rules.by}: {found.warning}"] if found.warning else []
    if left := found.lost.get("no_split"):
        remarks.append(
            f"splits by {rules.by}: {left} of {found.windows} windows have no split and are left out"
        )
    return tuple(remarks)


def check_attribute(region: Region) -> None:
    """Raise SplitError where splits go by an attribute that the tiles do not keep."""
    rules, kept = region.dataset.splits, region.tiles.attributes
    if rules.by in ("attribute", "group") and rules.attribute not in kept:
        named = ", ".join(kept) or "none"
        raise SplitError(
            f"dataset.splits.attribute {quoted(str(rules.attribute))} is none that tiles.attributes keeps ({named}): list "
            "it there"
        )


def _refuse_empty(region: Region, found: Outlook) -> None:
    rules, days = region.dataset.splits, region.dataset.splits.hold_out
    wanted = [SPLITS[TRAIN], *(name for name in ("val", "test") if days is not None and getattr(days, name))]
    empty = [name for name in wanted if not found.splits[name]]
    if empty:
        lost = ", ".join(f"{reason} {count}" for reason, count in found.lost.items()) or "none is lost"
        raise SplitError(
            f"splits by {rules.by} leave {', '.join(empty)} without a window ({found.windows} windows in all, {lost}): "
            "look at dataset.splits and at what it names"
        )


def _known(region: Region) -> Dealt:
    rules, own = region.dataset.splits, region_dir(region)
    return with_like(own, rules, read_blocks(own.blocks, rules))


def _placed(region: Region, tiles: Sequence[Tile], table: pa.Table, places: Places) -> Placed:
    rules = region.dataset.splits
    if rules.by not in DEALT:
        return place_by_kind(region, tiles, table, places)
    weights = np.ones((table.num_rows, 2))
    if rules.by == "group":
        groups = group_names(rules, table)
        free = groups != ""
        dealt = deal_groups(groups[free].tolist(), weights[free], rules, _known(region))
        return place_groups(places, groups, dealt.splits, rules.buffer_px)
    given = given_splits(tiles, table, places, region.dataset.chips.size_px)
    dealt = Dealt({}, {})
    if (given == NONE).any():
        dealt = deal_blocks(places.take(given == NONE), weights[given == NONE], rules, _known(region))
    return place_windows(region, tiles, places, given, dealt.splits)


def candidate_table(region: Region, tiles: Sequence[Tile]) -> tuple[pa.Table, Places]:
    """Return the candidate windows of tiles that are not rejected: what of WINDOWS splits ask for, and their places."""
    # windows that chips.dense adds are for training alone and lie only where classes mix, which no geometry tells
    chips, index = region.dataset.chips.model_copy(update={"dense": None}), tile_index(tiles)
    laid = [(tile, lay_windows(tile, index, chips)) for tile in tiles if not tile.reject]
    empty = np.zeros(0, dtype=np.int64)
    col = np.concatenate([empty, *(windows.col for _, windows in laid)])
    row = np.concatenate([empty, *(windows.row for _, windows in laid)])
    often = [len(windows) for _, windows in laid]

    def repeated(name: Callable[[Tile], str]) -> npt.NDArray[Any]:
        return np.repeat(np.array([name(tile) for tile, _ in laid], dtype=object), often)

    side = np.full(len(col), chips.size_px)
    places = Places(repeated(lambda tile: tile.lattice.lattice_id), col, row, side, side)
    columns = {
        "chip_id": [name for tile, windows in laid for name in windows.chip_ids(tile.lattice, tile.anchor)],
        "tile_id": repeated(lambda tile: tile.tile_id),
        "anchor": repeated(lambda tile: tile.anchor),
        "attributes": [own for tile, windows in laid for own in sources(tile, windows)[1]],
    }
    return pa.table(columns, schema=pa.schema([WINDOWS.field(name) for name in columns])), places
