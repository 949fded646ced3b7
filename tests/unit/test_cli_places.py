"""What a path means, and where cells stand."""

import os

import pytest

from chipmill.cli.places import Product, find_product, shown
from chipmill.cli.standing import StageStanding, read_standing
from chipmill.core.errors import VersionNotFoundError
from chipmill.core.holder import lock_holder
from chipmill.core.store import lock, write_json
from chipmill.core.units import UnitResult, freeze_batches, work_batch


def version(folder, marker):
    folder.mkdir(parents=True)
    (folder / marker).write_text("{}")
    return folder


def test_a_version_its_marker_and_its_folder_mean_the_same(tmp_path):
    first = version(tmp_path / "models" / "crops" / "1", "model.json")
    second = version(tmp_path / "models" / "crops" / "2", "model.json")
    (tmp_path / "models" / "crops" / "CURRENT").write_text("2\n")
    assert find_product(first) == Product("model", first)
    assert find_product(first / "model.json") == Product("model", first)
    assert find_product(tmp_path / "models" / "crops") == Product("model", second)


def test_a_cell_keeps_its_versions_one_level_down(tmp_path):
    cell = tmp_path / "2019-01-01--2020-01-01"
    path = version(cell / "versions" / "3", "dataset.json")
    (cell / "CURRENT").write_text("3\n")
    assert find_product(cell) == Product("dataset", path)
    assert find_product(version(tmp_path / "maps" / "1", "map.json")).kind == "map"


def test_anything_else_is_no_product(tmp_path):
    (tmp_path / "CURRENT").write_text("4\n")
    for path in (tmp_path, tmp_path / "absent", tmp_path / "absent.yaml"):
        with pytest.raises(VersionNotFoundError, match="no version of a dataset, model or map"):
            find_product(path)


def test_paths_below_the_working_directory_are_short(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert shown(tmp_path / "a" / "b") == "a/b"
    assert shown(tmp_path.parent / "x") == str(tmp_path.parent / "x")


def test_an_open_attempt_is_counted_unit_by_unit(tmp_path):
    cell = tmp_path / "regions" / "savinja" / "2019-01-01--2020-01-01"
    attempt = cell / "versions" / ".2"
    version(cell / "versions" / "1", "dataset.json")
    (cell / "CURRENT").write_text("1\n")
    batches = freeze_batches(attempt, "rank_items", ["a", "b", "c", "d"], 10.0)
    write_json(attempt / "units" / "plan.json", {"windows": 3})

    def work(unit):
        if unit == "c":
            raise OSError("broken")
        return UnitResult()

    for batch in batches[:3]:
        work_batch(attempt, "r1", batch, work, lambda unit: unit)
    (found,) = read_standing(tmp_path)
    assert (found.region, found.cell, found.version, found.attempt) == ("savinja", cell.name, 1, 2)
    done = 2 if len(batches) == 4 else 3
    assert found.stages == (StageStanding("rank_items", 4, done, 1),)
    assert found.holder is None
    assert read_standing(tmp_path, "drava") == ()
    assert len(read_standing(tmp_path, "savinja")) == 1


def test_the_holder_of_a_lock_is_named_only_while_it_holds_it(tmp_path):
    path = tmp_path / ".lock"
    assert lock_holder(path) is None
    with lock(path, "of chipmill run a.yaml"):
        assert f"pid {os.getpid()}" in lock_holder(path)
    path.write_text("run old, killed: its name stays behind")
    assert lock_holder(path) is None


def test_a_lock_that_is_removed_during_a_look_is_free(tmp_path, monkeypatch):
    path = tmp_path / ".lock"
    with lock(path, "r1"):
        monkeypatch.setattr("chipmill.core.holder._lives", lambda _: path.unlink() is None)
        assert lock_holder(path) is None
    monkeypatch.setattr("pathlib.Path.is_file", lambda _: True)  # it was there a moment ago
    assert lock_holder(path) is None


def test_a_look_at_the_lock_of_a_dead_process_does_not_touch_it(tmp_path, monkeypatch):
    path = tmp_path / ".lock"
    with lock(path, "r1"):
        pass
    monkeypatch.setattr("chipmill.core.holder._lives", lambda _: False)
    monkeypatch.setattr("fcntl.flock", lambda *_: pytest.fail("the lock was asked"))
    assert lock_holder(path) is None
