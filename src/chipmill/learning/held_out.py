"""Which pixels of a dataset tell how good a model is: those that were held out, each once.

Where blocks were dealt they are the whole blocks, since windows of other splits do not reach into them. Splits of any
other kind hold out no more ground than their chips cover, less what chips of earlier splits cover, too: training has
seen it, where splits are random.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from chipmill.core.paths import VersionDir
from chipmill.core.tables import CHIPS, read_table
from chipmill.dataset.description import Manifest
from chipmill.dataset.manifest import load_manifest
from chipmill.dataset.places import SPLITS
from chipmill.learning.stacks import Raster, stack_rasters
from chipmill.region.grid import Window, hull
from chipmill.region.tiles import Tile


@dataclass(frozen=True, slots=True)
class HeldBlock:
    """A part of a raster with pixels that were held out."""

    raster: Raster
    window: Window  # in lattice pixels, inside the raster
    split: str
    within: tuple[Window, ...] | None = None  # only pixels of these count; None: all of `window`
    without: tuple[Window, ...] = ()  # pixels of these do not count

    def mask(self) -> NDArray[np.bool_]:
        """Return bool `(y, x)` of `window`, True where a pixel counts."""
        counts = np.full(self.window.shape, self.within is None)
        for window in self.within or ():
            counts[self._part(window)] = True
        for window in self.without:
            counts[self._part(window)] = False
        return counts

    def _part(self, window: Window) -> tuple[slice, slice]:
        top, left = window.row_off - self.window.row_off, window.col_off - self.window.col_off
        return (
            slice(max(top, 0), max(top + window.height, 0)),
            slice(max(left, 0), max(left + window.width, 0)),
        )


def held_blocks(dataset: Path, split: str) -> list[HeldBlock]:
    """Return the held-out parts of a dataset version for `split` ("val" or "test"), in a fixed order.

    A dealt block is held out when a window that is centred in it has that split. Of other splits each part is a block
    of the same side with the written chips that reach into it, so that figures are resampled by place there, too. No
    pixel is in two parts. A dataset that was imported has chips but no stacks to map, so nothing of it is evaluated.
    """
    version, manifest = VersionDir(dataset), load_manifest(dataset)
    if manifest.inputs.origin is not None:
        return []
    names = ["tile_id", "block", "split", "state", "col_off", "row_off", "width", "height"]
    chips = read_table(version.chips, CHIPS).select(names)
    dealt = manifest.certificate is None or manifest.certificate.kind == "blocks"
    found: list[HeldBlock] = []
    for raster in stack_rasters(version):
        ids = pa.array([tile.tile_id for tile in raster.tiles], pa.string())
        own = chips.filter(pc.is_in(chips["tile_id"], value_set=ids))
        # one point that brings its split is enough: training may see the rest of its block
        parts = _whole_blocks if dealt and not any(map(_says_split, raster.tiles)) else _chip_ground
        found += parts(raster, own, manifest.block_px, split)
    return sorted(found, key=lambda one: (one.raster.name, one.window.row_off, one.window.col_off))


def held_remark(manifest: Manifest) -> str:
    """Return what a reader of the figures must know of a dataset's splits, "" where whole blocks were held out."""
    proof, origin = manifest.certificate, manifest.inputs.origin
    if origin is not None:
        return (
            f"{manifest.region} was imported from {origin}: it has no stacks to map, so no figure tells of it"
        )
    if proof is None or proof.kind == "blocks":
        return ""
    ground = "figures are of the ground of its held-out chips alone, not of whole blocks"
    shared = f"; {proof.warning}" if proof.warning else ""
    left = (
        "; the pixels that training saw are left out here, their neighbours are not" if proof.leak_px else ""
    )
    return f"{manifest.region} has splits by {proof.kind}: {ground}{shared}{left}"


def _says_split(tile: Tile) -> bool:
    """Tell whether a tile, or one of its points, brings its own split."""
    return tile.split is not None or any(point.split is not None for point in tile.points or ())


def _whole_blocks(raster: Raster, chips: pa.Table, side: int, split: str) -> list[HeldBlock]:
    held = set(chips.filter(pc.equal(chips["split"], split))["block"].to_pylist())
    places = [tuple(int(number) for number in block.rsplit("_", 2)[1:]) for block in sorted(held)]
    parts = [Window(bx * side, by * side, side, side).intersection(raster.extent) for bx, by in places]
    return [HeldBlock(raster, part, split) for part in parts if part is not None]


def _chip_ground(raster: Raster, chips: pa.Table, side: int, split: str) -> list[HeldBlock]:
    """Return the ground of written chips, cut at the lattice of blocks."""
    written = chips.filter(pc.equal(chips["state"], "written"))
    own = _by_block(_windows(written, [split]), side)
    before = _by_block(_windows(written, SPLITS[: SPLITS.index(split)]), side)
    found = []
    for (bx, by), windows in own.items():
        part = Window(bx * side, by * side, side, side).intersection(raster.extent)
        part = None if part is None else part.intersection(hull(windows))
        if part is not None:
            found.append(HeldBlock(raster, part, split, tuple(windows), tuple(before.get((bx, by), ()))))
    return found


def _windows(chips: pa.Table, splits: Sequence[str]) -> list[Window]:
    rows: dict[str, list[Any]] = chips.filter(
        pc.is_in(chips["split"], value_set=pa.array(splits, pa.string()))
    ).select(["col_off", "row_off", "width", "height"]).to_pydict()  # fmt: skip
    return sorted({Window(*row) for row in zip(*rows.values(), strict=True)})


def _by_block(windows: Iterable[Window], side: int) -> dict[tuple[int, int], list[Window]]:
    """Return the windows that reach into each block."""
    blocks: dict[tuple[int, int], list[Window]] = {}
    for window in windows:
        for bx in range(window.col_off // side, (window.col_end - 1) // side + 1):
            for by in range(window.row_off // side, (window.row_end - 1) // side + 1):
                blocks.setdefault((bx, by), []).append(window)
    return blocks
