"""A committed dataset whose classes can be learnt, small enough to train on in seconds: for tests of learning and mapping."""

from pathlib import Path

import numpy as np
from scipy import ndimage
from tests.stack_world import World, world, write_composites

from chipmill.core.store import write_json, write_text
from chipmill.core.units import load_batches
from chipmill.dataset.manifest import DatasetRef, publish_dataset, seal_dataset
from chipmill.dataset.selection import select_chips
from chipmill.dataset.shards import write_shards
from chipmill.dataset.splits import assign_splits
from chipmill.dataset.windows import close_windows, index_windows
from chipmill.imagery.items import ItemsRef
from chipmill.region.config import Region
from chipmill.region.load import dump_config

SIGNATURES = np.array([[500, 300, -2500], [400, 3500, 8000], [1800, 2600, 1800]])
"""Stored values (red, nir, ndvi) of water, tree, crop."""


def patches(shape, seed=3):
    """Return smooth patches of class codes 0, 1, 2 (y, x)."""
    fields = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(3, *shape)), (0, 6, 6))
    return fields.argmax(axis=0).astype(np.uint8)


def learnable(folder: Path, columns=3, rows=3, seed=3, **changes) -> World:
    """Return a world whose pixels are their class's signature with noise; some are nodata in one or both slots."""
    folder.mkdir(parents=True, exist_ok=True)
    shape = (rows * 64, columns * 64)
    codes = patches(shape, seed)
    label = np.array([10, 25, 30], np.uint8)[codes]
    label[:5, :7] = 0
    made = world(folder, columns, rows, label=label, **changes)
    rng = np.random.default_rng(seed + 1)
    noise = rng.normal(0, 500, (2, 3, *shape))
    pixels = (np.moveaxis(SIGNATURES[codes], -1, 0) + noise).astype(np.int16)
    made.valid[:] = rng.random((2, *shape)) > 0.05
    made.valid[:, 70:90, 70:80] = 0
    made.observed[:] = np.maximum(made.valid, made.observed)
    made.data[:] = np.where(made.valid[:, None] > 0, pixels, np.int16(-32768))
    for tile in made.plan.tiles():
        write_composites(made, tile)
    return made


def commit(made: World) -> tuple[Region, DatasetRef]:
    """Run the stages from the stack to the manifest and commit."""
    plan = made.plan
    write_json(plan.version.plan, {"windows": sum(len(plan.windows(tile)) for tile in plan.tiles())})
    write_text(plan.version.region_yaml, dump_config(plan.region))
    stack = made.stack()
    for batch in load_batches(plan.attempt, "index_windows"):
        assert not index_windows(plan, stack, batch).failed
    chips = select_chips(plan, assign_splits(plan, close_windows(plan, stack)))
    for batch in load_batches(plan.attempt, "write_shards"):
        assert not write_shards(plan, chips, batch).failed
    items = ItemsRef(plan.version.items, "f", 2)
    seal_dataset(plan, items, made.ranking, stack, chips)
    return plan.region, publish_dataset(plan)
