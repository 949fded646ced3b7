"""One workflow server of ours and one cluster for all tests of flows: starting them costs more than the tests."""

import os

import pytest


@pytest.fixture(scope="session")
def state_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("state")


@pytest.fixture(scope="session")
def server(state_dir):
    """Our own server, with Prefect's settings pointing at it."""
    from chipmill.orchestration.server import running_server

    changed = {
        "CHIPMILL_STATE_DIR": str(state_dir),
        "CHIPMILL_WORKERS": "2",
        "CHIPMILL_WORKER_MEMORY": "1500MB",
        "CHIPMILL_RETRY_WAIT_S": "0.1",
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    }
    before = {name: os.environ.get(name) for name in (*changed, "PREFECT_API_URL")}
    os.environ.update(changed)
    os.environ.pop("PREFECT_API_URL", None)
    with running_server(meanwhile=_import_flows) as running, without_heartbeat():
        yield running
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _import_flows():
    from chipmill.flows import refresh_region  # noqa: F401 - for its time, while the server starts


def without_heartbeat():
    """Prefect's heartbeat sleeps by the second: each flow run would end a second later."""
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    return temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None})


@pytest.fixture(scope="session")
def cluster(server):
    """A worker in a thread of this process, for tests in which none dies: it has imported everything already."""
    from distributed import LocalCluster

    options = {
        "n_workers": 2,
        "threads_per_worker": 1,
        "processes": False,
        "dashboard_address": "127.0.0.1:0",
    }
    with LocalCluster(**options) as threads:
        os.environ["CHIPMILL_DASK_ADDRESS"] = threads.scheduler_address
        yield
        del os.environ["CHIPMILL_DASK_ADDRESS"]


@pytest.fixture
def client(server):
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as connected:
        yield connected
