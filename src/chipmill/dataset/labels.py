"""The stage grid_layers: label and static layers onto the grid of each tile, once, as files of the region.

How one layer is painted is in :mod:`chipmill.dataset.painting`, how values become codes in
:mod:`chipmill.dataset.classes`, what several layers make in :mod:`chipmill.dataset.rules`; here is what a file depends
on, and when it is made.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from chipmill.core.errors import LabelError
from chipmill.core.store import fingerprint, is_good
from chipmill.core.units import Batch, BatchResult, UnitResult, work_batch
from chipmill.dataset.classes import IGNORE, ValueMap, resolve_classes
from chipmill.dataset.features import outline, vector_crs
from chipmill.dataset.glance import glance_at_features, glance_at_raster
from chipmill.dataset.painting import (
    FULL_WEIGHT,
    covered,
    paint_layer,
    paint_raster,
    raster_weight,
    refuse_wrong_kind,
)
from chipmill.dataset.rasters import write_layer
from chipmill.dataset.rules import NOTHING, Codes, Combined, combine
from chipmill.dataset.static import warp_static
from chipmill.imagery.hrefs import resolve_href, source_root
from chipmill.region.config import Region
from chipmill.region.identity import content_hash
from chipmill.region.layers import MASK_RULES, LabelLayer, Labels, Static
from chipmill.region.plan import Plan
from chipmill.region.tiles import Tile, cover_mask
from chipmill.region.vectors import is_vector

STAGE_VERSION: Final = 1
STAGE: Final = "grid_layers"
_GLANCE_ITEMS: Final = 16


def grid_layers(plan: Plan, batch: Batch) -> BatchResult:
    """Put the label and the static layers of each tile of a batch onto the tile's grid.

    Products: ``labels/<tile>-<fp8>.tif`` uint8, codes 0..n-1 in the order of the class names, 255 = ignore and nodata,
    and where the region asks for it a second band, the weight of each label 0..254;
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
            painted = paint_label(plan.region, tile)
            if painted.weight is None:
                pixels, names = painted.label[np.newaxis], ["label"]
            else:
                # a TIFF of several bands has no colour table
                pixels, names, colors = np.stack([painted.label, painted.weight]), ["label", "weight"], []
            write_layer(path, wanted, pixels, place, nodata=IGNORE, names=names, colors=colors)
        products.append(path)
    products += [_grid_static(plan, layer, tile) for layer in plan.region.static]
    return tuple(products)


def _grid_static(plan: Plan, layer: Static, tile: Tile) -> Path:
    path, wanted = static_path(plan, layer, tile), static_fingerprint(plan.region, layer, tile)
    if not is_good(path, wanted):
        pixels, lost = warp_static(layer, str(plan.region.resolve(layer.path)), tile)
        place = (tile.lattice, tile.window)
        extra = {"saturated_px": lost}
        write_layer(path, wanted, pixels, place, nodata=layer.stored.nodata, names=[layer.name], extra=extra)
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
    layers = [_layer_facts(region, layer) for layer in labels.layers]
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
        *([] if labels.outside == "ignore" else [labels.outside]),
    )


def _layer_facts(region: Region, layer: LabelLayer) -> list[object]:
    facts = [_content(region, layer.path), layer.attribute, layer.value, layer.all_touched, layer.background]
    later = (layer.rule, layer.only, layer.order, layer.sure)
    # what came later enters where it says something: older labels stand
    return [*facts, *(() if later == ("paint", (), None, False) else later)]


def static_fingerprint(region: Region, layer: Static, tile: Tile) -> str:
    """Return the fingerprint of a static layer on a tile: content of its source, settings and grid."""
    facts = [_content(region, layer.path), layer.resampling, layer.stored, tile.lattice, tile.window]
    later = layer.model_dump(include={"band", "derive", "target", "max_m", "azimuth_deg", "altitude_deg"})
    if layer.band == 1 and layer.derive is None:
        later = {}  # what came later enters where it says something: older layers stand
    return fingerprint("static", STAGE_VERSION, *facts, *([later] if later else []))


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


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Painted:
    """The label of a tile."""

    label: NDArray[np.uint8]
    """(y, x): class codes, 255 = ignore."""
    weight: NDArray[np.uint8] | None
    """(y, x): how sure the label is, 254 = fully, 0 where it is ignore; None where the region does not ask for it."""


