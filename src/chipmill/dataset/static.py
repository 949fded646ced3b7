"""Static layers (elevation and the like): a raster of the user's, warped once onto a tile's grid."""

import math
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.io import DatasetReader
from rasterio.warp import Resampling, reproject

from chipmill.core.errors import AssetMismatchError
from chipmill.dataset.rasters import crs_of, saturate
from chipmill.imagery.sources import open_asset
from chipmill.region.dataset import Static
from chipmill.region.tiles import Tile


def warp_static(layer: Static, location: str, tile: Tile) -> tuple[NDArray[Any], int]:
    """Return a layer on a tile's grid, ``(1, y, x)`` in ``layer.out.dtype``, and how many pixels were saturated.

    The source's own scale and offset are applied first; stored value x ``layer.out.scale`` = physical value. Where
    the source is nodata or ends, the pixel is ``layer.out.nodata``. A source on the same grid passes unchanged.
    Raises AssetReadError as :func:`chipmill.imagery.sources.open_asset`, AssetMismatchError where it has no CRS.
    """
    with open_asset(location) as dataset:
        if dataset.crs is None:
            raise AssetMismatchError(
                f"static layer {layer.name}: {location} has no CRS: write it into the file"
            )
        values = _warped(dataset, tile, Resampling[layer.resampling])
        values *= dataset.scales[0] / layer.out.scale
        values += dataset.offsets[0] / layer.out.scale
    stored, lost = saturate(values, layer.out.dtype, layer.out.nodata)
    return stored[np.newaxis], lost


def _warped(dataset: DatasetReader, tile: Tile, resampling: Resampling) -> NDArray[np.float64]:
    values = np.full(tile.shape, math.nan, dtype=np.float64)
    # double precision: 32-bit integers and metres with decimals both survive it
    reproject(
        rasterio.band(dataset, 1),
        values,
        dst_transform=tile.transform,
        dst_crs=crs_of(tile.lattice.epsg),
        dst_nodata=math.nan,
        resampling=resampling,
    )
    return values
