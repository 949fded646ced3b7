"""Tasks of the dataset room: from composites and labels to committed shards."""

from prefect import task

from chipmill.dataset import labels, manifest, selection, shards, splits, stack, windows
from chipmill.dataset.manifest import DatasetRef
from chipmill.dataset.selection import ChipsRef
from chipmill.dataset.stack import StackRef
from chipmill.imagery.items import ItemsRef, RankingRef
from chipmill.orchestration.ending import whole
from chipmill.orchestration.funnel import show_funnel
from chipmill.orchestration.retry import BATCH, DIRECT
from chipmill.region.plan import Plan
from chipmill.report.dataset import dataset_page

grid_layers = task(name="grid_layers", task_run_name="grid_layers-{batch.number}", tags=["dataset"], **BATCH)(
    labels.grid_layers
)

build_stacks = task(name="build_stacks", task_run_name="build_stacks", tags=["dataset"], **DIRECT)(
    stack.build_stacks
)

index_windows = task(
    name="index_windows", task_run_name="index_windows-{batch.number}", tags=["dataset"], **BATCH
)(windows.index_windows)

close_windows = task(name="close_windows", task_run_name="close_windows", tags=["dataset"], **DIRECT)(
    windows.close_windows
)

assign_splits = task(name="assign_splits", task_run_name="assign_splits", tags=["dataset"], **DIRECT)(
    splits.assign_splits
)

select_chips = task(name="select_chips", task_run_name="select_chips", tags=["dataset"], **DIRECT)(
    selection.select_chips
)

write_shards = task(
    name="write_shards", task_run_name="write_shards-{batch.number}", tags=["dataset"], **BATCH
)(shards.write_shards)


@task(name="commit_dataset", task_run_name="commit_dataset", tags=["dataset"], **DIRECT)
def commit_dataset(
    plan: Plan, items: ItemsRef, ranking: RankingRef, stack: StackRef, chips: ChipsRef | None
) -> DatasetRef:
    """Seal the attempt, write its report, make it the version in force; fails afterwards where units are missing."""
    sealed = manifest.seal_dataset(plan, items, ranking, stack, chips)
    dataset_page(sealed.path, archive=plan.region)
    dataset = manifest.publish_dataset(plan)
    show_funnel(plan.region.name, dataset.path)
    return whole(dataset, plan.redo)
