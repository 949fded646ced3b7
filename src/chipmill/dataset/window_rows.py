"""The rows of windows.parquet, made of columns: the file to change for another column of it."""

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from chipmill.core.tables import WINDOWS
from chipmill.dataset.counting import Counts
from chipmill.dataset.filters import Texts
from chipmill.region.config import Region
from chipmill.region.points import point_windows
from chipmill.region.slots import slot_names
from chipmill.region.tiles import Tile
from chipmill.region.windows import Laid

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


def window_rows(
    region: Region,
    tile: Tile,
    laid: Laid,
    excluded: Texts,
    failed: Texts,
    counts: Counts | None = None,
    measured: Ints | None = None,
    empty: bool = False,
) -> pa.Table:
    """Return the rows of a tile's windows, in the schema WINDOWS.

    Args:
        region: the region.
        tile: whose windows these are.
        laid: the windows.
        excluded: why a rule leaves a window out, or None.
        failed: why a window failed, or None.
        counts: what was counted.
        measured: of each window its row of ``counts``, -1 for one without; None where nothing was counted.
        empty: a slot of the tile has no acquisition, and its imagery skips such tiles.
    """
    if not len(laid):
        return WINDOWS.empty_table()
    number = len(laid)
    columns: dict[str, Any] = {
        "chip_id": laid.chip_ids(tile.lattice, tile.anchor),
        "tile_id": _same(tile.tile_id, number), "lattice": _same(tile.lattice.lattice_id, number),
        "anchor": _same(tile.anchor, number), "col_off": laid.col, "row_off": laid.row,
        "width": np.full(number, laid.size_px), "height": np.full(number, laid.size_px),
        "block": laid.blocks(tile.lattice, region.dataset.splits.block_px),
        "slots": _same(list(slot_names(region)), number), "dense": laid.dense,
        "failed_reason": failed, "excluded_reason": excluded,
    }  # fmt: skip
    rows = np.full(number, -1) if measured is None else measured
    columns |= _counted(counts, rows) if counts is not None else {}
    columns["empty_slot"] = (rows >= 0) & empty
    columns["source_id"], columns["attributes"] = sources(tile, laid)
    arrays = [
        _typed(columns[field.name], field.type) if field.name in columns else _nothing(field, number)
        for field in WINDOWS
    ]
    return pa.Table.from_arrays(arrays, schema=WINDOWS)


def _same(value: object, number: int) -> pa.Array:
    return pa.repeat(pa.scalar(value), number)


def _typed(values: Any, kind: pa.DataType) -> pa.Array:
    return values.cast(kind) if isinstance(values, pa.Array) else pa.array(values, kind)


def _nothing(field: pa.Field, number: int) -> pa.Array:
    """What stands where nothing was counted: empty lists, else null."""
    return (
        _same(pa.scalar([], field.type), number)
        if pa.types.is_list(field.type)
        else pa.nulls(number, field.type)
    )


def _counted(counts: Counts, rows: Ints) -> dict[str, Any]:
    """Columns of the counts; ``rows`` has the row of each window, -1 for one without counts."""
    some = rows >= 0
    pixels = counts.pixels[:, None]

    def one(values: NDArray[Any]) -> pa.Array:
        return pa.array(values[rows], mask=~some) if len(values) else pa.nulls(len(rows))

    def many(values: NDArray[Any]) -> pa.Array:
        ends = np.concatenate([[0], np.cumsum(some * values.shape[1])])
        return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), pa.array(values[rows[some]].ravel()))

    return {
        "class_px": many(counts.classes), "ignore_px": one(counts.ignore),
        "nodata_fraction": many(counts.nodata / pixels), "cloud_fraction": many(counts.cloud / pixels),
        "valid_fraction": one(counts.valid / counts.pixels),
        "imagery_nodata_fraction": many(counts.missing / pixels),
        "static_nodata_fraction": one(counts.static / counts.pixels),
    }  # fmt: skip


def source_of(tile: Tile) -> tuple[str | None, list[tuple[str, str]] | None]:
    """Return the id and the attributes that a tile's source gives it, None twice where it gives none."""
    if tile.source_id == tile.tile_id and not tile.attributes:
        return None, None
    return tile.source_id, list(tile.attributes.items())


def sources(tile: Tile, laid: Laid) -> tuple[list[str | None], list[list[tuple[str, str]] | None]]:
    """Return the columns source_id and attributes: those of the window's point, else of its tile."""
    if tile.points is None:
        name, attributes = source_of(tile)
        return [name] * len(laid), [attributes] * len(laid)
    points = point_windows(tile, laid.size_px)
    return [points[one].source_id for one in laid], [list(points[one].attributes.items()) for one in laid]
