"""The bill of a cell before anything is read: the geometry of its tiles, met with what the search found."""

from collections.abc import Sequence

from chipmill.imagery.items import Answer, Item
from chipmill.region.config import Region
from chipmill.region.plan import Estimate, estimate
from chipmill.region.tiles import Tile


def bill_of(region: Region, tiles: Sequence[Tile], answer: Answer) -> Estimate:
    """Return what a run of a cell would read, make and take, at most."""
    return estimate(region, tiles, len(answer.items), shared_pixels(tiles, answer.items))


def shared_pixels(tiles: Sequence[Tile], items: Sequence[Item]) -> int:
    """Return the pixels that tiles and items share, summed over all pairs: what is read when nothing is left out.

    A pair counts the share of the tile's footprint that the item's outline covers, in pixels of the tile.
    """
    import shapely

    outlines = shapely.from_wkb([item.geometry_wkb for item in items])
    index, total = shapely.STRtree(outlines), 0.0
    for tile in tiles:
        footprint = tile.lattice.footprint(tile.window)
        met = outlines[index.query(footprint, predicate="intersects")]
        share = shapely.area(shapely.intersection(met, footprint)).sum() / footprint.area
        total += share * tile.window.width * tile.window.height
    return round(total)
