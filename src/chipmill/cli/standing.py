"""`chipmill status`: where each cell of an output directory stands, read from the store alone."""

import fcntl
import os
import re
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from chipmill.core.paths import CellDir, OutputDir
from chipmill.core.store import read_json

_HOLDER: Final = re.compile(r" on (?P<host>\S+) \(pid (?P<pid>\d+)\)")


@dataclass(frozen=True, slots=True)
class StageStanding:
    """Units of one stage of an open attempt."""

    stage: str
    units: int
    done: int
    failed: int


@dataclass(frozen=True, slots=True)
class CellStanding:
    """Where one cell stands."""

    region: str
    cell: str
    version: int | None
    """In force."""
    attempt: int | None
    """Open, to be continued by the next run."""
    stages: tuple[StageStanding, ...]
    """Of the open attempt."""
    holder: str | None
    """Of the lock: run, host, process, since when; None where nobody works on the cell."""


def read_standing(
    output: Path, region: str | None = None, cell: str | None = None
) -> tuple[CellStanding, ...]:
    """Return the cells of an output directory, all or those of one region or one ``start--end``, in order of name."""
    regions = OutputDir(output).region(region or "x").root.parent
    names = [region] if region else sorted(path.name for path in regions.glob("*") if path.is_dir())
    cells = [
        (name, path)
        for name in names
        for path in sorted((regions / name).glob(cell or "*--*"))
        if path.is_dir()
    ]
    return tuple(_read_cell(name, CellDir(path)) for name, path in cells)


def _read_cell(region: str, cell: CellDir) -> CellStanding:
    attempts = cell.versions.attempts()
    attempt = attempts[-1] if attempts else None
    stages = () if attempt is None else _read_stages(cell.versions.attempt_path(attempt))
    return CellStanding(
        region, cell.root.name, cell.versions.current(), attempt, stages, lock_holder(cell.lock)
    )


def _read_stages(attempt: Path) -> tuple[StageStanding, ...]:
    """Count the results that stand below ``units/``, in the order in which the stages were planned."""
    plans = [path for path in (attempt / "units").glob("*.json") if not path.name.endswith(".parquet.json")]
    stages = []
    for path in sorted(plans, key=lambda path: path.stat().st_mtime_ns):
        plan = read_json(path)
        if "batches" in plan:
            folder = path.with_suffix("")
            done, failed = (len(list(folder.glob(f"*.{kind}"))) for kind in ("parquet", "failed.json"))
            stages.append(StageStanding(path.stem, len(plan["units"]), done, failed))
    return tuple(stages)


def lock_holder(path: Path) -> str | None:
    """Return who holds a lock, None where it is free.

    The file keeps the name of its last holder; only where that process still lives on this host is the lock itself
    asked, so that a look never stands in the way of a run that begins.
    """
    text = path.read_text(errors="replace").strip() if path.is_file() else ""
    found = _HOLDER.search(text)
    if found is None or (found["host"] == socket.gethostname() and not _lives(int(found["pid"]))):
        return None
    handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return text
    finally:
        os.close(handle)
    return None


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
