"""A running `chipmill up` for tests of services, of the screen and of faults: one process, own state and root.

The session fixture `up` is for all tests (tests/conftest.py); `start_up` starts one of its own for tests that
kill it.
"""

import contextlib
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

DEADLINE_S = 120.0
"""Of its start, on a machine that others use as well."""
POLL_S = 0.2
PLANTED = Path(__file__).parent / "faults" / "flow" / "planted"


@dataclass(frozen=True)
class Up:
    """A running service; `root` is the only directory that the paths of its runs may lie in."""

    process: subprocess.Popen
    url: str
    """Of the API, ending in /api."""
    ui: str
    user: str
    password: str
    state: Path
    root: Path
    plan: Path
    """Faults for the processes that begin from now on, as tests/faults/flow/planted reads them; none are planted."""

    @property
    def auth(self):
        """What Prefect takes as PREFECT_API_AUTH_STRING, and a browser as user:password."""
        return f"{self.user}:{self.password}"

    @property
    def env(self):
        """The environment of a process that shall talk to it as a client of Prefect."""
        return {
            **_environment(self.state),
            "PREFECT_API_URL": self.url,
            "PREFECT_API_AUTH_STRING": self.auth,
            "PREFECT_SERVER_EPHEMERAL_ENABLED": "false",
            "PREFECT_HOME": str(self.state / "test-client"),
        }

    @contextlib.contextmanager
    def client(self):
        """Prefect's client, connected; this process's settings point at the service inside the block."""
        from prefect.client.orchestration import get_client
        from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

        with (
            temporary_settings(updates={PREFECT_API_URL: self.url, PREFECT_API_AUTH_STRING: self.auth}),
            get_client(sync_client=True) as connected,
        ):
            yield connected

    def run(self, deployment, parameters):
        """Start a run of a deployment such as refresh-region/cell; returns its id."""
        with self.client() as client:
            found = client.read_deployment_by_name(deployment)
            return client.create_flow_run_from_deployment(found.id, parameters=parameters).id

    def wait(self, run, good=lambda run: run.state.is_final(), deadline_s=DEADLINE_S):
        """Wait until a run is final, or as asked; returns the run as the server shows it."""
        end = time.monotonic() + deadline_s
        with self.client() as client:
            while not good(found := client.read_flow_run(run)):
                if time.monotonic() > end:
                    pytest.fail(f"{found.name} is {found.state} after {deadline_s:g} s")
                time.sleep(POLL_S)
        return found

    def family(self):
        """All processes of the service: itself, server, worker, flow runs, Dask."""
        own = psutil.Process(self.process.pid)
        return [own, *own.children(recursive=True)]

    def child(self, module):
        """The one process below it that runs a module of chipmill.orchestration, by its last name."""
        found = [one for one in self.family() if f"chipmill.orchestration.{module}" in " ".join(_words(one))]
        assert len(found) == 1, (module, [_words(one) for one in self.family()])
        return found[0]


def start_up(state, root, *words, **environment):
    """Start `chipmill up` and wait until it is ready."""
    root.mkdir(parents=True, exist_ok=True)
    state.mkdir(parents=True, exist_ok=True)
    plan = state / "plan.json"
    plan.write_text("[]")
    program = str(Path(sys.executable).with_name("chipmill"))
    with (state / "up.err").open("wb") as errors:
        process = subprocess.Popen(
            [program, "up", "--root", str(root), "--json", *words],
            env={**_environment(state), "PLANTED": str(plan), "PYTHONPATH": str(PLANTED), **environment},
            cwd=root,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        )
    line = (
        process.stdout.readline()
    )  # ends with the deadline of the server's start; an error has several lines
    if not line.startswith('{"ok": true'):
        end_up(process)
        pytest.fail(f"chipmill up did not start: {(state / 'up.err').read_text()}")
    told = json.loads(line)
    return Up(process, told["url"], told["ui"], told["user"], told["password"], state, root, plan)


def end_up(process):
    """End it in order; returns its exit code."""
    if process.poll() is None:
        process.terminate()
    try:
        return process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()
    finally:
        process.stdout.close()


def _environment(state):
    removed = (
        "PREFECT_API_URL",
        "PREFECT_API_AUTH_STRING",
        "PREFECT_HOME",
        "CHIPMILL_DASK_ADDRESS",
        "CHIPMILL_ROOTS",
    )
    return {
        **{name: value for name, value in os.environ.items() if name not in removed},
        "CHIPMILL_STATE_DIR": str(state),
        "CHIPMILL_WORKERS": "1",
        "CHIPMILL_WORKER_MEMORY": "1500MB",
        "CHIPMILL_RETRY_WAIT_S": "0.1",
        "CHIPMILL_SERVER_TIMEOUT_S": str(DEADLINE_S),
    }


def _words(process):
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.cmdline()
    return []


@pytest.fixture(scope="session")
def up(tmp_path_factory):
    """One running `chipmill up` for all tests of a session; two runs of the pool `work` at once."""
    folder = tmp_path_factory.mktemp("up")
    running = start_up(folder / "state", folder / "root", "--at-once", "2")
    yield running
    end_up(running.process)
