"""SIGKILL at seeded calls of the writing stages: every run is resumed until it is done, and its bytes are the right ones."""

import random

import pytest
from tests.faults.store import cell
from tests.faults.store.conftest import NIGHTLY

from chipmill.dataset.verify import verify_dataset

KILLS = 1000 if NIGHTLY else 50
PER_JOB = 5


@pytest.mark.timeout(3600 if NIGHTLY else 120)
@pytest.mark.parametrize("before", [None, cell.FIRST], ids=["first-version", "second-version"])
def test_killed_runs_are_resumed_to_the_bytes_of_an_uninterrupted_one(
    before, built, inputs, share_out, tmp_path
):
    older = [{"dataset": before}] if before else []
    whole, events = built(*older, {"dataset": cell.SECOND})
    start = built(*older)[0] if older else inputs
    killed = []

    def job(forge, seed):
        rng = random.Random(seed)
        kills = trials = 0
        while kills < PER_JOB:
            trials += 1
            folder = cell.copy_cell(start, tmp_path / f"{seed}-{trials}")
            finished = False
            while not finished:
                # a resumed run has less to do, so that a late call is often not reached and the run ends
                at = rng.randint(1, events) if kills < PER_JOB else 0
                told = forge.run(folder, cell.SECOND, at=at)
                assert told["error"] is None, told["message"]
                finished = told["signal"] == 0
                kills += not finished
                if older:
                    assert verify_dataset(cell.cell_of(folder).root).problems == (), (
                        "the version in force is bad"
                    )
            cell.assert_finished(folder, whole, len(older))
            assert verify_dataset(cell.cell_of(folder).root, data=True).problems == ()
        killed.append(kills)

    share_out(job, range(KILLS // 2 // PER_JOB))
    assert sum(killed) == KILLS // 2


def shards(version):
    """Name and inode of every shard."""
    return {path.name: path.stat().st_ino for path in version.glob("shards/*.tfrecord")}


def test_a_kill_between_rename_and_pointer_leaves_the_old_version_in_force(built, forges, tmp_path):
    """The one place where a run that is done is not yet seen: its last calls, one by one."""
    whole, events = built({"dataset": cell.FIRST}, {"dataset": cell.SECOND})
    start, _ = built({"dataset": cell.FIRST})
    seen = set()
    for at in range(events, 0, -1):
        folder = cell.copy_cell(start, tmp_path / str(at))
        assert forges[0].run(folder, cell.SECOND, at=at)["signal"] == 9
        versions = cell.cell_of(folder).versions
        seen.add((versions.current(), tuple(versions.numbers()), tuple(versions.attempts())))
        assert verify_dataset(cell.cell_of(folder).root).problems == ()
        forges[0].done(folder, cell.SECOND)
        cell.assert_finished(folder, whole, 1)
        if versions.numbers() == [1, 2, 3]:
            assert shards(versions.path(2)) == shards(versions.path(3)), (
                "what was complete is taken, not made again"
            )
        if (1, (1,), (2,)) in seen:
            break
    # before the rename, between rename and swap, after the swap
    assert seen == {(1, (1,), (2,)), (1, (1, 2), ()), (2, (1, 2), ())}
