"""How a batch of units is worked on: skip what is done, mark what begins, record what fails.

A unit is a tile, a shard or a row strip. The files below ``units/<stage>/`` of an attempt are the truth about it;
no scheduler is asked. A unit that killed its worker twice is failed, not tried a third time.
"""

import dataclasses
import math
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from chipmill.core.errors import ChipmillError, DiskFullError, PoisonUnitError, TilesFailedError
from chipmill.core.gdal_cache import bound_cache
from chipmill.core.links import refuse_links
from chipmill.core.paths import VersionDir, relative
from chipmill.core.redact import redact
from chipmill.core.store import (
    atomic_path,
    is_good,
    read_json,
    read_sidecar,
    seal_file,
    sidecar_path,
    write_json,
)
from chipmill.core.tables import join_tables, read_table, write_parquet

BATCH_SECONDS: Final = 10.0
"""Planned length of a batch: orchestration costs 0.1 s a batch, so it stays near 1 %."""
MAX_BATCHES: Final = 120
MEMORY_ENV: Final = "CHIPMILL_MEMORY_LIMIT_BYTES"
"""What a worker may use, in bytes; it writes that into its own environment when it starts."""
_DEATHS: Final = 2


@dataclasses.dataclass(frozen=True, slots=True)
class Batch:
    """Consecutive units of a stage that one task works on."""

    stage: str
    number: int
    units: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class UnitFailure:
    """Why a unit is not done."""

    stage: str
    unit: str
    reason: str
    transient: bool
    """True when the same unit may succeed a moment later."""


