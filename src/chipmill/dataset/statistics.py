"""Exact statistics of the bands: integer sums of stored values, so that parts merge without rounding.

The file to change for another statistic. Each ground pixel counts once: of all written train windows that cover it,
the first in the order of the shards counts it (``unclaimed``), so shards can be summed in any order.
"""

import dataclasses
import math
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from chipmill.region.grid import Window


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
    sums = []
    for band, empty in zip(image, nodata, strict=True):
        values = band[mask]
        values = values[values != empty].astype(np.int64)
        sums.append(BandSums(len(values), int(values.sum()), int(np.dot(values, values))))
    return tuple(sums)


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
