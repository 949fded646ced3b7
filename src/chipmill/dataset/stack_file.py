"""A stack as it lies on the disk: which pixels of which file it shows where, and how they are read.

GDAL reads our VRTs as well, for whoever opens them elsewhere. Here the files behind one are opened themselves, by the
driver that decodes them fastest, and their pixels go straight into the array that is wanted. Only what
:mod:`chipmill.dataset.vrt` writes is understood.
"""

import contextlib
import dataclasses
import io
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Final, NamedTuple
from xml.etree import ElementTree as ET

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.errors import RasterioIOError
from rasterio.io import DatasetReader

from chipmill.core.tiff import open_tiff, read_blocks
from chipmill.dataset.vrt import GDAL_TYPES
from chipmill.region.grid import Window

_OPEN: Final = 16
"""Files that are open at once; each holds memory for a block, and a strip of a stack wants each file once."""
_PARTS: Final = frozenset({"Description", "NoDataValue", "ColorInterp", "ColorTable", "SimpleSource"})
"""Of a band, as our VRTs have them."""
_TYPES: Final = {told: dtype for dtype, told in GDAL_TYPES.items()}


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class _Band:
    name: str
    dtype: str
    nodata: float
    sources: NDArray[np.int64]
    """``(source, 8)``: file, band of the file, column and row in the file, and what it covers of the stack: column, row,
    width, height."""


class _Part(NamedTuple):
    """A part of a file that is wanted."""

    turn: int
    """Of its source among those of its band: a later one lies on top."""
    file: int
    at: tuple[int, int]
    """Column and row in the file."""
    covers: tuple[int, int, int, int]
    """Column, row, width and height in pixels of the stack."""
    target: int
    """Index of the band in the array that is filled."""
    number: int
    """Of the band in the file."""


class StackFile:
    """A stack that is open; no file behind it is opened before it is read. Not for two threads at once."""

    def __init__(self, source: Path | str) -> None:
        """Open a VRT of ours by its path, or by its XML.

        Raises RasterioIOError where it is none, OSError where it cannot be read.
        """
        text = source if isinstance(source, str) and source.startswith("<") else None
        self.name = "a mosaic in memory" if text else str(source)
        folder = None if text else Path(source).parent
        self._files: OrderedDict[int, DatasetReader] = OrderedDict()
        bands: list[_Band] = []
        known: dict[str, int] = {}
        head: dict[str, str] = {}
        try:
            with io.BytesIO(text.encode()) if text else Path(source).open("rb") as stream:
                for _, element in ET.iterparse(stream):  # noqa: S314 - of our own making
                    if element.tag == "VRTRasterBand":
                        bands.append(_band(element, folder, known))
                        element.clear()  # the bands of a whole region are long
                    elif element.tag in ("VRTDataset", "GeoTransform"):
                        head |= element.attrib | {element.tag: element.text or ""}
            self.width, self.height = int(head["rasterXSize"]), int(head["rasterYSize"])
            self.transform = Affine.from_gdal(*map(float, head["GeoTransform"].split(",")))
        except (ET.ParseError, KeyError, ValueError, TypeError) as error:
            raise RasterioIOError(f"it is no VRT of ours: {type(error).__name__} {error}") from None
        self._names, self._bands = list(known), bands
        self.dtypes = tuple(band.dtype for band in bands)
        """Names of NumPy's types, one per band."""
        self.descriptions = tuple(band.name for band in bands)

    def close(self) -> None:
        """Close the files that were read."""
        with contextlib.ExitStack() as closing:
            for file in self._files.values():
                closing.callback(file.close)
        self._files.clear()

    def read(self, numbers: Sequence[int], window: Window, out: NDArray[Any]) -> None:
        """Fill ``out`` (band, y, x) with a window, in pixels of the stack, of the bands ``numbers`` (from 1).

        ``out`` is of a type that holds those of the bands; what no file covers is the band's nodata value. Raises
        rasterio's errors where a file is missing or broken.
        """
        wanted = [self._bands[number - 1] for number in numbers]
        parts = [part for target, band in enumerate(wanted) for part in _parts(band, window, target)]
        covered = {part.target for part in parts if part.covers == _box(window)}
        for number, band in enumerate(wanted):
            if number not in covered:
                out[number] = band.nodata
        for place, group in groupby(sorted(parts), key=lambda part: part[:4]):
            _, file, at, (left, top, width, height) = place
            column, row = left - window.col_off, top - window.row_off
            for run in _runs(list(group)):
                target = out[run[0].target : run[-1].target + 1, row : row + height, column : column + width]
                read_blocks(self._file(file), [one.number for one in run], (*at, width, height), target)

    def _file(self, number: int) -> DatasetReader:
        if number not in self._files:
            self._files[number] = open_tiff(self._names[number])
        self._files.move_to_end(number)
        if len(self._files) > _OPEN:
            self._files.popitem(last=False)[1].close()
        return self._files[number]


