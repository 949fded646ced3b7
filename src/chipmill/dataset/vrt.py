"""Our own VRT writer: mosaics and stacks as small XML files, without GDAL's Python bindings.

The file to change for what a VRT looks like. It uses only elements that GDAL 3.6 knows and plain sources: GDAL
takes a source of another CRS, type or nodata into a VRT without a word, so all of that is checked here first.
"""

import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple
from xml.sax.saxutils import escape

from chipmill.core.errors import AssetMismatchError, GridError
from chipmill.core.paths import relative
from chipmill.core.store import atomic_path
from chipmill.dataset.rasters import Header, crs_of, rgb
from chipmill.region.grid import Lattice, Window

GDAL_TYPES: Final = {
    "uint8": "Byte", "uint16": "UInt16", "int16": "Int16", "uint32": "UInt32", "int32": "Int32",
    "float32": "Float32", "float64": "Float64",
}  # fmt: skip
"""GDAL's names of NumPy's types."""


@dataclasses.dataclass(frozen=True, slots=True)
class Source:
    """One band (counted from 1) of one file."""

    header: Header
    band: int


@dataclasses.dataclass(frozen=True, slots=True)
class Band:
    """One band of a VRT; later sources lie on top, what no source covers is nodata."""

    name: str
    dtype: str
    nodata: float
    sources: tuple[Source, ...]
    colors: tuple[str, ...] = ()
    """``#rrggbb`` of the values 0, 1, .. for a class raster."""


def vrt_xml(
    lattice: Lattice,
    window: Window,
    bands: Iterable[Band],
    folder: Path | None = None,
    root: Path | None = None,
) -> str:
    """Return the XML of a VRT over ``bands``, the same text for the same arguments.

    Args:
        lattice: the pixel lattice that all sources must lie on.
        window: what the VRT shows of it; sources are cut to it, and one that lies outside is left out.
        bands: in their order; each source must have the band's type and nodata.
        folder: where the file will lie; paths become relative to it. None keeps absolute paths, for a VRT in memory.
        root: no source may lie outside it, so that the tree below it can be moved; None checks nothing.

    Raises:
        AssetMismatchError: a source is in another CRS, on another grid, of another type or nodata, or outside ``root``.
    """
    return "".join(f"{line}\n" for line in _lines(lattice, window, bands, folder, root))


def write_vrt(path: Path, lattice: Lattice, window: Window, bands: Iterable[Band], root: Path) -> None:
    """Write a VRT atomically, line by line: one over a whole region has more lines than memory should hold.

    ``bands`` are taken one by one; the other arguments and errors are those of :func:`vrt_xml`.
    """
    with atomic_path(path) as temp, temp.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(f"{line}\n" for line in _lines(lattice, window, bands, path.parent, root))


def _lines(
    lattice: Lattice, window: Window, bands: Iterable[Band], folder: Path | None, root: Path | None
) -> Iterator[str]:
    transform = ", ".join(repr(float(value)) for value in lattice.transform(window).to_gdal())
    places: dict[str, _Place] = {}
    yield f'<VRTDataset rasterXSize="{window.width}" rasterYSize="{window.height}">'
    yield f"  <SRS>{lattice.crs}</SRS>"
    yield f"  <GeoTransform>{transform}</GeoTransform>"
    for number, band in enumerate(bands, start=1):
        yield f'  <VRTRasterBand dataType="{GDAL_TYPES[band.dtype]}" band="{number}">'
        yield f"    <Description>{escape(band.name)}</Description>"
        yield f"    <NoDataValue>{band.nodata:.17g}</NoDataValue>"
        yield f"    <ColorInterp>{'Palette' if band.colors else 'Gray'}</ColorInterp>"
        yield from _color_lines(band.colors)
        for source in band.sources:
            _check_source(lattice, band, source)
            file = source.header.path
            if file not in places:
                places[file] = _placed(lattice, window, band, source, _filename(Path(file), folder, root))
            yield from _source_lines(band, source, places[file])
        yield "  </VRTRasterBand>"
    yield "</VRTDataset>"


def _color_lines(colors: tuple[str, ...]) -> list[str]:
    entries = [rgb(color) for color in colors]
    lines = [f'      <Entry c1="{red}" c2="{green}" c3="{blue}" c4="255"/>' for red, green, blue in entries]
    return ["    <ColorTable>", *lines, "    </ColorTable>"] if lines else []


def _check_source(lattice: Lattice, band: Band, source: Source) -> None:
    header, index = source.header, source.band - 1
    facts = (
        ("the CRS", lattice.crs, header.crs, header.crs == crs_of(lattice.epsg)),
        ("the data type", band.dtype, header.dtypes[index], header.dtypes[index] == band.dtype),
        ("the nodata value", band.nodata, header.nodata[index], header.nodata[index] == band.nodata),
    )
    for what, wanted, got, good in facts:
        if not good:
            raise AssetMismatchError(
                f"band {source.band} of {header.path} cannot be a source of {band.name!r}: expected {what} "
                f"{wanted}, got {got}: remove the file and run again"
            )


class _Place(NamedTuple):
    """Where a file lies in a VRT: the same for all its bands."""

    filename: str
    rectangles: tuple[str, ...]
    """Which part of the file is shown, and where; none where the file lies outside."""


def _placed(lattice: Lattice, window: Window, band: Band, source: Source, filename: str) -> _Place:
    header = source.header
    try:
        own = lattice.aligned_window(header.transform, header.width, header.height, header.path)
    except GridError as error:
        raise AssetMismatchError(
            f"band {source.band} cannot be a source of {band.name!r}: {error}"
        ) from error
    common = own.intersection(window)
    if common is None:
        return _Place(filename, ())
    size = f'xSize="{common.width}" ySize="{common.height}"'
    shown = f'<SrcRect xOff="{common.col_off - own.col_off}" yOff="{common.row_off - own.row_off}" {size}/>'
    at = (
        f'<DstRect xOff="{common.col_off - window.col_off}" yOff="{common.row_off - window.row_off}" {size}/>'
    )
    return _Place(filename, (shown, at))


def _source_lines(band: Band, source: Source, place: _Place) -> list[str]:
    if not place.rectangles:
        return []
    header = source.header
    rows, cols = header.block
    # with the source's properties at hand GDAL opens a source when it is read, not all of them with the VRT
    properties = (
        f'RasterXSize="{header.width}" RasterYSize="{header.height}" DataType="{GDAL_TYPES[band.dtype]}" '
        f'BlockXSize="{cols}" BlockYSize="{rows}"'
    )
    return [
        "    <SimpleSource>",
        f"      {place.filename}",
        f"      <SourceBand>{source.band}</SourceBand>",
        f"      <SourceProperties {properties}/>",
        *(f"      {rectangle}" for rectangle in place.rectangles),
        "    </SimpleSource>",
    ]


def _filename(path: Path, folder: Path | None, root: Path | None) -> str:
    if root is not None and not path.is_relative_to(root):
        raise AssetMismatchError(
            f"{path} lies outside {root}: a mosaic must name files of its own region only"
        )
    text = str(path) if folder is None else relative(path, folder)
    return f'<SourceFilename relativeToVRT="{0 if folder is None else 1}">{escape(text)}</SourceFilename>'
