"""Where a parameter's paths may lie: below the directories of ``CHIPMILL_ROOTS``.

Whoever may start a run through the server gives a region as a parameter. Without this its paths could name any file
of the worker: to read it, or to write over it. Called where a flow takes its parameters; the library itself, and a
run whose operator sets no roots, is not restricted.
"""

import os
from pathlib import Path
from typing import Final

from chipmill.core.errors import RegionFileError
from chipmill.region.config import Region
from chipmill.region.fields import FileModel, Source
from chipmill.region.identity import named_files
from chipmill.region.jobs import PredictConfig, TrainConfig

ROOTS_ENV: Final = "CHIPMILL_ROOTS"
"""Directories, separated by ``:`` as in PATH; the first is where relative paths begin."""
_STORES: Final = "s3://"


def roots() -> tuple[Path, ...]:
    """Return the allowed directories with all links followed, the first one first; empty where none are set.

    Raises RegionFileError for one that is not absolute or does not exist.
    """
    named = [Path(text) for text in os.environ.get(ROOTS_ENV, "").split(os.pathsep) if text]
    for path in named:
        if not path.is_absolute() or not path.is_dir():
            raise RegionFileError(f"{ROOTS_ENV} names {path}: expected directories by their absolute paths")
    return tuple(path.resolve() for path in named)


def check_roots[M: FileModel](config: M) -> M:
    """Return a region, train or predict parameter whose relative paths begin where they are allowed to.

    A parameter that was read from a file keeps it, when the file lies inside the roots; one without a file takes its
    relative paths from the first root. Every path is then looked at with its links followed.

    Raises RegionFileError that names the field of a path outside the roots.
    """
    allowed = roots()
    if not allowed:
        return config
    if config.file is None:
        config = config.model_copy(update={"file": str(allowed[0] / "parameters.yaml")})
    for name, path in {"file": str(config.file), **paths_of(config)}.items():
        if path.startswith(_STORES):
            continue
        # realpath follows the links of all that exists and keeps the rest, which is what a write would do
        real = Path(os.path.realpath(config.resolve(path)))
        if "\0" in path or not any(real.is_relative_to(root) for root in allowed):
            raise RegionFileError(
                f"{name}: {path[:200]!r} lies outside the directories of {ROOTS_ENV}: "
                "put it below one of them, or let the operator add its directory"
            )
    return config


def paths_of(config: FileModel) -> dict[str, str]:
    """Return field -> path as the user wrote it, of every path of a parameter."""
    paths = {"output": config.output}
    if isinstance(config, TrainConfig):
        paths |= {f"datasets.{number}": path for number, path in enumerate(config.datasets)}
    if isinstance(config, PredictConfig):
        paths |= {f"regions.{number}": path for number, path in enumerate(config.regions)}
    if isinstance(config, Region):
        paths |= named_files(config)
        for number, imagery in enumerate(config.imagery):
            paths |= _of_source(f"imagery.{number}.source", imagery.source)
        if config.tiles.source is not None:
            paths |= _of_source("tiles.source", config.tiles.source)
    return paths


def _of_source(name: str, source: Source) -> dict[str, str]:
    kinds = {"catalog": source.catalog, "items": source.items}
    return {f"{name}.{kind}": path for kind, path in kinds.items() if path is not None}
