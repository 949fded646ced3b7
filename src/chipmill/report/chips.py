"""The part of a dataset's page on its splits: where its chips lie, in which split, and what they prove about leaks."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from chipmill.dataset.description import Manifest
from chipmill.dataset.split_kinds import attribute_values
from chipmill.region.config import Region
from chipmill.region.dataset import Splits
from chipmill.report.blocks import (
    Block,
    Cell,
    Chart,
    Legend,
    Pair,
    Section,
    Table,
    Text,
    facts,
    section,
    table,
)
from chipmill.report.grids import SPLIT_COLORS, Square, split_chart
from chipmill.report.images import png_uri, rgb
from chipmill.report.numbers import count, plural

_PAPER: Final = (128, 128, 128)
_BUFFER: Final = "#9aa5b1"
_FAILED: Final = "#c62828"
_NO_SPLIT: Final = "#d6d6d6"
_MAX_LATTICES: Final = 3
_FULL, _FAINT = 255, 80


@dataclass(frozen=True, slots=True)
class _Grid:
    """Windows of one lattice, counted in steps of the stride."""

    columns: NDArray[np.int64]
    rows: NDArray[np.int64]
    first: tuple[int, int]
    """Column and row of the picture's first cell."""
    shape: tuple[int, int]
    """Rows and columns of the picture."""


_LEADS: Final = {
    "blocks": "Outlines are split blocks: all samples of a place share a split.",
    "given": "Each tile or point brought its split.",
    "polygons": "The polygon of its centre says the split of a window.",
    "attribute": "An attribute of each tile or point says its split.",
    "group": "All windows of a group share a split.",
    "time": "Days are held out: one place may be in several splits on other days, and the last of them is seen.",
    "random": "Each chip was drawn for itself, whatever its neighbours are.",
}
"""What the map of each kind of splits shows."""


def split_section(chips: pa.Table | None, region: Region) -> Section:
    """Return a map of the windows, coloured by split, with the outlines of the split blocks where blocks were dealt."""
    lead = (
        "One dot per window at its centre: full colour where it was written, faint where it was filtered, grey in the "
        f"buffer between splits, red where it failed. {_LEADS[region.dataset.splits.by]}"
    )
    if chips is None or not chips.num_rows:
        empty = "There are no windows to split, because the region has no labels."
        return section("splits", "Splits on the map", lead, (), empty)
    lattices = sorted(set(chips["lattice"].to_pylist()))
    blocks: list[Block] = [_split_map(chips, lattice, region) for lattice in lattices[:_MAX_LATTICES]]
    if len(lattices) > _MAX_LATTICES:
        blocks.append(Text(f"{plural(len(lattices) - _MAX_LATTICES, 'more lattice')} in chips.parquet."))
    legend = [*SPLIT_COLORS.items(), ("buffer", _BUFFER), ("failed", _FAILED)]
    legend += [("no split", _NO_SPLIT)] if chips["split"].null_count else []
    shown = Pair((*blocks, _counts(chips, region.dataset.splits)))
    return section("splits", "Splits on the map", lead, [Legend(tuple(legend)), shown])


def certificate_section(manifest: Manifest, region: Region) -> Section:
    """Return what the written chips prove about the splits, and what leaks between them."""
    lead = "What the written chips themselves prove about the splits, computed from their places and not from the plan."
    proof = manifest.certificate
    if proof is None:
        return section(
            "certificate", "Split certificate", lead, (), "There are no chips whose splits could be proved."
        )
    rules = region.dataset.splits
    nearest = "no train chip meets another split" if proof.nearest_px is None else f"{proof.nearest_px:g} px"
    items = {
        "Splits": f"by {proof.kind}",
        "Pixels shared by train and val or test": count(proof.shared_px),
        "Of these, seen on the same day": count(proof.leak_px),
        "Smallest distance between them": nearest,
        "Buffer asked for": f"{rules.buffer_px} px",
    }
    if proof.kind == "blocks":
        items["Side of a split block"] = f"{rules.block_px} px"
    if rules.like:
        items["Blocks shared with"] = ", ".join(rules.like)
    clean = "No pixel of a train chip lies in a val or test chip."
    verdict = Text(
        f"{proof.warning[0].upper()}{proof.warning[1:]}." if proof.warning else clean,
        "bad" if proof.leak_px else "good",
    )
    lacks = (
        Text("Could not be dealt: " + "; ".join(proof.infeasible) + ".", "bad") if proof.infeasible else None
    )
    return section("certificate", "Split certificate", lead, (verdict, facts(items), lacks))


