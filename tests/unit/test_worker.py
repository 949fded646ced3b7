"""What a Dask worker of ours does at its start."""

import logging
import threading
from types import SimpleNamespace

import pytest

from chipmill.core.units import MEMORY_ENV
from chipmill.orchestration.worker import dask_setup

LOG = "distributed.worker"


@pytest.fixture
def started(monkeypatch):
    """A worker that has started, beside the main thread, whose signals are the tests'."""
    monkeypatch.delenv(MEMORY_ENV, raising=False)
    before = list(logging.getLogger(LOG).filters)
    worker = SimpleNamespace(memory_manager=SimpleNamespace(memory_limit=0))
    thread = threading.Thread(target=dask_setup, args=(worker,))
    thread.start()
    thread.join()
    yield
    logging.getLogger(LOG).filters[:] = before


def test_a_heartbeat_that_meets_the_end_of_a_run_is_no_news(started, caplog):
    log = logging.getLogger(LOG)
    log.error("Failed to communicate with scheduler during heartbeat.")
    log.error("Worker is at 95% memory usage.")
    assert [record.getMessage() for record in caplog.records] == ["Worker is at 95% memory usage."]
