"""Two warm processes to fork runs from, the inputs, and cells that no fault ever met."""

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.faults import disk
from tests.faults.store import cell
from tests.faults.store.verbs import CONVERSIONS, PAIRS, converted

NIGHTLY = os.environ.get("CHIPMILL_PROFILE") == "nightly"
FORGES = 2


class Forge:
    """The side of the tests of a `forge` process."""

    def __init__(self) -> None:
        root = Path(__file__).resolve().parents[3]
        command = [sys.executable, "-m", "tests.faults.store.forge"]
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            command, cwd=root, env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def run(self, folder: Path, dataset: dict = cell.SECOND, **spec) -> dict:
        """Do one run in a process of its own and return how it ended."""
        return self.together([{"folder": str(folder), "dataset": dataset, **spec}])[0]

    def together(self, specs: list[dict]) -> list[dict]:
        """Do several runs that start at the same moment."""
        self.process.stdin.write(json.dumps(specs) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def done(self, folder: Path, dataset: dict = cell.SECOND, **spec) -> dict:
        """Do a run that has to succeed."""
        told = self.run(folder, dataset, **spec)
        assert (told["signal"], told["error"], told["message"]) == (0, None, "")
        return told

    def close(self) -> None:
        """End the process."""
        self.process.stdin.close()
        self.process.wait(timeout=60)
        self.process.stdout.close()


@pytest.fixture(scope="session")
def forges():
    """One warm process per core that we may use."""
    made = [Forge() for _ in range(FORGES)]
    yield made
    for forge in made:
        forge.close()


@pytest.fixture
def share_out(forges):
    """Work on a list on all forges at once: ``share_out(work, list)`` calls ``work(forge, one)`` for each."""

    def share(work, jobs):
        jobs = list(jobs)

        def part(number):
            for job in jobs[number :: len(forges)]:
                work(forges[number], job)

        with ThreadPoolExecutor(len(forges)) as pool:
            for future in [pool.submit(part, number) for number in range(len(forges))]:
                future.result()

    return share


@pytest.fixture(scope="session")
def inputs(tmp_path_factory):
    """Archive and labels."""
    folder = tmp_path_factory.mktemp("inputs")
    cell.make_inputs(folder)
    return folder


@pytest.fixture(scope="session")
def built(forges, inputs, tmp_path_factory):
    """Make a cell by uninterrupted runs, once; returns (folder, events of the last run)."""
    made = {}

    def build(*runs):
        key = json.dumps(runs)
        if key not in made:
            folder = cell.new_cell(inputs, tmp_path_factory.mktemp("whole") / "cell")
            events = [forges[0].done(folder, **run)["events"] for run in runs]
            made[key] = folder, events[-1]
        return made[key]

    return build


@pytest.fixture(scope="session")
def pairs(built, forges, tmp_path_factory):
    """A built cell with a folder of pairs beside its output."""
    start, _ = built({"dataset": cell.FIRST})
    folder = cell.copy_cell(start, tmp_path_factory.mktemp("pairs") / "cell")
    forges[0].done(folder, verb="to-folders")
    shutil.move(converted(folder), folder / PAIRS)
    return folder


@pytest.fixture(scope="session", params=CONVERSIONS)
def conversion(request, pairs, forges, tmp_path_factory):
    """A verb, what it makes when nothing disturbs it, and the calls that takes."""
    folder = cell.copy_cell(pairs, tmp_path_factory.mktemp("converted") / "cell")
    events = forges[0].done(folder, verb=request.param)["events"]
    made = cell.tree(converted(folder))
    assert made
    return request.param, made, events


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a file system of 4 MB of its own."""
    folder = tmp_path / "disk"
    with disk.small_disk(folder, disk.SIZE):
        yield folder
