"""The real network in the real flow; tests/flows has a stand-in for it."""

import pytest
from tests.learning.conftest import train_config


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Our own workflow server."""
    from chipmill.orchestration.server import running_server

    monkeypatch.setenv("CHIPMILL_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    with running_server() as running:
        yield running


@pytest.mark.tensorflow
def test_a_model_is_trained_and_committed_by_the_flow_and_then_stands(ground, tmp_path, server):
    from chipmill.flows.train_model import train_model
    from chipmill.orchestration.jobs import UP_TO_DATE

    train = train_config(tmp_path, epochs=1)
    model = train_model(train, (ground.dataset,))
    assert (model.name, model.version) == ("toy", 1)
    assert model.miou is not None
    assert (model.path / "report.html").is_file()
    again = train_model(train, (ground.dataset,), return_state=True)
    assert (again.message, again.result()) == (UP_TO_DATE, model)
