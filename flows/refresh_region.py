"""One command for a region: dataset, model, map and report, each only where the store lacks it."""

from typing import Any, Literal

from prefect import flow

from chipmill.dataset.manifest import DatasetRef
from chipmill.flows.build_dataset import build_dataset
from chipmill.flows.predict_map import predict_map
from chipmill.flows.train_model import train_model
from chipmill.learning.bundle import ModelRef
from chipmill.orchestration.cells import run_name, training_set
from chipmill.orchestration.cluster import stage_runner
from chipmill.orchestration.ending import conclude
from chipmill.orchestration.entry import entering, nothing_to_do
from chipmill.orchestration.jobs import Job
from chipmill.orchestration.runs import RunRef, running_clock
from chipmill.orchestration.settings import read_settings
from chipmill.orchestration.stage import Step, given, run_flow, step
from chipmill.region.config import Region
from chipmill.region.jobs import PredictConfig, TrainConfig
from chipmill.region.roots import check_roots
from chipmill.tasks.learning import train_on_deployment
from chipmill.tasks.report import write_report


@flow(name="refresh-region", flow_run_name=run_name("refresh-region"), task_runner=stage_runner())
def refresh_region(
    region: Region,
    train: TrainConfig | None = None,
    predict: PredictConfig | None = None,
    on_failed: Literal["stop", "commit"] | None = None,
    dataset: DatasetRef | None = None,
    model: ModelRef | None = None,
) -> RunRef:
    """Bring a region's cell up to date: dataset, model, map and report, each only where it is missing or out of date.

    Args:
        region: The region file: what is to be covered, when, and from which imagery.
        train: The train file: the model that is trained; left out, no model is trained.
        predict: The predict file: the map that is made; left out, nothing is mapped.
        on_failed: When a tile fails, after all others are done: stop, or commit the rest with the failed ones
            listed; left out, as the region file says.
        dataset: Left empty by people: a committed dataset of the cell to use as it is.
        model: Left empty by people: a committed model to use as it is.
    """
    region = check_roots(region)
    region = region.model_copy(update={"on_failed": on_failed or region.on_failed})
    train, predict = train and check_roots(train), predict and check_roots(predict)
    with entering(Job("refresh", region, train, predict), dataset=dataset, model=model) as have:
        if have.complete:
            return nothing_to_do(RunRef(have.dataset, have.model, have.map, None, None))
        with running_clock() as clock:
            built = given(have.dataset) if have.dataset else run_flow(build_dataset, region)
            trained: Step[Any] = given(have.model, after=built)
            if train and not have.model:
                trained = _train(train, training_set(train, region, built.value), after=built)
            mapped: Step[Any] = given(None, after=trained)
            if predict:
                mapped = run_flow(predict_map, region, predict, trained, built, after=trained)
            run = step(write_report, region, built, trained, mapped, clock, after=mapped)
            return conclude(run.value, [built.lost, mapped.lost])


def _train(train: TrainConfig, datasets: tuple[DatasetRef, ...], after: Step[Any]) -> Step[Any]:
    """Train here, or on the machine with a GPU where the operator named its deployment."""
    elsewhere = read_settings().gpu_deployment
    if elsewhere:
        return step(train_on_deployment, elsewhere, train, datasets, after=after)
    return run_flow(train_model, train, datasets, after=after)
