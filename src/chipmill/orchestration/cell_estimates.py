"""What a backfill would cost, cell by cell: for ``dry_run``. Nothing is started, nothing written, no pixel read."""

import dataclasses
from collections.abc import Iterator

from chipmill.core.errors import ChipmillError
from chipmill.core.plain import markdown
from chipmill.core.units import describe, failures
from chipmill.dataset.manifest import current_dataset
from chipmill.imagery.bill import bill_of
from chipmill.imagery.catalog import find_items
from chipmill.imagery.planning import place_tiles
from chipmill.orchestration.grid_of_cells import Cell, Grid
from chipmill.orchestration.jobs import is_current
from chipmill.region.config import Region
from chipmill.region.plan import Estimate, cell_dir
from chipmill.report.numbers import count, duration, size

CURRENT, FAILED, CHANGED, NEW, BROKEN = "current", "failed before", "changed", "new", "cannot run"


@dataclasses.dataclass(frozen=True, slots=True)
class CellEstimate:
    """A cell before a backfill."""

    region: str
    file: str
    period: str
    state: str
    """current: nothing to do; failed before: an attempt with failed units is open; changed: another version is in force;
    new; cannot run: ``reason`` says why."""
    bill: Estimate | None
    """Of the dataset, at most; None where it cannot be said."""
    reason: str = ""


def estimate_cells(grid: Grid) -> Iterator[CellEstimate]:
    """Yield the estimate of each cell in order; each asks its catalog once or twice."""
    for cell in grid.cells:
        yield _estimate(cell)


def all_current(grid: Grid) -> bool:
    """Tell whether no cell needs a run; looks at the cells in order as far as the first that does.

    What a look raises is not told here: the backfill says it again, with the cell, when it comes to it.
    """
    try:
        return all(cell.job is not None and is_current(cell.job) for cell in grid.cells)
    except ChipmillError:
        return False


def _estimate(cell: Cell) -> CellEstimate:
    if cell.job is None or cell.job.region is None:
        return CellEstimate(cell.region, cell.file, cell.period, BROKEN, None, cell.trouble)
    try:
        region, tiles = place_tiles(cell.job.region)
        answer = find_items(cell.job.region, tiles)
        built = current_dataset(cell.job.region, answer, tiles) is not None
        current = built and (cell.job.kind == "build" or is_current(cell.job))
        bill = bill_of(region, tiles, answer)
    except ChipmillError as error:
        return CellEstimate(cell.region, cell.file, cell.period, BROKEN, None, describe(error))
    state = CURRENT if current else _state(cell.job.region)
    return CellEstimate(cell.region, cell.file, cell.period, state, bill)


def _state(region: Region) -> str:
    versions = cell_dir(region).versions
    if any(failures(versions.attempt_path(number)) for number in versions.attempts()):
        return FAILED
    return CHANGED if versions.current() is not None else NEW


def estimate_rows(estimates: tuple[CellEstimate, ...]) -> list[tuple[str, ...]]:
    """Return region, period, state, tiles, items, bytes to read, chips, time and reason of each cell, then of all.

    The last row sums what is not current: an upper bound, like each of them.
    """
    rows = [(one.region, one.period, one.state, *_figures([one]), one.reason) for one in estimates]
    todo = [one for one in estimates if one.state != CURRENT]
    return [*rows, (f"{len(todo)} to do", "", "", *_figures(todo), "")]


def _figures(estimates: list[CellEstimate]) -> tuple[str, ...]:
    bills = [one.bill for one in estimates if one.bill is not None]
    if not bills and estimates:
        return (count(None),) * 5
    return (
        count(sum(bill.tiles for bill in bills)),
        count(sum(bill.items for bill in bills)),
        size(sum(bill.read_bytes for bill in bills)),
        count(sum(bill.chips for bill in bills)),
        duration(60 * sum(bill.minutes for bill in bills)),
    )


HEAD = ("Region", "Period", "State", ">Tiles", ">Items", ">To read", ">Chips", ">Time", "Reason")


def show_estimates(grid: Grid) -> tuple[CellEstimate, ...]:
    """Return the estimates of all cells, and make their table as an artifact of the current run."""
    from prefect.artifacts import create_table_artifact

    estimates = tuple(estimate_cells(grid))
    names = [name.removeprefix(">").lower() for name in HEAD]
    table = [
        dict(zip(names, [*row[:-1], markdown(row[-1])], strict=True)) for row in estimate_rows(estimates)
    ]
    text = f"Estimate of {len(grid.cells)} cells; nothing was started"
    create_table_artifact(table, key=f"estimate-{grid.cells[0].slug}", description=text)
    return estimates
