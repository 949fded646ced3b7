"""Toy stages for the tests of orchestration: they write a small file per unit through core.units, and no pixel.

Workers import this module by its name, so faults are planted here and nowhere in the package. What a unit does is in
its name: "ok-1" works, "kill-1" kills its worker each time, "once-1" kills it the first time, "bad-1" raises,
"broken-1" makes the whole batch raise, "flaky-1" fails transiently until the third try.
"""

import dataclasses
import os
import signal
from pathlib import Path

import pyarrow as pa

from chipmill.core.errors import AssetReadError, TransientReadError
from chipmill.core.store import commit_file
from chipmill.core.units import Batch, BatchResult, UnitResult, freeze_batches, settle, work_batch


@dataclasses.dataclass(frozen=True, slots=True)
class ToyPlan:
    """As much of a plan as a stage needs."""

    attempt: Path
    run: str
    on_failed: str = "stop"


def plan_toys(attempt: Path, units: tuple[str, ...], on_failed: str, per_batch: int = 4) -> ToyPlan:
    """Freeze the batches of the one toy stage."""
    freeze_batches(attempt, "toy_units", units, 10.0 / per_batch)
    return ToyPlan(attempt, "run.1", on_failed)


def toy_units(plan: ToyPlan, batch: Batch) -> BatchResult:
    """Write one file per unit, or do what the unit's name says."""

    def work(unit: str) -> UnitResult:
        return _work(plan.attempt, unit)

    def fingerprint(unit: str) -> str:
        if unit.startswith("broken-"):
            raise ValueError("no fingerprint")
        return f"toy-{unit}"

    return work_batch(plan.attempt, plan.run, batch, work, fingerprint)


def _work(attempt: Path, unit: str) -> UnitResult:
    tries = attempt / "tries" / unit
    tries.parent.mkdir(exist_ok=True)
    with tries.open("a") as stream:
        stream.write("x")
    count = tries.stat().st_size
    kind = unit.partition("-")[0]
    if kind == "kill" or (kind == "once" and count == 1):
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "bad":
        raise AssetReadError(f"{unit}: its asset cannot be decoded: fetch it again")
    if kind == "flaky" and count < 3:
        raise TransientReadError(f"{unit}: 503")
    product = attempt / "products" / f"{unit}.txt"
    with commit_file(product, f"toy-{unit}") as temp:
        temp.write_text(unit)
    return UnitResult(pa.table({"unit": [unit]}), (product,))


def count_toys(plan: ToyPlan) -> int:
    """Close the stage: the number of failed units."""
    return len(settle(plan.attempt, ["toy_units"], plan.on_failed, "chipmill run toys.yaml"))


def report_toys(lost: int) -> str:
    """The step after the join."""
    return f"{lost} lost"
