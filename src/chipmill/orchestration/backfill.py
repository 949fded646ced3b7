"""Going over the grid of a backfill: at most so many cells at once, and one that fails never stops the others.

The store and the runs that the server knows say where each cell stands, so a backfill that was killed and is started
again finds its runs, and starts none twice. What speaks with the server is handed in (:class:`Runs`).
"""

import dataclasses
import datetime as dt
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final, Protocol

from chipmill.core.errors import BadInputError, ServerError, TilesFailedError
from chipmill.core.holder import killed_holder
from chipmill.core.units import describe
from chipmill.orchestration.cell_table import Row, RowState
from chipmill.orchestration.choosing import LIVE, CellRun, Choice, choose
from chipmill.orchestration.grid_of_cells import Cell, Grid
from chipmill.orchestration.interrupt import stop_if_asked
from chipmill.orchestration.jobs import Job, is_current
from chipmill.orchestration.progress import Progress, tell
from chipmill.region.config import Region
from chipmill.region.plan import cell_dir, region_dir

_OLD: Final = dt.timedelta(seconds=600)
"""Prefect gives a sign of life every 180 s: after three missed ones a run is dead."""
_BEAT_S: Final = 180.0
_SILENCE_S: Final = 600.0
"""So long the server may be away."""
_SECOND: Final = dt.timedelta(seconds=1)
_NAMED: Final = 20
"""Failed cells that the last sentence names; the table has all."""


class Runs(Protocol):
    """The workflow server, as much as a backfill needs of it. Each raises ServerError where it does not answer."""

    def history(self, cells: Sequence[Cell]) -> list[CellRun]:
        """Return all runs of cells, of whatever parameters."""

    def poll(self, ids: Sequence[str]) -> list[CellRun]:
        """Return runs by their ids, with one request."""

    def beats(self, ids: Sequence[str]) -> Mapping[str, dt.datetime]:
        """Return the last sign of life of runs."""

    def start(self, cell: Cell, key: str) -> CellRun:
        """Start a run of a key, or return the one that has it."""

    def retry(self, run: CellRun) -> CellRun:
        """Have a run tried again."""

    def crash(self, run: CellRun, reason: str) -> CellRun:
        """Write down that a run is dead."""


class CellsFailedError(TilesFailedError):
    """All cells of a backfill were gone through, and these failed; ``rows`` has how each stands."""

    def __init__(self, message: str, rows: tuple[Row, ...]) -> None:
        super().__init__(message)
        self.rows = rows

    def __reduce__(self) -> tuple[type, tuple[str, tuple[Row, ...]]]:
        return type(self), (str(self), self.rows)


@dataclasses.dataclass(slots=True)
class _Track:
    """A cell while the backfill goes on."""

    cell: Cell
    state: RowState = "waiting"
    reason: str = ""
    run: CellRun | None = None
    redrive: bool = True
    """Whether a run of it that failed is tried again: once for each call, and once more where it was found dead."""
    revived: bool = False

    @property
    def region(self) -> Region:
        assert self.cell.job is not None  # noqa: S101 - for the type checker; without one a cell has failed already
        assert self.cell.job.region is not None  # noqa: S101 - as above
        return self.cell.job.region

    def row(self) -> Row:
        seconds, url = (self.run.seconds, self.run.url) if self.run else (0.0, "")
        return Row(self.cell.region, self.cell.file, self.cell.period, self.state, seconds, self.reason, url)


