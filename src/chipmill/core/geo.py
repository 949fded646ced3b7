"""GeoParquet 1.1: what a table says of its geometry columns, so that any GIS opens it.

Geometries are WKB in longitude and latitude of WGS 84, the default CRS of GeoParquet (OGC:CRS84).
https://geoparquet.org/releases/v1.1.0/
"""

import json
from typing import Any, Final

import numpy as np
import pyarrow as pa

VERSION: Final = "1.1.0"
BBOX: Final = pa.struct([(name, pa.float64()) for name in ("xmin", "ymin", "xmax", "ymax")])
"""Type of a column with the box of each row in degrees, by which readers skip row groups."""

SHAPES: Final = 1024
"""Made or looked at together: a shape takes several times the memory of its row."""


def geo_schema(schema: pa.Schema, table: pa.Table, *columns: str, covering: str | None = None) -> pa.Schema:
    """Return a schema with GeoParquet's metadata for the table that is written by it.

    Args:
        schema: of the file; metadata that it has is kept.
        table: its rows; the WKB columns are looked at for kinds and boxes.
        columns: WKB columns, the primary one first.
        covering: the column of type :data:`BBOX` that has the boxes of the primary one.
    """
    facts = {name: _column_facts(table[name]) for name in columns}
    if covering is not None:
        corners = {name: [covering, name] for name in ("xmin", "ymin", "xmax", "ymax")}
        facts[columns[0]]["covering"] = {"bbox": corners}
    geo = {"version": VERSION, "primary_column": columns[0], "columns": facts}
    return schema.with_metadata({**(schema.metadata or {}), b"geo": json.dumps(geo, sort_keys=True).encode()})


def _column_facts(column: pa.ChunkedArray) -> dict[str, Any]:
    import shapely

    kinds: set[str] = set()
    corners: list[Any] = []
    for start in range(0, len(column), SHAPES):
        shapes = shapely.from_wkb(column.slice(start, SHAPES).drop_null().to_numpy())
        one_of_each = np.unique(shapely.get_type_id(shapes), return_index=True)[1]
        kinds |= {shape.geom_type for shape in shapes[one_of_each]}
        filled = shapes[~shapely.is_empty(shapes)] if len(shapes) else shapes
        if len(filled):
            corners.append(shapely.total_bounds(filled))
    facts: dict[str, Any] = {"encoding": "WKB", "geometry_types": sorted(kinds)}
    if corners:
        low, high = np.min(corners, axis=0), np.max(corners, axis=0)
        facts["bbox"] = [*low[:2].tolist(), *high[2:].tolist()]
    return facts


def boxes(shapes: "np.ndarray[tuple[int], np.dtype[np.object_]]") -> pa.StructArray:
    """Return the box of each shape as a column of type :data:`BBOX`."""
    import shapely

    bounds = shapely.bounds(shapes)
    return pa.StructArray.from_arrays(
        [pa.array(np.ascontiguousarray(bounds[:, axis])) for axis in range(4)], fields=list(BBOX)
    )
