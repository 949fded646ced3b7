"""One command for a region: dataset, model, map and report, each only where the store lacks it."""

from typing import Any

from prefect import flow

from chipmill.dataset.manifest import DatasetRef
from chipmill.flows.build_dataset import build_dataset
from chipmill.flows.predict_map import predict_map
from chipmill.flows.train_model import train_model
from chipmill.learning.bundle import ModelRef
from chipmill.orchestration.cells import hold_cell, run_name, training_set
from chipmill.orchestration.cluster import stage_runner
from chipmill.orchestration.ending import conclude
from chipmill.orchestration.runs import RunRef, running_clock
from chipmill.orchestration.stage import Step, given, run_flow, step
from chipmill.region.config import Region
from chipmill.region.jobs import PredictConfig, TrainConfig
from chipmill.region.roots import check_roots
from chipmill.tasks.report import write_report


@flow(name="refresh-region", flow_run_name=run_name("refresh-region"), task_runner=stage_runner())
def refresh_region(
    region: Region,
    train: TrainConfig | None = None,
    predict: PredictConfig | None = None,
    dataset: DatasetRef | None = None,
    model: ModelRef | None = None,
) -> RunRef:
    """Bring a region's cell up to date.

    Args:
        region: the region file.
        train: the train file; null: no model is trained.
        predict: the predict file; null: nothing is mapped.
        dataset: the version of the cell in force, where the caller has found it current.
        model: the model in force, where the caller has found it current.
    """
    region, train, predict = (
        check_roots(region),
        train and check_roots(train),
        predict and check_roots(predict),
    )
    with hold_cell(region), running_clock() as clock:
        built = given(dataset) if dataset else run_flow(build_dataset, region)
        trained: Step[Any] = given(model, after=built)
        if train and not model:
            trained = run_flow(train_model, training_set(train, region, built.value), train, after=built)
        mapped: Step[Any] = given(None, after=trained)
        if predict:
            mapped = run_flow(predict_map, region, trained, predict, built, after=trained)
        run = step(write_report, region, built, trained, mapped, clock, after=mapped)
        return conclude(run.value, [built.lost, mapped.lost])
