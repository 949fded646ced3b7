"""Reading a vector file that a region names: features with their attributes, in the order of the file.

A file is told by its first bytes, for GDAL would follow one in disguise to others. What its features mean is said
where they are used: :mod:`chipmill.region.aoi`, :mod:`chipmill.region.tile_files`, :mod:`chipmill.region.years`.
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from chipmill.core.errors import BadInputError, RegionFileError
from chipmill.core.plain import quoted
from chipmill.region.geoparquet import is_parquet, read_geoparquet

_STARTS: Final[dict[str, tuple[bytes, ...]]] = {
    ".geojson": (b"{",),
    ".json": (b"{",),
    ".gpkg": (b"SQLite format 3\0",),
    ".parquet": (b"PAR1",),
    ".shp": (b"\x00\x00\x27\x0a",),
    ".fgb": (b"fgb\x03fgb",),
}
_LOOKED_AT: Final = 1024
_MAX_BYTES: Final = 256 << 20
_SURE_PCT: Final = 70
"""How sure pyproj must be of the EPSG code of a CRS that is written out."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """The features of the first layer of a vector file."""

    path: Path
    crs: str | None
    """WKT or code; None where the file names none. x is easting or longitude."""
    rows: NDArray[np.int64]
    """Number of each feature in the file."""
    shapes: NDArray[Any]
    """Geometries without height, None where a feature has none."""
    fields: dict[str, NDArray[Any]]
    """The attributes that were asked for, one value per feature; dates are texts."""
    layers: tuple[str, ...]
    """Names of all layers of the file that have geometries."""

    @property
    def epsg(self) -> int | None:
        """EPSG code of the CRS, None where it has none."""
        from pyproj import CRS

        return None if self.crs is None else CRS.from_user_input(self.crs).to_epsg(min_confidence=_SURE_PCT)

    def sure_epsg(self) -> int:
        """Return the EPSG code; raises RegionFileError where it has none."""
        if (epsg := self.epsg) is None:
            problem = "a CRS without EPSG code" if self.crs else "no CRS"
            raise RegionFileError(f"{self.path} names {problem}: save it in EPSG:4326, which it then says")
        return epsg

    def value[T](self, row: int, name: str, read: Callable[[Any], T]) -> T:
        """Return what ``read`` makes of an attribute of a feature; raises RegionFileError that names both."""
        try:
            return read(self.fields[name][row])
        except ValueError as error:
            raise RegionFileError(
                f"{self.path}: feature {self.rows[row]}: {quoted(name)}: {error}: correct it"
            ) from error


def vector_problem(path: Path) -> str:
    """Return why a file is not opened as vectors, "" where it is: it must be what its ending says."""
    starts = _STARTS.get(path.suffix.lower())
    if starts is None or not path.is_file():
        return "" if starts is not None else f"its ending is none of {', '.join(_STARTS)}"
    with path.open("rb") as stream:
        head = stream.read(_LOOKED_AT)
    if path.suffix.lower() in (".geojson", ".json"):
        head = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    return "" if head.startswith(starts) else f"its content is not that of a {path.suffix} file"


def read_layer(
    path: Path, field: str, columns: Sequence[str] = (), error: type[BadInputError] = RegionFileError
) -> Layer:
    """Return the features of a vector file that the field ``field`` of a region file names.

    Args:
        path: GeoJSON, GPKG, FlatGeobuf, GeoParquet or Shapefile of at most 256 MiB; of several layers the first is read.
        field: its name, for messages.
        columns: attributes wanted.
        error: what is raised.

    Raises:
        BadInputError: of the kind ``error``, where the file is missing, too large, in disguise or broken, or lacks an
            attribute.
    """
    import shapely

    if not path.exists():
        raise error(f"{path} does not exist: give {field} relative to the region file")
    if why := vector_problem(path):
        raise error(f"{path} cannot be read as vectors ({why}): save it as GeoJSON or GPKG")
    if path.stat().st_size > _MAX_BYTES:
        raise error(
            f"{path} has {path.stat().st_size >> 20} MiB, {field} takes 256 MiB at most: thin it, or split it"
        )
    wanted = list(dict.fromkeys(columns))
    try:
        crs, has, rows, wkb, fields, layers = (
            _parquet(path, wanted) if is_parquet(path) else _ogr(path, wanted)
        )
        shapes = shapely.force_2d(shapely.from_wkb(wkb))
    except shapely.errors.ShapelyError as problem:
        raise error(f"{path} holds a ring that is none ({problem}): draw it anew") from problem
    except (BadInputError, RuntimeError, ValueError) as problem:
        raise error(f"{path} cannot be read as vectors ({problem}): save it as GeoJSON or GPKG") from problem
    if missing := [name for name in wanted if name not in has]:
        named = ", ".join(quoted(name) for name in has[:20]) or "none"
        raise error(
            f"{path} has no attribute {quoted(missing[0])}, but {named}: correct {field.rpartition('.')[0]}"
        )
    return Layer(path, crs, rows, shapes, fields, layers)


type _Parts = tuple[
    str | None, Sequence[str], NDArray[np.int64], NDArray[Any], dict[str, NDArray[Any]], tuple[str, ...]
]


def _parquet(path: Path, columns: Sequence[str]) -> _Parts:
    table = read_geoparquet(path, columns)
    return table.facts.crs, table.facts.has, np.arange(len(table.wkb)), table.wkb, table.fields, ()


def _ogr(path: Path, columns: Sequence[str]) -> _Parts:
    from pyogrio import list_layers, read_info
    from pyogrio.raw import read

    layers = tuple(str(name) for name, kind in list_layers(path) if kind is not None)
    layer = layers[0] if layers else None
    has = [str(name) for name in read_info(path, layer=layer)["fields"]]
    meta, rows, wkb, values = read(
        path, layer=layer, columns=list(columns), return_fids=True, force_2d=True, datetime_as_string=True
    )
    if wkb is None:
        raise ValueError("no geometries")
    order = np.argsort(rows, kind="stable")
    fields = {str(name): column[order] for name, column in zip(meta["fields"], values, strict=True)}
    return meta["crs"], has, rows[order], wkb[order], fields, layers
