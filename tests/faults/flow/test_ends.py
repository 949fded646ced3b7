"""However a run ends, nothing of it runs on, and the next one ends with the bytes of an uninterrupted one."""

import hashlib
import os
import signal
import time

import psutil
import pytest
from tests.faults.flow.conftest import DEADLINE_S, finish, recorded_as_open, version


def interrupt(process, demo, stage, count, number):
    """Send a signal once `count` results of a stage stand; return every process of the run, by then."""
    deadline = time.monotonic() + DEADLINE_S
    while len(list(demo.glob(f"regions/*/*/versions/.*/units/{stage}/*.parquet"))) < count:
        assert process.poll() is None, "\n".join(map(str, process.communicate()))
        assert time.monotonic() < deadline
        psutil.wait_procs([psutil.Process(process.pid)], timeout=0.02)
    family = psutil.Process(process.pid).children(recursive=True)
    assert len(family) >= 3, "a server and two workers"
    ports = [
        one.laddr for member in family for one in member.net_connections("inet") if one.status == "LISTEN"
    ]
    assert {port.ip for port in ports} == {"127.0.0.1"}
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # the terminal sends Ctrl-C to the whole group
    else:
        os.kill(process.pid, number)
    return family


def tree(demo):
    """Content of the version in force by name."""
    root = version(demo)
    keep = [path for path in root.rglob("*") if path.is_file()]
    return {path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in keep}


@pytest.mark.timeout(6 * DEADLINE_S)
def test_interrupted_thrice_ends_with_the_same_bytes(start_run, copy_demo, tmp_path):
    # One worker for the whole run, two for the interrupted ones: neither number shows in the bytes.
    assert finish(start_run("build", copy_demo("whole") / "region.yaml", CHIPMILL_WORKERS="1"))[0] == 0
    demo = copy_demo("cut")
    for stage, count, number, code in (
        ("rank_items", 3, signal.SIGINT, 130),
        ("composite_tiles", 2, signal.SIGTERM, 143),
        ("write_shards", 2, signal.SIGKILL, -9),
    ):
        process = start_run("build", demo / "region.yaml")
        family = interrupt(process, demo, stage, count, number)
        told = process.communicate(timeout=DEADLINE_S)
        assert process.returncode == code, told
        _gone, alive = psutil.wait_procs(family, timeout=20)
        assert not alive, [one.cmdline() for one in alive]
        if number != signal.SIGKILL:
            assert recorded_as_open(tmp_path / "state") == []
    code, told = finish(start_run("build", demo / "region.yaml"))
    assert (code, told["failures"]) == (0, [])
    assert version(demo).name == "1"
    assert recorded_as_open(tmp_path / "state") == [], "the next run closed what the killed one left"
    assert tree(demo) == tree(tmp_path / "whole")
