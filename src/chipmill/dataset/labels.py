"""The stage grid_layers: label and static layers onto the grid of each tile, once, as files of the region.

How one layer is painted is in :mod:`chipmill.dataset.painting`, how values become codes in
:mod:`chipmill.dataset.classes`; here is what is painted over what, and what a file depends on.
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

from chipmill.core.errors import LabelError
from chipmill.core.store import fingerprint, is_good
from chipmill.core.units import Batch, BatchResult, UnitResult, work_batch
from chipmill.dataset.classes import IGNORE, ValueMap, resolve_classes
from chipmill.dataset.painting import (
    NOTHING,
    covered,
    feature_values,
    is_vector,
    paint_raster,
    paint_vector,
    read_features,
    undeclared_error,
)
from chipmill.dataset.rasters import crs_of, write_layer
from chipmill.dataset.static import warp_static
from chipmill.imagery.hrefs import resolve_href, source_root
from chipmill.imagery.sources import open_asset
from chipmill.region.config import Region
from chipmill.region.dataset import Labels, Static
from chipmill.region.identity import content_hash
from chipmill.region.plan import Plan
from chipmill.region.tiles import Tile, cover_mask

STAGE_VERSION: Final = 1
STAGE: Final = "grid_layers"
_GLANCE_PX: Final = 1024
"""Side to which a label is thinned for the look before work."""
_GLANCE_ITEMS: Final = 16


def grid_layers(plan: Plan, batch: Batch) -> BatchResult:
    """Put the label and the static layers of each tile of a batch onto the tile's grid.

    Products: ``labels/<tile>-<fp8>.tif`` uint8, codes 0..n-1 in the order of the class names, 255 = ignore and nodata;
    ``static/<name>/<tile>-<fp8>.tif`` in the layer's own type. A file that stands already is left as it is. A label
    with undeclared values or on another grid fails its tile (LabelError).
    """
    return work_batch(
        plan.attempt,
        plan.run,
        batch,
        work=lambda unit: UnitResult(products=_grid_tile(plan, plan.tile(unit))),
        fingerprint=lambda unit: _unit_fingerprint(plan.region, plan.tile(unit)),
    )


def _unit_fingerprint(region: Region, tile: Tile) -> str:
    layers = [static_fingerprint(region, layer, tile) for layer in region.static]
    return fingerprint(STAGE, label_fingerprint(region, tile) if region.labels else None, layers)


def _grid_tile(plan: Plan, tile: Tile) -> tuple[Path, ...]:
    products = []
    if plan.region.labels is not None:
        path, wanted = label_path(plan, tile), label_fingerprint(plan.region, tile)
        if not is_good(path, wanted):
            colors = [info.color for info in resolve_classes(plan.region)]
            place = (tile.lattice, tile.window)
            pixels = paint_label(plan.region, tile)[np.newaxis]
            write_layer(path, wanted, pixels, place, nodata=IGNORE, names=["label"], colors=colors)
        products.append(path)
    products += [_grid_static(plan, layer, tile) for layer in plan.region.static]
    return tuple(products)


def _grid_static(plan: Plan, layer: Static, tile: Tile) -> Path:
    path, wanted = static_path(plan, layer, tile), static_fingerprint(plan.region, layer, tile)
    if not is_good(path, wanted):
        pixels, lost = warp_static(layer, str(plan.region.resolve(layer.path)), tile)
        place = (tile.lattice, tile.window)
        extra = {"saturated_px": lost}
        write_layer(path, wanted, pixels, place, nodata=layer.out.nodata, names=[layer.name], extra=extra)
    return path


def label_path(plan: Plan, tile: Tile) -> Path:
    """Return where the label of a tile lies."""
    return plan.region_dir.label(tile.tile_id, label_fingerprint(plan.region, tile))


def static_path(plan: Plan, layer: Static, tile: Tile) -> Path:
    """Return where a static layer of a tile lies."""
    return plan.region_dir.static(layer.name, tile.tile_id, static_fingerprint(plan.region, layer, tile))


def label_fingerprint(region: Region, tile: Tile) -> str:
    """Return the fingerprint of a tile's label: content of its sources, settings, grid and cover of the tile."""
    labels = _labels(region)
    layers = [
        [_content(region, layer.path), layer.attribute, layer.value, layer.all_touched, layer.background]
        for layer in labels.layers
    ]
    coverage = labels.coverage and _content(region, labels.coverage)
    rules = [resolve_classes(region), labels.ignore, labels.confidence, labels.resampling]
    return fingerprint(
        "label",
        STAGE_VERSION,
        layers,
        tile.label_content,
        coverage,
        rules,
        tile.lattice,
        tile.window,
        tile.cover,
    )


