"""Pairs of pictures, images/<name> and labels/<name>: written from a dataset, and read into one.

The file to change for what Esri chips and plain folders have in common: one chip is two GeoTIFFs with the same name.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chipmill.core.errors import AssetMismatchError, BadInputError
from chipmill.dataset.description import Manifest
from chipmill.dataset.places import SPLITS
from chipmill.dataset.reader import Dataset
from chipmill.dataset.records import Sample, record_key
from chipmill.exchange.chips import Converted, ImportOptions, flat_image, usable, usable_all
from chipmill.exchange.imported_facts import ImportedBand, ImportedChip
from chipmill.exchange.importing import Meaning, commit_import
from chipmill.exchange.origin import Origin, OriginChip, read_chips
from chipmill.exchange.rasters import Picture, read_picture, write_picture
from chipmill.exchange.sources import first_five

IMAGES, LABELS = "images", "labels"


@dataclasses.dataclass(frozen=True, slots=True)
class Pair:
    """A chip as two files."""

    name: str
    image: Path
    label: Path


@dataclasses.dataclass(frozen=True, slots=True)
class Part:
    """The pairs of one split in a source folder."""

    split: str
    folder: Path
    pairs: tuple[Pair, ...]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class WrittenPair:
    """What a pair on the disk holds; the statistics of a format are made of it."""

    chip: OriginChip
    image: NDArray[Any]
    """(band, y, x)."""
    label: NDArray[np.uint8]
    """(y, x): the values as they were written."""


def write_pairs(
    chips: Dataset,
    folder: Path,
    values: NDArray[np.uint8],
    colors: Sequence[str],
    name_of: Callable[[int, str], str],
) -> Iterator[WrittenPair]:
    """Write the chips of a split as pairs, in the order of their ids, and yield each.

    Args:
        chips: the split.
        folder: gets ``images`` and ``labels``.
        values: label value of each code 0..255.
        colors: ``#rrggbb`` of the label values 0, 1, ..
        name_of: from (number from 0, chip id) to the name of the pair, without suffix.
    """
    bands = chips.manifest.bands
    names, nodata = tuple(band.name for band in bands), _file_nodata(chips.manifest)
    for kind in (IMAGES, LABELS):
        (folder / kind).mkdir(parents=True)
    ids = chips.chip_ids
    for number, index in enumerate(sorted(range(len(ids)), key=lambda at: ids[at])):
        sample = chips[index]
        name = name_of(number, sample.chip_id)
        pair = WrittenPair(OriginChip.of(name, sample), flat_image(sample), values[sample.label])
        place = (sample.crs, sample.transform)
        image = Picture(pair.image, *place, nodata, names)
        label = Picture(pair.label[np.newaxis], *place, float(values[-1]), ("label",))
        write_picture(folder / IMAGES / f"{name}.tif", image, scales=[band.scale for band in bands])
        write_picture(folder / LABELS / f"{name}.tif", label, colors=colors)
        yield pair


def _file_nodata(manifest: Manifest) -> float | None:
    """Return the one nodata value of all bands; None where they differ, or their type cannot hold it: all is data."""
    values = {band.nodata for band in manifest.bands}
    kind = np.dtype(manifest.dtype)
    low, high = (np.iinfo(kind).min, np.iinfo(kind).max) if kind.kind in "iu" else (-math.inf, math.inf)
    return values.pop() if len(values) == 1 and low <= min(values) <= high else None


def split_folders(source: Path, marker: str, split: str) -> list[tuple[str, Path]]:
    """Return (split, folder): the source itself where it holds ``marker``, else train, val and test below it that do.

    Raises BadInputError where there is neither.
    """
    if (source / marker).exists():
        return [(split, source)]
    found = [(name, source / name) for name in SPLITS if (source / name / marker).exists()]
    if not found:
        raise BadInputError(
            f"{source} has no {marker}, nor have train, val and test below it: give the folder that has"
        )
    return found


def refuse_mismatch(images: Mapping[str, Path], labels: Mapping[str, Path], folder: Path) -> None:
    """Raise AssetMismatchError that names the first five pictures without a label, and labels without a picture."""
    alone = [
        f"{len(names)} {what} ({first_five(sorted(names))})"
        for names, what in (
            (images.keys() - labels.keys(), "images have no label of their name"),
            (labels.keys() - images.keys(), "labels have no image of their name"),
        )
        if names
    ]
    if alone:
        raise AssetMismatchError(
            f"{folder}: {' and '.join(alone)}: add or remove them, since pairs are made by name alone"
        )


def band_names(given: Sequence[str], file: Picture) -> tuple[str, ...]:
    """Return the names of the bands: those given where their number fits, else those of the file, else b1, b2, ...

    Raises BadInputError where names are given and their number does not fit.
    """
    count = len(file.pixels)
    if given and len(given) != count:
        raise BadInputError(
            f"{len(given)} bands are named ({', '.join(given)}), and the pictures have {count}"
        )
    if given or all(file.names):
        return usable_all(given or file.names, "band")
    return tuple(f"b{number}" for number in range(1, count + 1))


def imported_bands(origin: Origin | None, given: Sequence[str], first: Path) -> tuple[ImportedBand, ...]:
    """Return the bands of an import: those of the exported dataset, else what the first picture says.

    Names that are given go before both. Raises AssetMismatchError where the picture has not the bands of the dataset,
    and what :func:`band_names` does.
    """
    file = read_picture(first)
    if origin is not None:
        if len(origin.bands) != len(file.pixels):
            raise AssetMismatchError(
                f"{first} has {len(file.pixels)} bands, expected the {len(origin.bands)} of chipmill.json: export again"
            )
        names = band_names(given, file) if given else [one.name for one in origin.bands]
        return tuple(
            ImportedBand(**(one.model_dump() | {"name": name}))
            for one, name in zip(origin.bands, names, strict=True)
        )
    kind = file.pixels.dtype.name
    return tuple(ImportedBand(name=name, dtype=kind, nodata=file.nodata) for name in band_names(given, file))


def import_parts(
    source: Path, out: Path, parts: Sequence[Part], meaning: Meaning, options: ImportOptions
) -> Converted:
    """Make a dataset of pairs; raises what :func:`iter_chips` and :func:`commit_import` raise."""
    return commit_import(source, out, iter_chips(parts, meaning, options), meaning, options)


def iter_chips(parts: Sequence[Part], meaning: Meaning, options: ImportOptions) -> Iterator[ImportedChip]:
    """Yield the chips of a source, split by split, in order of sha256(chip_id) within one.

    A chip is called as its pair, with the split before it where the source is divided, since each part may count its
    pairs from 0. Raises BadInputError where the date of one is not known, and what the pictures raise.
    """
    for part in parts:
        known = read_chips(part.folder)
        prefix = f"{part.split}-" if len({one.folder for one in parts}) > 1 else ""
        ordered = sorted(
            ((_identity(pair, prefix, known.get(pair.name), options), pair) for pair in part.pairs),
            key=lambda one: record_key(one[0][0]),
        )
        for identity, pair in ordered:
            yield ImportedChip(_sample(pair, identity, meaning), part.split, str(pair.image), pair.name)


def _identity(pair: Pair, prefix: str, known: OriginChip | None, options: ImportOptions) -> tuple[str, str]:
    """Return chip id and date."""
    if known is not None:
        return known.chip_id, options.date or known.anchor
    name = usable(prefix + pair.name, f"{prefix}chip-{record_key(pair.name)[:8]}")
    return name, options.dated(str(pair.image))


def _sample(pair: Pair, identity: tuple[str, str], meaning: Meaning) -> Sample:
    image, label, bands = read_picture(pair.image), read_picture(pair.label), len(meaning.bands)
    if len(image.pixels) != bands:
        raise AssetMismatchError(
            f"{pair.image} has {len(image.pixels)} bands, expected {bands} as in the others"
        )
    if label.pixels.shape != (1, *image.pixels.shape[1:]):
        raise AssetMismatchError(
            f"{pair.label} has the shape (band, y, x) {label.pixels.shape}, expected {(1, *image.pixels.shape[1:])} as "
            "its image needs: mend the pair"
        )
    if label.crs and not (label.crs == image.crs and _same(label.transform, image.transform)):
        raise AssetMismatchError(f"{pair.label} lies on another grid than its image: mend the pair")
    return Sample(
        image=np.ascontiguousarray(np.moveaxis(image.pixels, 0, 2)),
        label=meaning.codes.encode(label.pixels[0], str(pair.label)),
        chip_id=identity[0],
        anchor=identity[1],
        crs=image.crs,
        transform=image.transform,
    )


def _same(one: Sequence[float], other: Sequence[float]) -> bool:
    """Tell whether two transforms are equal but for float noise: a thousandth of a pixel."""
    return all(
        math.isclose(a, b, rel_tol=1e-12, abs_tol=1e-3 * abs(one[0])) for a, b in zip(one, other, strict=True)
    )
