"""What the workflow server remembers of runs: kept true after kills, and waited for before our own server ends.

Prefect never closes the record of a task whose process died, and its server writes records down behind the events.
The store does not depend on any of this; people who look at the screen do.
"""

import signal
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

_PAGE: Final = 200
_LAG_S: Final = 30.0
_POLL_S: Final = 0.25


def crash_left_overs() -> int:
    """Set all runs and task runs that are not final to Crashed; return how many that were.

    Only for a server that nobody else uses: whatever it shows as running was left by a process that is gone.
    """
    from prefect.client.orchestration import get_client
    from prefect.states import Crashed

    gone: Any = Crashed(message="its process was killed")
    count = 0
    with get_client(sync_client=True) as client:
        while tasks := _open_task_runs(client):
            count += len(tasks)
            for run in tasks:
                client.set_task_run_state(run, gone, force=True)
        while flows := _open_flow_runs(client):
            count += len(flows)
            for run in flows:
                client.set_flow_run_state(run, gone, force=True)
    return count


def crash_task_runs(runs: Iterable[UUID], reason: str) -> None:
    """Write Crashed over the state of task runs whose worker is gone; those that ended keep their state."""
    from prefect.client.orchestration import get_client
    from prefect.states import Crashed

    with get_client(sync_client=True) as client:
        for run in runs:
            state = _recorded_state(client, run)
            if state is not None and not state.is_final():
                client.set_task_run_state(run, Crashed(message=reason), force=True)


def stop_if_cancelled() -> None:
    """End this run, as SIGTERM would, where somebody pressed Cancel: a run outside of a work pool has no other ear."""
    from prefect.client.orchestration import get_client
    from prefect.exceptions import TerminationSignal
    from prefect.runtime import flow_run

    root = flow_run.root_flow_run_id
    if root is None:
        return
    with get_client(sync_client=True) as client:
        state = client.read_flow_run(UUID(str(root))).state
    if state is not None and (state.is_cancelling() or state.is_cancelled()):
        raise TerminationSignal(signal.SIGTERM)


def send_out() -> None:
    """Send what this process still holds back of logs and events, so that the server may be ended."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogHandler

    APILogHandler().flush()
    EventsWorker.drain_all(timeout=_LAG_S, at_exit=False)


def wait_for_records(deadline_s: float = _LAG_S) -> bool:
    """Wait until the server has written down how each task run ended; False where it did not in time."""
    from prefect.client.orchestration import get_client

    end = time.monotonic() + deadline_s
    with get_client(sync_client=True) as client:
        while _open_task_runs(client):
            if time.monotonic() > end:
                return False
            time.sleep(_POLL_S)
    return True


def _recorded_state(client: "SyncPrefectClient", run: UUID) -> Any:
    """Read the state of a task run that was just submitted: its record may be some seconds late."""
    from prefect.exceptions import ObjectNotFound

    end = time.monotonic() + _LAG_S
    while True:
        try:
            return client.read_task_run(run).state
        except ObjectNotFound:
            if time.monotonic() > end:
                return None  # it never began: there is no record to mend
            time.sleep(_POLL_S)


def _open_task_runs(client: "SyncPrefectClient") -> list[UUID]:
    from prefect.client.schemas.filters import TaskRunFilter, TaskRunFilterState, TaskRunFilterStateType
    from prefect.client.schemas.objects import StateType

    kinds = [StateType.RUNNING, StateType.PENDING, StateType.CANCELLING]
    where = TaskRunFilter(state=TaskRunFilterState(type=TaskRunFilterStateType(any_=kinds)))
    return [run.id for run in client.read_task_runs(task_run_filter=where, limit=_PAGE)]


def _open_flow_runs(client: "SyncPrefectClient") -> list[UUID]:
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
    from prefect.client.schemas.objects import StateType

    kinds = [StateType.RUNNING, StateType.PENDING, StateType.CANCELLING]
    where = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=kinds)))
    return [run.id for run in client.read_flow_runs(flow_run_filter=where, limit=_PAGE)]
