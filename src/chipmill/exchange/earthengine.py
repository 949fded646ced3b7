"""Earth Engine's TFRecords into a dataset: patches of an image export with its mixer, or neighbourhoods of points.

The file to change for how records become chips. Bands are taken by name, never by their place in a record; nothing is
transposed. Without mixer.json a record has no place on the map.
"""

import collections
import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from chipmill.core.errors import AssetMismatchError, BadInputError
from chipmill.dataset.examples import Feature
from chipmill.dataset.places import SPLITS
from chipmill.dataset.records import Sample
from chipmill.exchange.chips import Converted, ImportOptions, LabelCodes, usable, usable_all
from chipmill.exchange.ee_records import iter_examples, list_values, record_files
from chipmill.exchange.ee_values import Lost, StoredType, Storing, lost_notes
from chipmill.exchange.imported_facts import ImportedBand, ImportedChip
from chipmill.exchange.importing import Meaning, commit_import
from chipmill.exchange.mixer import SUFFIX, Mixer, infer_margin, read_mixer
from chipmill.exchange.origin import Origin, OriginChip, read_chips, read_origin
from chipmill.exchange.rasters import IDENTITY
from chipmill.exchange.sources import files_below, hashes, source_folder

FORMAT: Final = "earth-engine"
LABEL: Final = "label"


@dataclasses.dataclass(frozen=True, slots=True)
class RecordOptions:
    """What the records of Earth Engine do not say of themselves."""

    label: str = LABEL
    """Band that holds the label."""
    storing: Storing = dataclasses.field(default_factory=Storing)
    value_type: str | None = None
    """Type of the values in lists of bytes, where it is not uint8."""
    margin: tuple[int, int] | None = None
    """Columns and rows that a patch has beyond the mixer's patchDimensions; None = found from the number of values."""
    keep_margin: bool = False
    """Whether the margin stays in the chips, which then overlap."""
    size_px: int | None = None
    """Side that chips without mixer are cut to, around their centre; None = as they are."""


@dataclasses.dataclass(frozen=True, slots=True)
class Export:
    """The records of one split and the grid that they lie on."""

    split: str
    folder: Path
    files: tuple[Path, ...]
    mixer: Mixer | None


def import_earthengine(source: Path, out: Path, options: ImportOptions, records: RecordOptions) -> Converted:
    """Make a dataset of TFRecords: those in ``source``, or in train, val and test below it.

    Chips are in the order of the records. Bands are ``options.bands``, else all lists of the first record but the
    label, by name. Raises BadInputError, AssetMismatchError, LabelError or DamagedFileError that names the record.
    """
    folder = source_folder(source, "TFRecords")
    exports = find_exports(folder, options.split)
    origin = read_origin(exports[0].folder)
    codes = LabelCodes.of(options, origin, folder)
    names = band_names(exports[0], options.bands, records.label, origin)
    bands = _bands(names, records.storing, origin)
    if origin is not None:
        if records.storing.scales or records.storing.nodata is not None:
            raise BadInputError(
                f"{exports[0].folder} says in chipmill.json how its bands are stored: give no scale and no nodata"
            )
        kept = Storing(dtype=cast("StoredType", origin.dtype))
        records = dataclasses.replace(records, storing=kept, value_type=origin.dtype)
    files = [path for export in exports for path in export.files]
    meaning = Meaning(FORMAT, bands, codes, hashes(folder, files), origin)
    lost: Lost = collections.Counter()
    reader = _Reader(meaning, options, records, names, lost)
    done = commit_import(
        folder, out, (chip for export in exports for chip in reader.chips(export)), meaning, options
    )
    notes = [*done.notes, *lost_notes(lost)]
    notes += [
        f"the CRS of {one.folder.name} has no EPSG code ({one.mixer.crs[:60]}): its chips have no place on the map"
        for one in exports
        if one.mixer is not None and not one.mixer.epsg
    ]
    return Converted(done.out, done.chips, tuple(notes))


