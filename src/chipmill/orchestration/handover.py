"""Training on another machine: a run that has no GPU hands it to the deployment that CHIPMILL_GPU_DEPLOYMENT names."""

import time
from typing import Final, cast

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelling
from pydantic import TypeAdapter

from chipmill.core.errors import BadInputError, TrainingError
from chipmill.dataset.manifest import DatasetRef
from chipmill.learning.bundle import ModelRef, current_model
from chipmill.orchestration.interrupt import stop_if_asked
from chipmill.region.jobs import TrainConfig

POLL_S: Final = 5.0
"""Seconds between two looks at the training."""


def train_on_deployment(deployment: str, train: TrainConfig, datasets: tuple[DatasetRef, ...]) -> ModelRef:
    """Have a deployment of train-model train, wait for it, and return the model that is in force then.

    Args:
        deployment: ``<flow>/<name>``, e.g. train-model/cell; its worker must see the same output directories.
        train: the train file.
        datasets: what is learnt from.

    Raises:
        BadInputError: the server knows no such deployment.
        TrainingError: the other run did not complete (with its message), or made another model.
    """
    as_json = TypeAdapter(tuple[DatasetRef, ...]).dump_python(datasets, mode="json")
    parameters = {"train": train.model_dump(mode="json"), "datasets": as_json}
    try:
        started = run_deployment(deployment, parameters=parameters, timeout=0, as_subflow=True)
    except ObjectNotFound as error:
        raise BadInputError(
            f"CHIPMILL_GPU_DEPLOYMENT names {deployment}, which the server does not know: deploy it, or unset the "
            "variable to train in the run itself"
        ) from error
    run = cast("FlowRun", started)  # a coroutine only where an event loop runs
    with get_client(sync_client=True) as client:
        state = _ended(client, run)
    if not state.is_completed():
        raise TrainingError(f"the training on {deployment} ended {state.name}: {state.message}")
    model = current_model(train, datasets)
    if model is None:
        raise TrainingError(
            f"the training on {deployment} completed, but {train.output_dir} holds no such model {train.name}: let its "
            "worker write to the same directories as this one"
        )
    return model


def _ended(client: SyncPrefectClient, run: FlowRun) -> State:
    """Wait for the end of a run and return its state; a run that nobody waits for any more is cancelled."""
    try:
        while True:
            state = client.read_flow_run(run.id).state
            if state is not None and state.is_final():
                return state
            stop_if_asked()
            time.sleep(POLL_S)
    except BaseException:
        client.set_flow_run_state(run.id, Cancelling(message="the run that waited for it was ended"))
        raise
