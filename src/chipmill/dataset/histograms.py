"""Counts of codes in many overlapping rectangles of one raster, each pixel looked at once.

An integral image (Crow 1984, "Summed-area tables for texture mapping") kept only at the rows and columns where a
rectangle begins or ends: its memory depends on the number of rectangles, not of pixels, and the raster may come in
strips.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


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
        self._kinds = kinds
        # one cell more than edges: bin 0 and the last one take what lies before and after all rectangles
        self._shape = (len(self._rows) + 1, len(self._cols) + 1, kinds)
        self._cells = np.zeros(self._shape, dtype=np.int64)
        self._col_bin = np.searchsorted(self._cols, np.arange(width), side="right") * kinds

    def add(self, row_off: int, codes: NDArray[np.uint8]) -> None:
        """Count a strip ``(y, x)`` of the raster's full width whose first row is ``row_off``."""
        rows = np.arange(row_off, row_off + codes.shape[0])
        row_bin = np.searchsorted(self._rows, rows, side="right")
        first, last = int(row_bin[0]), int(row_bin[-1])
        step = self._shape[1] * self._kinds
        flat = (row_bin - first)[:, None] * step + self._col_bin[None, :] + codes
        counted = np.bincount(flat.ravel(), minlength=(last - first + 1) * step)
        self._cells[first : last + 1] += counted.reshape(-1, *self._shape[1:])

    def counts(self) -> NDArray[np.int64]:
        """Return the counts ``(rectangle, kind)``, rectangles in the order given."""
        table = self._cells.cumsum(axis=0).cumsum(axis=1)
        top, bottom, left, right = self._edges
        inside: NDArray[np.int64] = (
            table[bottom, right] - table[top, right] - table[bottom, left] + table[top, left]
        )
        return inside
