"""One tile with its scenes, for the composite benchmark: files, orders of our own, and items for other libraries.

12 dates of four bands at 10 m (uint16) and a class band at 20 m (uint8), deflated in blocks of 512 px. Beside clouds of
every shape, every third date has a cloud over a whole quarter of the tile, so that some blocks need not be decoded.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import rasterio

from benchmarks.archive import BANDS, make_square, region
from chipmill.imagery import catalog, planning
from chipmill.imagery.hrefs import resolve_href, source_root
from chipmill.imagery.items import Item, acquisitions
from chipmill.imagery.orders import Order, tile_grid
from chipmill.imagery.reading import Grid
from chipmill.region.config import Region

DATES: Final = 12
PER_SLOT: Final = 3
DROPPED: Final = (0, 1, 3, 8, 9, 10)
"""Classes that are not clear: those that a mask of ours drops by default."""
_CLOUD: Final = 9


@dataclass(frozen=True, slots=True)
class Scene:
    """What every contender is given."""

    grid: Grid
    orders: tuple[Order, ...]
    """One per slot."""
    slots: tuple[tuple[dict[str, Any], ...], ...]
    """STAC items of each slot as JSON, with the projection extension and absolute paths."""


def make_scene(folder: Path, side_px: int) -> Scene:
    """Write the files and return the scene."""
    square = make_square(folder / "archive", side_px, DATES, scenes=DATES)
    for number in range(2, DATES, 3):
        cover_a_quarter(square.folder / f"scene-{number}" / "scl.tif")
    config = region(square, folder, side_px)
    plan = planning.tile_aoi(config)
    (tile,) = plan.tiles()
    items = catalog.load_items(catalog.search_items(plan))
    ordered = acquisitions(items)
    groups = [ordered[start : start + PER_SLOT] for start in range(0, DATES, PER_SLOT)]
    imagery, grid = config.imagery[0], tile_grid(tile)
    root = source_root(config, imagery.source, imagery.auth)
    return Scene(
        grid,
        tuple(Order(config, imagery, grid, tuple(group)) for group in groups),
        tuple(tuple(_item(one.items[0], root, grid) for one in group) for group in groups),
    )


def cover_a_quarter(path: Path) -> None:
    """Set the first quarter of a class band to cloud."""
    with rasterio.open(path) as source:
        pixels, profile = source.read(1), source.profile
    half = pixels.shape[0] // 2
    pixels[:half, :half] = np.where(pixels[:half, :half] == 0, 0, _CLOUD)
    with rasterio.open(path, "w", **profile) as target:
        target.write(pixels, 1)


def stac_items(config: Region, slots: int) -> tuple[list[list[dict[str, Any]]], Grid]:
    """Return the items of a region of one tile as JSON, in groups of equal size by time, and the tile's grid."""
    config, (tile,) = planning.place_tiles(config)
    found = sorted(catalog.find_items(config, (tile,)).items, key=lambda item: item.datetime)
    imagery, grid = config.imagery[0], tile_grid(tile)
    root = source_root(config, imagery.source, imagery.auth)
    step = len(found) // slots
    listed = [_item(item, root, grid) for item in found]
    return [listed[start : start + step] for start in range(0, len(listed), step)], grid


def _item(item: Item, root: str, grid: Grid) -> dict[str, Any]:
    """Return an item with all that odc-stac and stackstac like to know before they open a file."""
    left, top = grid.transform @ (0, 0)
    right, bottom = grid.transform @ (grid.width, grid.height)
    assets: dict[str, Any] = {}
    for name in (*BANDS, "mask"):
        factor = 2 if name == "mask" else 1
        a, b, c, d, e, f = grid.transform[:6]
        assets["scl" if name == "mask" else name] = {
            "href": resolve_href(root, item.assets[name].href),
            "type": "image/tiff; application=geotiff",
            "roles": ["data"],
            "raster:bands": [{"data_type": "uint8" if name == "mask" else "uint16", "nodata": 0}],
            "proj:shape": [grid.height // factor, grid.width // factor],
            "proj:transform": [a * factor, b, c, d, e * factor, f],
        }
    properties = {
        "datetime": item.datetime.isoformat(),
        "proj:code": grid.crs,
        "proj:epsg": int(grid.crs.removeprefix("EPSG:")),
        "proj:bbox": [left, bottom, right, top],
    }
    west, south, east, north = item.bbox
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": [
            "https://stac-extensions.github.io/projection/v1.1.0/schema.json",
            "https://stac-extensions.github.io/raster/v1.1.0/schema.json",
        ],
        "id": item.item_id,
        "collection": "square",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "bbox": list(item.bbox),
        "links": [],
        "properties": properties,
        "assets": assets,
    }
