"""Reading the stacks of a dataset version as rasters to predict on; evaluation and maps both read through here.

All lattice tiles of one CRS are one raster (`stack-<epsg>.vrt`); a tile without neighbours, such as that of a label
item, is one of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chipmill.core.errors import SchemaMismatchError
from chipmill.core.paths import VersionDir
from chipmill.dataset import pixels
from chipmill.dataset.stack import LABEL, WEIGHT, StackBand
from chipmill.dataset.stack_file import StackFile
from chipmill.region.grid import Lattice, Window
from chipmill.region.plan import load_tiles
from chipmill.region.tiles import Tile


@dataclass(frozen=True, slots=True)
class Raster:
    """A stack that is predicted as a whole."""

    name: str  # EPSG code for lattice tiles, tile_id for a tile without neighbours
    path: Path
    lattice: Lattice
    extent: Window  # in lattice pixels
    tiles: tuple[Tile, ...]


def stack_rasters(version: VersionDir) -> tuple[Raster, ...]:
    """Return the rasters of a dataset version, lattices by EPSG code first; tiles that failed have no stack."""
    tiles = [tile for tile in load_tiles(version.tiles) if version.stack(tile.tile_id).exists()]
    lattices = sorted({tile.lattice for tile in tiles if tile.lattice_tile}, key=lambda one: one.epsg)
    rasters = []
    for lattice in lattices:
        own = tuple(tile for tile in tiles if tile.lattice_tile and tile.lattice == lattice)
        rasters.append(_raster(str(lattice.epsg), version.mosaic(lattice.epsg), lattice, own))
    alone = [tile for tile in tiles if not tile.lattice_tile]
    rasters += [_raster(tile.tile_id, version.stack(tile.tile_id), tile.lattice, (tile,)) for tile in alone]
    return tuple(rasters)


def _raster(name: str, path: Path, lattice: Lattice, tiles: tuple[Tile, ...]) -> Raster:
    with pixels.open_stack(path) as opened:
        extent = lattice.aligned_window(opened.transform, opened.width, opened.height, str(path))
    return Raster(name, path, lattice, extent, tiles)


class StackReader:
    """An open raster; windows are in lattice pixels and lie inside its extent, those of `pixels` may reach beyond."""

    def __init__(self, raster: Raster, opened: StackFile, bands: Sequence[StackBand]) -> None:
        self._raster, self._opened, self._bands = raster, opened, bands
        names = list(opened.descriptions)
        wanted = [band.name for band in bands]
        # the last two of a stack are, where there are labels: the weight, if there is one, and the label
        masks = next((own for own in ([WEIGHT, LABEL], [LABEL]) if names[-len(own) :] == own), [])
        found = names[: len(names) - len(masks)]
        if found != wanted:
            raise SchemaMismatchError(
                f"{raster.path} has the bands {found}, the model wants {wanted}: use a region with the same bands"
            )
        self._label = len(names) if masks else None

    def pixels(self, window: Window) -> NDArray[Any]:
        """Return the predictor bands `(y, x, band)` in stored values; nodata beyond the raster."""
        inside = window.intersection(self._raster.extent)
        if inside == window:
            return self._stored(window)
        kinds = self._opened.dtypes[: len(self._bands)]
        nodata = np.array([band.nodata for band in self._bands], np.result_type(*kinds))
        padded = np.tile(nodata, (*window.shape, 1))
        if inside is not None:
            top, left = inside.row_off - window.row_off, inside.col_off - window.col_off
            padded[top : top + inside.height, left : left + inside.width] = self._stored(inside)
        return padded

    def extent_for(self, chip_px: int) -> Window:
        """Return the raster's extent, grown to the right and downwards where it is smaller than a chip.

        A model is never shown a chip that is one corner mirrored over and over: what is added is nodata.
        """
        extent = self._raster.extent
        return Window(extent.col_off, extent.row_off, max(extent.width, chip_px), max(extent.height, chip_px))

    def _stored(self, window: Window) -> NDArray[Any]:
        stored = pixels.read_window(self._opened, self._place(window), range(1, len(self._bands) + 1))
        return np.ascontiguousarray(np.moveaxis(stored, 0, -1))

    def label(self, window: Window) -> NDArray[np.uint8]:
        """Return the label `(y, x)` uint8, 255 = ignore; all ignore where the stack has none."""
        if self._label is None:
            return np.full(window.shape, 255, np.uint8)
        label: NDArray[np.uint8] = pixels.read_window(self._opened, self._place(window), [self._label])[0]
        return label

    def observed(self, chip: NDArray[Any]) -> NDArray[np.bool_]:
        """Return bool `(y, x)`, True where some slot has all its bands; `chip` is `(y, x, band)`."""
        return pixels.any_slot_valid(np.moveaxis(chip, -1, 0), self._bands)

    def _place(self, window: Window) -> Window:
        extent = self._raster.extent
        return Window(
            window.col_off - extent.col_off, window.row_off - extent.row_off, window.width, window.height
        )


@contextmanager
def open_stack(raster: Raster, bands: Sequence[StackBand]) -> Iterator[StackReader]:
    """Open a raster for reading the given bands.

    Raises AssetReadError when it or a file behind it cannot be read, SchemaMismatchError when its bands differ.
    """
    with pixels.open_stack(raster.path) as opened:
        yield StackReader(raster, opened, bands)
