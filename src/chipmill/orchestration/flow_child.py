"""The process of a flow run that a worker started: `python -m chipmill.orchestration.flow_child ENTRYPOINT`.

It is Prefect's own engine, which finds the run in its environment, with one thing added: it reads its standard input,
which closes when the worker is gone, and then ends in order as if it were told to by SIGTERM.
"""

import os
import runpy
import signal
import sys
import threading
import time
from typing import Final

from chipmill.core.redact import install

_GRACE_S: Final = 8.0


def main() -> None:
    """Run the flow."""
    threading.Thread(target=_end_with_worker, daemon=True).start()
    os.environ["PREFECT__FLOW_ENTRYPOINT"] = sys.argv.pop()
    install()
    runpy.run_module("prefect.engine", run_name="__main__", alter_sys=True)


def _end_with_worker() -> None:
    while os.read(sys.stdin.fileno(), 1 << 16):
        pass
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)  # it may wait for a lock
    time.sleep(_GRACE_S)
    os._exit(1)  # the server may be gone as well, and every call to it waits; the Dask processes see our end


if __name__ == "__main__":
    main()
