"""Esri "Classified Tiles", the training data of ArcGIS: out of a dataset, and into one.

The file to change for which chips go where. Every split is a folder of its own, so that what ArcGIS trains on never
holds a chip of another split; its value 0 means "no data", so our classes 0..n-1 are written as 1..n and ignore as 0.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from chipmill.core.errors import AssetMismatchError, BadInputError, LabelError
from chipmill.dataset.reader import Dataset
from chipmill.exchange.chips import Converted, ImportOptions, LabelCodes, written_values
from chipmill.exchange.dealing import deal_parts
from chipmill.exchange.esri_files import EMD, MAP, NODATA, EsriClass, read_emd, read_map, write_files
from chipmill.exchange.esri_tally import Tally
from chipmill.exchange.exporting import export_splits
from chipmill.exchange.importing import Meaning
from chipmill.exchange.origin import OriginChip, origin_of, read_origin
from chipmill.exchange.pairs import Part, import_parts, imported_bands, split_folders, write_pairs
from chipmill.exchange.sources import files_below, first_five, hashes, source_dataset, source_folder

FORMAT: Final = "esri"
_DIGITS: Final = 9


def export_esri(dataset: Path, out: Path) -> Converted:
    """Write a dataset as Classified Tiles, ``out/<split>`` for each split that has chips.

    Pairs are numbered in the order of the chip ids; chips.csv says which is which. Raises what :func:`source_dataset`
    and :func:`export_splits` raise.
    """
    opened = source_dataset(dataset)
    manifest = opened.manifest
    names = [one.name for one in manifest.classes]
    values = written_values(len(names), first=NODATA + 1, ignore=NODATA)
    classes = [EsriClass(code + 1, one.name, one.color) for code, one in enumerate(manifest.classes)]
    colors = ["#000000", *(one.color for one in manifest.classes)]
    origin = origin_of(manifest, FORMAT, [one.value for one in classes], NODATA)

    def write(chips: Dataset, folder: Path) -> Iterator[OriginChip]:
        tally = Tally(len(classes), manifest.bands)
        pairs = write_pairs(chips, folder, values, colors, lambda number, _: f"{number:0{_DIGITS}d}")
        yield from tally.counted(pairs)
        write_files(folder, tally, classes)

    return export_splits(opened, out, origin, write)


def import_esri(source: Path, out: Path, options: ImportOptions) -> Converted:
    """Make a dataset of Classified Tiles: of one folder (``options.split``), or of train, val and test below it.

    Value 0 is ignored, as ArcGIS does; classes and bands come from the .emd, sizes from the pictures. Raises
    BadInputError, LabelError, AssetMismatchError or AssetReadError that names what does not fit.
    """
    folder = source_folder(source, "Classified Tiles")
    files_below(folder)  # no link anywhere
    places = split_folders(folder, EMD, options.split)
    described = [read_emd(place) for _, place in places]
    classes, bands = described[0]
    for (_, place), other in zip(places[1:], described[1:], strict=True):
        if other != described[0]:
            raise AssetMismatchError(
                f"{place} has other classes or bands than {places[0][1]}: export them together"
            )
    parts = [Part(split, place, tuple(read_map(place))) for split, place in places]
    notes = tuple(note for part in parts for note in _look(part))
    parts, dealt = deal_parts(folder, parts, options)
    origin = read_origin(places[0][1])
    codes = LabelCodes.of_origin(origin, options.ignore) if origin else _codes(classes, options)
    named = options.bands or (() if origin else bands)
    known = imported_bands(origin, named, parts[0].pairs[0].image)
    read = [path for part in parts for path in _read_files(part)]
    meaning = Meaning(FORMAT, known, codes, hashes(folder, read), origin)
    done = import_parts(folder, out, parts, meaning, options)
    return Converted(done.out, done.chips, (*notes, *dealt, *done.notes))


def _codes(classes: Sequence[EsriClass], options: ImportOptions) -> LabelCodes:
    if options.classes:
        raise LabelError("the classes stand in the .emd file: name none, or change them there")
    made = LabelCodes.of_names(
        [one.name for one in classes], [(one.value,) for one in classes], (NODATA, *options.ignore)
    )
    own = zip(made.classes, classes, strict=True)
    return LabelCodes(
        tuple((name, one.color or color, value) for (name, color, value), one in own), made.ignore
    )


def _look(part: Part) -> list[str]:
    """Return what to tell of a folder; raises AssetMismatchError where map.txt names files that are not there."""
    if not part.pairs:
        raise BadInputError(f"{part.folder} lists no pair in map.txt: export it again")
    missing = [path.name for pair in part.pairs for path in (pair.image, pair.label) if not path.is_file()]
    if missing:
        raise AssetMismatchError(
            f"{part.folder}: map.txt names {len(missing)} files that are not there ({first_five(missing)}): export again"
        )
    listed = {pair.image for pair in part.pairs}
    extra = [
        path.name
        for path in files_below(part.pairs[0].image.parent, (".tif", ".png", ".jpg"))
        if path not in listed
    ]
    return (
        [f"{len(extra)} images of {part.folder.name} are not in map.txt ({first_five(extra)}): left out"]
        if extra
        else []
    )


def _read_files(part: Part) -> list[Path]:
    """Return every file that an import of a part depends on."""
    pictures = [path for pair in part.pairs for path in (pair.image, pair.label)]
    return [part.folder / EMD, part.folder / MAP, *pictures]