@dataclasses.dataclass(slots=True)
class Backfill:
    """One call: goes over the grid until every cell is done, failed or passed over."""

    grid: Grid
    runs: Runs
    at_once: int
    only_failed: bool = False
    failed_before: Collection[str] = ()
    """Names of cells that are known to have failed without a run."""
    show: Callable[[tuple[Row, ...]], None] = lambda _: None
    current: Callable[[Job], bool] = is_current
    poll_s: float = 15.0
    _tracks: list[_Track] = dataclasses.field(init=False)
    _known: dict[str, CellRun] = dataclasses.field(default_factory=dict, init=False)
    _beats: Mapping[str, dt.datetime] = dataclasses.field(default_factory=dict, init=False)
    _asked: float = dataclasses.field(default=-_BEAT_S, init=False)
    _answered: float = dataclasses.field(default=0.0, init=False)

    def __post_init__(self) -> None:
        """Check what the cells have in common."""
        training = any(cell.job and cell.job.train for cell in self.grid.cells)
        if self.at_once < 1 or (training and self.at_once > 1):
            why = "cells that train share one model and its lock" if training else "it is a number of cells"
            raise BadInputError(f"at_once is {self.at_once}: {why}, use 1")
        self._tracks = [
            _Track(cell, "failed" if cell.trouble else "waiting", cell.trouble) for cell in self.grid.cells
        ]

    def work(self) -> tuple[Row, ...]:
        """Go over the grid and return how each cell stands.

        Raises CellsFailedError after all others are done where cells failed, ServerError where the server is away for
        ten minutes.
        """
        found = self.runs.history([track.cell for track in self._open()])
        self._known = {run.id: run for run in found}
        self._answered = time.monotonic()
        while self._open():
            begun = time.monotonic()
            self._fill(begun + self.poll_s)
            self._tell()
            if self._open():
                stop_if_asked()
                time.sleep(max(0.0, begun + self.poll_s - time.monotonic()))
                self._poll()
        self._tell()
        return self._end()

    def _open(self) -> list[_Track]:
        return [track for track in self._tracks if track.state in ("waiting", "running")]

    def _flying(self) -> list[_Track]:
        return [track for track in self._tracks if track.state == "running"]

    def _fill(self, until: float) -> None:
        """Give free places to the next cells in order; a look takes time, so what flies is polled in between.

        Whatever goes wrong with a cell is its own failure.
        """
        for track in [one for one in self._tracks if one.state == "waiting"]:
            flying = self._flying()
            if len(flying) >= self.at_once or (flying and time.monotonic() > until):
                return None
            if self._waits_for_blocks(track, flying):
                continue
            try:
                self._take(track, self._choose(track))
            except ServerError as error:
                return self._bear(error)
            except Exception as error:  # noqa: BLE001 - listed with its reason; the other cells go on
                track.state, track.reason = "failed", describe(error)
            self._tell()
        return None

    def _waits_for_blocks(self, track: _Track, flying: Sequence[_Track]) -> bool:
        """Tell whether another cell is about to deal the region's blocks: they must not depend on who comes first."""
        place = region_dir(track.region)
        shared = any(region_dir(other.region) == place for other in flying)
        return shared and track.region.labels is not None and not place.blocks.is_file()

    def _choose(self, track: _Track) -> Choice:
        cell = track.cell
        job = cell.job
        return choose(
            cell,
            runs=[run for run in self._known.values() if run.key.startswith(cell.stem)],
            current=lambda: job is not None and self.current(job),
            dead=lambda run: self._death(track, run),
            redrive=track.redrive,
            only_failed=self.only_failed,
            failed_before=cell.name in self.failed_before,
        )

    def _take(self, track: _Track, choice: Choice) -> None:
        run = choice.run
        if choice.act == "crash" and run is not None:
            self._bury(track, run, choice.reason)
            choice = self._choose(track) if track.state == "waiting" else choice
            run = choice.run
        if choice.act == "done":
            track.state = "current"
        elif choice.act == "skip":
            track.state, track.reason = "passed over", "it did not fail before"
        elif choice.act == "list":
            track.state, track.reason, track.run = "failed", choice.reason, run
        elif choice.act == "start":
            self._fly(track, self.runs.start(track.cell, choice.key))
        elif choice.act == "retry" and run is not None:
            self._fly(track, self.runs.retry(run))
        elif choice.act == "adopt" and run is not None:
            self._fly(track, run)

    def _fly(self, track: _Track, run: CellRun) -> None:
        self._known[run.id] = run
        track.state, track.reason, track.run, track.redrive = "running", "", run, False
        if run.state not in LIVE:  # another backfill was faster
            self._land(track, run)

    def _bury(self, track: _Track, run: CellRun, reason: str) -> None:
        """Write down that a run is dead; it is tried again, once."""
        gone = self.runs.crash(run, reason)
        self._known[gone.id] = gone
        track.state, track.reason, track.run = ("failed" if track.revived else "waiting"), reason, gone
        track.redrive, track.revived = True, True

    def _poll(self) -> None:
        flying = {track.run.id: track for track in self._flying() if track.run}
        if not flying:
            return
        try:
            found = {run.id: run for run in self.runs.poll(list(flying))}
            self._answered = time.monotonic()
            self._known |= found
            for one, track in flying.items():
                self._follow(track, found.get(one))
        except ServerError as error:
            self._bear(error)

    def _bear(self, error: ServerError) -> None:
        """Go on without the server for a while: it may be starting anew."""
        if time.monotonic() - self._answered > max(_SILENCE_S, 2 * self.poll_s):
            raise error

    def _follow(self, track: _Track, run: CellRun | None) -> None:
        if run is None:
            track.state, track.reason = "failed", "its run was deleted on the server"
            return
        track.run = run
        if run.state not in LIVE:
            self._land(track, run)
        elif why := self._death(track, run):
            self._bury(track, run, why)

    def _land(self, track: _Track, run: CellRun) -> None:
        """Take note of how a run ended; one of other parameters only had to be waited for."""
        if not run.is_of(track.cell):
            track.state, track.run, track.redrive = "waiting", None, True
        elif run.state != "completed":
            track.state, track.reason = "failed", run.message
        elif cell_dir(track.region).versions.current() is None:
            track.state = "failed"
            track.reason = (
                f"its run completed, but {cell_dir(track.region).root} holds no version in force: let the worker see "
                "the same output as this backfill"
            )
        else:
            track.state, track.reason = "done", ""

    def _death(self, track: _Track, run: CellRun) -> str:
        """Say why a live run must be dead: its process was killed on this host, or it gave no sign for ten minutes."""
        killed = killed_holder(cell_dir(track.region).lock) if run.state == "running" else None
        if killed is not None and killed >= run.since - _SECOND:
            return "the process that worked on it was killed"
        now = dt.datetime.now(dt.UTC)
        if run.state == "scheduled" or now - run.since < _OLD:
            return ""
        if now - self._beats.get(run.id, run.since) > _OLD and time.monotonic() - self._asked > _BEAT_S:
            self._asked = time.monotonic()
            self._beats = self.runs.beats([one.id for one in self._known.values() if one.state in LIVE])
        silent = now - max(run.since, self._beats.get(run.id, run.since))
        return f"it has given no sign of life for {silent.total_seconds():.0f} s" if silent > _OLD else ""

    def _tell(self) -> None:
        rows = tuple(track.row() for track in self._tracks)
        failed = sum(row.state == "failed" for row in rows)
        tell(Progress("cells", len(rows) - len(self._open()) - failed, failed, len(rows)))
        self.show(rows)

    def _end(self) -> tuple[Row, ...]:
        rows = tuple(track.row() for track in self._tracks)
        lost = [track.cell for track in self._tracks if track.state == "failed"]
        if lost:
            raise CellsFailedError(self._sentence(lost), rows)
        return rows

    def _sentence(self, lost: Sequence[Cell]) -> str:
        reasons = {track.cell.name: track.reason for track in self._tracks}
        named = [f"{cell.name} ({reasons[cell.name]})" for cell in lost[:_NAMED]]
        more = [f"{len(lost) - _NAMED} more"] if len(lost) > _NAMED else []
        return (
            f"{len(lost)} of {len(self._tracks)} cells failed, all others were gone through: "
            f"{'; '.join([*named, *more])}: redo only the failed ones with: {self.grid.redo(lost)}"
        )
