"""What a Dask worker of ours does when it starts (Dask loads this module by the name in its configuration)."""

import signal
import threading
from typing import Any


def dask_setup(worker: Any) -> None:  # noqa: ARG001 - Dask's signature
    """Leave Ctrl-C to the flow's process, which ends the workers in order."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
