"""The pixel lattice: fixed origin, exact equal pixels, integer windows. Columns count right, rows count down.

All placing of tiles, windows and blocks is integer arithmetic on one lattice per CRS; metres and degrees appear only
where a window becomes a transform or a polygon.
"""

import dataclasses
import math
from collections.abc import Collection
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Self

from affine import Affine

from chipmill.core.errors import GridError
from chipmill.core.store import fingerprint

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox
    from pyproj import Transformer
    from shapely.geometry.base import BaseGeometry

_SNAP_PX: Final = 1e-3
"""Grids that differ by less than this share of a pixel are the same grid (float noise of headers)."""


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class Window:
    """A rectangle of lattice pixels."""

    col_off: int
    row_off: int
    width: int
    height: int

    @property
    def col_end(self) -> int:
        """First column right of the window."""
        return self.col_off + self.width

    @property
    def row_end(self) -> int:
        """First row below the window."""
        return self.row_off + self.height

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) in pixels: the shape of its array."""
        return self.height, self.width

    def intersection(self, other: Self) -> Self | None:
        """Return the common rectangle, or None."""
        left, top = max(self.col_off, other.col_off), max(self.row_off, other.row_off)
        right, bottom = min(self.col_end, other.col_end), min(self.row_end, other.row_end)
        return type(self)(left, top, right - left, bottom - top) if left < right and top < bottom else None

    def contains(self, other: Self) -> bool:
        """Tell whether the other window lies wholly in this one."""
        return (
            self.col_off <= other.col_off
            and self.row_off <= other.row_off
            and other.col_end <= self.col_end
            and other.row_end <= self.row_end
        )

    def padded(self, px: int) -> Self:
        """Return the window grown by ``px`` on each side."""
        return type(self)(self.col_off - px, self.row_off - px, self.width + 2 * px, self.height + 2 * px)


def hull(windows: Collection[Window]) -> Window:
    """Return the smallest window that holds all windows."""
    left, top = min(one.col_off for one in windows), min(one.row_off for one in windows)
    right, bottom = max(one.col_end for one in windows), max(one.row_end for one in windows)
    return Window(left, top, right - left, bottom - top)


@dataclasses.dataclass(frozen=True, slots=True)
class Lattice:
    """A north-up pixel lattice over a whole CRS; pixel (0, 0) has its upper left corner at the origin."""

    epsg: int
    origin_x: float
    """Left edge of column 0, CRS units."""
    origin_y: float
    """Upper edge of row 0, CRS units."""
    res_x: float
    """Pixel width, CRS units, positive."""
    res_y: float
    """Pixel height, CRS units, positive."""

    @property
    def crs(self) -> str:
        """``EPSG:<code>``."""
        return f"EPSG:{self.epsg}"

    @property
    def lattice_id(self) -> str:
        """``<epsg>-<8 hex digits of origin and resolution>``."""
        return _lattice_id(self)

    def transform(self, window: Window) -> Affine:
        """Return the affine transform of a window: (column, row) in it -> CRS units."""
        x = self.origin_x + window.col_off * self.res_x
        y = self.origin_y - window.row_off * self.res_y
        return Affine(self.res_x, 0.0, x, 0.0, -self.res_y, y)

    def bounds(self, window: Window) -> tuple[float, float, float, float]:
        """Return (left, bottom, right, top) of a window in CRS units."""
        left = self.origin_x + window.col_off * self.res_x
        right = self.origin_x + window.col_end * self.res_x
        top = self.origin_y - window.row_off * self.res_y
        bottom = self.origin_y - window.row_end * self.res_y
        return left, bottom, right, top

    def geobox(self, window: Window) -> "GeoBox":
        """Return the GeoBox (shape, transform, CRS) of a window."""
        from odc.geo.geobox import GeoBox

        return GeoBox(window.shape, self.transform(window), self.crs)

    def window(self, bounds: tuple[float, float, float, float]) -> Window:
        """Return the smallest window that covers (left, bottom, right, top) in CRS units."""
        left, bottom, right, top = bounds
        col_off = math.floor((left - self.origin_x) / self.res_x + _SNAP_PX)
        row_off = math.floor((self.origin_y - top) / self.res_y + _SNAP_PX)
        col_end = math.ceil((right - self.origin_x) / self.res_x - _SNAP_PX)
        row_end = math.ceil((self.origin_y - bottom) / self.res_y - _SNAP_PX)
        return Window(col_off, row_off, max(1, col_end - col_off), max(1, row_end - row_off))

    def aligned_window(self, transform: Affine, width: int, height: int, name: str) -> Window:
        """Return the window of a raster that lies on this lattice.

        Raises GridError when its pixels have another size, are rotated, or are off by a part of a pixel.
        """
        columns = (transform.c - self.origin_x) / self.res_x
        rows = (self.origin_y - transform.f) / self.res_y
        same_size = math.isclose(transform.a, self.res_x, rel_tol=_SNAP_PX / max(width, 1)) and math.isclose(
            -transform.e, self.res_y, rel_tol=_SNAP_PX / max(height, 1)
        )
        off = max(abs(columns - round(columns)), abs(rows - round(rows)))
        if transform.b or transform.d or not same_size or off > _SNAP_PX:
            raise GridError(
                f"{name} lies on another pixel grid than {self.lattice_id}: pixels of {transform.a:g} x {-transform.e:g} "
                f"against {self.res_x:g} x {self.res_y:g}, shifted by {off:.3f} px: set resampling, or use grid.like"
            )
        return Window(round(columns), round(rows), width, height)

    def footprint(self, window: Window) -> "BaseGeometry":
        """Return the outline of a window in degrees (EPSG:4326), edges densified."""
        import shapely

        outline = shapely.box(*self.bounds(window))
        longest = max(outline.bounds[2] - outline.bounds[0], outline.bounds[3] - outline.bounds[1])
        return reproject_shape(shapely.segmentize(outline, longest / 8), self.epsg, 4326)


@lru_cache(maxsize=64)
def _lattice_id(lattice: Lattice) -> str:
    """Kept, since every chip id begins with it."""
    shape = (lattice.origin_x, lattice.origin_y, lattice.res_x, lattice.res_y)
    return f"{lattice.epsg}-{fingerprint([float(value).hex() for value in shape])[:8]}"


@lru_cache(maxsize=64)
def projector(source_epsg: int, target_epsg: int) -> "Transformer":
    """Return a transformer of (x, y) = (easting or longitude, northing or latitude) arrays between two CRSs."""
    from pyproj import Transformer

    return Transformer.from_crs(source_epsg, target_epsg, always_xy=True)


def reproject_shape(shape: "BaseGeometry", source_epsg: int, target_epsg: int) -> "BaseGeometry":
    """Return a shape in another CRS, vertex by vertex: densify long edges first."""
    import numpy as np
    import shapely

    if source_epsg == target_epsg:
        return shape
    project = projector(source_epsg, target_epsg)

    def moved(
        points: "np.ndarray[tuple[int, ...], np.dtype[np.float64]]",
    ) -> "np.ndarray[tuple[int, ...], np.dtype[np.float64]]":
        return np.column_stack(project.transform(points[:, 0], points[:, 1]))

    return shapely.transform(shape, moved)


def utm_epsg(longitude: float, latitude: float) -> int:
    """Return the EPSG code of the UTM zone (WGS 84) of a place, the plain 6-degree zones."""
    zone = min(60, int((longitude + 180) // 6) + 1)
    return (32600 if latitude >= 0 else 32700) + zone


def lattice_of(epsg: int, resolution: float) -> Lattice:
    """Return the lattice of a CRS with its origin at (0, 0)."""
    return Lattice(epsg, 0.0, 0.0, resolution, resolution)


def lattice_like(path: str, epsg: int | None, transform: Affine) -> Lattice:
    """Return the lattice that a raster lies on, its origin at the raster's corner; raises GridError if it is rotated."""
    if epsg is None:
        raise GridError(f"{path} names no EPSG code for its CRS: reproject it to one that has a code")
    if transform.b or transform.d or transform.a <= 0 or transform.e >= 0:
        raise GridError(
            f"{path} is not north-up (transform {tuple(transform)[:6]}): warp it to a north-up grid first"
        )
    return Lattice(epsg, transform.c, transform.f, transform.a, -transform.e)
