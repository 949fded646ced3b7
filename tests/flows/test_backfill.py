"""A backfill against a real workflow server: keys, retries, dead runs and what the screen shows; its worker is a thread."""

import contextvars
import datetime as dt
import json
import os
import threading
from types import SimpleNamespace

import pytest
from tests import backfill_world
from tests.flows import screen

from chipmill.core.errors import ServerError
from chipmill.core.store import write_text
from chipmill.orchestration.backfill import CellsFailedError
from chipmill.orchestration.grid_of_cells import Period, lay_grid
from chipmill.orchestration.progress import listening
from chipmill.region.config import Region
from chipmill.region.plan import cell_dir


def in_thread(work):
    """Start a thread that knows this one's server."""
    thread = threading.Thread(target=contextvars.copy_context().run, args=(work,))
    thread.start()
    return thread


COUNT = 200 if os.environ.get("CHIPMILL_PROFILE") == "nightly" else 4
"""Cells of the large grid, over two regions."""
SPANS = tuple(
    (dt.date(2000, 1, 1) + dt.timedelta(days=10 * n), dt.date(2000, 1, 11) + dt.timedelta(days=10 * n))
    for n in range(COUNT // 2)
)
PERIODS = tuple(Period(start=start, end=end) for start, end in SPANS)


class Worker:
    """Takes the runs of a deployment and ends them without doing anything; cells named in `bad` fail."""

    def __init__(self, deployment):
        self.deployment, self.bad, self.worked = deployment, set(), []
        self.held, self.over = set(), threading.Event()

    def run(self):
        from prefect.client.orchestration import get_client

        with get_client(sync_client=True) as client:
            while not self.over.wait(0.05):
                query = {"deployments": {"id": {"any_": [str(self.deployment)]}}}
                query["flow_runs"] = {"state": {"type": {"any_": ["SCHEDULED"]}}}
                for run in client.request("POST", "/flow_runs/filter", json=query).json():
                    self._work(client, run)

    def _work(self, client, run):
        from prefect.states import Completed, Failed, Running

        region = Region.model_validate(run["parameters"]["region"])
        cell = f"{region.name}/{cell_dir(region).root.name}"
        self.worked.append(cell)
        client.set_flow_run_state(run["id"], Running(), force=True)
        if cell in self.held:
            return
        if cell in self.bad:
            text = "Flow run encountered an exception: AssetReadError: <b>red.tif</b> is gone: put it back"
            client.set_flow_run_state(run["id"], Failed(message=text), force=True)
            return
        versions = cell_dir(region).versions
        versions.path(1).mkdir(parents=True, exist_ok=True)
        write_text(versions.pointer, "1\n")
        client.set_flow_run_state(run["id"], Completed(), force=True)


@pytest.fixture(scope="module")
def deployment(server):
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        return client.create_deployment(client.create_flow_from_name("build-dataset"), "cell")


@pytest.fixture
def worker(deployment, monkeypatch):
    from chipmill.orchestration import jobs

    def look(job, *_):
        done = cell_dir(job.region).versions.current()
        return SimpleNamespace(dataset=done, model=None, map=None)

    monkeypatch.setattr(jobs, "look", look)
    monkeypatch.setenv("CHIPMILL_BACKFILL_POLL_S", "0.1")
    working = Worker(deployment)
    thread = in_thread(working.run)
    yield working
    working.over.set()
    thread.join()


@pytest.fixture
def files(tmp_path):
    return tuple(
        str(backfill_world.region_file(tmp_path, name, tmp_path / "catalog.json")) for name in ("a", "b")
    )


def backfill(*words, **options):
    from chipmill.flows.backfill_regions import backfill_regions

    return backfill_regions(*words, **options, return_state=True)


def outcome(state):
    return state.result(raise_on_failure=False)


def keys(client, cell):
    """Number of a cell's key -> run."""
    query = {"flow_runs": {"tags": {"any_": [cell.tag]}}}
    found = client.request("POST", "/flow_runs/filter", json=query).json()
    return {run["idempotency_key"].rpartition("/")[2]: run for run in found}


@pytest.mark.timeout(1200)
def test_a_bad_cell_is_named_and_the_next_call_redoes_it_alone(worker, files, client):
    grid = lay_grid("build_dataset", files, SPANS)
    bad = grid.cells[-2]
    worker.bad.add(bad.name)
    state = backfill("build_dataset", files, PERIODS, at_once=3)
    failed = outcome(state)
    assert isinstance(failed, CellsFailedError)
    assert {row.state for row in failed.rows} == {"done", "failed"}
    text = f"1 of {len(grid.cells)} cells failed, all others were gone through: {bad.name} (<b>red.tif</b> is gone"
    assert text in str(failed)
    assert state.is_failed()
    assert "red.tif" in state.message
    assert sorted(worker.worked) == sorted(cell.name for cell in grid.cells)

    shown = screen.artifacts(client, state.state_details.flow_run_id)
    assert shown["backfill-build-dataset"]["data"] == 100.0
    table = json.loads(shown["cells-build-dataset"]["data"])
    states = {f"{row['region']}/{row['period']}": row["state"] for row in table}
    assert states == {cell.name: "failed" if cell == bad else "done" for cell in grid.cells}
    assert "&lt;b&gt;red" in next(row["reason"] for row in table if row["state"] == "failed")
    assert all(row["run"].startswith("[run](http://127.0.0.1:") for row in table)

    worker.bad.clear()
    worker.worked.clear()
    again = outcome(backfill("build_dataset", files, PERIODS, at_once=3, only_failed=True))
    assert worker.worked == [bad.name]
    assert [row.state for row in again].count("passed over") == len(grid.cells) - 1
    (run,) = keys(client, bad).values()
    assert (run["state_type"], run["run_count"]) == ("COMPLETED", 2), "the same run, tried again"


def test_cells_are_runs_below_the_backfill(worker, files, client):
    state = backfill("build_dataset", files[:1])
    run = state.state_details.flow_run_id
    (node,) = dict(screen.graph(client, run)["nodes"]).values()
    assert node["kind"] == "flow-run"
    assert node["label"] == "build-dataset / build-dataset/a/2019-01-01--2020-01-01"


def test_a_live_run_is_adopted_and_no_second_one_is_made(worker, files, client):
    name = f"a/{backfill_world.QUARTERS[0]}--{backfill_world.QUARTERS[-1]}"
    worker.held.add(name)
    cell = lay_grid("build_dataset", files[:1]).cells[0]
    made = client.create_flow_run_from_deployment(
        worker.deployment,
        parameters=dict(cell.parameters),
        idempotency_key=cell.key(1),
        tags=[cell.tag],
    )

    screen.wait_for(lambda: client.read_flow_run(made.id).state, lambda state: state.is_running())
    adopted = threading.Event()

    def finish():
        from prefect.client.orchestration import get_client
        from prefect.states import Completed

        with get_client(sync_client=True) as other:
            assert adopted.wait(30)
            versions = cell_dir(cell.job.region).versions
            versions.path(1).mkdir(parents=True)
            write_text(versions.pointer, "1\n")
            other.set_flow_run_state(made.id, Completed(), force=True)

    thread = in_thread(finish)
    with listening(lambda _: adopted.set()):
        rows = outcome(backfill("build_dataset", files[:1]))
    thread.join()
    assert [row.state for row in rows] == ["done"]
    assert keys(client, cell).keys() == {"1"}


def test_a_dead_run_is_closed_with_all_below_it_and_tried_again(worker, files, client, monkeypatch):
    from prefect import task
    from prefect.states import Running

    from chipmill.orchestration import backfill as engine

    monkeypatch.setattr(engine, "_OLD", dt.timedelta(seconds=0.5))
    monkeypatch.setattr(engine, "_BEAT_S", 0.1)
    name = f"a/{backfill_world.QUARTERS[0]}--{backfill_world.QUARTERS[-1]}"
    cell = lay_grid("build_dataset", files[:1]).cells[0]
    worker.held.add(name)
    made = client.create_flow_run_from_deployment(
        worker.deployment,
        parameters=dict(cell.parameters),
        idempotency_key=cell.key(1),
        tags=[cell.tag],
    )
    screen.wait_for(lambda: client.read_flow_run(made.id).state, lambda state: state.is_running())
    left = client.create_task_run(
        task(lambda: None, name="left"), flow_run_id=made.id, dynamic_key="0", state=Running()
    )
    worker.held.clear()
    rows = outcome(backfill("build_dataset", files[:1]))
    assert [row.state for row in rows] == ["done"]
    assert worker.worked == [name, name]
    assert client.read_task_run(left.id).state.is_crashed()
    assert keys(client, cell)["1"]["run_count"] == 2


def test_without_the_deployment_it_says_what_is_missing(worker, files, tmp_path, state_dir):
    predict = tmp_path / "predict.yaml"
    predict.write_text("model: crops\n")
    error = outcome(backfill("predict_map", files, (), None, str(predict)))
    assert isinstance(error, ServerError)
    assert "has no deployment predict-map/cell" in str(error)
    assert list((state_dir / "backfills").iterdir()) == [], "the mark of a run that was not killed"


def test_a_dry_run_makes_a_table_and_nothing_else(server, tmp_path, client):
    catalog = backfill_world.archive(tmp_path / "archive")
    file = backfill_world.region_file(tmp_path, "toy", catalog)
    state = backfill("build_dataset", (str(file), str(tmp_path / "none.yaml")), dry_run=True)
    assert [one.state for one in outcome(state)] == ["new", "cannot run"]
    shown = screen.artifacts(client, state.state_details.flow_run_id)
    table = json.loads(shown["estimate-build-dataset"]["data"])
    assert [row["items"] for row in table] == ["4", "–", "4"]
    assert not (tmp_path / "out").exists()
