"""Reductions over time, compiled: masked median, mean and first-valid of one band of one strip.

The file to change for another composite's arithmetic. A kernel takes ``values`` (time, y, x) of any number type,
``valid`` bool (time, y, x) with True = use this value, and a :class:`Conversion`; it fills ``out`` (y, x) and
returns how many pixels it had to saturate. The median runs whole rows through a sorting network (K. E. Batcher,
Sorting networks and their applications, 1968) of which only the comparisons are kept that the middle depends on: the
same ones for every pixel, so that the compiler can use vector instructions and the time does not depend on the data.
Invalid values stand alternately above and below all others, so the middle of all is that of the valid ones. Importing
this file compiles nothing.
"""

import functools
from collections.abc import Callable
from fractions import Fraction
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from chipmill.core.buffers import scratch

_SMALL_BYTES: Final = 2
_SMALL_SHIFT: Final = 1 << 28


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
    limits = None if kind.kind == "f" else np.iinfo(kind)
    ends = (-np.inf, np.inf) if limits is None else (limits.min, limits.max)
    # Sums of small integers are exact in 32 bits, and twice as many of them fit a register as of floats.
    whole = (
        limits is not None
        and kind.itemsize <= _SMALL_BYTES
        and rule.gain == 1.0
        and rule.shift.is_integer()
        and abs(rule.shift) < _SMALL_SHIFT
    )
    network = median_network(values.shape[0])
    return _run(_median, values, valid, rule, out, network, kind.type(ends[0]), kind.type(ends[1]), whole)


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
    if out.flags.c_contiguous:
        return int(compiled(kernel)(values, valid, rule, out, *more))
    # Into a part of a larger image the kernels cannot write by vectors: several times as slow as this copy.
    whole = scratch().array("reduced", out.shape, out.dtype)
    saturated = int(compiled(kernel)(values, valid, rule, whole, *more))
    out[:] = whole
    return saturated


def store(numbers: NDArray[np.float64], empty: NDArray[np.bool_], rule: Conversion, out: NDArray[Any]) -> int:
    """Fill ``out`` with numbers of the composite, rounded half to even and cut to the range; return how many were cut.

    Nodata where ``empty``; the gain and shift of ``rule`` are not used.
    """
    rounded = np.rint(numbers)
    cut = np.clip(rounded, rule.low, rule.high)
    out[:] = np.where(empty, rule.nodata, cut)
    return int(np.count_nonzero((cut != rounded) & ~empty))


@functools.cache
def compiled(kernel: Callable[..., int]) -> Callable[..., int]:
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


@functools.cache
def median_network(count: int) -> NDArray[np.int64]:
    """Return the comparisons of :func:`sorting_network` that the two middle rows depend on, in their order."""
    needed = {count // 2, max(count // 2 - 1, 0)}
    kept: list[tuple[int, int]] = []
    for a, b in reversed(sorting_network(count).tolist()):
        if a in needed or b in needed:
            kept.append((a, b))
            needed |= {a, b}
    return np.array(kept[::-1], dtype=np.int64).reshape(-1, 2)


# The functions below are compiled by numba: loops over scalars, and no call of another function of ours. Each loop over
# x touches few arrays, loads without condition and stays in narrow types, or the compiler gives up on vectors.


def _median(
    values: NDArray[Any],
    valid: NDArray[np.bool_],
    rule: Conversion,
    out: NDArray[Any],
    network: NDArray[np.int64],
    smallest: Any,
    largest: Any,
    whole: bool,
) -> int:
    count, height, width = values.shape
    rows = np.empty((count, width), values.dtype)
    states = np.empty(width, np.uint8)  # bit 0: an odd number of invalid values so far; bit 1: a valid one
    odd, some = np.uint8(1), np.uint8(2)
    lower, upper = rows[max(count // 2 - 1, 0)], rows[count // 2]
    even = count % 2 == 0
    low, high, nodata = np.int32(rule.low), np.int32(rule.high), np.int32(rule.nodata)
    shift = np.int32(2 * rule.shift) if whole else np.int32(0)
    saturated = 0
    for y in range(height):
        states[:] = 0
        for t in range(count):
            row, source, good = rows[t], values[t, y], valid[t, y]
            for x in range(width):
                value = source[x]
                state = states[x]
                beyond = smallest if state & odd else largest
                row[x] = value if good[x] else beyond
                states[x] = (state | some) if good[x] else (state ^ odd)
        for c in range(network.shape[0]):
            first, second = rows[network[c, 0]], rows[network[c, 1]]
            for x in range(width):
                a, b = first[x], second[x]
                first[x] = min(a, b)
                second[x] = max(a, b)
        target = out[y]
        over = np.int32(0)
        for x in range(width):
            # The two middle ones of the valid values, or the middle one twice.
            a, b = lower[x], upper[x]
            flip = np.int32(states[x] & odd) != 0
            seen = np.int32(states[x] & some) != 0
            one = a if flip or even else b
            two = a if flip and even else b
            if whole:
                total = np.int32(np.int32(np.int32(one) + np.int32(two)) + shift)
                half = np.int32(total >> np.int32(1))
                number = np.int32(half + np.int32(np.int32(total & half) & np.int32(1)))  # half to even
                cut = min(max(number, low), high)
                over = np.int32(over + np.int32(np.int32(cut != number) & np.int32(seen)))
                target[x] = cut if seen else nodata
            else:
                middle = 0.5 * (np.float64(one) + np.float64(two))
                real = np.rint(middle * rule.gain + rule.shift)
                near = min(max(real, np.float64(rule.low)), np.float64(rule.high))
                over = np.int32(over + np.int32(np.int32(near != real) & np.int32(seen)))
                target[x] = near if seen else np.float64(rule.nodata)
        saturated += int(over)
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
