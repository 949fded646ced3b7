"""The rules of the rooms, R1-R9 of CONTRIBUTING.md: who may import what, and where each kind of code lives."""

import ast
import importlib.util
import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "chipmill"
# In data order: what stands before orchestration knows nothing of how it is run.
LIBRARY = ("core", "region", "imagery", "dataset", "learning", "mapping", "report", "exchange")
TASK_FILES = sorted(path for path in (ROOT / "tasks").glob("*.py") if path.stem != "__init__")
FLOW_FILES = sorted(path for path in (ROOT / "flows").glob("*.py") if path.stem != "__init__")
HOW_AND_ORDER = ("chipmill.tasks", "chipmill.flows")


def package_files() -> list[Path]:
    """The library's own files: without the links to tasks and flows."""
    rooms = [path for path in PACKAGE.iterdir() if path.is_dir() and not path.is_symlink()]
    return sorted([*PACKAGE.glob("*.py"), *(file for room in rooms for file in room.rglob("*.py"))])


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))


def imported(tree: ast.AST) -> Iterator[tuple[str, ast.stmt]]:
    """Every module and every name that is imported anywhere in tree, with the statement that does it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module, node
            yield from ((f"{node.module}.{alias.name}", node) for alias in node.names)


def inside_functions(tree: ast.Module) -> set[ast.AST]:
    functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    return {inner for function in functions for inner in ast.walk(function)}


def belongs_to(module: str, names: tuple[str, ...]) -> bool:
    return any(module == name or module.startswith(name + ".") for name in names)


def run_python(code: str) -> object:
    """What code prints as JSON on its last line, in an interpreter of its own."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def module_name(path: Path) -> str:
    below = path.relative_to(PACKAGE.parent).with_suffix("").as_posix().replace("/", ".")
    return below.removesuffix(".__init__")


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def test_r1_the_library_imports_without_prefect_tensorflow_distributed():
    modules = ["chipmill", *(module_name(p) for p in package_files() if room_of(p) in LIBRARY)]
    assert {"chipmill.core.errors", "chipmill.imagery.canary"} <= set(modules)
    found = run_python(f"""
import importlib, json, sys
heavy, found = {{"prefect", "tensorflow", "keras", "distributed"}}, {{}}
for name in {modules!r}:
    importlib.import_module(name)
    new = heavy & sys.modules.keys()
    if new:
        found[name], heavy = sorted(new), heavy - new
print(json.dumps(found))
""")
    assert found == {}


@pytest.mark.parametrize("path", TASK_FILES, ids=lambda path: path.name)
def test_r2_a_function_in_tasks_is_a_task_of_at_most_15_statements(path):
    assert (PACKAGE / path.stem).is_dir(), "a task file has the name of its library folder"
    tree = parse(path)
    bound = {
        argument.id
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Call) and _is_task(call.func)
        for argument in call.args
        if isinstance(argument, ast.Name)
    }
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    for function in functions:
        decorated = any(_is_task(decorator) for decorator in function.decorator_list)
        assert decorated or function.name in bound, f"{function.name} is no task"
        statements = sum(isinstance(node, ast.stmt) for node in ast.walk(function)) - 1
        assert statements - (ast.get_docstring(function) is not None) <= 15, function.name


def _is_task(node: ast.expr) -> bool:
    function = node.func if isinstance(node, ast.Call) else node
    return isinstance(function, ast.Name) and function.id == "task"


def test_r3_only_cli_and_demo_reach_for_flows_and_tasks_and_only_inside_functions():
    for path in package_files():
        tree = parse(path)
        allowed = inside_functions(tree) if room_of(path) in {"cli", "demo"} else set()
        wrong = [
            name for name, node in imported(tree) if belongs_to(name, HOW_AND_ORDER) and node not in allowed
        ]
        assert not wrong, f"{path}: {wrong}"


@pytest.mark.parametrize("path", TASK_FILES, ids=lambda path: path.name)
def test_r3_tasks_do_not_point_back(path):
    assert not [
        name for name, _ in imported(parse(path)) if belongs_to(name, ("chipmill.flows", "chipmill.cli"))
    ]


@pytest.mark.parametrize("path", FLOW_FILES, ids=lambda path: path.name)
def test_r3_a_flow_file_is_a_verb_and_a_noun_and_shadows_nothing(path):
    assert re.fullmatch(r"[a-z]+_[a-z]+", path.stem)
    assert importlib.util.find_spec(path.stem) is None, (
        "a file entrypoint would put it in that module's place"
    )
    names = [node.name for node in parse(path).body if isinstance(node, ast.FunctionDef)]
    assert path.stem in names, "the flow has the name of its file"


def test_r3_flows_and_tasks_are_not_imported_by_their_folder_names():
    for path in [*package_files(), *TASK_FILES, *FLOW_FILES]:
        assert not [name for name, _ in imported(parse(path)) if belongs_to(name, ("tasks", "flows"))], path


@pytest.mark.parametrize(
    "path", [p for p in FLOW_FILES if p.stem == "build_dataset"], ids=lambda path: path.name
)
def test_r4_build_dataset_names_no_training(path):
    training = ("chipmill.tasks.learning", "chipmill.learning", "chipmill.flows.train_model")
    assert not [name for name, _ in imported(parse(path)) if belongs_to(name, training)]


