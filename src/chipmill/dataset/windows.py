"""The stage index_windows: what each candidate window holds, or why it is not asked, before a chip is cut.

The file to change for what leaves a window out before anything is counted. How pixels are counted is in
:mod:`chipmill.dataset.counting`, how the rows of windows.parquet are made of the counts in
:mod:`chipmill.dataset.window_rows`.
"""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from chipmill.core.store import fingerprint, is_good
from chipmill.core.tables import RANKING, WINDOWS, join_tables, read_table, write_table
from chipmill.core.units import Batch, BatchResult, UnitResult, failures, settle, work_batch
from chipmill.dataset.counting import count_rectangles
from chipmill.dataset.filters import Texts, class_code, key_fractions
from chipmill.dataset.stack import STAGES, StackRef, TileSources, near_tiles
from chipmill.dataset.window_rows import Bools, source_of, window_rows
from chipmill.region.config import Region
from chipmill.region.plan import Plan
from chipmill.region.slots import slot_names
from chipmill.region.tiles import Tile
from chipmill.region.windows import Laid, lay_windows

STAGE_VERSION: Final = 2
STAGE: Final = "index_windows"
NEIGHBOUR: Final = "neighbour"
"""``failed_reason`` of a window that needs pixels of a tile that failed."""
REJECTED, NEIGHBOUR_YEAR, SPARSE = "rejected", "neighbour_year", "sparse"
"""``excluded_reason`` of a window: the source rejects a tile that it needs; it needs a tile of another time; it is
dense where the key class does not mix with others."""
_LIMITS: Final = ("max_nodata_fraction", "max_cloud_fraction", "max_static_nodata_fraction")
"""Fields of ``dataset.chips`` that are asked of the counts later: windows.parquet does not depend on them."""


@dataclasses.dataclass(frozen=True, slots=True)
class WindowsRef:
    """windows.parquet."""

    path: Path
    fingerprint: str
    rows: int


def index_windows(plan: Plan, stack: StackRef, batch: Batch) -> BatchResult:
    """Count classes, clouds and nodata in every candidate window of each tile of a batch; units without stack are left.

    A slot of a pixel is valid where every imagery has ``valid_count`` > 0, nodata where one has ``observed_count`` = 0,
    else cloud. ``class_px`` and ``ignore_px`` follow the label of a chip: a pixel with no valid slot is ignore.
    Fractions are of the pixels of the window that lie in tiles: what ``edge: pad`` adds is neither nodata nor cloud.
    Nothing is counted where windows.parquet, taken over from an older version, is good already.
    """
    standing = frozenset(stack.tiles)
    units = dataclasses.replace(batch, units=tuple(unit for unit in batch.units if unit in standing))
    sources = TileSources(plan, _ranking(plan, units.units))
    return work_batch(
        plan.attempt,
        plan.run,
        units,
        work=lambda unit: UnitResult(table=_index_tile(plan, sources, standing, plan.tile(unit))),
        fingerprint=lambda unit: _unit_fingerprint(plan, sources, standing, plan.tile(unit)),
        closed=is_good(plan.version.windows, windows_fingerprint(plan, stack.fingerprint, lost_tiles(plan))),
    )


def _ranking(plan: Plan, units: Sequence[str]) -> pa.Table:
    """Rows of ranking.parquet of some tiles and their neighbours: what a batch needs, however many tiles there are."""
    tiles = [plan.tile(unit) for unit in units]
    wanted = {one.tile_id for tile in tiles for one in (tile, *near_tiles(plan, tile))}
    return read_table(
        plan.version.ranking, RANKING, pc.field("tile_id").isin(pa.array(sorted(wanted), pa.string()))
    )


def _unit_fingerprint(plan: Plan, sources: TileSources, standing: frozenset[str], tile: Tile) -> str:
    near = near_tiles(plan, tile)
    prints = [sources.prints(one) if one.tile_id in standing else None for one in (tile, *near)]
    empty = sorted(empty_slots(plan.region, sources.ranking, tile))
    facts = [[one.tile_id, one.time, one.reject] for one in (tile, *near)]
    own = [tile.anchor, tile.points, *source_of(tile)]
    return fingerprint(STAGE, STAGE_VERSION, facts, own, prints, window_rules(plan.region), empty)


def window_rules(region: Region) -> dict[str, Any]:
    """Return what the rows of windows.parquet depend on of ``dataset``: how windows are laid, and their blocks' side."""
    laid = region.dataset.chips.model_dump(mode="json", exclude=set(_LIMITS))
    key = region.dataset.select.key_class if region.dataset.chips.dense else None
    return {"chips": laid, "key_class": key, "block_px": region.dataset.splits.block_px}


def windows_fingerprint(plan: Plan, stack_fingerprint: str, lost: Mapping[str, str]) -> str:
    """Return what windows.parquet is made of; ``lost`` names the stage at which each failed tile did."""
    rules = [window_rules(plan.region), [(imagery.name, imagery.empty) for imagery in plan.region.imagery]]
    tiles = [
        [tile.tile_id, tile.window, tile.anchor, tile.time, tile.reject, tile.points, *source_of(tile)]
        for tile in plan.tiles()
    ]
    return fingerprint("windows", STAGE_VERSION, stack_fingerprint, sorted(lost.items()), rules, tiles)


