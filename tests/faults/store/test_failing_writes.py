"""The N-th call that changes the output fails, for each N: what was in force stays readable, and a clean run mends all."""

import re

import pytest
from tests.faults.store import cell
from tests.faults.store.conftest import NIGHTLY

from chipmill.dataset.verify import verify_dataset

STEP = 1 if NIGHTLY else 41
"""A prime, so that it does not keep step with the calls of one commit."""
FULL = re.compile(r"no space is left to write \S+ \(|cannot be written \(No space left on device\)")


@pytest.mark.timeout(3600 if NIGHTLY else 120)
@pytest.mark.parametrize(("code", "first"), [("ENOSPC", 1), ("EIO", 12)])
def test_the_version_in_force_stays_readable_whichever_call_fails(code, first, built, share_out, tmp_path):
    whole, events = built({"dataset": cell.FIRST}, {"dataset": cell.SECOND})
    start, _ = built({"dataset": cell.FIRST})
    old = cell.tree(cell.cell_of(start).versions.path(1))
    new = cell.tree(cell.cell_of(whole).versions.path(2))
    outcomes = {}

    def job(forge, at):
        folder = cell.copy_cell(start, tmp_path / str(at))
        told = forge.run(folder, cell.SECOND, at=at, action=code)
        assert told["signal"] == 0
        outcomes[at] = told
        versions = cell.cell_of(folder).versions
        assert cell.tree(versions.current_path()) == (old if versions.current() == 1 else new), told
        assert verify_dataset(cell.cell_of(folder).root, data=True).problems == ()
        forge.done(folder, cell.SECOND)
        cell.assert_finished(folder, whole, 1)

    share_out(job, range(1 if NIGHTLY else first, events + 1, STEP))
    failed = [told for told in outcomes.values() if told["error"]]
    # pathlib takes the failure to make a folder that is there for success, so that one failing call ends no run
    harmless = [told for told in outcomes.values() if told["hit"] == "os.mkdir"] if code == "EIO" else []
    assert len(failed) >= 0.9 * (len(outcomes) - len(harmless))
    assert [
        told for told in outcomes.values() if told["hit"] and not told["error"] and told not in harmless
    ] == []
    if code == "ENOSPC":
        assert [told for told in failed if not FULL.search(told["message"])] == []
