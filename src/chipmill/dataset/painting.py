"""One label layer onto one tile: rasters copied or warped, vectors burned, as class codes.

The file to change for how a kind of label source is read. A painted array is int16 ``(y, x)``: a class code, 255 for
ignore, or NOTHING where the layer has no value. What several layers make is in :mod:`chipmill.dataset.rules`.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from rasterio.io import DatasetReader
from rasterio.warp import Resampling, reproject, transform_bounds
from rasterio.windows import Window as FileWindow
from rasterio.windows import from_bounds

from chipmill.core.errors import GridError, LabelError
from chipmill.core.plain import quoted
from chipmill.dataset.classes import IGNORE, ValueMap, ValueSet
from chipmill.dataset.features import burn, known, outline, read_features
from chipmill.dataset.rasters import beyond, crs_of
from chipmill.dataset.rules import NOTHING, Codes
from chipmill.imagery.sources import open_asset
from chipmill.region.grid import Window
from chipmill.region.layers import MASK_RULES, Confidence, LabelLayer, Labels
from chipmill.region.tiles import Tile
from chipmill.region.vectors import is_vector

_MARGIN_PX: Final = 2
"""Source pixels read beyond a tile, so that the warp has what its border needs."""
FULL_WEIGHT: Final = 254
"""Weight of a label that is fully sure."""
_OUT, _IN = 0, 1

type _Read = Callable[[DatasetReader, FileWindow], Codes]
"""Reads a part of a raster as codes."""


def paint_layer(path: Path, layer: LabelLayer, tile: Tile, values: ValueMap, labels: Labels) -> Codes:
    """Return one layer of the region file on a tile's grid, by what its rule needs: codes, or 0 where it has a value.

    Raises LabelError as :func:`paint_raster` and :func:`paint_vector` do, AssetReadError for a raster that cannot be
    read.
    """
    mask = layer.rule in MASK_RULES
    if is_vector(layer.path):
        return _mask_vector(path, layer, tile) if mask else paint_vector(path, layer, tile, values)
    refuse_wrong_kind(path, layer)
    if not mask:
        heeded = labels.model_copy(update={"confidence": None}) if layer.sure else labels
        return paint_raster(str(path), tile, values, heeded, layer.only)
    only = ValueSet(layer.only, "labels.layers.only")
    held = _raster(str(path), tile, labels, lambda dataset, part: _inside(dataset, part, only))
    return np.where(held == _IN, np.int16(0), np.int16(NOTHING))


def refuse_wrong_kind(path: Path, layer: LabelLayer) -> None:
    """Raise LabelError where a raster layer has what only vector layers have."""
    of_features = (layer.attribute, layer.value, layer.order, layer.background)
    if not is_vector(layer.path) and any(one is not None for one in of_features):
        raise LabelError(
            f"the label layer {path} is a raster: attribute, value, order and background are for vector layers"
        )


def paint_raster(
    location: str, tile: Tile, values: ValueMap, labels: Labels, only: tuple[str, ...] = ()
) -> Codes:
    """Return a raster label on the tile's grid.

    Nodata, what is not of ``only`` and what lies outside the raster is NOTHING; values of ``labels.ignore`` and pixels
    below ``labels.confidence`` are 255. Codes, not values, are warped, so that the mode counts classes.

    Raises:
        LabelError: an undeclared value, or another grid or CRS while ``labels.resampling`` is "refuse".
        AssetReadError: the file cannot be read.
    """
    wanted = ValueSet(only, "labels.layers.only")

    def read(dataset: DatasetReader, part: FileWindow) -> Codes:
        return _codes(dataset, part, values, labels.confidence, wanted, tile.tile_id)

    return _raster(location, tile, labels, read)


def raster_weight(location: str, tile: Tile, labels: Labels) -> NDArray[np.uint8]:
    """Return how sure a raster label is on the tile's grid, 0..254: its confidence over ``labels.confidence.full``.

    On another grid it is the mean where labels go by mode. 0 where the raster ends or has no confidence. Raises as
    :func:`paint_raster`; ``labels.confidence`` must be set.
    """
    if (confidence := labels.confidence) is None:
        raise LabelError(f"{location}: weights need labels.confidence: name the band")

    def read(dataset: DatasetReader, part: FileWindow) -> Codes:
        share = np.ma.filled(_level(dataset, part, confidence) / confidence.full, 0.0)
        return np.rint(FULL_WEIGHT * np.clip(np.nan_to_num(share), 0.0, 1.0)).astype(np.int16)

    weight = _raster(location, tile, labels, read, {"mode": Resampling.average})
    return np.maximum(weight, 0).astype(np.uint8)


def _raster(
    location: str,
    tile: Tile,
    labels: Labels,
    read: _Read,
    instead: Mapping[str, Resampling] = MappingProxyType({}),
) -> Codes:
    """Return a raster on the tile's grid as ``read`` gives its pixels; NOTHING where it ends.

    ``instead`` names how another grid is resampled where ``labels.resampling`` would not do.
    """
    painted = np.full(tile.shape, NOTHING, dtype=np.int16)
    with open_asset(location) as dataset:
        if (place := _aligned(dataset, tile, labels)) is None:
            way = labels.resampling
            _warp(dataset, tile, instead.get(way, Resampling[way]), read, painted)
        elif (common := place.intersection(tile.window)) is not None:
            part = FileWindow(
                common.col_off - place.col_off, common.row_off - place.row_off, common.width, common.height
            )
            top, left = common.row_off - tile.window.row_off, common.col_off - tile.window.col_off
            painted[top : top + common.height, left : left + common.width] = read(dataset, part)
    return painted


def _aligned(dataset: DatasetReader, tile: Tile, labels: Labels) -> Window | None:
    """Return the raster's window of the tile's lattice, or None where it has to be warped."""
    lattice = tile.lattice
    if dataset.crs == crs_of(lattice.epsg):
        try:
            return lattice.aligned_window(dataset.transform, dataset.width, dataset.height, dataset.name)
        except GridError as error:
            problem = str(error)
    else:
        problem = f"{dataset.name} is in {dataset.crs}, the tile in {lattice.crs}"
    if labels.resampling == "refuse":
        raise LabelError(
            f"tile {tile.tile_id}: the label is on another grid ({problem}): warp it before, or set "
            "labels.resampling to nearest or mode"
        )
    return None


def _codes(
    dataset: DatasetReader,
    part: FileWindow,
    values: ValueMap,
    confidence: Confidence | None,
    only: ValueSet,
    tile_id: str,
) -> Codes:
    """Read a part of a label raster as codes."""
    raw, void = _raw(dataset, part, only)
    codes = _looked_up(raw, values)
    if np.any(codes[~void] < 0):
        wrong = values.undeclared(raw[~void])
        raise undeclared_error(wrong, raw[~void], str(dataset.name), f"tile {tile_id}")
    if confidence is not None:
        codes[_unsure(dataset, part, confidence)] = IGNORE
    codes[void] = NOTHING
    return codes


def _looked_up(raw: NDArray[Any], values: ValueMap) -> Codes:
    """Return the code of each pixel, -1 where its value is not declared."""
    if raw.dtype.kind in "iu" and raw.dtype.itemsize <= 2:
        # a table of all values there can be: sorting the pixels would take four times as long as all else
        ends = np.iinfo(raw.dtype)
        table = values.codes(np.arange(ends.min, ends.max + 1))
        return table[raw.astype(np.int32) - ends.min]
    present, inverse = np.unique(raw, return_inverse=True)
    return values.codes(present)[inverse].reshape(raw.shape)


def _inside(dataset: DatasetReader, part: FileWindow, only: ValueSet) -> Codes:
    """Read a part of a raster as 1 where it has a value that counts, else 0: so that a mode weighs both."""
    _, void = _raw(dataset, part, only)
    return np.where(void, np.int16(_OUT), np.int16(_IN))


def _raw(dataset: DatasetReader, part: FileWindow, only: ValueSet) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return the pixels of the first band, and True where they are nodata or do not count."""
    raw = dataset.read(1, window=part)
    void = dataset.read_masks(1, window=part) == 0
    if raw.dtype.kind == "f":
        void |= np.isnan(raw)
    if only:
        void |= ~only.holds(raw)
    return raw, void


