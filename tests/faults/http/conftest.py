"""The fault-injecting HTTP server as a fixture, and waits short enough for tests."""

import pytest
from tests.fault_archive import serve

from chipmill.imagery import api, patience, sources


@pytest.fixture
def archive(tmp_path):
    """A running fault server over tmp_path; see :class:`tests.fault_archive.FaultServer`."""
    with serve(tmp_path) as running:
        yield running


@pytest.fixture
def short_waits(monkeypatch):
    """Timeouts and waits of a fraction of a second, all else as in a run."""
    monkeypatch.setattr(api, "RETRY", {**api.RETRY, "total": 3, "backoff_factor": 0, "backoff_jitter": 0})
    monkeypatch.setattr(api, "TIMEOUT_S", (1.0, 0.3))
    monkeypatch.setattr(patience, "BUDGET_S", 1.5)
    changes = {"GDAL_HTTP_MAX_RETRY": "2", "GDAL_HTTP_RETRY_DELAY": "0.01", "GDAL_HTTP_TIMEOUT": "0.6"}
    for name, value in changes.items():
        monkeypatch.setitem(sources.GDAL_OPTIONS, name, value)
