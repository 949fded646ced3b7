"""One job of the command line: find out what is in force, and only if something is missing start server, cluster and flow.

`jobs.look` is asked once, before anything is started. This module imports neither Prefect nor distributed before a flow
has to run, so that "nothing to do" is said within seconds. The flow itself is
handed in by the caller: rooms below the flows do not import them.
"""

import contextlib
import dataclasses
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, Final

from chipmill.core.errors import TilesFailedError, VersionNotFoundError
from chipmill.core.redact import install
from chipmill.core.units import UnitFailure, failures
from chipmill.core.versions import Versions
from chipmill.dataset.manifest import DatasetRef
from chipmill.imagery.canary import require_safe_gdal
from chipmill.learning.bundle import ModelRef, find_model
from chipmill.mapping.outputs import MapRef, map_notes
from chipmill.mapping.prediction import map_versions
from chipmill.orchestration.ending import CommittedWithFailuresError
from chipmill.orchestration.interrupt import interruptible
from chipmill.orchestration.jobs import UP_TO_DATE, InForce, Job, is_complete, look, prepare
from chipmill.orchestration.progress import Listener, listening
from chipmill.orchestration.runs import Clock, RunRef, failures_of, running_clock, write_run
from chipmill.orchestration.server import running_server
from chipmill.region.plan import cell_dir
from chipmill.region.roots import check_roots, own_roots

type LoadFlow = Callable[[], Any]
"""Imports and returns the flow of the job's kind."""
type Product = DatasetRef | ModelRef | MapRef

_ENDED_BY_SIGNAL: Final = 128


@dataclasses.dataclass(frozen=True, slots=True)
class RunSummary:
    """How a job ended."""

    exit_code: int
    """0 done, 3 finished with failed units; every other failure is raised."""
    changed: bool
    """False: everything was in force, and nothing was started."""
    message: str
    dataset: DatasetRef | None = None
    model: ModelRef | None = None
    map: MapRef | None = None
    failures: tuple[UnitFailure, ...] = ()
    redo: str | None = None
    """The command that redoes what failed, and only that; None where nothing did."""
    report: Path | None = None
    """Page of the run; None for a training, which belongs to no cell."""
    record: Path | None = None


def run_job(
    job: Job,
    load_flow: LoadFlow,
    *,
    new: bool = False,
    on_progress: Listener | None = None,
    tell: Callable[[str], None] | None = None,
) -> RunSummary:
    """Do a job, or say that there is nothing to do.

    ``new`` discards an open attempt and its frozen answer of the search. ``on_progress`` is called in this process,
    ``tell`` with each sentence on input that was mended or left out. Failed units end in a summary with exit code 3;
    any other error is raised after server and cluster have ended.
    """
    install()
    require_safe_gdal()
    files = [one for one in (job.region, job.train, job.predict) if one is not None]
    with own_roots(files):
        for one in files:
            check_roots(one)
        return _do(job, load_flow, new, on_progress, tell)


def _do(
    job: Job,
    load_flow: LoadFlow,
    new: bool,
    on_progress: Listener | None,
    tell: Callable[[str], None] | None,
) -> RunSummary:
    found = look(job)
    if is_complete(job, found):
        return RunSummary(0, False, UP_TO_DATE, found.dataset, found.model, found.map)
    if tell is not None:
        for remark in found.remarks:
            tell(remark)
    with contextlib.ExitStack() as stack:
        told = prepare(job, found, stack, new=new)
        notes = f"; {told}" if told else ""
        clock = stack.enter_context(running_clock())
        stack.enter_context(listening(on_progress))
        if on_progress is not None:
            # The bars tell how far it is and the summary what failed; the server keeps all messages.
            os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
        with interruptible(), ending_on_sigterm(), running_server(meanwhile=load_flow):
            outcome = load_flow()(**_parameters(job, found), return_state=True).result(raise_on_failure=False)
        return _summary(job, found, outcome, clock, notes)


def _parameters(job: Job, found: InForce) -> dict[str, Any]:
    """Return the arguments of the job's flow."""
    files: dict[str, Any] = {"region": job.region, "train": job.train, "predict": job.predict}
    parameters: dict[str, dict[str, Any]] = {
        "refresh": files | {"dataset": found.dataset, "model": found.model},
        "build": {"region": job.region},
        "train": {"train": job.train, "datasets": found.datasets},
        "predict": {"region": job.region, "predict": job.predict, "dataset": found.dataset},
    }
    return parameters[job.kind]


@contextlib.contextmanager
def ending_on_sigterm() -> Iterator[None]:
    """Let SIGTERM end this process in order inside the block: flow recorded, cluster and server closed, exit code 143.

    Prefect catches the signal during a flow and then sends it again to whoever had it before: without a handler the
    process would be gone before it has closed anything.
    """

    def end(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(_ENDED_BY_SIGNAL + number)

    try:
        before = signal.signal(signal.SIGTERM, end)
    except ValueError:  # only the main thread may; another one is ended by the program that it belongs to
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _summary(job: Job, found: InForce, outcome: Any, clock: Clock, notes: str) -> RunSummary:
    """Tell how the flow ended, and write the record of the run where the flow has not."""
    lost: tuple[UnitFailure, ...] = ()
    product, text = outcome, "done"
    if isinstance(outcome, CommittedWithFailuresError):
        product, text = outcome.product, str(outcome)
    elif isinstance(outcome, TilesFailedError):
        product, text, lost = None, str(outcome), _open_failures(job)
    elif isinstance(outcome, Exception):
        raise outcome
    made = product if isinstance(product, RunRef) else _as_run(found, product)
    products = [one for one in (made.dataset, made.model, made.map) if one is not None]
    notes += "".join(f"; {note}" for note in (map_notes(made.map.path) if made.map is not None else ()))
    lost = lost or tuple(one for ref in products for one in failures_of(ref))
    failed = isinstance(outcome, TilesFailedError)
    redo = job.command if failed else None
    record, page = made.record, made.page
    if record is None and job.region is not None:
        name = f"{job.kind}/{job.region.name}"
        record, page = write_run(
            cell_dir(job.region), name, clock.started, clock.stages(), tuple(products), lost, redo or ""
        )
    code = TilesFailedError.exit_code if failed else 0
    return RunSummary(code, True, text + notes, made.dataset, made.model, made.map, lost, redo, page, record)


def _as_run(found: InForce, product: Product | None) -> RunRef:
    """Return what a flow made together with what was in force before."""
    dataset = product if isinstance(product, DatasetRef) else found.dataset
    model = product if isinstance(product, ModelRef) else found.model
    return RunRef(dataset, model, product if isinstance(product, MapRef) else found.map, None, None)


def _open_failures(job: Job) -> tuple[UnitFailure, ...]:
    """Return the failed units that the open attempts of the job's cell and map hold."""
    places: list[Versions] = []
    if job.region is not None:
        places.append(cell_dir(job.region).versions)
        if job.predict is not None:
            with contextlib.suppress(
                VersionNotFoundError
            ):  # no model yet: the failures are those of the dataset
                model = find_model(job.predict.model, job.predict.output_dir)
                places.append(map_versions(job.region, model, job.predict))
    return tuple(
        lost
        for place in places
        for number in place.attempts()
        for lost in failures(place.attempt_path(number))
    )
