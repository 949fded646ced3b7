"""The stages of build_dataset and train_model as plain calls in one process, in the order of the flows.

Benchmarks measure the library, so no server and no cluster is started. The flows are the place to read the order.
"""

from __future__ import annotations

from collections.abc import Callable

from chipmill.core.store import lock
from chipmill.core.units import BatchResult, load_batches
from chipmill.dataset import labels, manifest, selection, shards, splits, stack, windows
from chipmill.dataset.manifest import DatasetRef
from chipmill.dataset.selection import ChipsRef
from chipmill.dataset.stack import StackRef
from chipmill.imagery import catalog, composite, planning, ranking
from chipmill.learning import bundle, evaluation, training
from chipmill.learning.bundle import ModelRef
from chipmill.region.config import Region
from chipmill.region.jobs import TrainConfig
from chipmill.region.plan import Plan, cell_dir

_RUN = "benchmark"


def build(region: Region) -> DatasetRef:
    """Build and commit the dataset of a region; without labels it has stacks to map and no chips."""
    with lock(cell_dir(region).lock, _RUN):
        plan = planning.tile_aoi(region)
        items = catalog.search_items(plan)
        _stage(plan, "rank_items", lambda batch: ranking.rank_items(plan, items, batch))
        ranked = ranking.close_ranking(plan, items)
        _stage(plan, "composite_tiles", lambda batch: composite.composite_tiles(plan, ranked, batch))
        _stage(plan, "grid_layers", lambda batch: labels.grid_layers(plan, batch))
        stacks = stack.build_stacks(plan, ranked)
        chips = _cut(plan, stacks) if region.labels is not None else None
        manifest.seal_dataset(plan, items, ranked, stacks, chips)
        return manifest.publish_dataset(plan)


def _cut(plan: Plan, stacks: StackRef) -> ChipsRef:
    _stage(plan, "index_windows", lambda batch: windows.index_windows(plan, stacks, batch))
    found = windows.close_windows(plan, stacks)
    chips = selection.select_chips(plan, splits.assign_splits(plan, found))
    _stage(plan, "write_shards", lambda batch: shards.write_shards(plan, chips, batch))
    return chips


def _stage(plan: Plan, stage: str, work: Callable[..., BatchResult]) -> None:
    for batch in load_batches(plan.attempt, stage):
        failed = work(batch).failed
        if failed:
            raise RuntimeError(f"{failed[0].unit} failed in {stage}: {failed[0].reason}")


def train(train_config: TrainConfig, *datasets: DatasetRef) -> ModelRef:
    """Train on datasets, evaluate, and commit the model; a model that stands already is returned."""
    current = bundle.current_model(train_config, datasets)
    if current is not None:
        return current
    fit = training.fit_model(datasets, train_config, run=_RUN)
    metrics = evaluation.evaluate_model(datasets, fit, train_config, run=_RUN)
    sealed = bundle.seal_model(datasets, fit, metrics, train_config, run=_RUN)
    return bundle.publish_model(sealed, train_config, run=_RUN)
