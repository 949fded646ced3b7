"""GeoParquet files that the user names, read with pyarrow: GDAL as it comes with our wheels has no such driver.

The file to change for another encoding of geometries. Everything else that is a vector file goes through pyogrio.
Source of the format: the GeoParquet specification 1.1.0 (file metadata ``geo``).
"""

import contextlib
import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from chipmill.core.errors import BadInputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from pyarrow.parquet import ParquetFile

_LONGITUDE_LATITUDE: Final = "OGC:CRS84"
"""The CRS of a file that names none, by the specification."""
_BATCH_ROWS: Final = 16_384


@dataclasses.dataclass(frozen=True, slots=True)
class GeoFacts:
    """What a GeoParquet file says of itself."""

    geometry: str
    """Name of the column that holds the geometries."""
    crs: str | None
    """WKT; None where the file says that it is unknown. x is longitude or easting, y latitude or northing."""
    has: tuple[str, ...]
    """Names of all other columns."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class GeoTable:
    """Features of a GeoParquet file in the order of its rows."""

    facts: GeoFacts
    wkb: "NDArray[Any]"
    """Geometry of each feature as bytes, None where it has none."""
    fields: "dict[str, NDArray[Any]]"
    """The columns that were asked for, as objects; None where a value is null."""


def is_parquet(path: Path) -> bool:
    """Tell by its ending whether a vector file is read here."""
    return path.suffix.lower() == ".parquet"


def geoparquet_facts(path: Path) -> GeoFacts:
    """Return what a file says of itself, without reading a feature; raises BadInputError as :func:`read_geoparquet`."""
    with _opened(path) as file:
        return _facts(file, path)


def read_geoparquet(
    path: Path, columns: Sequence[str] = (), bbox: tuple[float, float, float, float] | None = None
) -> GeoTable:
    """Return the features of a GeoParquet file; columns that it does not have are left out.

    Args:
        path: the file; its first bytes should have been looked at by :func:`chipmill.region.vectors.vector_problem`.
        columns: attributes wanted.
        bbox: left, bottom, right, top in the file's CRS; only features whose bounds meet it are kept. Features without
            geometry are kept where it is None.

    Raises:
        BadInputError: the file cannot be read, or is no GeoParquet with geometries as WKB.
    """
    import numpy as np

    with _opened(path) as file:
        facts = _facts(file, path)
        wanted = [name for name in dict.fromkeys(columns) if name in facts.has]
        parts = list(_batches(file, facts.geometry, wanted, bbox))
    nothing = np.empty(0, object)
    wkb = np.concatenate([nothing, *(part[0] for part in parts)])
    fields = {name: np.concatenate([nothing, *(part[1][name] for part in parts)]) for name in wanted}
    return GeoTable(facts, wkb, fields)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator["ParquetFile"]:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from shapely.errors import ShapelyError

    try:
        with pq.ParquetFile(path) as file:
            yield file
    except (pa.ArrowException, ShapelyError, OSError) as error:
        raise BadInputError(f"{path} cannot be read as GeoParquet ({error}): write it anew") from error


def _facts(file: "ParquetFile", path: Path) -> GeoFacts:
    from pyproj import CRS
    from pyproj.exceptions import CRSError

    try:
        geo = json.loads((file.schema_arrow.metadata or {})[b"geo"])
        name = str(geo["primary_column"])
        column = geo["columns"][name]
        file.schema_arrow.field(name)
        encoding = str(column["encoding"])
        given = column.get("crs", _LONGITUDE_LATITUDE)
        crs = None if given is None else str(CRS.from_user_input(given).to_wkt())
    except (KeyError, TypeError, ValueError, CRSError) as error:
        raise BadInputError(
            f"{path} is Parquet without the facts of GeoParquet ({error}): write it with geometries, for example by "
            "geopandas' to_parquet"
        ) from error
    if encoding != "WKB":
        raise BadInputError(
            f"{path} holds geometries as {encoding}, expected WKB: write it with that encoding"
        )
    return GeoFacts(name, crs, tuple(one for one in file.schema_arrow.names if one != name))


def _batches(
    file: "ParquetFile",
    geometry: str,
    wanted: Sequence[str],
    bbox: tuple[float, float, float, float] | None,
) -> "Iterator[tuple[NDArray[Any], dict[str, NDArray[Any]]]]":
    import numpy as np

    for batch in file.iter_batches(_BATCH_ROWS, columns=[geometry, *wanted]):
        wkb = _objects(batch.column(geometry).to_pylist())
        near = np.ones(len(wkb), dtype=bool) if bbox is None else _near(wkb, bbox)
        fields = {name: _objects(batch.column(name).to_pylist())[near] for name in wanted}
        yield wkb[near], fields


def _near(wkb: "NDArray[Any]", bbox: tuple[float, float, float, float]) -> "NDArray[np.bool_]":
    import shapely

    # a geometry that is none has bounds of NaN, which meet nothing
    left, bottom, right, top = shapely.bounds(shapely.from_wkb(wkb)).T
    near: NDArray[np.bool_] = (left <= bbox[2]) & (right >= bbox[0]) & (bottom <= bbox[3]) & (top >= bbox[1])
    return near


def _objects(values: list[Any]) -> "NDArray[Any]":
    import numpy as np

    # not np.array: it would make a matrix of values that are lists
    objects = np.empty(len(values), dtype=object)
    objects[:] = values
    return objects
