"""Static layers: a raster of the user's, warped once onto a tile's grid, and what is derived from it.

The file to change for where the pixels come from; the formulas are in :mod:`chipmill.dataset.terrain`. What is derived
needs neighbours: it is made with a rim around the tile, so that tiles fit together as if they were one raster.
"""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.io import DatasetReader
from rasterio.warp import Resampling, reproject, transform

from chipmill.core.errors import AssetMismatchError, BadInputError
from chipmill.dataset.features import burn, outline, read_features, vector_crs
from chipmill.dataset.rasters import beyond, crs_of, saturate
from chipmill.dataset.terrain import (
    aspect_deg,
    distance_m,
    gradient,
    hillshade,
    sides_in_metres,
    slope_deg,
)
from chipmill.imagery.sources import open_asset
from chipmill.region.config import Region
from chipmill.region.layers import Static
from chipmill.region.tiles import Tile
from chipmill.region.vectors import is_vector

_MAX_RIM_PX: Final = 2048
"""Widest rim for distances: the memory of a tile grows with its square."""


def warp_static(layer: Static, location: str, tile: Tile) -> tuple[NDArray[Any], int]:
    """Return a layer on a tile's grid, ``(1, y, x)`` in ``layer.stored.dtype``, and how many pixels were saturated.

    The source's own scale and offset are applied first; stored value x ``layer.stored.scale`` = physical value. Where
    the source is nodata or ends, the pixel is ``layer.stored.nodata``. A source on the same grid passes unchanged.

    Raises:
        AssetReadError: as :func:`chipmill.imagery.sources.open_asset`.
        AssetMismatchError: it has no CRS, or no such band.
        BadInputError: a vector file that cannot be read, or distances that need too wide a rim or metres.
    """
    _refuse_wrong_kind(layer, location)
    if layer.derive == "distance":
        values = _distance(layer, location, tile) / layer.stored.scale
    elif layer.derive is not None:
        values = _derived(layer, location, tile) / layer.stored.scale
    else:
        values = _plain(layer, location, tile)
    stored, lost = saturate(values, layer.stored.dtype, layer.stored.nodata)
    return stored[np.newaxis], lost


def check_static_layers(region: Region, tiles: Sequence[Tile]) -> None:
    """Look at what the files of static layers say of themselves before any work; no pixel is read.

    Raises as :func:`warp_static`: what is found here would fail every tile.
    """
    some = {tile.lattice: tile for tile in tiles}
    for layer in region.static:
        location = str(region.resolve(layer.path))
        _refuse_wrong_kind(layer, location)
        if layer.derive == "distance":
            for tile in some.values():
                _rim(layer, tile)
        if is_vector(location):
            vector_crs(Path(location), outline(location))
            continue
        with open_asset(location) as dataset:
            _scaling(layer, dataset)


def _refuse_wrong_kind(layer: Static, location: str) -> None:
    vector = is_vector(location)
    if vector and layer.derive != "distance":
        raise BadInputError(
            f"static layer {layer.name}: {location} is a vector file, expected a raster: use derive: distance"
        )
    if layer.derive == "distance" and vector == (layer.target is not None):
        way = "it has features, remove target" if vector else "give target, the raster value that is meant"
        raise BadInputError(f"static layer {layer.name}: distance to what of {location}: {way}")


def _plain(layer: Static, location: str, tile: Tile) -> NDArray[np.float64]:
    """Return the raster itself in stored values, not yet rounded."""
    with open_asset(location) as dataset:
        scale, offset = _scaling(layer, dataset)
        values = _warped(dataset, layer.band, tile, Resampling[layer.resampling])
    values *= scale / layer.stored.scale
    values += offset / layer.stored.scale
    return values


def _derived(layer: Static, location: str, tile: Tile) -> NDArray[np.float64]:
    """Return slope, aspect or hillshade of a raster of heights."""
    around = dataclasses.replace(tile, window=tile.window.padded(1))
    with open_asset(location) as dataset:
        scale, offset = _scaling(layer, dataset)
        heights = _warped(dataset, layer.band, around, Resampling[layer.resampling], exact=True)
    ground = gradient(heights * scale + offset, sides_in_metres(tile.lattice, tile.window))
    if layer.derive == "slope":
        return slope_deg(ground)
    if layer.derive == "aspect":
        aspect = aspect_deg(ground)
        aspect[aspect >= 360 - layer.stored.scale / 2] = 0.0  # it would be rounded to 360, which is 0
        return aspect
    return hillshade(ground, layer.azimuth_deg, layer.altitude_deg)


