import subprocess
import sys

import pyarrow as pa
import pytest

from chipmill.core.errors import DiskFullError, TilesFailedError, TransientReadError
from chipmill.core.store import commit_file
from chipmill.core.units import (
    MEMORY_ENV,
    UnitResult,
    clear_failures,
    failures,
    freeze_batches,
    load_batches,
    settle,
    unit_table,
    work_batch,
)


def _work(folder):
    def work(unit):
        product = folder / "products" / f"{unit}.txt"
        with commit_file(product, unit) as temp:
            temp.write_text(unit)
        return UnitResult(pa.table({"unit": [unit]}), (product,))

    return work


def test_batches_are_cut_by_time_and_frozen(tmp_path):
    units = [f"t{number}" for number in range(45)]
    batches = freeze_batches(tmp_path, "s", units, 1.0, "f")
    assert [len(batch.units) for batch in batches] == [10, 10, 10, 10, 5]
    assert freeze_batches(tmp_path, "s", units, 5.0, "f") == batches == load_batches(tmp_path, "s")
    assert len(freeze_batches(tmp_path, "s", units, 5.0, "other")) == 23


def test_two_workers_get_work_and_there_are_at_most_120_batches(tmp_path):
    assert [len(one.units) for one in freeze_batches(tmp_path, "a", ["x", "y", "z"], 0.001)] == [2, 1]
    assert len(freeze_batches(tmp_path, "b", [str(n) for n in range(1000)], 100.0)) <= 120
    assert freeze_batches(tmp_path, "c", [], 1.0) == ()


def test_finished_units_are_not_worked_on_again_until_a_product_is_lost(tmp_path):
    (batch,) = freeze_batches(tmp_path, "s", ["a"], 1.0)
    work = _work(tmp_path)
    assert work_batch(tmp_path, "r1", batch, work, str).made == ("a",)
    assert work_batch(tmp_path, "r2", batch, work, str).made == ()
    assert work_batch(tmp_path, "r2", batch, work, lambda unit: unit + "!").made == ("a",), (
        "another fingerprint"
    )
    (tmp_path / "products" / "a.txt").unlink()
    result = work_batch(tmp_path, "r3", batch, work, lambda unit: unit + "!")
    assert result.made == result.done == ("a",)


def test_a_closed_stage_is_not_worked_on(tmp_path):
    (batch,) = freeze_batches(tmp_path, "s", ["a"], 1.0)
    result = work_batch(tmp_path, "r", batch, _work(tmp_path), str, closed=True)
    assert result.done == ("a",) and result.made == () and not (tmp_path / "products").exists()


def test_a_failing_unit_is_recorded_and_the_others_go_on(tmp_path):
    (batch, _) = freeze_batches(tmp_path, "s", ["a", "b", "c", "d"], 1.0)
    good = _work(tmp_path)

    def work(unit):
        if unit == "a":
            raise TransientReadError("a at https://x.test/a.tif?sig=SECRET: throttled: try again")
        return good(unit)

    result = work_batch(tmp_path, "r", batch, work, str)
    assert result.made == ("b",)
    (failure,) = failures(tmp_path)
    assert failure == result.failed[0]
    assert failure.transient and "SECRET" not in failure.reason and "throttled" in failure.reason
    with pytest.raises(TilesFailedError, match=r"1 of 4 units failed in s; the first is a: .*redo me"):
        settle(tmp_path, ["s"], "stop", "redo me")
    assert settle(tmp_path, ["s"], "commit", "redo me") == (failure,)
    clear_failures(tmp_path)
    assert failures(tmp_path) == ()
    assert work_batch(tmp_path, "r2", batch, good, str).made == ("a",)
    assert unit_table(tmp_path, "s").column("unit").to_pylist() == ["a", "b"]


def test_success_forgets_an_earlier_failure(tmp_path):
    (batch,) = freeze_batches(tmp_path, "s", ["a"], 1.0)

    def broken(unit):
        raise ValueError("no")

    work_batch(tmp_path, "r", batch, broken, str)
    assert failures(tmp_path)[0].reason == "ValueError: no"
    work_batch(tmp_path, "r", batch, _work(tmp_path), str)
    assert failures(tmp_path) == ()


def test_a_unit_that_kills_its_worker_twice_is_poison(tmp_path, monkeypatch):
    monkeypatch.setenv(MEMORY_ENV, "1500000000")
    (batch,) = freeze_batches(tmp_path, "s", ["a"], 1.0)
    code = (
        "import os, pathlib, sys\nfrom chipmill.core.units import load_batches, work_batch\n"
        "root = pathlib.Path(sys.argv[1])\nwork_batch(root, 'r', load_batches(root, 's')[0], lambda unit: os._exit(9), str)\n"
    )
    for _ in range(2):
        assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == 9
    result = work_batch(tmp_path, "r", batch, _work(tmp_path), str)
    assert result.made == ()
    assert "its worker died twice on it (out of memory, limit 1.5 GB, or a crash)" in result.failed[0].reason
    assert work_batch(tmp_path, "another try", batch, _work(tmp_path), str).made == ("a",)
    assert list((tmp_path / "started" / "another try").iterdir()) == []


def test_a_full_disk_is_not_the_fault_of_a_unit(tmp_path):
    batch = freeze_batches(tmp_path, "s", ["a", "b", "c", "d"], 1.0)[0]
    begun = []

    def work(unit):
        begun.append(unit)
        raise DiskFullError("no space is left")

    with pytest.raises(DiskFullError):
        work_batch(tmp_path, "r", batch, work, str)
    assert begun == ["a"]
    assert failures(tmp_path) == ()
    assert list((tmp_path / "started" / "r").iterdir()) == []


def test_a_keyboard_interrupt_is_not_swallowed(tmp_path):
    (batch,) = freeze_batches(tmp_path, "s", ["a"], 1.0)

    def work(unit):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work_batch(tmp_path, "r", batch, work, str)
    assert failures(tmp_path) == ()
