"""One fault in mid-run, at a seeded place: what the run says, that nothing of it is left, and the bytes in the end.

The faults of one run that CI has time for are in test_ends and test_failed_tiles; nightly every fault strikes at 20 places.
"""

import os
import random
import shutil
import signal

import pytest
import yaml
from prefect.states import Cancelling
from tests.faults.disk import small_disk
from tests.faults.flow import strike
from tests.faults.flow.conftest import (
    DEADLINE_S,
    assert_clean,
    assert_gone,
    finish,
    let_go,
    plant,
    reach,
    recorded_as_open,
    tree,
    wait_for,
)
from tests.flows import screen

from chipmill.core.store import lock
from chipmill.core.units import failures

SEEDS = range(20 if os.environ.get("CHIPMILL_PROFILE") == "nightly" else 0)
STAGES = ("rank_items", "composite_tiles", "grid_layers", "index_windows", "write_shards")
DISK_BYTES = 160 << 20

pytestmark = [
    pytest.mark.timeout(4 * DEADLINE_S),
    pytest.mark.skipif(not SEEDS, reason="one fault per run and place is for the night"),
]


@pytest.fixture(params=SEEDS)
def place(request):
    """A stage and the number of a unit in it."""
    rng = random.Random(request.param)
    return {"stage": rng.choice(STAGES), "unit": rng.randrange(9)}


@pytest.fixture
def ends_well(start_run, whole, tmp_path):
    """Check the end of a run, and run again where it did not finish: the same bytes, nothing left."""

    def check(demo, family, again):
        assert_gone(family)
        assert recorded_as_open(tmp_path / "state") == []
        if again:
            code, told = finish(start_run("build", demo / "region.yaml", CHIPMILL_WORKERS="1"))
            assert (code, told["failures"]) == (0, [])
            assert recorded_as_open(tmp_path / "state") == []
        assert_clean(demo)
        assert tree(demo) == whole()

    return check


def test_worker_killed(place, start_run, copy_demo, ends_well):
    demo = copy_demo("demo")
    planted = [place | {"do": "kill-once"}]
    process = start_run("build", demo / "region.yaml", planted=planted)
    code, told = finish(process)
    assert process.marks[0].exists()
    assert (code, told["failures"]) == (0, [])
    ends_well(demo, [], again=False)


@pytest.mark.parametrize("form", ["killed", "silent"])
def test_server_gone(form, place, start_run, copy_demo, ends_well):
    """It is back after a while; the run neither fails nor waits for it, and its records are complete in the end."""
    demo = copy_demo("demo")
    process = start_run("build", demo / "region.yaml", planted=[place | {"do": "hold"}])
    family = reach(process)
    if form == "killed":
        strike.kill_server(family)
        let_go(process)
    else:
        with strike.silent_server(family):
            let_go(process)
    code, told = finish(process)
    assert (code, told["failures"]) == (0, [])
    ends_well(demo, family, again=False)


def test_memory_limit(place, start_run, copy_demo, ends_well):
    demo = copy_demo("demo")
    process = start_run("build", demo / "region.yaml", planted=[place | {"do": "hog"}])
    code, told = finish(process)
    assert code == 3
    (lost,) = told["failures"]
    assert "out of memory, limit 1.5 GB" in lost["reason"]
    assert lost["stage"] == place["stage"]
    assert lost["unit"] in told["message"]
    assert told["redo"] == f"chipmill build {demo / 'region.yaml'}"
    (attempt,) = demo.glob("regions/*/*/versions/.*")
    assert [one.unit for one in failures(attempt)] == [lost["unit"]]
    ends_well(demo, [], again=True)


def test_disk_full(place, start_run, demo, tmp_path, ends_well):
    disk = tmp_path / "disk"
    with small_disk(disk, DISK_BYTES):
        here = shutil.copytree(demo, disk / "demo")
        with strike.full(disk):
            told = start_run("build", here / "region.yaml").communicate(timeout=DEADLINE_S)
            assert "the disk is full for this run" in told[0] + told[1]
        process = start_run("build", here / "region.yaml", planted=[place | {"do": "hold"}])
        family = reach(process)
        with strike.full(disk):
            let_go(process)
            told = process.communicate(timeout=DEADLINE_S)
            assert process.returncode == 1, told
            assert "no space is left to write" in told[0] + told[1]
        ends_well(here, family, again=True)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGINT, 130)]
)
def test_flow_ended(number, code, place, start_run, copy_demo, ends_well, tmp_path):
    demo = copy_demo("demo")
    process = start_run("build", demo / "region.yaml", planted=[place | {"do": "hold"}])
    family = reach(process)
    let_go(process)
    os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
    told = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == code, told
    assert_gone(family)
    code, told = finish(start_run("build", demo / "region.yaml"))
    assert (code, told["failures"]) == (0, [])
    ends_well(demo, [], again=False)


def open_below(client, run):
    """Task runs below a flow run that are shown as not final."""
    return screen.wait_for(lambda: screen.open_task_runs(client, run), lambda found: not found)


@pytest.mark.parametrize("started_by", ["worker", "command"])
def test_cancelled_on_the_screen(started_by, place, request, up, demo, start_run, whole, tmp_path):
    """The unit that is being worked on is not waited for."""
    here = shutil.copytree(demo, up.root / f"{started_by}-{request.node.callspec.indices['place']}")
    hold = [place | {"do": "hold"}]
    before = {one.pid for one in up.family()}
    with up.client() as client:
        if started_by == "worker":
            (mark,) = plant(up.plan, hold)
            mark.unlink(missing_ok=True)
            fields = yaml.safe_load((here / "region.yaml").read_text())
            run = up.run("build-dataset/cell", {"region": fields | {"file": f"{here.name}/region.yaml"}})
            wait_for(mark.exists)
            plant(up.plan, [])
            family = [one for one in up.family() if one.pid not in before]
        else:
            process = start_run("build", here / "region.yaml", planted=hold, CHIPMILL_STATE_DIR=str(up.state))
            family = reach(process)
            (run,) = [one.id for one in client.read_flow_runs() if one.state.is_running()]
        assert len(family) >= 2
        client.set_flow_run_state(run, Cancelling())
        up.wait(run, lambda found: found.state.is_cancelled(), deadline_s=60)
        assert_gone(family)
        assert open_below(client, run) == []
        if started_by == "command":
            told = process.communicate(timeout=DEADLINE_S)
            assert process.returncode == 143, told
    (cell,) = here.glob("regions/*/*/versions")
    with lock(cell.parent / ".lock", "test"):
        pass
    code, told = finish(start_run("build", here / "region.yaml"))
    assert (code, told["failures"]) == (0, [])
    assert recorded_as_open(tmp_path / "state") == []
    assert_clean(here)
    assert tree(here) == whole()
