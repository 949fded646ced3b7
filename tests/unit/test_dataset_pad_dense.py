"""Padded and dense windows through the whole chain: records, counts, statistics, certificate, verify."""

import dataclasses

import numpy as np
import pytest
from tests import dataset_world as dw
from tests import stack_world as sw

from chipmill.core.tables import CHIPS, read_table
from chipmill.dataset import manifest, selection, splits
from chipmill.dataset.reader import open_dataset
from chipmill.dataset.statistics import band_sums
from chipmill.dataset.verify import verify_dataset
from chipmill.region.grid import Window
from chipmill.region.plan import write_tiles

SPLITS = {"block_px": 64, "buffer_px": 0}


@dataclasses.dataclass
class Made:
    """A committed dataset and what was known of it before its attempt was renamed."""

    ref: manifest.DatasetRef
    chain: dw.Chain
    tiles: dict
    planned: int
    image: np.ndarray
    label: np.ndarray

    def at(self, window):
        """Index of a window in the arrays of the whole area."""
        row, col = (
            window.row_off - self.chain.world.area.row_off,
            window.col_off - self.chain.world.area.col_off,
        )
        return np.s_[row : row + window.height, col : col + window.width]

    def true_sums(self, places):
        """Sums over the union of rectangles, from the pixels of the world."""
        mask = np.zeros(self.label.shape, bool)
        for one in places:
            mask[self.at(one)] = True
        image = np.moveaxis(self.image, -1, 0)
        return band_sums(image, [-32768] * len(image), mask)

    def written(self):
        rows = read_table(self.ref.path / "chips.parquet", CHIPS).to_pylist()
        return [row for row in rows if row["state"] == "written"]

    def sums(self):
        return tuple(band.statistics.sums for band in manifest.load_manifest(self.ref.path).bands)


def committed(chain):
    assert all(result.failed == () for result in chain.write_shards())
    tiles = {tile.tile_id: tile for tile in chain.plan.tiles()}
    planned = sum(len(chain.plan.windows(tile)) for tile in tiles.values())
    area = chain.world.area
    image, label = chain.image(area), chain.label(area)
    chain.seal()
    return Made(manifest.publish_dataset(chain.plan), chain, tiles, planned, image, label)


def window_of(row):
    return Window(row["col_off"], row["row_off"], row["width"], row["height"])


@pytest.fixture(scope="module")
def padded(tmp_path_factory):
    """Tiles side by side without neighbours: windows of 48 px reach beyond each of them."""
    chips = {"size_px": 48, "stride_px": 32, "edge": "pad", "max_nodata_fraction": 1.0}
    dataset = {"chips": chips, "splits": SPLITS, "shards": {"target_mb": 0.2}}
    world = sw.world(tmp_path_factory.mktemp("padded"), 2, 2, dataset=dataset)
    given = ["train", "val", "train", "test"]
    tiles = [
        dataclasses.replace(tile, lattice_tile=False, split=given[number % 4])
        for number, tile in enumerate(world.plan.tiles())
    ]
    write_tiles(world.plan.version.tiles, tiles, "f")
    stack, found = dw.index(world)
    dealt = splits.assign_splits(world.plan, found)
    chain = dw.Chain(world, stack, dealt, selection.select_chips(world.plan, dealt))
    return committed(chain)


def test_padded_chips_hold_their_tile_and_nothing_else(padded):
    rows = {row["chip_id"]: row for row in padded.written()}
    dataset = open_dataset(padded.ref.path)
    assert len(dataset) == len(rows) >= 8
    some = 0
    for sample in dataset:
        row = rows[sample.chip_id]
        window = window_of(row)
        inside = window.intersection(padded.tiles[row["tile_id"]].window)
        high, wide = inside.shape
        np.testing.assert_array_equal(sample.image[:high, :wide], padded.image[padded.at(inside)])
        np.testing.assert_array_equal(sample.label[:high, :wide], padded.label[padded.at(inside)])
        assert (sample.image[high:] == -32768).all() and (sample.image[:, wide:] == -32768).all()
        assert (sample.label[high:] == 255).all() and (sample.label[:, wide:] == 255).all()
        some += inside != window
    assert some > 4
    assert verify_dataset(padded.ref.path, data=True).problems == ()


def test_padding_takes_no_ground_from_the_statistics_of_a_neighbour(padded):
    train = [row for row in padded.written() if row["split"] == "train"]
    seen = [window_of(row).intersection(padded.tiles[row["tile_id"]].window) for row in train]
    assert padded.sums() == padded.true_sums(seen)


def _dense_label():
    """Half crop, half water in each tile, but for the first column of tiles, which has none; some tree everywhere."""
    area = sw.place(4, 3)
    label = np.where(np.arange(area.height)[:, None] % 64 < 28, 30, 10) * np.ones(area.shape)
    label[:, :64] = 10
    label[np.random.default_rng(2).random(area.shape) < 0.05] = 20
    return label.astype(np.uint8)


DENSE_LABEL = _dense_label()


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    rules = {
        "chips": {
            "size_px": 32, "stride_px": 32, "max_nodata_fraction": 1.0, "dense": {"stride_px": 8, "between": [0.3, 0.6]},
        },
        "select": {"key_class": "crop", "min_key_px": 30, "quotas": {"water": {"max_chips": 12}}},
        "splits": SPLITS, "shards": {"target_mb": 0.2},
    }  # fmt: skip
    chain = dw.planned(tmp_path_factory.mktemp("dense"), 4, 3, label=DENSE_LABEL, dataset=rules)
    return committed(chain)


def test_every_window_of_the_dense_stride_is_accounted_for(dense):
    counts = manifest.load_manifest(dense.ref.path).counts
    assert counts.planned == dense.planned == counts.written + sum(counts.filtered.values())
    assert {"sparse", "not_train", "key_class", "quota"} <= counts.filtered.keys()
    rows = dense.written()
    assert {row["split"] for row in rows if row["dense"]} == {"train"}
    assert {row["split"] for row in rows if not row["dense"]} == {"train", "val", "test"}
    assert verify_dataset(dense.ref.path, data=True).problems == ()


def test_dense_windows_count_each_pixel_once(dense):
    assert dense.sums() == dense.true_sums(
        [window_of(row) for row in dense.written() if row["split"] == "train"]
    )


def test_dense_windows_weigh_nothing_in_the_dealing(dense, tmp_path):
    rules = dense.chain.plan.region.dataset.model_dump(mode="json")
    del rules["chips"]["dense"]
    plain = dw.planned(tmp_path, 4, 3, label=DENSE_LABEL, dataset=rules)
    assert read_table(plain.splits.blocks).equals(read_table(dense.chain.splits.blocks))
