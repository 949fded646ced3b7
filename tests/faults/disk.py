"""A small disk that is nearly full, and what a run must say that finds no space on it."""

import contextlib
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

SIZE = 4 << 20
"""Bytes of the disk."""
PAGE = 4096
_SENTENCE = re.compile(
    r"no space is left to write (\S+) \(([\d,]+) bytes free\): free some and run the same command"
)


@contextlib.contextmanager
def small_disk(folder, size):
    """Mount a file system of ``size`` bytes on a folder; skips where that is not allowed."""
    folder.mkdir()
    if shutil.which("mount") is None:
        pytest.skip("no tmpfs can be mounted here: there is no mount")
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder]
    mounted = subprocess.run(command, check=False, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def fill(folder: Path, leave: int) -> None:
    """Take all space but ``leave`` bytes."""
    with (folder / "filler").open("wb") as stream:
        stream.write(bytes(shutil.disk_usage(folder).free - leave))


def empty(folder: Path) -> None:
    """Give back what was taken."""
    (folder / "filler").unlink()


def refused_path(told: Mapping[str, Any], folder: Path, leave: int) -> str:
    """Return the file that a run in ``folder`` could not write, by the one sentence that it must have said."""
    said = _SENTENCE.search(told["message"])
    assert said, told
    assert said[1].startswith(str(folder / "out"))
    assert int(said[2].replace(",", "")) <= leave
    return said[1]
