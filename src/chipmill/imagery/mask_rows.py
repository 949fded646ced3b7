"""The mask of one item over a tile, classified by rows of its blocks, which are kept while later windows need them.

A block of a mask is often taller than a window: 512 px of 20 m are 1,024 px of 10 m. It is read and classified once.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from chipmill.imagery.masks import classify_bits
from chipmill.imagery.reading import BandReader, Frame
from chipmill.region.grid import Window
from chipmill.region.imagery import Mask

_ROWS: Final = 256
"""Rows of blocks lower than this are read several at once."""
_CLEAR = np.uint8(1)


class MaskRows:
    """Reads windows of a mask from top to bottom."""

    def __init__(self, mask: Mask, room_bytes: int) -> None:
        """``room_bytes`` is what may be kept from window to window; what does not fit is read again."""
        self._mask = mask
        self._room = room_bytes
        self._kept: dict[int, NDArray[np.uint8]] = {}

    def read(
        self, reader: BandReader, window: Window, whole: Window, lowest: int
    ) -> tuple[Frame, NDArray[np.bool_], NDArray[np.bool_]]:
        """Return a window's clear and dropped pixels as large as the mask's are, and how they lie on the grid.

        Args:
            reader: of the mask, on the grid of the windows.
            window: what is wanted.
            whole: everything that will be wanted.
            lowest: the first row that a later window may want.

        Raises AssetReadError, TransientReadError, AssetMismatchError.
        """
        frame, around = reader.frame(window), reader.frame(whole).own
        height = reader.layout.height // frame.factor
        height *= -(-_ROWS // height)
        own = frame.own
        parts = [
            self._band(reader, around, number, height)
            for number in range(own.row_off // height, (own.row_end - 1) // height + 1)
        ]
        first = max(around.row_off, own.row_off // height * height)
        said = parts[0] if len(parts) == 1 else np.concatenate(parts)
        left = own.col_off - around.col_off
        said = said[own.row_off - first : own.row_end - first, left : left + own.width]
        self._forget(reader.frame(Window(whole.col_off, lowest, 1, 1)).own.row_off // height)
        return frame, (said & _CLEAR).view(np.bool_), (said >> np.uint8(1)).view(np.bool_)

    def _band(self, reader: BandReader, around: Window, number: int, height: int) -> NDArray[np.uint8]:
        """Return some rows of blocks over the whole width, those that are wanted at all."""
        if number not in self._kept:
            top = max(around.row_off, number * height)
            bottom = min(around.row_end, (number + 1) * height)
            values, valid = reader.read_own(Window(around.col_off, top, around.width, bottom - top))
            self._kept[number] = classify_bits(values, valid, self._mask)
        return self._kept[number]

    def _forget(self, first: int) -> None:
        """Drop what lies above row ``first`` of blocks, and what there is no room for."""
        self._kept = {number: band for number, band in self._kept.items() if number >= first}
        while self._kept and sum(band.nbytes for band in self._kept.values()) > self._room:
            self._kept.pop(next(iter(self._kept)))
