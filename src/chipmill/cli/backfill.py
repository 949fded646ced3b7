"""`backfill`: many cells by one command, on a running `chipmill up` or on a service of its own."""

import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from chipmill.cli.console import Terminal
from chipmill.cli.progress import bars
from chipmill.core.errors import BadInputError, RegionFileError

if TYPE_CHECKING:
    import datetime as dt

    from chipmill.orchestration.cell_table import Row
    from chipmill.orchestration.grid_of_cells import FlowName, Grid
    from chipmill.region.fields import FileModel


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line was asked for."""

    flow: "FlowName"
    regions: tuple[Path, ...]
    time_ranges: tuple[str, ...]
    """As 2019-01-01--2020-01-01, the end excluded."""
    train: Path | None
    predict: Path | None
    at_once: int
    only_failed: bool
    dry_run: bool

    def grid(self) -> tuple[Any, ...]:
        """Return the arguments that lay the grid; paths are absolute, since a worker has another working directory."""
        files = tuple(str(file.absolute()) for file in self.regions)
        train, predict = (str(file.absolute()) if file else None for file in (self.train, self.predict))
        return self.flow, files, tuple(_span(text) for text in self.time_ranges), train, predict


def run_backfill(view: Terminal, asked: Asked) -> None:
    """Bring the cells of region files x time ranges up to date; exits with 3 where cells failed.

    Raises BadInputError for what concerns all cells; a region file that is broken is one cell that failed.
    """
    from chipmill.orchestration.grid_of_cells import lay_grid
    from chipmill.region.roots import own_roots

    configs = _readable(asked)
    with own_roots(configs):
        grid = lay_grid(*asked.grid())
        if asked.dry_run:
            _show_estimates(view, grid)
            return
        rows = _work(view, grid, configs, asked)
    _finish(view, rows)


def _span(text: str) -> "tuple[dt.date, dt.date]":
    import datetime as dt

    try:
        start, end = (dt.date.fromisoformat(part) for part in text.split("--"))
    except ValueError as error:
        raise BadInputError(
            f"--time-range takes two days, the second excluded, as 2019-01-01--2020-01-01, got {text!r}"
        ) from error
    return start, end


def _readable(asked: Asked) -> "list[FileModel]":
    """Return the files that can be read; what is wrong with the others is said cell by cell."""
    from chipmill.region.load import load_predict, load_region, load_train

    wanted: list[tuple[Any, Path]] = [(load_region, file) for file in asked.regions]
    wanted += [
        (load, file) for load, file in ((load_train, asked.train), (load_predict, asked.predict)) if file
    ]
    configs: list[FileModel] = []
    for load, file in wanted:
        try:
            configs.append(load(file))
        except RegionFileError:
            continue
    return configs


def _work(view: Terminal, grid: "Grid", configs: "Iterable[FileModel]", asked: Asked) -> "tuple[Row, ...]":
    """Run the flow in this process, its cells in those of workers; nothing is started where all is up to date."""
    from chipmill.orchestration.backfill import CellsFailedError
    from chipmill.orchestration.cell_estimates import all_current
    from chipmill.orchestration.cell_table import Row
    from chipmill.orchestration.grid_of_cells import Period
    from chipmill.orchestration.interrupt import interruptible
    from chipmill.orchestration.progress import listening
    from chipmill.orchestration.run import ending_on_sigterm
    from chipmill.orchestration.up import UpOptions, service

    if not asked.only_failed and all_current(grid):
        return tuple(Row(cell.region, cell.file, cell.period, "current", 0.0, "", "") for cell in grid.cells)
    options = UpOptions(roots=_own_roots(configs), at_once=max(asked.at_once, 1))
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    with (
        bars(view) as listener,
        listening(listener),
        interruptible(),
        ending_on_sigterm(),
        service(meanwhile=_flow, options=options),
    ):
        flow, files, spans, train, predict = asked.grid()
        periods = tuple(Period(start=start, end=end) for start, end in spans)
        words = (flow, files, periods, train, predict, asked.at_once, asked.only_failed)
        outcome = _flow()(*words, return_state=True).result(raise_on_failure=False)
    if isinstance(outcome, CellsFailedError):
        view.say(str(outcome), "red")
        return outcome.rows
    if isinstance(outcome, BaseException):
        raise outcome
    made: tuple[Row, ...] = outcome
    return made


def _flow() -> Any:
    from chipmill.flows.backfill_regions import backfill_regions

    return backfill_regions


def _own_roots(configs: "Iterable[FileModel]") -> tuple[Path, ...]:
    """Return where the cells of our own service may read and write: what the user's own files name.

    Empty where CHIPMILL_ROOTS is set: then that holds, with the folders of the files (`region.roots.own_roots`).
    """
    from chipmill.region.roots import paths_of, roots

    if roots():
        return ()
    places = [Path.cwd()]
    for config in configs:
        named = [config.resolve(path) for path in paths_of(config).values()]
        places += [config.resolve("."), *(path if path.is_dir() else path.parent for path in named)]
    return tuple(dict.fromkeys(place for place in places if place.is_dir()))


def _show_estimates(view: Terminal, grid: "Grid") -> None:
    from chipmill.orchestration.cell_estimates import HEAD, estimate_cells, estimate_rows

    estimates = tuple(estimate_cells(grid))
    rows = [row[:-1] for row in estimate_rows(estimates)]
    view.table(HEAD[:-1], rows, f"{grid.flow}: at most; nothing was started and no pixel was read")
    for one in estimates:
        if one.reason:
            view.say(f"{one.region}/{one.period}: {one.reason}", "red")
    view.result({"ok": True, "cells": [asdict(one) for one in estimates]})


def _finish(view: Terminal, rows: "tuple[Row, ...]") -> None:
    from chipmill.orchestration.jobs import UP_TO_DATE
    from chipmill.report.numbers import DASH, duration

    lines = [
        (row.region, row.period, row.state, duration(row.seconds) if row.seconds else DASH) for row in rows
    ]
    view.table(("Region", "Period", "State", ">Worked"), lines)
    if all(row.state == "current" for row in rows):
        view.say(UP_TO_DATE, "green")
    code = 3 if any(row.state == "failed" for row in rows) else 0
    view.result({"ok": code == 0, "exit_code": code, "cells": [asdict(row) for row in rows]})
    if code:
        raise typer.Exit(code)