def find_exports(folder: Path, split: str) -> list[Export]:
    """Return what a folder holds: its own records, else those of train, val and test below it.

    Raises BadInputError where there is no record, several mixers, or a link.
    """
    places = [(split, folder)] if record_files(folder) else [(name, folder / name) for name in SPLITS]
    found = [_export(name, place) for name, place in places if place.is_dir()]
    if not any(one.files for one in found):
        raise BadInputError(
            f"{folder} holds no .tfrecord and no .tfrecord.gz, nor have train, val and test below it"
        )
    return [one for one in found if one.files]


def _export(split: str, folder: Path) -> Export:
    mixers = [
        path
        for path in files_below(folder, (".json",))
        if path.name.endswith(SUFFIX) and path.parent == folder
    ]
    if len(mixers) > 1:
        raise BadInputError(f"{folder} holds {len(mixers)} mixers: put each export into a folder of its own")
    return Export(split, folder, tuple(record_files(folder)), read_mixer(mixers[0]) if mixers else None)


def band_names(export: Export, given: Sequence[str], label: str, origin: Origin | None) -> tuple[str, ...]:
    """Return the names of the bands in the records, in the order that they shall have.

    Raises BadInputError where a name is given that the first record does not have, or none is left.
    """
    where, first = next(iter_examples(export.files), (str(export.folder), dict[str, Feature]()))
    wanted = list(given) or ([one.name for one in origin.bands] if origin else [])
    missing = [name for name in wanted if name not in first]
    if missing:
        raise BadInputError(
            f"{where} has no band {', '.join(missing)} but {', '.join(sorted(first))}: name its bands"
        )
    numbers = [_length(one) for one in first.values() if one.kind != "bytes"]
    count = _length(first[label]) if label in first else max(numbers, default=0)
    lists = sorted(name for name, one in first.items() if name != label and _is_list(one, count))
    if not (wanted or lists):
        raise BadInputError(f"{where} holds no list of values beside {label}: name its bands")
    return tuple(wanted or lists)


def _is_list(feature: Feature, count: int) -> bool:
    """Tell whether a feature can hold ``count`` pixels; ids and properties of a point are shorter."""
    sizes = (1, 2, 4) if feature.kind == "bytes" else (1,)
    return count < 1 or (count > 1 and _length(feature) in {size * count for size in sizes})


def _bands(names: Sequence[str], storing: Storing, origin: Origin | None) -> tuple[ImportedBand, ...]:
    if origin is not None:
        known = {one.name: ImportedBand(**one.model_dump()) for one in origin.bands}
        if set(names) <= known.keys():
            return tuple(known[name] for name in names)
    storing.refuse_unknown(names)
    ids = usable_all(names, "band")
    return tuple(
        dataclasses.replace(storing.band(name), name=own) for name, own in zip(names, ids, strict=True)
    )


