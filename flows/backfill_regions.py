"""One flow for many cells: region files x time ranges, each cell a run of its own; one that fails never stops the others."""

import datetime as dt
from typing import Literal

from prefect import flow as prefect_flow

from chipmill.orchestration.cell_estimates import CellEstimate, show_estimates
from chipmill.orchestration.cell_runs import work_grid
from chipmill.orchestration.cell_table import Row
from chipmill.orchestration.entry import require_roots
from chipmill.orchestration.grid_of_cells import lay_grid


@prefect_flow(name="backfill-regions", flow_run_name="backfill-regions/{flow}")
def backfill_regions(
    flow: Literal["build_dataset", "predict_map", "refresh_region"],
    regions: tuple[str, ...],
    time_ranges: tuple[tuple[dt.date, dt.date], ...] = (),
    train: str | None = None,
    predict: str | None = None,
    at_once: int = 1,
    only_failed: bool = False,
    dry_run: bool = False,
) -> tuple[Row, ...] | tuple[CellEstimate, ...]:
    """Bring many cells up to date, each only where the store lacks something.

    Args:
        flow: what is run for each cell.
        regions: paths of region files, relative to the first directory of CHIPMILL_ROOTS.
        time_ranges: half-open pairs of days, first and the one after the last; empty: the range of each region file.
        train: path of a train file, for refresh_region; null: no model is trained.
        predict: path of a predict file, for predict_map and refresh_region; null: nothing is mapped.
        at_once: most cells that run at the same time; 1 where a model is trained.
        only_failed: pass over cells that did not fail before.
        dry_run: only estimate what each cell would read and make; nothing is started and no pixel is read.
    """
    require_roots()
    grid = lay_grid(flow, regions, time_ranges, train, predict)
    if dry_run:
        return show_estimates(grid)
    return work_grid(grid, at_once, only_failed)
