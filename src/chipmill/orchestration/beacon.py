"""How a command finds a running `chipmill up`: a private file with its address, and a lock that falls with it.

The file alone proves nothing, since kill -9 leaves it behind: it counts only while the lock is held.
"""

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from chipmill.core.errors import LockedError
from chipmill.core.holder import is_locked
from chipmill.core.store import lock

_FILE: Final = "up.json"
_LOCK: Final = "up.lock"
_PRIVATE: Final = 0o600


@dataclasses.dataclass(frozen=True, slots=True)
class Beacon:
    """What a running `chipmill up` tells other commands of the same user."""

    url: str
    """Of its API, ending in /api."""
    user: str
    password: str
    pid: int


@contextlib.contextmanager
def hold_beacon(state_dir: Path) -> Iterator[None]:
    """Be the one `chipmill up` of a state directory; raises LockedError that says who is, and where."""
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(_locked(state_dir))
        except LockedError as error:
            found = read_beacon(state_dir)
            where = f" at {found.url.removesuffix('/api')} (pid {found.pid})" if found else ", still starting"
            raise LockedError(
                f"`chipmill up` runs already with the state directory {state_dir}{where}: use that one, end it, or set "
                "CHIPMILL_STATE_DIR to another folder"
            ) from error
        (state_dir / _FILE).unlink(missing_ok=True)  # of one that was killed
        try:
            yield
        finally:
            (state_dir / _FILE).unlink(missing_ok=True)


def _locked(state_dir: Path) -> contextlib.AbstractContextManager[object]:
    """Return the lock, taken; a command that only looks whether it is held holds it for a moment."""
    held = contextlib.ExitStack()
    try:
        held.enter_context(lock(state_dir / _LOCK, "up"))
    except LockedError:
        held.enter_context(
            lock(state_dir / _LOCK, "up")
        )  # the first try has waited for the name of the holder
    return held


def light(state_dir: Path, beacon: Beacon) -> None:
    """Tell other commands of this user where we are; only the holder of the beacon does."""
    fresh = state_dir / f"{_FILE}.new"
    fresh.unlink(missing_ok=True)
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, _PRIVATE)
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        json.dump(dataclasses.asdict(beacon), stream)
    fresh.replace(state_dir / _FILE)


def is_held(state_dir: Path) -> bool:
    """Tell whether a `chipmill up` of this state directory lives, ready or still starting."""
    return is_locked(state_dir / _LOCK)


def read_beacon(state_dir: Path) -> Beacon | None:
    """Return what the living `chipmill up` tells; None where none lives or it is still starting."""
    if not is_held(state_dir):
        return None
    try:
        facts = json.loads((state_dir / _FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return Beacon(**facts)
