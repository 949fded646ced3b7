"""The full disk: what it looks like from Python, pyarrow and GDAL, and the one sentence that names it."""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from chipmill.core.errors import ChipmillError, DiskFullError

_PAGE: Final = 4096
"""Bytes; with less than that free a file system counts as full."""


@contextlib.contextmanager
def space_for(path: Path) -> Iterator[None]:
    """Raise DiskFullError for ``path`` where an error of the block comes from a full disk; others pass as they are.

    ENOSPC and EDQUOT say so themselves; GDAL's errors have no number, and there the free space tells.
    """
    try:
        yield
    except ChipmillError:
        raise  # it says already what is wrong
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT) and (error.errno or not _is_full(path)):
            raise
        raise DiskFullError(
            f"no space is left to write {path} ({_free(path)[0]:,} bytes free): free some and run the same command again"
        ) from error


def refuse_full(path: Path) -> None:
    """Raise OSError (ENOSPC) where nothing that was just written beside ``path`` can be believed.

    GDAL writes the last blocks of a file when it closes it, and a full disk loses them without a word.
    """
    if _is_full(path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _is_full(path: Path) -> bool:
    free, total = _free(path)
    return total > 0 and free < _PAGE  # file systems that know no size say 0 of 0


def _free(path: Path) -> tuple[int, int]:
    """Free and all bytes at the nearest folder that exists: a full disk may have refused the others."""
    usage = shutil.disk_usage(next(folder for folder in path.parents if folder.is_dir()))
    return usage.free, usage.total
