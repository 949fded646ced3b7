"""The stage index_windows: what each candidate window holds, counted before a chip is cut.

Every pixel of a tile and of the strip that it borrows from its neighbours is read once, in strips of whole source
blocks; the counts of all overlapping windows come from one integral image (:mod:`chipmill.dataset.histograms`).
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from chipmill.core.store import fingerprint, is_good
from chipmill.core.tables import RANKING, WINDOWS, read_table, write_table
from chipmill.core.units import Batch, BatchResult, UnitResult, failures, settle, work_batch
from chipmill.dataset.classes import resolve_classes
from chipmill.dataset.histograms import RectangleCounter
from chipmill.dataset.pixels import open_stack, read_window
from chipmill.dataset.stack import COUNTS, LABEL, STAGES, StackRef, TileSources, near_tiles, stack_layers
from chipmill.dataset.vrt import vrt_xml
from chipmill.region.config import Region
from chipmill.region.grid import Window
from chipmill.region.plan import Plan
from chipmill.region.slots import slot_names
from chipmill.region.tiles import Tile
from chipmill.region.windows import block_of, chip_id, touched_tiles

STAGE_VERSION: Final = 1
STAGE: Final = "index_windows"
NEIGHBOUR: Final = "neighbour"
"""``failed_reason`` of a window that needs pixels of a tile that failed."""
_STRIP_PX: Final = 512
"""Rows read at a time, rounded up to whole source blocks: memory does not grow with the height of a tile."""
_VALID, _CLOUD, _NODATA = range(3)


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
    Fractions are of all pixels of the window.
    """
    standing = frozenset(stack.tiles)
    units = dataclasses.replace(batch, units=tuple(unit for unit in batch.units if unit in standing))
    ranking = plan.version.ranking
    sources = TileSources(plan, _ranking(ranking, ranking.stat().st_mtime_ns))
    return work_batch(
        plan.attempt,
        plan.run,
        units,
        work=lambda unit: UnitResult(table=_index_tile(plan, sources, standing, plan.tile(unit))),
        fingerprint=lambda unit: _unit_fingerprint(plan, sources, standing, plan.tile(unit)),
    )


@functools.lru_cache(maxsize=4)
def _ranking(path: Path, _changed: int) -> pa.Table:
    return read_table(path, RANKING)


def _unit_fingerprint(plan: Plan, sources: TileSources, standing: frozenset[str], tile: Tile) -> str:
    near = near_tiles(plan, tile)
    prints = [sources.prints(one) if one.tile_id in standing else None for one in (tile, *near)]
    dataset = plan.region.dataset
    empty = sorted(empty_slots(plan.region, sources.ranking, tile))
    return fingerprint(
        STAGE, STAGE_VERSION, tile.tile_id, prints, dataset.chips, dataset.splits.block_px, empty
    )


def _index_tile(plan: Plan, sources: TileSources, standing: frozenset[str], tile: Tile) -> pa.Table:
    whole: list[Window] = []
    broken: list[Window] = []
    for window in plan.windows(tile):
        near = touched_tiles(window, tile, plan.index())
        (whole if all(one.tile_id in standing for one in near) else broken).append(window)
    readable = [tile, *(one for one in near_tiles(plan, tile) if one.tile_id in standing)]
    counts = _count(plan, sources, readable, whole)
    empty = bool(empty_slots(plan.region, sources.ranking, tile))
    rows = [
        _measured_row(plan.region, tile, window, counts, index, empty) for index, window in enumerate(whole)
    ]
    rows += [_failed_row(plan.region, tile, window, NEIGHBOUR) for window in broken]
    rows.sort(key=lambda row: (row["row_off"], row["col_off"]))
    return pa.Table.from_pylist(rows, schema=WINDOWS)


def empty_slots(region: Region, ranking: pa.Table, tile: Tile) -> set[str]:
    """Return the slots for which an imagery with ``empty: skip`` chose no acquisition on a tile."""
    used = ranking.filter((pc.field("tile_id") == tile.tile_id) & pc.field("chosen"))
    chosen = set(zip(used["imagery"].to_pylist(), used["slot"].to_pylist(), strict=True))
    skipping = [imagery.name for imagery in region.imagery if imagery.empty == "skip"]
    return {slot for slot in slot_names(region) for imagery in skipping if (imagery, slot) not in chosen}


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class _Counts:
    """Pixel counts, one row per window."""

    classes: NDArray[np.int64]
    """``(window, class)``, a last column for ignore."""
    states: NDArray[np.int64]
    """``(slot, window, 3)``: valid, cloud, nodata."""
    valid: NDArray[np.int64]
    """``(window, 2)``: without and with a valid slot."""


