"""What a backfill asks the workflow server: the runs of its cells, starting one, trying one again, closing a dead one."""

import contextlib
import datetime as dt
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from chipmill.core.errors import ServerError
from chipmill.core.holder import killed_holder
from chipmill.core.redact import install, redact
from chipmill.core.state import make_state_dir
from chipmill.core.store import lock
from chipmill.imagery.canary import require_safe_gdal
from chipmill.orchestration.backfill import Backfill
from chipmill.orchestration.cell_table import CellTable, Row, failed_cells
from chipmill.orchestration.choosing import CellRun, State
from chipmill.orchestration.grid_of_cells import Cell, Grid
from chipmill.orchestration.lost_runs import crash_unfinished
from chipmill.orchestration.records import hearing_cancel
from chipmill.orchestration.settings import read_settings

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.filters import FlowRunFilter
    from prefect.client.schemas.objects import FlowRun

_PAGE: Final = 200
_TAGS: Final = 50
"""Cells that one request asks for."""
_EVENTS: Final = 50
"""The most that the server gives on a page."""
_BEATING: Final = 10
"""Runs that one request asks for, so that the newest events are some of each: a run without any would count as dead."""
_AROUND: Final = re.compile(
    r"^Flow run encountered an exception:? ?(\w+Error: )?|: redo only the failed ones with: .*$", re.DOTALL
)
"""Of the message of a run: what Prefect puts before ours, and the command, which speaks of one cell as its file has it."""
_STATES: Final[dict[str, State]] = {
    "SCHEDULED": "scheduled",
    "PAUSED": "scheduled",
    "PENDING": "pending",
    "RUNNING": "running",
    "CANCELLING": "running",
    "COMPLETED": "completed",
    "FAILED": "failed",
    "CRASHED": "crashed",
    "CANCELLED": "cancelled",
}


def work_grid(grid: Grid, at_once: int, only_failed: bool) -> tuple[Row, ...]:
    """Go over the cells of a grid, at most ``at_once`` at the same time, and return how each stands.

    Call it in a flow. Raises CellsFailedError after all cells were gone through where some failed, BadInputError for an
    ``at_once`` that cannot be, ServerError where no deployment runs the cells or the server is away for long.
    """
    from prefect.client.orchestration import get_client

    install()
    require_safe_gdal()
    slug = grid.cells[0].slug
    with get_client(sync_client=True) as client, _told_if_killed(client), hearing_cancel():
        runs = ServerRuns(client, slug)
        runs.check()
        return Backfill(
            grid,
            runs,
            at_once,
            only_failed=only_failed,
            failed_before=failed_cells(client, slug, grid.cells) if only_failed else frozenset(),
            show=CellTable(client, slug).show,
            poll_s=read_settings().backfill_poll_s,
        ).work()


@contextlib.contextmanager
def _told_if_killed(client: "SyncPrefectClient") -> Iterator[None]:
    """Hold a lock of this run's name, and close the runs of backfills of this machine that were killed with theirs.

    No worker watches over a backfill of the command line: without this it would be shown as running for ever.
    """
    from prefect.exceptions import ObjectNotFound
    from prefect.runtime import flow_run

    folder = make_state_dir(read_settings().state_dir / "backfills")
    for path in folder.iterdir():
        if killed_holder(path) is not None:
            with contextlib.suppress(ObjectNotFound):  # of another server, or deleted there
                _crash(client, UUID(path.name), "its process was killed")
            path.unlink(missing_ok=True)
    own = folder / str(flow_run.id)
    with lock(own, str(flow_run.name)):
        try:
            yield
        finally:
            own.unlink(missing_ok=True)  # also where cells failed; only one that was killed leaves it


def _crash(client: "SyncPrefectClient", run: UUID, reason: str) -> None:
    """Write Crashed over a dead run and whatever it left running."""
    from prefect.states import Crashed

    gone: Any = Crashed(message=reason)
    client.set_flow_run_state(run, gone, force=True)
    crash_unfinished(run)


