"""A tree of GeoTIFFs in another pixel type: the same folders and names, each value scaled, rounded, checked.

The file to change for how values are fitted into a type. A value that does not fit is moved to the end of the range
and counted, never wrapped; what is nodata or NaN in the source is nodata in the result.
"""

import dataclasses
import fnmatch
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from rasterio.io import DatasetReader, DatasetWriter
from rasterio.windows import Window

from chipmill.core.errors import BadInputError
from chipmill.core.store import write_json
from chipmill.core.tiff import new_tiff
from chipmill.dataset.rasters import saturate
from chipmill.exchange.chips import Converted
from chipmill.exchange.rasters import open_file
from chipmill.exchange.sources import files_below, source_folder
from chipmill.exchange.staging import new_folder

OutType = Literal["uint8", "int16", "uint16", "int32", "float32"]
_RASTERS: Final = (".tif", ".tiff")
_ROWS: Final = 512
REPORT: Final = "converted.json"


@dataclasses.dataclass(frozen=True, slots=True)
class DtypeOptions:
    """How the rasters of a tree are converted."""

    dtype: OutType
    """Of the pixels that are written."""
    scale: float = 1.0
    """Stored value x scale = physical value, in the result; that of the source stands in its own tags."""
    nodata: float | None = None
    """In the result; None = the lowest value of a signed type, the highest of an unsigned one, NaN of a float."""
    bands: tuple[int, ...] = ()
    """Numbers (from 1) of the bands to take, in the order of the result; () = all."""
    suffix: str = ""
    """Put between name and ending of each file."""
    exclude: tuple[str, ...] = ()
    """Patterns of relative names that are left out: ``*`` and ``?`` within a name, ``**`` over folders; one without a
    slash is compared with every folder and file name."""

    def __post_init__(self) -> None:
        """Raise BadInputError for options that make no sense."""
        if not 0 < self.scale < float("inf"):
            raise BadInputError(f"scale: expected a number over 0, got {self.scale:g}")
        if any(band < 1 for band in self.bands):
            raise BadInputError(f"bands: they are counted from 1, got {', '.join(map(str, self.bands))}")
        if set(self.suffix) & set("/\\\0"):
            raise BadInputError(f"suffix: expected a part of a file name, got {self.suffix!r}")
        if self.dtype != "float32" and self.nodata is not None:
            info = np.iinfo(self.dtype)
            if not (self.nodata.is_integer() and info.min <= self.nodata <= info.max):
                raise BadInputError(f"nodata: {self.nodata:g} is no value of {self.dtype}")

    @property
    def empty(self) -> float:
        """The nodata value of the result."""
        if self.nodata is not None:
            return self.nodata
        if self.dtype == "float32":
            return float("nan")
        info = np.iinfo(self.dtype)
        return float(info.min or info.max)


@dataclasses.dataclass(frozen=True, slots=True)
class ConvertedRaster:
    """One raster of the result."""

    path: str
    """Relative to the tree."""
    source: str
    saturated_px: tuple[int, ...]
    """Pixels of each band that did not fit."""


def convert_dtype(tree: Path, out: Path, options: DtypeOptions) -> Converted:
    """Write every GeoTIFF below ``tree`` in another pixel type below ``out``, which has the same folders.

    ``out/converted.json`` lists the files, their sources and how many pixels of each band did not fit. Physical values
    are kept: source value x the file's scale + offset = stored value x ``options.scale``. Files that are no GeoTIFF by
    their ending, and those that are excluded, are told and left out.

    Raises BadInputError where there is nothing to convert, or a file has fewer bands; AssetReadError for a file that
    cannot be read.
    """
    folder = source_folder(tree, "GeoTIFFs")
    every = [path.relative_to(folder) for path in files_below(folder)]
    kept = [path for path in every if not is_excluded(path.as_posix(), options.exclude)]
    rasters = [path for path in kept if path.suffix.lower() in _RASTERS]
    if not rasters:
        raise BadInputError(f"{tree} holds no GeoTIFF that is not excluded: expected {' or '.join(_RASTERS)}")
    done: list[ConvertedRaster] = []
    with new_folder(out) as staging:
        for name in rasters:
            target = name.with_name(f"{name.stem}{options.suffix}{name.suffix}")
            (staging / target).parent.mkdir(parents=True, exist_ok=True)
            lost = _convert(folder / name, staging / target, options)
            done.append(ConvertedRaster(target.as_posix(), name.as_posix(), lost))
        write_json(staging / REPORT, {"options": options, "files": done})
    return Converted(out, len(done), tuple(_notes(done, len(every) - len(kept), len(kept) - len(rasters))))


