"""Our own workflow server: for this user alone, and gone with its parent."""

import os
import sqlite3
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from contextlib import closing

import psutil
import pytest
from tests.flows import screen

from chipmill.core.errors import ServerError
from chipmill.orchestration.records import crash_left_overs
from chipmill.orchestration.server import running_server


def status(url, data=None, **headers):
    request = urllib.request.Request(url, data=data, headers={"Content-Type": "application/json", **headers})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def server_process():
    (found,) = [
        one
        for one in psutil.Process().children(recursive=True)
        if "chipmill.orchestration.server_child" in one.cmdline()
    ]
    return found


def test_it_asks_for_a_password_and_for_a_token(server, client):
    key = client.request("GET", "/admin/version").request.headers["Authorization"]
    assert status(f"{server.url}/admin/version") == 401
    assert status(f"{server.url}/admin/version", Authorization=key) == 200
    # The password alone is what a web page could make the browser of a user who is logged in send.
    assert status(f"{server.url}/flow_runs/filter", b"{}", Authorization=key) == 403
    assert client.request("POST", "/flow_runs/filter", json={}).status_code == 200


def test_only_its_own_pages_may_read_it(server):
    request = urllib.request.Request(f"{server.url}/health", headers={"Origin": "http://evil.example"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.headers.get("Access-Control-Allow-Origin") is None
    own = server.url.removesuffix("/api")
    with urllib.request.urlopen(
        urllib.request.Request(f"{own}/api/health", headers={"Origin": own}), timeout=10
    ) as answer:
        assert answer.headers["Access-Control-Allow-Origin"] == own


def test_its_screen_finds_its_api_by_a_relative_url(server):
    with urllib.request.urlopen(f"{server.url.removesuffix('/api')}/ui-settings", timeout=10) as answer:
        assert b'"api_url":"/api"' in answer.read().replace(b" ", b"")


def test_it_listens_on_loopback_and_its_password_is_in_no_list_of_processes(server):
    process = server_process()
    listening = [one.laddr.ip for one in process.net_connections("inet") if one.status == "LISTEN"]
    assert listening == ["127.0.0.1"]
    shown = " ".join([*process.cmdline(), *(f"{name}={value}" for name, value in process.environ().items())])
    assert "chipmill:" not in shown


def test_its_files_are_private_and_in_the_state_directory(server, state_dir):
    assert server.own
    assert state_dir.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in state_dir.iterdir() if path.is_dir()} == {0o700}
    assert server.log == state_dir / "server-0" / "server.log"
    assert (state_dir / "server-0" / "prefect.db").is_file()


def test_a_server_that_the_environment_names_is_used_and_none_is_started(server, monkeypatch, tmp_path):
    monkeypatch.setenv("PREFECT_API_URL", server.url)
    monkeypatch.setenv("CHIPMILL_STATE_DIR", str(tmp_path / "state"))
    with running_server() as named:
        assert (named.url, named.own) == (server.url, False)
    assert not (tmp_path / "state").exists()


def test_what_an_earlier_run_left_running_is_crashed(server, client):
    from prefect import flow
    from prefect.states import Running

    left = client.create_flow_run(flow(lambda: None, name="left-over"), state=Running())
    assert crash_left_overs() >= 1
    assert client.read_flow_run(left.id).state.is_crashed()
    assert crash_left_overs() == 0


PROGRAM = """
import os, sys
from chipmill.orchestration.server import running_server
with running_server() as server:
    from prefect import flow
    @flow
    def stays():
        print(server.url, flush=True)
        sys.stdin.read()
    stays()
"""


def test_it_ends_with_a_killed_parent_and_another_run_beside_it_has_its_own(server, state_dir, tmp_path):
    """The state directory is that of the session's server, whose place is taken."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_API")}
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline().strip() != server.url
        family = psutil.Process(process.pid).children(recursive=True)
        assert family
    finally:
        process.kill()
        process.communicate()
    assert not psutil.wait_procs(family, timeout=10)[1], "the server outlived its parent"
    with closing(sqlite3.connect(state_dir / "server-1" / "prefect.db")) as connection:
        assert connection.execute("select state_type from flow_run").fetchall() == [("RUNNING",)]


def test_a_server_that_does_not_start_in_time_is_named_with_its_log(server, monkeypatch, tmp_path):
    monkeypatch.setenv("CHIPMILL_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("CHIPMILL_SERVER_TIMEOUT_S", "1")
    with (
        pytest.raises(ServerError, match=rf"did not answer within 1 s: see {tmp_path}/server-0/server.log"),
        running_server(),
    ):
        pass


def test_a_server_that_dies_at_once_is_named_with_its_log(server, monkeypatch, tmp_path):
    monkeypatch.setenv("CHIPMILL_STATE_DIR", str(tmp_path))
    monkeypatch.setattr("chipmill.orchestration.server.sys.executable", "/bin/false")
    with (
        pytest.raises(ServerError, match=r"ended with code 1 while it started: see .*server\.log"),
        running_server(),
    ):
        pass


def test_cancel_on_the_screen_ends_a_run_of_ours_in_order(server, client):
    from prefect import flow
    from prefect.states import Cancelling

    from chipmill.orchestration.progress import StageProgress
    from chipmill.orchestration.run import ending_on_sigterm

    @flow(name="cancelled")
    def cancelled():
        from prefect.runtime import flow_run

        runs.append(flow_run.id)
        with StageProgress("stage", 2) as progress:
            client.set_flow_run_state(flow_run.id, Cancelling())
            progress.add(1, 0)
            threading.Event().wait(60)
            pytest.fail("the stage went on")

    runs = []
    with pytest.raises(SystemExit) as ended, ending_on_sigterm():
        cancelled()
    assert ended.value.code == 143
    state = screen.wait_for(lambda: client.read_flow_run(runs[0]).state, lambda state: state.is_cancelled())
    assert state.is_cancelled(), state