def _counts(chips: pa.Table, rules: Splits) -> Table:
    """Return how many windows, and blocks or groups, each split has, and what became of the windows."""
    units = {"blocks": "Block", "group": "Group"}.get(rules.by)
    rows: list[tuple[str | Cell, ...]] = []
    for split in SPLIT_COLORS:
        own = chips.filter(pc.equal(chips["split"], split))
        states = own["state"].to_pylist()
        numbers = [len(states), states.count("written"), states.count("filtered")]
        if units is not None:
            numbers.insert(0, len(set(_units(own, rules))))
        rows.append((Cell(split, swatch=SPLIT_COLORS[split]), *(count(number) for number in numbers)))
    head = (f">{units}s",) if units else ()
    return table(("Split", *head, ">Windows", ">Written", ">Filtered"), rows)


def _units(chips: pa.Table, rules: Splits) -> list[str | None]:
    """Return the block or the group of each window."""
    return attribute_values(rules, chips) if rules.by == "group" else list(chips["block"].to_pylist())


def _split_map(chips: pa.Table, lattice: str, region: Region) -> Chart:
    own = chips.filter(pc.equal(chips["lattice"], lattice))
    grid = _grid(own, region.dataset.chips.stride_px)
    picture = np.zeros((*grid.shape, 4), np.uint8)
    # failed and filtered windows first: a written one on the same place (another date) stays visible
    order = {"failed": 0, "filtered": 1, "written": 2}
    rows = own.select(["state", "split", "reason"]).to_pylist()
    for index in sorted(range(len(rows)), key=lambda index: order[rows[index]["state"]]):
        picture[grid.rows[index], grid.columns[index]] = _dot(**rows[index])
    squares = _squares(own, grid, region) if region.dataset.splits.by == "blocks" else []
    told = plural(len(squares), "block") if squares else f"splits by {region.dataset.splits.by}"
    label = f"Split map of lattice {lattice}: {told}"
    width = float(min(560, max(440, 8 * grid.shape[1])))
    caption = f"Lattice {lattice}, {plural(own.num_rows, 'window')}, {told}."
    return Chart(split_chart(png_uri(picture), grid.shape, squares, label, width=width), caption)


def _grid(windows: pa.Table, stride_px: int) -> _Grid:
    def steps(offset: str, size: str) -> NDArray[np.int64]:
        centre = windows[offset].to_numpy() + windows[size].to_numpy() // 2
        return np.asarray(centre // stride_px, np.int64)

    columns, rows = steps("col_off", "width"), steps("row_off", "height")
    first = (int(columns.min()), int(rows.min()))
    shape = (int(rows.max()) - first[1] + 1, int(columns.max()) - first[0] + 1)
    return _Grid(columns - first[0], rows - first[1], first, shape)


def _dot(state: str, split: str | None, reason: str) -> tuple[int, int, int, int]:
    if state == "failed":
        return (*rgb(_FAILED), _FULL)
    if "buffer" in reason:
        return (*rgb(_BUFFER), _FULL)
    color = rgb(SPLIT_COLORS[split]) if split in SPLIT_COLORS else _PAPER
    return (*color, _FULL if state == "written" else _FAINT)


def _squares(windows: pa.Table, grid: _Grid, region: Region) -> list[Square]:
    """Return the blocks that hold windows, in cells of the picture; a block's name ends with its column and row."""
    side = region.dataset.splits.block_px / region.dataset.chips.stride_px
    splits: dict[str, str] = {}
    for block, split in zip(windows["block"].to_pylist(), windows["split"].to_pylist(), strict=True):
        if split is not None or block not in splits:
            splits[block] = split or "no split"
    squares = []
    for block, split in sorted(splits.items()):
        _, across, down = block.rsplit("_", 2)
        x, y = int(across) * side - grid.first[0], int(down) * side - grid.first[1]
        squares.append(_clipped(x, y, side, grid.shape, split, block))
    return squares


def _clipped(x: float, y: float, side: float, shape: tuple[int, int], split: str, name: str) -> Square:
    left, top = max(x, 0), max(y, 0)
    right, bottom = min(x + side, shape[1]), min(y + side, shape[0])
    return Square(left, top, right - left, bottom - top, split, name)