def _notes(done: Sequence[ConvertedRaster], excluded: int, others: int) -> Iterator[str]:
    lost = [(sum(one.saturated_px), one.path) for one in done if any(one.saturated_px)]
    if lost:
        most, path = max(lost)
        total = sum(count for count, _ in lost)
        yield (
            f"{total:,} pixels of {len(lost)} files did not fit and stand at the end of the range (most: {most:,} in "
            f"{path}): another scale or type would keep them"
        )
    if excluded:
        yield f"{excluded} files were excluded by their names"
    if others:
        yield f"{others} files are no GeoTIFF by their ending and were left out"


def is_excluded(name: str, patterns: Sequence[str]) -> bool:
    """Tell whether one of the patterns matches a relative name with forward slashes."""
    parts = name.split("/")
    return any(
        _matches(parts, pattern.split("/"))
        if "/" in pattern
        else any(fnmatch.fnmatchcase(part, pattern) for part in parts)
        for pattern in patterns
    )


def _matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Compare folder by folder; ``**`` stands for any number of them. One table, so no pattern takes long."""
    reached = {0}
    for wanted in pattern:
        if wanted == "**":
            reached = set(range(min(reached, default=0), len(parts) + 1)) if reached else set()
        else:
            reached = {at + 1 for at in reached if at < len(parts) and fnmatch.fnmatchcase(parts[at], wanted)}
    return len(parts) in reached


def _convert(source: Path, target: Path, options: DtypeOptions) -> tuple[int, ...]:
    with open_file(source, "mend or exclude it") as file:
        bands = options.bands or tuple(file.indexes)
        if max(bands) > file.count:
            raise BadInputError(f"{source} has {file.count} bands, and band {max(bands)} is asked for")
        size = len(bands) * file.width * file.height * np.dtype(options.dtype).itemsize
        with new_tiff(target, _profile(file, bands, options), size) as written:
            lost = tuple(
                _copy_band(file, band, written, number, options) for number, band in enumerate(bands, 1)
            )
            written.descriptions = tuple(file.descriptions[band - 1] or "" for band in bands)
            written.scales = (options.scale,) * len(bands)
    return lost


def _profile(file: DatasetReader, bands: Sequence[int], options: DtypeOptions) -> dict[str, Any]:
    return {
        "driver": "GTiff", "width": file.width, "height": file.height, "count": len(bands), "dtype": options.dtype,
        "nodata": options.empty, "crs": file.crs, "transform": file.transform, "compress": "lzw", "tiled": True,
        "blockxsize": 256, "blockysize": 256, "interleave": "band", "bigtiff": "if_safer",
        "predictor": 3 if options.dtype == "float32" else 2,
    }  # fmt: skip


def _copy_band(
    file: DatasetReader, band: int, target: DatasetWriter, number: int, options: DtypeOptions
) -> int:
    lost = 0
    gain, shift = file.scales[band - 1] / options.scale, file.offsets[band - 1] / options.scale
    for row in range(0, file.height, _ROWS):
        part = Window(0, row, file.width, min(_ROWS, file.height - row))
        values = file.read(band, window=part).astype(np.float64)
        values[file.read_masks(band, window=part) == 0] = np.nan
        pixels, over = fitted(values * gain + shift, options)
        target.write(pixels, number, window=part)
        lost += over
    return lost


def fitted(values: NDArray[np.float64], options: DtypeOptions) -> tuple[NDArray[Any], int]:
    """Return values in the type of the result, and how many did not fit; NaN becomes nodata.

    Integers are rounded half to even. A value beyond the range of float32 counts as one that did not fit, too, and so
    does one that is the nodata value: it is moved to its neighbour, for else it would vanish.
    """
    if options.dtype != "float32":
        return saturate(values, options.dtype, options.empty)
    info = np.finfo(np.float32)
    clipped = np.clip(values, info.min, info.max)
    lost = int(np.count_nonzero(clipped != values) - np.count_nonzero(np.isnan(values)))
    pixels, empty = clipped.astype(np.float32), np.float32(options.empty)
    taken = pixels == empty
    pixels[taken] = np.nextafter(empty, np.float32(0.0 if empty > 0.0 else np.inf))
    pixels[np.isnan(values)] = empty
    return pixels, lost + int(np.count_nonzero(taken))
