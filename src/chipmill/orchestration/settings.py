"""What an operator sets by environment variables: never a flow parameter, never part of a fingerprint.

CHIPMILL_STATE_DIR        where databases, logs and worker scratch lie (default: the XDG state directory)
CHIPMILL_DASK_ADDRESS     an existing Dask scheduler; without it a run starts its own local cluster
CHIPMILL_DASK_INSECURE    1 permits a scheduler on another machine without tls, on a network that is yours
CHIPMILL_WORKERS          processes of the local cluster (default: the cores of this machine)
CHIPMILL_WORKER_MEMORY    memory of one of them, as "4GiB" (default: an equal share of four fifths of the memory)
CHIPMILL_THREADS          threads that each process reads imagery with (default: the cores divided by the processes)
CHIPMILL_HOST_REQUESTS    requests under way at one host at a time, over all processes of this machine (default 16)
CHIPMILL_GPU_DEPLOYMENT   the deployment that refresh-region hands training to, as train-model/cell (default: it trains itself)
CHIPMILL_SERVER_TIMEOUT_S seconds that our own workflow server may take to start (default 180)
CHIPMILL_RETRY_WAIT_S     seconds before the first further round of failed reads; the second waits four times as long
CHIPMILL_BACKFILL_POLL_S  seconds between two looks of a backfill at the runs of its cells (default 15)
PREFECT_API_URL           an existing workflow server; without it a run starts its own
"""

import dataclasses
import os
from pathlib import Path
from typing import Final

from chipmill.core.errors import BadInputError
from chipmill.core.state import state_dir
from chipmill.imagery.hosts import requests_per_host

_LOCAL_TLS: Final = "tls://"
_LOOPBACK: Final = ("tcp://127.", "tcp://localhost:", "tcp://[::1]:", "inproc://")


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    """The environment variables of this process, checked."""

    state_dir: Path
    api_url: str | None
    dask_address: str | None
    workers: int
    worker_memory: str | None
    """As Dask reads it ("4GiB"); None = an equal share of four fifths of the machine."""
    host_requests: int
    """Under way at one host at a time; checked here so that a run is refused at once, used where reads connect."""
    server_timeout_s: float
    retry_wait_s: float
    backfill_poll_s: float
    gpu_deployment: str | None
    """``<flow>/<deployment>``; None = training runs in the process of the flow."""


def read_settings() -> Settings:
    """Read the environment; raises BadInputError that names the variable with a value that cannot be meant."""
    return Settings(
        state_dir=state_dir(),
        api_url=os.environ.get("PREFECT_API_URL") or None,
        dask_address=_dask_address(),
        workers=int(_number("CHIPMILL_WORKERS", float(_cores()), least=1.0)),
        worker_memory=os.environ.get("CHIPMILL_WORKER_MEMORY") or None,
        host_requests=requests_per_host(),
        server_timeout_s=_number("CHIPMILL_SERVER_TIMEOUT_S", 180.0, least=1.0),
        retry_wait_s=_number("CHIPMILL_RETRY_WAIT_S", 15.0, least=0.0),
        backfill_poll_s=_number("CHIPMILL_BACKFILL_POLL_S", 15.0, least=0.1),
        gpu_deployment=os.environ.get("CHIPMILL_GPU_DEPLOYMENT") or None,
    )


def _dask_address() -> str | None:
    address = os.environ.get("CHIPMILL_DASK_ADDRESS") or None
    # A peer of Dask runs any code and is sent the server's password: in clear only on this machine.
    if address and not address.startswith((_LOCAL_TLS, *_LOOPBACK)):
        allowed = os.environ.get("CHIPMILL_DASK_INSECURE") == "1"
        if not allowed:
            raise BadInputError(
                f"CHIPMILL_DASK_ADDRESS is {address}: another machine is reached by tls:// alone; use a tls address, "
                "or set CHIPMILL_DASK_INSECURE=1 where the network is yours"
            )
    return address


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _number(name: str, default: float, least: float) -> float:
    text = os.environ.get(name)
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not value >= least:
        raise BadInputError(f"{name} is {text!r}: expected a number from {least:g} up")
    return value
