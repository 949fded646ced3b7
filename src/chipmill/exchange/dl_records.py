"""TFRecords of dl_image_segmentation into a dataset; the file to change for what its records hold.

Files are called ``<name>-00002-of-00010``, with or without an ending. A record has ``image/image_data`` and
``target/target_data``, both bytes (arrays of uint8, or encoded pictures) or both lists of floats, their heights and
widths, and ``identifier``: the key of a tile, or ``file|geotransform|crs`` with GDAL's six numbers.
"""

import collections
import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from chipmill.core.errors import AssetMismatchError, BadInputError, DamagedFileError
from chipmill.dataset.examples import Feature
from chipmill.dataset.records import Sample, record_key
from chipmill.exchange.chips import Converted, ImportOptions, LabelCodes, usable, usable_all
from chipmill.exchange.ee_records import iter_examples
from chipmill.exchange.ee_values import Lost, Storing, lost_notes
from chipmill.exchange.imported_facts import ImportedBand, ImportedChip
from chipmill.exchange.importing import Meaning, commit_import
from chipmill.exchange.rasters import IDENTITY, decode_picture
from chipmill.exchange.sources import files_below, first_five, hashes, source_folder

FORMAT: Final = "dl-records"
UNKNOWN: Final = 255
"""Value of a target that means "don't know"."""
_FILE: Final = re.compile(r"(?P<name>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(\.tfrecords?)?")
_MOST_PX: Final = 1 << 28

type Place = tuple[str, tuple[float, float, float, float, float, float]]


def import_dl_records(source: Path, out: Path, options: ImportOptions, storing: Storing) -> Converted:
    """Make a dataset of the records in a folder, in the order of the files; all of them belong to ``options.split``.

    Images of bytes keep their type; lists of floats are stored as ``storing`` says (scales by band name). Targets are
    mapped by ``options.classes``, 255 is ignored. Raises BadInputError where a shard is missing, AssetMismatchError,
    LabelError or DamagedFileError that names the record.
    """
    folder = source_folder(source, "TFRecords")
    files = shard_files(folder)
    codes = LabelCodes.of_options(dataclasses.replace(options, ignore=(*options.ignore, UNKNOWN)), folder)
    where, first = next(iter_examples(files), ("", dict[str, Feature]()))
    if not first:
        raise BadInputError(f"{source} holds no records: there is nothing to import")
    image = _pixels(first, "image", where)
    names = usable_all(options.bands or [f"b{number}" for number in range(1, image.shape[2] + 1)], "band")
    if len(names) != image.shape[2]:
        raise BadInputError(f"{len(names)} bands are named, and the images have {image.shape[2]}")
    storing.refuse_unknown(names)
    if image.dtype.kind != "f" and storing.scales:
        raise BadInputError(
            f"scale: {where} has images of {image.dtype}, which are stored as they are: leave the scale out"
        )
    bands = tuple(
        storing.band(name) if image.dtype.kind == "f" else ImportedBand(name, image.dtype.name)
        for name in names
    )
    meaning = Meaning(FORMAT, bands, codes, hashes(folder, files))
    lost: Lost = collections.Counter()
    done = commit_import(folder, out, _chips(files, meaning, options, storing, lost), meaning, options)
    return Converted(done.out, done.chips, (*done.notes, *lost_notes(lost)))


def shard_files(folder: Path) -> list[Path]:
    """Return the shards directly in a folder, in their order.

    Raises BadInputError where there is none, one is missing, or they are of several sets.
    """
    matches = [(path, _FILE.fullmatch(path.name)) for path in files_below(folder) if path.parent == folder]
    found = {int(match["number"]): path for path, match in matches if match}
    sets = {(match["name"], match["count"]) for _, match in matches if match}
    if len(sets) != 1:
        told = ", ".join(sorted(name for name, _ in sets)) or "none"
        raise BadInputError(
            f"{folder}: expected the shards of one set, NAME-00000-of-00010 and so on, found {told}"
        )
    ((_, count),) = sets
    missing = [f"{number:05d}" for number in range(int(count)) if number not in found]
    if missing:
        raise BadInputError(
            f"{folder} lacks {len(missing)} of {int(count)} shards ({first_five(missing)}): fetch them all"
        )
    return [found[number] for number in sorted(found)]


