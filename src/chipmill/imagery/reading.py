"""Reading a band onto a tile's grid, window by window.

A source on the same grid is read by plain windows, and so is, with nearest resampling, one whose pixels are a whole
multiple of the grid's; any other (CRS, resolution, shift by a part of a pixel) is warped once, through GDAL's warped
VRT. Whatever lies outside the source or equals its nodata comes back as not valid.
"""

import contextlib
import dataclasses
import itertools
import threading
from collections.abc import Iterator
from typing import Any, Final, NamedTuple, Self

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio import windows
from rasterio.crs import CRS
from rasterio.enums import MaskFlags, Resampling
from rasterio.io import DatasetReader
from rasterio.vrt import WarpedVRT

from chipmill.core.tiff import read_blocks
from chipmill.imagery.blocks import Layout, block_edges, spread
from chipmill.imagery.hrefs import is_url
from chipmill.imagery.items import Asset
from chipmill.imagery.scaling import own_of
from chipmill.imagery.sources import check_metadata, open_asset, reading
from chipmill.imagery.validity import code_of, drop_nodata
from chipmill.region.grid import Window

_SAME_PX: Final = 1e-3
"""Grids that differ by less than this share of a pixel are the same (float noise of headers)."""


@dataclasses.dataclass(frozen=True, slots=True)
class Grid:
    """The pixels that are wanted: CRS (``EPSG:<code>``), affine transform to CRS units, size in pixels."""

    crs: str
    transform: Affine
    width: int
    height: int

    def padded(self, px: int) -> Self:
        """Return the grid grown by ``px`` on each side."""
        transform = self.transform @ Affine.translation(-px, -px)
        return dataclasses.replace(
            self, transform=transform, width=self.width + 2 * px, height=self.height + 2 * px
        )

    def coarsened(self, factor: int) -> Self:
        """Return the grid of pixels ``factor`` times as large, from the same corner; it may end beyond this one."""
        transform = self.transform @ Affine.scale(factor)
        width, height = -(-self.width // factor), -(-self.height // factor)
        return dataclasses.replace(self, transform=transform, width=width, height=height)


@dataclasses.dataclass(frozen=True, slots=True)
class Frame:
    """How a window of a grid lies in a file whose pixels are ``factor`` times as large."""

    own: Window
    """The pixels of the file that hold the window; may begin before the file and end behind it."""
    factor: int
    corner: tuple[int, int]
    """Row and column of the window in the pixels of ``own`` after they are spread."""
    shape: tuple[int, int]
    """Of the window."""

    def spread(self, pixels: NDArray[Any], out: NDArray[Any] | None = None) -> NDArray[Any]:
        """Return pixels (y, x) of ``own`` on the grid, in ``out`` where it is given."""
        target = np.empty(self.shape, pixels.dtype) if out is None else out
        spread(pixels, self.factor, self.corner, target)
        return target


class BandReader:
    """One band of an open file, seen on a grid. Make it by :func:`open_band`. Not for two threads at once."""

    def __init__(
        self, dataset: DatasetReader, asset: Asset, location: str, grid: Grid, resampling: str
    ) -> None:
        self._location = location
        self._band = asset.band
        self._grid = grid
        place = asset.band - 1
        told = dataset.nodatavals[place]
        self._nodata = told if told is not None else asset.nodata
        self._masked = self._nodata is None and MaskFlags.all_valid not in dataset.mask_flag_enums[place]
        self.own = own_of(dataset, asset.band)
        """What the file says of its values."""
        self.code = code_of(self._nodata, self.own.dtype)
        """The integer that means that there is no data; None where no value does, and for floats."""
        placed = _placed(dataset, grid, resampling)
        self._warp = None if placed else _warped(dataset, grid, resampling, self._nodata)
        self._placed = placed or Placed(0, 0, 1)
        self._source: DatasetReader | WarpedVRT = self._warp or dataset
        alpha = self._warp is not None and self._nodata is None
        self.told_by_value = self.own.dtype.kind in "iu" and not self._masked and not alpha
        """Whether a pixel of the file is without data only where its value is :attr:`code`."""
        self._whole = self._warp is not None or dataset.driver == "LIBERTIFF" or is_url(location)
        """Whether a region is best read in one go."""
        height, width = self._source.block_shapes[place]
        factor = self._placed.factor
        extent = Window(
            -self._placed.column, -self._placed.row, self._source.width * factor, self._source.height * factor
        )
        self.layout = Layout(extent, height * factor, width * factor)
        """Where the file and its blocks lie on the grid; of what is warped, the blocks of the warped view."""

    def close(self) -> None:
        """Close the warped view; the file itself belongs to who opened it."""
        if self._warp is not None:
            self._warp.close()

    def read(self, row: int, rows: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Return values and validity (rows, width) of a strip of the grid that begins at ``row``.

        Values where validity is False mean nothing. Raises AssetReadError and TransientReadError.
        """
        frame = self.frame(Window(0, row, self._grid.width, rows))
        values, valid = self.read_own(frame.own)
        return frame.spread(values), frame.spread(valid)

    def frame(self, window: Window) -> Frame:
        """Return how a window of the grid lies in the file."""
        factor = self._placed.factor
        left, top = window.col_off + self._placed.column, window.row_off + self._placed.row
        right, bottom = -(-(left + window.width) // factor), -(-(top + window.height) // factor)
        column, row = left // factor, top // factor
        own = Window(column, row, right - column, bottom - row)
        return Frame(own, factor, (top - row * factor, left - column * factor), window.shape)

    def read_own(self, own: Window) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Return values and validity (y, x) of a window in pixels of the file: nothing beyond the file is valid.

        Raises as :meth:`read` does.
        """
        values, valid = np.zeros(own.shape, self.own.dtype), np.zeros(own.shape, np.bool_)
        inside = own.intersection(Window(0, 0, self._source.width, self._source.height))
        if inside is not None:
            corner = (inside.row_off - own.row_off, inside.col_off - own.col_off)
            valid[_place(corner, inside.shape)] = True
            self._fill(inside, values, valid, corner, threading.Lock())
        return values, valid

    def read_into(
        self,
        region: Window,
        window: Window,
        out: NDArray[Any],
        valid: NDArray[np.bool_] | None,
        guard: threading.Lock,
    ) -> None:
        """Fill a region of a window of the grid, and clear ``valid`` where it has no data; raises as :meth:`read` does.

        Args:
            region: lies in the window and in the file.
            window: where ``out`` and ``valid`` lie on the grid.
            out: (y, x) of the window, of the file's type or a wider one.
            valid: bool (y, x) of the window; None leaves it to the caller, where it is :attr:`told_by_value`.
            guard: held while ``valid`` changes, for other bands do the same.
        """
        factor = self._placed.factor
        for part in self._columns(region):
            corner = (part.row_off - window.row_off, part.col_off - window.col_off)
            if factor == 1:
                column, row = part.col_off + self._placed.column, part.row_off + self._placed.row
                self._fill(Window(column, row, part.width, part.height), out, valid, corner, guard)
                continue
            frame = self.frame(part)
            values, good = self.read_own(frame.own)
            place = _place(corner, part.shape)
            frame.spread(values, out[place])
            if valid is not None:
                good = frame.spread(good)
                with guard:
                    valid[place] &= good

    def _columns(self, region: Window) -> Iterator[Window]:
        """Cut a region of a local file by columns of blocks.

        Over several columns GDAL looks up each block again for each row, but for a driver that keeps no blocks. Over a
        network a region is read in one go, so that GDAL asks for all its blocks at once.
        """
        if self._whole:
            yield region
            return
        edges = block_edges(region.col_off, region.col_end, self.layout.extent.col_off, self.layout.width)
        for left, right in itertools.pairwise(edges):
            yield dataclasses.replace(region, col_off=left, width=right - left)

    def _fill(
        self,
        own: Window,
        out: NDArray[Any],
        valid: NDArray[np.bool_] | None,
        corner: tuple[int, int],
        guard: threading.Lock,
    ) -> None:
        """Read a window of the file, which lies in it, into a corner of arrays, and clear ``valid`` without data."""
        window = windows.Window(own.col_off, own.row_off, own.width, own.height)
        place = _place(corner, own.shape)
        good: NDArray[np.bool_] | None = None
        with reading(self._location):
            if self._warp is None and not is_url(self._location):
                read_blocks(self._source, self._band, dataclasses.astuple(own), out[place])
            else:
                self._source.read(self._band, window=window, out=out[place])
            if valid is None:
                return
            if self._nodata is None and self._warp is not None:
                # Without a nodata value the view has an alpha band, which also tells where the source ends.
                good = np.asarray(self._warp.read(self._warp.count, window=window) != 0)
            elif self._masked:
                good = np.asarray(self._source.read_masks(self._band, window=window) != 0)
        with guard:
            if good is not None:
                valid[place] &= good
            else:
                drop_nodata(out, self._nodata, valid, corner, own.shape)


def _place(corner: tuple[int, int], shape: tuple[int, int]) -> tuple[slice, slice]:
    return np.s_[corner[0] : corner[0] + shape[0], corner[1] : corner[1] + shape[1]]


@contextlib.contextmanager
def open_band(asset: Asset, location: str, grid: Grid, resampling: str = "nearest") -> Iterator[BandReader]:
    """Open one band of a file on a grid; ``location`` is its absolute URL or path.

    Raises:
        AssetReadError, TransientReadError: it cannot be opened or read.
        AssetMismatchError: its georeference contradicts its item.
    """
    with open_asset(location) as dataset:
        check_metadata(dataset, asset, location)
        reader = BandReader(dataset, asset, location, grid, resampling)
        try:
            yield reader
        finally:
            reader.close()


class Placed(NamedTuple):
    """Where a grid begins in a file whose pixels are ``factor`` times as large, counted in pixels of the grid."""

    column: int
    row: int
    factor: int


def _placed(dataset: DatasetReader, grid: Grid, resampling: str) -> Placed | None:
    """Return where the grid lies in the file, or None where its pixels are neither the file's nor equal parts of them."""
    source = dataset.transform
    if dataset.crs != CRS.from_user_input(grid.crs) or source.b or source.d:
        return None
    factor = round(source.a / grid.transform.a) if resampling == "nearest" else 1
    if factor < 1:
        return None
    fine = source @ Affine.scale(1 / factor)
    columns, rows = ~fine @ (grid.transform.c, grid.transform.f)
    ends = ~fine @ (grid.transform @ (grid.width, grid.height))
    drift = max(abs(ends[0] - columns - grid.width), abs(ends[1] - rows - grid.height))
    off = max(abs(columns - round(columns)), abs(rows - round(rows)))
    return Placed(round(columns), round(rows), factor) if max(drift, off) < _SAME_PX else None


def _warped(dataset: DatasetReader, grid: Grid, resampling: str, nodata: float | None) -> WarpedVRT:
    options: dict[str, Any] = (
        {"add_alpha": True} if nodata is None else {"src_nodata": nodata, "nodata": nodata}
    )
    return WarpedVRT(
        dataset,
        crs=grid.crs,
        transform=grid.transform,
        width=grid.width,
        height=grid.height,
        resampling=Resampling[resampling],
        **options,
    )
