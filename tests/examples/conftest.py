"""The examples as a reader runs them: the folder's own region file, on the data that the folder's script makes."""

import functools
import importlib
import shutil
from pathlib import Path

import pytest
from tests.imagery_world import read

from chipmill.core.paths import VersionDir
from chipmill.core.store import lock
from chipmill.core.tables import RANKING, read_table
from chipmill.core.units import load_batches
from chipmill.dataset import labels, manifest, selection, shards, splits, stack, windows
from chipmill.dataset.reader import open_dataset
from chipmill.imagery import catalog, composite, planning, ranking
from chipmill.imagery.orders import Orders
from chipmill.region.load import load_region
from chipmill.region.plan import cell_dir

FOLDER = Path(__file__).resolve().parents[2] / "examples"


class Built:
    """What a run of an example left: its plan, ranking, dataset and the units that failed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.region = load_region(folder / "region.yaml")
        self.failed = []
        with lock(cell_dir(self.region).lock, "example"):
            self.plan = plan = planning.tile_aoi(self.region)
            items = catalog.search_items(plan)
            self._stage("rank_items", lambda batch: ranking.rank_items(plan, items, batch))
            ranked = ranking.close_ranking(plan, items)
            self._stage("composite_tiles", lambda batch: composite.composite_tiles(plan, ranked, batch))
            self._stage("grid_layers", lambda batch: labels.grid_layers(plan, batch))
            stacks = stack.build_stacks(plan, ranked)
            self._stage("index_windows", lambda batch: windows.index_windows(plan, stacks, batch))
            chips = selection.select_chips(
                plan, splits.assign_splits(plan, windows.close_windows(plan, stacks))
            )
            self._stage("write_shards", lambda batch: shards.write_shards(plan, chips, batch))
            self.rows = read_table(ranked.path, RANKING).to_pylist()
            self.tiles = plan.tiles()
            self._composites = self._paths(read_table(ranked.path, RANKING))
            manifest.seal_dataset(plan, items, ranked, stacks, chips)
            self.path = manifest.publish_dataset(plan).path
        self.version = VersionDir(self.path)
        self.dataset = open_dataset(self.path)

    def _stage(self, stage, verb):
        for batch in load_batches(self.plan.attempt, stage):
            self.failed += verb(batch).failed

    def _paths(self, table):
        orders = Orders(self.plan, table)
        return {
            (tile.tile_id, imagery.name, slot.name): orders.path(tile, imagery, slot)
            for tile in self.plan.tiles()
            for imagery in self.region.imagery
            for slot in self.plan.slots(tile)
        }

    def composite(self, tile, imagery, slot):
        """Band name -> pixels `(y, x)` of a composite."""
        return read(self._composites[tile, imagery, slot])

    def chosen(self, tile, slot, imagery=None):
        """Ids of the items that a tile's slot uses, best first."""
        rows = [
            row for row in self.rows if (row["tile_id"], row["slot"], row["chosen"]) == (tile, slot, True)
        ]
        rows = [row for row in rows if imagery in (None, row["imagery"])]
        return [name for row in sorted(rows, key=lambda row: row["rank"]) for name in row["item_ids"]]

    def reasons(self, tile):
        """Item id -> why a tile does not use it, or "chosen"."""
        return {
            name: row["reason"] for row in self.rows if row["tile_id"] == tile for name in row["item_ids"]
        }


def make(name: str, folder: Path) -> Path:
    """Make the data of an example in a folder and put its region file beside them."""
    importlib.import_module(f"examples.{name}.make_data").make(folder)
    shutil.copyfile(FOLDER / name / "region.yaml", folder / "region.yaml")
    return folder


@pytest.fixture(scope="session")
def example(tmp_path_factory):
    """Name of an example -> what its run left, made once for all tests: they add to its folder and change nothing."""

    @functools.cache
    def build(name: str) -> Built:
        return Built(make(name, tmp_path_factory.mktemp(name)))

    return build
