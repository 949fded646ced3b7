"""The server and the cluster of tests/flows, and runs of the whole program in processes of their own."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from tests.flows.conftest import client, processes, server, state_dir  # noqa: F401 - fixtures

DEADLINE_S = 180.0
"""Of one run on a machine that others use as well."""


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A small demo directory: world and parameter files; nothing is built."""
    from chipmill.demo.run import prepare

    out = tmp_path_factory.mktemp("demo")
    prepare(out, "small", 8, lambda _: None)
    return out


@pytest.fixture
def copy_demo(demo, tmp_path):
    """Copy the demo directory and replace parts of its region file."""

    def copy(name, **replaced):
        shutil.copytree(demo, tmp_path / name)
        file = tmp_path / name / "region.yaml"
        text = file.read_text()
        for key, value in replaced.items():
            assert f"{key}: " in text
            text = text.replace(
                f"{key}: {text.split(f'{key}: ')[1].split('}')[0].split(',')[0]}", f"{key}: {value}", 1
            )
        file.write_text(text)
        return tmp_path / name

    return copy


@pytest.fixture
def start_run(tmp_path):
    """Start the command line; returns the process, which leads a group of its own."""
    started = []

    def start(*words, **environment):
        env = {
            **os.environ,
            "CHIPMILL_STATE_DIR": str(tmp_path / "state"),
            "CHIPMILL_WORKERS": "2",
            "CHIPMILL_WORKER_MEMORY": "1500MB",
            "PYTHONPATH": str(Path(__file__).parent / "planted"),
            **environment,
        }
        env.pop("PREFECT_API_URL", None)
        command = [str(Path(sys.executable).with_name("chipmill")), *map(str, words), "--json"]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        started.append(subprocess.Popen(command, env=env, text=True, start_new_session=True, **pipes))
        return started[-1]

    yield start
    for process in started:  # a test that failed half-way must not leave its run behind
        if process.poll() is None:
            process.kill()
            process.communicate()


def finish(process):
    """Wait for a run; returns its exit code and what it says of its one job."""
    out, err = process.communicate(timeout=DEADLINE_S)
    assert out.strip(), err
    told = json.loads(out)
    assert "runs" in told, told
    assert told["exit_code"] == process.returncode
    return process.returncode, told["runs"][0]


def version(demo):
    """The version in force of the one cell."""
    (current,) = demo.glob("regions/*/*/CURRENT")
    return current.parent / "versions" / current.read_text().strip()


def recorded_as_open(state):
    """Runs and task runs that the database of a server that ended shows as not final."""
    with closing(sqlite3.connect(state / "server-0" / "prefect.db")) as connection:
        rows = [
            row
            for table in ("flow_run", "task_run")
            for row in connection.execute(f"select name, state_type from {table}")
        ]
    assert rows
    return [row for row in rows if row[1] in ("RUNNING", "PENDING", "CANCELLING")]
