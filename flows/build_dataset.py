"""A region file becomes a committed dataset: tiles, items, ranking, composites, stacks, windows, splits, chips, shards."""

from prefect import flow

from chipmill.dataset.manifest import DatasetRef
from chipmill.orchestration.cells import run_name
from chipmill.orchestration.cluster import stage_runner
from chipmill.orchestration.entry import entering, nothing_to_do
from chipmill.orchestration.jobs import Job
from chipmill.orchestration.stage import run_stage, step
from chipmill.region.config import Region
from chipmill.region.roots import check_roots
from chipmill.tasks.dataset import (
    assign_splits,
    build_stacks,
    close_windows,
    commit_dataset,
    grid_layers,
    index_windows,
    select_chips,
    write_shards,
)
from chipmill.tasks.imagery import close_ranking, composite_tiles, rank_items, search_items, tile_aoi


@flow(name="build-dataset", flow_run_name=run_name("build-dataset"), task_runner=stage_runner())
def build_dataset(region: Region) -> DatasetRef:
    """Build the dataset of a region's cell and make it the version in force.

    Args:
        region: The region file; without labels the dataset ends with the stacks and holds no chips.
    """
    region = check_roots(region)
    with entering(Job("build", region)) as have:
        if have.complete:
            return nothing_to_do(have.dataset)
        plan = step(tile_aoi, region)
        items = step(search_items, plan, after=plan)

        ranked = run_stage(rank_items, plan, items, after=items)
        ranking = step(close_ranking, plan, items, after=ranked)

        composites = run_stage(composite_tiles, plan, ranking, after=ranking)
        layers = run_stage(grid_layers, plan, after=ranking)
        stack = step(build_stacks, plan, ranking, after=[composites, layers])
        if region.labels is None:
            return step(commit_dataset, plan, items, ranking, stack, None, after=stack).value

        indexed = run_stage(index_windows, plan, stack, after=stack)
        windows = step(close_windows, plan, stack, after=indexed)
        splits = step(assign_splits, plan, windows, after=windows)
        chips = step(select_chips, plan, splits, after=splits)

        written = run_stage(write_shards, plan, chips, after=chips)
        return step(commit_dataset, plan, items, ranking, stack, chips, after=written).value
