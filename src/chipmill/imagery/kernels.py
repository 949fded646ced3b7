"""Reductions over time, compiled: masked median, mean and first-valid of one band of one strip.

The file to change for another composite's arithmetic. A kernel takes ``values`` (time, y, x) of any number type,
``valid`` bool (time, y, x) with True = use this value, and a :class:`Conversion`; it fills ``out`` (y, x) and
returns how many pixels it had to saturate. The median sorts whole rows with a sorting network (K. E. Batcher,
Sorting networks and their applications, 1968): the same comparisons for every pixel, so that the compiler can
use vector instructions and the time does not depend on the data. Importing this file compiles nothing.
"""

import functools
from collections.abc import Callable
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Conversion(NamedTuple):
    """From a reduced number to the composite: ``round_half_even(number * gain + shift)``, cut to [low, high]."""

    gain: float
    shift: float
    low: int
    high: int
    nodata: int
    """Written where no value is valid; never the result of a valid one."""


def conversion(scale: float, offset: float, out_scale: float, dtype: str, nodata: int) -> Conversion:
    """Return the conversion of DN with ``physical = DN * scale + offset`` to integers of ``out_scale``.

    Gain and shift come from exact fractions of the decimal numbers that people write, so that 1e-4 over 1e-4 is 1
    and -0.1 over 1e-4 is -1000. A valid value never becomes ``nodata``: the range ends beside it.
    """
    limits = np.iinfo(dtype)
    low, high = int(limits.min), int(limits.max)
    gain = Fraction(repr(float(scale))) / Fraction(repr(float(out_scale)))
    shift = Fraction(repr(float(offset))) / Fraction(repr(float(out_scale)))
    return Conversion(float(gain), float(shift), low + (nodata == low), high - (nodata == high), nodata)


def reduce_median(values: NDArray[Any], valid: NDArray[np.bool_], rule: Conversion, out: NDArray[Any]) -> int:
    """Fill ``out`` (y, x) with the median of the valid values; an even count takes the mean of the middle two."""
    kind = values.dtype
    last = np.inf if kind.kind == "f" else np.iinfo(kind).max
    return _run(_median, values, valid, rule, out, sorting_network(values.shape[0]), kind.type(last))


def reduce_mean(values: NDArray[Any], valid: NDArray[np.bool_], rule: Conversion, out: NDArray[Any]) -> int:
    """Fill ``out`` (y, x) with the mean of the valid values, summed in float64 in the order of time."""
    return _run(_mean, values, valid, rule, out)


def reduce_first(values: NDArray[Any], valid: NDArray[np.bool_], rule: Conversion, out: NDArray[Any]) -> int:
    """Fill ``out`` (y, x) with the first valid value; the order of the first axis is the order of preference."""
    return _run(_first, values, valid, rule, out)


def _run(
    kernel: Callable[..., int],
    values: NDArray[Any],
    valid: NDArray[np.bool_],
    rule: Conversion,
    out: NDArray[Any],
    *more: Any,
) -> int:
    if not values.shape[0]:
        out[:] = rule.nodata
        return 0
    return int(_compiled(kernel)(values, valid, rule, out, *more))


@functools.cache
def _compiled(kernel: Callable[..., int]) -> Callable[..., int]:
    """Compile on first use; the machine code is kept beside this file, or in numba's cache where that is read-only."""
    import numba

    compiled: Callable[..., int] = numba.njit(cache=True, nogil=True, error_model="numpy")(kernel)
    return compiled


@functools.cache
def sorting_network(count: int) -> NDArray[np.int64]:
    """Return the comparisons (k, 2) of Batcher's odd-even merge sort for ``count`` rows, smaller to the first."""
    pairs: list[tuple[int, int]] = []
    size = 1 << max(0, (count - 1).bit_length())
    p = 1
    while p < size:
        k = p
        while k >= 1:
            for j in range(k % p, size - k, 2 * k):
                for i in range(k):
                    a, b = i + j, i + j + k
                    if a // (2 * p) == b // (2 * p) and b < count:
                        pairs.append((a, b))
            k //= 2
        p *= 2
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


# The functions below are compiled by numba: loops over scalars, and no call of another function of ours.


def _median(
    values: NDArray[Any],
    valid: NDArray[np.bool_],
    rule: Conversion,
    out: NDArray[Any],
    network: NDArray[np.int64],
    last: Any,
) -> int:
    count, height, width = values.shape
    rows = np.empty((count, width), values.dtype)
    used = np.empty(width, np.int64)
    saturated = 0
    for y in range(height):
        used[:] = 0
        for t in range(count):
            for x in range(width):
                # An invalid value sorts last; a valid one equal to it need not be told apart from it.
                rows[t, x] = values[t, y, x] if valid[t, y, x] else last
                used[x] += valid[t, y, x]
        for c in range(network.shape[0]):
            a = network[c, 0]
            b = network[c, 1]
            for x in range(width):
                smaller = min(rows[a, x], rows[b, x])
                rows[b, x] = max(rows[a, x], rows[b, x])
                rows[a, x] = smaller
        for x in range(width):
            n = used[x]
            if n == 0:
                out[y, x] = rule.nodata
                continue
            middle = 0.5 * (np.float64(rows[(n - 1) // 2, x]) + np.float64(rows[n // 2, x]))
            number = np.rint(middle * rule.gain + rule.shift)
            out[y, x] = min(max(number, rule.low), rule.high)
            saturated += number < rule.low or number > rule.high
    return saturated


def _mean(
    values: NDArray[Any],
    valid: NDArray[np.bool_],
    rule: Conversion,
    out: NDArray[Any],
) -> int:
    count, height, width = values.shape
    total = np.empty(width, np.float64)
    used = np.empty(width, np.int64)
    saturated = 0
    for y in range(height):
        total[:] = 0.0
        used[:] = 0
        for t in range(count):
            for x in range(width):
                if valid[t, y, x]:
                    total[x] += values[t, y, x]
                    used[x] += 1
        for x in range(width):
            if used[x] == 0:
                out[y, x] = rule.nodata
                continue
            number = np.rint(total[x] / used[x] * rule.gain + rule.shift)
            out[y, x] = min(max(number, rule.low), rule.high)
            saturated += number < rule.low or number > rule.high
    return saturated


def _first(
    values: NDArray[Any],
    valid: NDArray[np.bool_],
    rule: Conversion,
    out: NDArray[Any],
) -> int:
    count, height, width = values.shape
    saturated = 0
    for y in range(height):
        for x in range(width):
            out[y, x] = rule.nodata
            for t in range(count):
                if valid[t, y, x]:
                    number = np.rint(np.float64(values[t, y, x]) * rule.gain + rule.shift)
                    out[y, x] = min(max(number, rule.low), rule.high)
                    saturated += number < rule.low or number > rule.high
                    break
    return saturated
