"""Requests per host: never more at a time than allowed, over all processes, and everybody gets a turn."""

import contextlib
import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
from tests import imagery_world as iw
from tests.fault_archive import _Handler

from chipmill.core.errors import BadInputError, ItemSearchError, ServerError, TransientReadError
from chipmill.imagery import gate, hosts, patience, sources
from chipmill.imagery.api import search_api
from chipmill.imagery.hosts import Turn, requests_per_host
from chipmill.imagery.sources import open_asset

READER = """
import sys, threading
from chipmill.imagery.sources import open_asset

def read(url):
    with open_asset(url) as dataset:
        dataset.read(1)

print("ready", flush=True)
sys.stdin.readline()
threads = [threading.Thread(target=read, args=(url,)) for url in sys.argv[1:]]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""


@pytest.fixture
def state(tmp_path, monkeypatch):
    """A state directory of this test's own."""
    monkeypatch.setenv("CHIPMILL_STATE_DIR", str(tmp_path / "state"))
    hosts.prepare()
    return tmp_path / "state"


@pytest.fixture
def crowd(archive, monkeypatch):
    """How many requests the server had at once: the largest number so far, in a list."""
    now, most, full = [0], [0], threading.Condition()
    real = _Handler._answer

    def answer(self, body):
        with full:
            now[0] += 1
            most[0] = max(most[0], now[0])
            full.notify_all()
            # long enough for another one to come in if it may
            full.wait_for(lambda: now[0] > 2, timeout=0.1)
        try:
            real(self, body)
        finally:
            with full:
                now[0] -= 1

    monkeypatch.setattr(_Handler, "_answer", answer)
    return most


@pytest.mark.parametrize(("allowed", "seen"), [(2, {2}), (16, {3, 4, 5, 6})])
def test_two_processes_together_ask_a_host_no_more_than_allowed(
    archive, state, crowd, tmp_path, allowed, seen
):
    pixels = np.random.default_rng(5).integers(1, 9000, (256, 256)).astype(np.uint16)
    names = [f"{number}-{allowed}.tif" for number in range(6)]
    for name in names:
        iw.save(tmp_path / name, pixels, nodata=0, block=64)
    env = {**os.environ, "CHIPMILL_HOST_REQUESTS": str(allowed)}
    with contextlib.ExitStack() as stack:
        readers = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", READER, *(f"{archive.url}/{name}" for name in part)],
                    env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                )
            )
            for part in (names[:3], names[3:])
        ]  # fmt: skip
        for reader in readers:
            assert reader.stdout.readline() == "ready\n"
        for reader in readers:
            reader.stdin.write("\n")
            reader.stdin.flush()
        for reader in readers:
            _, errors = reader.communicate(timeout=60)
            assert (reader.returncode, errors) == (0, "")
    assert crowd[0] in seen
    assert all(archive.count(f"/{name}", "block") for name in names)


def test_a_search_takes_a_turn_and_gives_it_back(archive, state, monkeypatch):
    monkeypatch.setenv("CHIPMILL_HOST_REQUESTS", "1")
    monkeypatch.setattr(patience, "BUDGET_S", 0.2)
    archive.search = lambda body: {"type": "FeatureCollection", "features": [], "links": []}
    host, _, port = archive.url.removeprefix("http://").partition(":")

    def ask():
        return search_api(
            f"{archive.url}/stac", collection="c", datetime="2019-01-01/2020-01-01", bbox=[0, 0, 1, 1]
        )

    with Turn(host, int(port)) as turn:
        turn.take(1.0)
        with pytest.raises(
            ItemSearchError, match=r"others keep 127\.0\.0\.1 busy, where CHIPMILL_HOST_REQUESTS allows 1"
        ):
            ask()
        assert archive.requests == []
    assert ask() == []
    assert ask() == []
    assert [path for path in (state / "hosts").rglob("*") if path.is_file()] == []


def test_a_read_that_got_no_turn_says_so_and_may_be_tried_again(
    archive, state, short_waits, tmp_path, monkeypatch
):
    monkeypatch.setenv("CHIPMILL_HOST_REQUESTS", "1")
    monkeypatch.setitem(sources.GDAL_OPTIONS, "GDAL_HTTP_MAX_RETRY", "0")
    iw.save(tmp_path / "busy.tif", np.ones((64, 64), np.uint16), block=64)
    host, _, port = archive.url.removeprefix("http://").partition(":")
    with Turn(host, int(port)) as turn:
        turn.take(1.0)
        with (
            pytest.raises(TransientReadError, match=r"others keep 127\.0\.0\.1 busy"),
            open_asset(f"{archive.url}/busy.tif"),
        ):
            pass
        assert archive.requests == []
    with open_asset(f"{archive.url}/busy.tif") as dataset:
        assert dataset.read(1).all()


def test_a_turn_is_for_a_host_and_a_port(state, monkeypatch):
    monkeypatch.setenv("CHIPMILL_HOST_REQUESTS", "1")
    with Turn("a", 80) as one, Turn("a", 443) as other, Turn("b", 80) as third, Turn("a", 80) as late:
        for each in (one, other, third):
            each.take(0.0)
            assert each.held
        with pytest.raises(TimeoutError):
            late.take(0.0)
        one.give()
        late.take(0.0)
        assert (one.held, late.held) == (False, True)


def test_who_is_not_wanted_any_more_does_not_wait(state, monkeypatch):
    monkeypatch.setenv("CHIPMILL_HOST_REQUESTS", "1")
    with Turn("a", 80) as one, Turn("a", 80) as other:
        one.take(0.0)
        with pytest.raises(TimeoutError):
            other.take(600.0, wanted=lambda: False)


def test_a_process_that_is_killed_gives_its_turns_back(state, monkeypatch):
    monkeypatch.setenv("CHIPMILL_HOST_REQUESTS", "1")
    code = "from chipmill.imagery.hosts import Turn\nt = Turn('a', 80); t.take(1.0); print('held', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "held\n"
        with Turn("a", 80) as mine:
            with pytest.raises(TimeoutError):
                mine.take(0.0)
            holder.send_signal(signal.SIGKILL)
            mine.take(30.0)
            assert mine.held


def test_one_that_is_busy_all_the_time_does_not_keep_the_others_waiting(state, monkeypatch):
    """Four take turn after turn at one place: from when all stand in line each gets its share."""
    monkeypatch.setenv("CHIPMILL_HOST_REQUESTS", "1")
    turns = []
    enough = threading.Event()

    def work(number):
        with Turn("a", 80) as mine:
            while not enough.is_set():
                mine.give()
                mine.take(60.0)
                turns.append(number)
                if len(shared()) >= 200:
                    enough.set()

    def shared():
        begun = max((turns.index(number) if number in turns else len(turns)) for number in range(4))
        return turns[begun:]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert enough.is_set()
    assert min(shared().count(number) for number in range(4)) >= 10


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "many", "²"])
def test_a_number_that_cannot_be_meant_is_named(monkeypatch, value):
    monkeypatch.setenv("CHIPMILL_HOST_REQUESTS", value)
    with pytest.raises(BadInputError, match="CHIPMILL_HOST_REQUESTS is"):
        requests_per_host()


def test_a_state_directory_that_cannot_be_made_is_said_before_anything_is_read(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("CHIPMILL_STATE_DIR", str(tmp_path / "file"))
    gate.close_gate()
    with pytest.raises(ServerError, match="CHIPMILL_STATE_DIR"):
        gate.gate()
