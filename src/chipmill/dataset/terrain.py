"""Slope, aspect, hillshade and distance from arrays: pure functions of numpy and scipy, no file is opened here.

The file to change for a formula. Heights are ``(y, x)`` in metres, row 0 in the north, NaN where nothing is known; the
derivatives are those of Horn (1981), "Hill shading and the reflectance map", over the eight neighbours, as gdaldem has
them. A pixel is NaN where it or a neighbour is, so that no edge is made up: heights come with a rim of one pixel.
"""

import dataclasses
import math

import numpy as np
from numpy.typing import NDArray

from chipmill.region.grid import Lattice, Window

Floats = NDArray[np.float64]

_FLAT = 1e-9
"""Metres per metre below which ground has no aspect: what is left of the rounding of a warp, not a slope."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Gradient:
    """How heights rise, metres per metre, ``(y, x)``, NaN where unknown."""

    east: Floats
    north: Floats
    """Of the grid: towards row 0, which differs from true north by the convergence of the CRS."""


def gradient(heights: Floats, sides_m: tuple[Floats, Floats]) -> Gradient:
    """Return the gradient of the inner pixels: ``(y + 2, x + 2)`` heights give ``(y, x)``.

    ``sides_m`` are width and height of the inner pixels in metres, each ``(y, 1)``, as :func:`sides_in_metres` returns
    them.
    """
    a, b, c = heights[:-2, :-2], heights[:-2, 1:-1], heights[:-2, 2:]
    d, f = heights[1:-1, :-2], heights[1:-1, 2:]
    g, h, i = heights[2:, :-2], heights[2:, 1:-1], heights[2:, 2:]
    own = np.where(np.isnan(heights[1:-1, 1:-1]), np.nan, 0.0)  # Horn's formula does not ask the pixel itself
    width, height = sides_m
    east = ((c + 2 * f + i) - (a + 2 * d + g)) / (8 * width) + own
    north = ((a + 2 * b + c) - (g + 2 * h + i)) / (8 * height) + own
    return Gradient(east, north)


def slope_deg(ground: Gradient) -> Floats:
    """Return the angle against the horizontal, 0..90 degrees."""
    return np.degrees(np.arctan(np.hypot(ground.east, ground.north)))


def aspect_deg(ground: Gradient) -> Floats:
    """Return the direction in which ground falls, degrees clockwise from the grid's north, 0 <= aspect < 360.

    NaN where it is flat.
    """
    angle = np.degrees(np.arctan2(-ground.east, -ground.north)) % 360.0
    # an angle just below 0 is rounded up to 360 by the remainder
    angle[angle >= 360.0] = 0.0
    angle[np.hypot(ground.east, ground.north) < _FLAT] = np.nan
    return angle


def hillshade(ground: Gradient, azimuth_deg: float, altitude_deg: float) -> Floats:
    """Return 1 + 254 max(0, cos i), i being the angle between the ground's normal and the light: 1..255 as gdaldem.

    ``azimuth_deg`` is where the light comes from, clockwise from north, ``altitude_deg`` how high it stands.
    """
    azimuth, altitude = math.radians(azimuth_deg), math.radians(altitude_deg)
    across = ground.east * math.sin(azimuth) + ground.north * math.cos(azimuth)
    lit = math.sin(altitude) - math.cos(altitude) * across
    cosine = lit / np.sqrt(1 + ground.east**2 + ground.north**2)
    return 1 + 254 * np.maximum(cosine, 0.0)


def distance_m(
    sources: NDArray[np.bool_], margin_px: tuple[int, int], side_m: tuple[float, float], max_m: float
) -> Floats:
    """Return the distance of each inner pixel's centre to that of the nearest source pixel, metres, at most ``max_m``.

    Args:
        sources: ``(y + 2 rows, x + 2 columns)``, True where the distance is 0.
        margin_px: rows and columns of the rim.
        side_m: width and height of a pixel in metres.
        max_m: what lies beyond it counts as this far.
    """
    from scipy.ndimage import distance_transform_edt

    rows, columns = margin_px
    inner = np.s_[rows : sources.shape[0] - rows, columns : sources.shape[1] - columns]
    if not sources.any():
        return np.full(sources[inner].shape, max_m)
    width, height = side_m
    # only where the nearest is: distances of the whole rim would take four times the memory
    near = distance_transform_edt(
        ~sources, sampling=(height, width), return_distances=False, return_indices=True
    )
    row, column = np.mgrid[inner]
    away = np.hypot((near[0][inner] - row) * height, (near[1][inner] - column) * width)
    nearest: Floats = np.minimum(away, max_m)
    return nearest


def sides_in_metres(lattice: Lattice, window: Window) -> tuple[Floats, Floats]:
    """Return width and height of the pixels of each row of a window in metres, ``(y, 1)`` each.

    In a projected CRS that is the resolution in its unit; its scale, within 0.1 % in a UTM zone, is left out. In
    degrees: by the radii of curvature of the CRS's ellipsoid at the row's latitude (Snyder 1987, Map Projections: A
    Working Manual, eqs. 4-19 and 4-21).
    """
    from pyproj import CRS

    crs = CRS.from_epsg(lattice.epsg)
    factor = crs.axis_info[0].unit_conversion_factor  # metres, or radians, per unit
    width = np.full((window.height, 1), lattice.res_x * factor)
    height = np.full((window.height, 1), lattice.res_y * factor)
    if not crs.is_geographic or crs.ellipsoid is None:
        return width, height
    rows = window.row_off + np.arange(window.height, dtype=np.float64).reshape(-1, 1) + 0.5
    latitude = (lattice.origin_y - rows * lattice.res_y) * factor
    major, minor = crs.ellipsoid.semi_major_metre, crs.ellipsoid.semi_minor_metre
    squared = 1 - (minor / major) ** 2
    bent = 1 - squared * np.sin(latitude) ** 2
    return width * major * np.cos(latitude) / np.sqrt(bent), height * major * (1 - squared) / bent**1.5
