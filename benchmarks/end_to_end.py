"""From scenes to shards: against reading the same blocks alone, and against a script of odc-stac and tf.io.

2048 x 2048 px, 4 slots of 3 dates, 4 bands and a class band, chips of 128 px at a stride of 64 that hold the key class.
Ours are the library's verbs in one process with 2 threads, tiles of 1,024 px, with the whole contract: ranking,
composites, stacks, index, statistics, shards, each file hashed and synced, the version committed. Start-up is excluded:
a smaller cell is built before the clock starts. Reading alone is one pass of plain rasterio over the blocks that the composites
take, in the same process right before each run; the script runs in a process of its own. Fastest of several of each.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

from benchmarks.counting import Block
from benchmarks.figure import Figure

THREADS: Final = 2
TILE_PX: Final = 1024
OF_READING: Final = 3.0
OF_SCRIPT: Final = 5.0
PEAK_BYTES: Final = 400e6
AGAIN: Final = 0.02


@dataclass(frozen=True, slots=True)
class Measured:
    """What the process of our own saw."""

    reading_s: tuple[float, ...]
    building_s: tuple[float, ...]
    again_s: tuple[float, ...]
    cpu_s: tuple[float, ...]
    """Of the builds, all threads together."""
    peak_bytes: int
    """The most that the process ever held, imports and compiled kernels included."""
    chips: int
    decoded_mb: float


def run(quick: bool) -> list[Figure]:
    """Return the figures; ``quick`` takes 1024 px and fewer turns."""
    # Here, since the processes that are measured import this file: they shall not hold what a cluster needs.
    from chipmill.orchestration.cluster import WORKER_ENVIRON

    side, turns = (1024, 1) if quick else (2048, 5)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, spawn) as pool:
            spec, blocks = pool.submit(_prepare, folder, side, 1 if quick else 2).result()
        with patch.dict(os.environ, WORKER_ENVIRON), ProcessPoolExecutor(1, spawn) as pool:
            ours = pool.submit(_measure, folder, side, turns, blocks).result()
        script = _script(folder, spec)
    if script["chips"] != ours.chips:
        raise RuntimeError(
            f"the script wrote {script['chips']} chips, we {ours.chips}: the comparison means nothing"
        )
    return _figures(ours, script, side, quick)


def _figures(ours: Measured, script: dict[str, Any], side: int, quick: bool) -> list[Figure]:
    building, reading = min(ours.building_s), min(ours.reading_s)
    ratio, gain = building / reading, min(script["seconds"]) / building
    again = min(ours.again_s) / building
    context: dict[str, object] = {
        "side_px": side,
        "tile_px": TILE_PX,
        "threads": THREADS,
        "chips": ours.chips,
        "decoded_mb": ours.decoded_mb,
        "reading_s": ours.reading_s,
        "building_s": ours.building_s,
        "cpu_s": ours.cpu_s,
        "again_s": ours.again_s,
        "script_s": script["seconds"],
        "peak_mb": round(ours.peak_bytes / 1e6, 1),
        "script_peak_mb": round(script["peak_bytes"] / 1e6, 1),
    }

    def judged(name: str, value: float, unit: str, goal: str, holds: bool) -> Figure:
        if quick:  # the goals are those of the whole size
            return Figure(name, value, unit, context=context)
        return Figure(name, value, unit, goal, holds, context)

    return [
        judged("end to end / reading alone", ratio, "x", f"<= {OF_READING:g}", ratio <= OF_READING),
        judged("end to end / odc-stac and tf.io script", gain, "x", f">= {OF_SCRIPT:g}", gain >= OF_SCRIPT),
        judged("end to end: peak memory", ours.peak_bytes / 1e6, "MB", "<= 400", ours.peak_bytes <= PEAK_BYTES),
        judged("end to end: run again / first run", again, "x", f"<= {AGAIN:g}", again <= AGAIN),
    ]  # fmt: skip


def _prepare(folder: Path, side: int, times: int) -> tuple[dict[str, Any], list[Block]]:
    """Write the scenes; return what the script is told, and the blocks that our composites take."""
    from benchmarks import chain
    from benchmarks.archive import BANDS
    from benchmarks.counting import Decodes
    from benchmarks.scene import DROPPED, stac_items
    from benchmarks.whole_scene import (
        CHIP_PX,
        KEY,
        MIN_KEY_FRACTION,
        SLOTS,
        STRIDE_PX,
        make_whole,
        whole_region,
    )
    from chipmill.imagery import reading

    square = make_whole(folder / "whole", side)
    make_whole(folder / "small", 256)
    config = whole_region(square, folder / "items", side)
    seen = Decodes()
    with patch.object(reading, "open_asset", seen.watch(reading.open_asset)):
        chain.stacked(config)
    slots, grid = stac_items(config, SLOTS)
    spec = {
        "slots": slots,
        "bands": list(BANDS),
        "dropped": list(DROPPED),
        "shape": [grid.height, grid.width],
        "transform": list(grid.transform)[:6],
        "crs": grid.crs,
        "label": str(square.folder / "label.tif"),
        "key": KEY,
        "min_key_fraction": MIN_KEY_FRACTION,
        "chip_px": CHIP_PX,
        "stride_px": STRIDE_PX,
        "threads": THREADS,
        "out": str(folder / "script.tfrecord"),
        "times": times,
    }
    return spec, list(seen.blocks)


def _measure(folder: Path, side: int, turns: int, blocks: list[Block]) -> Measured:
    """Warm up, then read and build in turn; runs in a fresh process."""
    # Of the process: so many threads read, and so many units are worked on at once.
    os.environ["CHIPMILL_THREADS"] = str(THREADS)
    from benchmarks import chain
    from benchmarks.archive import Square
    from benchmarks.composite import blocks_bytes, read_blocks
    from benchmarks.scene import DATES
    from benchmarks.whole_scene import whole_region

    chain.build(whole_region(Square(folder / "small" / "archive", 256, DATES), folder / "warm", 128), THREADS)
    square = Square(folder / "whole" / "archive", side, DATES)
    seen: dict[str, list[float]] = {name: [] for name in ("reading", "building", "again", "cpu")}
    chips = 0
    for turn in range(turns):
        seen["reading"].append(_seconds(lambda: read_blocks(blocks, THREADS)))
        config = whole_region(square, folder / f"built-{turn}", TILE_PX)
        used, began = time.process_time(), time.perf_counter()
        chips = chain.build(config, THREADS).chips
        seen["building"].append(time.perf_counter() - began)
        seen["cpu"].append(time.process_time() - used)
        seen["again"].append(_seconds(partial(chain.standing, config)))
        shutil.rmtree(folder / f"built-{turn}")
    status = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) * 1024
    times = (tuple(seen[name]) for name in ("reading", "building", "again", "cpu"))
    return Measured(*times, peak, chips, round(blocks_bytes(blocks) / 1e6, 1))


def _seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _script(folder: Path, spec: dict[str, Any]) -> dict[str, Any]:
    """Run the script in a process of its own and return what it says."""
    path = folder / "spec.json"
    path.write_text(json.dumps(spec))
    command = [sys.executable, "-m", "benchmarks.peer_script", str(path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said