class ServerRuns:
    """The runs of the deployment ``<flow>/cell`` on a server; see `backfill.Runs` for what each does."""

    def __init__(self, client: "SyncPrefectClient", slug: str) -> None:
        self._client, self._slug = client, slug

    def check(self) -> None:
        """Raise ServerError where the server has no deployment that runs the cells."""
        from prefect.exceptions import ObjectNotFound

        try:
            self._client.read_deployment_by_name(self._deployment)
        except ObjectNotFound as error:
            raise ServerError(
                f"the workflow server has no deployment {self._deployment}, which runs the cells: start it with chipmill "
                "up, or deploy with prefect --no-prompt deploy --all --prefect-file deployments/prefect.yaml"
            ) from error

    @property
    def _deployment(self) -> str:
        return f"{self._slug}/cell"

    def history(self, cells: Sequence[Cell]) -> list[CellRun]:
        """Return all runs of cells, of whatever parameters, fifty cells with one request."""
        from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterTags

        tags = sorted({cell.tag for cell in cells})
        chunks = [tags[at : at + _TAGS] for at in range(0, len(tags), _TAGS)]
        return [
            run for some in chunks for run in self._read(FlowRunFilter(tags=FlowRunFilterTags(any_=some)))
        ]

    def poll(self, ids: Sequence[str]) -> list[CellRun]:
        """Return runs by their ids."""
        from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

        return self._read(FlowRunFilter(id=FlowRunFilterId(any_=[UUID(one) for one in ids])))

    def _read(self, wanted: "FlowRunFilter") -> list[CellRun]:
        from prefect.client.schemas.sorting import FlowRunSort

        found: list[FlowRun] = []
        while True:
            with _answering():
                page = self._client.read_flow_runs(
                    flow_run_filter=wanted, sort=FlowRunSort.ID_DESC, limit=_PAGE, offset=len(found)
                )
            found += page
            if len(page) < _PAGE:
                break
        # a run that somebody made by hand with the same tag has no key of ours
        return [_cell_run(run) for run in found if (run.idempotency_key or "").startswith(f"{self._slug}/")]

    def beats(self, ids: Sequence[str]) -> Mapping[str, dt.datetime]:
        """Return the last sign of life of runs, as far as the newest events have one."""
        newest: dict[str, dt.datetime] = {}
        for at in range(0, len(ids), _BEATING):
            for event in self._newest_beats(ids[at : at + _BEATING]):
                run = event["resource"]["prefect.resource.id"].removeprefix("prefect.flow-run.")
                newest.setdefault(run, dt.datetime.fromisoformat(event["occurred"]))
        return newest

    def _newest_beats(self, ids: Sequence[str]) -> list[dict[str, Any]]:
        wanted = {
            "event": {"name": ["prefect.flow-run.heartbeat"]},
            "resource": {"id": [f"prefect.flow-run.{one}" for one in ids]},
            "order": "DESC",
        }
        with _answering():
            body = {"filter": wanted, "limit": _EVENTS}
            events: list[dict[str, Any]] = self._client.request("POST", "/events/filter", json=body).json()[
                "events"
            ]
        return events

    def start(self, cell: Cell, key: str) -> CellRun:
        """Start a run of a key as part of this backfill, or return the one that has the key."""
        from prefect.deployments import run_deployment

        with _answering():
            run: Any = run_deployment(
                self._deployment,
                parameters=dict(cell.parameters),
                flow_run_name=f"{self._slug}/{cell.name}",
                idempotency_key=key,
                tags=["backfill", cell.tag],
                timeout=0,
                as_subflow=True,
            )
        return _cell_run(run)

    def retry(self, run: CellRun) -> CellRun:
        """Have a run tried again as the Retry of the screen does; the run goes on where it failed."""
        from prefect.states import Scheduled

        with _answering():
            self._client.set_flow_run_state(UUID(run.id), Scheduled(name="AwaitingRetry"))
        return self._reread(run)

    def crash(self, run: CellRun, reason: str) -> CellRun:
        """Write Crashed over a dead run and whatever it left running."""
        with _answering():
            _crash(self._client, UUID(run.id), reason)
        return self._reread(run)

    def _reread(self, run: CellRun) -> CellRun:
        with _answering():
            return _cell_run(self._client.read_flow_run(UUID(run.id)))


@contextlib.contextmanager
def _answering() -> Iterator[None]:
    """Tell a server that is away from one that refuses."""
    import httpx

    try:
        yield
    except httpx.TransportError as error:
        raise ServerError(
            f"the workflow server does not answer ({type(error).__name__}): start it again, cells that run go on"
        ) from error


def _cell_run(run: "FlowRun") -> CellRun:
    from prefect.utilities.urls import url_for

    state = run.state
    if state is None:  # the server makes the state a moment after the run
        return CellRun(
            str(run.id), run.idempotency_key or "", "scheduled", run.created or dt.datetime.now(dt.UTC)
        )
    return CellRun(
        id=str(run.id),
        key=run.idempotency_key or "",
        state=_STATES[state.type.value],
        since=state.timestamp,
        seconds=run.estimated_run_time.total_seconds(),
        message=redact(" ".join(_AROUND.sub("", state.message or state.name or "").split())),
        url=url_for(run) or "",
    )
