"""Counting what windows hold before a chip is cut: against counting chip by chip.

A tile of 2048 px with four slots; windows of 128 px at a stride of 64: class histogram, and nodata, cloud and valid
pixels of each slot. Ours is the whole stage `index_windows` from the files to the rows of its table. The other way takes
each chip by itself, as scripts that cut first and look later do: open its files, read its window of the same bands,
count with numpy; a sample of the windows is enough for its rate. One figure without a goal keeps the files open, so
that GDAL's cache holds the blocks that windows share. One thread each, by its CPU seconds.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import process_time
from typing import Any, Final

import numpy as np
import pyarrow as pa
import rasterio
from numpy.typing import NDArray
from rasterio.windows import Window as FileWindow

from benchmarks import chain
from benchmarks.figure import Figure
from benchmarks.kernel import interleaved
from benchmarks.whole_scene import CHIP_PX, CLASSES, SLOTS, STRIDE_PX, make_whole, whole_region
from chipmill.core.tables import read_table
from chipmill.core.units import Batch
from chipmill.dataset import windows
from chipmill.dataset.labels import label_path
from chipmill.dataset.stack import COUNTS, TileSources
from chipmill.dataset.windows import index_windows

OF_CHIPS: Final = 20.0


def run(quick: bool) -> list[Figure]:
    """Return the figures; ``quick`` takes 1024 px and fewer turns."""
    side, turns, sample = (1024, 1, 30) if quick else (2048, 5, 120)
    with tempfile.TemporaryDirectory() as name:
        config = whole_region(make_whole(Path(name), side), Path(name) / "built", side)
        plan, stacks = chain.stacked(config)
        (tile,) = plan.tiles()
        batch = Batch(windows.STAGE, 0, (tile.tile_id,))
        sources = TileSources(plan, read_table(plan.version.ranking))
        layers = [sources.composite(tile, "s2", f"p{slot}") for slot in range(1, SLOTS + 1)]
        label = label_path(plan, tile)
        units = plan.attempt / "units" / windows.STAGE

        def ours() -> pa.Table:
            shutil.rmtree(units, ignore_errors=True)
            index_windows(plan, stacks, batch)
            return read_table(plan.version.unit(windows.STAGE, tile.tile_id))

        starts = range(0, side - CHIP_PX + 1, STRIDE_PX)
        places = [FileWindow(col, row, CHIP_PX, CHIP_PX) for row in starts for col in starts]
        some = places[:: max(1, len(places) // sample)]
        _check_equal(ours(), count_chips(layers, label, places, keep_open=True))
        calls: dict[str, tuple[int, int, Callable[[], object]]] = {
            "chipmill": (turns, len(places), ours),
            "files kept open": (2, len(places), lambda: count_chips(layers, label, places, keep_open=True)),
            "chip by chip": (2, len(some), lambda: count_chips(layers, label, some, keep_open=False)),
        }
        rates = {
            name: count / interleaved({name: call}, times, process_time)[name]
            for name, (times, count, call) in calls.items()
        }
    return _figures(rates, len(places), side, quick)


def _figures(rates: dict[str, float], windows_: int, side: int, quick: bool) -> list[Figure]:
    context: dict[str, object] = {"side_px": side, "windows": windows_, "windows_per_s": rates}
    gains = {name: rates["chipmill"] / rates[name] for name in ("chip by chip", "files kept open")}
    gain = gains["chip by chip"]
    goal = ("", None) if quick else (f">= {OF_CHIPS:g}", gain >= OF_CHIPS)
    return [
        Figure("selection", rates["chipmill"], "windows/s", context=context),
        Figure("selection / chip by chip", gain, "x", *goal, context=context),
        Figure("selection / files kept open", gains["files kept open"], "x", context=context),
    ]


def count_chips(
    composites: list[Path], label: Path, places: list[FileWindow], *, keep_open: bool
) -> NDArray[np.float64]:
    """Return (window, class counts and the cloud fraction of each slot), window by window."""
    paths = [label, *composites]
    with contextlib.ExitStack() as files:
        kept = [files.enter_context(rasterio.open(path)) for path in paths] if keep_open else []
        rows = []
        for place in places:
            with contextlib.ExitStack() as own:
                rows.append(_count(kept or [own.enter_context(rasterio.open(path)) for path in paths], place))
    return np.array(rows)


def _count(sources: list[Any], place: FileWindow) -> list[float]:
    classes, *slots = sources
    bands = [list(slots[0].descriptions).index(name) + 1 for name in COUNTS]
    own = classes.read(1, window=place)
    seen = [source.read(bands, window=place) > 0 for source in slots]
    some = np.any([one[0] for one in seen], axis=0)
    counts = np.bincount(own[some & (own < len(CLASSES))], minlength=len(CLASSES))
    return [*counts, *(np.mean(one[1] & ~one[0]) for one in seen)]


def _check_equal(table: pa.Table, counted: NDArray[np.float64]) -> None:
    """Refuse to compare what does not count the same."""
    ours = np.hstack([np.array(table[name].to_pylist()) for name in ("class_px", "cloud_fraction")])
    if not np.allclose(ours, counted, rtol=0, atol=1e-12):
        raise RuntimeError("chip by chip gives other counts than we do: the comparison means nothing")
