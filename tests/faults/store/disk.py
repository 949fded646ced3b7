"""A small disk that is nearly full, and what a run must say that finds no space on it."""

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SIZE = 4 << 20
"""Bytes of the disk."""
PAGE = 4096
_SENTENCE = re.compile(
    r"no space is left to write (\S+) \(([\d,]+) bytes free\): free some and run the same command"
)


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
