"""Earth Engine's patches back into one GeoTIFF: what an export, or a prediction on its patches, looks like as a raster.

The file to change for how patches are joined. Margins are cut off, so that each pixel is written once.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.windows import Window

from chipmill.core.errors import AssetMismatchError, BadInputError
from chipmill.core.tiff import new_tiff
from chipmill.exchange.chips import Converted
from chipmill.exchange.earthengine import Export, RecordOptions, band_names, find_exports, patch_arrays
from chipmill.exchange.ee_records import iter_examples
from chipmill.exchange.mixer import Mixer
from chipmill.exchange.sources import source_folder
from chipmill.exchange.staging import new_folder


def import_raster(source: Path, out: Path, bands: tuple[str, ...], records: RecordOptions) -> Converted:
    """Join the patches in ``source`` to ``out/<name of source>.tif``, LZW, in the type of the lists.

    ``bands`` are taken in their order, () = all by name. Lists of floats are written as float32, of integers as int32,
    of bytes as they are. Raises BadInputError without mixer.json, AssetMismatchError where patches are missing, too
    many, or hold values that the type of the first cannot, as integers of more than 32 bits.
    """
    folder = source_folder(source, "TFRecords")
    (export, *others) = find_exports(folder, "train")
    mixer = export.mixer
    if mixer is None or others:
        raise BadInputError(f"{source}: expected the records of one image and its mixer.json in one folder")
    names = band_names(export, bands, "", None)
    width, height = mixer.size
    count = 0
    with new_folder(out) as staging:
        kind = _kind(export, names, records)
        profile = {
            "driver": "GTiff", "width": width, "height": height, "count": len(names), "dtype": kind.name,
            "crs": _crs(mixer, source), "transform": mixer.patch_transform(0), "compress": "lzw", "interleave": "band",
            "blockysize": mixer.patch[1], "bigtiff": "if_safer",
        }  # fmt: skip
        size = len(names) * width * height * kind.itemsize
        with new_tiff(staging / f"{folder.name}.tif", profile, size) as target:
            target.descriptions = names
            strip = np.empty((len(names), mixer.patch[1], width), kind)
            for where, arrays in _patches(export, mixer, names, records):
                column, row = mixer.corner(count)
                for pixels, values in zip(strip, arrays, strict=True):
                    pixels[:, column : column + mixer.patch[0]] = _fitted(values, kind, where)
                count += 1
                if count % mixer.per_row == 0:
                    target.write(strip, window=Window(0, row, width, mixer.patch[1]))
    return Converted(out, count)


def _crs(mixer: Mixer, source: Path) -> CRS:
    try:
        return CRS.from_user_input(mixer.crs)
    except CRSError as error:
        raise BadInputError(
            f"{source}: its mixer names the CRS {mixer.crs[:80]!r}, which is none: mend it"
        ) from error


def _patches(
    export: Export, mixer: Mixer, names: Sequence[str], records: RecordOptions
) -> Iterator[tuple[str, list[NDArray[Any]]]]:
    """Yield (where, (y, x) of each band without margin) of each patch; raises where there are more or fewer."""
    count = 0
    for where, features in iter_examples(export.files):
        missing = [name for name in names if name not in features]
        if missing:
            raise AssetMismatchError(
                f"{where} has no {', '.join(missing)}: name the bands that all records have"
            )
        if count == mixer.total:
            raise AssetMismatchError(
                f"{where} is one more than the {mixer.total:,} patches that the mixer names"
            )
        yield where, patch_arrays(mixer, count, features, names, records, where)[0]
        count += 1
    if count != mixer.total:
        raise AssetMismatchError(
            f"{export.folder} holds {count:,} records, and its mixer names {mixer.total:,} patches: fetch all files of the "
            "export"
        )


def _kind(export: Export, names: Sequence[str], records: RecordOptions) -> np.dtype[Any]:
    """Return the type that holds all bands of the first record; integers are stored in 32 bits."""
    where, features = next(iter_examples(export.files))
    arrays, _ = patch_arrays(export.mixer, 0, features, names, records, where)
    kind = np.result_type(*arrays)
    return np.dtype(np.int32) if kind == np.int64 else np.dtype(kind.newbyteorder("="))


def _fitted(values: NDArray[Any], kind: np.dtype[Any], where: str) -> NDArray[Any]:
    with np.errstate(invalid="ignore"):  # NaN as an integer differs from NaN, and is refused below
        found = values.astype(kind)
    if np.result_type(values, kind) != kind and (found != values).any():
        raise AssetMismatchError(
            f"{where} holds values that {kind} cannot hold: export the image as another type"
        )
    return found
