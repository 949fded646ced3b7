"""Cutting windows out of a stack: in strips of whole source blocks, each read once for all the windows in it.

The file to change for how pixels get into chips, and for what a chip's label is where nothing was seen.
"""

import dataclasses
from collections.abc import Collection, Iterator, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from chipmill.core.buffers import Buffers
from chipmill.core.errors import BadInputError
from chipmill.core.tiff import BLOCK_PX
from chipmill.dataset.classes import IGNORE
from chipmill.dataset.dtypes import common_dtype
from chipmill.dataset.encodings import check_encoding
from chipmill.dataset.pixels import any_slot_valid, open_stack, read_window
from chipmill.dataset.records import NO_STATIC, NO_WEIGHT, RESERVED, RecordSpec
from chipmill.dataset.stack import StackBand, stack_layers
from chipmill.dataset.statistics import BandSums, band_sums, merge, unclaimed
from chipmill.region.config import Region
from chipmill.region.grid import Window, hull
from chipmill.region.slots import slot_names
from chipmill.region.tiles import Tile

_OFTEN: Final = 1.5
"""How often a pixel of a strip must be wanted for one turned copy of the strip to pay."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Strip:
    """A part of a stack as it was read."""

    window: Window
    """In lattice pixels."""
    image: npt.NDArray[Any]
    """(band, y, x), predictors only."""
    label: npt.NDArray[np.uint8]
    """(y, x); 255 where no slot is valid."""
    weight: npt.NDArray[np.uint8]
    """(y, x), 0 where the label is ignore; (0, 0) where the stack has none."""

    def crosses(self, window: Window) -> bool:
        """Tell whether some rows of a window lie in it."""
        return window.row_off < self.window.row_end and self.window.row_off < window.row_end


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Chip:
    """The pixels of one window."""

    pixels: npt.NDArray[Any]
    """(y, x, band), all predictors."""
    label: npt.NDArray[np.uint8]
    """(y, x); 255 where no slot is valid."""
    weight: npt.NDArray[np.uint8]
    """(y, x); (0, 0) where the stack has none."""

    def arrays(self, spec: RecordSpec) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Return image and static bands as a sample of this spec holds them: a series has its bands slot by slot."""
        if not spec.slots:
            return self.pixels, NO_STATIC
        rows, cols, bands = self.pixels.shape
        timed = self.pixels[..., : bands - spec.statics].reshape(rows, cols, spec.slots, -1)
        static = self.pixels[..., bands - spec.statics :] if spec.statics else NO_STATIC
        return np.ascontiguousarray(timed.transpose(2, 0, 1, 3)), static


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Cut:
    """The chips of one tile, in the order of their windows."""

    chips: list[Chip]
    sums: tuple[BandSums, ...]
    """Of the ground that these windows count, per band; all 0 where they were not asked for."""


def cut_windows(
    path: Path,
    tile: Tile,
    windows: Sequence[Window],
    before: Collection[Window] | None,
    layers: Sequence[StackBand],
) -> Cut:
    """Read each source block of a tile's stack once and return what lies in the windows.

    Args:
        path: the stack of ``tile``.
        tile: whose windows these are.
        windows: in lattice pixels; they may overlap.
        before: windows whose ground is counted elsewhere; None counts nothing, which spares a pass over the pixels.
        layers: the bands of the stack in their order.

    Raises:
        AssetReadError: a source is missing or broken.
    """
    # each chip in memory of its own, so that one that is kept does not keep the others
    chips = [chip for window in windows for chip in empty_chips([window], layers, Buffers())]
    return Cut(chips, fill_chips(path, tile, windows, chips, before, layers, Buffers()))


def empty_chips(windows: Sequence[Window], layers: Sequence[StackBand], buffers: Buffers) -> list[Chip]:
    """Return a chip per window that holds anything, one behind the other in ``buffers``."""
    predictors = predictors_of(layers)
    ends = list(accumulate((window.width * window.height for window in windows), initial=0))
    pixels = buffers.array("chips", (ends[-1], len(predictors)), record_dtype(predictors))
    labels = buffers.array("labels", (ends[-1],), np.dtype(np.uint8))
    weights = NO_WEIGHT
    if weighted := any(layer.kind == "weight" for layer in layers):
        weights = buffers.array("weights", (ends[-1],), np.dtype(np.uint8))
    return [
        Chip(
            pixels[begin:end].reshape(*window.shape, len(predictors)),
            labels[begin:end].reshape(window.shape),
            weights[begin:end].reshape(window.shape) if weighted else NO_WEIGHT,
        )
        for window, (begin, end) in zip(windows, pairwise(ends), strict=True)
    ]


