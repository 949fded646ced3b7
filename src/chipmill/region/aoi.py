"""The area of interest: reading its polygons into degrees, mending what can be mended, refusing what cannot."""

from pathlib import Path
from typing import TYPE_CHECKING, Final

from chipmill.core.errors import AoiError
from chipmill.region.config import Region
from chipmill.region.grid import reproject_shape, utm_epsg

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

_MAX_BYTES: Final = 256 << 20
_SUFFIXES: Final = (".geojson", ".json", ".gpkg", ".parquet", ".shp")


def read_aoi(region: Region) -> "BaseGeometry":
    """Return the AOI as one polygon or multipolygon in degrees (EPSG:4326), buffer added.

    Raises AoiError when the file is missing, holds no polygon, or lies outside the range of degrees.
    """
    import shapely

    if region.aoi.bbox is not None:
        shape: BaseGeometry = shapely.box(*region.aoi.bbox)
    else:
        shape = read_polygons(region.resolve(str(region.aoi.path)))
    if region.aoi.buffer_m:
        shape = _buffered(shape, region.aoi.buffer_m)
    west, south, east, north = shape.bounds
    if not (-180 <= west <= east <= 180 and -90 <= south <= north <= 90):
        raise AoiError(
            f"the AOI of {region.name} spans {west:g}..{east:g}, {south:g}..{north:g}, which are no degrees: "
            "check its CRS, and that longitude comes before latitude"
        )
    return shape


def read_polygons(path: Path) -> "BaseGeometry":
    """Return the union of all polygons of a vector file in degrees (EPSG:4326), invalid rings mended."""
    import pyogrio.raw
    import shapely

    if not path.exists():
        raise AoiError(f"{path} does not exist: give aoi.path relative to the region file, or aoi.bbox")
    if path.suffix.lower() not in _SUFFIXES or path.stat().st_size > _MAX_BYTES:
        raise AoiError(f"{path} is no vector file of at most 256 MiB of the kinds {', '.join(_SUFFIXES)}")
    try:
        meta, _, wkb, _ = pyogrio.raw.read(path)
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError) as error:
        raise AoiError(f"{path} cannot be read as vectors ({error}): save it as GeoJSON or GPKG") from error
    shapes = shapely.make_valid(shapely.from_wkb(wkb))
    parts = [
        part for part in shapely.get_parts(shapely.get_parts(shapes)) if part.geom_type.endswith("Polygon")
    ]
    union = shapely.union_all(parts) if parts else shapely.Polygon()
    if union.is_empty or union.area == 0:
        raise AoiError(
            f"{path} holds no polygon with an area ({len(shapes)} features): draw the area to cover"
        )
    return to_degrees(union, meta.get("crs") or "EPSG:4326")


def to_degrees(shape: "BaseGeometry", crs: str) -> "BaseGeometry":
    """Return a shape of any CRS in degrees (EPSG:4326)."""
    from pyproj import CRS

    epsg = CRS.from_user_input(crs).to_epsg(min_confidence=70)
    if epsg is None:
        raise AoiError(f"the CRS of the AOI has no EPSG code ({crs[:60]}): save it in EPSG:4326")
    return reproject_shape(shape, epsg, 4326)


def _buffered(shape: "BaseGeometry", metres: float) -> "BaseGeometry":
    epsg = utm_epsg(shape.centroid.x, shape.centroid.y)
    return reproject_shape(reproject_shape(shape, 4326, epsg).buffer(metres), epsg, 4326)
