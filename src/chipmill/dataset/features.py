"""Vector layers: features near a tile with their values, and how they are burned onto its pixels.

The file to change for which features count or which of several a pixel is of. How a vector file is read is in
:mod:`chipmill.region.vectors`, what burned features mean for the label in :mod:`chipmill.dataset.painting`.
"""

import dataclasses
import math
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.warp import transform_bounds

from chipmill.core.errors import BadInputError, LabelError
from chipmill.dataset.classes import ValueSet
from chipmill.dataset.rasters import crs_of
from chipmill.region.layers import MASK_RULES, LabelLayer
from chipmill.region.tiles import Tile
from chipmill.region.vectors import UNREADABLE, Rows, read_rows, vector_facts, vector_problem

_NO_CODE: Final = -2
"""No code of a class, of ignore or of nothing."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Features:
    """Features in the order in which they are drawn: later ones lie on top."""

    shapes: NDArray[Any]
    """Geometries, none empty."""
    values: NDArray[Any]
    """Objects: the class value of each, a number or a text, None where it has none."""
    levels: NDArray[np.int64]
    """Rises where ``LabelLayer.order`` puts a feature above the one before; all 0 without it."""

    def chosen(self, mask: NDArray[np.bool_]) -> "Features":
        """Return those for which the mask is True."""
        return Features(self.shapes[mask], self.values[mask], self.levels[mask])


def outline(path: str) -> LabelLayer:
    """Return the layer of a file of which only the places of features matter."""
    return LabelLayer(path=path, rule="intersect")


def vector_crs(path: Path, layer: LabelLayer) -> CRS:
    """Return the CRS of a vector layer; raises LabelError when it has none, no such attribute, or no value at all."""
    return _facts(path, layer).crs


def read_features(path: Path, layer: LabelLayer, tile: Tile) -> Features:
    """Return the features near a tile that count, in its CRS, in the order in which they are drawn.

    That is the order of the file; with ``layer.order`` those without such a value come first, then by it. Raises
    LabelError as :func:`vector_crs` does.
    """
    import shapely
    from pyproj import Transformer

    facts = _facts(path, layer)
    own = crs_of(tile.lattice.epsg)
    features = _read(path, layer, facts, transform_bounds(own, facts.crs, *tile.bounds))
    if facts.crs == own:
        return features
    project = Transformer.from_crs(facts.crs.to_wkt(), tile.crs, always_xy=True)
    shapes = shapely.transform(
        features.shapes, lambda xy: np.column_stack(project.transform(xy[:, 0], xy[:, 1]))
    )
    return dataclasses.replace(features, shapes=shapes)


def feature_values(path: Path, layer: LabelLayer) -> NDArray[Any]:
    """Return the class values (objects) of all features of a vector layer that have one and count."""
    facts = _facts(path, layer)
    if layer.attribute is None:
        return np.array([layer.value or 0], dtype=object)
    values = _plain(_rows(path, facts, [layer.attribute]).fields[layer.attribute])
    values = values[_that_count(values, layer)]
    return values[known(values)]


def known(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Tell of each object whether it is a value: not None."""
    return np.array([value is not None for value in values.tolist()], dtype=bool)


def burn(
    features: Features, codes: NDArray[np.int16], tile: Tile, fill: int, *, all_touched: bool
) -> NDArray[np.int16]:
    """Return int16 ``(y, x)``: the code of the topmost feature of each pixel of a tile, ``fill`` where none lies.

    Without ``all_touched`` a polygon has the pixels whose centre it covers. With it, it has all that it touches; of
    several of one level a pixel is of the one that covers its centre, else of the highest code: where neighbours meet,
    the order of a file decides nothing.
    """
    if not all_touched:
        return _burn(features.shapes, codes, tile, fill)
    burned = np.full(tile.shape, fill, dtype=np.int16)
    for part in _runs(features.levels):
        on_top = _touched(
            features.shapes[part], codes[part], tile, one_level=_is_level(features.levels[part])
        )
        np.copyto(burned, on_top, where=on_top != _NO_CODE)
    return burned


def _runs(levels: NDArray[np.int64]) -> list[slice]:
    """Return slices of whole levels, bottom first: those of several features apart, runs of single ones together."""
    starts = np.flatnonzero(np.diff(levels, prepend=-1)).tolist()
    runs: list[slice] = []
    for start, stop in zip(starts, [*starts, len(levels)][1:], strict=True):
        single = stop == start + 1
        if runs and single and not _is_level(levels[runs[-1]]):
            runs[-1] = slice(runs[-1].start, stop)
        else:
            runs.append(slice(start, stop))
    return runs


def _is_level(levels: NDArray[np.int64]) -> bool:
    return len(levels) > 1 and bool(levels[0] == levels[-1])


