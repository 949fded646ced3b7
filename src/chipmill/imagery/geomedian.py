"""The geometric median over time: one spectrum per pixel, all bands at once, compiled.

The file to change for its arithmetic. It is the spectrum whose distances to the valid spectra of a pixel, all in the
composite's units, have the smallest sum (Roberts, Mueller and McIntyre, High-dimensional pixel composites from Earth
observation time series, 2017), found by Weiszfeld's iteration as mended by Vardi and Zhang (The multivariate L1-median
and associated data depth, 2000) for a point that lies on a spectrum. With one band it is the median. Import this
file only where it is needed: numba takes its time.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, cast

import numba
import numpy as np
from numpy.typing import NDArray

from chipmill.imagery.kernels import Conversion, store

TOLERANCE: Final = 1e-3
"""The iteration ends when a step is shorter, in the composite's integers."""
MAX_STEPS: Final = 200
_CHUNK_BYTES: Final = 16 << 20
"""Of the values that are held as float64 at once."""


def reduce_geomedian(
    values: Mapping[str, NDArray[Any]],
    valid: NDArray[np.bool_],
    rules: Mapping[str, Conversion],
    out: Mapping[str, NDArray[Any]],
) -> dict[str, int]:
    """Fill the bands of a composite with the geometric median of the valid spectra.

    Args:
        values: band -> DN (time, y, x) of any number type.
        valid: bool (time, y, x), True = the spectrum counts, in all bands.
        rules: band -> how its DN become the composite's integers; applied before the reduction, because distances
            need one unit for all bands.
        out: band -> integers (y, x), filled; nodata where no spectrum is valid.

    Returns:
        Band -> number of pixels that were cut to the range of its type.
    """
    names = list(values)
    saturated = dict.fromkeys(names, 0)
    count, height, width = valid.shape
    if not count:
        for name in names:
            out[name][:] = rules[name].nodata
        return saturated
    step = max(1, _CHUNK_BYTES // (8 * len(names) * count * width))
    for row in range(0, height, step):
        rows = np.s_[row : row + step]
        seen = valid[:, rows].reshape(count, -1)
        points = np.empty((len(names), *seen.shape))
        for place, name in enumerate(names):
            np.multiply(
                values[name][:, rows].reshape(count, -1),
                rules[name].gain,
                out=points[place],
                dtype=np.float64,
            )
            points[place] += rules[name].shift
        spectrum = geomedian(points, seen)
        empty = ~seen.any(axis=0)
        for name, numbers in zip(names, spectrum, strict=True):
            target = out[name][rows]
            shape = target.shape
            saturated[name] += store(numbers.reshape(shape), empty.reshape(shape), rules[name], target)
    return saturated


def geomedian(points: NDArray[np.float64], valid: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the geometric median (band, pixel) of points (band, time, pixel) where ``valid`` (time, pixel).

    Two spectra give their mean, as any point between them is as good; no spectrum gives 0.
    """
    out = np.zeros((points.shape[0], points.shape[2]))
    _every_pixel(points, valid, TOLERANCE, MAX_STEPS, out)
    return out


# Compiled by numba on first use, and kept beside this file or in numba's cache where that is read-only.


def _compiled[F: Callable[..., Any]](function: F) -> F:
    return cast(F, numba.njit(cache=True, nogil=True, error_model="numpy")(function))


@_compiled
def _start(seen: NDArray[np.float64], here: NDArray[np.float64], column: NDArray[np.float64]) -> None:
    """Set ``here`` to the median of each band: for one band, for one or two spectra, it is the answer."""
    n = seen.shape[0]
    for b in range(seen.shape[1]):
        for i in range(n):
            j = i
            while j > 0 and column[j - 1] > seen[i, b]:
                column[j] = column[j - 1]
                j -= 1
            column[j] = seen[i, b]
        here[b] = 0.5 * (column[(n - 1) // 2] + column[n // 2])


@_compiled
def _pulled(
    seen: NDArray[np.float64], here: NDArray[np.float64], pull: NDArray[np.float64]
) -> tuple[int, float, float]:
    """Fill ``pull`` with the sum of the unit vectors to all spectra; return how many lie here, its length, the weight."""
    same, weight, length = 0, 0.0, 0.0
    pull[:] = 0.0
    for i in range(seen.shape[0]):
        square = 0.0
        for b in range(seen.shape[1]):
            square += (seen[i, b] - here[b]) ** 2
        if square < 1e-18:  # far below what float64 keeps of such numbers: it is the same spectrum
            same += 1
            continue
        one = 1.0 / np.sqrt(square)
        weight += one
        for b in range(seen.shape[1]):
            pull[b] += one * (seen[i, b] - here[b])
    for b in range(seen.shape[1]):
        length += pull[b] ** 2
    return same, np.sqrt(length), weight


@_compiled
def _walk(
    seen: NDArray[np.float64],
    here: NDArray[np.float64],
    pull: NDArray[np.float64],
    tolerance: float,
    steps: int,
) -> None:
    """Move ``here`` to where the pulls of all spectra are even."""
    for _ in range(steps):
        same, length, weight = _pulled(seen, here, pull)
        # On a spectrum the others have to pull harder than those that lie there, or it is the answer.
        if length <= same:
            return
        share = (1.0 - same / length) / weight
        for b in range(here.size):
            here[b] += share * pull[b]
        if share * length <= tolerance:
            break
    # Where the answer is a spectrum, steps towards it get ever shorter: look at the nearest one itself.
    nearest, least = 0, np.inf
    for i in range(seen.shape[0]):
        square = 0.0
        for b in range(here.size):
            square += (seen[i, b] - here[b]) ** 2
        if square < least:
            nearest, least = i, square
    same, length, _ = _pulled(seen, seen[nearest], pull)
    if length <= same:
        here[:] = seen[nearest]


@_compiled
def _every_pixel(
    points: NDArray[np.float64],
    valid: NDArray[np.bool_],
    tolerance: float,
    steps: int,
    out: NDArray[np.float64],
) -> None:
    bands, times, pixels = points.shape
    spectra = np.empty((times, bands))
    column, here, pull = np.empty(times), np.empty(bands), np.empty(bands)
    for p in range(pixels):
        n = 0
        for t in range(times):
            if valid[t, p]:
                for b in range(bands):
                    spectra[n, b] = points[b, t, p]
                n += 1
        if n == 0:
            continue
        seen = spectra[:n]
        _start(seen, here, column)
        if n > 2 and bands > 1:
            _walk(seen, here, pull, tolerance, steps)
        for b in range(bands):
            out[b, p] = here[b]
