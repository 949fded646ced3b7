"""Reading pixels of a stack: the one way from a VRT to an array, and what of it is valid.

Whoever cuts chips, predicts or checks reads through here: a missing source is an error at any size of the read.
"""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chipmill.core.buffers import Buffers
from chipmill.core.errors import AssetMismatchError
from chipmill.dataset.dtypes import common_dtype
from chipmill.dataset.rasters import told_reads
from chipmill.dataset.stack import StackBand
from chipmill.dataset.stack_file import StackFile
from chipmill.imagery.kernels import compiled
from chipmill.region.grid import Window


@contextlib.contextmanager
def open_stack(path: Path | str) -> Iterator[StackFile]:
    """Open a stack (a path, or the XML of a VRT) for several reads; errors in the block become AssetReadError."""
    with told_reads(path), contextlib.closing(StackFile(path)) as stack:
        yield stack


def read_stack(path: Path | str, window_px: Window, bands: Sequence[int] | None = None) -> NDArray[Any]:
    """Return a window of a stack as ``(band, y, x)``.

    Args:
        path: the VRT, or its XML.
        window_px: in pixels of the file: column 0 is its left one, row 0 its upper one.
        bands: numbers from 1 in the order wanted; None takes all.

    Returns:
        An array of the smallest type that holds all these bands (int16 for int16 and uint8 together).

    Raises:
        AssetReadError: a source is missing or broken; it is never read as zeros.
        AssetMismatchError: the window reaches beyond the stack.
    """
    with open_stack(path) as stack:
        return read_window(stack, window_px, bands)


def read_window(
    stack: StackFile,
    window_px: Window,
    bands: Sequence[int] | None = None,
    buffers: Buffers | None = None,
) -> NDArray[Any]:
    """As :func:`read_stack`, from a stack that is open; into ``buffers`` the array is good until the next read."""
    place = Window(0, 0, stack.width, stack.height)
    if not place.contains(window_px):
        raise AssetMismatchError(
            f"the window {window_px} reaches beyond {stack.name}, which has {place}: replan it"
        )
    numbers = list(range(1, len(stack.dtypes) + 1) if bands is None else bands)
    dtype = common_dtype([stack.dtypes[number - 1] for number in numbers])
    shape = (len(numbers), *window_px.shape)
    pixels = np.empty(shape, dtype) if buffers is None else buffers.array(f"pixels {dtype}", shape, dtype)
    stack.read(numbers, window_px, pixels)
    return pixels


def any_slot_valid(pixels: NDArray[Any], layers: Sequence[StackBand]) -> NDArray[np.bool_]:
    """Return ``(y, x)``, True where at least one slot has all its imagery bands.

    ``pixels`` ``(band, y, x)`` are the bands of ``layers`` in their order. An index may be nodata where its bands are
    not (division by zero), and static layers have no slot: neither is asked. A pixel that is False here is ignore in
    the label of a chip.
    """
    valid = np.zeros(pixels.shape[1:], dtype=bool)
    for slot in dict.fromkeys(layer.slot for layer in layers if layer.kind == "band"):
        whole = np.ones_like(valid)
        bands = [
            (index, layer.nodata)
            for index, layer in enumerate(layers)
            if layer.kind == "band" and layer.slot == slot and _is_a(layer.nodata, pixels.dtype)
        ]
        empty = np.array([nodata for _, nodata in bands], dtype=pixels.dtype)
        compiled(_drop_empty)(pixels, np.array([index for index, _ in bands], np.int64), empty, whole)
        valid |= whole
    return valid


def _is_a(nodata: float, dtype: np.dtype[Any]) -> bool:
    """Tell whether a pixel of an integer type can be ``nodata`` at all."""
    info = np.iinfo(dtype)
    return float(nodata).is_integer() and info.min <= nodata <= info.max


# Compiled by numba, under the rules of :mod:`chipmill.imagery.kernels`.


def _drop_empty(
    pixels: NDArray[Any], bands: NDArray[np.int64], empty: NDArray[Any], whole: NDArray[np.bool_]
) -> int:
    """Set ``whole`` (y, x) to False where one of the ``bands`` of ``pixels`` (band, y, x) is its ``empty`` value."""
    for y in range(whole.shape[0]):
        kept = whole[y]
        for b in range(len(bands)):
            row, nothing = pixels[bands[b], y], empty[b]
            for x in range(kept.shape[0]):
                kept[x] &= row[x] != nothing
    return 0