def _index_tile(plan: Plan, sources: TileSources, standing: Collection[str], tile: Tile) -> pa.Table:
    region = plan.region
    laid = lay_windows(tile, plan.index(), region.dataset.chips)
    excluded, failed = _reasons(plan, standing, tile, laid)
    rows = np.flatnonzero((excluded == None) & (failed == None))  # noqa: E711 - element by element
    side = np.full(len(rows), laid.size_px)
    windows = np.column_stack([laid.col[rows], laid.row[rows], side, side])
    # the tile's own counts say whether dense windows are wanted
    whole = [dataclasses.astuple(tile.window)] if laid.dense[rows].any() else []
    own = np.array(whole, dtype=np.int64).reshape(-1, 4)
    near = [tile, *(one for one in near_tiles(plan, tile) if one.tile_id in standing)]
    counts = count_rectangles(region, sources, near, np.concatenate([windows, own]))
    sparse = np.zeros(len(rows), dtype=bool)
    if whole:
        sparse = laid.dense[rows] & ~_mixed(region, counts.classes)[:-1]
    excluded[rows[sparse]] = SPARSE
    measured = np.full(len(laid), -1)
    measured[rows[~sparse]] = np.flatnonzero(~sparse)
    empty = bool(empty_slots(region, sources.ranking, tile))
    return window_rows(region, tile, laid, excluded, failed, counts, measured, empty)


def _reasons(plan: Plan, standing: Collection[str], tile: Tile, laid: Laid) -> tuple[Texts, Texts]:
    """Return for each window why a rule leaves it out, and the failure of a neighbour that it needs; None for neither.

    What a rule leaves out would be left out whatever fails: it is filtered, not failed.
    """
    excluded, failed = np.full(len(laid), None, dtype=object), np.full(len(laid), None, dtype=object)
    near = near_tiles(plan, tile)
    for other in near:
        if other.tile_id not in standing:
            failed[laid.touches(other.window)] = NEIGHBOUR
    for other in near:
        if other.time != tile.time:
            excluded[laid.touches(other.window)] = NEIGHBOUR_YEAR
    for other in (tile, *near):
        if other.reject:
            excluded[laid.touches(other.window)] = REJECTED
    failed[excluded != None] = None  # noqa: E711 - element by element
    return excluded, failed


def _mixed(region: Region, classes: NDArray[np.int64]) -> Bools:
    """Tell of each rectangle with its (rectangle, class) pixels whether dense windows stay; the last one is the tile."""
    dense, key = region.dataset.chips.dense, region.dataset.select.key_class
    if dense is None or key is None:
        return np.ones(len(classes), dtype=bool)
    shares = key_fractions(classes, class_code(region, key))
    asked = shares[-1:] if dense.of == "tile" else shares
    return np.broadcast_to((dense.between[0] <= asked) & (asked <= dense.between[1]), shares.shape)


def empty_slots(region: Region, ranking: pa.Table, tile: Tile) -> set[str]:
    """Return the slots for which an imagery with ``empty: skip`` chose no acquisition on a tile."""
    used = ranking.filter((pc.field("tile_id") == tile.tile_id) & pc.field("chosen"))
    chosen = set(zip(used["imagery"].to_pylist(), used["slot"].to_pylist(), strict=True))
    skipping = [imagery.name for imagery in region.imagery if imagery.empty == "skip"]
    return {slot for slot in slot_names(region) for imagery in skipping if (imagery, slot) not in chosen}


def lost_tiles(plan: Plan) -> dict[str, str]:
    """Return the earliest stage at which each tile failed that did."""
    order = (*STAGES, STAGE)
    known = sorted(failures(plan.attempt, order), key=lambda failure: -order.index(failure.stage))
    return {failure.unit: failure.stage for failure in known}


def close_windows(plan: Plan, stack: StackRef) -> WindowsRef:
    """Close index_windows and write windows.parquet: every planned window once, by tile, row and column.

    Windows of a tile that failed carry the name of the stage where it did as ``failed_reason``, those that touch a
    failed neighbour "neighbour"; those that touch a rejected tile, or one of another time, have an ``excluded_reason``
    in its stead. None of them has counts (lists empty, numbers null). A table that is good already is left,
    and the results of the units are not needed then. Raises TilesFailedError when a tile failed and the region says
    stop.
    """
    settle(plan.attempt, [STAGE], plan.region.on_failed, plan.redo)
    lost = lost_tiles(plan)
    wanted = windows_fingerprint(plan, stack.fingerprint, lost)
    path = plan.version.windows
    if is_good(path, wanted):
        return WindowsRef(path, wanted, pq.read_metadata(path).num_rows)
    standing = frozenset(stack.tiles) - lost.keys()
    table = join_tables(
        read_table(plan.version.unit(STAGE, tile.tile_id), WINDOWS)
        if tile.tile_id in standing
        else _lost_table(plan, standing, tile, lost.get(tile.tile_id, STAGE))
        for tile in plan.tiles()
    )
    write_table(path, table, WINDOWS, wanted)
    return WindowsRef(path, wanted, table.num_rows)


def _lost_table(plan: Plan, standing: Collection[str], tile: Tile, stage: str) -> pa.Table:
    """Rows of a tile that has no stack: the stage where it failed is the reason, but for what a rule leaves out."""
    laid = lay_windows(tile, plan.index(), plan.region.dataset.chips)
    excluded, failed = _reasons(plan, standing, tile, laid)
    failed[excluded == None] = stage  # noqa: E711 - element by element
    return window_rows(plan.region, tile, laid, excluded, failed)
