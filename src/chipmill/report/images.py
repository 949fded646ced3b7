"""Arrays to pictures: stretch, colours, quicklooks read small from rasters, PNG as a data URI.

Arrays are `(y, x)` or `(band, y, x)`; masks are True where valid. A pixel without data is transparent, never black.
"""

import base64
import contextlib
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from chipmill.core.errors import AssetReadError
from chipmill.report.blocks import Picture

type Bytes = NDArray[np.uint8]
type Floats = NDArray[np.integer | np.floating]

PALETTE: Final = (
    "#4477aa", "#ddaa33", "#228833", "#cc3311", "#aa3377", "#66ccee",
    "#997700", "#44bb99", "#ee8866", "#77aadd", "#bbcc33", "#999999",
)  # fmt: skip
"""Colours of classes without one of their own (Paul Tol's schemes, told apart by colour-blind eyes)."""

SEQUENCE: Final = ("#2b2f55", "#2f5d8a", "#2f8f9d", "#62bd8f", "#c3e28c", "#fbf3a8")
"""Dark to light for fractions, as clear share or confidence."""


def rgb(color: str) -> tuple[int, int, int]:
    """Return the bytes of ``#rrggbb``; raises ValueError for anything else."""
    digits = color.removeprefix("#")
    if len(digits) != 6 or color == digits:
        raise ValueError(f"{color!r} is not a colour of the form #rrggbb")
    return int(digits[0:2], 16), int(digits[2:4], 16), int(digits[4:6], 16)


def class_colors(colors: Sequence[str | None]) -> tuple[str, ...]:
    """Return one colour per class: its own where it has one of the form #rrggbb, else the palette's in turn."""
    return tuple(
        color if color and _is_hex(color) else PALETTE[index % len(PALETTE)]
        for index, color in enumerate(colors)
    )


def _is_hex(color: str) -> bool:
    digits = color.removeprefix("#")
    return len(digits) == 6 and color != digits and all(sign in "0123456789abcdefABCDEF" for sign in digits)


def ramp_color(fraction: float, colors: Sequence[str] = SEQUENCE) -> str:
    """Return the colour of a fraction (0 to 1, clipped) on a piecewise linear ramp."""
    place = min(max(fraction, 0.0), 1.0) * (len(colors) - 1)
    low = min(int(place), len(colors) - 2)
    mixed = (
        round(a + (b - a) * (place - low))
        for a, b in zip(rgb(colors[low]), rgb(colors[low + 1]), strict=True)
    )
    return "#" + "".join(f"{value:02x}" for value in mixed)


def limits(bands: Floats, valid: NDArray[np.bool_], low: float = 2, high: float = 98) -> NDArray[np.float64]:
    """Return the ``(band, 2)`` percentiles of the valid pixels of ``(band, y, x)``; zeros and ones without any."""
    if not valid.any():
        return np.tile([0.0, 1.0], (len(bands), 1))
    return np.percentile(bands[:, valid].astype(np.float64), [low, high], axis=1).T


def stretch(bands: Floats, valid: NDArray[np.bool_], ranges: NDArray[np.float64]) -> Bytes:
    """Return `(y, x, 4)` RGBA of one or three bands, linear between the two values of ``ranges`` per band."""
    spread = np.maximum(ranges[:, 1] - ranges[:, 0], 1e-9)
    scaled = (bands.astype(np.float64) - ranges[:, :1, None]) / spread[:, None, None]
    bytes_ = np.rint(255 * np.clip(np.nan_to_num(scaled), 0, 1)).astype(np.uint8)
    color = np.moveaxis(bytes_ if len(bytes_) == 3 else np.repeat(bytes_[:1], 3, axis=0), 0, -1)
    return np.dstack([color, np.where(valid, 255, 0).astype(np.uint8)])


def paint_classes(classes: NDArray[np.uint8], colors: Sequence[str]) -> Bytes:
    """Return `(y, x, 4)` RGBA of class numbers; 255 and numbers without a colour are transparent."""
    lookup = np.zeros((256, 4), np.uint8)
    for number, color in enumerate(colors[:255]):
        lookup[number] = (*rgb(color), 255)
    return lookup[classes]


def paint_fractions(values: Floats, valid: NDArray[np.bool_], colors: Sequence[str] = SEQUENCE) -> Bytes:
    """Return `(y, x, 4)` RGBA of fractions (0 to 1) on a ramp; invalid pixels are transparent."""
    lookup = np.array([rgb(ramp_color(step / 255, colors)) for step in range(256)], np.uint8)
    index = np.rint(255 * np.clip(np.nan_to_num(values.astype(np.float64)), 0, 1)).astype(np.uint8)
    return np.dstack([lookup[index], np.where(valid, 255, 0).astype(np.uint8)])


