"""bootstrap.sh with pretended Pythons and installers: which one it takes, what it leaves, how it heals. No downloads.

The pretended Python is a shell script that answers the probe, makes a `.venv` with itself in it, and writes down
what pip and uv are asked for. Only the lock is taken by the real one.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PYTHON = f"""#!/bin/sh
case "$*" in
    *"import fcntl"*) exec {sys.executable} "$@" ;;
    "-I -c"*) [ -e "$FAKE/no-ssl" ] && exit 1; echo "$0" ;;
    "-m venv "*) mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
    "-m pip config list") cat "$FAKE/pip-settings" ;;
    "-m pip install "*) echo "pip $*" >>"$FAKE/log"; cp "$FAKE/uv" .venv/bin/uv; cp "$FAKE/chipmill" .venv/bin/ ;;
    *) echo "unexpected: $*" >&2; exit 70 ;;
esac
"""
UV = """#!/bin/sh
echo "uv $*" >>"$FAKE/log"
env | grep -E '^(UV_|SSL_)' | sort >"$FAKE/uv-environment"
[ ! -e "$FAKE/killer" ] || { rm "$FAKE/killer"; kill -9 $PPID; }
"""
DOCTOR = """#!/bin/sh
echo "chipmill $*" >>"$FAKE/log"
[ ! -e "$FAKE/ill" ]
"""
SHIM = "#!/bin/sh\necho 'pyenv: command not found' >&2\nexit 127\n"
TOO_OLD = "#!/bin/sh\nexit 1\n"
LOCK = "hatchling==1.0 \\\n    --hash=sha256:aa\nuv==9.9 \\\n    --hash=sha256:bb \\\n    --hash=sha256:cc\nzict==3.0 \\\n    --hash=sha256:dd\n"
TOOLS = (
    "sh",
    "cat",
    "cksum",
    "cp",
    "dirname",
    "env",
    "grep",
    "head",
    "mkdir",
    "mv",
    "rm",
    "sed",
    "sort",
    "tr",
    "uname",
)


class Tree:
    """A clone with nothing in it but the set-up, and a PATH on which only shell tools and pretended Pythons lie."""

    def __init__(self, folder: Path) -> None:
        self.clone, self.fake = folder / "a clone", folder / "fake"
        self.bin, self.pyenv = folder / "bin", folder / "pyenv"
        for place in (self.clone, self.fake, self.bin):
            place.mkdir()
        shutil.copy(ROOT / "bootstrap.sh", self.clone)
        (self.clone / "pyproject.toml").write_text("[project]\n")
        (self.clone / "requirements.lock").write_text(LOCK)
        (self.fake / "pip-settings").write_text("")
        self.program(self.fake / "uv", UV)
        self.program(self.fake / "chipmill", DOCTOR)
        for tool in TOOLS:
            (self.bin / tool).symlink_to(str(shutil.which(tool)))

    @staticmethod
    def program(path: Path, text: str) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
        return path

    def start(self, **variables: str) -> subprocess.Popen[str]:
        environment = {"PATH": str(self.bin), "HOME": str(self.fake), "PYENV_ROOT": str(self.pyenv)}
        environment |= {"FAKE": str(self.fake), "PYTHONPATH": "elsewhere"} | variables
        return subprocess.Popen(
            [str(self.bin / "sh"), str(self.clone / "bootstrap.sh")],
            env=environment, cwd="/", text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def run(self, **variables: str) -> tuple[int, str, str]:
        process = self.start(**variables)
        out, err = process.communicate(timeout=30)
        return process.returncode, out, err

    def log(self) -> list[str]:
        """What was asked of installers and doctor since the last look."""
        path = self.fake / "log"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return lines

    @property
    def ready(self) -> Path:
        return self.clone / ".venv" / ".ready"


@pytest.fixture
def tree(tmp_path):
    return Tree(tmp_path)


@pytest.fixture
def good(tree):
    tree.program(tree.bin / "python3.13", PYTHON)
    return tree


def test_a_fresh_clone_is_set_up_and_the_second_call_starts_nothing(good):
    status, out, err = good.run()
    assert (status, err) == (0, "")
    assert "download" in out
    assert "GB" in out
    assert out.index("download") < out.index("done"), "it says beforehand what it will fetch"
    assert [line.split()[0] for line in good.log()] == ["pip", "uv", "uv", "chipmill"]
    assert good.ready.exists()
    (good.bin / "python3.13").unlink()
    assert good.run() == (0, "", "")
    assert good.log() == []


def test_what_is_installed_comes_from_the_hashed_lock(good):
    good.run()
    pip, sync, editable, doctor = good.log()
    assert "--require-hashes" in pip
    assert (good.clone / ".venv" / "uv.txt").read_text() == "".join(LOCK.splitlines(keepends=True)[2:5])
    assert "pip sync" in sync
    assert "--require-hashes requirements.lock" in sync
    assert "--no-build-isolation --no-deps --editable ." in editable
    assert doctor == "chipmill doctor"


def test_a_shim_that_fails_is_passed_over(tree):
    for name in ("python3.13", "python3.12"):
        tree.program(tree.bin / name, SHIM)
    for name in ("python3", "python"):
        tree.program(tree.bin / name, TOO_OLD)
    tree.program(tree.pyenv / "versions" / "3.11.7" / "bin" / "python3", TOO_OLD)
    true = tree.program(tree.pyenv / "versions" / "3.12.1" / "bin" / "python3", PYTHON)
    status, out, _ = tree.run()
    assert status == 0
    assert str(true) in out


@pytest.mark.parametrize("kind", ["none", "only 3.11", "no ssl"])
def test_no_usable_python_is_one_sentence_and_exit_2(tree, kind):
    if kind != "none":
        tree.program(tree.bin / "python3", TOO_OLD if kind == "only 3.11" else PYTHON)
    (tree.fake / "no-ssl").touch()
    status, out, err = tree.run()
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    assert "Python 3.12 or 3.13" in err
    assert "install one" in err
    assert not (tree.clone / ".venv").exists()


def test_the_probe_takes_3_12_and_3_13_only():
    probe = (ROOT / "bootstrap.sh").read_text().split("-I -c '")[1].split("'")[0]
    for version, taken in {(3, 11): False, (3, 12): True, (3, 13): True, (3, 14): False}.items():
        code = f"import sys; sys.version_info = {(*version, 0)}\n{probe}"
        done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=False)
        assert (done.returncode == 0, done.stdout.strip() == sys.executable) == (taken, taken)


def test_an_interrupted_set_up_starts_from_nothing(good):
    (good.fake / "killer").touch()  # the installer kills the set-up while it installs
    status, _, _ = good.run()
    assert status == -signal.SIGKILL
    assert not good.ready.exists()
    (good.clone / ".venv" / "half-installed").touch()
    status, out, _ = good.run()
    assert status == 0
    assert "unpack" in out
    assert good.ready.exists()
    assert not (good.clone / ".venv" / "half-installed").exists()


def test_a_doctor_who_objects_leaves_the_set_up_open(good):
    (good.fake / "ill").touch()
    assert good.run()[0] == 1
    assert not good.ready.exists()
    (good.fake / "ill").unlink()
    assert good.run()[0] == 0


def test_a_changed_lock_is_brought_up_to_date_in_place(good):
    good.run()
    good.log()
    kept = good.clone / ".venv" / "kept"
    kept.touch()
    (good.clone / "requirements.lock").write_text(LOCK.replace("1.0", "1.1"))
    status, out, _ = good.run()
    assert status == 0
    assert "up to date" in out
    assert len(good.log()) == 4
    assert kept.exists()
    assert good.run() == (0, "", "")


@pytest.mark.parametrize("loss", ["the clone moved", "its Python went away"])
def test_an_environment_that_cannot_work_any_more_is_made_anew(good, loss):
    good.run()
    (good.clone / ".venv" / "kept").touch()
    if loss == "the clone moved":
        good.clone = good.clone.rename(good.clone.with_name("moved"))
    else:
        (good.clone / ".venv" / "bin" / "python").unlink()
    assert good.run()[0] == 0
    assert not (good.clone / ".venv" / "kept").exists()
    assert good.ready.exists()


def test_the_index_is_taken_over_from_pip(good):
    (good.fake / "pip-settings").write_text(
        ":env:.index-url='https://from-the-environment/simple'\nglobal.cert='/etc/certs.crt'\n"
        "global.extra-index-url='https://a/simple\\nhttps://b/simple'\nglobal.find-links='wheels more'\n"
        "global.index-url='https://from-the-file/simple'\n"
    )
    good.run(UV_FIND_LINKS="own")
    assert (good.fake / "uv-environment").read_text().splitlines() == [
        "SSL_CERT_FILE=/etc/certs.crt",
        "UV_DEFAULT_INDEX=https://from-the-environment/simple",
        "UV_EXTRA_INDEX_URL=https://a/simple https://b/simple",
        "UV_FIND_LINKS=own",
        "UV_INDEX_STRATEGY=unsafe-best-match",
    ]


def test_without_settings_uv_is_left_alone(good):
    good.run()
    assert (good.fake / "uv-environment").read_text() == "UV_INDEX_STRATEGY=unsafe-best-match\n"


def test_two_at_once_take_turns_and_install_once(good):
    gate = good.fake / "gate"
    os.mkfifo(gate)  # the first one's doctor waits here, so that the second surely comes while it works
    good.program(good.fake / "chipmill", f'#!/bin/sh\necho doctor >>"$FAKE/log"\nread line <"{gate}"\n')
    first = good.start()
    deadline = time.monotonic() + 20
    while not (good.fake / "log").exists() or "doctor" not in (good.fake / "log").read_text():
        assert time.monotonic() < deadline
        assert first.poll() is None
    second = good.start()
    assert second.stdout is not None
    assert "waiting" in second.stdout.readline()
    gate.write_text("go\n")
    assert first.wait(20) == 0
    out, _ = second.communicate(timeout=20)
    assert (second.returncode, out) == (0, "")
    first.communicate()
    assert len(good.log()) == 4
