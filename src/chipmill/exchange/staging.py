"""An output folder that appears whole or not at all: written beside its place, synced, then renamed.

The file to change for how a conversion is committed. A kill leaves the hidden folder ``.<name>.partial``, which the
next conversion to the same place empties; nothing that stands is ever written over.
"""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from chipmill.core.errors import LockedError, OutputError
from chipmill.core.links import refuse_links
from chipmill.core.space import refuse_full, space_for
from chipmill.core.store import sync
from chipmill.region.roots import check_place


@contextlib.contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Give an empty folder to write into; when the block ends well it stands at ``out``, every byte synced.

    Any error removes what was written. Raises OutputError where ``out`` exists or cannot be made, LockedError where
    another conversion writes it, DiskFullError where no space is left, RegionFileError outside ``CHIPMILL_ROOTS``.
    """
    out = out.absolute()
    check_place("out", out)
    refuse_links(out)
    _refuse_present(out)
    staging = out.with_name(f".{out.name}.partial")
    with space_for(out), _claimed(staging):
        try:
            yield staging
            _sync_tree(staging)
            refuse_full(out)
            _refuse_present(out)
            staging.rename(out)
            sync(out.parent)
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def _refuse_present(out: Path) -> None:
    if os.path.lexists(out):
        raise OutputError(
            f"{out} is there already, and nothing is overwritten: name a folder that is not there"
        )


@contextlib.contextmanager
def _claimed(staging: Path) -> Iterator[None]:
    """Hold the folder ``staging``, emptied of what a killed conversion left; the claim falls with the process."""
    refuse_links(staging)
    try:
        staging.parent.mkdir(parents=True, exist_ok=True)
        staging.mkdir(exist_ok=True)
    except (PermissionError, NotADirectoryError, FileExistsError) as error:
        raise OutputError(
            f"{staging.parent} cannot be written ({error.strerror}): name another folder"
        ) from error
    handle = os.open(staging, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            same = os.path.samestat(os.fstat(handle), staging.stat())
        except (BlockingIOError, FileNotFoundError):
            same = False
        if not same:
            raise LockedError(f"another conversion is writing {staging}: wait for it to end, or end it")
        for left in staging.iterdir():
            if left.is_dir() and not left.is_symlink():
                shutil.rmtree(left)
            else:
                left.unlink()
        yield
    finally:
        os.close(handle)


def _sync_tree(folder: Path) -> None:
    for path in sorted(folder.rglob("*")):
        sync(path)
    sync(folder)
