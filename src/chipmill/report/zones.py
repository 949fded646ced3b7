"""One picture of a region that lies in several UTM zones, each of which has a raster of its own.

What is true of files stays with them; here they are only looked at: small, in the projection of the largest.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from chipmill.core.errors import AssetReadError
from chipmill.report.images import Small, band_names, opened, raster_shape, read_small

if TYPE_CHECKING:
    from affine import Affine


def pixels_of(paths: Sequence[Path]) -> int:
    """Return how many pixels rasters have together, which is what a picture of them costs to read."""
    return sum(math.prod(raster_shape(path)) for path in paths)


def read_together(
    paths: Sequence[Path], bands: Sequence[str], side_px: int, *, smooth: bool = False
) -> Small:
    """Read the named bands of rasters of several zones into one picture, at most ``side_px`` on the longer side.

    One raster is read as it is, as by ``read_small``. Several are warped to the CRS of the largest, where the pixels
    are about as large as read_small would make them; where two hold a place, the earlier one counts. ``smooth``
    averages the valid pixels below each pixel of the picture, else the nearest is taken. The bands have one type and
    nodata in all of them, as the stacks of a dataset and the layers of a map do. Raises AssetReadError where a file
    or a band cannot be read.
    """
    if len(paths) == 1:
        return read_small(paths[0], bands, side_px, smooth=smooth)
    crs, transform, shape = _frame(paths, side_px)
    together: Small | None = None
    for path in paths:
        one = _read(
            path, bands, {"crs": crs, "transform": transform, "height": shape[0], "width": shape[1]}, smooth
        )
        if together is None:
            together = one
        else:
            data = np.where(together.valid, together.data, one.data)
            together = Small(data, together.valid | one.valid)
    if together is None:
        raise ValueError("expected at least one raster")
    return together


def _frame(paths: Sequence[Path], side_px: int) -> tuple[Any, "Affine", tuple[int, int]]:
    """Return CRS, transform and shape of the picture."""
    import rasterio
    from affine import Affine
    from rasterio.warp import transform_bounds

    places = []
    for path in paths:
        with opened(path), rasterio.open(path) as source:
            places.append((source.height * source.width, source.crs, source.bounds, source.transform.a))
    _, crs, _, step = max(places, key=lambda one: one[0])
    edges = np.array([transform_bounds(its, crs, *bounds) for _, its, bounds, _ in places])
    (west, south), (east, north) = edges[:, :2].min(axis=0), edges[:, 2:].max(axis=0)
    step = max(step, (east - west) / side_px, (north - south) / side_px)
    shape = math.ceil((north - south) / step - 1e-6), math.ceil((east - west) / step - 1e-6)
    return crs, Affine(step, 0, west, 0, -step, north), shape


def _read(path: Path, bands: Sequence[str], place: dict[str, Any], smooth: bool) -> Small:
    import rasterio
    from rasterio.enums import Resampling
    from rasterio.vrt import WarpedVRT

    names = band_names(path)
    missing = [band for band in bands if band not in names]
    if missing:
        raise AssetReadError(
            f"{path} has no band {missing[0]}, only {', '.join(names)}: make the report again"
        )
    how = Resampling.average if smooth else Resampling.nearest
    with opened(path), rasterio.open(path) as source, WarpedVRT(source, resampling=how, **place) as view:
        indexes = [names.index(band) + 1 for band in bands]
        data = view.read(indexes)
        fill = np.array([np.nan if (own := view.nodatavals[at - 1]) is None else own for at in indexes])
    return Small(data, np.all(data != fill[:, None, None], axis=0))