def paint_label(region: Region, tile: Tile) -> Painted:
    """Return the label of a tile: its layers taken in order, each by its rule (chipmill.dataset.rules).

    ``labels.outside`` where no layer has a value; 255 outside ``labels.coverage``, and outside the tile's cover (AOI
    and UTM zone). The weight of a pixel is that of the layer whose class it has. Raises LabelError as the painting of
    each layer, AssetReadError for a raster that cannot be read.
    """
    labels = _labels(region)
    values = ValueMap(resolve_classes(region), labels)
    made = combine(_painted_layers(region, tile, labels, values), tile.shape)
    made.label[made.label == NOTHING] = values.outside
    if labels.coverage is not None:
        made.label[~covered(region.resolve(labels.coverage), tile)] = IGNORE
    made.label[~cover_mask(tile)] = IGNORE
    label = made.label.astype(np.uint8)
    return Painted(label, _weights(region, tile, labels, made) if has_weights(region) else None)


def has_weights(region: Region) -> bool:
    """Tell whether labels come with a weight."""
    return (
        region.labels is not None and region.labels.confidence is not None and region.labels.confidence.weight
    )


def _weights(region: Region, tile: Tile, labels: Labels, made: Combined) -> NDArray[np.uint8]:
    weight = np.full(tile.shape, FULL_WEIGHT, dtype=np.uint8)
    unsure = [label_location(region, tile)] if tile.label_href is not None else []
    for layer in labels.layers:
        sure = layer.sure or is_vector(layer.path)
        unsure.append("" if sure else str(region.resolve(layer.path)))
    for number, location in enumerate(unsure):
        own = made.origin == number
        if location and own.any():
            np.copyto(weight, raster_weight(location, tile, labels), where=own)
    weight[made.label == IGNORE] = 0
    return weight


def _painted_layers(
    region: Region, tile: Tile, labels: Labels, values: ValueMap
) -> Iterator[tuple[str, Codes]]:
    """Yield the rule and the pixels of each layer; the raster of a label item comes first."""
    if tile.label_href is None:
        _refuse_no_label(region, labels)
    else:
        yield "paint", paint_raster(label_location(region, tile), tile, values, labels)
    for layer in labels.layers:
        yield layer.rule, paint_layer(region.resolve(layer.path), layer, tile, values, labels)


def _refuse_no_label(region: Region, labels: Labels) -> None:
    """Raise LabelError where no layer brings a class to tiles that have no label item."""
    if not labels.layers:
        raise LabelError(
            f"region {region.name}: labels.layers is empty and tiles have no label item: name a layer"
        )
    if (rule := labels.layers[0].rule) in MASK_RULES:
        raise LabelError(
            f"region {region.name}: the first of labels.layers has the rule {rule}, before which there is no label: "
            "put a layer with classes before it"
        )


def check_label_values(region: Region, tiles: Sequence[Tile] = ()) -> None:
    """Look for undeclared values in a thinned copy of each label before any work; raises LabelError for what is there.

    Cheap and not complete: the full look is made when labels are gridded. ``tiles`` brings the label items, of which
    the first 16 are looked at; a layer is accused only of what lies below one of them, without tiles of all it holds.
    Layers that only say where labels are kept need no class: of them only what the file says of itself is looked at.
    """
    if region.labels is None:
        return
    values = ValueMap(resolve_classes(region), region.labels)
    where = f"region {region.name}"
    if not tiles or any(tile.label_href is None for tile in tiles):
        _refuse_no_label(region, region.labels)
    for tile in [tile for tile in tiles if tile.label_href is not None][:_GLANCE_ITEMS]:
        glance_at_raster(label_location(region, tile), values, (), where, region.labels.confidence)
    if region.labels.coverage is not None:
        vector_crs(region.resolve(region.labels.coverage), outline(region.labels.coverage))
    for layer in region.labels.layers:
        path = region.resolve(layer.path)
        refuse_wrong_kind(path, layer)
        if is_vector(layer.path):
            glance_at_features(path, layer, values, tiles, where)
        elif layer.rule not in MASK_RULES:
            confidence = None if layer.sure else region.labels.confidence
            glance_at_raster(str(path), values, tiles, where, confidence, layer.only)
