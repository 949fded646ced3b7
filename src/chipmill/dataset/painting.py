"""One label layer onto one tile: rasters copied or warped, vectors burned, as class codes.

The file to change for how a kind of label source is read. A painted array is int16 ``(y, x)``: a class code, 255 for
ignore, or NOTHING where the layer says nothing and the one below shows through.
"""

from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.io import DatasetReader
from rasterio.warp import Resampling, reproject, transform_bounds
from rasterio.windows import Window as FileWindow
from rasterio.windows import from_bounds

from chipmill.core.errors import GridError, LabelError
from chipmill.dataset.classes import IGNORE, ValueMap
from chipmill.dataset.rasters import crs_of
from chipmill.imagery.sources import open_asset
from chipmill.region.dataset import Confidence, LabelLayer, Labels
from chipmill.region.grid import Window
from chipmill.region.tiles import Tile
from chipmill.region.vectors import vector_problem

NOTHING: Final = -1
_VECTOR_SUFFIXES: Final = (".geojson", ".json", ".gpkg", ".shp", ".fgb")
_MARGIN_PX: Final = 2
"""Source pixels read beyond a tile, so that the warp has what its border needs."""


def is_vector(path: str) -> bool:
    """Tell by its suffix whether a layer is a vector file."""
    return path.lower().endswith(_VECTOR_SUFFIXES)


def paint_raster(location: str, tile: Tile, values: ValueMap, labels: Labels) -> NDArray[np.int16]:
    """Return a raster label on the tile's grid.

    Nodata and what lies outside the raster is NOTHING; values of ``labels.ignore`` and pixels below
    ``labels.confidence`` are 255. Codes, not values, are warped, so that the mode counts classes.

    Raises:
        LabelError: an undeclared value, or another grid or CRS while ``labels.resampling`` is "refuse".
        AssetReadError: the file cannot be read.
    """
    painted = np.full(tile.shape, NOTHING, dtype=np.int16)
    with open_asset(location) as dataset:
        if (place := _aligned(dataset, tile, labels)) is None:
            _warp(dataset, tile, values, labels, painted)
        elif (common := place.intersection(tile.window)) is not None:
            part = FileWindow(
                common.col_off - place.col_off, common.row_off - place.row_off, common.width, common.height
            )
            top, left = common.row_off - tile.window.row_off, common.col_off - tile.window.col_off
            painted[top : top + common.height, left : left + common.width] = _codes(
                dataset, part, values, labels.confidence, tile.tile_id
            )
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
    dataset: DatasetReader, part: FileWindow, values: ValueMap, confidence: Confidence | None, tile_id: str
) -> NDArray[np.int16]:
    """Read a part of a label raster as codes."""
    raw = dataset.read(1, window=part)
    void = dataset.read_masks(1, window=part) == 0
    if raw.dtype.kind == "f":
        void |= np.isnan(raw)
    if wrong := values.undeclared(raw[~void]):
        raise undeclared_error(wrong, raw[~void], str(dataset.name), f"tile {tile_id}")
    present, inverse = np.unique(raw, return_inverse=True)
    codes = values.codes(present)[inverse].reshape(raw.shape)
    if confidence is not None:
        codes[_unsure(dataset, part, confidence)] = IGNORE
    codes[void] = NOTHING
    return codes


def _unsure(dataset: DatasetReader, part: FileWindow, confidence: Confidence) -> NDArray[np.bool_]:
    if confidence.band > dataset.count:
        raise LabelError(
            f"labels.confidence.band is {confidence.band}, but {dataset.name} has {dataset.count} band(s): "
            "correct the number, or leave confidence out"
        )
    level = dataset.read(confidence.band, window=part, masked=True)
    unsure: NDArray[np.bool_] = np.ma.filled(~(level >= confidence.min), fill_value=True)
    return unsure


def undeclared_error(
    wrong: list[Any], values: NDArray[Any], source: str, where: str, unit: str = "px"
) -> LabelError:
    """Return the error for values that are neither class nor ignored; ``values`` are all that were met there."""
    counts = ", ".join(f"{value:g} ({np.count_nonzero(values == value)} {unit})" for value in wrong[:5])
    more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
    return LabelError(
        f"{where}: {source} holds {counts}{more}, which labels.classes does not name: add it there, or to labels.ignore"
    )


def _warp(
    dataset: DatasetReader, tile: Tile, values: ValueMap, labels: Labels, painted: NDArray[np.int16]
) -> None:
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
        _codes(dataset, part, values, labels.confidence, tile.tile_id),
        painted,
        src_transform=dataset.window_transform(part),
        src_crs=dataset.crs,
        src_nodata=NOTHING,
        dst_transform=tile.transform,
        dst_crs=crs_of(tile.lattice.epsg),
        dst_nodata=NOTHING,
        resampling=Resampling[labels.resampling],
    )


