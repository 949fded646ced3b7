"""How often the ranking decodes a block of a mask: once per tile, at the coarsest level that is fine enough.

One tile of 2048 x 2048 px, 12 dates with a mask of 20 m, read with and without overviews and for slots that overlap.
Blocks are counted from outside, by every read of an open file. The limit in time is decoding the same blocks alone.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Final
from unittest.mock import patch

from rasterio.windows import Window

from benchmarks.archive import YEAR, Square, make_square, region
from benchmarks.counting import Block, Decodes
from benchmarks.figure import Figure
from chipmill.imagery import catalog, evidence, planning, ranking
from chipmill.imagery.sources import open_asset
from chipmill.region.config import Region, Slots, Time
from chipmill.region.plan import Plan

_DATES: Final = 12
_TIMES: Final = 5


def run(quick: bool) -> list[Figure]:
    """Rank one tile, ``quick`` one of 1024 px, of masks without overviews and with them."""
    side = 1024 if quick else 2048
    figures = []
    for overviews in ((), (2, 4, 8)):
        with tempfile.TemporaryDirectory() as name:
            square = make_square(Path(name) / "archive", side, _DATES, overviews=overviews, bands=())
            figures += _measured(square, Path(name), "with overviews" if overviews else "no overviews")
    return figures


def _measured(square: Square, folder: Path, kind: str) -> list[Figure]:
    config = overlapping(region(square, folder / kind, square.side_px))
    plan = planning.tile_aoi(config)
    items = catalog.search_items(plan)
    index = ranking.TileItems(plan, catalog.load_items(items))
    seen = Decodes()
    with patch.object(evidence, "open_asset", seen.watch(open_asset)):
        rows = list(ranking.tile_rows(plan, plan.tiles()[0], index))
    often = max(seen.blocks.values())
    ours = min(_ranked(plan, index) for _ in range(_TIMES))
    alone = min(_decoded(list(seen.blocks)) for _ in range(_TIMES))
    context: dict[str, object] = {
        "dates": square.dates,
        "side_px": square.side_px,
        "rows": len(rows),
        "blocks": len(seen.blocks),
        "levels": sorted({str(block[1]) for block in seen.blocks}),
    }
    times: dict[str, object] = {"ranking_s": ours, "decoding_alone_s": alone}
    return [
        Figure(
            f"ranking, {kind}: most decodes of a block", often, "decodes", "<= 1", often == 1, dict(context)
        ),
        Figure(f"ranking, {kind}: time over decoding alone", ours / alone, "x", "", None, context | times),
    ]


def overlapping(config: Region) -> Region:
    """Return the region with two slots that share half a year: a mask belongs to both."""
    spans = (("first", f"{YEAR}-01-01", f"{YEAR}-09-01"), ("second", f"{YEAR}-03-01", f"{YEAR + 1}-01-01"))
    slots = [{"name": name, "start": start, "end": end} for name, start, end in spans]
    time_ = Time(range=config.time.range, slots=Slots.model_validate({"list": slots}))
    return config.model_copy(update={"time": time_})


def _ranked(plan: Plan, index: ranking.TileItems) -> float:
    began = time.perf_counter()
    for _ in ranking.tile_rows(plan, plan.tiles()[0], index):
        pass
    return time.perf_counter() - began


def _decoded(blocks: list[Block]) -> float:
    """Return the seconds that it takes to open the files and read these blocks, each once."""
    wanted: dict[tuple[str, int | None], list[tuple[int, int, int]]] = {}
    for location, level, band, row, column in blocks:
        wanted.setdefault((location, level), []).append((band, row, column))
    began = time.perf_counter()
    for (location, level), places in wanted.items():
        with open_asset(location, overview=level) as dataset:
            height, width = dataset.block_shapes[0]
            for band, row, column in places:
                window = Window(column * width, row * height, width, height)
                dataset.read(band, window=window.intersection(Window(0, 0, dataset.width, dataset.height)))
    return time.perf_counter() - began
