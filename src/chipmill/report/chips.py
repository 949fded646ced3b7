"""The part of a dataset's page on its chips: where they lie, in which split, and what they look like."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from chipmill.region.config import Region
from chipmill.report.blocks import Block, Cell, Chart, Legend, Pair, Section, Table, Text, section, table
from chipmill.report.grids import SPLIT_COLORS, Square, split_chart
from chipmill.report.images import png_uri, rgb
from chipmill.report.numbers import count, plural

_PAPER: Final = (128, 128, 128)
_BUFFER: Final = "#9aa5b1"
_FAILED: Final = "#c62828"
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


def split_section(chips: pa.Table | None, region: Region) -> Section:
    """Return a map of the windows, coloured by split, with the outlines of the split blocks."""
    lead = (
        "One dot per window at its centre: full colour where it was written, faint where it was filtered, grey in the "
        "buffer between splits, red where it failed. Outlines are split blocks: all samples of a place share a split."
    )
    if chips is None or not chips.num_rows:
        empty = "There are no windows to split, because the region has no labels."
        return section("splits", "Splits on the map", lead, (), empty)
    lattices = sorted(set(chips["lattice"].to_pylist()))
    blocks: list[Block] = [_split_map(chips, lattice, region) for lattice in lattices[:_MAX_LATTICES]]
    if len(lattices) > _MAX_LATTICES:
        blocks.append(Text(f"{plural(len(lattices) - _MAX_LATTICES, 'more lattice')} in chips.parquet."))
    legend = [*SPLIT_COLORS.items(), ("buffer", _BUFFER), ("failed", _FAILED)]
    return section(
        "splits", "Splits on the map", lead, [Legend(tuple(legend)), Pair((*blocks, _counts(chips)))]
    )


def _counts(chips: pa.Table) -> Table:
    """Return how many blocks and windows each split has, and what became of the windows."""
    rows: list[tuple[str | Cell, ...]] = []
    for split in SPLIT_COLORS:
        own = chips.filter(pc.equal(chips["split"], split))
        states = own["state"].to_pylist()
        numbers = (
            len(set(own["block"].to_pylist())),
            len(states),
            states.count("written"),
            states.count("filtered"),
        )
        rows.append((Cell(split, swatch=SPLIT_COLORS[split]), *(count(number) for number in numbers)))
    return table(("Split", ">Blocks", ">Windows", ">Written", ">Filtered"), rows)


def _split_map(chips: pa.Table, lattice: str, region: Region) -> Chart:
    own = chips.filter(pc.equal(chips["lattice"], lattice))
    grid = _grid(own, region.dataset.chips.stride_px)
    picture = np.zeros((*grid.shape, 4), np.uint8)
    # failed and filtered windows first: a written one on the same place (another date) stays visible
    order = {"failed": 0, "filtered": 1, "written": 2}
    rows = own.select(["state", "split", "reason"]).to_pylist()
    for index in sorted(range(len(rows)), key=lambda index: order[rows[index]["state"]]):
        picture[grid.rows[index], grid.columns[index]] = _dot(**rows[index])
    squares = _squares(own, grid, region)
    label = f"Split map of lattice {lattice}: {plural(len(squares), 'block')}"
    width = float(min(560, max(440, 8 * grid.shape[1])))
    caption = f"Lattice {lattice}, {plural(own.num_rows, 'window')}, {plural(len(squares), 'block')}."
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
