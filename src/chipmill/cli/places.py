"""What a path on the command line means: a region file, a dataset, a model, a map, or a folder that holds versions."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from chipmill.core.errors import VersionNotFoundError
from chipmill.core.versions import Versions

type Kind = Literal["dataset", "model", "map"]

_MARKERS: Final[dict[str, Kind]] = {"dataset.json": "dataset", "model.json": "model", "map.json": "map"}
"""The file that makes a directory a committed product."""


@dataclass(frozen=True, slots=True)
class Product:
    """A committed version."""

    kind: Kind
    path: Path


def find_product(path: Path) -> Product:
    """Return the version that a path means.

    Args:
        path: a region file (the version in force of its cell), a version's directory or manifest, or a directory with
            CURRENT. Raises VersionNotFoundError for anything else, RegionFileError for a broken region file.
    """
    if path.suffix in (".yaml", ".yml") and path.is_file():
        from chipmill.region.load import load_region
        from chipmill.region.plan import cell_dir

        return Product("dataset", cell_dir(load_region(path)).versions.current_path())
    folder = path.parent if path.name in _MARKERS else path
    for place in (folder, _in_force(folder)):
        for marker, kind in _MARKERS.items():
            if place is not None and (place / marker).is_file():
                return Product(kind, place.absolute())
    raise VersionNotFoundError(
        f"{path} is no version of a dataset, model or map, and no folder with one in force: give a region file, "
        "or a folder such as out/regions/NAME/START--END/versions/1"
    )


def _in_force(folder: Path) -> Path | None:
    """Return the version that CURRENT names: cells keep versions in a folder of their own, models and maps beside it."""
    pointer = folder / "CURRENT"
    nested = folder / "versions"
    versions = Versions(nested if nested.is_dir() else folder, pointer)
    number = versions.current() if pointer.is_file() else None
    return None if number is None else versions.path(number)


def shown(path: Path) -> str:
    """Return a path as people type it: relative to the working directory where it lies below it."""
    absolute, here = path.absolute(), Path.cwd()
    return str(absolute.relative_to(here)) if absolute.is_relative_to(here) else str(absolute)
