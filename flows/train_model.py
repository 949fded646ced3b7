"""Datasets become a model: fit, evaluate on held-out blocks, export. Runs where TensorFlow is, in the flow's process."""

from prefect import flow

from chipmill.dataset.manifest import DatasetRef
from chipmill.learning.bundle import ModelRef
from chipmill.orchestration.entry import entering, nothing_to_do
from chipmill.orchestration.jobs import Job
from chipmill.orchestration.stage import step
from chipmill.region.jobs import TrainConfig
from chipmill.region.roots import check_roots
from chipmill.tasks.learning import evaluate_model, export_model, fit_model


@flow(name="train-model", flow_run_name="train-model/{train.name}")
def train_model(train: TrainConfig, datasets: tuple[DatasetRef, ...] = ()) -> ModelRef:
    """Train a model and make it the version in force.

    Args:
        train: The train file: what to learn, from which regions, and how.
        datasets: Left empty by people: committed datasets to learn from; empty, the versions in force of the regions
            that the train file lists.
    """
    train = check_roots(train)
    with entering(Job("train", train=train), datasets=datasets) as have:
        if have.complete:
            return nothing_to_do(have.model)
        fit = step(fit_model, have.datasets, train)
        metrics = step(evaluate_model, have.datasets, fit, train, after=fit)
        return step(export_model, have.datasets, fit, metrics, train, after=metrics).value
