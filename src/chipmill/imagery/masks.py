"""What a class band says of a pixel: observed or not, clear or not, and how far dropped areas grow."""

import math

import numpy as np
from numpy.typing import NDArray

from chipmill.region.imagery import Mask


def classify(
    classes: NDArray[np.integer], valid: NDArray[np.bool_], mask: Mask
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return (clear, dropped), both bool (y, x), of class values and where they are valid.

    A pixel of the mask's nodata value is neither: it was not observed. Dilation is not applied.
    """
    observed = valid if mask.nodata is None else valid & (classes != mask.nodata)
    if classes.dtype == np.uint8:
        table = np.isin(np.arange(256), mask.drop)  # one look-up a pixel: several times as fast
        bad = table[classes]
    else:
        bad = np.isin(classes, mask.drop)
    return observed & ~bad, observed & bad


def dilate(pixels: NDArray[np.bool_], radius_px: int) -> NDArray[np.bool_]:
    """Return True (y, x) within ``radius_px`` (Euclidean, of pixel centres) of a True pixel.

    A disk is a pile of rows: each row of the result is the union of the rows around it, each widened by as much as
    the disk is wide there. Pixels beyond the edge count as False, so give a margin of ``radius_px``.
    """
    if not radius_px or not pixels.any():
        return pixels.copy()
    height, width = pixels.shape
    counts = np.zeros((height, width + 1), np.int32)
    np.cumsum(pixels, axis=1, out=counts[:, 1:])
    columns = np.arange(width)
    grown = np.zeros_like(pixels)
    for dy in range(min(radius_px, height - 1) + 1):
        reach = math.isqrt(radius_px * radius_px - dy * dy)
        left, right = np.maximum(columns - reach, 0), np.minimum(columns + reach + 1, width)
        wide = counts[:, right] > counts[:, left]
        grown[: height - dy] |= wide[dy:]
        grown[dy:] |= wide[: height - dy]
    return grown
