"""Links planted inside an output: nothing outside is written, truncated, taken over or deleted."""

import os

import pyarrow as pa
import pytest

from chipmill.core.errors import StoreError
from chipmill.core.links import output_of, refuse_links
from chipmill.core.store import (
    atomic_path,
    is_good,
    link_file,
    lock,
    remove_temporaries,
    seal_file,
    write_json,
    write_text,
)
from chipmill.core.units import Batch, UnitResult, clear_failures, work_batch
from chipmill.core.versions import Versions, open_attempt, prune, publish


@pytest.fixture
def outside(tmp_path):
    """A folder that belongs to somebody else, and what it holds."""
    folder = tmp_path / "outside"
    (folder / "units").mkdir(parents=True)
    (folder / "precious.txt").write_text("precious")
    (folder / "units" / "attempt.json").write_text('{"fingerprint": "f"}')
    before = _content(folder)
    yield folder
    assert _content(folder) == before


def _content(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def cell(tmp_path):
    folder = tmp_path / "out" / "regions" / "r" / "2019-01-01--2020-01-01"
    folder.mkdir(parents=True)
    return folder


def test_a_folder_that_is_a_link_is_not_written_into(cell, outside):
    (cell / "versions").symlink_to(outside)
    with pytest.raises(StoreError, match=r"versions is a link.*remove it"):
        write_text(cell / "versions" / "1" / "x.txt", "mine")
    with pytest.raises(StoreError, match="is a link"), atomic_path(cell / "versions" / "y"):
        raise AssertionError("the block must not begin")


def test_a_file_that_is_a_link_is_replaced_and_its_target_left(cell, outside):
    (cell / "x.txt").symlink_to(outside / "precious.txt")
    write_text(cell / "x.txt", "mine")
    assert (cell / "x.txt").read_text() == "mine"
    assert not (cell / "x.txt").is_symlink()


def test_the_output_itself_may_be_a_link(tmp_path):
    real = tmp_path / "big disk"
    real.mkdir()
    (tmp_path / "out").symlink_to(real)
    write_text(tmp_path / "out" / "regions" / "r" / "x.txt", "mine")
    assert (real / "regions" / "r" / "x.txt").read_text() == "mine"


def test_a_room_that_is_a_link_is_refused(tmp_path, outside):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "models").symlink_to(outside)
    with pytest.raises(StoreError, match="models is a link"):
        write_text(tmp_path / "out" / "models" / "m" / "1" / "x.txt", "mine")


def test_a_lock_that_is_a_link_does_not_truncate_its_target(cell, outside):
    (cell / ".lock").symlink_to(outside / "precious.txt")
    with pytest.raises(StoreError, match="lock is a link"), lock(cell / ".lock", "run"):
        raise AssertionError("the lock must not be held")


def test_a_start_mark_that_is_a_link_is_not_written_through(cell, outside):
    marks = cell / "started" / "run"
    marks.mkdir(parents=True)
    (marks / "stage.u").symlink_to(outside / "precious.txt")
    batch = Batch("stage", 0, ("u",))
    result = work_batch(cell, "run", batch, lambda unit: UnitResult(pa.table({})), lambda unit: "f")
    assert [one.unit for one in result.failed] == ["u"]


def test_a_link_is_no_good_file_and_is_not_taken_over(cell, outside):
    write_text(cell / "a.txt", "precious")
    seal_file(cell / "a.txt", "f")
    assert is_good(cell / "a.txt", "f")
    (cell / "a.txt").unlink()
    (cell / "a.txt").symlink_to(outside / "precious.txt")
    assert not is_good(cell / "a.txt", "f")
    link_file(cell / "a.txt", cell / "b.txt")
    assert (outside / "precious.txt").stat().st_nlink == 1, "the file outside has no second name"


def test_temporaries_behind_a_link_are_left(cell, outside):
    with atomic_path(cell / "x") as temp:
        name = temp.name.replace(f"-{os.getpid()}-", "-999999999-")
        temp.write_text("x")
    (outside / name).write_text("theirs")
    (cell / "versions").symlink_to(outside)
    assert remove_temporaries(cell) == 0
    with pytest.raises(StoreError, match="is a link"):
        remove_temporaries(cell / "versions")
    assert (outside / name).exists()
    (outside / name).unlink()


def test_an_attempt_that_is_a_link_is_neither_worked_in_nor_removed(cell, outside):
    versions = Versions(cell / "versions", cell / "CURRENT")
    versions.folder.mkdir()
    (versions.folder / ".1").symlink_to(outside)
    for fingerprint in ("f", "another"):
        with pytest.raises(StoreError, match=r"\.1 is a link"):
            open_attempt(versions, fingerprint)
    with pytest.raises(StoreError, match=r"\.1 is a link"):
        prune(versions.folder / ".1", [])
    with pytest.raises(StoreError, match=r"\.1 is a link"):
        publish(versions, versions.folder / ".1")


@pytest.mark.parametrize("name", ["units", "started", "staging"])
def test_a_working_folder_that_is_a_link_is_not_removed(cell, outside, name):
    versions = Versions(cell / "versions", cell / "CURRENT")
    attempt = open_attempt(versions, "f")
    if name == "units":
        (attempt / "units" / "attempt.json").unlink()
        (attempt / "units").rmdir()
    (attempt / name).symlink_to(outside)
    with pytest.raises(StoreError, match=f"{name} is a link"):
        publish(versions, attempt)
    assert versions.current() is None


def test_failures_behind_a_link_are_left(cell, outside):
    (outside / "stage").mkdir()
    write_json(outside / "stage" / "u.failed.json", {})
    (cell / "units").symlink_to(outside)
    with pytest.raises(StoreError, match="units is a link"):
        clear_failures(cell)
    assert (outside / "stage" / "u.failed.json").exists()
    (outside / "stage" / "u.failed.json").unlink()


def test_prune_removes_a_link_and_not_its_target(cell, outside):
    versions = Versions(cell / "versions", cell / "CURRENT")
    attempt = open_attempt(versions, "f")
    (attempt / "alien").symlink_to(outside / "precious.txt")
    (attempt / "folder").symlink_to(outside)
    prune(attempt, [])
    assert not (attempt / "alien").is_symlink()
    assert (outside / "precious.txt").exists()


def test_the_output_of_a_path_is_told_by_its_last_room(tmp_path):
    assert output_of(tmp_path / "regions" / "out" / "maps" / "m@1") == tmp_path / "regions" / "out"
    assert output_of(tmp_path / "elsewhere") is None
    refuse_links(tmp_path / "elsewhere")
