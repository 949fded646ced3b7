"""Links are never followed when an output is written or cleaned: a planted one would lead us to files of others.

The directory that the field ``output`` names may itself be a link, and so may all above it; below it nothing may be.
"""

import os
from pathlib import Path
from typing import Final

from chipmill.core.errors import StoreError

_ROOMS: Final = frozenset({"regions", "models", "maps"})
"""What an output directory holds, see :mod:`chipmill.core.paths`."""


def output_of(path: Path) -> Path | None:
    """Return the output directory that a path lies in by its names, or None for a path that is in no room of one."""
    number = _room(path.parts)
    return Path(*path.parts[:number]) if number else None


def _room(parts: tuple[str, ...]) -> int:
    """Return which of the parts of a path is the room of an output, 0 where none is."""
    return next((number for number in range(len(parts) - 1, 0, -1) if parts[number] in _ROOMS), 0)


def refuse_links(path: Path) -> None:
    """Raise StoreError when ``path``, or a folder between it and its output directory, is a symbolic link.

    A path that lies in no output is looked at alone.
    """
    parts = path.parts
    room = _room(parts)
    one = os.fspath(path)
    for _ in range(len(parts) - room if room else 1):
        if os.path.islink(one):  # noqa: PTH114 - pathlib takes several times as long, and every file asks
            raise StoreError(
                f"{one} is a link, and links inside an output are not followed when it is written or cleaned: "
                "remove it; to keep the output elsewhere let the output directory itself be the link"
            )
        one = os.path.dirname(one)  # noqa: PTH120
