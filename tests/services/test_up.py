"""`chipmill up`: found by other commands, for this user alone, and gone with all that it started."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import psutil
import pytest
from tests.up_world import end_up, start_up

from chipmill.core.errors import LockedError
from chipmill.orchestration.server import running_server
from chipmill.orchestration.up import UpOptions, own_service, service

ENDS_S = 30.0
NIGHTLY = os.environ.get("CHIPMILL_PROFILE") == "nightly"
"""Ctrl-C while a run is on as well: one run more."""


@pytest.fixture
def beside(up, monkeypatch):
    """This process as another command of the same user."""
    monkeypatch.setenv("CHIPMILL_STATE_DIR", str(up.state))
    monkeypatch.setenv("PREFECT_HOME", str(up.state / "client"))
    for name in ("PREFECT_API_URL", "PREFECT_SERVER_EPHEMERAL_ENABLED", "DO_NOT_TRACK"):
        monkeypatch.setenv(name, "")  # so that what the commands set is taken back
    return up


def test_other_commands_find_it_and_may_ask_it(beside):
    from prefect.client.orchestration import get_client

    with running_server() as server, get_client(sync_client=True) as client:
        assert (server.url, server.own) == (beside.url, False)
        assert client.read_work_pool("gpu").concurrency_limit == 1
    with service() as found:
        assert (found.url, found.ui_url, found.own) == (beside.url, beside.ui, False)
        assert f"{found.user}:{found.password}" == beside.auth
        assert found.password not in repr(found)
    assert not (beside.state / "server-0").exists()


def test_a_second_one_says_where_the_first_is(beside):
    with (
        pytest.raises(LockedError, match=rf"runs already .* at {beside.ui} \(pid {beside.process.pid}\)"),
        own_service(UpOptions(roots=(beside.root,))),
    ):
        pass
    with beside.client() as client:
        assert client.read_work_pools(), "the first one lost its server"


def test_a_port_that_is_taken_is_refused_with_a_way_out(up, tmp_path):
    program = str(Path(sys.executable).with_name("chipmill"))
    told = subprocess.run(
        [program, "up", "--port", up.ui.rpartition(":")[2], "--json"],
        env={**up.env, "CHIPMILL_STATE_DIR": str(tmp_path / "state")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert told.returncode == 2
    assert "cannot be used" in json.loads(told.stdout)["error"] and "take another one" in told.stdout


def test_it_listens_on_loopback_and_its_password_is_in_no_list_of_processes(up):
    for process in up.family():
        listening = {one.laddr.ip for one in process.net_connections("inet") if one.status == "LISTEN"}
        assert listening <= {"127.0.0.1"}, process.cmdline()
        shown = [*process.cmdline(), *(f"{name}={value}" for name, value in process.environ().items())]
        assert up.password not in " ".join(shown)
    assert {path.stat().st_mode & 0o777 for path in (up.state, up.state / "up")} == {0o700}
    assert (up.state / "up.json").stat().st_mode & 0o777 == 0o600


@pytest.fixture(scope="module")
def demo(up):
    return demo_below(up.root)


def demo_below(root):
    """A small demo below a root; returns its region as a caller of the API gives it, with paths from the root."""
    from chipmill.core.yaml import read_yaml
    from chipmill.demo.run import prepare

    prepare(root / "demo", "small", 8, lambda _: None)
    return {**read_yaml(root / "demo" / "region.yaml"), "file": "demo/region.yaml"}


def open_records(up):
    """Names of the runs and task runs that the screen shows as going on."""
    with up.client() as client:
        runs = [*client.read_flow_runs(), *client.read_task_runs()]
    return [
        one.name
        for one in runs
        if one.state is None or one.state.type.value in ("RUNNING", "PENDING", "CANCELLING")
    ]


def test_a_run_survives_that_the_server_is_killed(up, demo):
    run = up.run("build-dataset/cell", {"region": demo})
    up.wait(run, lambda run: run.state.is_running())
    server, url = up.child("server_child"), up.url
    server.kill()
    ended = up.wait(run)
    assert ended.state.is_completed(), ended.state
    assert up.child("server_child").pid != server.pid and up.url == url
    assert list((up.root / "demo" / "regions").glob("*/*/CURRENT"))


def held_run(up, region, mark):
    """Start a run that holds in its first composite; returns its id and its processes."""
    fault = {"stage": "composite_tiles", "unit": 0, "do": "hold", "mark": str(mark)}
    up.plan.write_text(json.dumps([fault]))
    run = up.run("build-dataset/cell", {"region": region})
    up.wait(run, lambda run: mark.exists() or run.state.is_final())
    up.plan.write_text("[]")
    flow = up.child("flow_child")
    family = [flow, *flow.children(recursive=True)]
    assert any("--multiprocessing-fork" in one.cmdline() for one in family), "no process of Dask"
    return run, family


def assert_gone(processes):
    assert not psutil.wait_procs(processes, timeout=ENDS_S)[1]


def test_a_killed_worker_takes_its_runs_with_it_and_comes_back(up, demo, tmp_path):
    shutil.rmtree(up.root / "demo" / "regions", ignore_errors=True)
    run, family = held_run(up, demo, tmp_path / "mark")
    worker = up.child("worker_child")
    worker.kill()
    assert_gone([worker, *family])
    assert up.wait(run).state.is_crashed()
    assert not open_records(up)
    assert up.child("worker_child").pid != worker.pid


@pytest.mark.timeout(300)  # two starts and two runs
def test_ended_or_killed_it_takes_all_with_it_and_the_next_one_leaves_nothing_running(tmp_path):
    state, root = tmp_path / "state", tmp_path / "root"
    region = demo_below(root)
    up = start_up(state, root)
    try:
        killed, _ = held_run(up, region, tmp_path / "killed")
        family = up.family()
        up.process.kill()
        assert_gone(family)
        assert (state / "up.json").exists()
    finally:
        end_up(up.process)

    up = start_up(state, root)
    try:
        assert up.wait(killed).state.is_crashed(), "the history is lost, or tells a lie"
        assert not open_records(up)
        stopped = [held_run(up, region, tmp_path / "stopped")[0]] if NIGHTLY else []
        family = up.family()
        up.process.send_signal(signal.SIGINT)
        assert up.process.wait(ENDS_S) == 0
        assert_gone(family[1:])
        assert not (state / "up.json").exists()
    finally:
        end_up(up.process)
    with closing(sqlite3.connect(state / "up" / "prefect.db")) as history:
        rows = history.execute(
            "select id, state_type from flow_run union select id, state_type from task_run"
        ).fetchall()
    assert {(str(run), "CRASHED") for run in (killed, *stopped)} <= set(rows)
    assert not [state for _, state in rows if state in ("RUNNING", "PENDING", "CANCELLING")]
