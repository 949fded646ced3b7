"""What lies in a source folder of another program: sorted by name, hashed, and never behind a link.

The file to change for what a conversion may read. The order of a folder's files is that of their names, never that
in which the file system lists them; pairs are made by name in :mod:`chipmill.exchange.folders`.
"""

import os
from collections.abc import Collection, Iterable
from pathlib import Path

from chipmill.core.errors import BadInputError
from chipmill.core.store import sha256_file
from chipmill.dataset.reader import Dataset, open_dataset
from chipmill.region.roots import check_place


def source_folder(path: Path, kind: str) -> Path:
    """Return the absolute path of a source folder.

    Raises BadInputError where it is none (``kind`` says what was expected), RegionFileError outside CHIPMILL_ROOTS.
    """
    folder = path.absolute()
    check_place("source", folder)
    if not folder.is_dir():
        raise BadInputError(f"{path} is no folder: give the one that holds {kind}")
    return folder.resolve()


def source_dataset(path: Path) -> Dataset:
    """Open the dataset that is exported; raises what :func:`open_dataset` does, RegionFileError outside the roots."""
    check_place("dataset", path.absolute())
    return open_dataset(path)


def files_below(folder: Path, suffixes: Collection[str] = ()) -> list[Path]:
    """Return the regular files below a folder by their relative names; only of the ``suffixes`` (".tif"), if any.

    Raises BadInputError that names the first five links below the folder, whatever they lead to.
    """
    found: list[Path] = []
    links: list[Path] = []
    for place, folders, names in os.walk(folder):
        for path in (Path(place, name) for name in (*folders, *names)):
            if path.is_symlink():
                links.append(path)
            elif path.is_file() and (not suffixes or path.suffix.lower() in suffixes):
                found.append(path)
    if links:
        raise BadInputError(
            f"{folder} holds {len(links)} links ({first_five(sorted(path.name for path in links))}), and links are not "
            "followed: put the files themselves there"
        )
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


def first_five(names: Iterable[str]) -> str:
    """Return at most five names for a sentence, with "..." where there are more."""
    listed = list(names)
    return ", ".join(listed[:5]) + (", ..." if len(listed) > 5 else "")


def hashes(folder: Path, files: Iterable[Path]) -> tuple[tuple[str, str], ...]:
    """Return (relative name, sha256) of each file, in the order given."""
    return tuple((path.relative_to(folder).as_posix(), sha256_file(path)) for path in files)
