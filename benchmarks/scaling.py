"""Composites of 64 tiles by one and by two workers, and how much memory a worker needs as tiles and dates grow.

A worker is a process of the run's own kind of Dask cluster, of one core: it is pinned to a core of its own, since one
that is alone would else take the second core for its reading threads, and nothing of two workers would be seen. Start-up,
search and ranking are not timed; each worker has compiled its kernels before. Both clusters stand at the same time and
take turns.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import dask
import distributed

from benchmarks.archive import Square, make_square, region
from benchmarks.figure import Figure
from chipmill.core.units import Batch, BatchResult
from chipmill.imagery import catalog, composite, planning, ranking
from chipmill.imagery.blocks import THREADS_ENV
from chipmill.imagery.items import RankingRef
from chipmill.orchestration.cluster import DASK_CONFIG, local_options
from chipmill.orchestration.settings import read_settings
from chipmill.region.config import Region
from chipmill.region.plan import Plan

TILE_PX: Final = 512
_TURNS: Final = 3
_UNITS: Final = 4  # tiles of a batch, so that the last one keeps no worker waiting
_GROWTH: Final = 1.1


@dataclasses.dataclass(frozen=True, slots=True)
class Work:
    """A ranked plan."""

    plan: Plan
    ranking: RankingRef
    batches: tuple[Batch, ...]


def run(quick: bool) -> list[Figure]:
    """Measure speed-up and memory; ``quick``: 16 tiles of 3 dates, one turn, and a quarter of the dates."""
    side, dates, turns = (2048, 3, 1) if quick else (4096, 6, _TURNS)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        square = make_square(folder / "archive", side, dates)
        return [
            _speed_up(square, folder, turns),
            _growth_with_tiles(square, folder),
            _growth_with_dates(folder, (12, 24) if quick else (12, 48)),
        ]


def _speed_up(square: Square, folder: Path, turns: int) -> Figure:
    warm = _ranked(region(square, folder / "warm", TILE_PX, tiles=square.side_px // TILE_PX))
    work = _ranked(region(square, folder / "timed", TILE_PX))
    seconds: dict[int, list[float]] = {1: [], 2: []}
    with workers(1) as one, workers(2) as two:
        for client in (one, two):
            client.run(_compose_here, warm)
        for _ in range(turns):
            for count, client in ((1, one), (2, two)):
                seconds[count].append(_timed(client, work))
    ratio = min(seconds[1]) / min(seconds[2])
    context: dict[str, object] = {
        "tiles": len(work.plan.tiles()),
        "tile_px": TILE_PX,
        "dates": square.dates,
        "bands": 5,
        "seconds": {str(count): values for count, values in seconds.items()},
        "load": os.getloadavg()[0],
    }
    return Figure("scaling: 1 -> 2 workers", ratio, "x", ">= 1.8", ratio >= 1.8, context)


def _growth_with_tiles(square: Square, folder: Path) -> Figure:
    everything = (square.side_px // TILE_PX) ** 2
    few, many = (
        _peak(region(square, folder / f"tiles-{count}", TILE_PX, tiles=count))
        for count in (everything // 4, everything)
    )
    return _growth("tiles", (everything // 4, everything), (few, many))


def _growth_with_dates(folder: Path, dates: tuple[int, int]) -> Figure:
    peaks = []
    for count in dates:
        square = make_square(folder / f"dates-{count}" / "archive", 1024, count)
        peaks.append(_peak(region(square, folder / f"dates-{count}", 1024)))
    return _growth("dates", dates, (peaks[0], peaks[1]))


def _growth(what: str, counts: tuple[int, int], peaks: tuple[int, int]) -> Figure:
    ratio = peaks[1] / peaks[0]
    context: dict[str, object] = {what: list(counts), "peak_bytes": list(peaks)}
    name = f"scaling: peak memory, {counts[1]} over {counts[0]} {what}"
    return Figure(name, ratio, "x", f"<= {_GROWTH}", ratio <= _GROWTH, context)


def _ranked(config: Region) -> Work:
    """Plan, search and rank in this process."""
    plan = planning.tile_aoi(config)
    items = catalog.search_items(plan)
    units = [tile.tile_id for tile in plan.tiles() if not tile.reject]
    ranking.rank_items(plan, items, Batch(ranking.STAGE, 0, tuple(units)))
    cut = [tuple(units[start : start + _UNITS]) for start in range(0, len(units), _UNITS)]
    batches = tuple(Batch(composite.STAGE, number, part) for number, part in enumerate(cut))
    return Work(plan, ranking.close_ranking(plan, items), batches)


def _timed(client: Any, work: Work) -> float:
    """Return the seconds that all composites of a plan take, none of which is there."""
    shutil.rmtree(work.plan.region_dir.root / "composites", ignore_errors=True)
    shutil.rmtree(work.plan.attempt / "units" / composite.STAGE, ignore_errors=True)
    began = time.perf_counter()
    futures = client.map(
        composite.composite_tiles,
        [work.plan] * len(work.batches),
        [work.ranking] * len(work.batches),
        work.batches,
        pure=False,
    )
    made = client.gather(futures)
    seconds = time.perf_counter() - began
    _check(made, sum(len(batch.units) for batch in work.batches))
    return seconds


def _check(made: Sequence[BatchResult], units: int) -> None:
    failed = [failure for result in made for failure in result.failed]
    if failed:
        raise RuntimeError(f"{failed[0].unit} failed: {failed[0].reason}")
    if sum(len(result.made) for result in made) != units:
        raise RuntimeError("some composites were there before they were timed")


def _compose_here(work: Work) -> None:
    """Compile what a worker needs: composites whose files go nowhere else are thrown away."""
    with tempfile.TemporaryDirectory() as name:
        config = work.plan.region.model_copy(update={"output": name})
        _check([_rank_and_compose(config)], len(work.plan.tiles()))


def _rank_and_compose(config: Region) -> BatchResult:
    work = _ranked(config)
    whole = Batch(composite.STAGE, 0, tuple(unit for batch in work.batches for unit in batch.units))
    return composite.composite_tiles(work.plan, work.ranking, whole)


def _peak(config: Region) -> int:
    """Return the most bytes that a fresh worker held while it ranked and composed a region."""
    with workers(1) as client:
        result = client.submit(_rank_and_compose, config, pure=False).result()
        _check([result], len(result.done))
        return max(client.run(_high_water).values())


def _high_water() -> int:
    """Return the most bytes this process ever had in memory (VmHWM; getrusage would count those of its parent)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024


@contextlib.contextmanager
def workers(count: int) -> Iterator[Any]:
    """Start workers as a run does, each on a core of its own; yield their client."""
    settings = dataclasses.replace(read_settings(), workers=count)
    cores = sorted(os.sched_getaffinity(0))
    options = local_options(settings)
    options["env"] = options["env"] | {THREADS_ENV: "1"}
    start: Any = distributed.LocalCluster
    client_of: Any = distributed.Client
    with dask.config.set(DASK_CONFIG), start(**options) as cluster, client_of(cluster) as client:
        client.wait_for_workers(count)
        names = sorted(client.scheduler_info(n_workers=-1)["workers"])
        for number, worker in enumerate(names):
            client.run(_pin, cores[number % len(cores)], workers=[worker])
        yield client


def _pin(core: int) -> None:
    """Keep all threads of this process, and those to come, on one core."""
    for thread in Path("/proc/self/task").iterdir():
        os.sched_setaffinity(int(thread.name), {core})
