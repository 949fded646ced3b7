"""`chipmill up`: server, pools, deployments and workers in one foreground command, and `service`, which uses it.

The command is the parent of two processes (`child`): the server, and the workers, which give each flow run a process
of its own. All of them end with it, also by kill -9; one that dies is started again. The history lies in
`<state>/up/prefect.db` and survives; what an earlier `up` left as running is set to Crashed first.
"""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from chipmill.core.errors import BadInputError, ServerError
from chipmill.core.state import make_state_dir
from chipmill.orchestration.beacon import Beacon, hold_beacon, light
from chipmill.orchestration.child import Child
from chipmill.orchestration.deployments import POOLS, deploy, find_deployments, load_deployments, make_pools
from chipmill.orchestration.records import crash_left_overs, send_out, wait_for_records
from chipmill.orchestration.server import (
    CLIENT_ENVIRONMENT,
    OwnServer,
    client_settings,
    own_server,
    standing_server,
)
from chipmill.orchestration.settings import Settings, read_settings
from chipmill.region.roots import ROOTS_ENV
from chipmill.region.roots import roots as allowed_roots

USER: Final = "chipmill"
_WORKER: Final = "chipmill.orchestration.worker_child"
_WORKER_GRACE_S: Final = 20.0
_LAG_S: Final = 5.0


@dataclasses.dataclass(frozen=True, slots=True)
class UpOptions:
    """How a service is started."""

    port: int = 0
    """0 = a free one."""
    roots: tuple[Path, ...] = ()
    """Where the paths of runs may lie; () = CHIPMILL_ROOTS, else the working directory."""
    deployments: Path | None = None
    """None = deployments/prefect.yaml of the working directory if it is there, else the one in the package."""
    at_once: int = 1
    """Runs of the pool `work` at the same time: each takes the cores and four fifths of the memory."""


@dataclasses.dataclass(frozen=True, slots=True)
class ServiceRef:
    """A server with pools, deployments and workers."""

    url: str
    """Of its API, ending in /api."""
    user: str
    """"" where PREFECT_API_URL names the server, whose login is the user's affair."""
    password: str = dataclasses.field(repr=False)
    own: bool
    """True where this process started it."""
    gone: Callable[[], str] = dataclasses.field(default=lambda: "", repr=False)
    """Names the log of a part that died so often that it is not started again, else ""."""

    @property
    def ui_url(self) -> str:
        """The screen that people open."""
        return self.url.removesuffix("/api")


@contextlib.contextmanager
def service(
    meanwhile: Callable[[], object] = lambda: None, options: UpOptions | None = None
) -> Iterator[ServiceRef]:
    """Give a server with pools, deployments and workers, with Prefect's settings pointing at it inside the block.

    It is the one that PREFECT_API_URL names (its pools, deployments and workers are its owner's affair), else a running
    `chipmill up`, else our own for the block. ``meanwhile`` is called while ours starts. Raises ServerError where the
    server does not answer, BadInputError for options that cannot be meant.
    """
    with standing_server(read_settings()) as found:
        if found is not None:
            yield ServiceRef(found.url, found.user, found.password, own=False)
            return
    with own_service(options or UpOptions(), meanwhile) as ref:
        yield ref


@contextlib.contextmanager
def own_service(options: UpOptions, meanwhile: Callable[[], object] = lambda: None) -> Iterator[ServiceRef]:
    """Start server, pools, deployments and workers, and end them with the block.

    Raises LockedError where a `chipmill up` of the same state directory lives, BadInputError for options that cannot be
    meant, ServerError where a part does not start.
    """
    settings = read_settings()
    os.environ.update(CLIENT_ENVIRONMENT)
    roots = checked_roots(options.roots)
    file = find_deployments(options.deployments)
    state = make_state_dir(settings.state_dir)
    with hold_beacon(state):
        home = make_state_dir(state / "up")
        wanted: list[dict[str, Any]] = []

        def load() -> None:
            meanwhile()
            wanted.extend(load_deployments(file))

        with (
            own_server(home, settings.server_timeout_s, load, options.port) as server,
            client_settings(server.ref.url, server.password),
        ):
            crash_left_overs()
            make_pools({**POOLS, "work": options.at_once})
            with _workers(settings, home, server, roots) as workers:
                deploy(wanted)
                light(state, Beacon(server.ref.url, USER, server.password, os.getpid()))
                yield _ref(server, workers)


def checked_roots(named: tuple[Path, ...]) -> tuple[Path, ...]:
    """Return the directories below which the paths of runs may lie; raises BadInputError for one that is none."""
    for path in named:
        if not path.is_dir() or os.pathsep in str(path):
            raise BadInputError(
                f"--root {path} is no directory (or has {os.pathsep!r} in its name): give folders"
            )
    return tuple(path.resolve() for path in named) or allowed_roots() or (Path.cwd().resolve(),)


@contextlib.contextmanager
def _workers(settings: Settings, home: Path, server: OwnServer, roots: tuple[Path, ...]) -> Iterator[Child]:
    """Keep the process of the workers, and close what its runs left open when it ends."""
    facts = {
        "PREFECT_API_URL": server.ref.url,
        "PREFECT_API_AUTH_STRING": f"{USER}:{server.password}",
        "PREFECT_WORKER_QUERY_SECONDS": "2",
        "CHIPMILL_STATE_DIR": str(settings.state_dir),
        ROOTS_ENV: os.pathsep.join(map(str, roots)),
    }
    child = Child(_WORKER, tuple(POOLS), facts, home, home / "worker.log")
    child.keep()
    try:
        yield child
    finally:
        child.end(_WORKER_GRACE_S)
        send_out()
        wait_for_records(_LAG_S)
        crash_left_overs()


def _ref(server: OwnServer, workers: Child) -> ServiceRef:
    def gone() -> str:
        dead = [child for child in (server.child, workers) if child.given_up.is_set()]
        return str(dead[0].log) if dead else ""

    return ServiceRef(server.ref.url, USER, server.password, own=True, gone=gone)


def wait_while_well(ref: ServiceRef, wait: Callable[[], bool]) -> None:
    """Call ``wait`` until it says True; raises ServerError when a part of the service is gone for good."""
    while not wait():
        if log := ref.gone():
            raise ServerError(
                f"a part of the service died again and again: see {log}, then start `chipmill up` anew"
            )
