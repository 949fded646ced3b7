"""Where the blocks of files lie on a tile's grid, which of them are needed, and how a tile is cut into windows.

The file to change for how much is read at once. Geometry alone: nothing here opens a file. A source block is read once
when the windows end where blocks end, so windows follow the tallest and widest blocks of a slot's files.
"""

import dataclasses
import itertools
import os
import threading
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from chipmill.core.buffers import scratch
from chipmill.region.grid import Window

THREADS_ENV: Final = "CHIPMILL_THREADS"
"""How many threads a process may read with; where workers share a machine, its cores divided by the workers."""
ROWS: Final = 512
"""Of a window, where blocks are lower: enough to keep threads busy, few enough to overlap reading and reducing."""


def threads(workers: int = 1) -> int:
    """Return with how many threads each of the workers of this machine may read.

    That is what the environment says, else the cores divided by the workers; at least 1.
    """
    text = os.environ.get(THREADS_ENV, "")
    if text.isdecimal() and int(text):
        return int(text)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // workers)


class Counts:
    """How many source blocks were read, and how many were left out because no pixel of them would count."""

    def __init__(self) -> None:
        self.decoded = 0
        self.skipped = 0
        self._guard = threading.Lock()

    def add(self, decoded: int, skipped: int) -> None:
        """Add to both, from any thread."""
        with self._guard:
            self.decoded += decoded
            self.skipped += skipped


class Layout(NamedTuple):
    """The rectangle of a grid that a file fills and the size of its blocks, in pixels of the grid."""

    extent: Window
    """May begin before the grid and end behind it."""
    height: int
    """Of a block."""
    width: int


@dataclasses.dataclass(frozen=True, slots=True)
class Needed:
    """What of a file is to be read for a window."""

    regions: tuple[Window, ...]
    """Rectangles of whole blocks, cut to the window and the file; in the order of the file, neighbours joined."""
    decoded: int
    """Blocks in them."""
    skipped: int
    """Blocks of the file that meet the window and hold no wanted pixel."""


def needed(layout: Layout, window: Window, wanted: NDArray[np.bool_]) -> Needed:
    """Return the blocks of a file that hold a wanted pixel.

    Args:
        layout: of the file, on the grid of the window.
        window: pixels of the grid.
        wanted: bool (y, x) of the window.
    """
    inside = layout.extent.intersection(window)
    if inside is None:
        return Needed((), 0, 0)
    rows = block_edges(inside.row_off, inside.row_end, layout.extent.row_off, layout.height)
    columns = block_edges(inside.col_off, inside.col_end, layout.extent.col_off, layout.width)
    regions: list[Window] = []
    above: dict[tuple[int, int], int] = {}
    decoded = 0
    for top, bottom in itertools.pairwise(rows):
        part = wanted[top - window.row_off : bottom - window.row_off]
        used = [
            bool(part[:, left - window.col_off : right - window.col_off].any())
            for left, right in itertools.pairwise(columns)
        ]
        decoded += sum(used)
        runs = _runs(used)
        here: dict[tuple[int, int], int] = {}
        for first, last in runs:
            left, right = columns[first], columns[last]
            place = above.get((left, right))
            if place is None:
                place = len(regions)
                regions.append(Window(left, top, right - left, bottom - top))
            else:  # the same columns of the row of blocks above: one taller rectangle
                old = regions[place]
                regions[place] = dataclasses.replace(old, height=bottom - old.row_off)
            here[left, right] = place
        above = here
    return Needed(tuple(regions), decoded, (len(rows) - 1) * (len(columns) - 1) - decoded)


def block_edges(start: int, end: int, origin: int, step: int) -> list[int]:
    """Return start, the ends of blocks between, and end; blocks are counted from ``origin``."""
    first = start + (origin - start) % step
    inner = range(first if first > start else first + step, end, step)
    return [start, *inner, end]


def _runs(used: Sequence[bool]) -> list[tuple[int, int]]:
    """Return the (first, last + 1) of each run of True."""
    edges = np.flatnonzero(np.diff(np.array([False, *used, False], np.int8))).tolist()
    return list(zip(edges[::2], edges[1::2], strict=True))


def cut_windows(
    width: int, height: int, layouts: Iterable[Layout], pixel_bytes: int, budget_bytes: int
) -> tuple[Window, ...]:
    """Cut a grid into windows that end where the blocks of its files end, each pixel in one window.

    A window is as wide as the grid and one row of blocks high, or several rows of low blocks. Where that is more than
    the budget, it is cut by columns of blocks; where one block at all times is more, by rows within the block: these
    follow each other, so that GDAL still has the block in its cache.

    Args:
        width: of the grid in pixels.
        height: of the grid in pixels.
        layouts: of the files; the tallest blocks give the rows, the widest the columns.
        pixel_bytes: what one pixel of a window takes, all bands and times together.
        budget_bytes: what a window may take; one row of a block is always taken.
    """
    whole = Layout(Window(0, 0, width, height), min(ROWS, height), width)
    known = list(layouts) or [whole]
    tall, wide = max(known, key=lambda one: one.height), max(known, key=lambda one: one.width)
    most = max(1, budget_bytes // max(1, pixel_bytes))
    high = tall.height * max(1, min(ROWS, most // width) // tall.height)
    rows, across = high, width
    if rows * across > most:
        across = max(1, most // rows // wide.width) * wide.width
    if rows * min(across, width) > most:
        rows = max(1, most // min(across, width))
    columns = [0, width] if across >= width else block_edges(0, width, wide.extent.col_off, across)
    made: list[Window] = []
    edges = block_edges(0, height, tall.extent.row_off, high)
    for top, bottom in itertools.pairwise(edges):
        for left, right in itertools.pairwise(columns):
            made += [
                Window(left, row, right - left, min(rows, bottom - row)) for row in range(top, bottom, rows)
            ]
    return tuple(made)


def drop_outside(wanted: NDArray[np.bool_], extent: Window, window: Window) -> None:
    """Clear ``wanted``, bool (y, x) of a window, where a file that fills ``extent`` does not reach."""
    inside = extent.intersection(window)
    if inside == window:
        return
    kept = np.zeros_like(wanted)
    if inside is not None:
        top, left = inside.row_off - window.row_off, inside.col_off - window.col_off
        place = np.s_[top : top + inside.height, left : left + inside.width]
        kept[place] = wanted[place]
    wanted[:] = kept


_WORDS: Final[dict[int, Any]] = {2: np.uint16, 4: np.uint32, 8: np.uint64}


def spread(pixels: NDArray[Any], factor: int, corner: tuple[int, int], out: NDArray[Any]) -> None:
    """Fill ``out`` (y, x) with pixels, each ``factor`` x ``factor`` times, from ``corner`` (row, column) on."""
    (top, left), (height, width) = corner, out.shape
    if factor == 1:
        out[:] = pixels[top : top + height, left : left + width]
        return
    if pixels.itemsize == 1 and factor in _WORDS:
        # One multiplication writes a byte into each byte of a word: several times as fast as repeat.
        word = _WORDS[factor]
        ones = word(sum(256**place for place in range(factor)))
        room = scratch().array("across", pixels.shape, np.dtype(word))
        across = np.multiply(pixels.view(np.uint8), ones, out=room, dtype=word).view(pixels.dtype)
    else:
        across = np.repeat(pixels, factor, axis=1)
    for phase in range(factor):
        first = (phase - top) % factor  # the rows of ``out`` that are this one of their pixel's
        rows = out[first::factor]
        begin = (top + first) // factor
        rows[:] = across[begin : begin + len(rows), left : left + width]
