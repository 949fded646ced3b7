"""Which pixels count: dropping what is no data, and counting over time, compiled as :mod:`.kernels` is."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from chipmill.imagery.buffers import scratch
from chipmill.imagery.kernels import compiled


def count_valid(valid: NDArray[np.bool_], out: NDArray[Any]) -> None:
    """Fill ``out`` (y, x) with the number of True over time, at most the highest value of its type."""
    whole = scratch().array("counted", out.shape, out.dtype)  # vectors need it contiguous
    whole[:] = 0
    compiled(_count)(valid, whole, np.iinfo(out.dtype).max)
    out[:] = whole


def drop_nodata(
    values: NDArray[Any],
    nodata: float | None,
    valid: NDArray[np.bool_],
    corner: tuple[int, int],
    shape: tuple[int, int],
) -> None:
    """Clear ``valid`` (y, x) where ``values`` are ``nodata`` or no numbers, in the part of ``shape`` at ``corner``.

    ``nodata`` None: no value means that there is none. Nothing is allocated: memory that is fresh for every block
    costs several times as much as looking at the block. Contiguous arrays are several times as fast as parts of them,
    hence the corner.
    """
    kind = values.dtype
    if kind.kind == "f":
        compiled(_drop)(values, np.nan if nodata is None else nodata, valid, *corner, *shape)
    elif nodata is not None and float(nodata).is_integer() and nodata in _range(kind):
        compiled(_drop)(values, kind.type(nodata), valid, *corner, *shape)


def _range(kind: np.dtype[Any]) -> range:
    limits = np.iinfo(kind)
    return range(int(limits.min), int(limits.max) + 1)


# The functions below are compiled by numba, under the rules of :mod:`.kernels`.


def _drop(
    values: NDArray[Any],
    nodata: Any,
    valid: NDArray[np.bool_],
    top: int,
    left: int,
    height: int,
    width: int,
) -> None:
    for y in range(top, top + height):
        row, good = values[y][left : left + width], valid[y][left : left + width]
        for x in range(width):
            good[x] &= np.isfinite(row[x]) & (row[x] != nodata)  # of integers the compiler leaves the second


def _count(valid: NDArray[np.bool_], out: NDArray[Any], top: int) -> None:
    count, height, width = valid.shape
    for y in range(height):
        row = out[y]
        for t in range(min(count, top)):
            seen = valid[t, y]
            for x in range(width):
                row[x] += seen[x]
        for t in range(top, count):
            seen = valid[t, y]
            for x in range(width):
                row[x] = min(row[x] + seen[x], top)
