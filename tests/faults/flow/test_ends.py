"""However a run ends, nothing of it runs on, and the next one ends with the bytes of an uninterrupted one."""

import os
import signal

import psutil
import pytest
from tests.faults.flow import strike
from tests.faults.flow.conftest import (
    DEADLINE_S,
    assert_clean,
    assert_gone,
    finish,
    let_go,
    reach,
    recorded_as_open,
    tree,
    version,
)

NIGHTLY = os.environ.get("CHIPMILL_PROFILE") == "nightly"


def interrupt(process, number):
    """Send a signal to a run that holds; return every process of the run, by then."""
    family = reach(process)
    assert len(family) >= 3, "a server and two workers"
    ports = [
        one.laddr for member in family for one in member.net_connections("inet") if one.status == "LISTEN"
    ]
    assert {port.ip for port in ports} == {"127.0.0.1"}
    let_go(process)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # the terminal sends Ctrl-C to the whole group
    else:
        os.kill(process.pid, number)
    return family


@pytest.mark.timeout(6 * DEADLINE_S)
def test_interrupted_thrice_ends_with_the_same_bytes(whole, start_run, copy_demo, tmp_path):
    """The last of the runs loses its server and a worker besides.

    The whole run has one worker, the last of these four and the others two: no number of them shows in the bytes.
    """
    demo = copy_demo("cut")
    for stage, unit, number, code in (
        ("rank_items", 3, signal.SIGINT, 130),
        ("composite_tiles", 2, signal.SIGTERM, 143),
        ("index_windows", 2, signal.SIGKILL, -9),
    ):
        hold = {"stage": stage, "unit": unit, "do": "hold"}
        process = start_run("build", demo / "region.yaml", planted=[hold])
        family = interrupt(process, number)
        told = process.communicate(timeout=DEADLINE_S)
        assert process.returncode == code, told
        assert_gone(family)
        if number != signal.SIGKILL:
            assert recorded_as_open(tmp_path / "state") == []
    last = [
        {"stage": "write_shards", "unit": 1, "do": "hold"},
        {"stage": "write_shards", "unit": 4, "do": "kill-once"},
    ]
    process = start_run("build", demo / "region.yaml", planted=last, CHIPMILL_WORKERS="4")
    family = reach(process)
    strike.kill_server(family)
    let_go(process)
    code, told = finish(process)
    assert (code, told["failures"]) == (0, [])
    assert_gone([one for one in family if psutil.pid_exists(one.pid)])
    assert version(demo).name == "1"
    assert recorded_as_open(tmp_path / "state") == [], "the next run closed what the killed one left"
    assert_clean(demo)
    assert tree(demo) == whole()


@pytest.mark.skipif(not NIGHTLY, reason="by day four workers of a last stage must do")
def test_four_workers_write_the_same_bytes(whole, start_run, copy_demo):
    demo = copy_demo("four")
    code, told = finish(start_run("build", demo / "region.yaml", CHIPMILL_WORKERS="4"))
    assert (code, told["failures"]) == (0, [])
    assert tree(demo) == whole()
