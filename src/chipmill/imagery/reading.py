"""Reading a band onto a tile's grid, strip by strip.

A source on the same grid is read by plain windows; any other (CRS, resolution, shift by a part of a pixel) is warped
once, through GDAL's warped VRT. Whatever lies outside the source or equals its nodata comes back as not valid.
"""

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any, Final, Self

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import MaskFlags, Resampling
from rasterio.io import DatasetReader
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from chipmill.imagery.items import Asset
from chipmill.imagery.sources import check_metadata, open_asset, reading

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


class BandReader:
    """One band of an open file, seen on a grid. Make it by :func:`open_band`."""

    def __init__(
        self, dataset: DatasetReader, asset: Asset, location: str, grid: Grid, resampling: str
    ) -> None:
        self._location = location
        self._band = asset.band
        self._grid = grid
        own = dataset.nodatavals[asset.band - 1]
        self._nodata = own if own is not None else asset.nodata
        self._masked = (
            self._nodata is None and MaskFlags.all_valid not in dataset.mask_flag_enums[asset.band - 1]
        )
        self._offset = _offset_px(dataset, grid)
        self._warp: WarpedVRT | None = None
        if self._offset is None:
            self._warp = _warped(dataset, grid, resampling, self._nodata)
        self._dataset = dataset
        self.dtype = np.dtype(dataset.dtypes[asset.band - 1])

    def close(self) -> None:
        """Close the warped view; the file itself belongs to who opened it."""
        if self._warp is not None:
            self._warp.close()

    def read(self, row: int, rows: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Return values and validity (rows, width) of a strip of the grid that begins at ``row``.

        Values where validity is False mean nothing. Raises AssetReadError and TransientReadError.
        """
        with reading(self._location):
            if self._warp is not None:
                return self._read_warped(self._warp, Window(0, row, self._grid.width, rows))
            return self._read_plain(row, rows)

    def _read_plain(self, row: int, rows: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        assert self._offset is not None  # noqa: S101 - it is the plain reader
        left, top = self._offset[0], self._offset[1] + row
        width = self._grid.width
        first_col, last_col = max(left, 0), min(left + width, self._dataset.width)
        first_row, last_row = max(top, 0), min(top + rows, self._dataset.height)
        inside = first_col < last_col and first_row < last_row
        if not inside:
            return np.zeros((rows, width), self.dtype), np.zeros((rows, width), np.bool_)
        window = Window(first_col, first_row, last_col - first_col, last_row - first_row)
        part = self._dataset.read(self._band, window=window)
        good = self._valid(self._dataset, part, window)
        if part.shape == (rows, width):
            return part, good
        values, valid = np.zeros((rows, width), self.dtype), np.zeros((rows, width), np.bool_)
        place = np.s_[first_row - top : last_row - top, first_col - left : last_col - left]
        values[place], valid[place] = part, good
        return values, valid

    def _read_warped(self, warp: WarpedVRT, window: Window) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        values = warp.read(self._band, window=window)
        if self._nodata is not None:
            return values, _differs(values, self._nodata)
        # Without a nodata value the view has an alpha band, which also tells where the source ends.
        return values, warp.read(warp.count, window=window) != 0

    def _valid(self, dataset: DatasetReader, values: NDArray[Any], window: Window) -> NDArray[np.bool_]:
        if self._nodata is not None:
            return _differs(values, self._nodata)
        if self._masked:
            return np.asarray(dataset.read_masks(self._band, window=window) != 0)
        return np.isfinite(values) if values.dtype.kind == "f" else np.ones(values.shape, np.bool_)


@contextlib.contextmanager
def open_band(
    asset: Asset, location: str, grid: Grid, resampling: str = "nearest", *, overview: int | None = None
) -> Iterator[BandReader]:
    """Open one band of a file on a grid; ``location`` is its absolute URL or path, ``overview`` a level from 0.

    Raises:
        AssetReadError, TransientReadError: it cannot be opened or read.
        AssetMismatchError: its georeference contradicts its item.
    """
    with open_asset(location, overview=overview) as dataset:
        if overview is None:
            check_metadata(dataset, asset, location)
        reader = BandReader(dataset, asset, location, grid, resampling)
        try:
            yield reader
        finally:
            reader.close()


def overview_for(asset: Asset, location: str, grid: Grid) -> int | None:
    """Return the coarsest overview level whose pixels are not larger than the grid's, or None: read the file itself.

    Looked for only where the file has the grid's CRS. Raises as :func:`open_band` does.
    """
    with open_asset(location) as dataset:
        check_metadata(dataset, asset, location)
        if dataset.crs != CRS.from_user_input(grid.crs):
            return None
        ratio = abs(grid.transform.a / dataset.transform.a)
        fine = [
            level for level, factor in enumerate(dataset.overviews(asset.band)) if factor <= ratio * 1.001
        ]
        return max(fine, default=None)


class ReaderPool:
    """Keeps the readers of a tile open from strip to strip, at most ``limit`` of them: files are not without number."""

    def __init__(self, limit: int = 300) -> None:
        self._limit = limit
        self._open: dict[tuple[str, int, Grid], tuple[BandReader, contextlib.ExitStack]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        while self._open:
            self._close_oldest()

    def get(self, asset: Asset, location: str, grid: Grid, resampling: str) -> BandReader:
        """Return the reader of a band on a grid, opened when it is not yet; raises as :func:`open_band` does."""
        key = (location, asset.band, grid)
        found = self._open.pop(key, None)
        if found is None:
            if len(self._open) >= self._limit:
                self._close_oldest()
            stack = contextlib.ExitStack()
            found = (stack.enter_context(open_band(asset, location, grid, resampling)), stack)
        self._open[key] = found
        return found[0]

    def _close_oldest(self) -> None:
        _, stack = self._open.pop(next(iter(self._open)))
        stack.close()


def _differs(values: NDArray[Any], nodata: float) -> NDArray[np.bool_]:
    if values.dtype.kind == "f":
        return np.asarray(np.isfinite(values) & (values != nodata))
    return np.asarray(values != nodata)


def _offset_px(dataset: DatasetReader, grid: Grid) -> tuple[int, int] | None:
    """Return the column and row of the file at which the grid begins, or None where their pixels do not coincide."""
    source = dataset.transform
    if dataset.crs != CRS.from_user_input(grid.crs) or source.b or source.d:
        return None
    columns, rows = ~source @ (grid.transform.c, grid.transform.f)
    ends = ~source @ (grid.transform @ (grid.width, grid.height))
    drift = max(abs(ends[0] - columns - grid.width), abs(ends[1] - rows - grid.height))
    off = max(abs(columns - round(columns)), abs(rows - round(rows)))
    return (round(columns), round(rows)) if max(drift, off) < _SAME_PX else None


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