@dataclasses.dataclass(frozen=True, slots=True)
class _Reader:
    """Makes chips of records."""

    meaning: Meaning
    options: ImportOptions
    records: RecordOptions
    names: tuple[str, ...]
    """Of the bands in the records."""
    lost: Lost

    def chips(self, export: Export) -> Iterator[ImportedChip]:
        """Yield the chips of an export; raises AssetMismatchError where it has other patches than its mixer says."""
        known, count = read_chips(export.folder), 0
        prefix = usable(self.options.name or export.folder.name, "chip")
        for number, (where, features) in enumerate(iter_examples(export.files)):
            count += 1
            if export.mixer is not None and count > export.mixer.total:
                break
            chip = known.get(str(number))
            identity = self._identity(chip, f"{prefix}-{export.split}-{number:07d}", where)
            yield ImportedChip(
                self._sample(export, number, features, identity, chip, where),
                export.split,
                where,
                str(number),
            )
        if export.mixer is not None and count != export.mixer.total:
            held = "more" if count > export.mixer.total else f"{count:,}"
            raise AssetMismatchError(
                f"{export.folder} holds {held} records, and its mixer names {export.mixer.total:,} patches: fetch all files "
                "of the export, and give each export a folder of its own"
            )

    def _identity(self, chip: OriginChip | None, name: str, where: str) -> tuple[str, str]:
        if chip is not None:
            return chip.chip_id, self.options.date or chip.anchor
        return name, self.options.dated(where)

    def _sample(
        self, export: Export, number: int, features: Mapping[str, Feature], identity: tuple[str, str],
        chip: OriginChip | None, where: str,
    ) -> Sample:  # fmt: skip
        wanted = (*self.names, self.records.label)
        missing = [name for name in wanted if name not in features]
        if missing:
            raise AssetMismatchError(f"{where} has no {', '.join(missing)} but {', '.join(sorted(features))}")
        arrays, transform = patch_arrays(export.mixer, number, features, wanted, self.records, where)
        label = self.meaning.codes.encode(arrays.pop(), f"{where}, band {self.records.label}")
        stored = []
        for name, values in zip(self.names, arrays, strict=True):
            pixels, over = self.records.storing.store(name, values, where)
            self.lost[name] += over
            stored.append(pixels)
        crs = export.mixer.epsg if export.mixer else ""
        if not crs:
            transform = IDENTITY
        if chip is not None and chip.crs:
            crs, transform = chip.crs, chip.affine
        return Sample(np.stack(stored, axis=2), label, *identity, crs, transform)


def patch_arrays(
    mixer: Mixer | None, number: int, features: Mapping[str, Feature], names: Sequence[str], records: RecordOptions,
    where: str,
) -> tuple[list[NDArray[Any]], tuple[float, float, float, float, float, float]]:  # fmt: skip
    """Return the (y, x) values of the named bands of a record, and the transform of their first pixel.

    Raises BadInputError or AssetMismatchError, naming ``where``, for lists of unlike length or of no rectangle.
    """
    count = next((_length(features[name]) for name in names if features[name].kind != "bytes"), None)
    if count is None and records.label in names:
        count = _length(features[records.label])  # classes are bytes
    lists = [
        list_values(features[name], records.value_type, count, f"{where}, band {name}") for name in names
    ]
    sizes = {len(one) for one in lists}
    if len(sizes) > 1:
        told = ", ".join(f"{name} {len(one)}" for name, one in zip(names, lists, strict=True))
        raise AssetMismatchError(f"{where} has bands of unlike length ({told}): name bands of one size")
    (values,) = sizes
    if mixer is None:
        side = math.isqrt(values)
        if side * side != values:
            raise BadInputError(
                f"{where} has {values} values a band, which is no square: put its mixer.json beside it"
            )
        start, size = _centred(side, records.size_px, where)
        return [
            one.reshape(side, side)[start : start + size, start : start + size] for one in lists
        ], IDENTITY
    width, height = infer_margin(values, mixer.patch, records.margin, where)
    shape = (mixer.patch[1] + height, mixer.patch[0] + width)
    if records.keep_margin:
        transform = mixer.patch_transform(number, (width // 2, height // 2))
        return [one.reshape(shape) for one in lists], tuple(transform)[:6]
    part = np.s_[height // 2 : height // 2 + mixer.patch[1], width // 2 : width // 2 + mixer.patch[0]]
    return [one.reshape(shape)[part] for one in lists], tuple(mixer.patch_transform(number))[:6]


def _length(feature: Feature) -> int:
    """Return how many numbers a list holds; of bytes, how many bytes."""
    if feature.kind in ("float", "bytes"):
        return sum(map(len, feature.parts)) // (4 if feature.kind == "float" else 1)
    return int(np.count_nonzero(np.frombuffer(b"".join(feature.parts), np.uint8) < 0x80))


def _centred(side: int, wanted: int | None, where: str) -> tuple[int, int]:
    """Return first pixel and size of the middle; of an odd side the pixel at the right and below the centre is kept."""
    if wanted is None:
        return 0, side
    if not 0 < wanted <= side:
        raise BadInputError(f"{where} has a side of {side} px: chips of {wanted} px cannot be cut from it")
    return (side - wanted + 1) // 2, wanted
