"""Cutting chips out of a stack: against reading its blocks once and copying the windows, and against one file per chip.

10 bands of int16 and a label, 2048 x 2048 px in blocks of 512, compressed as our composites are, chips of 128 px at
strides of 64 and 128. Ours is `cut_windows`: pixels as (y, x, band), and labels; once more with a train shard's statistics.
The limit reads the same blocks through the same VRT and copies each window once. The other end is how tutorials do it:
for each chip open the VRT, read the window, write image and label; a sample of the chips is enough for its rate. At a stride of
128 the limit itself is some 25 times that: the goal against it is of stride 64. One thread each:
against the limit by its CPU seconds, against files by the clock, since those wait for the disk.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from time import process_time
from typing import Any, Final

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.windows import Window as FileWindow

from benchmarks.archive import Square, region, waves
from benchmarks.figure import Figure
from benchmarks.kernel import interleaved
from chipmill.dataset.cutting import cut_windows
from chipmill.dataset.rasters import read_header, write_layer
from chipmill.dataset.stack import StackBand
from chipmill.dataset.vrt import Band, Source, vrt_xml
from chipmill.imagery import planning
from chipmill.region.grid import Window
from chipmill.region.tiles import Tile

DEPTH: Final = 10
CHIP_PX: Final = 128
STRIDES: Final = (64, 128)
OF_LIMIT: Final = 0.8
OF_FILES: Final = 75.0
_BLOCK_PX: Final = 512
_NODATA: Final = -32768
_IGNORE: Final = 255
_LAYERS: Final = (
    *(StackBand(f"p1_b{number}", "band", "s2", "p1", "int16", 1e-4, _NODATA) for number in range(DEPTH)),
    StackBand("label", "label", "", "", "uint8", 1.0, _IGNORE),
)


def run(quick: bool) -> list[Figure]:
    """Return the figures; ``quick`` takes 1024 px and fewer turns."""
    side, turns, sample = (1024, 2, 6) if quick else (2048, 7, 40)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _, (tile,) = planning.place_tiles(region(Square(folder, side, 1), folder, side))
        stack = _make_stack(folder, tile)
        return [
            figure for stride in STRIDES for figure in _figures(stack, tile, stride, turns, sample, quick)
        ]


def _make_stack(folder: Path, tile: Tile) -> Path:
    """Write the sources and the VRT over them."""
    place = (tile.lattice, tile.window)
    side = tile.window.width
    rng = np.random.default_rng(8)
    ground = [waves(side, 80.0 + 9 * band) * 900 + 1500 for band in range(DEPTH)]
    noise = rng.integers(0, 64, (DEPTH, side, side), np.int16)
    pixels = np.stack(ground).astype(np.int16) + noise
    names = [layer.name.removeprefix("p1_") for layer in _LAYERS[:-1]]
    write_layer(folder / "bands.tif", "f", pixels, place, nodata=_NODATA, names=names)
    label = (waves(side, 71.0) > 0.5).astype(np.uint8)[np.newaxis]
    write_layer(folder / "label.tif", "f", label, place, nodata=_IGNORE, names=["label"])
    bands, labels = read_header(folder / "bands.tif"), read_header(folder / "label.tif")
    sources = [Source(bands, number) for number in range(1, DEPTH + 1)] + [Source(labels, 1)]
    listed = [
        Band(layer.name, layer.dtype, layer.nodata, (source,))
        for layer, source in zip(_LAYERS, sources, strict=True)
    ]
    path = folder / "stack.vrt"
    path.write_text(vrt_xml(tile.lattice, tile.window, listed, folder))
    return path


def _figures(stack: Path, tile: Tile, stride: int, turns: int, sample: int, quick: bool) -> list[Figure]:
    windows = _windows(tile, stride)
    some = windows[:: max(1, len(windows) // sample)][:sample]
    _check_equal(stack, tile, windows)
    fast: dict[str, Callable[[], object]] = {
        "limit": lambda: copy_windows(stack, tile, windows),
        "chipmill": lambda: cut_windows(stack, tile, windows, None, _LAYERS),
        "with statistics": lambda: cut_windows(stack, tile, windows, [], _LAYERS),
    }
    seconds = interleaved(fast, turns, process_time)
    files: dict[str, Callable[[], object]] = {
        "all": fast["chipmill"],
        "some": lambda: file_per_chip(stack, tile, some),
    }
    waited = interleaved(files, 1 if quick else 3)
    rates = {name: len(windows) / seconds[name] for name in fast}
    rates["file per chip"] = len(some) / waited["some"]
    context: dict[str, object] = {
        "side_px": tile.window.width,
        "chips": len(windows),
        "chips_per_s": {name: round(rate, 1) for name, rate in rates.items()},
    }
    share = rates["chipmill"] / rates["limit"]
    gain = len(windows) / waited["all"] / rates["file per chip"]
    name = f"chips, stride {stride}"
    of_limit = ("", None) if quick else (f">= {OF_LIMIT}", share >= OF_LIMIT)
    of_files = ("", None) if quick or stride == CHIP_PX else (f">= {OF_FILES:g}", gain >= OF_FILES)
    return [
        Figure(name, rates["chipmill"], "chips/s", context=context),
        Figure(f"{name} / read once and copy", share, "x", *of_limit, context=context),
        Figure(
            f"{name}, with statistics / read once and copy",
            rates["with statistics"] / rates["limit"],
            "x",
            context=context,
        ),
        Figure(f"{name} / file per chip", gain, "x", *of_files, context=context),
    ]


def _windows(tile: Tile, stride: int) -> list[Window]:
    """Return the windows of a tile without neighbours, in lattice pixels, row by row."""
    left, top = tile.window.col_off, tile.window.row_off
    starts = range(0, tile.window.width - CHIP_PX + 1, stride)
    return [Window(left + col, top + row, CHIP_PX, CHIP_PX) for row in starts for col in starts]


def copy_windows(
    stack: Path, tile: Tile, windows: list[Window]
) -> tuple[list[NDArray[np.int16]], list[NDArray[np.uint8]]]:
    """Read each row of blocks once and copy the windows in it, as (band, y, x): the least that can be done."""
    images = [np.empty((DEPTH, *window.shape), np.int16) for window in windows]
    labels = [np.empty(window.shape, np.uint8) for window in windows]
    side = tile.window.width
    with rasterio.open(stack) as source:
        for row in range(0, side, _BLOCK_PX):
            strip = Window(tile.window.col_off, tile.window.row_off + row, side, min(_BLOCK_PX, side - row))
            part = FileWindow(0, row, side, strip.height)
            pixels = source.read(list(range(1, DEPTH + 1)), window=part)
            classes = source.read(DEPTH + 1, window=part)
            for window, image, label in zip(windows, images, labels, strict=True):
                common = strip.intersection(window)
                if common is None:
                    continue
                to, at = _slices(common, window), _slices(common, strip)
                image[:, *to] = pixels[:, *at]
                label[to] = classes[at]
    return images, labels


def _slices(part: Window, whole: Window) -> tuple[slice, slice]:
    row, col = part.row_off - whole.row_off, part.col_off - whole.col_off
    return slice(row, row + part.height), slice(col, col + part.width)


def file_per_chip(stack: Path, tile: Tile, windows: list[Window]) -> None:
    """Open, read and write for each chip: pixels and label as a pair of GeoTIFFs."""
    for number, window in enumerate(windows):
        col, row = window.col_off - tile.window.col_off, window.row_off - tile.window.row_off
        place = FileWindow(col, row, window.width, window.height)
        with rasterio.open(stack) as source:
            pixels = source.read(list(range(1, DEPTH + 1)), window=place)
            label = source.read([DEPTH + 1], window=place)
            where = {"crs": source.crs, "transform": source.window_transform(place)}
        for name, part in (("image", pixels), ("label", label)):
            profile: dict[str, Any] = {
                "driver": "GTiff",
                "count": len(part),
                "width": window.width,
                "height": window.height,
                "dtype": part.dtype.name,
            }
            with rasterio.open(stack.with_name(f"{name}-{number}.tif"), "w", **profile, **where) as target:
                target.write(part)


def _check_equal(stack: Path, tile: Tile, windows: list[Window]) -> None:
    """Refuse to compare what does not cut the same chips."""
    images, labels = copy_windows(stack, tile, windows)
    cut = cut_windows(stack, tile, windows, [], _LAYERS)
    for image, label, chip in zip(images, labels, cut.chips, strict=True):
        if not (np.array_equal(np.moveaxis(image, 0, -1), chip.pixels) and np.array_equal(label, chip.label)):
            raise RuntimeError("the limit cuts other pixels than we do: the comparison means nothing")