def test_r4_importing_flows_and_tasks_leaves_tensorflow_out():
    modules = [f"chipmill.{path.parent.name}.{path.stem}" for path in [*TASK_FILES, *FLOW_FILES]]
    heavy = run_python(f"""
import importlib, json, sys
for name in {modules!r}:
    importlib.import_module(name)
print(json.dumps(sorted({{"tensorflow", "keras"}} & sys.modules.keys())))
""")
    assert heavy == []


@pytest.fixture(scope="module")
def tasks() -> list[dict[str, object]]:
    """Every task object of chipmill.tasks: its name, the annotations of what it takes and gives, how it keeps results."""
    listed = run_python(f"""
import importlib, inspect, json
from prefect import Task
from prefect.cache_policies import NO_CACHE
found = []
for name in {[f"chipmill.tasks.{path.stem}" for path in TASK_FILES]!r}:
    for attribute, value in vars(importlib.import_module(name)).items():
        if isinstance(value, Task):
            signature = inspect.signature(value.fn)
            kinds = {{p.name: p.annotation for p in signature.parameters.values()}} | {{"return": signature.return_annotation}}
            bare = [key for key, kind in kinds.items() if kind is inspect.Signature.empty]
            found.append({{
                "task": f"{{name}}.{{attribute}}", "bare": bare,
                "kinds": {{key: str(kind) for key, kind in kinds.items()}},
                "uncached": value.cache_policy == NO_CACHE and value.persist_result is False,
            }})
print(json.dumps(found))
""")
    assert isinstance(listed, list)
    return listed


def test_r5_tasks_take_and_give_no_arrays_clients_or_locks(tasks):
    big = re.compile(
        r"ndarray|NDArray|DataArray|xarray|Tensor|pyarrow|\bpa\.|Client|Lock|Session|SecretStr|\bset\["
    )
    for task in tasks:
        assert not task["bare"], f"{task['task']}: no annotation for {task['bare']}"
        wrong = {name: kind for name, kind in task["kinds"].items() if big.search(kind)}
        assert not wrong, f"{task['task']}: {wrong}"


def test_r6_only_a_stage_makes_futures():
    for path in [*package_files(), *TASK_FILES, *FLOW_FILES]:
        tree = parse(path)
        knows_prefect = any(belongs_to(name, ("prefect", "chipmill.tasks")) for name, _ in imported(tree))
        if not knows_prefect or path == PACKAGE / "orchestration" / "stage.py":
            continue
        awaited = [node.value for node in ast.walk(tree) if isinstance(node, ast.Await)]
        calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call) and node not in awaited]
        futures = [f for f in calls if isinstance(f, ast.Attribute) and f.attr in {"submit", "map", "delay"}]
        assert not futures, f"{path}:{futures[0].lineno} makes a future that no stage waits for"


@pytest.mark.parametrize("path", FLOW_FILES, ids=lambda path: path.name)
def test_r6_a_flow_swallows_no_failure(path):
    handlers = [node.lineno for node in ast.walk(parse(path)) if isinstance(node, ast.ExceptHandler)]
    assert not handlers, f"lines {handlers}: a flow that catches an error ends Completed with failed work"


def test_r7_images_come_from_one_wheel_and_one_tag():
    lines = (ROOT / "docker" / "Dockerfile").read_text().splitlines()
    bases = [line.split() for line in lines if line.startswith("FROM")]
    assert {stage[-1]: stage[1] for stage in bases}.items() >= {"worker": "base", "trainer": "base"}.items()
    assert len({stage[1] for stage in bases if ":" in stage[1]}) == 1, "one Python for all images"
    assert sum("hatchling build" in line for line in lines) == 1, "one wheel"
    assert lines.count("COPY --from=wheel /wheel /tmp/wheel") == 2, "worker and trainer install that wheel"
    start = next(i for i, line in enumerate(lines) if line.endswith("AS base"))
    assert not [line for line in lines[start:] if re.match(r"COPY (src|flows|tasks)", line)]
    configs = [*(ROOT / "docker").glob("*.yaml"), *(ROOT / "deployments").glob("*.yaml")]
    tags = {tag for path in configs for tag in re.findall(r"image:\s*\S*chipmill:(\S+)", path.read_text())}
    assert len(tags) <= 1, f"scheduler, workers and flow runner take one tag, found {sorted(tags)}"


def test_r8_prefect_never_decides_what_is_skipped(tasks):
    assert not [task["task"] for task in tasks if not task["uncached"]]
    for path in [*package_files(), *TASK_FILES, *FLOW_FILES]:
        for node in ast.walk(parse(path)):
            policy = node.value if isinstance(node, ast.keyword) and node.arg == "cache_policy" else None
            assert policy is None or ast.unparse(policy).endswith("NO_CACHE"), path
            assert not (isinstance(node, ast.keyword) and node.arg == "cache_key_fn"), path
        assert not [name for name, _ in imported(parse(path)) if name.endswith("TASK_SOURCE")], path


def test_r9_the_wheel_holds_all_rooms_below_chipmill(tmp_path):
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=60)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {"chipmill", wheel.name.split("-py3")[0] + ".dist-info"}
    rooms = {
        f"chipmill/{room}/{path.name}" for room in ("flows", "tasks") for path in (ROOT / room).glob("*.py")
    }
    library = {path.relative_to(PACKAGE.parent).as_posix() for path in package_files()}
    assert rooms | library | {"chipmill/py.typed"} <= set(names)
