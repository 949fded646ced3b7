"""The ways a flow takes a step: a task in its own process, batches on Dask, or another flow.

Each returns a `Step`, which the next one takes as ``after``: the States in it draw the edges of the graph, and a join
on one State keeps 120 batches from drawing 14,400. Nothing else draws any.

A stage ends when each of its units is done or its failure is recorded in the store; whether failures stop the flow
is for the join to say (`core.units.settle`). Units with a transient failure are tried twice more, and the flow waits
for that, not a worker. The units of a batch that lost its worker too often are tried once more one by one.
"""

import dataclasses
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from distributed.scheduler import KilledWorker
from prefect.client.schemas.objects import State, StateDetails
from prefect.context import FlowRunContext
from prefect.futures import as_completed
from prefect.logging import get_run_logger
from prefect.states import Completed, Failed
from prefect.utilities.annotations import allow_failure

from chipmill.core.errors import DiskFullError
from chipmill.core.redact import install
from chipmill.core.units import (
    Batch,
    BatchResult,
    cause_of_death,
    describe,
    failures,
    load_batches,
    record_failure,
)
from chipmill.orchestration.ending import CommittedWithFailuresError
from chipmill.orchestration.funnel import show_failures
from chipmill.orchestration.interrupt import stop_if_asked
from chipmill.orchestration.progress import Progress, StageProgress, tell
from chipmill.orchestration.records import crash_task_runs, remember
from chipmill.orchestration.settings import read_settings

if TYPE_CHECKING:
    from prefect import Flow, Task
    from prefect.futures import PrefectFuture

install()  # every process that runs a flow of ours imports this, also one that a worker started

ROUNDS: Final = 2
"""How often units with a transient failure are tried again after the stage."""
_WAIT_GROWTH: Final = 4.0
_END_LAG_S: Final = 2.0
"""A batch that never began has no record; a worker of Prefect's kills a cancelled run after 30 s."""


class Attempt(Protocol):
    """What a stage must know of a plan."""

    @property
    def attempt(self) -> Path:
        """The directory whose units/ hold the batches and their results."""


@dataclasses.dataclass(frozen=True, slots=True)
class Step[T]:
    """A step that was taken."""

    value: T
    states: tuple[Any, ...]
    """Of its runs, without their data: what the next step waits for."""
    lost: CommittedWithFailuresError | None = None
    """Set where the value was committed with failed units inside."""


type After = Step[Any] | Sequence[Step[Any]]
type Submitted = dict["PrefectFuture[Any]", Batch]


def step[**P, R](task: "Task[P, R]", *args: Any, after: After = ()) -> Step[R]:
    """Call a task in the flow's process and return its value; ``args`` may be steps or values.

    Raises what the task raises, after Prefect has recorded it.
    """
    stop_if_asked()
    tell(Progress(task.name, 0, 0, 1))
    call: Any = task  # the signature of a task speaks of its own parameters, not of wait_for
    state = call(*[_value(arg) for arg in args], wait_for=_states(after), return_state=True)
    remember(state)
    value = state.result()
    _forget_results()
    tell(Progress(task.name, 1, 0, 1))
    return Step(value, (_bare(state),))


def given[T](value: T, after: After = ()) -> Step[T]:
    """Return a value that needs no work as a step; what comes after it waits for ``after``."""
    return Step(value, tuple(_states(after)))


def run_flow[**P, R](flow: "Flow[P, R]", *args: Any, after: After = ()) -> Step[R]:
    """Run a subflow and return what it made; ``args`` may be steps or values.

    A subflow that committed its product with failed units inside (``on_failed: commit``) does not end the outer flow
    here: its product goes on, and `ending.conclude` ends the flow with that failure. Raises any other error of the subflow.
    """
    call: Any = flow  # as in step
    state = call(*[_value(arg) for arg in args], wait_for=_states(after), return_state=True)
    outcome = state.result(raise_on_failure=False)
    lost = outcome if isinstance(outcome, CommittedWithFailuresError) else None
    value = lost.product if lost else state.result()
    # The graph knows a subflow by the id of its run, where for tasks it looks for the id of the task's run.
    edge = StateDetails(task_run_id=state.state_details.flow_run_id)
    return Step(value, (Completed(data=True, state_details=edge),), lost)


def run_stage(
    task: "Task[..., BatchResult]", plan: Step[Any] | Attempt, *args: Any, after: After
) -> Step[int]:
    """Work on the frozen batches of the stage that is named like the task; return how many units are done.

    The task is called with ``plan``, ``args`` and a batch. Every unit is done or has a recorded failure afterwards.
    """
    where = _value(plan).attempt
    batches = load_batches(where, task.name)
    values = [_value(arg) for arg in (plan, *args)]
    with StageProgress(task.name, sum(len(batch.units) for batch in batches)) as progress:
        stage = _Stage(task, values, _states(after), where, progress)
        stage.work(batches)
        stage.work_again_on_transient(max((len(batch.units) for batch in batches), default=1))
        show_failures(task.name, failures(where, [task.name]))
        return Step(len(stage.done), tuple(stage.states))


