"""What the windows of a tile hold: classes, nodata and cloud, counted before a chip is cut.

Every pixel of a tile and of the strip that it borrows from its neighbours is read once, in strips of whole source
blocks; the counts of all overlapping windows come from one integral image (:mod:`chipmill.dataset.histograms`). The
file to change for another count.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from chipmill.dataset.classes import resolve_classes
from chipmill.dataset.histograms import RectangleCounter
from chipmill.dataset.pixels import open_stack, read_window
from chipmill.dataset.stack import COUNTS, LABEL, TileSources, stack_layers
from chipmill.dataset.vrt import Band, vrt_xml
from chipmill.imagery.kernels import compiled
from chipmill.region.config import Region
from chipmill.region.grid import Window
from chipmill.region.slots import slot_names
from chipmill.region.tiles import Tile

_STRIP_PX: Final = 512
"""Rows read at a time, rounded up to whole source blocks: memory does not grow with the height of a tile."""
_CLOUD, _NODATA = 1, 2
"""States of a slot; 0 is valid."""

type Rectangles = NDArray[np.int64]
"""``(rectangle, 4)``: col_off, row_off, width, height in lattice pixels."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Counts:
    """Pixel counts, one row per rectangle."""

    pixels: NDArray[np.int64]
    """Pixels of the rectangle that lie in tiles; fractions are of these."""
    classes: NDArray[np.int64]
    """``(rectangle, class)``: pixels of each class with a valid slot."""
    ignore: NDArray[np.int64]
    """All others, those beyond the tiles among them."""
    nodata: NDArray[np.int64]
    """``(rectangle, slot)``: some imagery saw nothing."""
    cloud: NDArray[np.int64]
    """``(rectangle, slot)``: seen by every imagery, but not clear in all."""
    valid: NDArray[np.int64]
    """With a valid slot."""
    missing: NDArray[np.int64]
    """``(rectangle, slot * imagery)``: this imagery saw nothing; no columns where there is one imagery."""
    static: NDArray[np.int64]
    """Some static layer is nodata."""

    def take(self, rows: NDArray[np.int64]) -> "Counts":
        """Return the counts of some rectangles."""
        return Counts(*(getattr(self, field.name)[rows] for field in dataclasses.fields(self)))


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class _Strip:
    """A part of what is counted, arrays ``(y, x)``."""

    row_off: int
    label: NDArray[np.uint8]
    counts: NDArray[Any]
    """``(slot, imagery, 2, y, x)``: valid_count and observed_count."""
    static: NDArray[np.bool_]
    """Some static layer is nodata."""


def count_rectangles(
    region: Region, sources: TileSources, near: Sequence[Tile], rectangles: Rectangles
) -> Counts:
    """Count over the pixels of ``near``: the tile itself first, then the neighbours that stand.

    A slot of a pixel is valid where every imagery has ``valid_count`` > 0, nodata where one has ``observed_count`` = 0,
    else cloud. ``rectangles`` begin in the tile; where they reach beyond all tiles of ``near`` nothing is nodata or
    cloud, and the label is ignore. Raises AssetReadError.
    """
    place = near[0].window
    relative = rectangles - [place.col_off, place.row_off, 0, 0]
    width, height = (relative[:, :2] + relative[:, 2:]).max(axis=0, initial=0).tolist()
    counters = _Counters(region, [tuple(one) for one in relative.tolist()], width)
    for strip in _strips(region, sources, near, Window(place.col_off, place.row_off, width, height)):
        counters.add(strip)
    inside = _inside(near, rectangles)
    return counters.counts(inside, rectangles[:, 2] * rectangles[:, 3] - inside)


