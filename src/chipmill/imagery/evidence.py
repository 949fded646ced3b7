"""How clear an acquisition is over one tile: measured from the mask, else read from its metadata.

A fraction needs no single pixel: masks are sampled on a grid that is coarser than a large tile's own, each from its
coarsest level that holds that much: an overview, or the file itself where it is coarse (a 20 m mask of a 10 m tile).
A source block is decoded once. Clear fraction = clear px / all px of tile and cover; a pixel that was not observed is
not clear.
"""

import contextlib
import dataclasses
import datetime as dt
import math
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.io import DatasetReader
from rasterio.warp import transform as to_crs

from chipmill.imagery.catalog import tile_area
from chipmill.imagery.hrefs import resolve_href
from chipmill.imagery.items import MASK, Acquisition, Asset, Item
from chipmill.imagery.masks import classify
from chipmill.imagery.reading import BandReader, Grid
from chipmill.imagery.sources import check_metadata, open_asset
from chipmill.region.imagery import Mask
from chipmill.region.tiles import Tile, cover_mask

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

ENOUGH_PX: Final = 512
"""A longer side of a tile is halved while it stays at least this long."""

EvidenceKind = Literal["mask", "cloud_cover", "none"]

type Part = tuple[tuple[slice, slice], NDArray[Any], NDArray[np.bool_]]
"""Which rows and columns of the grid, the values there and whether they are valid, both (y, x)."""


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


