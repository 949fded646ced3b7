"""What a Dask worker of ours does when it starts (Dask loads this module by the name in its configuration)."""

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
    limit = worker.memory_manager.memory_limit
    if limit:
        os.environ[MEMORY_ENV] = str(limit)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