def _unsure(dataset: DatasetReader, part: FileWindow, confidence: Confidence) -> NDArray[np.bool_]:
    sure = _level(dataset, part, confidence) >= confidence.min
    unsure: NDArray[np.bool_] = np.ma.filled(~sure, fill_value=True)
    return unsure


def _level(
    dataset: DatasetReader, part: FileWindow, confidence: Confidence
) -> "np.ma.MaskedArray[Any, np.dtype[Any]]":
    refuse_no_band(dataset, confidence)
    level = dataset.read(confidence.band, window=part, masked=True)
    return np.ma.asarray(level)


def refuse_no_band(dataset: DatasetReader, confidence: Confidence) -> None:
    """Raise LabelError where a label raster has no such band of confidences."""
    if confidence.band > dataset.count:
        raise LabelError(
            f"labels.confidence.band is {confidence.band}, but {dataset.name} has {dataset.count} band(s): "
            "correct the number, say sure: true for this layer, or leave confidence out"
        )


def undeclared_error(
    wrong: list[Any], values: NDArray[Any], source: str, where: str, unit: str = "px"
) -> LabelError:
    """Return the error for values that are neither class nor ignored; ``values`` are all that were met there."""
    counts = ", ".join(f"{_shown(value)} ({np.count_nonzero(values == value)} {unit})" for value in wrong[:5])
    more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
    return LabelError(
        f"{where}: {source} holds {counts}{more}, which labels.classes does not name: add it there, or to labels.ignore"
    )


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float) else quoted(str(value))