def _distance(layer: Static, location: str, tile: Tile) -> NDArray[np.float64]:
    """Return metres to the nearest feature of a vector file, or pixel of a raster that has the value asked for."""
    rim, side_m = _rim(layer, tile)
    window = tile.window
    window = type(window)(
        window.col_off - rim[1],
        window.row_off - rim[0],
        window.width + 2 * rim[1],
        window.height + 2 * rim[0],
    )
    around = dataclasses.replace(tile, window=window)
    if is_vector(location):
        features = read_features(Path(location), outline(location), around)
        there = np.ones(len(features.shapes), dtype=np.int16)
        sources = burn(features, there, around, 0, all_touched=True) == 1
    else:
        with open_asset(location) as dataset:
            _scaling(layer, dataset)
            sources = _warped(dataset, layer.band, around, Resampling.nearest, exact=True) == layer.target
    return distance_m(sources, rim, side_m, layer.max_m)


def _rim(layer: Static, tile: Tile) -> tuple[tuple[int, int], tuple[float, float]]:
    """Return rows and columns that distances need around a tile, and width and height of a pixel in metres."""
    from pyproj import CRS

    if CRS.from_epsg(tile.lattice.epsg).is_geographic:
        raise BadInputError(
            f"static layer {layer.name}: distances need a grid in metres, and {tile.crs} is in degrees: set grid.crs"
        )
    width, height = (float(side[0, 0]) for side in sides_in_metres(tile.lattice, tile.window))
    rim = math.ceil(layer.max_m / height), math.ceil(layer.max_m / width)
    if max(rim) > _MAX_RIM_PX:
        raise BadInputError(
            f"static layer {layer.name}: max_m {layer.max_m:g} is {max(rim):,} pixels of {tile.crs}, the limit is "
            f"{_MAX_RIM_PX:,}: lower max_m to {_MAX_RIM_PX * min(width, height):g} or less"
        )
    return rim, (width, height)


def _scaling(layer: Static, dataset: DatasetReader) -> tuple[float, float]:
    """Return scale and offset of the layer's band; raises AssetMismatchError where it has none, or no CRS."""
    if dataset.crs is None:
        raise AssetMismatchError(
            f"static layer {layer.name}: {dataset.name} has no CRS: write it into the file"
        )
    if layer.band > dataset.count:
        raise AssetMismatchError(
            f"static layer {layer.name}: {dataset.name} has {dataset.count} band(s), expected band {layer.band}: "
            "correct static.band"
        )
    return dataset.scales[layer.band - 1], dataset.offsets[layer.band - 1]


def _warped(
    dataset: DatasetReader, band: int, tile: Tile, resampling: Resampling, *, exact: bool = False
) -> NDArray[np.float64]:
    """Return a band on a tile's grid, NaN where it is nodata or ends.

    ``exact`` gives each pixel the same value in whichever tile it is made. GDAL by itself interpolates coordinates along
    a row, within an eighth of a source pixel, and fits the kernel of a finer source to the part that it reads.
    """
    options = {"tolerance": 0.0, **_kernel(dataset, tile)} if exact else {}
    values = np.full(tile.shape, math.nan, dtype=np.float64)
    # double precision: 32-bit integers and metres with decimals both survive it
    reproject(
        rasterio.band(dataset, band),
        values,
        dst_transform=tile.transform,
        dst_crs=crs_of(tile.lattice.epsg),
        dst_nodata=math.nan,
        resampling=resampling,
        **options,
    )
    if resampling in (Resampling.average, Resampling.mode):
        values[beyond(dataset, tile.lattice, tile.window)] = math.nan
    return values


def _kernel(dataset: DatasetReader, tile: Tile) -> dict[str, float]:
    """Return GDAL's XSCALE and YSCALE, target pixels per source pixel, taken in the middle of the tile's part of its CRS.

    Parts are squares of 2^18 units or 2 degrees: where two of them meet kernels may differ by what the scale of the CRS
    does in between.
    """
    lattice = tile.lattice
    left, _, _, top = tile.bounds
    side = 2.0 if crs_of(lattice.epsg).is_geographic else 2.0**18
    x, y = (math.floor(left / side) + 0.5) * side, (math.floor(top / side) + 0.5) * side
    across, down = x + lattice.res_x, y - lattice.res_y
    xs, ys = transform(crs_of(lattice.epsg), dataset.crs, [x, across, x], [y, y, down])
    columns, rows = zip(*(~dataset.transform @ point for point in zip(xs, ys, strict=True)), strict=True)
    # how far a target pixel reaches across the source, whichever way the CRSs are turned against each other
    steps = [max(abs(one[1] - one[0]), abs(one[2] - one[0])) for one in (columns, rows)]
    return {
        name: 1 / step for name, step in zip(("XSCALE", "YSCALE"), steps, strict=True) if 0 < step < math.inf
    }
