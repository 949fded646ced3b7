"""Links are never followed when an output is written or cleaned: a planted one would lead us to files of others.

The directory that the field ``output`` names may itself be a link, and so may all above it; below it nothing may be.
"""

from itertools import takewhile
from pathlib import Path
from typing import Final

from chipmill.core.errors import StoreError

_ROOMS: Final = frozenset({"regions", "models", "maps"})
"""What an output directory holds, see :mod:`chipmill.core.paths`."""


def output_of(path: Path) -> Path | None:
    """Return the output directory that a path lies in by its names, or None for a path that is in no room of one."""
    parts = path.parts
    for number in range(len(parts) - 1, 0, -1):
        if parts[number] in _ROOMS:
            return Path(*parts[:number])
    return None


def refuse_links(path: Path) -> None:
    """Raise StoreError when ``path``, or a folder between it and its output directory, is a symbolic link.

    A path that lies in no output is looked at alone.
    """
    top = output_of(path)
    below = () if top is None else takewhile(lambda folder: folder != top, path.parents)
    for one in (path, *below):
        if one.is_symlink():
            raise StoreError(
                f"{one} is a link, and links inside an output are not followed when it is written or cleaned: "
                "remove it; to keep the output elsewhere let the output directory itself be the link"
            )