def _warp(dataset: DatasetReader, tile: Tile, resampling: Resampling, read: _Read, painted: Codes) -> None:
    """Fill ``painted`` from a raster in any CRS, by nearest or by the mode of the codes."""
    bounds = transform_bounds(crs_of(tile.lattice.epsg), dataset.crs, *tile.bounds)
    near = from_bounds(*bounds, transform=dataset.transform)
    left, top = max(0, int(near.col_off) - _MARGIN_PX), max(0, int(near.row_off) - _MARGIN_PX)
    right = min(dataset.width, int(near.col_off + near.width) + _MARGIN_PX + 1)
    bottom = min(dataset.height, int(near.row_off + near.height) + _MARGIN_PX + 1)
    if right <= left or bottom <= top:
        return
    part = FileWindow(left, top, right - left, bottom - top)
    reproject(
        read(dataset, part),
        painted,
        src_transform=dataset.window_transform(part),
        src_crs=dataset.crs,
        src_nodata=NOTHING,
        dst_transform=tile.transform,
        dst_crs=crs_of(tile.lattice.epsg),
        dst_nodata=NOTHING,
        resampling=resampling,
    )
    if resampling != Resampling.nearest:
        painted[beyond(dataset, tile.lattice, tile.window)] = NOTHING


def paint_vector(path: Path, layer: LabelLayer, tile: Tile, values: ValueMap) -> Codes:
    """Return a vector label on the tile's grid, its features burned by :func:`chipmill.dataset.features.burn`.

    A feature's value is its ``layer.attribute``, else ``layer.value``; one without a value is 255. Where no feature
    lies the layer is ``layer.background``, else NOTHING. Raises LabelError for undeclared values or a missing CRS.
    """
    features = read_features(path, layer, tile)
    declared = known(features.values)
    if wrong := values.undeclared(features.values[declared]):
        raise undeclared_error(
            wrong, features.values[declared], str(path), f"tile {tile.tile_id}", "feature(s)"
        )
    codes = np.where(declared, values.codes(features.values), np.int16(IGNORE))
    fill = NOTHING
    if layer.background is not None:
        fill = int(values.codes(np.array([layer.background]))[0])
        if fill < 0:
            raise LabelError(
                f"background {layer.background} of {path} is no value of labels.classes: add it there"
            )
    return burn(features, codes, tile, fill, all_touched=layer.all_touched)


def _mask_vector(path: Path, layer: LabelLayer, tile: Tile) -> Codes:
    features = read_features(path, layer, tile)
    inside = np.zeros(len(features.shapes), dtype=np.int16)
    return burn(features, inside, tile, NOTHING, all_touched=layer.all_touched)


def covered(path: Path, tile: Tile) -> NDArray[np.bool_]:
    """Return ``(y, x)``, True where the centre of a pixel lies in a polygon of ``path``."""
    inside = _mask_vector(path, outline(str(path)), tile)
    return np.not_equal(inside, NOTHING)
