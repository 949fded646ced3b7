"""From windows to splits: by default blocks of the lattice are dealt to train, val and test, once and for good.

The stage, and the file to change for what a window loses at a block's edge. What sticks is in
:mod:`chipmill.dataset.blocks`, how blocks are dealt in :mod:`chipmill.dataset.block_deals`, where windows lie among them
in :mod:`chipmill.dataset.places`, splits that are not dealt in :mod:`chipmill.dataset.split_kinds`.
"""

import collections
import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from chipmill.core.errors import SplitError
from chipmill.core.store import fingerprint, read_sidecar
from chipmill.core.tables import WINDOWS, read_table, write_table
from chipmill.dataset.block_deals import deal_blocks, deal_groups, group_block, wanted_shares
from chipmill.dataset.blocks import Dealt, patient_lock, read_blocks, replace_blocks, with_like, write_blocks
from chipmill.dataset.classes import resolve_classes
from chipmill.dataset.filters import class_matrix, column, quality_reasons
from chipmill.dataset.places import (
    BUFFER,
    KEPT,
    NO_SPLIT,
    NONE,
    SPLITS,
    TEST,
    TRAIN,
    VAL,
    Block,
    Ints,
    Places,
    drop_reasons,
    near_any,
    near_ground,
    near_reasons,
)
from chipmill.dataset.split_kinds import DEALT, Placed, attribute_values, given_splits, place_by_kind
from chipmill.dataset.windows import WindowsRef
from chipmill.region.config import Region
from chipmill.region.dataset import Chips, Splits
from chipmill.region.grid import Window
from chipmill.region.plan import Plan
from chipmill.region.tiles import Tile
from chipmill.region.windows import reach_px

STAGE_VERSION: Final = 2
SPLIT_TABLE: Final = pa.schema([("chip_id", pa.string()), ("split", pa.string()), ("drop", pa.string())])
"""One row per row of windows.parquet: its split (null where it has none), and why it is dropped: "" | "buffer" |
"straddles" | "no_split"."""


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


def assign_splits(plan: Plan, windows: WindowsRef, *, redeal: bool = False) -> SplitsRef:
    """Write the split of every window; blocks and groups that are new are dealt, those that were dealt keep theirs.

    ``redeal`` deals all of them anew; the table that is replaced stays beside it under the hash of its content.
    Raises SplitError when there are too few blocks, when blocks.parquet was dealt by other rules, or as
    :func:`chipmill.dataset.split_kinds.place_by_kind` does.
    """
    region, rules = plan.region, plan.region.dataset.splits
    table = read_table(windows.path, WINDOWS)
    places = Places.of_table(table)
    weights = _weights(plan, table)
    _refuse_unusable(plan, table, weights)
    dealt = Dealt({}, {})
    if rules.by not in DEALT:
        splits, drops = place_by_kind(region, plan.tiles(), table, places)
    else:
        given = _given(plan, table, places)
        groups = group_names(rules, table) if rules.by == "group" else None
        free = (given == NONE) if groups is None else groups != ""
        if free.any():
            new = None if groups is None else groups[free].tolist()
            dealt = _dealt(plan, places.take(free), new, weights[free], redeal=redeal)
        if groups is None:
            splits, drops = place_windows(region, plan.tiles(), places, given, dealt.splits)
        else:
            splits, drops = place_groups(places, groups, dealt.splits, rules.buffer_px)
    target = plan.version.root / "units" / "splits.parquet"
    facts = rules.model_dump(mode="json", exclude={"path", "like"})  # what they lead to stands in the columns
    digest = fingerprint(STAGE_VERSION, windows.fingerprint, facts, splits.tobytes(), drops.tolist())
    names = np.array([*SPLITS, None], dtype=object)
    columns = {
        "chip_id": table["chip_id"],
        "split": pa.array(names[splits], pa.string()),
        "drop": pa.array(drops, pa.string()),
    }
    write_table(target, pa.table(columns), SPLIT_TABLE, digest)
    kept = {
        name: weights[(splits == code) & (drops == KEPT), 2:].sum(axis=0).tolist()
        for code, name in enumerate(SPLITS)
    }
    classes = [info.name for info in resolve_classes(region)]
    return SplitsRef(target, digest, plan.region_dir.blocks, missing_classes(kept, classes, rules))


def _given(plan: Plan, table: pa.Table, places: Places) -> Ints:
    if plan.region.dataset.splits.by != "blocks":
        return np.full(table.num_rows, NONE)
    return given_splits(plan.tiles(), table, places, plan.region.dataset.chips.size_px)


def _dealt(
    plan: Plan,
    places: Places,
    groups: Sequence[str] | None,
    weights: npt.NDArray[np.float64],
    *,
    redeal: bool,
) -> Dealt:
    """Deal what is new under the region's lock, and keep it."""
    rules, own_dir = plan.region.dataset.splits, plan.region_dir
    with contextlib.ExitStack() as held:
        # regions that share blocks could each deal the same place at this moment: one after the other
        for path in ([own_dir.all_blocks_lock] if rules.like else []) + [own_dir.blocks_lock]:
            held.enter_context(patient_lock(path, plan.run))
        own = Dealt({}, {}) if redeal else read_blocks(own_dir.blocks, rules)
        known = with_like(own_dir, rules, own)
        if groups is None:
            dealt = deal_blocks(places, weights, rules, known)
        else:
            dealt = deal_groups(groups, weights, rules, known)
        if redeal:
            replace_blocks(own_dir, dealt, rules)
        else:
            write_blocks(own_dir.blocks, dealt, rules, changed=dealt != own)
    return dealt


