"""Runs of the whole program in processes of their own, with planted faults."""

import contextlib
import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

DEADLINE_S = 180.0
"""Of one run on a machine that others use as well."""
PLANTED_AT = Path(__file__).parent / "planted"
"""On the path of every process of a run."""


@pytest.fixture(scope="session")
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


@pytest.fixture(scope="session")
def database(tmp_path_factory):
    """The empty database of a server: to create it takes longer than a small run's work."""
    folder = tmp_path_factory.mktemp("database")
    url = f"sqlite+aiosqlite:///{folder / 'prefect.db'}"
    env = {**os.environ, "PREFECT_HOME": str(folder), "PREFECT_API_DATABASE_CONNECTION_URL": url}
    command = [sys.executable, "-m", "prefect", "server", "database", "upgrade", "--yes"]
    subprocess.run(command, env=env, check=True, capture_output=True)
    with contextlib.closing(sqlite3.connect(folder / "prefect.db")) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return folder / "prefect.db"


class Starter:
    """Starts the command line, each time in a process that leads a group of its own."""

    def __init__(self, folder, database):
        self.folder = folder
        self.started = []
        home = folder / "state" / "server-0"
        home.mkdir(parents=True)
        shutil.copy(database, home)

    def __call__(self, *words, planted=(), **environment):
        """Start a run; ``planted`` are faults for its workers, see planted/sitecustomize.py."""
        plan = self.folder / f"planted-{len(self.started)}.json"
        marks = plant(plan, planted)
        env = {
            **os.environ,
            "CHIPMILL_STATE_DIR": str(self.folder / "state"),
            "CHIPMILL_WORKERS": "2",
            "CHIPMILL_WORKER_MEMORY": "1500MB",
            "PYTHONPATH": str(PLANTED_AT),
            "PLANTED": str(plan),
        }
        for name in ("PREFECT_API_URL", "PREFECT_API_AUTH_STRING", "CHIPMILL_DASK_ADDRESS"):
            env.pop(name, None)
        command = [str(Path(sys.executable).with_name("chipmill")), *map(str, words), "--json"]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = subprocess.Popen(command, env=env | environment, text=True, start_new_session=True, **pipes)
        process.marks = marks
        self.started.append(process)
        return process

    def close(self):
        """End what a test that failed half-way left behind, children too."""
        for process in self.started:
            family = []
            if process.poll() is None:
                family = psutil.Process(process.pid).children(recursive=True)
                process.kill()
            if not process.stdout.closed:
                process.communicate()
            for one in psutil.wait_procs(family, timeout=20)[1]:
                one.kill()


@pytest.fixture
def start_run(tmp_path, database):
    """Start the command line with state below tmp_path: ``start_run("build", region, planted=[..], NAME=value)``."""
    starter = Starter(tmp_path, database)
    yield starter
    starter.close()


@pytest.fixture(scope="session")
def whole(demo, database, tmp_path_factory):
    """Files of an uninterrupted run, on one worker; it runs beside the first test and is waited for by a call."""
    folder = tmp_path_factory.mktemp("whole")
    shutil.copytree(demo, folder / "demo")
    starter = Starter(folder, database)
    process = starter("build", folder / "demo" / "region.yaml", CHIPMILL_WORKERS="1")
    found = {}

    def wait():
        if not found:
            assert finish(process)[0] == 0
            found.update(tree(folder / "demo"))
        return found

    yield wait
    starter.close()


def plant(plan, faults):
    """Write down what is to happen to the workers of runs that have PLANTED=plan; return the mark of each fault."""
    marks = [plan.with_suffix(f".{at}") for at in range(len(faults))]
    plan.write_text(json.dumps([one | {"mark": str(mark)} for one, mark in zip(faults, marks, strict=True)]))
    return marks


def wait_for(good):
    """Wait until something holds."""
    deadline = time.monotonic() + DEADLINE_S
    while not good():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def reach(process, number=0):
    """Wait until a run has come to a planted hold; return its children, by then."""
    mark = process.marks[number]
    deadline = time.monotonic() + DEADLINE_S
    while not mark.exists():
        assert time.monotonic() < deadline, f"{mark} is not reached"
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.02)
            pytest.fail(f"ended before {mark}: {process.communicate()}")
    return psutil.Process(process.pid).children(recursive=True)


def let_go(process, number=0):
    """Let a worker that holds go on."""
    mark = process.marks[number]
    mark.with_name(f"{mark.name}.go").touch()


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


def tree(demo):
    """Content of the version in force by name."""
    root = version(demo)
    keep = [path for path in root.rglob("*") if path.is_file()]
    return {path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in keep}


def assert_gone(family):
    """Check that no process of a run runs on; with them their ports are closed."""
    _gone, alive = psutil.wait_procs(family, timeout=20)
    assert not alive, [one.cmdline() for one in alive]


def assert_clean(demo):
    """Check that the cell holds committed versions alone, and that their windows add up."""
    from chipmill.dataset.manifest import load_manifest

    (versions,) = demo.glob("regions/*/*/versions")
    assert all(path.name.isdigit() for path in versions.iterdir()), "an attempt is left"
    assert list(demo.rglob(".tmp-*")) == []
    counts = load_manifest(version(demo)).counts
    assert counts.planned == counts.written + sum(counts.filtered.values()) + sum(counts.failed.values())


def recorded_as_open(state):
    """Runs and task runs that the database of a server that ended shows as not final."""
    with contextlib.closing(sqlite3.connect(state / "server-0" / "prefect.db")) as connection:
        rows = [
            row
            for table in ("flow_run", "task_run")
            for row in connection.execute(f"select name, state_type from {table}")
        ]
    assert rows
    return [row for row in rows if row[1] in ("RUNNING", "PENDING", "CANCELLING")]
