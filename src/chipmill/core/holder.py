"""Who holds a lock, or held it when it was killed: asked without standing in the way of a run that begins.

:func:`chipmill.core.store.lock` writes the holder's name into the file and empties it when the block ends; a name that
stands in a lock that is free was left by a process that was killed.
"""

import datetime as dt
import fcntl
import os
import re
import socket
from pathlib import Path
from typing import Final

_HOLDER: Final = re.compile(r" on (?P<host>\S+) \(pid (?P<pid>\d+)\) since (?P<since>\S+)")


def killed_holder(path: Path) -> dt.datetime | None:
    """Return when the holder of a lock took it that was then killed on this host; None where none was."""
    text = _read(path)
    found = _HOLDER.search(text)
    if found is None or found["host"] != socket.gethostname() or lock_holder(path) is not None:
        return None
    # it may have ended in order, or another one begun, since the text was read
    return dt.datetime.fromisoformat(found["since"]) if _read(path) == text else None


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return ""  # it may have been removed this moment, as a backfill that ends removes its own


def lock_holder(path: Path) -> str | None:
    """Return who holds a lock, None where it is free.

    The file keeps the name of its last holder; only where that process still lives on this host is the lock itself
    asked, so that a look never stands in the way of a run that begins.
    """
    text = _read(path)
    found = _HOLDER.search(text)
    if found is None or (found["host"] == socket.gethostname() and not _lives(int(found["pid"]))):
        return None
    return text if is_locked(path) else None


def is_locked(path: Path) -> bool:
    """Tell whether a lock is held; the look itself holds it for a moment, shared with other looks."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return False  # nobody made one here, and `lock` says what is wrong with the place
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
