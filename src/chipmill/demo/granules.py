"""The granules of a pass: what one file shows of it. The region lies across a border of UTM zones, and so do they.

The landscape is simulated on one grid, that of the eastern zone. Eastern granules are cut from it; the western one is
the same ground on the grid of its own zone, and overlaps its neighbours as those of Sentinel-2 do. To deliver passes
in other pieces, change `granules`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from chipmill.demo.scenes import Acquisition, Pass

EAST: Final = "EPSG:32633"
"""CRS of the grid of the landscape, of labels and terrain."""
WEST: Final = "EPSG:32632"
MERIDIAN: Final = 0.20
"""Share of the width at which the border between the zones, 12 degrees east, crosses the middle of the region."""
_EAST_FROM: Final = 0.10
_WEST_TO: Final = 0.34


@dataclass(frozen=True, slots=True)
class Granule:
    """One part of a pass."""

    left: int
    """First column of the landscape that it shows."""
    right: int
    """One after the last."""
    crs: str


@dataclass(frozen=True, slots=True)
class Picture:
    """The pixels of a granule and where they lie."""

    pixels: Acquisition
    transform: Affine
    crs: str


def granules(scene: Pass, width: int) -> list[Granule]:
    """Return the granules of `scene` over a landscape of `width` columns, from the east; the last is the western zone's."""
    start = int(width * _EAST_FROM)
    edges = [(start, width)]
    if scene.granules == 2:
        edges = [(start, int(width * 0.58)), (int(width * 0.42), width)]
    return [*(Granule(*edge, EAST) for edge in edges), Granule(0, int(width * _WEST_TO), WEST)]


def cut(whole: Acquisition, granule: Granule, transform: Affine) -> Picture:
    """Return what `granule` shows of the pass `whole`, whose grid has `transform` in EAST; 0 where it shows nothing."""
    if granule.crs == EAST:
        columns = slice(granule.left, granule.right)
        part = Acquisition(whole.bands[:, :, columns], whole.scl[:, columns])
        return Picture(part, transform @ Affine.translation(granule.left, 0), EAST)
    mapping = _mapping(granule, whole.scl.shape[0], transform)
    part = Acquisition(
        np.where(mapping.inside, whole.bands[:, mapping.rows, mapping.columns], np.uint16(0)),
        np.where(mapping.inside, whole.scl[mapping.rows, mapping.columns], np.uint8(0)),
    )
    return Picture(part, mapping.transform, granule.crs)


@dataclass(frozen=True, slots=True)
class _Mapping:
    """Which pixel of the landscape is nearest to each pixel of another zone's grid; arrays `(y, x)`."""

    rows: NDArray[np.intp]
    columns: NDArray[np.intp]
    inside: NDArray[np.bool_]
    """False where there is none; row and column are 0 there."""
    transform: Affine


@lru_cache(maxsize=1)
def _mapping(granule: Granule, height: int, transform: Affine) -> _Mapping:
    """Return the mapping of a granule to the 10 m lattice of its zone: nearest, so that the noise stays as strong.

    The same for all passes of a world, so it is kept. Not by GDAL's warper, which rasterio does not call from two
    threads at a time without warnings.
    """
    from pyproj import Transformer
    from rasterio.transform import array_bounds
    from rasterio.warp import transform_bounds

    step = transform.a
    place = transform @ Affine.translation(granule.left, 0)
    bounds = array_bounds(height, granule.right - granule.left, place)
    west, south, east, north = transform_bounds(EAST, granule.crs, *bounds)
    left, top = np.floor(west / step) * step, np.ceil(north / step) * step
    shape = (int(np.ceil((top - south) / step)), int(np.ceil((east - left) / step)))
    y, x = np.indices(shape)
    back = Transformer.from_crs(granule.crs, EAST, always_xy=True)
    easting, northing = back.transform(left + (x + 0.5) * step, top - (y + 0.5) * step)
    column = np.floor((easting - transform.c) / step).astype(np.intp)
    row = np.floor((transform.f - northing) / step).astype(np.intp)
    inside = (column >= granule.left) & (column < granule.right) & (row >= 0) & (row < height)
    target = Affine(step, 0, left, 0, -step, top)
    return _Mapping(np.where(inside, row, 0), np.where(inside, column, 0), inside, target)
