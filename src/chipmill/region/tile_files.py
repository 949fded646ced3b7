"""Tiles from the polygons of a vector file: the smallest rectangle of pixels that holds each of them.

The file says what it wants of each tile: its id, date or year, split, whether it is rejected, and other attributes.
Nothing is left out in silence: :func:`tile_remarks` says in sentences how many features make no tile, and why.
"""

import collections
import dataclasses
import datetime as dt
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from chipmill.core.errors import AoiError, RegionFileError
from chipmill.core.plain import quoted
from chipmill.region.attributes import day_of, is_rejected, split_of, text_of, year_of
from chipmill.region.config import Region
from chipmill.region.grid import Lattice, reproject_shape
from chipmill.region.slots import TimeRange, cell_range, midnight, year_range
from chipmill.region.tiles import Tile, densified, lattice_finder, meets_rule, refuse_clashes, tile_name
from chipmill.region.tiling import MAX_TILE_PX
from chipmill.region.vectors import Layer, polygons_of, read_layer
from chipmill.region.windows import iter_windows

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry


@dataclasses.dataclass(frozen=True, slots=True)
class Feature:
    """A feature of a file that tiles or points are made of."""

    shape: "BaseGeometry"
    """In the CRS of the file."""
    source_id: str
    time: TimeRange | None
    split: str | None
    reject: bool
    attributes: dict[str, str]


def read_tile_features(region: Region) -> tuple[Layer, list[Feature]]:
    """Return the layer of ``tiles.path`` and its features that have a geometry, in the order of the file.

    Raises RegionFileError for a file that cannot be read, has no EPSG code, or has values that mean nothing.
    """
    import shapely

    rules = region.tiles
    path = region.resolve(str(rules.path))
    year = None if rules.own_year is None else rules.own_year.attribute
    named = [rules.id, rules.time, year, rules.split, rules.reject, rules.class_, *rules.attributes]
    layer = read_layer(path, "tiles.path", [name for name in named if name is not None])
    layer.sure_epsg()  # before anything is made of it
    there = ~(shapely.is_missing(layer.shapes) | shapely.is_empty(layer.shapes))
    return layer, [_feature(region, layer, int(row)) for row in np.flatnonzero(there)]


def _feature(region: Region, layer: Layer, row: int) -> Feature:
    rules = region.tiles
    number = str(layer.rows[row])
    source_id = number if rules.id is None else layer.value(row, rules.id, text_of)
    if not source_id:
        raise RegionFileError(
            f"{layer.path}: feature {number} has nothing in {quoted(str(rules.id))}: give every feature an id"
        )
    time = _time(region, layer, row)
    texts = {
        name: layer.value(row, name, text_of) for name in (*rules.attributes, *filter(None, [rules.class_]))
    }
    return Feature(
        layer.shapes[row],
        source_id,
        time,
        None if rules.split is None else layer.value(row, rules.split, split_of),
        rules.reject is not None and layer.value(row, rules.reject, is_rejected),
        {name: text for name, text in texts.items() if text is not None},
    )


def _time(region: Region, layer: Layer, row: int) -> TimeRange | None:
    """Return the day or the year that a feature says of itself; None where none is asked for, or it has no year."""
    if (rule := region.tiles.own_year) is not None:
        year = layer.value(row, rule.attribute, year_of)
        return None if year is None else year_range(year)
    if (name := region.tiles.time) is None:
        return None
    if (day := layer.value(row, name, day_of)) is None:
        number = layer.rows[row]
        raise RegionFileError(f"{layer.path}: feature {number} has no date in {quoted(name)}: give it one")
    return TimeRange(midnight(day), midnight(day) + dt.timedelta(days=1))


def file_tiles(region: Region, aoi: "BaseGeometry") -> tuple[Tile, ...]:
    """Return one tile per polygon of ``tiles.path`` that ``aoi.rule`` takes and whose date lies in the cell, by id.

    A tile is the smallest window of the lattice that holds the polygon; its cover is the part of the polygon in the
    AOI (degrees). Features without date have the cell's; a year of their own is as the file says, not snapped yet.

    Raises:
        AoiError: none is left.
        GridError: two ids become the same file name.
        RegionFileError: the file cannot be used, or a tile is larger than any of a lattice.
    """
    tiles, left, _ = _sorted_out(region, aoi)
    if not tiles:
        why = ", ".join(f"{count} {reason}" for reason, count in left.items()) or "the file holds none"
        raise AoiError(f"no feature of {region.tiles.path} makes a tile of {region.name} ({why}): check both")
    refuse_clashes(tiles)
    return tuple(sorted(tiles, key=lambda tile: tile.tile_id))


