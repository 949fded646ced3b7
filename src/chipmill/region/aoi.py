"""The area of interest: reading its polygons into degrees, mending what can be mended, refusing what cannot.

Nothing is mended in silence: :func:`aoi_remarks` says in sentences what was done to the file's polygons.
"""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Final

from chipmill.core.errors import AoiError
from chipmill.region.config import Region
from chipmill.region.grid import reproject_shape, utm_epsg
from chipmill.region.vectors import Layer, layers_remark, polygons_of, read_layer

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

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

    layer = read_layer(path, "aoi.path (or aoi.bbox)", error=AoiError)
    remarks = []
    if remark := layers_remark(path):
        remarks.append(remark)
    raw = layer.shapes
    raw = raw[~(shapely.is_missing(raw) | shapely.is_empty(raw))]
    invalid = raw[~shapely.is_valid(raw)]
    union = polygons_of(raw)
    if union.area == 0:
        raise AoiError(
            f"{path} holds no polygon with an area ({len(layer.rows)} features): draw the area to cover"
        )
    if len(invalid):
        remarks.append(
            f"{path}: {len(invalid)} of {len(raw)} polygons were invalid ({shapely.is_valid_reason(invalid[0])}) and "
            "were mended: see that the area is still the one you mean, or mend the file"
        )
    flat = sum(shape.geom_type.endswith(("Point", "LineString")) for shape in raw)
    if flat:
        remarks.append(f"{path}: {flat} of {len(raw)} features are points or lines and were left out")
    return _Polygons(_in_degrees(layer, union, remarks), tuple(remarks))


def _in_degrees(layer: Layer, shape: "BaseGeometry", remarks: list[str]) -> "BaseGeometry":
    """Return a shape of a file in degrees (EPSG:4326), and say where it was converted or its CRS taken for granted."""
    if layer.crs is None:
        remarks.append(f"{layer.path} names no CRS: its coordinates are taken as longitude and latitude")
        return shape
    if layer.epsg is None:
        raise AoiError(f"the CRS of the AOI has no EPSG code ({layer.crs[:60]}): save it in EPSG:4326")
    if layer.epsg != 4326:
        remarks.append(f"{layer.path} is in EPSG:{layer.epsg} and was converted to degrees")
    return reproject_shape(shape, layer.epsg, 4326)


def _buffered(shape: "BaseGeometry", metres: float) -> "BaseGeometry":
    epsg = utm_epsg(shape.centroid.x, shape.centroid.y)
    return reproject_shape(reproject_shape(shape, 4326, epsg).buffer(metres), epsg, 4326)
