"""The pictures of other programs: opened by one driver each, chosen by the file's first bytes; GeoTIFFs written.

The file to change for which picture formats are read. A VRT or any other format that names further files is never
opened, and files beside a picture (``.aux.xml``, ``.tfw``) are not read: what a picture means stands in itself.
"""

import contextlib
import dataclasses
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader

from chipmill.core.errors import AssetReadError, BadInputError
from chipmill.core.store import sha256_file
from chipmill.core.tiff import new_tiff
from chipmill.dataset.manifest import load_manifest
from chipmill.region.roots import check_place

_MAGIC: Final = (
    (b"II*\0", "GTiff"), (b"MM\0*", "GTiff"), (b"II+\0", "GTiff"), (b"MM\0+", "GTiff"),
    (b"\x89PNG\r\n\x1a\n", "PNG"), (b"\xff\xd8\xff", "JPEG"),
)  # fmt: skip
PICTURES: Final = (".tif", ".tiff", ".png", ".jpg", ".jpeg")
"""Suffixes of the pictures that are read."""
IDENTITY: Final = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
"""Transform of a picture without a place: (a, b, c, d, e, f)."""
_MOST_VALUES: Final = 1 << 28


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """All pixels of a picture and where they lie."""

    pixels: NDArray[Any]
    """(band, y, x)."""
    crs: str
    """``EPSG:<code>``, or "" where the file names none that has a code."""
    transform: tuple[float, float, float, float, float, float]
    """Affine (a, b, c, d, e, f) from pixel corners to CRS units; the identity where the file has none."""
    nodata: float | None
    names: tuple[str, ...]
    """Band descriptions, "" where a band has none."""


def driver_of(head: bytes, where: str) -> str:
    """Return the GDAL driver for a picture by its first bytes; raises AssetReadError for anything else."""
    for magic, driver in _MAGIC:
        if head.startswith(magic):
            return driver
    raise AssetReadError(f"{where} is neither GeoTIFF, PNG nor JPEG: convert it to GeoTIFF first")


def read_picture(path: Path) -> Picture:
    """Return the pixels of a picture file; raises AssetReadError that names it where it cannot be read."""
    return _read(path, driver_of(_head(path), str(path)), str(path))


def read_place(path: Path) -> tuple[str, tuple[float, ...], tuple[int, int]]:
    """Return (crs, transform, (rows, columns)) of a picture, as :class:`Picture` has them; no pixel is read."""
    with open_file(path) as file:
        return _crs(file), tuple(file.transform)[:6], (file.height, file.width)


def decode_picture(data: bytes, where: str) -> Picture:
    """Return the pixels of a picture in memory, as :func:`read_picture`; ``where`` names it in errors."""
    from rasterio.io import MemoryFile

    driver = driver_of(data[:16], where)
    with MemoryFile(data) as memory:
        return _read(memory.name, driver, where)


def _read(source: Path | str, driver: str, where: str) -> Picture:
    with _opened(source, driver, where) as file:
        if file.count * file.width * file.height > _MOST_VALUES:
            raise BadInputError(
                f"{where} has {file.count} bands of {file.width} x {file.height} pixels: a chip has at most "
                f"{_MOST_VALUES:,} values; cut it first"
            )
        return Picture(
            pixels=file.read(),
            crs=_crs(file),
            transform=tuple(file.transform)[:6],
            nodata=file.nodata,
            names=tuple(name or "" for name in file.descriptions),
        )


def _crs(file: DatasetReader) -> str:
    code = file.crs.to_epsg() if file.crs else None
    return f"EPSG:{code}" if code else ""


def open_file(
    path: Path, way_out: str = "mend or remove it"
) -> contextlib.AbstractContextManager[DatasetReader]:
    """Open a picture file of any size by its first bytes, to be read in the block.

    Raises AssetReadError, which ends with ``way_out``, for what cannot be opened or read in the block.
    """
    return _opened(path, driver_of(_head(path), str(path)), str(path), way_out)


@contextlib.contextmanager
def _opened(
    source: Path | str, driver: str, where: str, way_out: str = "mend or remove it"
) -> Iterator[DatasetReader]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            # no file beside it is listed: a sidecar could say other things of the pixels
            with (
                rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"),
                rasterio.open(source, driver=driver) as file,
            ):
                yield file
    except RasterioError as error:
        raise AssetReadError(f"{where} cannot be read ({error.__cause__ or error}): {way_out}") from error


def open_source(path: Path) -> contextlib.AbstractContextManager[DatasetReader]:
    """Open a raster of any size to be read in parts: a GeoTIFF, or a stack of a dataset of ours.

    A VRT names other files, so it must be one that dataset.json beside it names, unchanged. Raises what
    :func:`open_file` does, BadInputError for any other VRT, RegionFileError outside the roots.
    """
    check_place("raster", path.absolute())
    if path.suffix.lower() != ".vrt":
        return open_file(path)
    _check_stack(path)
    return _opened(path, "VRT", str(path))


def _check_stack(path: Path) -> None:
    for root in path.absolute().parents[:2]:
        if (root / "dataset.json").is_file():
            wanted = {root / file.path: file.sha256 for file in load_manifest(root).files}
            if wanted.get(path.absolute()) == sha256_file(path):
                return
    raise BadInputError(
        f"{path} is a VRT, which may name any file, and no dataset.json beside it names this one: give a GeoTIFF, or a "
        "stack of a dataset"
    )


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(16)
    except OSError as error:
        raise AssetReadError(
            f"{path} cannot be read ({error.strerror}): give a file that is there"
        ) from error


def write_picture(
    path: Path, picture: Picture, *, colors: Sequence[str] = (), scales: Sequence[float] = ()
) -> None:
    """Write a GeoTIFF (LZW, in strips) that is on the disk whole, or raise OSError.

    Args:
        path: in a folder of a conversion.
        picture: pixels ``(band, y, x)`` in the data type of the file, with their place.
        colors: ``#rrggbb`` of the values 0, 1, .. of a one-band class raster.
        scales: stored value x scale = physical value, one per band, for the file's own tags.
    """
    bands, rows, cols = picture.pixels.shape
    options = {
        "driver": "GTiff", "count": bands, "height": rows, "width": cols, "dtype": picture.pixels.dtype.name,
        "nodata": picture.nodata, "compress": "lzw", "predictor": 2 if picture.pixels.dtype.kind in "iu" else 1,
        "interleave": "band", "blockysize": rows,
    }  # fmt: skip
    if picture.crs:
        options |= {"crs": picture.crs, "transform": Affine(*picture.transform)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # chips of records without a place have none
        with new_tiff(path, options, picture.pixels.nbytes) as target:
            target.write(np.ascontiguousarray(picture.pixels))
            if any(picture.names):
                target.descriptions = picture.names
            if scales:
                target.scales = tuple(scales)
            if colors:
                from chipmill.dataset.rasters import rgb

                target.write_colormap(1, {code: (*rgb(color), 255) for code, color in enumerate(colors)})
