"""The directory of this machine and user for what is no product: databases, logs, scratch, locks between processes."""

import os
from pathlib import Path

from chipmill.core.errors import ServerError


def state_dir() -> Path:
    """Return ``CHIPMILL_STATE_DIR``, else the XDG state directory, as an absolute path; it need not exist."""
    named = os.environ.get("CHIPMILL_STATE_DIR")
    if named:
        return Path(named).expanduser().absolute()
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "chipmill"


def make_state_dir(path: Path) -> Path:
    """Make a directory that only this user can read (it holds databases and logs) and return it.

    Raises ServerError where that is impossible.
    """
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.chmod(0o700)
    except OSError as error:
        raise ServerError(
            f"the state directory {path} cannot be made ({error.strerror}): set CHIPMILL_STATE_DIR to a local folder "
            "of yours"
        ) from error
    return path
