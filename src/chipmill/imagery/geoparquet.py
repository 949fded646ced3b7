"""Item lists as stac-geoparquet: read as raw items, row group by row group, and written by `chipmill index`.

The file to change for another spelling of the columns. Rows outside the time and place that are asked for are left out
by their columns before an item is made of them; whoever asked filters again, exactly.
"""

import datetime as dt
import decimal
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from chipmill.core.errors import ItemSearchError
from chipmill.core.store import atomic_path
from chipmill.imagery.items import mapping
from chipmill.region.aoi import Bounds
from chipmill.region.slots import TimeRange

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow.compute import Expression
    from pyarrow.dataset import Fragment

type Json = dict[str, Any]
_MAX_ITEMS: Final = 200_000
"""Of one search; beyond it a STAC API is the right source."""
_ROWS: Final = 4096
_TOP: Final = frozenset({"type", "stac_version", "stac_extensions", "id", "collection", "links"})
"""Columns that stand in an item itself; geometry, bbox and assets need work, all others are properties."""
_PLACED: Final = ("id", "collection", "geometry", "bbox", "datetime", "start_datetime")
"""Columns that say where and when an item is."""


def parquet_items(
    source: Path | io.RawIOBase, name: str, *, collection: str | None, time: TimeRange, bounds: Bounds
) -> Iterator[Json]:
    """Yield the raw items of a stac-geoparquet file that may lie in a time range and box.

    Args:
        source: a path, or an opened file, of which only the parts that may hold something are read.
        name: what errors call it.
        collection: that of the items; None takes every one.
        time: half-open.
        bounds: west, south, east, north in degrees.

    Where none lies there, all are given without their assets: whoever asked can then say where and when the file has
    something. Raises ItemSearchError where it is no stac-geoparquet, is damaged, or gives too many.
    """
    import pyarrow as pa
    import pyarrow.dataset as ds
    from pyarrow.fs import LocalFileSystem

    try:
        form = ds.ParquetFileFormat()
        if isinstance(source, Path):
            table = form.make_fragment(str(source), filesystem=LocalFileSystem())
        else:
            table = form.make_fragment(pa.PythonFile(source, mode="r"))
        schema = table.physical_schema
        columns = _checked(schema, name)
        count = 0
        for condition, wanted in (
            (_condition(schema, collection, time, bounds), columns),
            (_of_collection(schema, collection), [one for one in _PLACED if one in columns]),
        ):
            for item in _items(table, condition, wanted):
                count += 1
                if count > _MAX_ITEMS:
                    raise ItemSearchError(
                        f"{name} gives more than {_MAX_ITEMS:,} items: serve it by a STAC API instead"
                    )
                yield item
            if count:
                return
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        if isinstance(error, ItemSearchError):
            raise
        raise ItemSearchError(
            f"{name} cannot be read as stac-geoparquet ({' '.join(str(error).split())}): mend or replace the file"
        ) from error


def _checked(schema: "pa.Schema", name: str) -> list[str]:
    missing = [column for column in ("id", "geometry", "assets") if column not in schema.names]
    if missing:
        raise ItemSearchError(
            f"{name} is Parquet, but no stac-geoparquet: it has no column {' and no '.join(missing)}: "
            "make it with stac-geoparquet or chipmill index"
        )
    return list(dict.fromkeys(schema.names))


def _of_collection(schema: "pa.Schema", collection: str | None) -> "Expression":
    import pyarrow.compute as pc

    if collection is None:
        return pc.scalar(True)
    return pc.field("collection") == collection if "collection" in schema.names else pc.scalar(False)


