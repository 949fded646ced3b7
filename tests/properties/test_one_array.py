"""Whatever the tiling: chips cut across tile edges are those of one big array, and the counts are those of its pixels.

The world is drawn: side and number of tiles, size, stride and edge rule of the chips, dense windows, tiles with and
without neighbours, failed and rejected ones. Each example is a whole chain from composites to chips.
"""

import dataclasses
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests import dataset_world as dw
from tests import stack_world as sw

from chipmill.core.tables import WINDOWS, read_table
from chipmill.core.units import record_failure
from chipmill.dataset.cutting import cut_windows
from chipmill.region.grid import Window
from chipmill.region.plan import write_tiles

EXAMPLES = min(150, settings.default.max_examples // 7)
"""A chain costs some hundred times more than a pure function does."""


@dataclasses.dataclass(frozen=True)
class Layout:
    """What is drawn of a world."""

    side: int
    columns: int
    rows: int
    chips: dict
    lone: bool
    lost: frozenset
    """Places of tiles that fail."""
    rejected: frozenset
    """Places of tiles that are rejected."""


@st.composite
def layouts(draw):
    side, columns, rows = (
        draw(st.sampled_from([32, 48, 80])),
        draw(st.integers(1, 3)),
        draw(st.integers(1, 2)),
    )
    step = draw(st.integers(6, 24))
    chips = {
        "size_px": draw(st.integers(16, 60)), "stride_px": step * draw(st.integers(1, 2)),
        "edge": draw(st.sampled_from(["drop", "shift", "pad"])),
    }  # fmt: skip
    if draw(st.booleans()):
        chips["dense"] = {
            "stride_px": step, "between": [0.2, 0.5], "of": draw(st.sampled_from(["tile", "window"])),
        }  # fmt: skip
    some = st.frozensets(st.integers(0, columns * rows - 1), max_size=1)
    return Layout(side, columns, rows, chips, draw(st.booleans()), draw(some), draw(some))


class BigArray:
    """Pixels and codes of the whole area, one array each, where a tile reads only what it may."""

    def __init__(self, world, layout):
        self.world, self.layout, self.tiles = world, layout, world.plan.tiles()
        chain = dw.Chain(world, None, None, None)
        self.image, self.codes = chain.image(world.area), chain.label(world.area)

    def cut(self, window, tile):
        """Image, label and whether a pixel is the tile's to see; beyond that there is nodata and ignore."""
        seen = np.zeros(window.shape, bool)
        image = np.full((*window.shape, self.image.shape[2]), -32768, np.int16)
        label = np.full(window.shape, 255, np.uint8)
        for other in [tile] if self.layout.lone else self.tiles:
            part = window.intersection(other.window)
            if part is not None:
                to = np.s_[part.row_off - window.row_off :, part.col_off - window.col_off :]
                top, left = part.row_off - self.world.area.row_off, part.col_off - self.world.area.col_off
                at = np.s_[top : top + part.height, left : left + part.width]
                to = tuple(
                    slice(one.start, one.start + size) for one, size in zip(to, part.shape, strict=True)
                )
                image[to], label[to], seen[to] = self.image[at], self.codes[at], True
        return image, label, seen

    def fractions(self, window, tile):
        """Shares of nodata and of cloud in each slot, of the pixels that are the tile's to see."""
        part = window.intersection(tile.window) if self.layout.lone else window
        top, left = part.row_off - self.world.area.row_off, part.col_off - self.world.area.col_off
        at = np.s_[:, top : top + part.height, left : left + part.width]
        valid, observed = self.world.valid[at] > 0, self.world.observed[at] > 0
        return (
            (~valid & ~observed).mean(axis=(1, 2)).tolist(),
            (~valid & observed).mean(axis=(1, 2)).tolist(),
        )

    def share(self, label):
        """Share of the key class, the third one, among labelled pixels."""
        return (label == 2).sum() / max((label != 255).sum(), 1)


def made(folder, layout):
    """Run the chain up to the stacks and windows.parquet."""
    dataset = {"chips": layout.chips} | ({"select": {"key_class": "crop"}} if "dense" in layout.chips else {})
    grid = {"crs": "EPSG:32633", "resolution": 10, "tile_px": layout.side}
    world = sw.world(folder, layout.columns, layout.rows, on_failed="commit", dataset=dataset, grid=grid)
    tiles = [
        dataclasses.replace(tile, lattice_tile=not layout.lone, reject=number in layout.rejected)
        for number, tile in enumerate(world.plan.tiles())
    ]
    write_tiles(world.plan.version.tiles, tiles, "f")
    for number in layout.lost - layout.rejected:
        record_failure(world.plan.attempt, "composite_tiles", tiles[number].tile_id, "broken")
    stack, found = dw.index(world)
    return world, stack, read_table(found.path, WINDOWS).to_pylist()


def touched(layout, tiles, window, tile):
    """Numbers of the tiles that a window needs."""
    near = [tile] if layout.lone else tiles
    return {number for number, one in enumerate(tiles) if one in near and window.intersection(one.window)}


@pytest.mark.timeout(300)
@settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.too_slow])
@given(layout=layouts())
def test_chips_and_counts_are_those_of_one_big_array(layout):
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(sw, "SIDE", layout.side)
        world, stack, rows = made(Path(folder), layout)
        big, tiles = BigArray(world, layout), list(world.plan.tiles())
        ids = {tile.tile_id: tile for tile in tiles}
        good = {}
        for row in rows:
            window, tile = (
                Window(row["col_off"], row["row_off"], row["width"], row["height"]),
                ids[row["tile_id"]],
            )
            needs = touched(layout, tiles, window, tile)
            image, label, seen = big.cut(window, tile)
            assert (row["excluded_reason"] == "rejected") == bool(needs & layout.rejected)
            assert (row["failed_reason"] is not None) == bool(
                needs & layout.lost and not needs & layout.rejected
            )
            if row["failed_reason"] or row["excluded_reason"] == "rejected":
                continue
            own = (
                big.cut(tile.window, tile)[1] if layout.chips.get("dense", {}).get("of") == "tile" else label
            )
            mixed = 0.2 <= big.share(own) <= 0.5
            assert (row["excluded_reason"] == "sparse") == (row["dense"] and not mixed)
            if row["excluded_reason"] is None:
                good.setdefault(tile.tile_id, []).append((window, image, label))
                assert row["class_px"] == [int((label == code).sum()) for code in range(3)]
                assert row["ignore_px"] == (label == 255).sum()
                none, cloud = big.fractions(window, tile)
                assert (row["nodata_fraction"], row["cloud_fraction"]) == (none, cloud)
                assert row["valid_fraction"] == (image[seen][:, [0, 3]] != -32768).any(axis=1).mean()
        for tile_id, wanted in good.items():
            path = world.plan.version.stack(tile_id)
            cut = cut_windows(path, ids[tile_id], [window for window, *_ in wanted], [], stack.layers)
            for chip, (_, image, label) in zip(cut.chips, wanted, strict=True):
                np.testing.assert_array_equal(chip.pixels, image)
                np.testing.assert_array_equal(chip.label, label)
