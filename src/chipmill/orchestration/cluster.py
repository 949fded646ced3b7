"""Where the Dask cluster comes from, and that there is one per run: subflows work on the cluster of the outer flow.

`stage_runner()` is the task runner of every flow. The outermost flow that submits a batch opens the cluster: the one
at CHIPMILL_DASK_ADDRESS, else a local one of single-threaded processes (a unit that dies takes nobody with it, and a
poison unit can be told from its neighbours). Flows that submit nothing start nothing. The workers watch a pipe of the
flow's process and end with it, also by kill -9.
"""

import contextlib
import logging
import threading
from types import TracebackType
from typing import Any, Final, Self

import dask
import distributed
from dask.utils import parse_bytes
from distributed.system import MEMORY_LIMIT
from prefect_dask.task_runners import DaskTaskRunner

from chipmill.core.errors import ServerError
from chipmill.core.state import make_state_dir
from chipmill.imagery.blocks import THREADS_ENV, threads
from chipmill.orchestration.records import close_records, for_the_screen
from chipmill.orchestration.settings import Settings, read_settings

WORKER_ENVIRON: Final = {
    # Heaps of the C library: it would give each thread one of its own, and keep in it what the thread has freed.
    "MALLOC_ARENA_MAX": "2",
    # Tables lie in these heaps, too: pyarrow's own pool keeps for tables alone what they have freed.
    "ARROW_DEFAULT_MEMORY_POOL": "system",
}
"""Read when a worker starts; what stands in the environment of the run goes first."""
DASK_CONFIG: Final[dict[str, Any]] = {
    # With the default of 15 s a worker that is still importing after a crash is given up for good, and the run hangs.
    "distributed.deploy.lost-worker-timeout": "10m",
    "distributed.scheduler.no-workers-timeout": "10m",
    # A lower number blames the batches that only waited on the worker that died.
    "distributed.scheduler.allowed-failures": 3,
    "distributed.worker.preload": ["chipmill.orchestration.worker"],
    # It walks the stacks of all threads a hundred times a second: a twelfth of what workers and scheduler do.
    "distributed.worker.profile.enabled": False,
    **{f"distributed.nanny.pre-spawn-environ.{name}": value for name, value in WORKER_ENVIRON.items()},
}
_SHARE: Final = 0.8
_STILL_CUT_S: Final = 3.0
"""A run that is being ended has not much time: whoever asked for it may kill it soon."""


class _SharedCluster:
    """The cluster of this process: opened by the first that asks, closed when the outermost flow ends."""

    def __init__(self) -> None:
        self._users = 0
        self._stack = contextlib.ExitStack()
        self._address: str | None = None
        self._guard = threading.Lock()

    def __enter__(self) -> Self:
        with self._guard:
            self._users += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._guard:
            self._users -= 1
            if self._users == 0:
                self._address = None
                self._stack.close()

    def address(self) -> str:
        """Return the address of the scheduler, after starting it where it does not run yet."""
        with self._guard:
            if self._address is None:
                settings = read_settings()
                self._address = settings.dask_address or self._start(settings)
            return self._address

    def _start(self, settings: Settings) -> str:
        self._stack.enter_context(dask.config.set(DASK_CONFIG))
        # Prefect's console shows the messages of all libraries; those of the cluster are for its own dashboard.
        logging.getLogger("distributed").setLevel(logging.WARNING)
        try:
            start: Any = distributed.LocalCluster  # distributed has no annotations
            cluster = self._stack.enter_context(start(**local_options(settings)))
        except (OSError, RuntimeError, TimeoutError) as error:
            self._stack.close()
            raise ServerError(
                f"the local cluster of {settings.workers} processes did not start ({error}): set CHIPMILL_WORKERS "
                "lower, or CHIPMILL_DASK_ADDRESS to a running scheduler"
            ) from error
        return str(cluster.scheduler_address)


_CLUSTER: Final = _SharedCluster()


def local_options(settings: Settings) -> dict[str, Any]:
    """Return how a local cluster is made: processes of one thread, loopback only, a bound on memory."""
    limit = settings.worker_memory or f"{int(MEMORY_LIMIT * _SHARE / settings.workers)}B"
    return {
        "n_workers": settings.workers,
        "threads_per_worker": 1,
        "env": {
            THREADS_ENV: str(threads(settings.workers))
        },  # with which a worker reads; its unit stays one task
        "processes": True,
        "host": "127.0.0.1",
        "dashboard_address": "127.0.0.1:0",  # None would open port 8787 on every interface
        "memory_limit": parse_bytes(limit),
        "local_directory": str(make_state_dir(settings.state_dir / "dask")),
    }


def run_cluster() -> Any:
    """Return what Prefect's runner takes for a new cluster: the address of the one of this run, which it must not end."""
    return contextlib.nullcontext(_CLUSTER.address())


def kept_cluster() -> contextlib.AbstractContextManager[object]:
    """Keep one cluster over all flows inside the block; without it each outermost flow has its own."""
    return _CLUSTER


class StageRunner(DaskTaskRunner):
    """Prefect's runner on Dask, on the one cluster of the run."""

    _open = 0

    def __enter__(self) -> Self:
        """Take part in the cluster of this process until the flow ends."""
        begin: Any = super().__enter__
        begin()
        StageRunner._open += 1
        self._exit_stack.push(_end_of_flow)
        self._exit_stack.enter_context(_CLUSTER)
        return self


def _end_of_flow(_kind: object, error: BaseException | None, _trace: object) -> None:
    """After the cluster is closed: once the outermost flow ends, nothing that is over may stay shown as running."""
    StageRunner._open -= 1  # noqa: SLF001 - the counter of the runners
    if StageRunner._open == 0:  # noqa: SLF001
        with for_the_screen():
            close_records() if error is None else close_records(_STILL_CUT_S)


def stage_runner() -> Any:
    """Return the task runner that flows are declared with; it starts nothing before the first batch.

    Any, because Prefect's own runner on Dask does not fit the type that its flow decorator asks for.
    """
    return StageRunner(cluster_class=run_cluster)
