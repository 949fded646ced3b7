"""What the workflow server remembers of runs: kept true after kills, and waited for before our own server ends.

Prefect never closes the record of a task whose process died, and its server writes records down behind the events.
The store does not depend on any of this; people who look at the screen do.
"""

import contextlib
import contextvars
import logging
import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.filters import FlowRunFilter, TaskRunFilter
    from prefect.client.schemas.objects import State, StateType

_LOG: Final = logging.getLogger("chipmill")
_PAGE: Final = 200
_LAG_S: Final = 30.0
_STILL_S: Final = 10.0
"""With no record closed for that long, what the server still owes it has lost."""
_POLL_S: Final = 0.25
_EAR_S: Final = 3.0
_ended: Final[dict[UUID, "State[Any]"]] = {}


@contextlib.contextmanager
def for_the_screen() -> Iterator[None]:
    """Show something inside the block; a server that is gone or does not answer never ends a run.

    Prefect's client has tried for a while by then. Logged at most at the level of a warning, without the request.
    """
    import httpx

    try:
        yield
    except httpx.HTTPError as error:
        _LOG.warning("the workflow server took nothing (%s): the run goes on", type(error).__name__)


def remember(state: "State[Any]") -> None:
    """Keep how a task run of this process or its workers ended, for `close_records`."""
    run = state.state_details.task_run_id
    if run is not None and state.is_final():
        _ended[run] = state


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


def crash_task_runs(runs: Iterable[UUID], reason: str, lag_s: float = _LAG_S) -> None:
    """Write Crashed over the state of task runs whose worker is gone; those that ended keep their state.

    A record that the server has not yet is waited for, ``lag_s`` seconds for all together. Where the server does not
    answer now, `close_records` does it later.
    """
    from prefect.client.orchestration import get_client
    from prefect.states import Crashed

    gone: Any = Crashed(message=reason)
    wanted = tuple(runs)
    for run in wanted:
        _ended.setdefault(run, gone)
    end = time.monotonic() + lag_s
    with for_the_screen(), get_client(sync_client=True) as client:
        for run in wanted:
            state = _recorded_state(client, run, end)
            if state is not None and not state.is_final():
                client.set_task_run_state(run, gone, force=True)


@contextlib.contextmanager
def hearing_cancel() -> Iterator[None]:
    """Inside the block, end this run as SIGTERM would once somebody presses Cancel.

    A run that a worker started is ended by its worker; one of the command line has no other ear.
    """
    from prefect.runtime import deployment, flow_run

    root = flow_run.root_flow_run_id
    if root is None or deployment.id or threading.current_thread() is not threading.main_thread():
        yield
        return
    over = threading.Event()
    context = contextvars.copy_context()  # it holds Prefect's settings
    threading.Thread(target=context.run, args=(_hear, UUID(str(root)), over), name="cancel").start()
    try:
        yield
    finally:
        over.set()


def _hear(run: UUID, over: threading.Event) -> None:
    from prefect.client.orchestration import get_client

    if over.wait(_EAR_S):
        return  # most stages are shorter than it takes to make a client
    with get_client(sync_client=True) as client:
        while not over.is_set():
            with for_the_screen():
                state = client.read_flow_run(run).state
                if state is not None and (state.is_cancelling() or state.is_cancelled()):
                    os.kill(os.getpid(), signal.SIGTERM)
                    _call_it_cancelled(client, run)
                    return
            over.wait(_EAR_S)


def _call_it_cancelled(client: "SyncPrefectClient", run: UUID) -> None:
    """Correct what Prefect says of the end: it takes every SIGTERM that no worker of its sends for a crash."""
    from prefect.states import Cancelled

    end = time.monotonic() + _LAG_S
    while time.monotonic() < end:
        state = client.read_flow_run(run).state
        if state is not None and state.is_final():
            break
        time.sleep(_POLL_S)
    gone: Any = Cancelled(message="cancelled on the screen")
    client.set_flow_run_state(run, gone, force=True)


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


def close_records(still_s: float = _STILL_S) -> None:
    """Wait until the server has written down how each task run that this process remembers ended, then forget them.

    A server that was killed has lost what it held in memory. Once it has closed none for ``still_s`` seconds, the rest
    are closed here, with the state that they ended in.
    """
    from prefect.client.orchestration import get_client

    left: list[UUID] = []
    changed = time.monotonic()
    with get_client(sync_client=True) as client:
        while now_left := _open_among(client, list(_ended)):
            if now_left != left:
                left, changed = now_left, time.monotonic()
            elif time.monotonic() - changed > still_s:
                for run in left:
                    _close(client, run, _ended[run])
                break
            time.sleep(_POLL_S)
    _ended.clear()


def _close(client: "SyncPrefectClient", run: UUID, end: "State[Any]") -> None:
    from prefect.client.schemas.objects import State

    client.set_task_run_state(run, State(type=end.type, name=end.name, message=end.message), force=True)


def _recorded_state(client: "SyncPrefectClient", run: UUID, end: float) -> Any:
    """Read the state of a task run that was just submitted: its record may be some seconds late."""
    from prefect.exceptions import ObjectNotFound

    while True:
        try:
            return client.read_task_run(run).state
        except ObjectNotFound:
            if time.monotonic() > end:
                return None  # it never began: there is no record to mend
            time.sleep(_POLL_S)


def _open_task_runs(client: "SyncPrefectClient", runs: list[UUID] | None = None) -> list[UUID]:
    """Return task runs that are shown as not final: at most one page of all, or of ``runs``."""
    return [run.id for run in client.read_task_runs(task_run_filter=open_tasks(runs), limit=_PAGE)]


def _open_among(client: "SyncPrefectClient", runs: list[UUID]) -> list[UUID]:
    pages = [runs[at : at + _PAGE] for at in range(0, len(runs), _PAGE)]
    return [run for page in pages for run in _open_task_runs(client, page)]


def _open_flow_runs(client: "SyncPrefectClient") -> list[UUID]:
    return [run.id for run in client.read_flow_runs(flow_run_filter=open_flows(), limit=_PAGE)]


def open_tasks(runs: list[UUID] | None = None) -> "TaskRunFilter":
    """Return the filter of task runs that are shown as begun and not final: of all, or of ``runs``."""
    from prefect.client.schemas import filters

    kinds = filters.TaskRunFilterStateType(any_=_open_states())
    return filters.TaskRunFilter(
        id=None if runs is None else filters.TaskRunFilterId(any_=runs),
        state=filters.TaskRunFilterState(type=kinds),
    )


def open_flows() -> "FlowRunFilter":
    """Return the filter of flow runs that are shown as begun and not final."""
    from prefect.client.schemas import filters

    kinds = filters.FlowRunFilterStateType(any_=_open_states())
    return filters.FlowRunFilter(state=filters.FlowRunFilterState(type=kinds))


def _open_states() -> "list[StateType]":
    from prefect.client.schemas.objects import StateType

    return [StateType.RUNNING, StateType.PENDING, StateType.CANCELLING]
