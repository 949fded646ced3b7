"""`select` and `convert`, killed and out of space: what they make appears whole or not at all, and is made by the next call."""

import random

import pytest
from tests.faults.store import cell
from tests.faults.store.conftest import NIGHTLY
from tests.faults.store.verbs import converted

from chipmill.dataset.verify import verify_dataset

SELECT = {"dataset": cell.SECOND, "verb": "select"}
KILLS = 100 if NIGHTLY else 4
"""Of each verb."""
STEP = 1 if NIGHTLY else 37
"""A prime, so that it does not keep step with the calls of one commit."""


@pytest.fixture(scope="module")
def selected(built):
    """A cell whose second version was selected anew, the calls that took, and the cell before."""
    whole, events = built({"dataset": cell.FIRST}, SELECT)
    return whole, events, built({"dataset": cell.FIRST})[0]


def test_selecting_makes_the_bytes_that_building_makes(selected, built):
    rebuilt, _ = built({"dataset": cell.FIRST}, {"dataset": cell.SECOND})
    whole = selected[0]
    mine, right = (cell.tree(cell.cell_of(one).versions.current_path()) for one in (whole, rebuilt))
    assert mine == right


def test_a_killed_select_leaves_the_version_in_force_and_is_resumed(selected, share_out, tmp_path):
    whole, events, start = selected
    killed = []

    def job(forge, seed):
        folder = cell.copy_cell(start, tmp_path / str(seed))
        rng = random.Random(seed)
        while forge.run(folder, **SELECT, at=rng.randint(1, events))["signal"] == 9:
            killed.append(seed)
            assert verify_dataset(cell.cell_of(folder).root, data=True).problems == ()
        forge.done(folder, **SELECT)
        cell.assert_finished(folder, whole, 1)

    share_out(job, range(KILLS))
    assert len(killed) >= KILLS / 2


@pytest.mark.timeout(3600 if NIGHTLY else 120)
@pytest.mark.parametrize(("code", "first"), [("ENOSPC", 3), ("EIO", 11)])
def test_a_select_that_cannot_write_leaves_the_version_in_force(code, first, selected, share_out, tmp_path):
    whole, events, start = selected
    old = cell.tree(cell.cell_of(start).versions.path(1))
    failed = []

    def job(forge, at):
        folder = cell.copy_cell(start, tmp_path / str(at))
        told = forge.run(folder, **SELECT, at=at, action=code)
        assert told["signal"] == 0
        if told["error"]:
            failed.append(at)
            versions = cell.cell_of(folder).versions
            assert versions.current() == 2 or cell.tree(versions.current_path()) == old, told
        assert verify_dataset(cell.cell_of(folder).root, data=True).problems == ()
        forge.done(folder, **SELECT)
        cell.assert_finished(folder, whole, 1)

    share_out(job, range(1 if NIGHTLY else first, events + 1, STEP))
    assert failed


def assert_whole_or_absent(folder, made):
    out = converted(folder)
    assert not out.exists() or cell.tree(out) == made, "a part of it stands at its place"
    return out.exists()


def test_a_killed_conversion_is_whole_or_absent_and_the_next_one_makes_it(
    conversion, pairs, share_out, tmp_path
):
    verb, made, events = conversion
    killed = []

    def job(forge, seed):
        folder = cell.copy_cell(pairs, tmp_path / str(seed))
        at = random.Random(seed).randint(1, events)
        killed.append(forge.run(folder, verb=verb, at=at)["signal"] == 9)
        if not assert_whole_or_absent(folder, made):
            forge.done(folder, verb=verb)
        assert cell.tree(converted(folder)) == made
        assert [path.name for path in converted(folder).parent.glob(".*partial")] == []
        assert verify_dataset(cell.cell_of(folder).root, data=True).problems == ()

    share_out(job, range(KILLS))
    assert all(killed)


@pytest.mark.timeout(3600 if NIGHTLY else 120)
@pytest.mark.parametrize("code", ["ENOSPC", "EIO"])
def test_a_conversion_that_cannot_write_leaves_nothing_and_says_so(
    code, conversion, pairs, share_out, tmp_path
):
    verb, made, events = conversion
    said = []

    def job(forge, at):
        folder = cell.copy_cell(pairs, tmp_path / str(at))
        told = forge.run(folder, verb=verb, at=at, action=code)
        assert told["signal"] == 0
        stands = assert_whole_or_absent(folder, made)
        if told["error"]:
            said.append(told["error"])
        else:
            assert stands
        if not stands:
            forge.done(folder, verb=verb)
        assert cell.tree(converted(folder)) == made

    share_out(job, range(1 if NIGHTLY else 2, events + 1, 1 if NIGHTLY else max(7, events // 4)))
    assert said
    if code == "ENOSPC":
        assert set(said) == {"DiskFullError"}
