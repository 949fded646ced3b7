"""Windows of points: a chip is centred on each, its neighbourhood as Earth Engine calls it; pure integer geometry.

Which points there are, and which tiles hold them, is in :mod:`chipmill.region.point_tiles`.
"""

from chipmill.region.grid import Window
from chipmill.region.tiles import Point, Tile


def point_window(point: Point, size_px: int) -> Window:
    """Return the window of ``size_px`` whose centre pixel, the ``size_px // 2``-th from 0, is the point's."""
    half = size_px // 2
    return Window(point.col - half, point.row - half, size_px, size_px)


def point_windows(tile: Tile, size_px: int) -> dict[Window, Point]:
    """Return the windows of a tile's points by row, then column, with their points; empty where it has none."""
    found = {point_window(point, size_px): point for point in tile.points or ()}
    return dict(sorted(found.items(), key=lambda one: (one[0].row_off, one[0].col_off)))
