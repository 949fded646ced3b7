"""A sealed dataset over the pixels of ``stack_world``: every stage from the stack to dataset.json, and the truth."""

import dataclasses
import functools
import shutil
from pathlib import Path

import numpy as np
import rasterio
from tests import stack_world

from chipmill.core.store import write_json
from chipmill.core.units import Batch, load_batches
from chipmill.dataset import manifest, selection, shards, splits, windows
from chipmill.dataset.manifest import DatasetRef
from chipmill.dataset.planned import planned_chips
from chipmill.dataset.selection import ChipsRef
from chipmill.dataset.stack import StackRef
from chipmill.imagery.items import Answer, ItemsRef
from chipmill.region.grid import Window
from chipmill.region.plan import Plan
from chipmill.region.tiles import cover_mask

DATASET = {
    "chips": {"size_px": 32, "stride_px": 16, "max_nodata_fraction": 1.0},
    "splits": {"block_px": 64, "buffer_px": 8},
    "shards": {"target_mb": 0.5},
}
ANSWER = Answer((), "i")
CODES = {10: 0, 20: 1, 25: 1, 29: 1, 30: 2}


@dataclasses.dataclass
class Chain:
    """The references that the stages handed on."""

    world: stack_world.World
    stack: StackRef
    splits: splits.SplitsRef
    chips: ChipsRef

    @property
    def plan(self) -> Plan:
        """The plan."""
        return self.world.plan

    @property
    def items(self) -> ItemsRef:
        """A frozen answer without items."""
        return ItemsRef(self.plan.version.items, "i", 0)

    def image(self, window: Window) -> np.ndarray:
        """The truth (y, x, band) of a window in lattice pixels."""
        data = self.world.data.reshape(-1, *self.world.data.shape[2:])
        return np.moveaxis(data[self._part(window)], 0, -1)

    def label(self, window: Window) -> np.ndarray:
        """The truth (y, x): code, 255 where the source says so, outside the AOI, and where no slot is valid."""
        with rasterio.open(self.plan.region.resolve("label.tif")) as source:
            values = source.read(1)
        codes = np.full(values.shape, 255, np.uint8)
        for value, code in CODES.items():
            codes[values == value] = code
        codes[~(self.world.valid > 0).any(axis=0)] = 255
        codes[~cover_mask(self.plan.tiles()[0], self.world.area)] = 255
        return codes[self._part(window)]

    def _part(self, window: Window) -> tuple:
        row, col = window.row_off - self.world.area.row_off, window.col_off - self.world.area.col_off
        return np.s_[..., row : row + window.height, col : col + window.width]

    def write_shards(self, order: int = 1) -> list:
        """Work on every unit alone, in the plan's order or (-1) backwards."""
        units = [unit for batch in load_batches(self.plan.attempt, shards.STAGE) for unit in batch.units][
            ::order
        ]
        return [shards.write_shards(self.plan, self.chips, Batch(shards.STAGE, 0, (unit,))) for unit in units]

    def seal(self) -> DatasetRef:
        """Seal."""
        return manifest.seal_dataset(self.plan, self.items, self.world.ranking, self.stack, self.chips)


def by_shard(chain: Chain) -> dict:
    """Return the planned chips of each shard by its stem."""
    planned = planned_chips(chain.chips)
    return {unit: planned.chips(unit) for unit in planned.shards}


def index(world: stack_world.World) -> tuple[StackRef, windows.WindowsRef]:
    """Run the stages up to windows.parquet."""
    stack = world.stack()
    for batch in load_batches(world.plan.attempt, windows.STAGE):
        assert windows.index_windows(world.plan, stack, batch).failed == ()
    found = windows.close_windows(world.plan, stack)
    write_json(world.plan.version.plan, {"windows": found.rows})
    return stack, found


def planned(folder: Path, columns: int = 4, rows: int = 4, **changes) -> Chain:
    """Run the stages up to select_chips."""
    world = stack_world.world(folder, columns, rows, **({"dataset": DATASET} | changes))
    stack, found = index(world)
    dealt = splits.assign_splits(world.plan, found)
    return Chain(world, stack, dealt, selection.select_chips(world.plan, dealt))


@functools.cache
def _committed(folder: Path) -> DatasetRef:
    chain = planned(folder)
    chain.write_shards()
    chain.seal()
    return manifest.publish_dataset(chain.plan)


def committed(base: Path, target: Path) -> DatasetRef:
    """Return a committed dataset of its own below ``target``; it is made once below ``base`` and copied."""
    base.mkdir(parents=True, exist_ok=True)
    made = _committed(base)
    shutil.copytree(base, target, dirs_exist_ok=True)
    return dataclasses.replace(made, path=target / made.path.relative_to(base))
