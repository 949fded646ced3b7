"""What holds for every tier: how much hypothesis tries, and that nothing is left running when a tier ends."""

import os
import time
from pathlib import Path

import psutil
import pytest
from hypothesis import settings
from tests.up_world import up  # noqa: F401 - one service for all tests of a session

from chipmill.imagery.gate import close_gate

settings.register_profile("ci", max_examples=50, derandomize=True, deadline=None, database=None)
settings.register_profile("nightly", max_examples=2000, deadline=None, print_blob=True)
settings.load_profile(os.environ.get("CHIPMILL_PROFILE", "ci"))


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left():
    """Each tier ends without a child process or an open port of its own."""
    yield
    close_gate()
    deadline = time.monotonic() + 10
    while (left := _left()) and time.monotonic() < deadline:
        psutil.wait_procs(psutil.Process().children(recursive=True), timeout=0.2)
    assert not left, f"the tests left behind: {left}"


@pytest.fixture(scope="session", autouse=True)
def own_state(tmp_path_factory):
    """No test writes into the state directory of who runs it; a test with processes of its own takes another one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CHIPMILL_STATE_DIR", str(tmp_path_factory.mktemp("state")))
        yield


def _left() -> list[str]:
    me = psutil.Process()
    processes = [" ".join(child.cmdline()) for child in me.children(recursive=True) if child.is_running()]
    # Python's own helper of multiprocessing lives, by design, as long as the interpreter does.
    processes = [line for line in processes if line and "multiprocessing.resource_tracker" not in line]
    ports = [str(c.laddr.port) for c in me.net_connections(kind="inet") if c.status == psutil.CONN_LISTEN]
    return processes + ports


@pytest.fixture(scope="session")
def small_world(tmp_path_factory):
    """The embedded world, small, made once a session; read it, never write into it."""
    from chipmill.demo.world import make_world

    return make_world(tmp_path_factory.mktemp("demo") / "world", size="small")


@pytest.fixture(scope="session")
def stac_api(small_world):
    """A running STAC API over the small world; `.url` is its landing page."""
    from chipmill.demo.api import serve

    with serve([small_world.catalog]) as server:
        yield server


@pytest.fixture(scope="session")
def shared_data():
    """The folder of real data beside the tree; tests that ask for it are skipped where it is absent."""
    folder = Path(__file__).resolve().parents[1].parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}")
    return folder