def tile_remarks(region: Region, aoi: "BaseGeometry") -> tuple[str, ...]:
    """Return which features make no tile, were mended or are rejected, one sentence for each reason."""
    import shapely

    tiles, left, features = _sorted_out(region, aoi)
    invalid = [feature for feature in features if not shapely.is_valid(feature.shape)]
    remarks = [
        f"{region.tiles.path}: {count} features make no tile: {reason}" for reason, count in left.items()
    ]
    if invalid:
        remarks.append(
            f"{region.tiles.path}: {len(invalid)} polygons were invalid ({shapely.is_valid_reason(invalid[0].shape)}) and "
            "were mended: see that their tiles are those you mean"
        )
    if rejected := sum(tile.reject for tile in tiles):
        remarks.append(f"{region.tiles.path}: {rejected} of {len(tiles)} tiles are rejected")
    return tuple(remarks)


def _sorted_out(
    region: Region, aoi: "BaseGeometry"
) -> tuple[list[Tile], collections.Counter[str], list[Feature]]:
    """Return the tiles in the order of the file, how many features make none for which reason, and all features."""
    layer, features = read_tile_features(region)
    left = collections.Counter({"no geometry": len(layer.rows) - len(features)})
    tiles = []
    epsg, find = layer.sure_epsg(), lattice_finder(region)
    for feature in features:
        made = _tile(region, aoi, feature, epsg, find)
        if isinstance(made, Tile):
            tiles.append(made)
        else:
            left[made] += 1
    return tiles, +left, features


def _tile(
    region: Region, aoi: "BaseGeometry", feature: Feature, epsg: int, find: Callable[[float, float], Lattice]
) -> Tile | str:
    """Return the tile of a feature, or why it makes none."""
    import shapely

    cell = cell_range(region)
    if region.tiles.time is not None and feature.time is not None and not cell.holds(feature.time.start):
        return "outside time.range"
    polygon = polygons_of(feature.shape)
    if polygon.area == 0:
        return "no polygon"
    degrees = reproject_shape(densified(polygon), epsg, 4326)
    lattice = find(degrees.centroid.x, degrees.centroid.y)
    window = lattice.window(reproject_shape(densified(polygon), epsg, lattice.epsg).bounds)
    cover = polygons_of(aoi.intersection(degrees))
    if cover.area == 0 or not meets_rule(region, aoi, degrees):
        return f"outside the AOI by aoi.rule {region.aoi.rule}"
    if max(window.shape) > MAX_TILE_PX:
        raise RegionFileError(
            f"feature {quoted(feature.source_id)} of {region.tiles.path} spans {window.width:,} x {window.height:,} px, a "
            f"tile has {MAX_TILE_PX:,} at most: cut it, or let it be the AOI of lattice tiles"
        )
    return Tile(
        tile_id=tile_name(feature.source_id),
        lattice=lattice,
        window=window,
        source_id=feature.source_id,
        anchor=(feature.time or cell).start_date,
        time=feature.time,
        lattice_tile=False,
        label_href=None,
        split=feature.split,
        reject=feature.reject,
        cover=shapely.to_wkb(shapely.normalize(cover)),
        attributes=feature.attributes,
    )


def refuse_shared_windows(region: Region, tiles: Sequence[Tile]) -> None:
    """Raise RegionFileError where overlapping tiles of one date or year share a window: it would be a chip twice."""
    import shapely

    groups: dict[tuple[Lattice, str], list[Tile]] = {}
    for tile in tiles:
        groups.setdefault((tile.lattice, tile.anchor), []).append(tile)
    chips = region.dataset.chips
    for (lattice, _), same in groups.items():
        boxes = np.array([shapely.box(*lattice.bounds(tile.window)) for tile in same], dtype=object)
        pairs = shapely.STRtree(boxes).query(boxes, predicate="intersects").T
        for one, other in ((same[a], same[b]) for a, b in pairs.tolist() if a < b):
            if twice := set(iter_windows(one, {}, chips)) & set(iter_windows(other, {}, chips)):
                raise RegionFileError(
                    f"tiles {one.tile_id} and {other.tile_id} of {region.tiles.path} share {len(twice)} windows of "
                    f"{region.dataset.chips.size_px} px at {one.anchor}: draw them without overlap, give them dates, or "
                    "set another dataset.chips.stride_px"
                )
