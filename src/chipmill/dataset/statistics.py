"""Exact statistics of the bands: integer sums of stored values, so that parts merge without rounding.

The file to change for another statistic. Each ground pixel counts once: of all written train windows that cover it,
the first in the order of the shards counts it (``unclaimed``), so shards can be summed in any order.
"""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from chipmill.imagery.kernels import compiled
from chipmill.region.grid import Window

_SMALL_BYTES: Final = 2
"""Of a value whose square times any number of pixels of a strip fits 64 bits."""


@dataclasses.dataclass(frozen=True, slots=True)
class BandSums:
    """Exact sums over the valid pixels of one band, in stored values."""

    n: int = 0
    total: int = 0
    squares: int = 0

    def __add__(self, other: Self) -> "BandSums":
        return BandSums(self.n + other.n, self.total + other.total, self.squares + other.squares)

    @property
    def mean(self) -> float:
        """Mean of the stored values, correctly rounded; 0 where there is no pixel."""
        return float(Fraction(self.total, self.n)) if self.n else 0.0

    @property
    def std(self) -> float:
        """Population standard deviation of the stored values, from exact integers; 0 where there is no pixel."""
        if not self.n:
            return 0.0
        return math.sqrt(Fraction(self.n * self.squares - self.total**2, self.n**2))

    def texts(self) -> list[str]:
        """Return n, sum and sum of squares as decimals: JSON readers keep no more than 53 bits of a number."""
        return [str(self.n), str(self.total), str(self.squares)]

    @classmethod
    def of_texts(cls, texts: Sequence[str]) -> Self:
        """Invert :meth:`texts`."""
        return cls(*(int(text) for text in texts))


def merge(parts: Iterable[Sequence[BandSums]], bands: int) -> tuple[BandSums, ...]:
    """Return the sums of all parts, band by band; the order of the parts does not matter."""
    sums = [BandSums()] * bands
    for part in parts:
        sums = [one + other for one, other in zip(sums, part, strict=True)]
    return tuple(sums)


def band_sums(
    image: npt.NDArray[Any], nodata: Sequence[float], mask: npt.NDArray[np.bool_]
) -> tuple[BandSums, ...]:
    """Return the sums of each band of ``image`` (band, y, x), an integer array, where ``mask`` (y, x) is True.

    A pixel of a band is valid where it is not that band's ``nodata``.
    """
    if image.dtype.itemsize > _SMALL_BYTES:
        return tuple(_wide_sums(band[mask], empty) for band, empty in zip(image, nodata, strict=True))
    codes = np.array([_code(one, image.dtype) for one in nodata], np.int64)
    sums: Any = compiled(_sums)
    return tuple(BandSums(*map(int, row)) for row in sums(image, codes, mask))


def _code(nodata: float, dtype: np.dtype[Any]) -> int:
    """Return ``nodata`` as a number of the band, or one that no value has where it is none of the type."""
    info = np.iinfo(dtype)
    whole = float(nodata).is_integer() and info.min <= nodata <= info.max
    return int(nodata) if whole else int(info.max) + 1


def _wide_sums(values: npt.NDArray[Any], nodata: float) -> BandSums:
    """Return the sums of wide integers: their squares are added up by halves, which no sum of 64 bits overflows."""
    values = values[values != nodata].astype(np.int64)
    high, low = values >> 16, values & 0xFFFF
    parts = [int(np.dot(one, other)) for one, other in ((high, high), (high, low), (low, low))]
    squares = (parts[0] << 32) + (parts[1] << 17) + parts[2]
    return BandSums(len(values), (int(high.sum()) << 16) + int(low.sum()), squares)


# Compiled by numba, under the rules of :mod:`chipmill.imagery.kernels`: 4 million values of 16 bits cannot overflow the
# square's 64 bits, and a strip of a stack has fewer than 2 ** 31.


def _sums(
    image: npt.NDArray[Any], nodata: npt.NDArray[np.int64], mask: npt.NDArray[np.bool_]
) -> npt.NDArray[np.int64]:
    depth, height, width = image.shape
    sums = np.zeros((depth, 3), np.int64)
    for b in range(depth):
        empty = nodata[b]
        for y in range(height):
            row, used = image[b, y], mask[y]
            count, total, squares = np.int64(0), np.int64(0), np.int64(0)
            for x in range(width):
                good = np.int64(used[x]) & np.int64(np.int64(row[x]) != empty)
                value = np.int64(row[x]) * good
                count += good
                total += value
                squares += value * value
            sums[b, 0] += count
            sums[b, 1] += total
            sums[b, 2] += squares
    return sums


def unclaimed(part: Window, own: Iterable[Window], before: Iterable[Window]) -> npt.NDArray[np.bool_]:
    """Return (y, x) over ``part``: True where one of the windows ``own`` and none of those ``before`` lies."""
    mask = np.zeros(part.shape, dtype=bool)
    for windows, value in ((own, True), (before, False)):
        for window in windows:
            common = part.intersection(window)
            if common is not None:
                row, col = common.row_off - part.row_off, common.col_off - part.col_off
                mask[row : row + common.height, col : col + common.width] = value
    return mask
