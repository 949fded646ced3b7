"""House rules that no linter knows: sizes, hosts and machine paths, tiers, locks."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CODE = sorted(
    path
    for folder in ("src", "tasks", "flows")
    for path in (ROOT / folder).rglob("*.py")
    if not any(parent.is_symlink() for parent in path.parents)
)
FUNCTIONS = [
    (path, node)
    for path in CODE
    for node in ast.walk(ast.parse(path.read_text()))
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
]
LOCKS = [
    ROOT / "requirements.lock",
    *(ROOT / "docker" / f"{name}.lock" for name in ("worker", "gpu", "build")),
]


def texts() -> list[Path]:
    """Files of the project that people wrote: no caches, no set-up, no outputs."""
    places = ["src", "tasks", "flows", "tests", "docker", "deployments", "benchmarks", ".ci"]
    files = [path for place in places for path in (ROOT / place).rglob("*") if path.is_file()]
    files += [path for path in ROOT.iterdir() if path.is_file() and path.name != ".bootstrap.lock"]
    kinds = {".py", ".toml", ".lock", ".md", ".yaml", ".yml", ".html", ".json", ".sh", ""}
    return [path for path in files if path.suffix in kinds and "__pycache__" not in path.parts]


def pins_of(lock: Path) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9._-]+)==([^ ;]+)", lock.read_text(), re.MULTILINE))


def lines_of(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


@pytest.mark.parametrize("path", CODE, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_modules_are_short_and_say_what_they_are_for(path):
    text = path.read_text()
    assert text.count("\n") <= 300
    assert ast.get_docstring(ast.parse(text)), "a module docstring says what the file is for"


def test_functions_are_short():
    lengths = sorted(lines_of(node) for _, node in FUNCTIONS)
    longest = max(FUNCTIONS, key=lambda pair: lines_of(pair[1]))
    assert lengths[-1] <= 90, f"{longest[1].name} in {longest[0]}"
    assert lengths[int(0.9 * len(lengths))] <= 40


def test_the_tree_names_no_package_host_and_no_place_of_one_machine():
    # Written in pieces, or this file would name them.
    hosts = ["py" + "pi.org", "python" + "hosted", "ana" + "conda.org", "npm" + "js", "deb." + "debian"]
    places = ["/" + "root/", "/" + "work/", "/" + "home/[a-z]+/(?!state)"]
    banned = re.compile("|".join([*map(re.escape, hosts), *places]))
    found = [
        f"{path}: {hit[0]}" for path in texts() if (hit := banned.search(path.read_text(errors="replace")))
    ]
    assert not found


def test_every_test_belongs_to_a_tier_of_the_makefile():
    tiers = set(re.findall(r"tests/[a-z0-9/]+", (ROOT / "Makefile").read_text()))
    folders = {path.parent.relative_to(ROOT).as_posix() for path in (ROOT / "tests").rglob("test_*.py")}
    outside = {folder for folder in folders if not any(f"{folder}/".startswith(f"{tier}/") for tier in tiers)}
    assert not outside, "make test would never run them"


def test_every_dependency_says_why():
    project = (ROOT / "pyproject.toml").read_text().split("[tool.")[0]
    entries = [line for line in project.splitlines() if line.startswith('    "') and "::" not in line]
    assert len(entries) > 40
    assert not [line for line in entries if "  # " not in line]


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_locks_are_hashed_and_hold_what_is_asked(lock):
    text = lock.read_text()
    pins = pins_of(lock)
    assert "://" not in text
    assert text.count(" \\\n    --hash=sha256:") >= len(pins)
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())
    asked = (
        groups["dependency-groups"]["build"] if lock.stem == "build" else groups["project"]["dependencies"]
    )
    assert {re.match(r"[a-z0-9-]+", entry.lower())[0] for entry in asked} <= pins.keys()
    tensorflow = any(name.startswith("tensorflow") for name in pins)
    assert tensorflow == (lock.stem in {"requirements", "gpu"})


def test_the_locks_agree():
    pins = [pins_of(lock) for lock in LOCKS]
    assert not {
        name for pin in pins[1:] for name in pin.keys() & pins[0].keys() if pin[name] != pins[0][name]
    }