def _touched(
    shapes: NDArray[Any], codes: NDArray[np.int16], tile: Tile, *, one_level: bool
) -> NDArray[np.int16]:
    if not one_level:
        return _burn(shapes, codes, tile, _NO_CODE, all_touched=True)
    by_code = np.argsort(codes, kind="stable")
    burned = _burn(shapes[by_code], codes[by_code], tile, _NO_CODE, all_touched=True)
    flat = np.array([shape.geom_type.endswith("Polygon") for shape in shapes.tolist()], dtype=bool)
    centres = _burn(shapes[flat], codes[flat], tile, _NO_CODE)
    np.copyto(burned, centres, where=centres != _NO_CODE)
    return burned


def _burn(
    shapes: NDArray[Any], codes: NDArray[np.int16], tile: Tile, fill: int, *, all_touched: bool = False
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


@dataclasses.dataclass(frozen=True, slots=True)
class _Facts:
    crs: CRS
    part: str | None
    """The layer of the file, of :func:`chipmill.region.vectors.vector_facts`."""
    order: str | None
    """Attribute that orders the features."""
    smallest_on_top: bool


def _facts(path: Path, layer: LabelLayer) -> _Facts:
    """Return what is to be known of a vector layer before a feature is read; raises LabelError for what it lacks."""
    if why := vector_problem(path):
        raise LabelError(f"the label layer {path} is not read: {why}: save it as GPKG")
    try:
        said = vector_facts(path)
    except UNREADABLE as error:
        raise LabelError(f"the label layer {path} cannot be opened ({error}): correct its path") from error
    has = said.has
    turned = layer.order is not None and layer.order.startswith("-") and layer.order not in has
    order = layer.order[1:] if layer.order and turned else layer.order
    if missing := [name for name in (layer.attribute, order) if name is not None and name not in has]:
        names = ", ".join(has) or "none"
        raise LabelError(f"{path} has no attribute {missing[0]!r}, but {names}: correct labels.layers")
    if layer.only and layer.attribute is None:
        raise LabelError(f"the vector layer {path} has only, but no attribute: say whose values are meant")
    if layer.attribute is None and layer.value is None and layer.rule not in MASK_RULES:
        raise LabelError(
            f"the vector layer {path} needs attribute or value: say which class its features are"
        )
    if not said.crs:
        raise LabelError(f"{path} does not say its CRS: write it into the file")
    return _Facts(CRS.from_user_input(said.crs), said.layer, order, turned)


def _read(
    path: Path, layer: LabelLayer, facts: _Facts, bounds: tuple[float, float, float, float]
) -> Features:
    import shapely

    names = [name for name in (layer.attribute, facts.order) if name is not None]
    near = _rows(path, facts, names, bounds)
    try:
        shapes = shapely.force_2d(shapely.from_wkb(near.wkb))
    except shapely.errors.ShapelyError as error:
        raise LabelError(f"{path} holds a geometry that is none ({error}): draw it anew") from error
    values = np.full(len(shapes), layer.value or 0, dtype=object)
    if layer.attribute is not None:
        values = _plain(near.fields[layer.attribute])
    levels = np.zeros(len(shapes), dtype=np.int64)
    if facts.order is not None:
        levels = _levels(_plain(near.fields[facts.order]).tolist(), facts.smallest_on_top)
    kept = ~(shapely.is_missing(shapes) | shapely.is_empty(shapes)) & _that_count(values, layer)
    features = Features(shapes, values, levels).chosen(kept)
    drawn = np.argsort(features.levels, kind="stable")
    return Features(features.shapes[drawn], features.values[drawn], features.levels[drawn])


def _levels(keys: list[Any], smallest_on_top: bool) -> NDArray[np.int64]:
    """Return how high each feature lies: 0 without a key, then by it; numbers by size, texts and dates letter by letter."""
    if any(isinstance(key, str) for key in keys):
        keys = [None if key is None else str(key) for key in keys]
    ranked = sorted({key for key in keys if key is not None}, reverse=smallest_on_top)
    level = {key: number for number, key in enumerate(ranked, start=1)}
    return np.array([0 if key is None else level[key] for key in keys], dtype=np.int64)


def _that_count(values: NDArray[Any], layer: LabelLayer) -> NDArray[np.bool_]:
    if not layer.only:
        return np.ones(len(values), dtype=bool)
    return ValueSet(layer.only, "labels.layers.only").holds(values)


def _rows(
    path: Path, facts: _Facts, names: list[str], bounds: tuple[float, float, float, float] | None = None
) -> Rows:
    """Return the features of a layer with the attributes ``names``; only those near ``bounds``."""
    try:
        return read_rows(path, facts.part, names, bounds)
    except BadInputError as error:
        raise LabelError(str(error)) from error
    except UNREADABLE as error:
        raise LabelError(f"the label layer {path} cannot be read ({error}): save it as GPKG") from error


def _plain(column: NDArray[Any]) -> NDArray[Any]:
    """Return values as numbers and texts, None where there is none: null, NaN, an empty text."""
    plain = np.empty(len(column), dtype=object)
    plain[:] = [_plain_value(value) for value in column.tolist()]
    return plain


def _plain_value(value: Any) -> int | float | str | None:
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return None
    return value if isinstance(value, int | float | str) else str(value)
