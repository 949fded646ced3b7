"""Records for Earth Engine: the chips of a dataset, or a raster in patches with mixer.json, ready to upload.

The file to change for what is written for Earth Engine. A table of chips has no mixer, since chips need not fill a
rectangle; a raster (a map, a stack) has one, and its records run row by row.
"""

import contextlib
import dataclasses
import functools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from rasterio.io import DatasetReader
from rasterio.windows import Window

from chipmill.core.errors import BadInputError
from chipmill.dataset.classes import IGNORE
from chipmill.dataset.reader import Dataset
from chipmill.exchange.chips import Converted, flat_image
from chipmill.exchange.earthengine import FORMAT, LABEL
from chipmill.exchange.ee_records import ListKind, list_content, new_records, write_example
from chipmill.exchange.exporting import export_splits
from chipmill.exchange.mixer import SUFFIX, Mixer
from chipmill.exchange.origin import OriginChip, origin_of
from chipmill.exchange.rasters import open_source
from chipmill.exchange.sources import source_dataset
from chipmill.exchange.staging import new_folder

_GIB: Final = 1 << 30


@dataclasses.dataclass(frozen=True, slots=True)
class RasterOptions:
    """How a raster is cut into records."""

    patch_px: tuple[int, int] = (256, 256)
    """Width and height of a patch without margin."""
    margin_px: tuple[int, int] = (0, 0)
    """Columns and rows that each patch gets beyond that, half on each side, as kernelSize: for predictions elsewhere.
    Earth Engine itself takes patches without."""
    edges: Literal["pad", "drop"] = "pad"
    """What becomes of pixels at the right and lower edge that fill no patch: pad keeps them, drop leaves them out as
    Earth Engine does."""
    kind: ListKind = "float"
    """List that holds the values; an upload needs float."""
    compressed: bool = True
    fill: float = 0.0
    """Value of pixels beyond the raster, where it has no nodata value of its own."""
    file_bytes: int = _GIB
    """A file is closed when its records, not compressed, are larger."""
    asset: str | None = None
    """Asset that the upload shall make; writes the manifest of the upload."""
    bucket: str | None = None
    """gs://bucket/folder that the files will be copied to, for that manifest."""
    pyramiding: Literal["MEAN", "MODE", "SAMPLE"] = "MODE"
    """How Earth Engine makes overviews: MODE for classes, MEAN for probabilities."""

    def __post_init__(self) -> None:
        """Raise BadInputError for sizes that are none, and an asset without a bucket."""
        if min(self.patch_px) < 1 or min(self.margin_px) < 0 or self.file_bytes < 1:
            raise BadInputError(f"patch {self.patch_px}, margin {self.margin_px}: expected pixels")
        if self.asset is not None and not (self.bucket or "").startswith("gs://"):
            raise BadInputError(
                "asset: an upload reads from Cloud Storage; give the bucket, as gs://bucket/folder"
            )


def export_chips(dataset: Path, out: Path, kind: ListKind = "float", *, compressed: bool = True) -> Converted:
    """Write the chips of a dataset as records, ``out/<split>``: a list of values for each band, row by row, and the label.

    The label has 0..n-1 and 255 for ignore. Records are in the order of the dataset; chips.csv says where each lies.
    Raises BadInputError for a band that is called as the label.
    """
    opened = source_dataset(dataset)
    names = [band.name for band in opened.manifest.bands]
    if LABEL in names:
        raise BadInputError(
            f"{dataset} has a band called {LABEL}, and so is the label in a record: rename the band"
        )
    origin = origin_of(opened.manifest, FORMAT, list(range(len(opened.manifest.classes))), IGNORE)
    return export_splits(
        opened, out, origin, functools.partial(_write_chips, names=names, kind=kind, compressed=compressed)
    )


def _write_chips(
    chips: Dataset, folder: Path, *, names: Sequence[str], kind: ListKind, compressed: bool
) -> Iterator[OriginChip]:
    """Write records, and yield what chips.csv says of each."""
    with contextlib.closing(_Files(folder, "chips", _GIB, compressed=compressed)) as writer:
        for number, sample in enumerate(chips):
            bands = dict(zip(names, flat_image(sample), strict=True)) | {LABEL: sample.label}
            writer.write(bands, kind, f"chip {sample.chip_id}")
            yield OriginChip.of(str(number), sample)


