"""Tasks of the learning room: train, judge on held-out blocks, commit. TensorFlow is imported when they run."""

from prefect import task

from chipmill.dataset.manifest import DatasetRef
from chipmill.learning import bundle, evaluation, training
from chipmill.learning.bundle import ModelRef
from chipmill.learning.evaluation import MetricsRef
from chipmill.learning.training import FitRef
from chipmill.orchestration import handover
from chipmill.orchestration.cells import run_id
from chipmill.orchestration.progress import epochs
from chipmill.orchestration.retry import DIRECT
from chipmill.region.jobs import TrainConfig
from chipmill.report.model import model_page


@task(name="fit_model", task_run_name="fit_model", tags=["learning"], **DIRECT)
def fit_model(datasets: tuple[DatasetRef, ...], train: TrainConfig) -> FitRef:
    """Train on the datasets; a killed training goes on after its last epoch."""
    with epochs("fit_model") as after_epoch:
        return training.fit_model(datasets, train, after_epoch, run_id())


train_on_deployment = task(
    name="train_on_deployment", task_run_name="train_on_deployment", tags=["learning"], **DIRECT
)(handover.train_on_deployment)


@task(name="evaluate_model", task_run_name="evaluate_model", tags=["learning"], **DIRECT)
def evaluate_model(datasets: tuple[DatasetRef, ...], fit: FitRef, train: TrainConfig) -> MetricsRef:
    """Judge the network on the stitched map of the held-out blocks."""
    return evaluation.evaluate_model(datasets, fit, train, run_id())


@task(name="export_model", task_run_name="export_model", tags=["learning"], **DIRECT)
def export_model(
    datasets: tuple[DatasetRef, ...], fit: FitRef, metrics: MetricsRef, train: TrainConfig
) -> ModelRef:
    """Seal the attempt, write its report, make it the version in force."""
    sealed = bundle.seal_model(datasets, fit, metrics, train, run_id())
    model_page(sealed.path, [one.path for one in datasets])
    return bundle.publish_model(sealed, train, run_id())