def _parts(band: _Band, window: Window, target: int) -> Iterator[_Part]:
    """Yield the parts of a band that lie in a window."""
    left, top, width, height = band.sources[:, 4:].T
    inside = (left < window.col_end) & (top < window.row_end)
    inside &= (left + width > window.col_off) & (top + height > window.row_off)
    for turn in np.flatnonzero(inside).tolist():
        file, number, column, row, *place = band.sources[turn].tolist()
        covers = Window(*place)
        common = covers.intersection(window)
        if common is not None:
            at = (column + common.col_off - covers.col_off, row + common.row_off - covers.row_off)
            yield _Part(turn, file, at, _box(common), target, number)


def _box(window: Window) -> tuple[int, int, int, int]:
    return window.col_off, window.row_off, window.width, window.height


def _runs(parts: Sequence[_Part]) -> Iterator[Sequence[_Part]]:
    """Cut parts of one place in one file where the bands of the array are not neighbours."""
    begin = 0
    for end in range(1, len(parts) + 1):
        if end == len(parts) or parts[end].target != parts[end - 1].target + 1:
            yield parts[begin:end]
            begin = end


def _band(element: ET.Element, folder: Path | None, known: dict[str, int]) -> _Band:
    """Return a band; ``known`` numbers the names of files and learns new ones."""
    foreign = sorted({part.tag for part in element} - _PARTS)
    if foreign:
        raise ValueError(f"a band with {', '.join(foreign)}")
    sources = [_source(one, folder, known) for one in element.iterfind("SimpleSource")]
    return _Band(
        element.findtext("Description") or "",
        _TYPES[element.attrib["dataType"]],
        float(_text(element, "NoDataValue")),
        np.array(sources, np.int64).reshape(-1, 8),
    )


def _source(element: ET.Element, folder: Path | None, known: dict[str, int]) -> tuple[int, ...]:
    named, source, target = (element.find(name) for name in ("SourceFilename", "SrcRect", "DstRect"))
    if named is None or source is None or target is None:
        raise ValueError("a source has no SourceFilename, SrcRect or DstRect")
    beside = folder is not None and named.attrib["relativeToVRT"] == "1"
    file = str(folder / str(named.text)) if folder is not None and beside else str(named.text)
    if any(source.attrib[name] != target.attrib[name] for name in ("xSize", "ySize")):
        raise ValueError("a source that is shown in another size")
    at = [int(source.attrib[name]) for name in ("xOff", "yOff")]
    covers = [int(target.attrib[name]) for name in ("xOff", "yOff", "xSize", "ySize")]
    return (known.setdefault(file, len(known)), int(_text(element, "SourceBand")), *at, *covers)


def _text(element: ET.Element, name: str) -> str:
    text = element.findtext(name)
    if text is None:
        raise ValueError(f"{element.tag} has no {name}")
    return text
