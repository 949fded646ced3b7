"""What a cell of a backfill needs next, from what the store has and what the workflow server knows of its runs.

To change when a cell is run again, or when a run counts as dead, this is the file.
"""

import dataclasses
import datetime as dt
from collections.abc import Callable, Sequence
from typing import Final, Literal

from chipmill.orchestration.grid_of_cells import Cell

type State = Literal["scheduled", "pending", "running", "completed", "failed", "crashed", "cancelled"]
LIVE: Final = ("scheduled", "pending", "running")
LOST: Final = ("failed", "crashed", "cancelled")


@dataclasses.dataclass(frozen=True, slots=True)
class CellRun:
    """A run as the workflow server knows it."""

    id: str
    key: str
    state: State
    since: dt.datetime
    """Since when it is in this state."""
    seconds: float = 0.0
    """That it has worked, over all its tries."""
    message: str = ""
    url: str = ""

    @property
    def number(self) -> int:
        """The n of its key."""
        return int(self.key.rpartition("/")[2])

    def is_of(self, cell: Cell) -> bool:
        """Tell whether it was started with the cell's parameters."""
        return self.key.startswith(f"{cell.stem}{cell.fingerprint}/")


type Act = Literal["done", "adopt", "crash", "start", "retry", "list", "skip"]


@dataclasses.dataclass(frozen=True, slots=True)
class Choice:
    """What to do with a cell, to which of its runs, and why."""

    act: Act
    run: CellRun | None = None
    key: str = ""
    reason: str = ""


def choose(
    cell: Cell,
    *,
    runs: Sequence[CellRun],
    current: Callable[[], bool],
    dead: Callable[[CellRun], str],
    redrive: bool = True,
    only_failed: bool = False,
    failed_before: bool = False,
) -> Choice:
    """Say what a cell that can be run needs next.

    Args:
        cell: the cell.
        runs: all runs of the cell, of whatever parameters.
        current: whether the store has everything that the cell asks for; asked only where it matters.
        dead: why a live run is known to be dead, "" where it is not.
        redrive: whether a run that failed is tried again, else it is listed.
        only_failed: whether a cell is passed over that did not fail before.
        failed_before: whether the cell is known to have failed without a run.
    """
    ordered = sorted(runs, key=lambda run: (run.since, run.number))
    # A live run holds the cell's lock, whatever its parameters are: a second one beside it could only fail.
    live = [run for run in ordered if run.state in LIVE]
    if live:
        why = dead(live[-1])
        return Choice("crash" if why else "adopt", live[-1], reason=why)
    if only_failed and not (failed_before or (ordered and ordered[-1].state in LOST)):
        return Choice("skip")
    if current():
        return Choice("done")
    own = max((run for run in ordered if run.is_of(cell)), key=lambda run: run.number, default=None)
    if own is not None and own.state in LOST:
        return Choice("retry" if redrive else "list", own, reason=own.message)
    # What completed and is not current any more had other input then: a new number, since its key gives the old run.
    return Choice("start", key=cell.key(own.number + 1 if own else 1))