class Ground:
    """The pixels of a tile that are counted: made once for all acquisitions over it, each part when it is asked for."""

    def __init__(self, tile: Tile) -> None:
        self._tile = tile
        full = tile_grid(tile)
        self.factor = 1
        """Pixels of the tile along the side of a counted one."""
        while max(full.width, full.height) >= 2 * self.factor * ENOUGH_PX:
            self.factor *= 2
        self.grid = full.coarsened(self.factor)
        """The counted pixels."""

    @cached_property
    def cover(self) -> NDArray[np.bool_]:
        """True (y, x) where the centre of a counted pixel lies in what the tile answers for."""
        cover = cover_mask(self._tile)
        if self.factor == 1:
            return cover
        rows, columns = (
            np.minimum(np.arange(size) * self.factor + self.factor // 2, limit - 1)
            for size, limit in zip((self.grid.height, self.grid.width), cover.shape, strict=True)
        )
        return np.asarray(cover[np.ix_(rows, columns)])

    @cached_property
    def area(self) -> "BaseGeometry":
        """What the tile answers for, in degrees."""
        return tile_area(self._tile)

    def share(self, pixels: NDArray[np.bool_]) -> float:
        """Return the share of the covered pixels that are True (y, x) in ``pixels``; 0 where nothing is covered."""
        total = int(np.count_nonzero(self.cover))
        return int(np.count_nonzero(pixels & self.cover)) / total if total else 0.0

    def footprint_share(self, items: tuple[Item, ...]) -> float:
        """Return the share of the tile's area that lies in the items' footprints; degrees do, over one tile."""
        import shapely

        outlines = shapely.union_all([shapely.from_wkb(item.geometry_wkb) for item in items])
        return (
            float(min(1.0, self.area.intersection(outlines).area / self.area.area)) if self.area.area else 0.0
        )


def assess(acquisition: Acquisition, ground: Ground, mask: Mask | None, root: str) -> Candidate:
    """Return what is known of an acquisition over a tile.

    Args:
        acquisition: its items that meet the tile.
        ground: the tile's counted pixels.
        mask: how to read the mask; None = there is none, and eo:cloud_cover is believed.
        root: root of the items' source.

    Raises:
        AssetReadError, TransientReadError: the mask cannot be read.
        AssetMismatchError: the mask's georeference contradicts its item.
    """
    cover_pct = acquisition.cloud_cover_pct
    clear: float | None
    evidence: EvidenceKind
    if mask is not None:
        clear, coverage = _measure(acquisition.items, ground, mask, root)
        evidence = "mask"
    else:
        coverage = ground.footprint_share(acquisition.items)
        clear = None if cover_pct is None else (1.0 - cover_pct / 100.0) * coverage
        evidence = "none" if cover_pct is None else "cloud_cover"
    return Candidate(
        acquisition.acquisition_id,
        acquisition.datetime,
        acquisition.item_ids,
        clear,
        coverage,
        cover_pct,
        evidence,
    )


def _measure(items: tuple[Item, ...], ground: Ground, mask: Mask, root: str) -> tuple[float, float]:
    """Return clear and coverage fraction from the masks of an acquisition's items."""
    clear = np.zeros((ground.grid.height, ground.grid.width), np.bool_)
    observed = np.zeros_like(clear)
    for item in items:
        asset = item.assets[MASK]
        for place, values, valid in read_parts(asset, resolve_href(root, asset.href), ground.grid):
            good, dropped = classify(values, valid, mask)
            clear[place] |= good
            observed[place] |= good | dropped
    return ground.share(clear), ground.share(observed)


def read_parts(asset: Asset, location: str, grid: Grid) -> Iterator[Part]:
    """Yield a mask as it is at the centres of the grid's pixels, part by part, each of its blocks decoded once.

    Read at its coarsest level whose pixels are no larger than the grid's, which may be the file itself; what lies
    outside of the file is not yielded, or not valid.

    Raises:
        AssetReadError, TransientReadError: it cannot be opened or read.
        AssetMismatchError: its georeference contradicts its item.
    """
    with contextlib.ExitStack() as stack:
        dataset = stack.enter_context(open_asset(location))
        check_metadata(dataset, asset, location)
        level = _level(dataset, asset.band, grid)
        if level is not None:
            dataset = stack.enter_context(open_asset(location, overview=level))
        source = dataset.transform
        if dataset.crs == CRS.from_user_input(grid.crs) and not (source.b or source.d):
            yield from _sampled(dataset, asset, location, grid)
            return
        # Another CRS: warped in one read, in which GDAL keeps the blocks that it needs again.
        reader = BandReader(dataset, asset, location, grid, "nearest")
        stack.callback(reader.close)
        yield (np.s_[: grid.height, : grid.width], *reader.read(0, grid.height))


def _level(dataset: DatasetReader, band: int, grid: Grid) -> int | None:
    """Return the coarsest overview whose pixels are not larger than the grid's; None: the file itself."""
    x, y = grid.transform @ (grid.width / 2, grid.height / 2)
    ends = [grid.transform @ (grid.width / 2 + dx, grid.height / 2 + dy) for dx, dy in ((1, 0), (0, 1))]
    xs, ys = (x, *(end[0] for end in ends)), (y, *(end[1] for end in ends))
    if dataset.crs != CRS.from_user_input(grid.crs):
        xs, ys = to_crs(grid.crs, dataset.crs, xs, ys)
    columns, rows = zip(*(~dataset.transform @ point for point in zip(xs, ys, strict=True)), strict=True)
    ratio = min(math.hypot(columns[k] - columns[0], rows[k] - rows[0]) for k in (1, 2))
    fitting = [level for level, factor in enumerate(dataset.overviews(band)) if factor <= ratio * 1.001]
    return max(fitting, default=None)


def _sampled(dataset: DatasetReader, asset: Asset, location: str, grid: Grid) -> Iterator[Part]:
    """Yield a file of the grid's CRS at the centres of the grid's pixels, one row of blocks after the other."""
    columns = _source_px(grid.transform.c, grid.transform.a, grid.width, ~dataset.transform, along_x=True)
    rows = _source_px(grid.transform.f, grid.transform.e, grid.height, ~dataset.transform, along_x=False)
    across = np.flatnonzero((columns >= 0) & (columns < dataset.width))
    down = np.flatnonzero((rows >= 0) & (rows < dataset.height))
    if not across.size or not down.size:
        return
    left = int(columns[across].min())
    width = int(columns[across].max()) + 1 - left
    view = Grid(grid.crs, dataset.transform @ Affine.translation(left, 0), width, dataset.height)
    reader = BandReader(dataset, asset, location, view, "nearest")
    pick = _steps(columns[across] - left)
    block_rows = rows[down] // dataset.block_shapes[asset.band - 1][0]
    for block_row in np.unique(block_rows):
        lines = down[block_rows == block_row]
        top = int(rows[lines].min())
        values, valid = reader.read(top, int(rows[lines].max()) + 1 - top)
        place = np.s_[lines[0] : lines[-1] + 1, across[0] : across[-1] + 1]
        thin = _steps(rows[lines] - top)
        yield place, values[thin][:, pick], valid[thin][:, pick]


def _steps(indices: NDArray[np.int64]) -> slice | NDArray[np.int64]:
    """Return ascending indices as a slice where they are evenly spaced: taken without a copy of each element."""
    step = int(indices[1] - indices[0]) if indices.size > 1 else 1
    even = step > 0 and bool((np.diff(indices) == step).all())
    return slice(int(indices[0]), int(indices[-1]) + 1, step) if even else indices


def _source_px(start: float, step: float, count: int, inverse: Affine, *, along_x: bool) -> NDArray[np.int64]:
    """Return the column (or row) of a file in which the centre of each of the grid's columns (or rows) lies."""
    scale, shift = (inverse.a, inverse.c) if along_x else (inverse.e, inverse.f)
    centres = start + step * (np.arange(count) + 0.5)
    return np.floor(scale * centres + shift + 1e-9).astype(np.int64)
