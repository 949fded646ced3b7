"""The flow of the toy stages, written as the real ones are: the units, the join, and a step after it."""

from pathlib import Path

from prefect import flow, task
from tests.flows import toys

from chipmill.orchestration.cluster import stage_runner
from chipmill.orchestration.ending import CommittedWithFailuresError, conclude
from chipmill.orchestration.retry import BATCH, DIRECT
from chipmill.orchestration.stage import run_flow, run_stage, step

plan_toys = task(name="plan_toys", task_run_name="plan_toys", **DIRECT)(toys.plan_toys)
toy_units = task(name="toy_units", task_run_name="toy_units-{batch.number}", **BATCH)(toys.toy_units)
count_toys = task(name="count_toys", task_run_name="count_toys", **DIRECT)(toys.count_toys)
report_toys = task(name="report_toys", task_run_name="report_toys", **DIRECT)(toys.report_toys)


@flow(name="toys", task_runner=stage_runner())
def make_toys(attempt: Path, units: tuple[str, ...], on_failed: str, per_batch: int) -> str:
    plan = step(plan_toys, attempt, units, on_failed, per_batch)
    worked = run_stage(toy_units, plan, after=plan)
    lost = step(count_toys, plan, after=worked)
    return step(report_toys, lost, after=lost).value


@flow(name="inner")
def inner() -> str:
    raise CommittedWithFailuresError("1 unit failed, all others are committed", "committed")


@flow(name="outer")
def outer() -> str:
    made = run_flow(inner)
    told = step(report_toys, made, after=made)
    assert told.value == "committed lost"
    return conclude(f"made of {made.value}", [made.lost])