def _condition(schema: "pa.Schema", collection: str | None, time: TimeRange, bounds: Bounds) -> "Expression":
    """Return what a row must meet; where a column is missing or null the row is kept."""
    import pyarrow as pa
    import pyarrow.compute as pc

    found = _of_collection(schema, collection)
    kind = schema.field("datetime").type if "datetime" in schema.names else None
    if kind is not None and pa.types.is_timestamp(kind):
        when = pc.field("datetime")
        ends = [one if kind.tz else one.replace(tzinfo=None) for one in (time.start, time.end)]
        start, end = (pa.scalar(one, kind) for one in ends)
        found &= when.is_null() | ((when >= start) & (when < end))
    kind = schema.field("bbox").type if "bbox" in schema.names else None
    if kind is not None and pa.types.is_struct(kind) and {"xmin", "ymin", "xmax", "ymax"} <= set(kind.names):
        west, south, east, north = (pc.field("bbox", one) for one in ("xmin", "ymin", "xmax", "ymax"))
        beside = (west <= bounds[2]) & (east >= bounds[0])
        # a box over the antimeridian begins east of where it ends
        place = (south <= bounds[3]) & (north >= bounds[1]) & (beside | (west > east))
        found &= west.is_null(nan_is_null=True) | place
    return found


def _items(table: "Fragment", condition: "Expression", columns: Sequence[str]) -> Iterator[Json]:
    batches = table.to_batches(
        columns=list(columns), filter=condition, batch_size=_ROWS, batch_readahead=2, use_threads=False
    )
    for batch in batches:
        for row in _plain(batch).to_pylist():
            yield _item(row)


def _plain(batch: "pa.RecordBatch") -> "pa.RecordBatch":
    """Return a batch whose times are in microseconds, which Python has, and whose geometries are bytes."""
    import pyarrow as pa

    columns = []
    for column in batch.columns:
        plain = column.storage if isinstance(column, pa.ExtensionArray) else column
        if pa.types.is_timestamp(plain.type):
            plain = plain.cast(pa.timestamp("us", plain.type.tz), safe=False)
        columns.append(plain)
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def _item(row: Mapping[str, Any]) -> Json:
    """Return a row as a STAC item of plain JSON values; what is null is left out."""
    item: Json = {name: _json(row[name]) for name in _TOP if row.get(name) is not None}
    item |= {"geometry": _geometry(row.get("geometry")), "assets": _json(row.get("assets") or {})}
    if row.get("bbox") is not None:
        item["bbox"] = _box(row["bbox"])
    properties = {
        name: _json(value)
        for name, value in row.items()
        if name not in _TOP and name not in ("geometry", "bbox", "assets", "properties") and value is not None
    }
    nested = row.get("properties")  # some writers keep them together
    item["properties"] = _json(mapping(nested)) | properties
    return item


def _geometry(wkb: Any) -> Json | None:
    import shapely

    if not isinstance(wkb, bytes):
        return None
    try:
        return dict(shapely.geometry.mapping(shapely.from_wkb(wkb)))
    except shapely.errors.ShapelyError:
        return None  # as in a JSON item without one: the search says so and leaves it out


def _box(box: Any) -> list[Any]:
    if not isinstance(box, Mapping):
        return list(box)
    return [box[name] for name in ("xmin", "ymin", "zmin", "xmax", "ymax", "zmax") if name in box]


def _json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _json(one) for key, one in value.items() if one is not None}
    if isinstance(value, list | tuple):
        return [_json(one) for one in value]
    if isinstance(value, dt.datetime):
        utc = value.astimezone(dt.UTC) if value.tzinfo else value
        digits = (
            "seconds" if not utc.microsecond else "microseconds" if utc.microsecond % 1000 else "milliseconds"
        )
        return f"{utc.replace(tzinfo=None).isoformat(timespec=digits)}Z"
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, decimal.Decimal):
        return float(value)
    return value.hex() if isinstance(value, bytes) else value


def write_parquet_items(path: Path, items: Sequence[Json]) -> None:
    """Write items as stac-geoparquet, atomically: the same items give the same bytes."""
    import stac_geoparquet.arrow as sga

    with atomic_path(path) as temp:
        sga.to_parquet(sga.parse_stac_items_to_arrow(items), temp, compression="zstd")