def paint_vector(path: Path, layer: LabelLayer, tile: Tile, values: ValueMap) -> NDArray[np.int16]:
    """Return a vector label on the tile's grid: features burned in the order of the file, later ones on top.

    A feature's value is its ``layer.attribute``, else ``layer.value``; one without a value is 255. Where no feature
    lies the layer is ``layer.background``, else NOTHING. Raises LabelError for undeclared values or a missing CRS.
    """
    shapes, raw = read_features(path, layer, tile)
    known = raw[~np.isnan(raw)]
    if wrong := values.undeclared(known):
        raise undeclared_error(wrong, known, str(path), f"tile {tile.tile_id}")
    codes = np.where(np.isnan(raw), np.int16(IGNORE), values.codes(raw))
    fill = NOTHING
    if layer.background is not None:
        fill = int(values.codes(np.array([layer.background]))[0])
        if fill < 0:
            raise LabelError(
                f"background {layer.background} of {path} is no value of labels.classes: add it there"
            )
    return _burn(shapes, codes, tile, fill, layer.all_touched)


def _burn(
    shapes: NDArray[Any], codes: NDArray[np.int16], tile: Tile, fill: int, all_touched: bool
) -> NDArray[np.int16]:
    from rasterio.features import rasterize

    if not len(shapes):
        return np.full(tile.shape, fill, dtype=np.int16)
    burned: NDArray[np.int16] = rasterize(
        zip(shapes, codes.tolist(), strict=True),
        out_shape=tile.shape,
        fill=fill,
        transform=tile.transform,
        all_touched=all_touched,
        dtype="int16",
    )
    return burned


def covered(path: Path, tile: Tile) -> NDArray[np.bool_]:
    """Return ``(y, x)``, True where the centre of a pixel lies in a polygon of ``path``."""
    shapes, _ = read_features(path, LabelLayer(path=str(path), value=1), tile)
    return _burn(shapes, np.ones(len(shapes), dtype=np.int16), tile, 0, all_touched=False).astype(np.bool_)


def read_features(path: Path, layer: LabelLayer, tile: Tile) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Return the geometries near a tile in its CRS, in the order of the file, and their values (NaN: none)."""
    import shapely
    from pyogrio.raw import read
    from pyproj import Transformer

    crs = vector_crs(path, layer)
    bounds = transform_bounds(crs_of(tile.lattice.epsg), crs, *tile.bounds)
    columns = [] if layer.attribute is None else [layer.attribute]
    _, ids, geometry, fields = read(path, bbox=bounds, columns=columns, return_fids=True, force_2d=True)
    order = np.argsort(ids, kind="stable")  # a spatial index hands features out in an order of its own
    shapes = shapely.from_wkb(geometry)[order]
    raw = _numbers(fields[0], path, layer) if columns else np.full(len(shapes), float(layer.value or 0))
    raw = raw[order]
    solid = ~(shapely.is_missing(shapes) | shapely.is_empty(shapes))
    if crs != crs_of(tile.lattice.epsg):
        project = Transformer.from_crs(crs.to_wkt(), tile.crs, always_xy=True)
        shapes = shapely.transform(shapes, lambda xy: np.column_stack(project.transform(xy[:, 0], xy[:, 1])))
    return shapes[solid], raw[solid]


def feature_values(path: Path, layer: LabelLayer) -> NDArray[np.float64]:
    """Return the class values of all features of a vector layer that have one; no geometry is read."""
    from pyogrio.raw import read

    vector_crs(path, layer)
    if layer.attribute is None:
        return np.array([float(layer.value or 0)])
    _, _, _, fields = read(path, columns=[layer.attribute], read_geometry=False)
    raw = _numbers(fields[0], path, layer)
    return raw[~np.isnan(raw)]


def vector_crs(path: Path, layer: LabelLayer) -> CRS:
    """Return the CRS of a vector layer; raises LabelError when it has none, no such attribute, or no value at all."""
    from pyogrio import read_info
    from pyogrio.errors import DataLayerError, DataSourceError

    if why := vector_problem(path):
        raise LabelError(f"the label layer {path} is not read: {why}: save it as GPKG")
    try:
        info = read_info(path)
    except (DataSourceError, DataLayerError) as error:
        raise LabelError(f"the label layer {path} cannot be opened ({error}): correct its path") from error
    if layer.attribute is not None and layer.attribute not in info["fields"]:
        has = ", ".join(info["fields"]) or "none"
        raise LabelError(f"{path} has no attribute {layer.attribute!r}, but {has}: correct labels.layers")
    if layer.attribute is None and layer.value is None:
        raise LabelError(
            f"the vector layer {path} needs attribute or value: say which class its features are"
        )
    if not info["crs"]:
        raise LabelError(f"{path} does not say its CRS: write it into the file")
    return CRS.from_user_input(info["crs"])


def _numbers(column: NDArray[Any], path: Path, layer: LabelLayer) -> NDArray[np.float64]:
    """Return an attribute as numbers, NaN where it is null; texts must be numbers, as the keys of classes are."""
    try:
        return np.array([np.nan if value is None else float(value) for value in column], dtype=np.float64)
    except ValueError as error:
        raise LabelError(
            f"attribute {layer.attribute!r} of {path} is not a number ({error}): give each class a number"
        ) from error
