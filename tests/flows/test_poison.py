"""A batch that loses its worker too often: its other units are done, and nothing is shown as running for ever."""

import pytest
from tests.flows import screen

from chipmill.core.units import failures


@pytest.fixture
def run_toys(server, tmp_path, monkeypatch):
    """Run the toys on two processes of their own: one in the threads of the tests would end the tests."""
    monkeypatch.delenv("CHIPMILL_DASK_ADDRESS", raising=False)
    from tests.flows.toy_flow import make_toys

    def run(units, on_failed, per_batch):
        (tmp_path / "attempt").mkdir()
        return make_toys(
            tmp_path / "attempt", tuple(units), on_failed, per_batch, return_state=True
        ), tmp_path / "attempt"

    return run


def written(attempt):
    return {path.stem for path in (attempt / "products").glob("*.txt")}


def test_more_deaths_in_a_batch_than_dask_forgives(run_toys, client):
    """Two poison units and one that kills once are five deaths: Dask gives the batch up, and the stage takes it apart."""
    state, attempt = run_toys(["ok-0", "kill-1", "once-1", "ok-1", "kill-2", "ok-2"], "commit", 3)
    assert state.is_completed()
    assert written(attempt) == {"ok-0", "ok-1", "ok-2", "once-1"}
    assert {one.unit for one in failures(attempt)} == {"kill-1", "kill-2"}
    assert all("its worker died" in one.reason for one in failures(attempt))
    run = state.state_details.flow_run_id
    assert screen.wait_for(lambda: screen.open_task_runs(client, run), lambda found: not found) == []
    assert "CRASHED" in screen.task_runs(client, run).values(), (
        "the batch itself, which Prefect would show as running"
    )