def png_uri(rgba: Bytes) -> str:
    """Return a `(y, x, 4)` array as the data URI of a PNG."""
    from rasterio.errors import NotGeoreferencedWarning
    from rasterio.io import MemoryFile

    height, width = rgba.shape[:2]
    with warnings.catch_warnings(), MemoryFile() as memory:
        warnings.simplefilter(
            "ignore", NotGeoreferencedWarning
        )  # a picture on a page has no place on the ground
        with memory.open(driver="PNG", dtype="uint8", count=4, height=height, width=width) as target:
            target.write(np.moveaxis(rgba, -1, 0))
        memory.seek(0)
        return "data:image/png;base64," + base64.b64encode(memory.read()).decode()


def picture(rgba: Bytes, alt: str, caption: str = "", *, crisp: bool = True, fill_px: int = 0) -> Picture:
    """Return `(y, x, 4)` RGBA as a picture of the page.

    ``crisp`` keeps pixels square where it is enlarged; ``fill_px`` enlarges it in whole steps up to that width.
    """
    height, width = rgba.shape[:2]
    return Picture(png_uri(rgba), alt, caption, width, height, crisp, max(1, fill_px // width))


def small_shape(height: int, width: int, side_px: int) -> tuple[int, int]:
    """Return the shape that fits into a square of ``side_px``, never larger than the given one, never 0."""
    factor = max(height, width, side_px) / side_px
    return max(1, round(height / factor)), max(1, round(width / factor))


@dataclass(frozen=True, slots=True)
class Small:
    """Some bands of a raster, read small."""

    data: Floats
    """`(band, y, x)` in the type of the file."""
    valid: NDArray[np.bool_]
    """`(y, x)`, True where every band that was read has data."""


def trim(small: Small) -> Small:
    """Cut away the rows and columns at the edges that hold no data; a picture without any stays as it is."""
    rows, columns = np.flatnonzero(small.valid.any(axis=1)), np.flatnonzero(small.valid.any(axis=0))
    if not len(rows):
        return small
    y, x = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    return Small(small.data[:, y, x], small.valid[y, x])


def band_names(path: Path) -> tuple[str, ...]:
    """Return the band descriptions of a raster, ``band_<i>`` where there is none."""
    import rasterio

    with opened(path), rasterio.open(path) as source:
        return tuple(name or f"band_{index}" for index, name in enumerate(source.descriptions, 1))


def raster_shape(path: Path) -> tuple[int, int]:
    """Return (height, width) of a raster in pixels."""
    import rasterio

    with opened(path), rasterio.open(path) as source:
        return source.height, source.width


def read_small(path: Path, bands: Sequence[str], side_px: int, *, smooth: bool = False) -> Small:
    """Read the named bands of a raster into at most ``side_px`` on the longer side.

    ``smooth`` averages the valid pixels below each pixel of the picture, else the nearest one is taken, as classes
    need it. Raises AssetReadError where the file or one of the bands cannot be read.
    """
    import rasterio
    from rasterio.enums import Resampling

    with opened(path), rasterio.open(path) as source:
        names = [name or f"band_{index}" for index, name in enumerate(source.descriptions, 1)]
        missing = [band for band in bands if band not in names]
        if missing:
            raise AssetReadError(
                f"{path} has no band {missing[0]}, only {', '.join(names)}: make the report again"
            )
        indexes = [names.index(band) + 1 for band in bands]
        shape = small_shape(source.height, source.width, side_px)
        how = Resampling.average if smooth else Resampling.nearest
        data = source.read(indexes, out_shape=(len(indexes), *shape), resampling=how)
        fill = np.array(
            [np.nan if source.nodatavals[i - 1] is None else source.nodatavals[i - 1] for i in indexes]
        )
    return Small(data, np.all(data != fill[:, None, None], axis=0))


@contextlib.contextmanager
def opened(path: Path) -> Iterator[None]:
    """Say which file a read failed on."""
    from rasterio.errors import RasterioError

    try:
        yield
    except RasterioError as error:
        raise AssetReadError(
            f"{path} cannot be read for the report ({error}): run `chipmill verify`"
        ) from error


def color_bands(names: Sequence[str]) -> tuple[str, ...]:
    """Choose what to show of some band names: true colour, false colour, else the first three, or one.

    A prefix before the first underscore (the slot of a stack) does not matter.
    """
    by_name = {name.partition("_")[2] or name: name for name in names}
    for wanted in (("red", "green", "blue"), ("nir", "red", "green"), ("swir16", "nir", "red")):
        if all(name in by_name for name in wanted):
            return tuple(by_name[name] for name in wanted)
    return tuple(names[:3] if len(names) >= 3 else names[:1])
