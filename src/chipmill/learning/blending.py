"""Overlapping windows blended into one prediction without seams; the map and the evaluation both come from here.

Windows start at multiples of the step on the raster's global lattice, never at the corner of what is asked for, and
their cosine ramps sum to 1 in every pixel. So a pixel's value does not depend on how the raster is cut into strips,
tiles or blocks. To blend in another way, change `ramp`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from chipmill.core.errors import BadInputError
from chipmill.region.grid import Window

STAGE_VERSION: Final = 2
_BATCH: Final = (
    16  # windows per call of the model: bounds memory, and is past the knee of throughput on a CPU
)

type Pixels = NDArray[Any]
type Floats = NDArray[np.float32]
type ModelFn = Callable[[Pixels], Floats]
"""Chips `(n, y, x, band)` -> probabilities `(n, y, x, class)` float32."""
type ReadFn = Callable[[Window], Pixels]
"""A window inside the raster, in lattice pixels -> its pixels `(y, x, band)`."""


def step_px(chip_px: int, overlap: float) -> int:
    """Return the step between windows for an overlap given as a share of the side.

    Raises BadInputError above one half, where a third window would reach into the ramp of two others.
    """
    if not 0 <= overlap <= 0.5:
        raise BadInputError(
            f"overlap must lie between 0 and 0.5 of a window's side, got {overlap:g}: use 0.25"
        )
    return chip_px - round(chip_px * overlap)


def ramp(chip_px: int, step: int) -> Floats:
    """Return the weight of a window along one side, float32 `(chip_px,)`: it rises as sin^2 over the overlap.

    The falling side of one window and the rising side of the next are sin^2 and cos^2: together 1.
    """
    overlap = chip_px - step
    rise = np.sin(0.5 * np.pi * (np.arange(overlap) + 0.5) / max(overlap, 1)) ** 2
    weight = np.ones(chip_px)
    weight[:overlap] = rise
    weight[chip_px - overlap :] = rise[::-1]
    return weight.astype(np.float32)


def window_starts(start: int, stop: int, chip_px: int, step: int) -> range:
    """Return the multiples of `step` at which a window begins that reaches into the pixels [start, stop)."""
    first = -((chip_px - 1 - start) // step)
    return range(first * step, stop, step)


def mirror(positions: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Fold positions beyond 0..size-1 back, as in a mirror that stands on the last pixel (reflect padding)."""
    if size == 1:
        return np.zeros_like(positions)
    folded = np.abs(positions) % (2 * (size - 1))
    inside: NDArray[np.int64] = np.minimum(folded, 2 * (size - 1) - folded)
    return inside


def read_mirrored(read: ReadFn, extent: Window, window: Window) -> Pixels:
    """Read a window that may reach beyond the raster `extent`; what lies outside is mirrored at its edge."""
    rows = mirror(np.arange(window.row_off, window.row_end) - extent.row_off, extent.height)
    cols = mirror(np.arange(window.col_off, window.col_end) - extent.col_off, extent.width)
    top, left = int(rows.min()), int(cols.min())
    inside = Window(
        extent.col_off + left, extent.row_off + top, int(cols.max()) - left + 1, int(rows.max()) - top + 1
    )
    pixels = read(inside)
    if inside == window:
        return pixels
    return pixels[np.ix_(rows - top, cols - left)]


def predict_window(
    model_fn: ModelFn, read: ReadFn, extent: Window, window: Window, chip_px: int, overlap: float
) -> Floats:
    """Predict the pixels of `window`, float32 `(y, x, class)`, summing to 1 where the model's do.

    `extent` is the whole raster and `window` a part of it, both in lattice pixels. One row of windows is in memory
    beside the result, so choose low, wide windows for large rasters.
    """
    step = step_px(chip_px, overlap)
    weight = ramp(chip_px, step)
    starts = window_starts(window.col_off, window.col_end, chip_px, step)
    result: Floats | None = None
    for row in window_starts(window.row_off, window.row_end, chip_px, step):
        band = read_mirrored(read, extent, Window(starts[0], row, starts[-1] + chip_px - starts[0], chip_px))
        for col, probability in _predict_row(model_fn, band, starts, chip_px):
            if result is None:
                result = np.zeros((*window.shape, probability.shape[-1]), np.float32)
            _add(result, window, probability, row, col, weight)
    if result is None:
        raise BadInputError(f"{window} holds no pixel: ask for a window of at least one pixel")
    return result


def _predict_row(
    model_fn: ModelFn, band: Pixels, starts: range, chip_px: int
) -> Iterator[tuple[int, Floats]]:
    for first in range(0, len(starts), _BATCH):
        cols = starts[first : first + _BATCH]
        chips = np.stack([band[:, col - starts[0] : col - starts[0] + chip_px] for col in cols])
        yield from zip(cols, model_fn(chips), strict=True)


def _add(result: Floats, window: Window, probability: Floats, row: int, col: int, weight: Floats) -> None:
    """Add one window's probabilities, weighted, to the part of the result that it covers."""
    chip = Window(col, row, len(weight), len(weight))
    common = chip.intersection(window)
    if common is None:
        return
    rows = slice(common.row_off - row, common.row_end - row)
    cols = slice(common.col_off - col, common.col_end - col)
    target = result[
        common.row_off - window.row_off : common.row_end - window.row_off,
        common.col_off - window.col_off : common.col_end - window.col_off,
    ]
    target += probability[rows, cols] * (weight[rows, None, None] * weight[None, cols, None])


def predict_blended(
    model_fn: ModelFn, image: Pixels, chip_px: int, overlap: float, origin: tuple[int, int] = (0, 0)
) -> Floats:
    """Predict a whole image `(y, x, band)` in memory, float32 `(y, x, class)`.

    `origin` is the lattice row and column of its upper left pixel, on which the windows depend.
    """
    extent = Window(origin[1], origin[0], image.shape[1], image.shape[0])

    def read(window: Window) -> Pixels:
        top, left = window.row_off - origin[0], window.col_off - origin[1]
        return image[top : top + window.height, left : left + window.width]

    return predict_window(model_fn, read, extent, extent, chip_px, overlap)