class _Files:
    """Records over several files, ``<prefix>-00000.tfrecord.gz``; a new one where the last is full."""

    def __init__(self, folder: Path, prefix: str, most: int, *, compressed: bool) -> None:
        self.paths: list[Path] = []
        self._folder, self._prefix, self._most, self._compressed = folder, prefix, most, compressed
        self._open = contextlib.ExitStack()
        self._size = most
        self._stream: Any = None

    def write(self, bands: dict[str, NDArray[Any]], kind: ListKind, where: str) -> None:
        """Append a record of (y, x) arrays by band."""
        if self._size >= self._most:
            self._open.close()
            ending = ".tfrecord.gz" if self._compressed else ".tfrecord"
            path = self._folder / f"{self._prefix}-{len(self.paths):05d}{ending}"
            self._stream = self._open.enter_context(new_records(path, compressed=self._compressed))
            self.paths.append(path)
            self._size = 0
        lists = {name: list_content(pixels, kind, f"{where}, band {name}") for name, pixels in bands.items()}
        self._size += write_example(self._stream, lists)

    def close(self) -> None:
        """Close the last file."""
        self._open.close()


def export_raster(raster: Path, out: Path, options: RasterOptions) -> Converted:
    """Write a GeoTIFF, or a stack of a dataset, as patches with mixer.json, and the manifest of an upload where asked.

    Bands are called as in the raster, b1, b2, .. where it names none. Pixels beyond the raster hold its nodata value.
    Raises BadInputError for a raster without EPSG code, or smaller than a patch where the edges are dropped.
    """
    with open_source(raster) as file:
        mixer = _mixer(file, raster, options)
        names = [name or f"b{number}" for number, name in enumerate(file.descriptions, 1)]
        if len(set(names)) < len(names):
            raise BadInputError(f"{raster} has two bands of one name ({', '.join(names)}): rename them")
        prefix = raster.stem
        with new_folder(out) as staging:
            writer = _Files(staging, prefix, options.file_bytes, compressed=options.compressed)
            with contextlib.closing(writer):
                for number, pixels in _patches(file, mixer, options):
                    writer.write(
                        dict(zip(names, pixels, strict=True)), options.kind, f"patch {number} of {raster}"
                    )
            (staging / f"{prefix}-{SUFFIX}").write_text(json.dumps(mixer.facts(), indent=1) + "\n")
            if options.asset is not None:
                _write_upload(staging, [*writer.paths, staging / f"{prefix}-{SUFFIX}"], options)
        lost = file.width * file.height - min(file.width, mixer.size[0]) * min(file.height, mixer.size[1])
    notes = (f"{lost:,} pixels at the right and lower edge fill no patch and were left out",) if lost else ()
    return Converted(out, mixer.total, notes)


def _mixer(file: DatasetReader, raster: Path, options: RasterOptions) -> Mixer:
    code = file.crs.to_epsg() if file.crs else None
    if code is None:
        raise BadInputError(f"{raster} names no EPSG code for its CRS: reproject it to one that has a code")
    width, height = options.patch_px
    up = 1 if options.edges == "pad" else 0
    columns, rows = (
        (size + (step - 1) * up) // step for size, step in ((file.width, width), (file.height, height))
    )
    if not columns * rows:
        raise BadInputError(
            f"{raster} has {file.width} x {file.height} px, less than a patch of {width} x {height}: pad the edges"
        )
    return Mixer(f"EPSG:{code}", tuple(file.transform)[:6], (width, height), columns, columns * rows)


def _patches(file: DatasetReader, mixer: Mixer, options: RasterOptions) -> Iterator[tuple[int, NDArray[Any]]]:
    """Yield number and pixels (band, y, x) of each patch with its margin; a row of patches is read at once."""
    (width, height), (columns, rows) = mixer.patch, options.margin_px
    left, top = columns // 2, rows // 2
    kinds = np.result_type(*file.dtypes)
    empty = [options.fill if one is None else one for one in file.nodatavals]
    for row in range(mixer.rows):
        strip = np.empty((file.count, height + rows, mixer.size[0] + columns), kinds)
        for pixels, value in zip(strip, empty, strict=True):
            pixels[:] = value
        first = row * height - top
        begin, end = max(0, first), min(file.height, first + height + rows)
        window = Window(0, begin, min(file.width, mixer.size[0] + columns - left), end - begin)
        for band, pixels in enumerate(strip, 1):
            part = file.read(band, window=window)
            pixels[begin - first : end - first, left : left + part.shape[1]] = part
        for column in range(mixer.per_row):
            at = column * width
            yield row * mixer.per_row + column, strip[:, :, at : at + width + columns]


def _write_upload(folder: Path, files: Sequence[Path], options: RasterOptions) -> None:
    """Write the manifest of `earthengine upload image --manifest`: all files are one source."""
    bucket = str(options.bucket).rstrip("/")
    manifest = {
        "name": options.asset,
        "tilesets": [{"id": "ts", "sources": [{"uris": [f"{bucket}/{path.name}" for path in files]}]}],
        "pyramidingPolicy": options.pyramiding,
    }
    (folder / "upload.json").write_text(json.dumps(manifest, indent=1) + "\n")
