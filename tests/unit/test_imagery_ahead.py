"""Reading ahead over several sources: in order, errors when they are due, files closed, nothing left behind."""

import contextlib
import threading

import pytest

from chipmill.imagery.ahead import read_ahead
from chipmill.region.grid import Window


class Source:
    """Reads its windows by name; ``broken`` is the number of the window that cannot be read."""

    def __init__(self, name, log, count=3, broken=None):
        self.name, self.log, self.count, self.broken = name, log, count, broken

    def windows(self):
        return [Window(0, row, 1, 1) for row in range(self.count)]

    def read(self, window, room):
        if window.row_off == self.broken:
            raise OSError(f"{self.name}{window.row_off}")
        return self.name, window.row_off, room


def opening(source, fails=False):
    @contextlib.contextmanager
    def manager():
        if fails:
            raise OSError(f"no {source.name}")
        source.log.append(f"open {source.name}")
        try:
            yield source
        finally:
            source.log.append(f"close {source.name}")

    return manager


def test_windows_come_in_order_and_no_two_at_work_share_arrays():
    log = []
    sources = [Source(name, log) for name in "abc"]
    found, rooms = [], []
    for source, window, strip, last in read_ahead([opening(one) for one in sources], 2):
        assert strip[:2] == (source.name, window.row_off)
        found.append((source.name, window.row_off, last))
        rooms.append(id(strip[2]))
    assert found == [(name, row, row == 2) for name in "abc" for row in range(3)]
    for at in range(len(rooms) - 2):
        assert len(set(rooms[at : at + 3])) == 3
    assert sorted(log) == sorted(f"{what} {name}" for what in ("open", "close") for name in "abc")


def test_a_source_is_closed_when_its_last_strip_has_been_used():
    log = []
    strips = read_ahead([opening(Source(name, log, count=1)) for name in "ab"], 1)
    assert next(strips).last
    assert "close a" not in log
    next(strips)
    assert "close a" in log
    strips.close()
    assert log[-1] == "close b"


@pytest.mark.parametrize("fails", [True, False])
def test_an_error_of_the_next_source_waits_until_the_strips_before_it_have_been_used(fails):
    log = []
    bad = Source("b", log, broken=0)
    strips = read_ahead([opening(Source("a", log)), opening(bad, fails)], 2)
    assert [next(strips).window.row_off for _ in range(3)] == [0, 1, 2]
    with pytest.raises(OSError, match="no b" if fails else "b0"):
        next(strips)
    assert "close a" in log
    assert ("close b" in log) is ("open b" in log)


def test_leaving_early_closes_all_files_and_ends_all_threads():
    log = []
    before = threading.active_count()
    strips = read_ahead([opening(Source(name, log)) for name in "ab"], 2)
    next(strips)
    strips.close()
    assert log.count("close a") == 1
    assert log.count("open b") == log.count("close b")
    assert threading.active_count() == before
