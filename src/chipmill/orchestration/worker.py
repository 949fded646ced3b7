"""What a Dask worker of ours does when it starts (Dask loads this module by the name in its configuration)."""

import signal
import threading
from typing import Any

from chipmill.core.redact import install


def dask_setup(worker: Any) -> None:  # noqa: ARG001 - Dask's signature
    """Keep secrets out of the worker's log, and leave Ctrl-C to the flow's process, which ends the workers in order."""
    install()
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