def _refuse_unusable(plan: Plan, table: pa.Table, weights: npt.NDArray[np.float64]) -> None:
    if weights[:, 1].any():
        return
    counts = collections.Counter(str(reason) for reason in quality_reasons(table, plan.region.dataset.chips))
    funnel = ", ".join(f"{reason} {count}" for reason, count in counts.most_common(5)) or "there is none"
    raise SplitError(
        f"none of {table.num_rows} windows of {plan.region.name} is usable ({funnel}): look at time.range, at labels, "
        "and at dataset.chips"
    )


def _weights(plan: Plan, table: pa.Table) -> npt.NDArray[np.float64]:
    """(window, feature): 1 for its place, 1 when it is usable, its pixels of each class when it is usable."""
    usable = quality_reasons(table, plan.region.dataset.chips) == KEPT
    # windows that chips.dense adds are for training alone: they must not weigh when blocks are dealt
    usable &= ~column(table, "dense", False)
    classes = class_matrix(table, len(resolve_classes(plan.region)))
    return np.column_stack([np.ones(len(usable)), usable, classes * usable[:, None]]).astype(np.float64)


def place_windows(
    region: Region, tiles: Sequence[Tile], places: Places, given: Ints, blocks: Mapping[Block, int]
) -> Placed:
    """Return the split code of each window by blocks (NONE where its block has none) and why it is dropped, or "".

    A tile that brings its own split counts as held-out ground as a block does, of points that do their windows.
    """
    rules, chips = region.dataset.splits, region.dataset.chips
    bx, by = places.blocks(rules.block_px)
    keys = zip(places.lattice.tolist(), bx.tolist(), by.tolist(), strict=True)
    dealt = np.array([blocks.get(key, NONE) for key in keys], dtype=np.int64)
    splits = np.where(given == NONE, dealt, given)
    drops = drop_reasons(places, splits, blocks, rules.block_px, rules.buffer_px)
    drops[given > TRAIN] = KEPT  # their tile is held out as a whole, whatever block it lies in
    train = splits == TRAIN
    held = [tile for tile in tiles if tile.split in (SPLITS[VAL], SPLITS[TEST])]
    ground = Places.of_windows(
        [tile.lattice.lattice_id for tile in held], [_ground(tile, chips) for tile in held]
    )
    drops[near_ground(places, train, ground, rules.buffer_px)] = BUFFER
    if any(tile.points is not None for tile in tiles):
        drops[near_any(places, train, given > TRAIN, rules.buffer_px)] = BUFFER
    return splits, drops


def _ground(tile: Tile, chips: Chips) -> Window:
    """All pixels that windows of a tile may hold: some reach right and down, into neighbours or beyond the edge."""
    reach, place = reach_px(tile, chips), tile.window
    return Window(place.col_off, place.row_off, place.width + reach, place.height + reach)


def group_names(rules: Splits, windows: pa.Table) -> npt.NDArray[Any]:
    """Return the group of each window, "" where it has none."""
    return np.array([value or "" for value in attribute_values(rules, windows)], dtype=object)


def place_groups(
    places: Places, groups: npt.NDArray[Any], blocks: Mapping[Block, int], buffer_px: int
) -> Placed:
    """Return the split of each window's group (NONE where it has none) and why it is dropped, or "".

    Groups may overlap on the ground: then it is that of the held-out one.
    """
    codes = {group: blocks.get(group_block(group), NONE) for group in set(groups.tolist())}
    splits = np.array([codes[group] for group in groups], dtype=np.int64)
    drops = near_reasons(places, splits, buffer_px)
    drops[splits == NONE] = NO_SPLIT
    return splits, drops


def missing_classes(
    class_px: Mapping[str, Sequence[float]], classes: Sequence[str], rules: Splits
) -> tuple[str, ...]:
    """Return a sentence for each class that a split lacks though another one has it; ``class_px`` is by split.

    Splits by shares should have all; of other kinds those should that have any pixel.
    """
    if rules.by in (*DEALT, "random"):
        shares = dict(zip(SPLITS, wanted_shares(rules), strict=True))
        wanted = [name for name in SPLITS if shares[name] > 0]
    else:
        wanted = [name for name in SPLITS if any(class_px[name])]
    return tuple(
        f"class {name} is not in {split}"
        for code, name in enumerate(classes)
        for split in wanted
        if not class_px[split][code] and any(px[code] for px in class_px.values())
    )


def blocks_digest(plan: Plan) -> str | None:
    """Return the sha256 of the region's blocks.parquet, None where no window of the cell was dealt."""
    rules = plan.region.dataset.splits
    if rules.by not in DEALT or (rules.by == "blocks" and all(map(brings_split, plan.tiles()))):
        return None
    sidecar = read_sidecar(plan.region_dir.blocks)
    return sidecar.sha256 if sidecar else None


def brings_split(tile: Tile) -> bool:
    """Tell whether a tile, or each of its points, brings its own split, so that nothing of it is dealt."""
    if tile.points is None:
        return tile.split is not None
    return all(point.split is not None for point in tile.points)