@dataclasses.dataclass(frozen=True, slots=True)
class UnitResult:
    """What a unit made: its rows for the join, and the committed files that must stand for it to count as done."""

    table: pa.Table | None = None
    products: tuple[Path, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class BatchResult:
    """What became of a batch; ``made`` is the part of ``done`` that was worked on in this call."""

    stage: str
    number: int
    done: tuple[str, ...]
    made: tuple[str, ...]
    failed: tuple[UnitFailure, ...]


def freeze_batches(
    attempt: Path, stage: str, units: Sequence[str], seconds_per_unit: float, fingerprint: str = ""
) -> tuple[Batch, ...]:
    """Cut units into batches of about ten seconds, at most 120, and write them once; a later call reads them.

    Frozen batches of another list of units or another ``fingerprint`` are replaced.
    """
    path = VersionDir(attempt).units_json(stage)
    if path.exists():
        frozen = read_json(path)
        if frozen["units"] == list(units) and frozen["fingerprint"] == fingerprint:
            return load_batches(attempt, stage)
    size = max(1, math.ceil(BATCH_SECONDS / max(seconds_per_unit, 1e-6)), math.ceil(len(units) / MAX_BATCHES))
    # Fewer units than two batches' worth still give two batches, so that a second worker is not idle.
    size = min(size, max(1, math.ceil(len(units) / 2)))
    cuts = [list(units[start : start + size]) for start in range(0, len(units), size)]
    write_json(path, {"units": list(units), "fingerprint": fingerprint, "batches": cuts})
    return load_batches(attempt, stage)


def load_batches(attempt: Path, stage: str) -> tuple[Batch, ...]:
    """Return the frozen batches of a stage."""
    cuts = read_json(VersionDir(attempt).units_json(stage))["batches"]
    return tuple(Batch(stage, number, tuple(units)) for number, units in enumerate(cuts))


def work_batch(
    attempt: Path,
    run: str,
    batch: Batch,
    work: Callable[[str], UnitResult],
    fingerprint: Callable[[str], str],
    closed: bool = False,
) -> BatchResult:
    """Work on each unit of a batch that is not done; a failure is recorded and the next unit begins.

    ``run`` names the try of this run (start marks are counted in it); ``closed`` says that the stage's product
    stands already. KeyboardInterrupt and the like pass; what a unit raises does not, but for DiskFullError: it is not
    the unit's fault, and the next ones would meet it too.
    """
    bound_cache()  # every stage reads rasters
    done: list[str] = []
    made: list[str] = []
    failed: list[UnitFailure] = []
    for unit in batch.units:
        if closed or is_done(attempt, batch.stage, unit, wanted := fingerprint(unit)):
            done.append(unit)
            continue
        failure = _work_unit(attempt, run, batch.stage, unit, work, wanted)
        if failure is None:
            done.append(unit)
            made.append(unit)
        else:
            failed.append(failure)
    return BatchResult(batch.stage, batch.number, tuple(done), tuple(made), tuple(failed))


def is_done(attempt: Path, stage: str, unit: str, fingerprint: str) -> bool:
    """Tell whether a unit's result and all the files that it names are good."""
    path = VersionDir(attempt).unit(stage, unit)
    sidecar = read_sidecar(path)
    if sidecar is None or not is_good(path, fingerprint):
        return False
    return all(is_good(Path(os.path.normpath(attempt / name))) for name in sidecar.extra.get("products", ()))


def _work_unit(
    attempt: Path, run: str, stage: str, unit: str, work: Callable[[str], UnitResult], fingerprint: str
) -> UnitFailure | None:
    mark = VersionDir(attempt).started(run, f"{stage}.{unit}")
    try:
        _begin(mark, stage, unit)
        result = work(unit)
        _finish(attempt, stage, unit, result, fingerprint)
    except DiskFullError:
        mark.unlink(missing_ok=True)
        raise
    except Exception as error:  # noqa: BLE001 - whatever a unit raises is recorded, and the others go on
        mark.unlink(missing_ok=True)
        return record_failure(attempt, stage, unit, describe(error), getattr(error, "transient", False))
    mark.unlink(missing_ok=True)
    VersionDir(attempt).failure(stage, unit).unlink(missing_ok=True)
    return None


def _begin(mark: Path, stage: str, unit: str) -> None:
    """Append one byte and sync it: a worker that dies now leaves it behind."""
    refuse_links(mark.parent)
    mark.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(mark, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o644)
    try:
        if os.fstat(handle).st_size >= _DEATHS:
            raise PoisonUnitError(
                f"{unit} in {stage}: its worker died twice on it ({cause_of_death(memory_limit())}): give workers more memory "
                "(CHIPMILL_WORKER_MEMORY), or look at its inputs, and run it again"
            )
        os.write(handle, b"x")
        os.fsync(handle)
    finally:
        os.close(handle)


def cause_of_death(limit_bytes: int | None) -> str:
    """Return what may have killed a worker; the limit of its memory tells whether that is the likely one."""
    bound = f", limit {limit_bytes / 1e9:.3g} GB" if limit_bytes else ""
    return f"out of memory{bound}, or a crash"


def memory_limit() -> int | None:
    """Return the bytes that this worker may use, None where nobody said."""
    text = os.environ.get(MEMORY_ENV, "")
    return int(text) if text.isdecimal() else None


def _finish(attempt: Path, stage: str, unit: str, result: UnitResult, fingerprint: str) -> None:
    path = VersionDir(attempt).unit(stage, unit)
    products = [relative(product, attempt) for product in result.products]
    sidecar_path(path).unlink(missing_ok=True)
    with atomic_path(path) as temp:
        write_parquet(temp, result.table if result.table is not None else pa.table({}))
    seal_file(path, fingerprint, extra={"products": products})


def describe(error: BaseException) -> str:
    """Return one redacted sentence for an error; ours speak for themselves, others get their class's name."""
    text = str(error) if isinstance(error, ChipmillError) else f"{type(error).__name__}: {error}"
    return redact(" ".join(text.split()))


def record_failure(attempt: Path, stage: str, unit: str, reason: str, transient: bool = False) -> UnitFailure:
    """Write down why a unit failed and return it."""
    failure = UnitFailure(stage, unit, reason, transient)
    write_json(VersionDir(attempt).failure(stage, unit), failure)
    return failure


def clear_failures(attempt: Path) -> None:
    """Forget the failures of an earlier try, so that its units are worked on again."""
    refuse_links(attempt / "units")
    for path in sorted((attempt / "units").glob("*/*.failed.json")):
        refuse_links(path.parent)
        path.unlink(missing_ok=True)


def failures(attempt: Path, stages: Iterable[str] | None = None) -> tuple[UnitFailure, ...]:
    """Return the recorded failures of the given stages (default: all), by stage and unit."""
    names = sorted(path.name for path in (attempt / "units").glob("*") if path.is_dir())
    wanted = names if stages is None else [name for name in names if name in set(stages)]
    paths = [path for name in wanted for path in sorted((attempt / "units" / name).glob("*.failed.json"))]
    return tuple(UnitFailure(**read_json(path)) for path in paths)


def settle(attempt: Path, stages: Sequence[str], on_failed: str, redo: str) -> tuple[UnitFailure, ...]:
    """Close stages: every unit is done or failed; return the failures.

    Raises TilesFailedError when one failed and ``on_failed`` is "stop"; ``redo`` is the command that redoes them.
    """
    lost = failures(attempt, stages)
    if lost and on_failed == "stop":
        first = lost[0]
        total = sum(len(batch.units) for stage in stages for batch in load_batches(attempt, stage))
        raise TilesFailedError(
            f"{len(lost)} of {total} units failed in {', '.join(stages)}; the first is {first.unit}: {first.reason}; "
            f"the others are done: redo only the failed ones with: {redo}"
        )
    return lost


def unit_table(attempt: Path, stage: str) -> pa.Table:
    """Return the rows of all done units of a stage, in the order of the units."""
    units = [unit for batch in load_batches(attempt, stage) for unit in batch.units]
    paths = (path for unit in units if (path := VersionDir(attempt).unit(stage, unit)).exists())
    return join_tables(table for path in paths if (table := read_table(path)).num_columns)


def unit_extra(attempt: Path, stage: str, unit: str) -> dict[str, Any]:
    """Return what the sidecar of a unit's result holds beside its hash."""
    sidecar = read_sidecar(VersionDir(attempt).unit(stage, unit))
    return dict(sidecar.extra) if sidecar else {}
