"""The area of interest: reading its polygons into degrees, mending what can be mended, refusing what cannot.

Nothing is mended in silence: :func:`aoi_remarks` says in sentences what was done to the file's polygons.
"""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from chipmill.core.errors import AoiError
from chipmill.region.config import Region
from chipmill.region.grid import reproject_shape, utm_epsg
from chipmill.region.vectors import vector_problem

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

_MAX_BYTES: Final = 256 << 20
_SUFFIXES: Final = (".geojson", ".json", ".gpkg", ".parquet", ".shp")
Bounds = tuple[float, float, float, float]
"""West, south, east, north."""
_EARTH: Final[Bounds] = (-180.0, -90.0, 180.0, 90.0)


@dataclasses.dataclass(frozen=True, slots=True)
class _Polygons:
    """What a vector file holds."""

    shape: "BaseGeometry"
    """Union of all polygons, degrees."""
    remarks: tuple[str, ...]
    """What was mended, converted or left out."""


def read_aoi(region: Region) -> "BaseGeometry":
    """Return the AOI as one polygon or multipolygon in degrees (EPSG:4326), buffer added.

    Raises AoiError when the file is missing, holds no polygon, or lies outside the range of degrees.
    """
    import shapely

    if region.aoi.bbox is not None:
        shape: BaseGeometry = shapely.box(*region.aoi.bbox)
    else:
        shape = _read_file(region.resolve(str(region.aoi.path))).shape
    _refuse_no_degrees(region, shape, "check its CRS, and that longitude comes before latitude")
    if region.aoi.buffer_m:
        shape = _buffered(shape, region.aoi.buffer_m)
        _refuse_no_degrees(region, shape, "lower aoi.buffer_m")
    return shape


def aoi_remarks(region: Region) -> tuple[str, ...]:
    """Return what was mended, converted or left out when the AOI's file was read, one sentence each; none for a bbox.

    Raises AoiError as :func:`read_aoi` does for the file itself.
    """
    return () if region.aoi.path is None else _read_file(region.resolve(region.aoi.path)).remarks


def swap_hint(bounds: Bounds, target: Bounds = _EARTH) -> str:
    """Return "" or a half-sentence that longitude and latitude look swapped.

    They do where ``bounds`` with its axes swapped are degrees and meet ``target``, both west, south, east, north.
    """
    west, south, east, north = bounds
    turned = (south, west, north, east)
    across = turned[0] <= target[2] and turned[2] >= target[0]
    along = turned[1] <= target[3] and turned[3] >= target[1]
    return " (latitude and longitude look swapped)" if _are_degrees(turned) and across and along else ""


def shown_bounds(bounds: Bounds) -> str:
    """Return ``14.5..14.7 east, 46..46.1 north`` for messages."""
    west, south, east, north = bounds
    return f"{west:g}..{east:g} east, {south:g}..{north:g} north"


def _are_degrees(bounds: Bounds) -> bool:
    west, south, east, north = bounds
    return -180 <= west <= east <= 180 and -90 <= south <= north <= 90


def _refuse_no_degrees(region: Region, shape: "BaseGeometry", remedy: str) -> None:
    if not _are_degrees(shape.bounds):
        raise AoiError(
            f"the AOI of {region.name} spans {shown_bounds(shape.bounds)}, which are no degrees"
            f"{swap_hint(shape.bounds)}: {remedy}"
        )


def _read_file(path: Path) -> _Polygons:
    import shapely

    wkb, meta, remarks = _read_vectors(path)
    try:
        raw = shapely.from_wkb(wkb)
    except shapely.errors.ShapelyError as error:
        raise AoiError(f"{path} holds a ring that is none ({error}): draw the area anew") from error
    raw = raw[~(shapely.is_missing(raw) | shapely.is_empty(raw))]
    invalid = raw[~shapely.is_valid(raw)]
    parts = shapely.get_parts(shapely.get_parts(shapely.make_valid(raw)))
    union = shapely.union_all([part for part in parts if part.geom_type.endswith("Polygon")])
    if union.is_empty or union.area == 0:
        raise AoiError(f"{path} holds no polygon with an area ({len(wkb)} features): draw the area to cover")
    if len(invalid):
        remarks.append(
            f"{path}: {len(invalid)} of {len(raw)} polygons were invalid ({shapely.is_valid_reason(invalid[0])}) and "
            "were mended: see that the area is still the one you mean, or mend the file"
        )
    flat = sum(shape.geom_type.endswith(("Point", "LineString")) for shape in raw)
    if flat:
        remarks.append(f"{path}: {flat} of {len(raw)} features are points or lines and were left out")
    return _Polygons(_in_degrees(path, union, meta.get("crs"), remarks), tuple(remarks))


def _read_vectors(path: Path) -> tuple[Any, dict[str, Any], list[str]]:
    """Return the geometries of the first layer of a file as WKB, its facts, and what is to be said of it."""
    import pyogrio.raw

    if not path.exists():
        raise AoiError(f"{path} does not exist: give aoi.path relative to the region file, or aoi.bbox")
    if path.suffix.lower() not in _SUFFIXES or path.stat().st_size > _MAX_BYTES:
        raise AoiError(f"{path} is no vector file of at most 256 MiB of the kinds {', '.join(_SUFFIXES)}")
    if why := vector_problem(path):
        raise AoiError(f"{path} cannot be read as vectors ({why}): save it as GeoJSON or GPKG")
    try:
        layers = [str(name) for name, kind in pyogrio.list_layers(path) if kind is not None]
        meta, _, wkb, _ = pyogrio.raw.read(path, layer=layers[0] if layers else None, columns=[])
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError) as error:
        raise AoiError(f"{path} cannot be read as vectors ({error}): save it as GeoJSON or GPKG") from error
    if wkb is None:
        raise AoiError(f"{path} holds no polygon with an area (no geometries): draw the area to cover")
    more = [f"{path} has the layers {', '.join(layers)}: {layers[0]} is used"] if len(layers) > 1 else []
    return wkb, meta, more


def _in_degrees(path: Path, shape: "BaseGeometry", crs: str | None, remarks: list[str]) -> "BaseGeometry":
    """Return a shape of a file in degrees (EPSG:4326), and say where it was converted or its CRS taken for granted."""
    from pyproj import CRS

    if crs is None:
        remarks.append(f"{path} names no CRS: its coordinates are taken as longitude and latitude")
        return shape
    epsg = CRS.from_user_input(crs).to_epsg(min_confidence=70)
    if epsg is None:
        raise AoiError(f"the CRS of the AOI has no EPSG code ({crs[:60]}): save it in EPSG:4326")
    if epsg != 4326:
        remarks.append(f"{path} is in EPSG:{epsg} and was converted to degrees")
    return reproject_shape(shape, epsg, 4326)


def _buffered(shape: "BaseGeometry", metres: float) -> "BaseGeometry":
    epsg = utm_epsg(shape.centroid.x, shape.centroid.y)
    return reproject_shape(reproject_shape(shape, 4326, epsg).buffer(metres), epsg, 4326)
