"""Which pixels count: dropping what is no data, and counting over time, compiled as :mod:`.kernels` is."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from chipmill.imagery.kernels import compiled


def settle(
    values: NDArray[Any],
    codes: NDArray[np.int64],
    tested: NDArray[np.bool_],
    valid: NDArray[np.bool_],
    seen: NDArray[np.bool_],
) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    """Clear ``valid`` where a band has no data, and count over time; each pixel is looked at once.

    Args:
        values: (band, time, y, x) DN.
        codes: (band, time) the DN that means no data.
        tested: (band, time) True where that is still to be looked at.
        valid: (time, y, x) True where the mask is clear.
        seen: (time, y, x) True where the mask says that something was seen and is dropped.

    Returns:
        How many acquisitions are valid, and how many are valid or seen: (y, x) each.
    """
    counts = np.zeros((2, *valid.shape[1:]), np.int16)
    compiled(_settle)(values, codes, tested, valid, seen, counts)
    return counts[0], counts[1]


def code_of(nodata: float | None, kind: np.dtype[Any]) -> int | None:
    """Return ``nodata`` as an integer of a type, None where no value of the type is it."""
    whole = kind.kind in "iu" and nodata is not None and float(nodata).is_integer()
    return int(nodata) if whole and nodata is not None and nodata in _range(kind) else None


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
    elif (code := code_of(nodata, kind)) is not None:
        compiled(_drop)(values, kind.type(code), valid, *corner, *shape)


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


def _settle(
    values: NDArray[Any],
    codes: NDArray[np.int64],
    tested: NDArray[np.bool_],
    valid: NDArray[np.bool_],
    seen: NDArray[np.bool_],
    counts: NDArray[np.int16],
) -> None:
    depth, count, height, width = values.shape
    for y in range(height):
        usable, observed = counts[0, y], counts[1, y]
        for t in range(count):
            good, other = valid[t, y], seen[t, y]
            for b in range(depth):
                if tested[b, t]:
                    row, code = values[b, t, y], values.dtype.type(codes[b, t])
                    for x in range(width):
                        good[x] &= row[x] != code
            for x in range(width):
                usable[x] += good[x]
                observed[x] += good[x] | other[x]