def _count(plan: Plan, sources: TileSources, near: Sequence[Tile], windows: Sequence[Window]) -> _Counts:
    """Count over the pixels of ``near``: the tile itself first, then the neighbours that stand."""
    place, slots = near[0].window, slot_names(plan.region)
    rectangles = [
        (one.col_off - place.col_off, one.row_off - place.row_off, *one.shape[::-1]) for one in windows
    ]
    width = max((col + wide for col, _, wide, _ in rectangles), default=0)
    height = max((row + high for _, row, _, high in rectangles), default=0)
    ignore = len(resolve_classes(plan.region))
    classes = RectangleCounter(rectangles, width, ignore + 1)
    states = [RectangleCounter(rectangles, width, 3) for _ in slots]
    valid = RectangleCounter(rectangles, width, 2)
    area = Window(place.col_off, place.row_off, width, height)
    for row_off, label, slot_states in _strips(plan, sources, near, area):
        some = np.zeros(label.shape, dtype=bool)
        for counter, state in zip(states, slot_states, strict=True):
            counter.add(row_off, state)
            some |= state == _VALID
        valid.add(row_off, some.view(np.uint8))
        # 255 lies above all codes, so the smaller of the two is the code or the last column
        classes.add(row_off, np.where(some, np.minimum(label, ignore), ignore).astype(np.uint8))
    counted = [counter.counts() for counter in states]
    return _Counts(classes.counts(), np.stack(counted), valid.counts())


def _strips(
    plan: Plan, sources: TileSources, near: Sequence[Tile], area: Window
) -> Iterator[tuple[int, NDArray[np.uint8], list[NDArray[np.uint8]]]]:
    """Yield first row, label ``(y, x)`` and the states ``(y, x)`` of each slot, in strips of whole blocks."""
    if area.height == 0:
        return
    names = [(slot, imagery.name) for slot in slot_names(plan.region) for imagery in plan.region.imagery]
    label = sources.bands([layer for layer in stack_layers(plan.region) if layer.name == LABEL], near)
    bands = [*label, *(sources.count_band(near, *name, kind) for name in names for kind in COUNTS)]
    block = max(source.header.block[0] for band in bands for source in band.sources)
    height = -(-_STRIP_PX // block) * block
    depth = len(plan.region.imagery)
    with open_stack(vrt_xml(near[0].lattice, area, bands)) as dataset:
        for row_off in range(0, area.height, height):
            strip = Window(0, row_off, area.width, min(height, area.height - row_off))
            seen = read_window(dataset, strip, range(2, len(bands) + 1)) > 0
            grouped = seen.reshape(-1, depth, 2, *strip.shape).all(axis=1)
            yield row_off, read_window(dataset, strip, [1])[0], [_state(*slot) for slot in grouped]


def _state(valid: NDArray[np.bool_], observed: NDArray[np.bool_]) -> NDArray[np.uint8]:
    state: NDArray[np.uint8] = np.where(valid, _VALID, np.where(observed, _CLOUD, _NODATA)).astype(np.uint8)
    return state


def _row(region: Region, tile: Tile, window: Window) -> dict[str, Any]:
    return {
        "chip_id": chip_id(window, tile.lattice, tile.anchor),
        "tile_id": tile.tile_id,
        "lattice": tile.lattice.lattice_id,
        "anchor": tile.anchor,
        **dataclasses.asdict(window),
        "block": block_of(window, tile.lattice, region.dataset.splits.block_px),
        "slots": list(slot_names(region)),
    }


def _measured_row(
    region: Region, tile: Tile, window: Window, counts: _Counts, index: int, empty: bool
) -> dict[str, Any]:
    pixels = window.width * window.height
    return _row(region, tile, window) | {
        "class_px": counts.classes[index, :-1].tolist(),
        "ignore_px": int(counts.classes[index, -1]),
        "nodata_fraction": (counts.states[:, index, _NODATA] / pixels).tolist(),
        "cloud_fraction": (counts.states[:, index, _CLOUD] / pixels).tolist(),
        "valid_fraction": float(counts.valid[index, 1] / pixels),
        "empty_slot": empty,
        "failed_reason": None,
    }


def _failed_row(region: Region, tile: Tile, window: Window, reason: str) -> dict[str, Any]:
    nothing: dict[str, Any] = {"class_px": [], "nodata_fraction": [], "cloud_fraction": []}
    return _row(region, tile, window) | nothing | {"empty_slot": False, "failed_reason": reason}


def close_windows(plan: Plan, stack: StackRef) -> WindowsRef:
    """Close index_windows and write windows.parquet: every planned window once, by tile, row and column.

    Windows of a tile that failed carry the name of the stage where it did as ``failed_reason``, those that touch a
    failed neighbour "neighbour"; both have no counts (lists empty, numbers null). Raises TilesFailedError when a tile
    failed and the region says stop.
    """
    settle(plan.attempt, [STAGE], plan.region.on_failed, plan.redo)
    # of several failures of a tile the one of the earliest stage is the reason
    order = (*STAGES, STAGE)
    known = sorted(failures(plan.attempt, order), key=lambda failure: -order.index(failure.stage))
    lost = {failure.unit: failure.stage for failure in known}
    standing = frozenset(stack.tiles) - lost.keys()
    tables = []
    for tile in plan.tiles():
        if tile.tile_id in standing:
            tables.append(read_table(plan.version.unit(STAGE, tile.tile_id), WINDOWS))
        else:
            reason = lost.get(tile.tile_id, "rejected" if tile.reject else STAGE)
            rows = [_failed_row(plan.region, tile, window, reason) for window in plan.windows(tile)]
            tables.append(pa.Table.from_pylist(rows, schema=WINDOWS))
    table = pa.concat_tables(tables)
    wanted = fingerprint(
        "windows", STAGE_VERSION, stack.fingerprint, sorted(lost.items()), plan.region.dataset.splits
    )
    if not is_good(plan.version.windows, wanted):
        write_table(plan.version.windows, table, WINDOWS, wanted)
    return WindowsRef(plan.version.windows, wanted, table.num_rows)
