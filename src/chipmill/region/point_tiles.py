"""Tiles from points with a class: a chip is centred on each, its neighbourhood as Earth Engine calls it.

The tiles are those of the lattice that the neighbourhoods touch, so that each block of imagery is read once however
many points lie in it; a point goes with the tile that holds the top left pixel of its window.
"""

import collections
import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from chipmill.core.errors import AoiError
from chipmill.core.plain import quoted
from chipmill.region.config import Region
from chipmill.region.grid import Lattice, Window, reproject_shape
from chipmill.region.layers import LabelLayer
from chipmill.region.points import point_window
from chipmill.region.slots import cell_range
from chipmill.region.tile_files import Feature, read_tile_features
from chipmill.region.tiles import Point, Tile, densified, lattice_finder, place_name

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

type _Pixel = tuple[int, int]
"""Row and column on the lattice."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Found:
    """The points of a file that make chips, and why the others make none."""

    points: dict[Lattice, dict[_Pixel, Point]]
    left: collections.Counter[str]


def point_tiles(region: Region, aoi: "BaseGeometry") -> tuple[Tile, ...]:
    """Return the lattice tiles that the windows of the points of ``tiles.path`` touch, by CRS, then row, then column.

    Points outside the AOI (degrees) make no chip; a neighbourhood may reach beyond the AOI, and its label counts there.
    The cover of a tile is what neighbourhoods hold of it. They are whole at the border of a UTM zone, too: a point goes
    by its own zone, and where two zones meet a fixed grid.crs lets splits see that their chips share ground. Of several
    points on one pixel the last of the file counts, as it is painted on top.

    Raises AoiError where no point is left, RegionFileError where the file cannot be used.
    """
    found = _find(region, aoi)
    if not found.points:
        why = ", ".join(f"{count} {reason}" for reason, count in found.left.items()) or "the file holds none"
        raise AoiError(f"no feature of {region.tiles.path} makes a chip of {region.name} ({why}): check both")
    return tuple(
        tile
        for lattice in sorted(found.points, key=lambda one: one.epsg)
        for tile in _tiles(region, lattice, found.points[lattice].values())
    )


def point_remarks(region: Region, aoi: "BaseGeometry") -> tuple[str, ...]:
    """Return which points make no chip, one sentence for each reason."""
    left = _find(region, aoi).left
    return tuple(f"{region.tiles.path}: {count} features make no chip: {why}" for why, count in left.items())


def with_point_label(region: Region) -> Region:
    """Return the region with the points' own class as label layer, where it names ``tiles.class`` and no other layer.

    The label is then known on the pixels of the points alone.
    """
    rules, labels = region.tiles, region.labels
    if rules.class_ is None or rules.path is None or labels is None or labels.layers:
        return region
    layer = LabelLayer(path=rules.path, attribute=rules.class_)
    return region.model_copy(update={"labels": labels.model_copy(update={"layers": (layer,)})})


def _find(region: Region, aoi: "BaseGeometry") -> _Found:
    import shapely

    layer, features = read_tile_features(region)
    epsg = layer.sure_epsg()
    left = collections.Counter({"no geometry": len(layer.rows) - len(features)})
    find = lattice_finder(region)
    points: dict[Lattice, dict[_Pixel, Point]] = {}
    shapely.prepare(aoi)
    for feature in features:
        degrees = reproject_shape(feature.shape, epsg, 4326)
        if why := _unusable(region, feature, degrees, aoi):
            left[why] += 1
            continue
        lattice = find(*degrees.bounds[:2])
        x, y, _, _ = reproject_shape(feature.shape, epsg, lattice.epsg).bounds
        # the pixel that a rasterizer burns: no snapping to the next one
        col, row = (x - lattice.origin_x) / lattice.res_x, (lattice.origin_y - y) / lattice.res_y
        pixel = (math.floor(row), math.floor(col))
        same = points.setdefault(lattice, {})
        left["on the pixel of a later point"] += pixel in same
        same[pixel] = Point(pixel[1], pixel[0], feature.source_id, feature.split, feature.attributes)
    return _Found(points, +left)


def _unusable(region: Region, feature: Feature, degrees: "BaseGeometry", aoi: "BaseGeometry") -> str:
    if degrees.geom_type != "Point":
        return "no point"
    if not aoi.intersects(degrees):
        return "outside the AOI"
    if region.tiles.class_ is not None and region.tiles.class_ not in feature.attributes:
        return f"nothing in {quoted(region.tiles.class_)}"
    return ""


def _tiles(region: Region, lattice: Lattice, points: Iterable[Point]) -> list[Tile]:
    side, size = region.grid.tile_px, region.dataset.chips.size_px
    own: dict[_Pixel, list[Point]] = {}
    near: dict[_Pixel, list[Window]] = {}
    for point in points:
        window = point_window(point, size)
        own.setdefault((window.row_off // side, window.col_off // side), []).append(point)
        for iy in range(window.row_off // side, (window.row_end - 1) // side + 1):
            for ix in range(window.col_off // side, (window.col_end - 1) // side + 1):
                near.setdefault((iy, ix), []).append(window)
    anchor = cell_range(region).start_date
    tiles = []
    for (iy, ix), windows in sorted(near.items()):
        name, place = place_name(lattice, ix, iy), Window(ix * side, iy * side, side, side)
        cover = _cover(lattice, place, windows)
        held = tuple(sorted(own.get((iy, ix), ()), key=lambda one: (one.row, one.col)))
        tile = Tile(name, lattice, place, name, anchor, None, True, None, None, False, cover, points=held)
        tiles.append(tile)
    return tiles


def _cover(lattice: Lattice, place: Window, windows: Sequence[Window]) -> bytes:
    """Return as WKB in degrees what windows hold of a tile."""
    import shapely

    parts = [part for window in windows if (part := window.intersection(place)) is not None]
    union = shapely.union_all([shapely.box(*lattice.bounds(part)) for part in parts])
    return bytes(shapely.to_wkb(shapely.normalize(reproject_shape(densified(union), lattice.epsg, 4326))))