class _Counters:
    """One integral image for each thing that is counted."""

    def __init__(self, region: Region, rectangles: Sequence[tuple[int, int, int, int]], width: int) -> None:
        def counter(kinds: int) -> RectangleCounter:
            return RectangleCounter(rectangles, width, kinds)

        slots, imagery = len(slot_names(region)), len(region.imagery)
        self._ignore = len(resolve_classes(region))
        self._classes, self._valid = counter(self._ignore + 1), counter(2)
        self._states = [counter(3) for _ in range(slots)]
        self._missing = [counter(2) for _ in range(slots * imagery)] if imagery > 1 else []
        self._static = [counter(2)] if region.static else []
        self._nothing = np.zeros((len(rectangles), 0), dtype=np.int64)

    def add(self, strip: _Strip) -> None:
        """Count one strip."""
        shape = strip.label.shape
        states = np.empty((len(self._states), *shape), dtype=np.uint8)
        codes, some = np.empty(shape, dtype=np.uint8), np.empty(shape, dtype=np.uint8)
        compiled(_code)(strip.label, strip.counts, self._ignore, states, codes, some)
        for state, counter in zip(states, self._states, strict=True):
            counter.add(strip.row_off, state)
        if self._missing:
            missed = strip.counts[:, :, 1].reshape(-1, *shape) <= 0
            for lacks, counter in zip(missed, self._missing, strict=True):
                counter.add(strip.row_off, lacks.view(np.uint8))
        for counter in self._static:
            counter.add(strip.row_off, strip.static.view(np.uint8))
        self._valid.add(strip.row_off, some)
        self._classes.add(strip.row_off, codes)

    def counts(self, inside: NDArray[np.int64], beyond: NDArray[np.int64]) -> Counts:
        """Return the counts; what lies ``beyond`` the tiles was counted as nodata, and is taken off."""
        classes = self._classes.counts()
        states = np.stack([one.counts() for one in self._states], axis=1)
        missing = [one.counts()[:, 1] - beyond for one in self._missing]
        static = [one.counts()[:, 1] - beyond for one in self._static]
        return Counts(
            inside,
            classes[:, :-1],
            classes[:, -1],
            states[..., _NODATA] - beyond[:, None],
            states[..., _CLOUD],
            self._valid.counts()[:, 1],
            np.stack(missing, axis=1) if missing else self._nothing,
            static[0] if static else np.zeros_like(inside),
        )


# Compiled by numba, under the rules of :mod:`chipmill.imagery.kernels`.


def _code(
    label: NDArray[np.uint8],
    counts: NDArray[Any],
    ignore: int,
    states: NDArray[np.uint8],
    codes: NDArray[np.uint8],
    some: NDArray[np.uint8],
) -> int:
    """Fill the state of each slot, the class (``ignore`` where no slot is valid) and whether one is, one pass in all."""
    slots, depth = counts.shape[:2]
    height, width = label.shape
    for y in range(height):
        some[y] = 0
        for slot in range(slots):
            for x in range(width):
                valid, seen = True, True
                for imagery in range(depth):
                    valid &= counts[slot, imagery, 0, y, x] > 0
                    seen &= counts[slot, imagery, 1, y, x] > 0
                states[slot, y, x] = 0 if valid else 1 if seen else 2
                some[y, x] |= valid
        for x in range(width):
            # 255 lies above all codes, so the smaller of the two is the code or the last one
            codes[y, x] = min(label[y, x], ignore) if some[y, x] else ignore
    return 0


def _inside(near: Sequence[Tile], rectangles: Rectangles) -> NDArray[np.int64]:
    """Pixels of each rectangle that lie in one of the tiles, which do not overlap."""
    first, last = rectangles[:, :2], rectangles[:, :2] + rectangles[:, 2:]
    inside = np.zeros(len(rectangles), dtype=np.int64)
    for place in (tile.window for tile in near):
        common = np.minimum(last, [place.col_end, place.row_end]) - np.maximum(
            first, [place.col_off, place.row_off]
        )
        inside += np.maximum(common, 0).prod(axis=1)
    return inside


def _strips(region: Region, sources: TileSources, near: Sequence[Tile], area: Window) -> Iterator[_Strip]:
    """Yield what is counted, in strips of whole blocks."""
    if area.height == 0:
        return
    names = [(slot, imagery.name) for slot in slot_names(region) for imagery in region.imagery]
    label = [layer for layer in stack_layers(region) if layer.name == LABEL]
    static = [layer for layer in stack_layers(region) if layer.kind == "static"]
    counts = [sources.count_band(near, *name, kind) for name in names for kind in COUNTS]
    bands: list[Band] = [*sources.bands(label, near), *counts, *sources.bands(static, near)]
    block = max(source.header.block[0] for band in bands for source in band.sources)
    height = -(-_STRIP_PX // block) * block
    first = len(counts) + 2
    with open_stack(vrt_xml(near[0].lattice, area, bands)) as dataset:
        for row_off in range(0, area.height, height):
            part = Window(0, row_off, area.width, min(height, area.height - row_off))
            seen = read_window(dataset, part, range(2, first))
            empty = np.zeros(part.shape, dtype=bool)
            for number, layer in enumerate(static, start=first):
                empty |= read_window(dataset, part, [number])[0] == layer.nodata
            counted = seen.reshape(-1, len(region.imagery), 2, *part.shape)
            yield _Strip(row_off, read_window(dataset, part, [1])[0], counted, empty)