def fill_chips(
    path: Path,
    tile: Tile,
    windows: Sequence[Window],
    chips: Sequence[Chip],
    before: Collection[Window] | None,
    layers: Sequence[StackBand],
    buffers: Buffers,
) -> tuple[BandSums, ...]:
    """Fill the chips of a tile, one per window; return the sums that :class:`Cut` describes.

    ``buffers`` are for what is read; the other arguments and errors are those of :func:`cut_windows`.
    """
    predictors = predictors_of(layers)
    sums = [(BandSums(),) * len(predictors)]
    for strip in read_strips(path, tile, windows, layers, buffers):
        own = [row for row, window in enumerate(windows) if strip.crosses(window)]
        _share_out(strip, [(windows[row], chips[row]) for row in own], buffers)
        if before is not None:
            others = [window for window in before if strip.crosses(window)]
            mask = unclaimed(strip.window, [windows[row] for row in own], others)
            sums.append(band_sums(strip.image, [layer.nodata for layer in predictors], mask))
    return merge(sums, len(predictors))


def predictors_of(layers: Sequence[StackBand]) -> list[StackBand]:
    """Return the bands that a model sees: all but the label and its weight, which come last."""
    return [layer for layer in layers if layer.kind in ("band", "index", "static")]


def record_dtype(predictors: Sequence[StackBand]) -> np.dtype[Any]:
    """Return the type of a record's image: the smallest that holds the values of all predictor bands exactly."""
    return common_dtype([layer.dtype for layer in predictors])


def record_spec(region: Region) -> RecordSpec:
    """Return how the records of a region's chips are stored."""
    layers, shards = stack_layers(region), region.dataset.shards
    predictors = predictors_of(layers)
    series = region.dataset.layout == "series"
    return RecordSpec(
        record_dtype(predictors).name,
        shards.encoding,
        shards.compression,
        shards.jpeg_quality if shards.encoding == "jpeg" else None,
        bands=tuple(layer.name for layer in predictors),
        slots=len(slot_names(region)) if series else 0,
        statics=sum(layer.kind == "static" for layer in predictors) if series else 0,
        weight=any(layer.kind == "weight" for layer in layers),
        size_px=region.dataset.chips.size_px,
    )


def check_storage(region: Region) -> None:
    """Raise BadInputError where the encoding that is asked for cannot hold the bands, before anything is read."""
    if region.labels is None:
        return
    spec = record_spec(region)
    check_encoding(
        spec.encoding, spec.dtype, len(spec.bands), series=bool(spec.slots), where=f"region {region.name}"
    )
    taken = sorted({*spec.bands} & {*RESERVED})
    if spec.encoding == "float" and taken:
        raise BadInputError(
            f"region {region.name} has a band called {taken[0]}, which the encoding float needs for itself: rename it"
        )


def _share_out(strip: Strip, chips: Sequence[tuple[Window, Chip]], buffers: Buffers) -> None:
    """Copy a strip's pixels into the chips that it crosses."""
    pixels = np.moveaxis(strip.image, 0, -1)
    wanted = sum(window.width * window.height for window, _ in chips)
    if wanted > _OFTEN * strip.window.width * strip.window.height:
        # turned to (y, x, band) once for all the windows that overlap here
        turned = buffers.array("turned", pixels.shape, pixels.dtype)
        turned[...] = pixels
        pixels = turned
    for window, chip in chips:
        common = strip.window.intersection(window)
        if common is None:
            continue
        to, at = _slices(common, window), _slices(common, strip.window)
        chip.pixels[to] = pixels[at]
        chip.label[to] = strip.label[at]
        if strip.weight.size:
            chip.weight[to] = strip.weight[at]


def _slices(part: Window, whole: Window) -> tuple[slice, slice]:
    row, col = part.row_off - whole.row_off, part.col_off - whole.col_off
    return slice(row, row + part.height), slice(col, col + part.width)


def read_strips(
    path: Path, tile: Tile, windows: Collection[Window], layers: Sequence[StackBand], buffers: Buffers
) -> Iterator[Strip]:
    """Yield the parts of a tile's stack that hold windows, one row of source blocks after the other.

    A strip is as wide as the windows that cross it, and good until the next; strips without window are not read.
    Raises AssetReadError.
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
            yield _read_strip(dataset, part, place, layers, buffers)


def _read_strip(
    dataset: Any, part: Window, place: Window, layers: Sequence[StackBand], buffers: Buffers
) -> Strip:
    """Read ``part`` of the lattice, which lies at ``place`` in the file."""
    predictors = predictors_of(layers)
    image = read_window(dataset, place, range(1, len(predictors) + 1), buffers)
    masks = read_window(dataset, place, range(len(predictors) + 1, len(layers) + 1))
    # the rule of windows.parquet: where there is nothing to see there is nothing to learn
    *weights, label = masks
    label[~any_slot_valid(image, predictors)] = IGNORE
    for weight in weights:
        weight[label == IGNORE] = 0
    return Strip(part, image, label, weights[0] if weights else NO_WEIGHT)
