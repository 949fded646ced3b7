"""Versioned directories: attempts ``.<n>``, committed versions ``<n>`` and the pointer ``CURRENT``.

A cell, a model and a map are each such a directory. An attempt has the depth and the files of a version, so a commit
is one rename; the pointer is swapped after it. Both can be repeated after a kill with the same result.
"""

import dataclasses
import os
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Final

from chipmill.core.errors import StoreError, VersionNotFoundError
from chipmill.core.links import refuse_links
from chipmill.core.space import space_for
from chipmill.core.store import (
    is_good,
    link_file,
    read_json,
    read_sidecar,
    sidecar_path,
    sync,
    write_json,
    write_text,
)

_WORKING: Final = ("started", "staging", "units")
"""Folders of an attempt that a version does not have; units/ holds the stamp, so it goes last."""
_STAMP: Final = "units/attempt.json"


@dataclasses.dataclass(frozen=True, slots=True)
class Versions:
    """Where the versions of one thing lie, and where its pointer is."""

    folder: Path
    """Holds ``<n>/`` and ``.<n>/``."""
    pointer: Path
    """The file CURRENT: the decimal number of the version in force and a newline."""

    def path(self, number: int) -> Path:
        """Return the directory of a committed version."""
        return self.folder / str(number)

    def attempt_path(self, number: int) -> Path:
        """Return the directory of an attempt."""
        return self.folder / f".{number}"

    def numbers(self) -> list[int]:
        """Return the committed versions, oldest first."""
        return sorted(int(path.name) for path in _children(self.folder) if path.name.isdigit())

    def newest(self) -> int | None:
        """Return the newest committed version, in force or not, or None: what a new attempt takes its good files from.

        A run that was killed between the rename and the swap of the pointer left one that is complete.
        """
        return max(self.numbers(), default=None)

    def attempts(self) -> list[int]:
        """Return the open attempts, oldest first."""
        names = [path.name for path in _children(self.folder)]
        return sorted(int(name[1:]) for name in names if name.startswith(".") and name[1:].isdigit())

    def current(self) -> int | None:
        """Return the number of the version in force, or None."""
        try:
            number = int(self.pointer.read_text())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except ValueError as error:
            raise StoreError(
                f"{self.pointer} does not hold a number: write the number of a version into it"
            ) from error
        return number if self.path(number).is_dir() else None

    def current_path(self) -> Path:
        """Return the directory of the version in force; raises VersionNotFoundError where there is none."""
        number = self.current()
        if number is None:
            raise VersionNotFoundError(f"{self.folder} has no version in force: run it first")
        return self.path(number)


def _children(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def open_attempt(versions: Versions, fingerprint: str, *, fresh: bool = False) -> Path:
    """Return the attempt to work in: the open one of the same fingerprint, else a new one.

    ``fingerprint`` is that of the configuration; an attempt of another one is discarded, and any is when ``fresh``.
    Call it under the lock of the thing.
    """
    for number in versions.attempts():
        path = versions.attempt_path(number)
        refuse_links(path)
        stamp = path / _STAMP
        same = stamp.exists() and read_json(stamp).get("fingerprint") == fingerprint
        if same and not fresh and number not in versions.numbers():
            return path
        shutil.rmtree(path)
    number = max([0, *versions.numbers()]) + 1
    path = versions.attempt_path(number)
    write_json(path / _STAMP, {"fingerprint": fingerprint})
    return path


def seed(attempt: Path, version: Path, leave: Collection[str] = ()) -> int:
    """Hard-link every good file of a version into an attempt that has no file of that name; return how many.

    Only what has a good sidecar is taken; ``leave`` names files (relative) that are never taken over. Each stage
    compares fingerprints, so what no longer fits is remade, and :func:`prune` drops what nobody names.
    """
    count = 0
    for path in sorted(version.rglob("*")):
        name = path.relative_to(version).as_posix()
        if path.is_dir() or name in leave or read_sidecar(path) is None or (attempt / name).exists():
            continue
        if is_good(path):
            link_file(path, attempt / name)
            count += 1
    return count


def prune(attempt: Path, keep: Collection[Path]) -> None:
    """Remove the committed files of an attempt that are not in ``keep`` (units and working folders are left)."""
    refuse_links(attempt)
    kept = {os.fspath(path) for path in keep} | {os.fspath(sidecar_path(path)) for path in keep}
    for folder, names, files in os.walk(attempt):
        if folder == os.fspath(attempt):
            names[:] = [name for name in names if name not in _WORKING]
        for path in (f"{folder}/{file}" for file in files):
            if path not in kept:
                Path(path).unlink()


def publish(versions: Versions, attempt: Path) -> int:
    """Turn a sealed attempt into the version in force and return its number; safe to repeat after a kill."""
    number = int(attempt.name.lstrip("."))
    final = versions.path(number)
    refuse_links(final)
    if attempt.is_dir():
        refuse_links(attempt)
        for folder in (attempt / name for name in _WORKING):
            refuse_links(folder)
            if folder.is_dir():
                shutil.rmtree(folder)
        with space_for(final):
            attempt.rename(final)
    if not final.is_dir():
        raise StoreError(f"{attempt} is gone before it was committed: run the same command again")
    with space_for(final):
        sync(versions.folder)
    write_text(versions.pointer, f"{number}\n")
    return number
