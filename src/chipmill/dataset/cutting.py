"""Cutting windows out of a stack: in strips of whole source blocks, each read once for all the windows in it.

The file to change for how pixels get into chips, and for what a chip's label is where nothing was seen.
"""

import dataclasses
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from chipmill.dataset.classes import IGNORE
from chipmill.dataset.pixels import any_slot_valid, open_stack, read_window
from chipmill.dataset.rasters import BLOCK_PX
from chipmill.dataset.stack import StackBand
from chipmill.dataset.statistics import BandSums, band_sums, merge, unclaimed
from chipmill.region.grid import Window
from chipmill.region.tiles import Tile


@dataclasses.dataclass(frozen=True, slots=True)
class Strip:
    """A part of a stack as it was read."""

    window: Window
    """In lattice pixels."""
    image: npt.NDArray[Any]
    """(band, y, x), predictors only."""
    label: npt.NDArray[np.uint8]
    """(y, x); 255 where no slot is valid."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Cut:
    """The chips of one tile, in the order of their windows."""

    images: list[npt.NDArray[Any]]
    """(y, x, band) each."""
    labels: list[npt.NDArray[np.uint8]]
    """(y, x) each; 255 where no slot is valid."""
    sums: tuple[BandSums, ...]
    """Of the ground that these windows count, per band."""


def cut_windows(
    path: Path,
    tile: Tile,
    windows: Sequence[Window],
    before: Collection[Window],
    predictors: Sequence[StackBand],
) -> Cut:
    """Read each source block of a tile's stack once and return what lies in the windows.

    Args:
        path: the stack of ``tile``.
        tile: whose windows these are.
        windows: in lattice pixels; they may overlap.
        before: windows whose ground is counted elsewhere.
        predictors: the bands of the stack without the label, in their order.

    Raises:
        AssetReadError: a source is missing or broken.
    """
    images = [np.empty((*window.shape, len(predictors)), record_dtype(predictors)) for window in windows]
    labels = [np.empty(window.shape, np.uint8) for window in windows]
    sums = [(BandSums(),) * len(predictors)]
    for strip in read_strips(path, tile, windows, predictors):
        _share_out(strip, windows, images, labels)
        mask = unclaimed(strip.window, windows, before)
        sums.append(band_sums(strip.image, [layer.nodata for layer in predictors], mask))
    return Cut(images, labels, merge(sums, len(predictors)))


def record_dtype(predictors: Sequence[StackBand]) -> np.dtype[Any]:
    """Return the type of a record's image: the smallest that holds all predictor bands."""
    return np.result_type(*(layer.dtype for layer in predictors))


def _share_out(
    strip: Strip,
    windows: Sequence[Window],
    images: list[npt.NDArray[Any]],
    labels: list[npt.NDArray[np.uint8]],
) -> None:
    """Copy a strip's pixels into all chips that it crosses."""
    # turned to (y, x, band) once for all the windows that overlap here
    pixels = np.ascontiguousarray(np.moveaxis(strip.image, 0, -1))
    for window, image, label in zip(windows, images, labels, strict=True):
        common = strip.window.intersection(window)
        if common is None:
            continue
        to, at = _slices(common, window), _slices(common, strip.window)
        image[to] = pixels[at]
        label[to] = strip.label[at]


def _slices(part: Window, whole: Window) -> tuple[slice, slice]:
    row, col = part.row_off - whole.row_off, part.col_off - whole.col_off
    return slice(row, row + part.height), slice(col, col + part.width)


def read_strips(
    path: Path, tile: Tile, windows: Collection[Window], predictors: Sequence[StackBand]
) -> Iterator[Strip]:
    """Yield the parts of a tile's stack that hold windows, one row of source blocks after the other.

    A strip is as wide as the windows that cross it; strips without window are not read. Raises AssetReadError.
    """
    top, left = tile.window.row_off, tile.window.col_off
    numbers = {(row - top) // BLOCK_PX for window in windows for row in (window.row_off, window.row_end - 1)}
    with open_stack(path) as dataset:
        for number in range(min(numbers), max(numbers) + 1):
            band = Window(left, top + number * BLOCK_PX, dataset.width, BLOCK_PX)
            parts = [part for window in windows if (part := band.intersection(window)) is not None]
            if not parts:
                continue
            part = hull(parts)
            place = Window(part.col_off - left, part.row_off - top, part.width, part.height)
            pixels = read_window(dataset, place)
            yield _as_strip(part, pixels, predictors)


def hull(parts: Collection[Window]) -> Window:
    """Return the smallest window that holds all parts."""
    left, top = min(part.col_off for part in parts), min(part.row_off for part in parts)
    right, bottom = max(part.col_end for part in parts), max(part.row_end for part in parts)
    return Window(left, top, right - left, bottom - top)


def _as_strip(part: Window, pixels: npt.NDArray[Any], predictors: Sequence[StackBand]) -> Strip:
    image = pixels[: len(predictors)].astype(record_dtype(predictors), copy=False)
    label = pixels[len(predictors)].astype(np.uint8)
    # the rule of windows.parquet: where there is nothing to see there is nothing to learn
    label[~any_slot_valid(image, predictors)] = IGNORE
    return Strip(part, image, label)
