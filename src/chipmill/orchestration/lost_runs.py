"""Closes what a dead process left open on the screen, for the workers of `chipmill up` (a run of its own: `records`).

A server that serves many runs cannot take everything open for lost: only what lies below a run whose process is known
to be gone.
"""

import time
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import psutil

from chipmill.orchestration.records import open_flows, open_tasks

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

_PAGE: Final = 200
_LAG_S: Final = 3.0
_POLL_S: Final = 0.25


def crash_unfinished(run: UUID) -> None:
    """Set what is still open below a flow run that did not complete, and whose process has ended, to Crashed."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        state = client.read_flow_run(run).state
        if state is not None and state.is_completed():
            return
        _crash_below(client, run)
        time.sleep(
            _LAG_S
        )  # the server writes task runs down behind the events: what it showed as open only now
        _crash_below(client, run)


def crash_lost_runs(pools: list[str], grace_s: float) -> None:
    """Set the runs of these pools that no process of this machine works on to Crashed, with all below them.

    For a worker that begins where another one died: the processes of that one's runs end by themselves, and have
    ``grace_s`` seconds for it.
    """
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import WorkPoolFilter, WorkPoolFilterName

    where = WorkPoolFilter(name=WorkPoolFilterName(any_=pools))
    end = time.monotonic() + grace_s
    with get_client(sync_client=True) as client:
        found = client.read_flow_runs(flow_run_filter=open_flows(), work_pool_filter=where, limit=_PAGE)
        while any(_lives(run.infrastructure_pid) for run in found) and time.monotonic() < end:
            time.sleep(_POLL_S)
        for run in found:
            state = client.read_flow_run(run.id).state
            if not _lives(run.infrastructure_pid) and state is not None and not state.is_final():
                _crash_flow_run(client, run.id)
                _crash_below(client, run.id)


def _crash_below(client: "SyncPrefectClient", run: UUID) -> None:
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId, FlowRunFilterParentFlowRunId

    own = FlowRunFilter(id=FlowRunFilterId(any_=[run]))
    for task in client.read_task_runs(flow_run_filter=own, task_run_filter=open_tasks(), limit=_PAGE):
        client.set_task_run_state(task.id, _gone(), force=True)
    below = FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[run]))
    for flow in client.read_flow_runs(flow_run_filter=below, limit=_PAGE):
        if flow.deployment_id is not None:
            continue  # it has a process of its own, which may well live
        _crash_below(client, flow.id)
        if flow.state is not None and not flow.state.is_final():
            _crash_flow_run(client, flow.id)


def _crash_flow_run(client: "SyncPrefectClient", run: UUID) -> None:
    client.set_flow_run_state(run, _gone(), force=True)


def _gone() -> Any:
    from prefect.states import Crashed

    return Crashed(message="its process was ended")


def _lives(pid: str | None) -> bool:
    """Tell whether the process of a run is still there; a run without a pid was never given one."""
    if not pid or not pid.isdigit():
        return False
    try:
        return bool(psutil.Process(int(pid)).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
