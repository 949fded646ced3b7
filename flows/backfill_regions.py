"""One flow for many cells: region files x time ranges, each cell a run of its own; one that fails never stops the others."""

from typing import Annotated, Literal

from prefect import flow as prefect_flow
from pydantic import Field

from chipmill.orchestration.cell_estimates import CellEstimate, show_estimates
from chipmill.orchestration.cell_runs import work_grid
from chipmill.orchestration.cell_table import Row
from chipmill.orchestration.entry import require_roots
from chipmill.orchestration.grid_of_cells import Period, lay_grid


@prefect_flow(name="backfill-regions", flow_run_name="backfill-regions/{flow}")
def backfill_regions(
    flow: Literal["build_dataset", "predict_map", "refresh_region"],
    regions: Annotated[tuple[str, ...], Field(min_length=1)],
    time_ranges: tuple[Period, ...] = (),
    train: str | None = None,
    predict: str | None = None,
    at_once: Annotated[int, Field(ge=1)] = 1,
    only_failed: bool = False,
    dry_run: bool = False,
) -> tuple[Row, ...] | tuple[CellEstimate, ...]:
    """Bring many cells up to date, each only where the store lacks something.

    Args:
        flow: What is run for each cell, a region in a time range.
        regions: Paths of region files, relative to the first directory of CHIPMILL_ROOTS.
        time_ranges: Each region is run for each of them; left empty, for the range that its file names.
        train: Path of a train file, for refresh_region; left out, no model is trained.
        predict: Path of a predict file, for predict_map and refresh_region; left out, nothing is mapped.
        at_once: Most cells that run at the same time; 1 where a model is trained.
        only_failed: Pass over cells that did not fail before.
        dry_run: Only estimate what each cell would read and make; nothing is started and no pixel is read.
    """
    require_roots()
    spans = [(period.start, period.end) for period in time_ranges]
    grid = lay_grid(flow, regions, spans, train, predict)
    if dry_run:
        return show_estimates(grid)
    return work_grid(grid, at_once, only_failed)
