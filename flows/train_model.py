"""Datasets become a model: fit, evaluate on held-out blocks, export. Runs where TensorFlow is, in the flow's process."""

from prefect import flow

from chipmill.dataset.manifest import DatasetRef
from chipmill.learning.bundle import ModelRef
from chipmill.orchestration.stage import step
from chipmill.region.jobs import TrainConfig
from chipmill.region.roots import check_roots
from chipmill.tasks.learning import evaluate_model, export_model, fit_model


@flow(name="train-model", flow_run_name="train-model/{train.name}")
def train_model(datasets: tuple[DatasetRef, ...], train: TrainConfig) -> ModelRef:
    """Train a model and make it the version in force.

    Args:
        datasets: committed datasets, in the order of the train file.
        train: the train file.
    """
    train = check_roots(train)
    fit = step(fit_model, datasets, train)
    metrics = step(evaluate_model, datasets, fit, train, after=fit)
    return step(export_model, datasets, fit, metrics, train, after=metrics).value
