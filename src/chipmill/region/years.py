"""The year of each tile: the one that most of what overlaps it has, snapped to an available year.

The file to change for how a year is chosen. What a year does to a tile: its time is that year, its slots are cut of it
(:func:`chipmill.region.slots.tile_slots`), its samples are dated by its first day.
"""

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from chipmill.region.attributes import year_of
from chipmill.region.config import Region
from chipmill.region.grid import Lattice, reproject_shape
from chipmill.region.slots import check_year_slots, year_range
from chipmill.region.tiles import Tile, densified
from chipmill.region.tiling import TileYear
from chipmill.region.vectors import Layer, read_layer

_EQUAL_PX: Final = 1e-3
"""Areas that differ by at most this part of a pixel are the same area."""


def with_years(region: Region, tiles: Sequence[Tile]) -> tuple[Tile, ...]:
    """Return the tiles with the years that ``tiles.year`` gives them; those without one are rejected.

    Where tiles of a file say their own year, that is it, and it is in their time already. Else each year counts the area
    that its polygons share with the tile's rectangle, each polygon for itself; in a file of points or lines it counts the
    features that meet the tile. The largest wins. What was found is snapped to the nearest available year.

    Raises RegionFileError where the file cannot be used, a value is no year, or years have unlike slots.
    """
    if region.tiles.year is None:
        return tuple(tiles)
    check_year_slots(region, region.tiles.year.years(*region.time.range))
    return tuple(_dated(tile, year) for tile, (_, year) in zip(tiles, _years(region, tiles), strict=True))


def year_remarks(region: Region, tiles: Sequence[Tile]) -> tuple[str, ...]:
    """Return which tiles take another year than theirs, or have none; ``tiles`` are those before :func:`with_years`."""
    if region.tiles.year is None:
        return ()
    pairs = collections.Counter(_years(region, tiles))
    told = []
    for (found, year), count in sorted(pairs.items(), key=lambda one: (one[0][0] or 0, one[1])):
        if found is None:
            fate = "are rejected" if year is None else f"take {year} by default"
            told.append(f"{count} of {len(tiles)} tiles have no year and {fate}")
        elif found != year:
            told.append(
                f"{count} of {len(tiles)} tiles are of {found}, which is not available, and take {year}"
            )
    return tuple(told)


def _years(region: Region, tiles: Sequence[Tile]) -> list[tuple[int | None, int | None]]:
    """Return of each tile the year that it has, and the one that it takes."""
    rule = region.tiles.year
    assert rule is not None, "the callers look"  # noqa: S101
    available = rule.years(*region.time.range)
    if rule.path is None:
        found = [tile.time.start.year if tile.time else None for tile in tiles]
    else:
        layer = read_layer(region.resolve(rule.path), "tiles.year.path", [rule.attribute])
        overlaps = {
            lattice: _overlaps(layer, rule.attribute, lattice) for lattice in {tile.lattice for tile in tiles}
        }
        found = [mode_year(rule, overlaps[tile.lattice].of(tile)) for tile in tiles]
    return [(year, snapped_year(rule, available, year)) for year in found]


def mode_year(rule: TileYear, weights: Mapping[int, float]) -> int | None:
    """Return the year with the largest weight (pixels, or features), of equal ones as ``rule.ties`` says; None of none."""
    largest = max(weights.values(), default=0.0)
    best = [year for year, weight in weights.items() if weight > 0 and weight >= largest - _EQUAL_PX]
    if not best:
        return None
    return min(best) if rule.ties == "earliest" else max(best)


def snapped_year(rule: TileYear, years: Sequence[int], year: int | None) -> int | None:
    """Return the available year nearest to ``year``, of equally near ones as ``rule.ties`` says.

    For None it is ``rule.default``.
    """
    if year is None:
        return rule.default
    later = -1 if rule.ties == "latest" else 1
    return min(years, key=lambda one: (abs(one - year), later * one))


def _dated(tile: Tile, year: int | None) -> Tile:
    if year is None:
        return dataclasses.replace(tile, reject=True)
    time = year_range(year)
    return dataclasses.replace(tile, time=time, anchor=time.start_date)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class _Overlaps:
    """Features with their years on one lattice."""

    tree: Any
    """STRtree of their shapes in CRS units."""
    years: NDArray[np.int64]
    solid: bool
    """True where they are polygons, whose areas count."""
    pixel: float
    """Area of a pixel."""

    def of(self, tile: Tile) -> dict[int, float]:
        """Return year -> pixels that its polygons share with a tile, or its features that meet it."""
        import shapely

        outline = shapely.box(*tile.bounds)
        near = self.tree.query(outline, predicate="intersects")
        shapes = self.tree.geometries[near]
        each = (
            shapely.area(shapely.intersection(shapes, outline)) / self.pixel
            if self.solid
            else np.ones(len(near))
        )
        # summed in the order of the file, so that the last bits do not depend on the index
        order = np.argsort(near)
        weights: dict[int, float] = {}
        for year, weight in zip(self.years[near][order].tolist(), each[order].tolist(), strict=True):
            weights[year] = weights.get(year, 0.0) + weight
        return weights


def _overlaps(layer: Layer, attribute: str, lattice: Lattice) -> _Overlaps:
    import shapely

    there = np.flatnonzero(~(shapely.is_missing(layer.shapes) | shapely.is_empty(layer.shapes)))
    read = [(row, layer.value(row, attribute, year_of)) for row in there.tolist()]
    dated = [(row, year) for row, year in read if year is not None]
    shapes: NDArray[Any] = (
        shapely.make_valid(layer.shapes[[row for row, _ in dated]]) if dated else np.empty(0, object)
    )
    years = np.array([year for _, year in dated], dtype=np.int64)
    solid = shapely.get_dimensions(shapes) == 2
    if solid.any():
        shapes, years = shapes[solid], years[solid]
    epsg = layer.sure_epsg()
    moved = [reproject_shape(densified(shape), epsg, lattice.epsg) for shape in shapes]
    tree = shapely.STRtree(np.array(moved, dtype=object))
    return _Overlaps(tree, years, bool(solid.any()), lattice.res_x * lattice.res_y)
