"""One pyarrow schema per table: the contract between the stages, and the two functions that write and read them."""

import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from chipmill.core.errors import DamagedFileError
from chipmill.core.geo import BBOX
from chipmill.core.store import commit_file

_UTC: Final = pa.timestamp("us", tz="UTC")
_TEXTS: Final = pa.map_(pa.string(), pa.string())
_JOINED: Final = 64
"""Tables that are held at once while many are joined."""
_GROUP_ROWS: Final = 1 << 16
"""Rows of a Parquet row group."""


def _schema(**columns: pa.DataType) -> pa.Schema:
    return pa.schema([pa.field(name, kind) for name, kind in columns.items()])


TILES: Final = _schema(
    tile_id=pa.string(),
    source_id=pa.string(),
    epsg=pa.int32(),
    origin_x=pa.float64(),
    origin_y=pa.float64(),
    res_x=pa.float64(),
    res_y=pa.float64(),
    col_off=pa.int64(),
    row_off=pa.int64(),
    width=pa.int32(),
    height=pa.int32(),
    transform=pa.list_(pa.float64()),
    anchor=pa.string(),
    time_start=_UTC,
    time_end=_UTC,
    lattice_tile=pa.bool_(),
    label_href=pa.string(),
    label_content=pa.string(),
    split=pa.string(),
    reject=pa.bool_(),
    cover=pa.binary(),
    geometry=pa.binary(),
    state=pa.string(),
    reason=pa.string(),
    attributes=_TEXTS,
    points=pa.list_(
        pa.struct(
            [
                ("col", pa.int64()),
                ("row", pa.int64()),
                ("source_id", pa.string()),
                ("split", pa.string()),
                ("attributes", _TEXTS),
            ]
        )
    ),
)
"""``cover``: WKB, EPSG:4326, the part of AOI and UTM zone that the tile answers for; ``geometry``: its footprint;
``points``: those whose windows belong to it, null but for tiles from points."""

RANKING: Final = _schema(
    tile_id=pa.string(),
    imagery=pa.string(),
    slot=pa.string(),
    slot_start=_UTC,
    slot_end=_UTC,
    acquisition=pa.string(),
    datetime=_UTC,
    item_ids=pa.list_(pa.string()),
    clear_fraction=pa.float64(),
    coverage_fraction=pa.float64(),
    cloud_cover_pct=pa.float64(),
    evidence=pa.string(),
    rank=pa.int32(),
    chosen=pa.bool_(),
    reason=pa.string(),
)
"""``rank`` 1 is the best; ``reason`` is "chosen" or why not; ``evidence`` mask, cloud_cover or none."""

WINDOWS: Final = _schema(
    chip_id=pa.string(),
    tile_id=pa.string(),
    lattice=pa.string(),
    anchor=pa.string(),
    col_off=pa.int64(),
    row_off=pa.int64(),
    width=pa.int32(),
    height=pa.int32(),
    block=pa.string(),
    class_px=pa.list_(pa.int64()),
    ignore_px=pa.int64(),
    slots=pa.list_(pa.string()),
    nodata_fraction=pa.list_(pa.float64()),
    cloud_fraction=pa.list_(pa.float64()),
    valid_fraction=pa.float64(),
    empty_slot=pa.bool_(),
    failed_reason=pa.string(),
    dense=pa.bool_(),
    excluded_reason=pa.string(),
    static_nodata_fraction=pa.float64(),
    imagery_nodata_fraction=pa.list_(pa.float64()),
    source_id=pa.string(),
    attributes=_TEXTS,
)
"""Every candidate window; ``class_px`` counts pixels with a valid slot, the others are in ``ignore_px``;
``failed_reason`` is null but for windows that need a tile that failed, ``excluded_reason`` but for those that a rule
leaves out before anything is counted: rejected, neighbour_year, sparse (the histogram of both is empty); fractions are of
the pixels that lie in tiles, those of a slot by imagery stand in ``imagery_nodata_fraction``, slot by slot, where there
is more than one imagery; ``dense`` marks windows that ``chips.dense`` adds;
``source_id`` and ``attributes`` are those of its point, else of its tile where the source gives it some, else null."""

CHIPS: Final = pa.schema(
    [
        *WINDOWS,
        pa.field("split", pa.string()),
        pa.field("state", pa.string()),
        pa.field("reason", pa.string()),
        pa.field("shard", pa.string()),
        pa.field("offset", pa.int64()),
        pa.field("length", pa.int64()),
        pa.field("crc", pa.uint32()),
    ]
)
"""``state`` is written, filtered or failed; ``offset`` and ``length`` in bytes of the record with its framing;
``crc`` the masked CRC-32C of the record's data."""

CHIP_INDEX: Final = pa.schema(
    [
        *CHIPS,
        pa.field("crs", pa.string()),
        pa.field("transform", pa.list_(pa.float64())),
        pa.field("bbox", BBOX),
        pa.field("geometry", pa.binary()),
    ]
)
"""chips.parquet as it is committed, a GeoParquet: ``crs`` and ``transform`` of the window's pixels, ``bbox`` and
``geometry`` (WKB, its four corners) in degrees."""

BLOCKS: Final = _schema(
    block=pa.string(), lattice=pa.string(), bx=pa.int64(), by=pa.int64(), split=pa.string()
)
"""``bx`` and ``by`` count blocks of ``block_px`` right and down from the lattice's origin."""


def write_table(path: Path, table: pa.Table, schema: pa.Schema, fingerprint: str) -> None:
    """Commit ``table`` in the order of its rows; the bytes depend on content alone.

    Raises pyarrow.ArrowInvalid when the columns do not fit ``schema``.
    """
    fitted = table.select(schema.names).cast(schema)
    with commit_file(path, fingerprint, records=fitted.num_rows) as temp:
        write_parquet(temp, fitted)


def write_parquet(path: Path, table: pa.Table) -> None:
    """Write Parquet with the one set of options that the project uses (ZSTD, no pandas metadata).

    The bytes do not depend on the table's chunks: each row group is joined by itself, so that no second copy of the
    whole table is made.
    """
    with pq.ParquetWriter(path, table.schema, compression="zstd", store_schema=True) as writer:
        for start in range(0, max(1, table.num_rows), _GROUP_ROWS):
            piece = table.slice(start, _GROUP_ROWS).combine_chunks()
            writer.write_table(piece, row_group_size=_GROUP_ROWS)


def join_tables(tables: Iterable[pa.Table]) -> pa.Table:
    """Return the rows of tables one after the other; a table without columns where there is none.

    Some are joined at a time: a table of a few rows takes more memory for its schema and buffers than for the rows.
    """
    joined = [pa.concat_tables(some).combine_chunks() for some in itertools.batched(tables, _JOINED)]
    return pa.concat_tables(joined) if joined else pa.table({})


def read_table(path: Path, schema: pa.Schema | None = None, where: pc.Expression | None = None) -> pa.Table:
    """Return a table of ours, or only its rows ``where`` is true; the others are not kept in memory.

    Raises DamagedFileError when a column is missing or the file is not Parquet.
    """
    try:
        table = pq.read_table(path, columns=None if schema is None else schema.names, filters=where)
        return table if schema is None else table.cast(schema)
    except (pa.ArrowInvalid, KeyError, OSError) as error:
        raise DamagedFileError(
            f"{path} is not the table it should be ({error}): remove it and run again"
        ) from error
