"""The stages of build_dataset and train_model as plain calls in one process, in the order of the flows.

Benchmarks measure the library, so no server and no cluster is started. The flows are the place to read the order.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor

import rasterio

from chipmill.core.store import lock
from chipmill.core.units import Batch, BatchResult, load_batches
from chipmill.dataset import labels, manifest, selection, shards, splits, stack, windows
from chipmill.dataset.manifest import DatasetRef
from chipmill.dataset.selection import ChipsRef
from chipmill.dataset.stack import StackRef
from chipmill.imagery import catalog, composite, planning, ranking
from chipmill.imagery.items import ItemsRef, RankingRef
from chipmill.learning import bundle, evaluation, training
from chipmill.learning.bundle import ModelRef
from chipmill.region.config import Region
from chipmill.region.jobs import TrainConfig
from chipmill.region.plan import Plan, cell_dir

_RUN = "benchmark"


def build(region: Region, threads: int = 1) -> DatasetRef:
    """Build and commit the dataset of a region; without labels it has stacks to map and no chips.

    ``threads`` units of a stage are worked on at once, as a cluster's workers would: while one waits for the disk to
    sync its files, the other works.
    """
    with lock(cell_dir(region).lock, _RUN), _workers(threads) as work:
        plan = planning.tile_aoi(region)
        items, ranked, stacks = _stacked(plan, work)
        chips = _cut(plan, stacks, work) if region.labels is not None else None
        manifest.seal_dataset(plan, items, ranked, stacks, chips)
        return manifest.publish_dataset(plan)


def stacked(region: Region) -> tuple[Plan, StackRef]:
    """Run the stages up to the stacks, for those who measure what comes after."""
    plan = planning.tile_aoi(region)
    return plan, _stacked(plan, None)[2]


@contextlib.contextmanager
def _workers(threads: int) -> Iterator[Executor | None]:
    """Give threads that live as long as a cluster's workers do, or None where the one that calls is enough."""
    if threads == 1:
        yield None
        return
    with ThreadPoolExecutor(threads, "stage", rasterio.Env().__enter__) as pool:
        yield pool


def _stacked(plan: Plan, work: Executor | None) -> tuple[ItemsRef, RankingRef, StackRef]:
    items = catalog.search_items(plan)
    _stage(plan, "rank_items", lambda batch: ranking.rank_items(plan, items, batch), work)
    ranked = ranking.close_ranking(plan, items)
    _stage(plan, "composite_tiles", lambda batch: composite.composite_tiles(plan, ranked, batch), work)
    _stage(plan, "grid_layers", lambda batch: labels.grid_layers(plan, batch), work)
    return items, ranked, stack.build_stacks(plan, ranked)


def standing(region: Region) -> DatasetRef | None:
    """Return the version in force where a run would find nothing to do: what running again costs."""
    places, tiles = planning.place_tiles(region)
    return manifest.current_dataset(region, catalog.find_items(places, tiles), tiles)


def _cut(plan: Plan, stacks: StackRef, work: Executor | None) -> ChipsRef:
    _stage(plan, "index_windows", lambda batch: windows.index_windows(plan, stacks, batch), work)
    found = windows.close_windows(plan, stacks)
    chips = selection.select_chips(plan, splits.assign_splits(plan, found))
    _stage(plan, "write_shards", lambda batch: shards.write_shards(plan, chips, batch), work)
    return chips


def _stage(plan: Plan, stage: str, do: Callable[..., BatchResult], work: Executor | None) -> None:
    batches = load_batches(plan.attempt, stage)
    if work is None:
        results: Iterable[BatchResult] = map(do, batches)
    else:
        # Batches are cut for workers that are told apart by seconds; here each unit is taken by whoever is free.
        units = [
            Batch(stage, number, (unit,)) for number, unit in enumerate(u for b in batches for u in b.units)
        ]
        results = list(work.map(do, units))
    for result in results:
        if result.failed:
            raise RuntimeError(f"{result.failed[0].unit} failed in {stage}: {result.failed[0].reason}")


def train(train_config: TrainConfig, *datasets: DatasetRef) -> ModelRef:
    """Train on datasets, evaluate, and commit the model; a model that stands already is returned."""
    current = bundle.current_model(train_config, datasets)
    if current is not None:
        return current
    fit = training.fit_model(datasets, train_config, run=_RUN)
    metrics = evaluation.evaluate_model(datasets, fit, train_config, run=_RUN)
    sealed = bundle.seal_model(datasets, fit, metrics, train_config, run=_RUN)
    return bundle.publish_model(sealed, train_config, run=_RUN)
