"""Counts of codes in many overlapping rectangles of one raster, each pixel looked at once.

An integral image (Crow 1984, "Summed-area tables for texture mapping") kept only at the rows and columns where a
rectangle begins or ends: its memory depends on the number of rectangles, not of pixels, and the raster may come in
strips.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from chipmill.imagery.kernels import compiled


class RectangleCounter:
    """Counts how often each code 0..kinds-1 occurs in each rectangle.

    ``rectangles`` are ``(col, row, width, height)`` in pixels of the raster, column right and row down. Feed every
    row once by :meth:`add`, in any order, then ask :meth:`counts`.
    """

    def __init__(self, rectangles: Sequence[tuple[int, int, int, int]], width: int, kinds: int) -> None:
        """Prepare for a raster ``width`` pixels wide with codes below ``kinds``."""
        corners = np.array(rectangles, dtype=np.int64).reshape(-1, 4)
        left, top = corners[:, 0], corners[:, 1]
        right, bottom = left + corners[:, 2], top + corners[:, 3]
        self._rows = np.unique(np.concatenate([top, bottom]))
        self._cols = np.unique(np.concatenate([left, right]))
        self._edges = [np.searchsorted(self._rows, edge) for edge in (top, bottom)]
        self._edges += [np.searchsorted(self._cols, edge) for edge in (left, right)]
        # one cell more than edges: bin 0 and the last one take what lies before and after all rectangles
        self._cells = np.zeros((len(self._rows) + 1, len(self._cols) + 1, kinds), dtype=np.int64)
        self._col_bin = np.searchsorted(self._cols, np.arange(width), side="right")

    def add(self, row_off: int, codes: NDArray[np.uint8]) -> None:
        """Count a strip ``(y, x)`` of the raster's full width whose first row is ``row_off``."""
        rows = np.arange(row_off, row_off + codes.shape[0])
        row_bin = np.searchsorted(self._rows, rows, side="right")
        compiled(_count)(codes, row_bin, self._col_bin, self._cells)

    def counts(self) -> NDArray[np.int64]:
        """Return the counts ``(rectangle, kind)``, rectangles in the order given."""
        table = self._cells.cumsum(axis=0).cumsum(axis=1)
        top, bottom, left, right = self._edges
        inside: NDArray[np.int64] = (
            table[bottom, right] - table[top, right] - table[bottom, left] + table[top, left]
        )
        return inside


# Compiled by numba, under the rules of :mod:`chipmill.imagery.kernels`.


def _count(
    codes: NDArray[np.uint8], row_bin: NDArray[np.int64], col_bin: NDArray[np.int64], cells: NDArray[np.int64]
) -> None:
    height, width = codes.shape
    for y in range(height):
        row, into = codes[y], cells[row_bin[y]]
        for x in range(width):
            into[col_bin[x], row[x]] += 1
