"""What is done beside the one who works: in order, one at a time, and no error of it is lost."""

import threading

import numpy as np
import pytest

from chipmill.core.buffers import lent_buffers
from chipmill.core.errors import DiskFullError
from chipmill.imagery import canary, workers
from chipmill.imagery.workers import PURPOSE, Behind, lent_readers


def test_one_after_the_other_while_the_owner_goes_on():
    go, done = threading.Event(), []

    def first():
        assert go.wait(30)
        done.append("first")

    with Behind() as behind:
        behind.do(first)
        assert done == []  # the owner is here, and the first is not done
        go.set()
        behind.do(lambda: done.append("second"))
        assert done[0] == "first"
    assert done == ["first", "second"]


def _fail():
    raise DiskFullError("no space is left")


def test_an_error_reaches_who_asks_for_the_next():
    done = []
    with Behind() as behind:
        behind.do(_fail)
        with pytest.raises(DiskFullError):
            behind.do(lambda: done.append("after it"))
    assert done == []


def test_an_error_of_the_last_reaches_the_end():
    with pytest.raises(DiskFullError), Behind() as behind:
        behind.do(_fail)


def test_an_error_is_not_lost_when_the_owner_fails_too():
    def owner():
        with Behind() as behind:
            behind.do(_fail)
            raise KeyError("the owner")

    with pytest.raises(DiskFullError) as caught:
        owner()
    assert isinstance(caught.value.__context__, KeyError)


def test_the_owners_error_waits_for_what_is_under_way():
    done = []

    def owner():
        with Behind() as behind:
            behind.do(lambda: done.append("written"))
            raise KeyError("the owner")

    with pytest.raises(KeyError):
        owner()
    assert done == ["written"]


def test_buffers_are_lent_again_for_their_purpose_alone():
    with lent_buffers("one", 2) as rooms:
        kept = [room.array("x", (3,), np.dtype(np.int16)) for room in rooms]
    with lent_buffers("one", 2) as rooms:
        again = [room.array("x", (3,), np.dtype(np.int16)) for room in rooms]
    assert {id(one.base) for one in kept} == {id(one.base) for one in again}
    with lent_buffers("other", 1) as (room,):
        fresh = room.array("x", (3,), np.dtype(np.int16))
    assert id(fresh.base) not in {id(one.base) for one in kept}
    with lent_buffers("one", 1) as (room,):
        assert id(room.array("x", (3,), np.dtype(np.int16)).base) not in {id(one.base) for one in kept}


def test_the_canary_is_asked_by_one_thread_at_a_time(monkeypatch):
    inside, most = [], []

    def reads():
        inside.append(1)
        most.append(len(inside))
        threading.Event().wait(0.05)
        inside.pop()
        return ()

    monkeypatch.setattr(canary, "silent_reads", reads)
    canary.require_safe_gdal.cache_clear()
    try:
        threads = [threading.Thread(target=canary.require_safe_gdal) for _ in range(4)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
    finally:
        canary.require_safe_gdal.cache_clear()
    assert most
    assert set(most) == {1}


def _reading():
    return [one.name for one in threading.enumerate() if one.name.startswith("chipmill-read")]


def test_readers_are_shared_kept_and_end_where_the_process_turns_to_something_else():
    with lent_readers(2) as one:
        one.submit(int).result(30)
        with lent_readers(2) as other:
            assert other is one
    assert _reading()
    with lent_buffers(PURPOSE, 1), lent_readers(2) as again:
        assert again is one
    with lent_buffers("something else", 1):
        assert _reading() == []
    with lent_readers(2) as fresh:
        assert fresh is not one
        assert fresh.submit(int).result(30) == 0


def test_readers_that_are_in_use_end_with_their_last_user():
    def user():
        with lent_readers(2) as pool:
            pool.submit(int).result(30)
            with lent_buffers("something else", 1):
                assert pool.submit(_reading).result(30)  # still at work
            with lent_readers(2) as fresh:
                assert fresh is not pool
            raise KeyError("the user")

    with pytest.raises(KeyError):
        user()
    with lent_buffers("another thing", 1):
        assert _reading() == []


def test_readers_are_new_after_some_composites_but_never_while_they_are_in_use(monkeypatch):
    monkeypatch.setattr(workers, "_LENDS", 3)
    with lent_buffers("something else", 1), lent_readers(2) as first:
        assert all(_lent() is first for _ in range(5))
    assert _lent() is not first
    second = _lent()
    assert [_lent() is second for _ in range(3)] == [True, False, False]


def _lent():
    with lent_readers(2) as pool:
        pool.submit(int).result(30)
    return pool
