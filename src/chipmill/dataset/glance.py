"""A look at label sources before any work: values that no class names, in a thinned copy of rasters and in attributes.

The file to change for how cheap or how thorough that look is; it never accuses a source of what it does not hold.
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from rasterio.io import DatasetReader
from rasterio.warp import transform_bounds
from rasterio.windows import Window as FileWindow
from rasterio.windows import from_bounds, intersect, union

from chipmill.dataset.classes import ValueMap, ValueSet
from chipmill.dataset.features import feature_values, known, read_features
from chipmill.dataset.painting import refuse_no_band, undeclared_error
from chipmill.dataset.rasters import crs_of
from chipmill.imagery.sources import open_asset
from chipmill.region.layers import MASK_RULES, Confidence, LabelLayer
from chipmill.region.tiles import Tile

_GLANCE_PX: Final = 1024
"""Side to which a label is thinned for the look."""


def glance_at_features(
    path: Path, layer: LabelLayer, values: ValueMap, tiles: Sequence[Tile], where: str
) -> None:
    """Raise LabelError for a vector layer that lacks what it needs, or holds values that no class names near the tiles."""
    met = feature_values(path, layer)
    if layer.rule in MASK_RULES:
        return
    wrong = values.undeclared(met)
    if wrong and tiles:
        near = [read_features(path, layer, tile).values for tile in tiles]
        met = np.concatenate([found[known(found)] for found in near])
        wrong = [value for value in wrong if value in met.tolist()]
    if wrong:
        raise undeclared_error(wrong, met, str(path), where, "feature(s)")


def glance_at_raster(
    location: str,
    values: ValueMap,
    tiles: Sequence[Tile],
    where: str,
    confidence: Confidence | None,
    only: tuple[str, ...] = (),
) -> None:
    """Raise LabelError for a raster that holds values that no class names below the tiles, without tiles anywhere.

    ``confidence`` must have its band; of the values only those of ``only`` count, where it has any.
    """
    wanted = ValueSet(only, "labels.layers.only")
    with open_asset(location) as dataset:
        if confidence is not None:
            refuse_no_band(dataset, confidence)
        parts = _parts(dataset, tiles)
        if not parts:
            return  # a layer that lies elsewhere says nothing here
        whole = functools.reduce(union, parts)
        shape = (min(round(whole.height), _GLANCE_PX), min(round(whole.width), _GLANCE_PX))
        thin = _present(dataset, whole, shape)
        if wanted:
            thin = thin[wanted.holds(thin)]
        wrong = values.undeclared(thin)
        if wrong and (dataset.overviews(1) or tiles):
            # an overview made by averaging holds values that no pixel has, and there may be gaps between tiles
            wrong = _really_there(dataset, wrong, parts)
    if wrong:
        raise undeclared_error(wrong, thin, location, where)


def _parts(dataset: DatasetReader, tiles: Sequence[Tile]) -> list[FileWindow]:
    """Return the part of a raster below each tile that it meets; its own blocks where there are no tiles."""
    if not tiles:
        return [part for _, part in dataset.block_windows(1)]
    frame, found = FileWindow(0, 0, dataset.width, dataset.height), []
    for tile in tiles:
        bounds = transform_bounds(crs_of(tile.lattice.epsg), dataset.crs, *tile.bounds)
        place = from_bounds(*bounds, transform=dataset.transform).round_offsets().round_lengths()
        if intersect(place, frame):
            found.append(place.intersection(frame))
    return found


def _present(dataset: DatasetReader, part: FileWindow, shape: tuple[int, int] | None = None) -> NDArray[Any]:
    """Return the values of a part of a raster that are data (1-D), thinned to ``shape`` where one is given."""
    pixels: NDArray[Any] = dataset.read(1, window=part, out_shape=shape, masked=True).compressed()
    return pixels[~np.isnan(pixels)] if pixels.dtype.kind == "f" else pixels


def _really_there(dataset: DatasetReader, wrong: Sequence[Any], parts: Sequence[FileWindow]) -> list[Any]:
    for part in parts:
        if found := sorted(set(np.unique(_present(dataset, part)).tolist()) & set(wrong)):
            return found
    return []
