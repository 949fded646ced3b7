"""The small demo, made once for all end-to-end tests as a user makes it: by the command line, in a process of its own."""

import os
import subprocess
import sys

import pytest


@pytest.fixture(scope="session")
def call():
    """Return a function that runs the command line in a folder."""
    return _call


def _call(folder, *words):
    """Run the command line in a process of its own, as far from this one as a shell would."""
    names = ("PATH", "HOME", "LANG", "PYTHONPATH", "TMPDIR")
    environment = {name: os.environ[name] for name in names if name in os.environ}
    environment |= {
        "CHIPMILL_STATE_DIR": str(folder / "state"),
        "CHIPMILL_WORKERS": "2",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    code = "import sys; from chipmill.cli import app; sys.argv[0] = 'chipmill'; app()"
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, words)],
        capture_output=True, text=True, timeout=380, check=False, cwd=folder, env=environment,
    )  # fmt: skip


@pytest.fixture(scope="session")
def made(tmp_path_factory, call):
    """The folder that the demo was called in, and what it said."""
    folder = tmp_path_factory.mktemp("demo")
    done = call(folder, "demo", "--size", "small", "--out", "out")
    assert done.returncode == 0, done.stderr
    return folder, done
