"""TIFFs: opened by the driver that decodes them fastest, and written so that they are on the disk whole.

GDAL loses what it writes at the close of a file on a full disk, and says nothing. The state of the disk a moment later
proves nothing either, since somebody may have freed space by then. So a raster of ordinary size is made in memory and
written by Python, whose every failed write raises; a larger one is read back.
"""

import contextlib
import errno
import math
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from chipmill.core.buffers import scratch

if TYPE_CHECKING:
    from rasterio.io import DatasetReader, DatasetWriter

IN_MEMORY_BYTES: Final = 256 << 20
"""A raster of more bytes, not compressed, is not held in memory."""
BLOCK_PX: Final = 512
"""Side of the blocks of what the rooms write for themselves; a smaller raster has one block."""
_ROWS: Final = 512
_WHOLE_BYTES: Final = 64 << 20
"""Whole blocks that take more than this are left to GDAL: those of a file that is one block from end to end."""

type Box = tuple[int, int, int, int]
"""Column, row, width and height in pixels of a file."""


def open_tiff(name: str, **options: Any) -> "DatasetReader":
    """Open a TIFF by GDAL's second driver for it, which decodes in half to three quarters of the time; ``options`` are GDAL's.

    GTiff, the first one, is taken for what the other does not know, to say what is wrong with a file, and over HTTP, where
    it asks for fewer ranges. Raises RasterioIOError.
    """
    import rasterio
    from rasterio.errors import RasterioIOError

    if not name.startswith("/vsi"):
        with contextlib.suppress(RasterioIOError):  # the other one says why, or can
            return rasterio.open(name, driver="LIBERTIFF", sharing=False, **options)
    return rasterio.open(name, driver="GTiff", sharing=False, **options)


def read_blocks(dataset: Any, numbers: int | Sequence[int], place: Box, out: NDArray[Any]) -> None:
    """Fill ``out`` with a window of a band ``(y, x)``, or of several ``(band, y, x)``, by whole blocks.

    What a window leaves of its blocks would go through memory that GDAL's second driver takes anew for each file and
    thread, and keeps after the file was closed; here it goes through memory of the thread that is used again. The bands
    have one type; ``out`` is of it or of a wider one. Raises rasterio's errors.
    """
    from rasterio.windows import Window

    first = (numbers if isinstance(numbers, int) else numbers[0]) - 1
    whole = _whole_blocks(dataset, first, place)
    if whole != place:
        dtype, shape = np.dtype(dataset.dtypes[first]), (*out.shape[:-2], whole[3], whole[2])
        if math.prod(shape) * dtype.itemsize <= _WHOLE_BYTES:
            pixels = scratch().array("blocks", shape, dtype)
            dataset.read(numbers, window=Window(*whole), out=pixels)
            left, top = place[0] - whole[0], place[1] - whole[1]
            out[...] = pixels[..., top : top + place[3], left : left + place[2]]
            return
    dataset.read(numbers, window=Window(*place), out=out)


def _whole_blocks(dataset: Any, band: int, place: Box) -> Box:
    """Return the blocks of a band (from 0) that a window cuts, as far as they lie in the file."""
    column, row, width, height = place
    tall, wide = dataset.block_shapes[band]
    left, top = column // wide * wide, row // tall * tall
    right = min(-(-(column + width) // wide) * wide, dataset.width)
    bottom = min(-(-(row + height) // tall) * tall, dataset.height)
    return left, top, right - left, bottom - top


@contextlib.contextmanager
def new_tiff(path: Path, profile: Mapping[str, Any], size: int) -> Iterator["DatasetWriter"]:
    """Give a raster to write in the block; afterwards it stands at ``path``, and no byte of it was lost.

    Args:
        path: a temporary path, as `atomic_path` gives it.
        profile: rasterio's options, driver GTiff.
        size: bytes of all pixels, not compressed.

    Raises OSError where a byte could not be written, rasterio's errors as they come.
    """
    import rasterio
    from rasterio.io import MemoryFile

    if size > IN_MEMORY_BYTES:
        with rasterio.open(path, "w", **profile) as target:
            yield target
        read_back(path)
        return
    with MemoryFile(filename=path.name) as memory:
        with memory.open(**profile) as target:
            yield target
        path.write_bytes(memory.getbuffer())


def copy_tiff(source: "DatasetReader", path: Path, options: Mapping[str, Any], size: int) -> None:
    """Copy an open raster to ``path`` as rasterio does with ``options`` (driver COG or GTiff), every byte of it.

    ``size`` is that of all its pixels, not compressed. Raises as `new_tiff` does.
    """
    import rasterio.shutil
    from rasterio._err import CPLE_BaseError  # what a copy raises is no RasterioError
    from rasterio.io import MemoryFile

    if size <= IN_MEMORY_BYTES:
        with MemoryFile(filename=path.name) as memory:
            rasterio.shutil.copy(source, memory.name, **options)
            path.write_bytes(memory.getbuffer())
        return
    try:
        rasterio.shutil.copy(source, os.fspath(path), **options)
    except CPLE_BaseError as error:
        # GDAL has removed what it had written: that the disk was full shows only in what would not have fitted, which
        # are the pixels, a third for overviews, and the overviews once more as long as it works.
        number = errno.ENOSPC if shutil.disk_usage(path.parent).free < 2 * size else errno.EIO
        raise OSError(number, f"{os.strerror(number)} ({error})") from error
    read_back(path)


def read_back(path: Path) -> None:
    """Decode every block of a GeoTIFF, those of its overviews too; raises OSError where one is not there whole."""
    import rasterio
    from rasterio.errors import RasterioError

    try:
        with rasterio.open(path, driver="GTiff") as dataset:
            levels = len(dataset.overviews(1))
            _read_all(dataset)
        for level in range(levels):
            with rasterio.open(path, driver="GTiff", overview_level=level) as dataset:
                _read_all(dataset)
    except RasterioError as error:
        raise OSError(f"what was just written cannot be read ({error.__cause__ or error})") from error


def _read_all(dataset: "DatasetReader") -> None:
    from rasterio.windows import Window

    for row in range(0, dataset.height, _ROWS):
        dataset.read(window=Window(0, row, dataset.width, min(_ROWS, dataset.height - row)))
