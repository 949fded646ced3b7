"""Backfills on a running `chipmill up`: real cells in processes of real workers, killed and redone."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests import backfill_world

REGIONS = 100 if os.environ.get("CHIPMILL_PROFILE") == "nightly" else 4
"""Of two cells each."""
SPANS = backfill_world.SPANS[:2]
DEADLINE_S = 120.0 + 60.0 * REGIONS


@pytest.fixture(scope="module")
def folder(up):
    return up.root / "backfill"


@pytest.fixture(scope="module")
def files(folder):
    """Region files over archives of their own: a file that is broken in one is the trouble of one."""
    made = []
    for number in range(REGIONS):
        catalog = backfill_world.archive(folder / f"archive-{number}")
        made.append(backfill_world.region_file(folder, f"r{number}", catalog))
    return made


@pytest.fixture(scope="module")
def environment(up):
    """Of a command that finds the running service by itself."""
    kept = {name: value for name, value in up.env.items() if not name.startswith("PREFECT")}
    return kept | {"CHIPMILL_BACKFILL_POLL_S": "1"}


def command(files, *options):
    program = str(Path(sys.executable).with_name("chipmill"))
    spans = [word for start, end in SPANS for word in ("--time-range", f"{start}--{end}")]
    return [
        program,
        "backfill",
        "build_dataset",
        *map(str, files),
        *spans,
        "--at-once",
        "2",
        "--json",
        *options,
    ]


def call(files, environment, *options):
    words = command(files, *options)
    done = subprocess.run(
        words, env=environment, capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )
    return done, json.loads(done.stdout)


def manifests(folder):
    """Inode and time of every manifest of a version, by its path."""
    found = sorted(folder.glob("out/regions/*/*/versions/[0-9]*/dataset.json"))
    return {path.relative_to(folder / "out" / "regions").as_posix(): path.stat() for path in found}


def cell_runs(up):
    """The runs of the cells by region/period, and how many there are."""
    query = {
        "flows": {"name": {"any_": ["build-dataset"]}},
        "flow_runs": {"tags": {"all_": ["backfill"]}},
        "limit": 200,
    }
    found = []
    with up.client() as client:
        while page := client.request("POST", "/flow_runs/filter", json=query | {"offset": len(found)}).json():
            found += page
    return {run["name"].removeprefix("build-dataset/"): run for run in found}, len(found)


@pytest.mark.timeout(2 * DEADLINE_S + 120)
def test_one_bad_cell_a_killed_backfill_and_a_second_call(up, files, folder, environment):
    """The whole of it on one grid: killed in the middle, started again, one cell named, mended, redone from the screen."""
    bad_region, bad_period = "r1", backfill_world.PERIODS[1]
    asset = backfill_world.asset(folder / "archive-1" / "catalog.json", bad_period)
    good = asset.read_bytes()
    asset.write_bytes(b"\0" * len(good))  # of the same size: the answer of the search stays the same

    process = subprocess.Popen(
        command(files), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    end = time.monotonic() + DEADLINE_S
    while not manifests(folder) and process.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    assert process.poll() is None, process.stderr.read()
    process.kill()
    process.communicate()

    done, told = call(files, environment)
    assert done.returncode == 3, done.stderr
    bad = f"{bad_region}/{bad_period}"
    states = {f"{cell['region']}/{cell['period']}": cell["state"] for cell in told["cells"]}
    assert len(states) == 2 * REGIONS
    assert {name for name, state in states.items() if state == "failed"} == {bad}
    assert {state for name, state in states.items() if name != bad} <= {"done", "current"}
    assert f"1 of {2 * REGIONS} cells failed" in done.stderr
    assert bad in done.stderr
    assert "red.tif" in done.stderr
    before = manifests(folder)
    assert len(before) == 2 * REGIONS - 1
    runs, count = cell_runs(up)
    assert count == len(runs) == 2 * REGIONS, "none doubled, none lost"
    assert {run["run_count"] for name, run in runs.items() if name != bad} == {1}
    assert runs[bad]["state_type"] == "FAILED"

    asset.write_bytes(good)
    parameters = {
        "flow": "build_dataset",
        "regions": [f"backfill/{file.name}" for file in files],
        "time_ranges": [{"start": start, "end": end} for start, end in SPANS],
        "only_failed": True,
    }
    again = up.wait(up.run("backfill-regions/cell", parameters), deadline_s=DEADLINE_S)
    assert again.state.is_completed(), again.state
    after = manifests(folder)
    assert after.keys() - before.keys() == {f"{bad}/versions/1/dataset.json"}
    assert {name: (one.st_ino, one.st_mtime_ns) for name, one in before.items()} == {
        name: (one.st_ino, one.st_mtime_ns) for name, one in after.items() if name in before
    }
    redone, count = cell_runs(up)
    assert count == 2 * REGIONS
    assert redone[bad]["state_type"] == "COMPLETED"
    assert redone[bad]["run_count"] == runs[bad]["run_count"] + 1
    assert all(run["run_count"] == 1 for name, run in redone.items() if name != bad)


def test_no_backfill_is_left_running(up, files):
    """The one that was killed was closed by the one that came after it."""
    with up.client() as client:
        query = {"flows": {"name": {"any_": ["backfill-regions"]}}}
        found = client.request("POST", "/flow_runs/filter", json=query).json()
    assert sorted(run["state_type"] for run in found) == ["COMPLETED", "CRASHED", "FAILED"]


def test_a_grid_that_is_current_starts_nothing(files, environment):
    done, told = call(files[:1], environment)
    assert done.returncode == 0, done.stderr
    assert {cell["state"] for cell in told["cells"]} == {"current"}


def test_a_file_outside_the_roots_is_named_and_not_read(up, files, tmp_path):
    secret = tmp_path / "secret.yaml"
    secret.write_text("password: canary-4711\n")
    parameters = {"flow": "build_dataset", "regions": [str(secret)], "time_ranges": []}
    run = up.wait(up.run("backfill-regions/cell", parameters), deadline_s=DEADLINE_S)
    assert run.state.is_failed()
    assert "lies outside the directories of CHIPMILL_ROOTS" in run.state.message
    assert "4711" not in run.state.message
