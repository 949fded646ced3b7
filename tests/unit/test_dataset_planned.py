"""Which chip counts which ground: against the plain rule, chip by chip, over random windows, tiles and shards."""

import hashlib

import numpy as np
import pyarrow as pa
import pytest
import shapely
from tests.stack_world import LATTICE

from chipmill.core.tables import CHIPS, write_table
from chipmill.dataset import planned
from chipmill.dataset.selection import ChipsRef
from chipmill.region.grid import Window
from chipmill.region.plan import write_tiles
from chipmill.region.tiles import Tile

_COVER = shapely.to_wkb(shapely.box(0, 0, 1, 1))
SHARDS = ("train-00000-of-00003", "train-00001-of-00003", "train-00002-of-00003", "val-00000-of-00001")


@pytest.fixture(params=range(4))
def chosen(request, tmp_path):
    """A table of random chips, its reference, its rows, and the tiles: two of a lattice, three that overlap at will."""
    rng = np.random.default_rng(request.param)
    tiles = [
        Tile(
            tile_id=f"t{number}", lattice=LATTICE, window=Window(*map(int, rng.integers(0, 40, 2)), 64, 64),
            source_id="", anchor=("2019-01-01", "2020-01-01")[number == 4], time=None, lattice_tile=number < 2,
            label_href=None, split=None, reject=False, cover=_COVER,
        )
        for number in range(5)
    ]  # fmt: skip
    rows = []
    for number in range(60):
        tile = tiles[rng.integers(5)]
        col, row = (
            tile.window.col_off + int(rng.integers(-8, 56)),
            tile.window.row_off + int(rng.integers(-8, 56)),
        )
        rows.append(
            {
                "chip_id": f"c{number}", "tile_id": tile.tile_id, "lattice": LATTICE.lattice_id,
                "anchor": tile.anchor, "col_off": col, "row_off": row, "width": 16, "height": 16, "state": rng.choice(["planned", "filtered"], p=[0.9, 0.1]), "reason": "",
                "shard": rng.choice(SHARDS),
            }
        )  # fmt: skip
    root = tmp_path / ".1"
    write_tiles(root / "tiles.parquet", tiles, "f")
    write_table(root / "units" / "chips.parquet", pa.Table.from_pylist(rows, schema=CHIPS), CHIPS, "f")
    ref = ChipsRef(root / "units" / "chips.parquet", f"{tmp_path}", 4, 60)
    return ref, [row for row in rows if row["state"] == "planned"], {tile.tile_id: tile for tile in tiles}


def key(row):
    return hashlib.sha256(row["tile_id"].encode()).hexdigest(), row["shard"]


def ground(row, tiles):
    """The pixels that a chip shows: none beyond a tile without neighbours."""
    window = Window(row["col_off"], row["row_off"], row["width"], row["height"])
    tile = tiles[row["tile_id"]]
    return window if tile.lattice_tile else window.intersection(tile.window)


def test_a_shard_holds_its_chips(chosen):
    ref, rows, _ = chosen
    found = planned.planned_chips(ref)
    assert set(found.shards) == {row["shard"] for row in rows}
    for shard in found.shards:
        own = [row for row in rows if row["shard"] == shard]
        chips = found.chips(shard)
        assert [(one.chip_id, one.tile_id, one.shard) for one in chips] == [
            (row["chip_id"], row["tile_id"], shard) for row in own
        ]
        assert [(one.window.col_off, one.window.row_off) for one in chips] == [
            (row["col_off"], row["row_off"]) for row in own
        ]


@pytest.mark.parametrize("lost", [(), ("train-00001-of-00003",)])
def test_ground_is_counted_by_the_first_that_shows_it(chosen, lost):
    ref, rows, tiles = chosen
    found = planned.planned_chips(ref)
    train = [row for row in rows if row["shard"].startswith("train") and row["shard"] not in lost]
    for shard in SHARDS[:3]:
        for tile_id in {row["tile_id"] for row in rows if row["shard"] == shard}:
            own = [row for row in rows if (row["tile_id"], row["shard"]) == (tile_id, shard)]
            place = [window for row in own if (window := ground(row, tiles)) is not None]
            wanted = [
                other for other in train
                if key(other) < key(own[0]) and other["anchor"] == own[0]["anchor"]
            ]  # fmt: skip
            before = found.counted_before(shard, tile_id, lost)
            for window in place:
                near = {
                    window.intersection(other) for row in wanted if (other := ground(row, tiles)) is not None
                }
                assert {window.intersection(one) for one in before} | {None} == near | {None}