class _Stage:
    """One stage while it runs."""

    def __init__(
        self,
        task: "Task[..., BatchResult]",
        args: Sequence[Any],
        after: list[Any],
        attempt: Path,
        progress: StageProgress,
    ) -> None:
        self.task, self.args, self.after, self.attempt, self.progress = task, args, after, attempt, progress
        self.done: set[str] = set()
        self.states: list[Any] = []
        self.count = 0

    def work(self, batches: Sequence[Batch]) -> None:
        """Work on batches, then one by one on the units of those that raised or lost their worker."""
        broken = self._collect(self._submit(batches))
        single = [self._batch((unit,)) for batch, _ in broken for unit in batch.units]
        for batch, error in self._collect(self._submit(single)):
            record_failure(self.attempt, batch.stage, batch.units[0], _reason(error), _is_transient(error))
            self.progress.add(0, 1)

    def work_again_on_transient(self, size: int) -> None:
        """Wait in the flow's process and batch the units that may succeed by now, at most twice."""
        wait = read_settings().retry_wait_s
        for _ in range(ROUNDS):
            units = [lost.unit for lost in failures(self.attempt, [self.task.name]) if lost.transient]
            if not units:
                return
            get_run_logger().warning(
                "%s: %d units failed for now, again in %g s", self.task.name, len(units), wait
            )
            time.sleep(wait)
            wait *= _WAIT_GROWTH
            self.progress.add(0, -len(units))
            self.work([self._batch(tuple(units[at : at + size])) for at in range(0, len(units), size)])

    def _batch(self, units: tuple[str, ...]) -> Batch:
        return Batch(self.task.name, self.count, units)

    def _submit(self, batches: Iterable[Batch]) -> Submitted:
        submitted: Submitted = {}
        for batch in batches:
            numbered = dataclasses.replace(batch, number=self.count)
            self.count += 1
            submit: Any = self.task.submit
            submitted[submit(*self.args, numbered, wait_for=self.after)] = numbered
        return submitted

    def _collect(self, submitted: Submitted) -> list[tuple[Batch, Exception]]:
        """Wait for batches; return those whose units are not accounted for, with the error."""
        broken: list[tuple[Batch, Exception]] = []
        pending = set(submitted)
        try:
            for future in as_completed(list(submitted)):
                stop_if_asked()
                try:
                    self._account(future.result())
                except DiskFullError:
                    raise  # every other batch would meet it too, and a failure could not be written down
                except Exception as error:  # noqa: BLE001 - any error of a batch is looked at unit by unit
                    broken.append((submitted[future], error))
                    if isinstance(error, KilledWorker):  # Prefect would show it as running for ever
                        crash_task_runs([future.task_run_id], _reason(error))
                pending.discard(future)
                self.states.append(_settled(future))
                _release(future)
        except BaseException:
            _abandon(pending)
            raise
        return broken

    def _account(self, result: BatchResult) -> None:
        self.done.update(result.done)
        self.progress.add(len(result.done), len(result.failed))


def _abandon(pending: "Iterable[PrefectFuture[Any]]") -> None:
    """Take back what was submitted: the run is being ended, and nobody will come back for it."""
    for future in pending:
        wrapped = getattr(future, "wrapped_future", None)
        if wrapped is not None:
            wrapped.cancel()
    crash_task_runs([future.task_run_id for future in pending], "the run was ended", _END_LAG_S)


def _release(future: "PrefectFuture[Any]") -> None:
    """Let Dask forget a result that was taken: else it does the batch again when the worker that holds it dies."""
    wrapped = getattr(future, "wrapped_future", None)
    if wrapped is not None:
        wrapped.release()


def _settled(future: "PrefectFuture[Any]") -> Any:
    """Return a State that a join may wait for: completed, or failed and allowed to be."""
    state = future.state
    remember(state)
    if state.is_completed():
        return _bare(state)
    return allow_failure(Failed(state_details=StateDetails(task_run_id=future.task_run_id)))


def _bare(state: State[Any]) -> State[Any]:
    """Return a completed State without its value, which would travel to the workers with each batch."""
    return state.model_copy(update={"data": True})


def _forget_results() -> None:
    """Keep Prefect from guessing edges by the identity of values: equal small strings and tuples are one object."""
    context = FlowRunContext.get()
    if context is not None:
        context.run_results.clear()


def _states(after: After) -> list[Any]:
    steps = [after] if isinstance(after, Step) else after
    return [state for one in steps for state in one.states]


def _value(argument: Any) -> Any:
    return argument.value if isinstance(argument, Step) else argument


def _is_transient(error: Exception) -> bool:
    return bool(getattr(error, "transient", False))


def _reason(error: Exception) -> str:
    if isinstance(error, KilledWorker):
        limit: int | None = getattr(error.last_worker, "memory_limit", None)
        return f"its worker died on it again and again: {cause_of_death(limit)}"
    return describe(error)
