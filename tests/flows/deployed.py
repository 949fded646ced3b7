"""Flow runs as a worker starts them: made by the server from a deployment and its parameters, run in this process."""

from prefect.flow_engine import run_flow
from prefect.states import Pending, Scheduled


def deploy(flow, *, checked=False):
    """Register a deployment of a flow and return its id; ``checked`` ones have the server judge parameters, too."""
    name = "checked" if checked else "unchecked"
    return flow.to_deployment(name, enforce_parameter_schema=checked).apply()


def start(client, deployment_id, **parameters):
    """Have the server make a run."""
    return client.create_flow_run_from_deployment(deployment_id, parameters=parameters)


def work(client, flow, run_id):
    """Run a flow run as a worker's child does and return its final state as the server has it."""
    client.set_flow_run_state(run_id, Pending())
    run_flow(flow, flow_run=client.read_flow_run(run_id), return_type="state")
    return client.read_flow_run(run_id).state


def retry(client, run_id):
    """Do what the button Retry of the UI does."""
    client.set_flow_run_state(run_id, Scheduled(name="AwaitingRetry"))
