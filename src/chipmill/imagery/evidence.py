"""How clear an acquisition is over one tile: measured from the mask, else read from its metadata.

A mask is read once per tile, from its overview where the tile is large and the file has one: a fraction needs no
single pixel. Clear fraction = clear px / all px of tile and cover; a pixel that was not observed is not clear.
"""

import dataclasses
import datetime as dt
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from chipmill.imagery.catalog import tile_area
from chipmill.imagery.hrefs import resolve_href
from chipmill.imagery.items import MASK, Acquisition, Item
from chipmill.imagery.masks import classify
from chipmill.imagery.reading import Grid, open_band, overview_for
from chipmill.region.imagery import Mask
from chipmill.region.tiles import Tile, cover_mask

ENOUGH_PX: Final = 512
"""A longer side of a tile is halved while it stays at least this long."""
_STRIP_ROWS: Final = 1024

EvidenceKind = Literal["mask", "cloud_cover", "none"]


@dataclasses.dataclass(frozen=True, slots=True)
class Candidate:
    """An acquisition over a tile, and what is known of its clouds."""

    acquisition_id: str
    datetime: dt.datetime
    item_ids: tuple[str, ...]
    clear_fraction: float | None
    """None where nothing is known."""
    coverage_fraction: float
    """Observed px / all px of tile and cover; from footprints where there is no mask."""
    cloud_cover_pct: float | None
    evidence: EvidenceKind


def tile_grid(tile: Tile) -> Grid:
    """Return the pixels of a tile."""
    return Grid(tile.crs, tile.transform, tile.window.width, tile.window.height)


def assess(acquisition: Acquisition, tile: Tile, mask: Mask | None, root: str) -> Candidate:
    """Return what is known of an acquisition over a tile.

    Args:
        acquisition: its items that meet the tile.
        tile: the place.
        mask: how to read the mask; None = there is none, and eo:cloud_cover is believed.
        root: root of the items' source.

    Raises:
        AssetReadError, TransientReadError: the mask cannot be read.
        AssetMismatchError: the mask's georeference contradicts its item.
    """
    cover_pct = acquisition.cloud_cover_pct
    ids = acquisition.item_ids
    clear: float | None
    evidence: EvidenceKind
    if mask is not None:
        clear, coverage = _measure(acquisition.items, tile, mask, root)
        evidence = "mask"
    else:
        coverage = _footprint_fraction(acquisition.items, tile)
        clear = None if cover_pct is None else (1.0 - cover_pct / 100.0) * coverage
        evidence = "none" if cover_pct is None else "cloud_cover"
    return Candidate(
        acquisition.acquisition_id, acquisition.datetime, ids, clear, coverage, cover_pct, evidence
    )


def _measure(items: tuple[Item, ...], tile: Tile, mask: Mask, root: str) -> tuple[float, float]:
    """Return clear and coverage fraction from the masks of an acquisition's items."""
    full = tile_grid(tile)
    factor = 1
    while max(full.width, full.height) >= 2 * factor * ENOUGH_PX:
        factor *= 2
    grid = full.coarsened(factor)
    files = [(item.assets[MASK], resolve_href(root, item.assets[MASK].href)) for item in items]
    levels = [overview_for(asset, location, grid) if factor > 1 else None for asset, location in files]
    if None in levels:
        # One resolution for all items of an acquisition: pixels of different sizes cannot be counted together.
        grid, factor, levels = full, 1, [None] * len(files)
    clear = np.zeros((grid.height, grid.width), np.bool_)
    observed = np.zeros_like(clear)
    for (asset, location), level in zip(files, levels, strict=True):
        with open_band(asset, location, grid, overview=level) as reader:
            for row in range(0, grid.height, _STRIP_ROWS):
                strip = np.s_[row : row + _STRIP_ROWS]
                values, valid = reader.read(row, min(_STRIP_ROWS, grid.height - row))
                good, dropped = classify(values, valid, mask)
                clear[strip] |= good
                observed[strip] |= good | dropped
    cover = _thinned(cover_mask(tile), factor, grid)
    total = int(np.count_nonzero(cover))
    if not total:
        return 0.0, 0.0
    return int(np.count_nonzero(clear & cover)) / total, int(np.count_nonzero(observed & cover)) / total


def _thinned(cover: NDArray[np.bool_], factor: int, grid: Grid) -> NDArray[np.bool_]:
    """Return the cover at the centres of pixels ``factor`` times as large."""
    if factor == 1:
        return cover
    rows = np.minimum(np.arange(grid.height) * factor + factor // 2, cover.shape[0] - 1)
    columns = np.minimum(np.arange(grid.width) * factor + factor // 2, cover.shape[1] - 1)
    return cover[np.ix_(rows, columns)]


def _footprint_fraction(items: tuple[Item, ...], tile: Tile) -> float:
    """Return the share of the tile's area that lies in the items' footprints; degrees do, over one tile."""
    import shapely

    area = tile_area(tile)
    outlines = shapely.union_all([shapely.from_wkb(item.geometry_wkb) for item in items])
    return float(min(1.0, area.intersection(outlines).area / area.area)) if area.area else 0.0
