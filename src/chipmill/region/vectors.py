"""Reading a vector file that a region names: features with their attributes, in the order of the file.

A file is told by its first bytes, for GDAL would follow one in disguise to others. What its features mean is said
where they are used: :mod:`chipmill.region.aoi`, :mod:`chipmill.region.tile_files`, :mod:`chipmill.region.years`,
:mod:`chipmill.dataset.features`.
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from chipmill.core.errors import BadInputError, RegionFileError
from chipmill.core.plain import quoted
from chipmill.region.geoparquet import geoparquet_facts, is_parquet, read_geoparquet

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

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
UNREADABLE: Final = (BadInputError, RuntimeError, ValueError)
"""What :func:`vector_facts` and :func:`read_rows` raise of a file that cannot be read."""


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


def is_vector(path: str) -> bool:
    """Tell by its ending whether a file that may be a raster is a vector file."""
    return Path(path).suffix.lower() in _STARTS


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
        facts = vector_facts(path)
        if missing := [name for name in wanted if name not in facts.has]:
            named = ", ".join(quoted(name) for name in facts.has[:20]) or "none"
            raise error(
                f"{path} has no attribute {quoted(missing[0])}, but {named}: correct {field.rpartition('.')[0]}"
            )
        read = read_rows(path, facts.layer, wanted, date_texts=True)
        shapes = shapely.force_2d(shapely.from_wkb(read.wkb))
    except error:
        raise
    except shapely.errors.ShapelyError as problem:
        raise error(f"{path} holds a ring that is none ({problem}): draw it anew") from problem
    except UNREADABLE as problem:
        raise error(f"{path} cannot be read as vectors ({problem}): save it as GeoJSON or GPKG") from problem
    return Layer(path, facts.crs, read.rows, shapes, read.fields)


@dataclasses.dataclass(frozen=True, slots=True)
class VectorFacts:
    """What a vector file says of itself."""

    crs: str | None
    """WKT or code; None where the file names none."""
    has: tuple[str, ...]
    """Names of its attributes."""
    layer: str | None
    """The layer that is read, the first that has geometries; None where the format has no layers."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Features of a vector file in its order."""

    rows: NDArray[np.int64]
    """Number of each feature in the file, among those that were read where it is GeoParquet."""
    wkb: NDArray[Any]
    """Geometry of each as bytes, None where it has none."""
    fields: dict[str, NDArray[Any]]
    """The attributes that were asked for, one value per feature."""


def layers_remark(path: Path) -> str:
    """Return which of several layers of a vector file is read, "" where there is no choice or it is in disguise.

    Raises BadInputError where the file cannot be read.
    """
    try:
        layers = () if is_parquet(path) or vector_problem(path) else _layers(path)
    except UNREADABLE as problem:
        raise BadInputError(
            f"{path} cannot be read as vectors ({problem}): save it as GeoJSON or GPKG"
        ) from problem
    return f"{path} has the layers {', '.join(layers)}: {layers[0]} is used" if len(layers) > 1 else ""


def _layers(path: Path) -> tuple[str, ...]:
    """Return the names of all layers of a file that have geometries."""
    from pyogrio import list_layers

    return tuple(str(name) for name, kind in list_layers(path) if kind is not None)


def polygons_of(shapes: "BaseGeometry | NDArray[Any]") -> "BaseGeometry":
    """Return the union of all polygons of geometries, crossings mended; it is empty where they have none."""
    import shapely

    parts = shapely.get_parts(shapely.get_parts(shapely.make_valid(shapes)))
    return shapely.union_all([part for part in parts if part.geom_type.endswith("Polygon")])


def vector_facts(path: Path) -> VectorFacts:
    """Return what a vector file says of itself, without a look at :func:`vector_problem`; raises UNREADABLE."""
    from pyogrio import read_info

    if is_parquet(path):
        said = geoparquet_facts(path)
        return VectorFacts(said.crs, said.has, None)
    info = read_info(path, layer=0)
    if info["geometry_type"] is None:
        layers = _layers(path)
        if not layers:
            raise ValueError("no geometries")
        info = read_info(path, layer=layers[0])
    return VectorFacts(info["crs"], tuple(str(name) for name in info["fields"]), str(info["layer_name"]))


def read_rows(
    path: Path,
    layer: str | None,
    columns: Sequence[str],
    bbox: tuple[float, float, float, float] | None = None,
    *,
    date_texts: bool = False,
) -> Rows:
    """Return the features of a vector file; raises UNREADABLE.

    Args:
        path: the file.
        layer: of :func:`vector_facts`.
        columns: attributes wanted, which it has.
        bbox: left, bottom, right, top in the file's CRS; only features near it are read.
        date_texts: dates come as the file spells them, with their zone, where its format has layers.
    """
    from pyogrio.raw import read

    if is_parquet(path):
        table = read_geoparquet(path, columns, bbox)
        return Rows(np.arange(len(table.wkb)), table.wkb, table.fields)
    meta, rows, wkb, values = read(
        path,
        layer=layer,
        columns=list(columns),
        bbox=bbox,
        return_fids=True,
        force_2d=True,
        datetime_as_string=date_texts,
    )
    if wkb is None:
        raise ValueError("no geometries")
    order = np.argsort(rows, kind="stable")  # a spatial index hands features out in an order of its own
    fields = {str(name): column[order] for name, column in zip(meta["fields"], values, strict=True)}
    return Rows(rows[order], wkb[order], fields)
