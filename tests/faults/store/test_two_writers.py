"""Two runs on one cell at the same moment: one works, the other is told who does."""

import pytest
from tests.faults.store import cell
from tests.faults.store.conftest import NIGHTLY

STARTS = 200 if NIGHTLY else 20


@pytest.mark.timeout(3600 if NIGHTLY else 120)
def test_of_two_runs_that_start_together_exactly_one_commits(built, inputs, share_out, tmp_path):
    whole, _ = built({"dataset": cell.SECOND})

    def job(forge, number):
        folder = cell.new_cell(inputs, tmp_path / str(number))
        spec = {"folder": str(folder), "dataset": cell.SECOND}
        told = forge.together([spec, spec])
        assert sorted(str(one["error"]) for one in told) == ["LockedError", "None"], told
        (refused,) = (one["message"] for one in told if one["error"])
        assert f"{cell.cell_of(folder).root} is locked by run benchmark on " in refused
        assert cell.cell_of(folder).versions.numbers() == [1]
        cell.assert_finished(folder, whole)

    share_out(job, range(STARTS))
