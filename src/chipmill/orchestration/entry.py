"""How a flow begins: the command line has looked and holds the cell, or the flow does both itself.

A flow that a worker started for a schedule, a backfill or the form of the UI has no caller of ours. It then does by
plain calls, which draw nothing into the graph, what `run.run_job` does before it starts anything: refuse bad input, search
once, say "nothing to do", take the cell's lock and freeze the answer. A retry of a failed run passes here again and
goes on with the attempt that is open.
"""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import cast

from prefect.logging import get_run_logger
from prefect.runtime import deployment, flow_run
from prefect.states import Completed

from chipmill.core.errors import BadInputError
from chipmill.core.redact import install
from chipmill.dataset.manifest import DatasetRef
from chipmill.imagery.canary import require_safe_gdal
from chipmill.learning.bundle import ModelRef, current_model
from chipmill.mapping.outputs import MapRef
from chipmill.orchestration.cells import is_held
from chipmill.orchestration.jobs import UP_TO_DATE, InForce, Job, is_complete, look, prepare
from chipmill.region.roots import ROOTS_ENV, check_place, roots


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """What a flow starts from."""

    complete: bool
    """Everything that was asked for is in force: end with `nothing_to_do`."""
    dataset: DatasetRef | None = None
    """Of the cell, current or given."""
    model: ModelRef | None = None
    map: MapRef | None = None
    datasets: tuple[DatasetRef, ...] = ()
    """That the model learns from."""


@contextlib.contextmanager
def entering(
    job: Job,
    *,
    dataset: DatasetRef | None = None,
    model: ModelRef | None = None,
    datasets: tuple[DatasetRef, ...] = (),
) -> Iterator[Entry]:
    """Give a flow what is in force, and hold its cell inside the block.

    Args:
        job: what the flow is asked for, its files checked by `region.roots.check_roots`.
        dataset: the dataset that the flow was given; it is taken as it is.
        model: the model that the flow was given, likewise.
        datasets: what a training was given to learn from, likewise.

    Raises:
        BadInputError: a worker runs the flow without CHIPMILL_ROOTS; or as `look` raises it.
        RegionFileError: a given dataset or model lies outside the roots.
        LockedError: another run works on the cell.
    """
    _refuse_strangers([dataset, *datasets], model)
    if job.region is not None and is_held(job.region):
        yield Entry(False, dataset, model)
        return
    install()
    require_safe_gdal()
    found = _look(job, model, datasets)
    if _as_given(job, found, dataset, model) and is_complete(job, found):
        yield Entry(True, found.dataset, found.model, found.map)
        return
    with contextlib.ExitStack() as held:
        told = prepare(job, found, held, run=str(flow_run.name))
        for text in filter(None, (*found.remarks, told)):
            get_run_logger().warning(text)
        yield Entry(False, dataset or found.dataset, model or found.model, None, found.datasets)


def nothing_to_do[T](value: T | None) -> T:
    """Return the end of a flow that found everything in force: Completed with that message, and the products.

    Prefect takes a State that a flow returns as the flow's own, and hands its data to whoever called it.
    """
    return cast("T", Completed(message=UP_TO_DATE, data=value))


def _look(job: Job, model: ModelRef | None, datasets: tuple[DatasetRef, ...]) -> InForce:
    if job.train is not None and datasets:
        return InForce(datasets=datasets, model=current_model(job.train, datasets))
    return look(job, model)


def _as_given(job: Job, found: InForce, dataset: DatasetRef | None, model: ModelRef | None) -> bool:
    """Tell whether what the flow was given is what is in force."""
    return dataset in (None, found.dataset) and (job.train is None or model in (None, found.model))


def require_roots() -> None:
    """Raise BadInputError where a worker runs this flow and its operator has not said where runs may read and write."""
    if deployment.id and not roots():
        raise BadInputError(
            f"{ROOTS_ENV} is not set for this worker: whoever may start a run could have it read and write any file; "
            f"set it to the folders that runs may use, as chipmill up --root does, and start the worker again"
        )


def _refuse_strangers(datasets: Sequence[DatasetRef | None], model: ModelRef | None) -> None:
    """Refuse to read where whoever started this run through the server may not send it."""
    require_roots()
    for number, ref in enumerate(datasets):
        if ref is not None:
            check_place("dataset.path" if number == 0 else f"datasets.{number - 1}.path", ref.path)
    if model is not None:
        check_place("model.path", model.path)
