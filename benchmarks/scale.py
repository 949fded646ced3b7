"""How much memory one process needs as a region grows from 100 to 2,000 tiles, everything from search to commit.

Small tiles of one date with a label, one chip each, built by the library's verbs one after the other in a fresh process
with the environment of a cluster's worker. What is compared is the most that the process ever held.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Final
from unittest.mock import patch

from benchmarks.figure import Figure

TILE_PX: Final = 64
ACROSS: Final = 50
"""Tiles in a row."""
TILES: Final = (100, 2000)
GROWTH: Final = 1.1


def run(quick: bool) -> list[Figure]:
    """Return the figures; ``quick`` goes to 300 tiles."""
    # Here, since the processes that are measured import this file: they shall not hold what a cluster needs.
    from chipmill.orchestration.cluster import WORKER_ENVIRON

    counts = (TILES[0], 300) if quick else TILES
    with tempfile.TemporaryDirectory() as name, patch.dict(os.environ, WORKER_ENVIRON):
        folder = Path(name)
        _in_new_process(_prepare, folder)
        measured = [_in_new_process(_build, folder, count) for count in counts]
    peaks, chips = zip(*measured, strict=True)
    ratio = peaks[1] / peaks[0]
    context: dict[str, object] = {"tiles": counts, "peak_bytes": peaks, "chips": chips}
    title = f"scale: peak memory, {counts[1]:,} over {counts[0]:,} tiles"
    if quick:
        return [Figure(title, ratio, "x", context=context)]
    return [Figure(title, ratio, "x", f"<= {GROWTH:g}", ratio <= GROWTH, context)]


def _in_new_process[**P, T](call: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(call, *arguments, **named).result()


def _prepare(folder: Path) -> None:
    from benchmarks.whole_scene import make_whole

    make_whole(folder, ACROSS * TILE_PX, dates=1)


def _build(folder: Path, tiles: int) -> tuple[int, int]:
    """Return the peak of this process in bytes and the chips that were written."""
    os.environ["CHIPMILL_THREADS"] = "1"
    from benchmarks import chain
    from benchmarks.archive import Square
    from benchmarks.whole_scene import tiled_region

    square = Square(folder / "archive", ACROSS * TILE_PX, 1)
    made = chain.build(tiled_region(square, folder / f"built-{tiles}", TILE_PX, tiles))
    status = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) * 1024
    return peak, made.chips