def _chips(
    files: Sequence[Path], meaning: Meaning, options: ImportOptions, storing: Storing, lost: Lost
) -> Iterator[ImportedChip]:
    for where, features in iter_examples(files):
        identifier, place = _identifier(features, where)
        chip_id = usable(
            identifier.partition("|")[0].removesuffix(".tif"), f"chip-{record_key(identifier)[:8]}"
        )
        anchor = options.dated(where)
        image, target = _pixels(features, "image", where), _pixels(features, "target", where)
        if target.shape != (*image.shape[:2], 1) or image.shape[2] != len(meaning.bands):
            raise AssetMismatchError(
                f"{where} has an image (y, x, band) of {image.shape} and a target of {target.shape}: expected one place "
                f"and {len(meaning.bands)} bands"
            )
        sample = Sample(
            _stored(image, meaning, storing, lost, where), meaning.codes.encode(target[..., 0], where), chip_id,
            anchor, *place,
        )  # fmt: skip
        yield ImportedChip(sample, options.split, where, identifier)


def _stored(image: NDArray[Any], meaning: Meaning, storing: Storing, lost: Lost, where: str) -> NDArray[Any]:
    if image.dtype.kind != "f":
        return image
    bands = []
    for at, band in enumerate(meaning.bands):
        pixels, over = storing.store(band.name, image[..., at], where)
        lost[band.name] += over
        bands.append(pixels)
    return np.stack(bands, axis=2)


def _pixels(features: Mapping[str, Feature], kind: str, where: str) -> NDArray[Any]:
    """Return (y, x, band) of an image or a target: encoded bytes, bytes of uint8, or floats.

    Raises DamagedFileError, naming ``where``, for a record of another form.
    """
    try:
        data = features[f"{kind}/{kind}_data"]
        rows, cols = (features[f"{kind}/{name}"].ints[0] for name in ("height", "width"))
        depth = features["image/channels"].ints[0] if kind == "image" else 1
        if not 0 < rows * cols * depth < _MOST_PX:
            raise ValueError(f"{rows} x {cols} x {depth} pixels")
        if data.kind == "float":
            return data.floats.reshape(rows, cols, depth)
        if len(data.raw) == rows * cols * depth:
            return np.frombuffer(data.raw, np.uint8).reshape(rows, cols, depth)
        picture = np.moveaxis(decode_picture(bytes(data.raw), f"{where}, {kind}").pixels, 0, 2)
    except (KeyError, IndexError, ValueError) as error:
        raise DamagedFileError(
            f"{where} is no record of dl_image_segmentation ({type(error).__name__}: {error}): translate the chips again"
        ) from error
    if picture.shape != (rows, cols, depth):
        raise AssetMismatchError(
            f"{where} holds a picture of {picture.shape}, and says {(rows, cols, depth)}"
        )
    return picture


def _identifier(features: Mapping[str, Feature], where: str) -> tuple[str, Place]:
    """Return the identifier and the place that it names; a key of a tile names none."""
    try:
        text = bytes(features["identifier"].raw).decode()
    except (KeyError, ValueError) as error:
        raise DamagedFileError(f"{where} has no identifier ({error}): translate the chips again") from error
    parts = text.split("|")
    if len(parts) != 3 or not re.fullmatch(r"EPSG:\d{4,6}", parts[2]):
        return text, ("", IDENTITY)
    try:
        x, width, skew_x, y, skew_y, height = (float(one) for one in parts[1].strip("[]() ").split(","))
    except ValueError as error:
        raise DamagedFileError(f"{where} names the place {parts[1][:80]!r}: expected six numbers") from error
    return text, (parts[2], (width, skew_x, x, skew_y, height, y))
