"""Single raster files on a lattice: what a header says, and how the room writes its own layers.

Labels and static layers are written here with one set of options; the XML over several files is in
:mod:`chipmill.dataset.vrt`.
"""

import contextlib
import dataclasses
import functools
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader
from rasterio.warp import Resampling, reproject, transform_bounds

from chipmill.core.errors import AssetMismatchError, AssetReadError, ChipmillError
from chipmill.core.store import commit_file
from chipmill.core.tiff import BLOCK_PX, new_tiff, open_tiff
from chipmill.region.grid import Lattice, Window


@dataclasses.dataclass(frozen=True, slots=True)
class Header:
    """What the header of a raster file says; no pixel is read for it."""

    path: str
    """A text, since a region has thousands of headers: a Path takes several times the memory."""
    crs: CRS
    transform: Affine
    width: int
    height: int
    dtypes: tuple[str, ...]
    nodata: tuple[float | None, ...]
    names: tuple[str, ...]
    """Band descriptions, "" where a band has none."""
    block: tuple[int, int]
    """Height and width of a block of the first band, in pixels."""

    def band(self, name: str) -> int:
        """Return the number (from 1) of the band called ``name``; raises AssetMismatchError where there is none."""
        if name not in self.names:
            has = ", ".join(self.names)
            raise AssetMismatchError(
                f"{self.path} has no band {name!r} but {has}: remove the file and run again"
            )
        return self.names.index(name) + 1


@functools.lru_cache(maxsize=256)
def crs_of(epsg: int) -> CRS:
    """Return the CRS of an EPSG code; kept, since building one costs more than reading a header."""
    return CRS.from_epsg(epsg)


def read_header(path: Path) -> Header:
    """Open a GeoTIFF and return its header; raises AssetReadError where it is missing or broken."""
    with told_reads(path), open_tiff(os.fspath(path)) as dataset:
        return Header(
            path=os.fspath(path),
            crs=_shared(dataset.crs),
            transform=dataset.transform,
            width=dataset.width,
            height=dataset.height,
            dtypes=_shared(tuple(dataset.dtypes)),
            nodata=_shared(tuple(dataset.nodatavals)),
            names=_shared(tuple(name or "" for name in dataset.descriptions)),
            block=dataset.block_shapes[0],
        )


@functools.lru_cache(maxsize=1024)
def _shared[T](value: T) -> T:
    """Return the first of equal values: thousands of headers of a region differ in their place alone."""
    return value


@contextlib.contextmanager
def open_raster(source: Path | str, driver: str = "GTiff") -> Iterator[DatasetReader]:
    """Open a raster with one driver only and read from it in the block.

    ``source`` is a path, or the XML of a VRT. Raises AssetReadError for whatever GDAL cannot open or read: a pixel
    that was not read is never data.
    """
    with told_reads(source), rasterio.open(source, driver=driver) as dataset:
        yield dataset


@contextlib.contextmanager
def told_reads(source: Path | str) -> Iterator[None]:
    """Turn whatever GDAL cannot open or read in the block into AssetReadError; ``source`` is as for :func:`open_raster`."""
    try:
        yield
    except ChipmillError:
        raise  # it says already what is wrong; a full disk is an OSError too
    except (RasterioError, OSError) as error:
        name = "a mosaic in memory" if isinstance(source, str) and source.startswith("<") else source
        reason = error.__cause__ or error
        raise AssetReadError(
            f"{name} cannot be read ({reason}): run the same command again, it remakes what is missing"
        ) from error


def beyond(dataset: DatasetReader, lattice: Lattice, window: Window) -> NDArray[np.bool_]:
    """Return ``(y, x)``, True where the centre of a pixel of a window lies outside a raster in any CRS.

    For warps by average and by mode: GDAL lets them give the first row and column outside a raster a value.
    """
    own = crs_of(lattice.epsg)
    left, bottom, right, top = transform_bounds(own, dataset.crs, *lattice.bounds(window))
    edges = dataset.bounds
    if edges.left <= left and right <= edges.right and edges.bottom <= bottom and top <= edges.top:
        return np.zeros(window.shape, dtype=np.bool_)
    inside = np.zeros(window.shape, dtype=np.uint8)
    reproject(
        np.ones((1, 1), dtype=np.uint8),  # the whole raster as one pixel
        inside,
        src_transform=dataset.transform @ Affine.scale(dataset.width, dataset.height),
        src_crs=dataset.crs,
        dst_transform=lattice.transform(window),
        dst_crs=own,
        dst_nodata=0,
        resampling=Resampling.nearest,
        tolerance=0.0,
    )
    outside: NDArray[np.bool_] = np.equal(inside, 0)
    return outside


def write_layer(
    final: Path,
    fingerprint: str,
    pixels: NDArray[Any],
    place: tuple[Lattice, Window],
    *,
    nodata: float,
    names: Sequence[str],
    colors: Sequence[str] = (),
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Commit ``pixels`` ``(band, y, x)`` as a tiled GeoTIFF, ZSTD level 1, on a window of a lattice.

    Args:
        final: where it goes; the sidecar gets ``fingerprint`` and ``extra``.
        fingerprint: of all that the content depends on.
        pixels: array in the data type of the file.
        place: lattice and window, whose shape is that of ``pixels``.
        nodata: value of "no data" in every band.
        names: one description per band.
        colors: ``#rrggbb`` of the values 0, 1, .. of a one-band class raster.
        extra: plain values for the sidecar.
    """
    lattice, window = place
    side = min(BLOCK_PX, -(-max(window.shape) // 16) * 16)
    options = {
        "driver": "GTiff", "width": window.width, "height": window.height, "count": len(pixels),
        "dtype": pixels.dtype.name, "nodata": nodata, "crs": crs_of(lattice.epsg),
        "transform": lattice.transform(window), "tiled": True, "blockxsize": side, "blockysize": side,
        "compress": "zstd", "zstd_level": 1, "predictor": 1 if colors else 2, "interleave": "band",
    }  # fmt: skip
    with (
        commit_file(final, fingerprint, extra=extra) as temp,
        new_tiff(temp, options, pixels.nbytes) as target,
    ):
        target.write(pixels)
        target.descriptions = tuple(names)
        if colors:
            target.write_colormap(1, {value: (*rgb(color), 255) for value, color in enumerate(colors)})


def rgb(color: str) -> tuple[int, int, int]:
    """Return the three bytes of ``#rrggbb``."""
    red, green, blue = bytes.fromhex(color.removeprefix("#"))
    return red, green, blue


def saturate(values: NDArray[np.floating[Any]], dtype: str, nodata: float) -> tuple[NDArray[Any], int]:
    """Round half to even into an integer type; return the array and how many values did not fit.

    NaN becomes ``nodata``; a value that lands on ``nodata`` is moved to its neighbour and counted, for else it would
    vanish.
    """
    info = np.iinfo(dtype)
    missing = np.isnan(values)
    rounded = np.rint(values)
    clipped = np.clip(rounded, info.min, info.max)
    clipped[clipped == nodata] += 1 if nodata < info.max else -1
    lost = int(np.count_nonzero((clipped != rounded) & ~missing))
    clipped[missing] = nodata
    return clipped.astype(dtype), lost
