"""Folders of GeoTIFF pairs, images/<name>.tif and labels/<name>.tif: out of a dataset, and into one.

The file to change for how plain folders are laid out. Pairs are made by name; a picture without its partner is an
error, and nothing is taken from the order in which a file system lists a folder.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from chipmill.core.errors import BadInputError
from chipmill.dataset.classes import IGNORE
from chipmill.dataset.reader import Dataset
from chipmill.exchange.chips import Converted, ImportOptions, LabelCodes, written_values
from chipmill.exchange.dealing import deal_parts
from chipmill.exchange.exporting import export_splits
from chipmill.exchange.importing import Meaning
from chipmill.exchange.origin import OriginChip, origin_of, read_origin
from chipmill.exchange.pairs import (
    IMAGES,
    LABELS,
    Pair,
    Part,
    import_parts,
    imported_bands,
    refuse_mismatch,
    split_folders,
    write_pairs,
)
from chipmill.exchange.rasters import PICTURES
from chipmill.exchange.sources import files_below, hashes, source_dataset, source_folder

FORMAT: Final = "folders"


def export_folders(dataset: Path, out: Path) -> Converted:
    """Write a dataset as pairs of LZW GeoTIFFs named by chip id, ``out/<split>/images`` and ``out/<split>/labels``.

    Labels hold 0..n-1 and 255 for ignore. Raises what :func:`source_dataset` and :func:`export_splits` raise.
    """
    opened = source_dataset(dataset)
    classes = opened.manifest.classes
    values = written_values(len(classes), first=0, ignore=IGNORE)
    origin = origin_of(opened.manifest, FORMAT, list(range(len(classes))), IGNORE)
    colors = [one.color for one in classes]

    def write(chips: Dataset, folder: Path) -> Iterator[OriginChip]:
        pairs = write_pairs(chips, folder, values, colors, lambda _, chip_id: chip_id)
        return (pair.chip for pair in pairs)

    return export_splits(opened, out, origin, write)


def import_folders(source: Path, out: Path, options: ImportOptions) -> Converted:
    """Make a dataset of pairs: ``images`` and ``labels`` in ``source``, or in train, val and test below it.

    Classes are named by ``options`` unless the folder is an export of ours; values of the label that are neither
    declared nor ignored are an error. Raises BadInputError, LabelError, AssetMismatchError (pictures without partner,
    the first five by name), AssetReadError.
    """
    folder = source_folder(source, "images and labels")
    divided = [_part(split, place) for split, place in split_folders(folder, IMAGES, options.split)]
    parts, dealt = deal_parts(folder, divided, options)
    origin = read_origin(parts[0].folder)
    codes = LabelCodes.of(options, origin, folder)
    bands = imported_bands(origin, options.bands, parts[0].pairs[0].image)
    read = [path for part in parts for pair in part.pairs for path in (pair.image, pair.label)]
    meaning = Meaning(FORMAT, bands, codes, hashes(folder, read), origin)
    done = import_parts(folder, out, parts, meaning, options)
    return Converted(done.out, done.chips, (*dealt, *done.notes))


def _part(split: str, folder: Path) -> Part:
    images, labels = (_by_name(folder / kind) for kind in (IMAGES, LABELS))
    refuse_mismatch(images, labels, folder)
    if not images:
        raise BadInputError(
            f"{folder} holds no pictures: expected {', '.join(PICTURES)} in images and labels"
        )
    return Part(split, folder, tuple(Pair(name, path, labels[name]) for name, path in images.items()))


def _by_name(folder: Path) -> dict[str, Path]:
    """Return the pictures of a folder and those below it by their relative names without suffix.

    Raises BadInputError where two differ by their suffix alone, since only one of them could be meant.
    """
    found: dict[str, Path] = {}
    for path in files_below(folder, PICTURES):
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in found:
            raise BadInputError(f"{found[name]} and {path} have one name: remove one of them")
        found[name] = path
    return found
