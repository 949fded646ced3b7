"""What a class band, quality bits or a cloud probability say of a pixel: observed or not, clear or not.

The file to change for how a mask is looked up, and how far dropped areas grow; the language of quality bits is in
:mod:`chipmill.region.qa`. Integers of 8 and 16 bits are looked up in a table, one look-up a pixel whatever the rule.
"""

import functools
import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from chipmill.core.errors import AssetMismatchError
from chipmill.imagery.kernels import compiled
from chipmill.region.imagery import CloudProbability, Mask
from chipmill.region.qa import Compare, Comparison, Joined, Node, Not, parse_qa

CLEAR, DROPPED, UNOBSERVED = 0, 1, 2
_BITS: Final = np.array([1, 2, 0], np.uint8)
"""By CLEAR, DROPPED and UNOBSERVED."""
_COMPARE: Final[dict[Comparison, Callable[[NDArray[Any], int], NDArray[np.bool_]]]] = {
    "=": np.equal, "!=": np.not_equal, "<": np.less, "<=": np.less_equal, ">": np.greater, ">=": np.greater_equal,
}  # fmt: skip


def classify(
    values: NDArray[Any], valid: NDArray[np.bool_], mask: Mask
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return (clear, dropped), both bool (y, x), of a mask's values (y, x) and where they are valid.

    A pixel of the mask's nodata value, or of the fill of the product that its expression names, is neither: it was
    not observed. Dilation is not applied.

    Raises:
        AssetMismatchError: quality bits are asked of a file that has fewer, or that holds no integers.
    """
    bits = classify_bits(values, valid, mask)
    return (bits & np.uint8(1)).view(np.bool_), (bits >> np.uint8(1)).view(np.bool_)


def classify_bits(values: NDArray[Any], valid: NDArray[np.bool_], mask: Mask) -> NDArray[np.uint8]:
    """Return what :func:`classify` does as one array (y, x): 1 is clear, 2 dropped, 0 neither; raises as it does."""
    if values.dtype.kind not in "iu" or values.dtype.itemsize > 2:
        return _BITS[_say(values, mask)] * valid
    bits = np.empty(values.shape, np.uint8)
    table = _BITS[look_up_table(mask, values.dtype.str)]
    compiled(_look_up)(values.view(f"u{values.dtype.itemsize}"), valid, table, bits)
    return bits


@functools.lru_cache(maxsize=64)
def look_up_table(mask: Mask, dtype: str) -> NDArray[np.uint8]:
    """Return what a mask says of every value of an integer type of 8 or 16 bits: CLEAR, DROPPED or UNOBSERVED.

    Args:
        mask: the rule.
        dtype: of the file, as numpy writes it ("<u2"); the table's index is the value's bits, read as unsigned.

    Raises AssetMismatchError as :func:`classify` does.
    """
    kind = np.dtype(dtype)
    every = np.arange(1 << (8 * kind.itemsize), dtype=f"u{kind.itemsize}").view(kind.newbyteorder("="))
    table = _say(every, mask)
    table.setflags(write=False)  # shared by all who ask
    return table


def _say(values: NDArray[Any], mask: Mask) -> NDArray[np.uint8]:
    said = np.zeros(values.shape, np.uint8)
    if mask.qa is not None:
        rule = parse_qa(mask.qa)
        bits = _bits(values, rule.width, mask)
        said[_holds(rule.drop, bits)] = DROPPED
        if rule.fill is not None:
            said[_holds(rule.fill, bits)] = UNOBSERVED
    elif mask.probability is not None:
        said[_above(values, mask.probability)] = DROPPED
        said[~np.isfinite(values)] = UNOBSERVED
    else:
        said[np.isin(values, mask.drop or ())] = DROPPED
    if mask.nodata is not None:
        said[values == mask.nodata] = UNOBSERVED
    return said


def _bits(values: NDArray[Any], needed: int, mask: Mask) -> NDArray[np.uint64]:
    """Return the values' bits; of a negative number those that the file holds."""
    has = 8 * values.dtype.itemsize if values.dtype.kind in "iu" else 0
    if has < needed:
        kind = f"{has} bits" if has else f"{values.dtype} values, no bits"
        raise AssetMismatchError(
            f"the mask {mask.asset} has {kind}, and mask.qa asks for bit {needed - 1}: correct mask.qa or mask.asset"
        )
    return values.view(f"u{values.dtype.itemsize}").astype(np.uint64)


def _holds(node: Node, bits: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Return where a node of a rule is true of the bits of each pixel."""
    if isinstance(node, Not):
        return ~_holds(node.part, bits)
    if isinstance(node, Joined):
        join = np.logical_and if node.word == "and" else np.logical_or
        return np.asarray(join.reduce([_holds(part, bits) for part in node.parts]))
    return _compares(node, bits)


def _compares(node: Compare, bits: NDArray[np.uint64]) -> NDArray[np.bool_]:
    field = (bits >> np.uint64(node.bits.offset)) & np.uint64(node.bits.top)
    if node.comparison == "in":
        return np.isin(field, node.numbers)
    return np.asarray(_COMPARE[node.comparison](field, node.numbers[0]))


def _above(values: NDArray[Any], rule: CloudProbability) -> NDArray[np.bool_]:
    """Return where a stored probability is above the threshold, by exact fractions of the decimal numbers."""
    limit = float(Fraction(repr(rule.above)) / Fraction(repr(rule.scale)))
    return np.asarray(values > limit)


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


# Compiled by numba, under the rules of :mod:`.kernels`.


def _look_up(
    values: NDArray[Any], valid: NDArray[np.bool_], table: NDArray[np.uint8], bits: NDArray[np.uint8]
) -> None:
    height, width = values.shape
    for y in range(height):
        for x in range(width):
            bits[y, x] = table[values[y, x]] * np.uint8(valid[y, x])
