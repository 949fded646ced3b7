"""What a Dask worker of ours does when it starts (Dask loads this module by the name in its configuration)."""

import logging
import os
import signal
import threading
from typing import Any

from chipmill.core.units import MEMORY_ENV
from chipmill.orchestration.secrecy import keep_secrets


def dask_setup(worker: Any) -> None:
    """Keep secrets out of the worker's log and states, and leave Ctrl-C to the flow's process, which ends the workers in order.

    The worker's limit of memory is kept for the sentence on a unit that went over it.
    """
    keep_secrets()
    logging.getLogger("distributed.worker").addFilter(_is_news)
    limit = worker.memory_manager.memory_limit
    if limit:
        os.environ[MEMORY_ENV] = str(limit)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _is_news(record: logging.LogRecord) -> bool:
    """Drop the traceback of a heartbeat that met the end of the run: the scheduler's stream, which breaks with it, tells."""
    return not record.getMessage().startswith("Failed to communicate with scheduler during heartbeat")