def static_fingerprint(region: Region, layer: Static, tile: Tile) -> str:
    """Return the fingerprint of a static layer on a tile: content of its source, settings and grid."""
    content = _content(region, layer.path)
    return fingerprint(
        "static", STAGE_VERSION, content, layer.resampling, layer.out, tile.lattice, tile.window
    )


def _content(region: Region, path: str) -> str:
    return content_hash(region.resolve(path), path)


def label_location(region: Region, tile: Tile) -> str:
    """Return the absolute path or URL of the label raster of a label-item tile."""
    if tile.label_href is None or region.tiles.source is None:
        raise LabelError(
            f"tile {tile.tile_id} has no label item: give labels.layers, or tiles from label-items"
        )
    return resolve_href(source_root(region, region.tiles.source, region.tiles.auth), tile.label_href)


def _labels(region: Region) -> Labels:
    if region.labels is None:
        raise LabelError(f"region {region.name} has no labels: add labels to its file")
    return region.labels


def paint_label(region: Region, tile: Tile) -> NDArray[np.uint8]:
    """Return the label of a tile ``(y, x)``: layers painted in order, a later one over the earlier where it speaks.

    255 where no layer speaks, outside ``labels.coverage``, and outside the tile's cover (AOI and UTM zone).
    Raises LabelError as the painting of each layer, AssetReadError for a raster that cannot be read.
    """
    labels = _labels(region)
    values = ValueMap(resolve_classes(region), labels)
    painted = np.full(tile.shape, NOTHING, dtype=np.int16)
    for layer in _painted_layers(region, tile, labels, values):
        np.copyto(painted, layer, where=layer != NOTHING)
    painted[painted == NOTHING] = IGNORE
    if labels.coverage is not None:
        painted[~covered(region.resolve(labels.coverage), tile)] = IGNORE
    painted[~cover_mask(tile)] = IGNORE
    return painted.astype(np.uint8)


def _painted_layers(
    region: Region, tile: Tile, labels: Labels, values: ValueMap
) -> "Sequence[NDArray[np.int16]]":
    painted = []
    if tile.label_href is not None:
        painted.append(paint_raster(label_location(region, tile), tile, values, labels))
    for layer in labels.layers:
        path = region.resolve(layer.path)
        if is_vector(layer.path):
            painted.append(paint_vector(path, layer, tile, values))
        else:
            painted.append(paint_raster(str(path), tile, values, labels))
    if not painted:
        raise LabelError(
            f"region {region.name}: labels.layers is empty and tiles have no label item: name a layer"
        )
    return painted


def check_label_values(region: Region, tiles: Sequence[Tile] = ()) -> None:
    """Look for undeclared values in a thinned copy of each label before any work; raises LabelError for what is there.

    Cheap and not complete: the full look is made when labels are gridded. ``tiles`` brings the label items, of which
    the first 16 are looked at; a layer is accused only of what lies below one of them, without tiles of all it holds.
    """
    if region.labels is None:
        return
    values = ValueMap(resolve_classes(region), region.labels)
    for tile in [tile for tile in tiles if tile.label_href is not None][:_GLANCE_ITEMS]:
        _glance(region, label_location(region, tile), values, ())
    for layer in region.labels.layers:
        path = region.resolve(layer.path)
        if not is_vector(layer.path):
            _glance(region, str(path), values, tiles)
        elif wrong := values.undeclared(met := feature_values(path, layer)):
            if tiles:
                met = np.concatenate([read_features(path, layer, tile)[1] for tile in tiles])
                wrong = [value for value in wrong if value in met]
            if wrong:
                raise undeclared_error(wrong, met, str(path), f"region {region.name}", "feature(s)")


def _glance(region: Region, location: str, values: ValueMap, tiles: Sequence[Tile]) -> None:
    with open_asset(location) as dataset:
        parts = _parts(dataset, tiles)
        if not parts:
            return  # a layer that lies elsewhere says nothing here
        whole = functools.reduce(union, parts)
        shape = (min(round(whole.height), _GLANCE_PX), min(round(whole.width), _GLANCE_PX))
        thin = _present(dataset, whole, shape)
        wrong = values.undeclared(thin)
        if wrong and (dataset.overviews(1) or tiles):
            # an overview made by averaging holds values that no pixel has, and there may be gaps between tiles
            wrong = _really_there(dataset, wrong, parts)
    if wrong:
        raise undeclared_error(wrong, thin, location, f"region {region.name}")


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
