"""A stage ends with each unit done or listed, whatever its units do, and shows the chain of its steps."""

import pytest
from tests.flows import screen

from chipmill.core.errors import TilesFailedError
from chipmill.core.units import failures


@pytest.fixture
def run_toys(cluster, tmp_path):
    """Run the toy flow on units and return its final state and the attempt."""
    from tests.flows.toy_flow import make_toys

    def run(units, on_failed="stop", per_batch=4):
        attempt = tmp_path / "attempt"
        attempt.mkdir(exist_ok=True)
        return make_toys(attempt, tuple(units), on_failed, per_batch, return_state=True), attempt

    return run


def written(attempt):
    return {path.stem for path in (attempt / "products").glob("*.txt")}


def tries(attempt, unit):
    return (attempt / "tries" / unit).stat().st_size


def ok(count):
    return [f"ok-{number}" for number in range(count)]


def test_all_units_done_and_the_graph_is_the_chain(run_toys, client):
    state, attempt = run_toys(ok(10))
    assert state.is_completed()
    assert state.result() == "0 lost"
    assert written(attempt) == set(ok(10))
    run = state.state_details.flow_run_id
    runs = screen.wait_for(
        lambda: screen.task_runs(client, run), lambda found: set(found.values()) == {"COMPLETED"}
    )
    assert set(runs) == {
        "plan_toys",
        "toy_units-0",
        "toy_units-1",
        "toy_units-2",
        "count_toys",
        "report_toys",
    }
    chain = {("plan_toys", "toy_units"), ("toy_units", "count_toys"), ("count_toys", "report_toys")}
    assert screen.wait_for(lambda: screen.edges(client, run), lambda found: found == chain) == chain
    assert screen.artifacts(client, run)["progress-toy-units"]["data"] == 100.0


def test_a_second_run_works_on_nothing(run_toys):
    run_toys(ok(5))
    state, attempt = run_toys(ok(5))
    assert state.is_completed()
    assert {tries(attempt, unit) for unit in ok(5)} == {1}


def test_stop_finishes_all_other_units_and_fails_at_the_join(run_toys, client):
    state, attempt = run_toys([*ok(6), "bad-1", "ok-6"])
    assert state.is_failed()
    with pytest.raises(
        TilesFailedError, match=r"1 of 8 units failed in toy_units; the first is bad-1: .*decoded"
    ):
        state.result()
    assert written(attempt) == set(ok(7))
    run = state.state_details.flow_run_id
    runs = screen.wait_for(
        lambda: screen.task_runs(client, run), lambda found: found.get("count_toys") == "FAILED"
    )
    assert "report_toys" not in runs
    assert '"unit": "bad-1"' in screen.artifacts(client, run)["failed-toy-units"]["data"]


def test_a_transient_failure_is_tried_twice_more_and_its_neighbours_are_not(run_toys):
    state, attempt = run_toys([*ok(3), "flaky-1"])
    assert state.is_completed()
    assert written(attempt) == {*ok(3), "flaky-1"}
    assert tries(attempt, "flaky-1") == 3
    assert {tries(attempt, unit) for unit in ok(3)} == {1}


def test_a_permanent_failure_is_tried_once(run_toys):
    state, attempt = run_toys(["bad-1", *ok(3)], on_failed="commit")
    assert state.result() == "1 lost"
    assert tries(attempt, "bad-1") == 1


def test_a_batch_that_raises_is_taken_apart(run_toys):
    state, attempt = run_toys(["broken-1", *ok(3)], on_failed="commit")
    assert state.result() == "1 lost"
    assert written(attempt) == set(ok(3))
    assert [(one.unit, one.reason) for one in failures(attempt)] == [
        ("broken-1", "ValueError: no fingerprint")
    ]


def test_a_subflow_is_an_edge_and_its_product_goes_on_where_it_was_committed_with_failures(cluster, client):
    from tests.flows.toy_flow import outer

    state = outer(return_state=True)
    assert state.is_failed()
    lost = state.result(raise_on_failure=False)
    assert isinstance(lost, TilesFailedError)
    assert lost.product == "made of committed"
    run = state.state_details.flow_run_id
    chain = {("inner", "report_toys")}  # its run is called otherwise until the server has read all events
    assert screen.wait_for(lambda: screen.edges(client, run), lambda found: found == chain) == chain
