"""The same bytes wherever, whenever and in whatever order a dataset is made."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.faults.store import cell

ZONES = ("UTC", "Asia/Kathmandu", "America/St_Johns")
RUNS = range(20 if os.environ.get("CHIPMILL_PROFILE") == "nightly" else 5)


@pytest.mark.timeout(240)
def test_hash_seeds_zones_clocks_and_orders(inputs, tmp_path, request):
    """Five seeds of the hashes of strings, three time zones, another year and another order of all units each time."""

    def build(run):
        folder = cell.new_cell(inputs, tmp_path / str(run))
        year = str(1999 + 13 * run)
        words = [sys.executable, "-m", "tests.faults.store.elsewhere", str(folder), str(run), year]
        env = os.environ | {"PYTHONHASHSEED": str(run), "TZ": ZONES[run % len(ZONES)]}
        done = subprocess.run(
            words,
            cwd=request.config.rootpath,
            env=env,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, (run, done.stderr)
        return cell.tree(folder / "out")

    with ThreadPoolExecutor(2) as pool:
        first, *others = pool.map(build, RUNS)
    assert len(first) > 20
    for tree in others:
        assert tree == first
