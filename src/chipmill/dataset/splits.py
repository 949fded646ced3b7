"""From windows to splits: blocks of the lattice are dealt to train, val and test, once and for good.

The stage, and the file to change for what a window loses at a block's edge. Which blocks are dealt and what sticks is
in :mod:`chipmill.dataset.blocks`, how they are dealt in :mod:`chipmill.dataset.dealing`, where windows lie among them
in :mod:`chipmill.dataset.places`.
"""

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from chipmill.core.errors import SplitError
from chipmill.core.store import fingerprint
from chipmill.core.tables import WINDOWS, read_table, write_table
from chipmill.dataset.blocks import (
    Dealt,
    deal_blocks,
    patient_lock,
    read_blocks,
    rule_facts,
    wanted_shares,
    write_blocks,
)
from chipmill.dataset.classes import resolve_classes
from chipmill.dataset.filters import class_matrix, quality_reasons
from chipmill.dataset.places import (
    BUFFER,
    KEPT,
    NONE,
    SPLITS,
    TEST,
    TRAIN,
    VAL,
    Block,
    Ints,
    Places,
    drop_reasons,
)
from chipmill.dataset.windows import WindowsRef
from chipmill.region.dataset import Splits
from chipmill.region.grid import Window
from chipmill.region.plan import Plan
from chipmill.region.tiles import Tile

STAGE_VERSION: Final = 1
SPLIT_TABLE: Final = pa.schema([("chip_id", pa.string()), ("split", pa.string()), ("drop", pa.string())])
"""One row per row of windows.parquet: its split (null where its block has none), and "" | "buffer" | "straddles"."""


@dataclasses.dataclass(frozen=True, slots=True)
class SplitsRef:
    """The split of every window."""

    path: Path
    """Table SPLIT_TABLE in the attempt."""
    fingerprint: str
    blocks: Path
    """The region's blocks.parquet; absent when every tile brings its own split."""
    infeasible: tuple[str, ...]
    """"class snow is not in val": what could not be dealt into every split."""


def assign_splits(plan: Plan, windows: WindowsRef) -> SplitsRef:
    """Deal the blocks that are new, keep those that were dealt, and write the split of every window.

    Raises SplitError when there are too few blocks, or when blocks.parquet was dealt by other rules.
    """
    rules = plan.region.dataset.splits
    table = read_table(windows.path, WINDOWS)
    places = Places.of_table(table)
    given = _given_splits(plan, table)
    path = plan.region_dir.blocks
    dealt = Dealt({}, {})
    weights = _weights(plan, table)
    _refuse_unusable(plan, table, weights)
    if (given == NONE).any():
        with patient_lock(plan.region_dir.blocks_lock, plan.run):
            known = read_blocks(path, rules)
            dealt = deal_blocks(places.take(given == NONE), weights[given == NONE], rules, known)
            write_blocks(path, dealt, rules, changed=dealt != known)
    splits, drops = place_windows(plan, places, given, dealt.splits)
    own = sorted((block, split) for block, split in dealt.splits.items())
    digest = fingerprint(
        STAGE_VERSION, windows.fingerprint, rule_facts(rules), rules.buffer_px, own, given.tolist()
    )
    names = np.array([*SPLITS, None], dtype=object)
    columns = {
        "chip_id": table["chip_id"],
        "split": pa.array(names[splits], pa.string()),
        "drop": pa.array(drops),
    }
    target = plan.version.root / "units" / "splits.parquet"
    write_table(target, pa.table(columns), SPLIT_TABLE, digest)
    kept = {
        name: weights[(splits == code) & (drops == KEPT), 2:].sum(axis=0).tolist()
        for code, name in enumerate(SPLITS)
    }
    classes = [info.name for info in resolve_classes(plan.region)]
    return SplitsRef(target, digest, path, missing_classes(kept, classes, rules))


def _refuse_unusable(plan: Plan, table: pa.Table, weights: npt.NDArray[np.float64]) -> None:
    if weights[:, 1].any():
        return
    counts = collections.Counter(str(reason) for reason in quality_reasons(table, plan.region.dataset.chips))
    funnel = ", ".join(f"{reason} {count}" for reason, count in counts.most_common(5)) or "there is none"
    raise SplitError(
        f"none of {table.num_rows} windows of {plan.region.name} is usable ({funnel}): look at time.range, at labels, "
        "and at dataset.chips"
    )


def _given_splits(plan: Plan, table: pa.Table) -> Ints:
    """Split code that a window's tile brings, else NONE."""
    codes = {tile.tile_id: SPLITS.index(tile.split) for tile in plan.tiles() if tile.split is not None}
    return np.array([codes.get(tile_id, NONE) for tile_id in table["tile_id"].to_pylist()], dtype=np.int64)


def _weights(plan: Plan, table: pa.Table) -> npt.NDArray[np.float64]:
    """(window, feature): 1 for its place, 1 when it is usable, its pixels of each class when it is usable."""
    usable = quality_reasons(table, plan.region.dataset.chips) == KEPT
    classes = class_matrix(table, len(resolve_classes(plan.region)))
    return np.column_stack([np.ones(len(usable)), usable, classes * usable[:, None]]).astype(np.float64)


def place_windows(
    plan: Plan, places: Places, given: Ints, blocks: dict[Block, int]
) -> tuple[Ints, npt.NDArray[Any]]:
    """Return the split code of each window (NONE where its block has none) and why it is dropped, "" where it is not.

    A tile that brings its own split counts as held-out ground as a block does.
    """
    rules = plan.region.dataset.splits
    bx, by = places.blocks(rules.block_px)
    keys = zip(places.lattice.tolist(), bx.tolist(), by.tolist(), strict=True)
    dealt = np.array([blocks.get(key, NONE) for key in keys], dtype=np.int64)
    splits = np.where(given == NONE, dealt, given)
    drops = drop_reasons(places, splits, blocks, rules.block_px, rules.buffer_px)
    drops[given > TRAIN] = KEPT  # their tile is held out as a whole, whatever block it lies in
    for tile in plan.tiles():
        if tile.split in (SPLITS[VAL], SPLITS[TEST]):
            ground = _ground(tile, plan.region.dataset.chips.size_px)
            near = (places.lattice == tile.lattice.lattice_id) & places.near(ground, rules.buffer_px)
            drops[near & (splits == TRAIN)] = BUFFER
    return splits, drops


def _ground(tile: Tile, size_px: int) -> Window:
    """All pixels that windows of a tile may hold: those of lattice tiles reach right and down into neighbours."""
    reach, place = size_px * tile.lattice_tile, tile.window
    return Window(place.col_off, place.row_off, place.width + reach, place.height + reach)


def missing_classes(
    class_px: Mapping[str, Sequence[float]], classes: Sequence[str], rules: Splits
) -> tuple[str, ...]:
    """Return a sentence for each class that a split lacks though another one has it; ``class_px`` is by split."""
    shares = wanted_shares(rules)
    return tuple(
        f"class {name} is not in {split}"
        for code, name in enumerate(classes)
        for split, share in zip(SPLITS, shares, strict=True)
        if share > 0 and not class_px[split][code] and any(px[code] for px in class_px.values())
    )
