"""Where a parameter's paths may lie: below the directories of ``CHIPMILL_ROOTS``.

Whoever may start a run through the server gives a region as a parameter. Without this its paths could name any file
of the worker: to read it, or to write over it. Called where a flow takes its parameters; the library itself, and a
run whose operator sets no roots, is not restricted.
"""

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from chipmill.core.errors import RegionFileError
from chipmill.region.config import Region
from chipmill.region.fields import NO_FILE, FileModel, Source
from chipmill.region.identity import named_files
from chipmill.region.jobs import PredictConfig, TrainConfig
from chipmill.region.patterns import STORE_PATTERN, source_file

ROOTS_ENV: Final = "CHIPMILL_ROOTS"
"""Directories, separated by ``:`` as in PATH; the first is where relative paths begin."""


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

    A parameter that was read from a file keeps it, when the file lies inside the roots; a file that is relative lies
    below the first root, and one without a file takes its relative paths from there. Every path is then looked at with
    its links followed.

    Raises RegionFileError that names the field of a path outside the roots.
    """
    allowed = roots()
    if not allowed:
        return config
    # an absolute file stays what it is: joined to a root, it takes the root's place
    config = config.model_copy(update={"file": str(allowed[0] / (config.file or NO_FILE))})
    for name, path in {"file": str(config.file), **paths_of(config)}.items():
        _check(name, path, config.resolve(path), allowed)
    return config


def check_place(name: str, path: Path) -> None:
    """Raise RegionFileError that names the parameter where an absolute path lies outside the roots."""
    if allowed := roots():
        _check(name, str(path), path, allowed)


def _check(name: str, given: str, path: Path, allowed: Sequence[Path]) -> None:
    # realpath follows the links of all that exists and keeps the rest, which is what a write would do
    if "\0" in given or not any(Path(os.path.realpath(path)).is_relative_to(root) for root in allowed):
        raise RegionFileError(
            f"{name}: {given[:200]!r} lies outside the directories of {ROOTS_ENV}: "
            "put it below one of them, or let the operator add its directory"
        )


@contextlib.contextmanager
def own_roots(configs: Sequence[FileModel]) -> Iterator[None]:
    """Add the folders and the outputs of files that a user gave on the command line to the roots, inside the block.

    Whoever calls a command may read these files anyway. Does nothing where no roots are set. Raises RegionFileError
    where an output cannot be made.
    """
    before = os.environ.get(ROOTS_ENV)
    if not before:
        yield
        return
    os.environ[ROOTS_ENV] = os.pathsep.join([before, *dict.fromkeys(map(str, _own_places(configs)))])
    try:
        yield
    finally:
        os.environ[ROOTS_ENV] = before


def _own_places(configs: Sequence[FileModel]) -> Iterator[Path]:
    for config in configs:
        yield config.resolve(".")
        try:
            config.output_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RegionFileError(
                f"output: {config.output_dir} cannot be made ({error.strerror}): choose a folder that you may write to"
            ) from error
        yield config.output_dir


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
    for kind in ("catalog", "items", "files", "composites"):
        given = getattr(source, kind)
        # a store is no place of this machine; what may be read there its operator's login says
        if given is not None and not re.fullmatch(STORE_PATTERN, given):
            return {f"{name}.{kind}": source_file(source)}
    return {}
