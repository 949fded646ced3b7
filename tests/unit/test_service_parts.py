"""The service without Prefect: its file and lock, its options, and the file of deployments against the region files."""

import fcntl
import json
import os
import threading
import time

import pytest
import yaml
from typer.testing import CliRunner

from chipmill.cli import app
from chipmill.core.errors import BadInputError, LockedError
from chipmill.core.yaml import read_yaml
from chipmill.orchestration.beacon import Beacon, hold_beacon, is_held, light, read_beacon
from chipmill.orchestration.child import Child
from chipmill.orchestration.deployments import find_deployments
from chipmill.orchestration.up import checked_roots
from chipmill.region.config import Region
from chipmill.region.jobs import PredictConfig, TrainConfig
from chipmill.region.load import load_predict, load_region, load_train

HERE = Beacon("http://127.0.0.1:1/api", "chipmill", "word", os.getpid())
MODELS = {
    "region": (Region, load_region),
    "train": (TrainConfig, load_train),
    "predict": (PredictConfig, load_predict),
}


@pytest.fixture(scope="module")
def tree(request):
    return request.config.rootpath


def schedules(tree):
    content = yaml.safe_load((tree / "deployments" / "prefect.yaml").read_text())
    return [one for deployment in content["deployments"] for one in deployment.get("schedules", [])]


def parameters(tree):
    return [
        (schedule["slug"], name, values)
        for schedule in schedules(tree)
        for name, values in schedule["parameters"].items()
        if values is not None
    ]


def test_the_parameters_of_the_schedules_are_the_content_of_their_files(tree):
    checked = parameters(tree)
    for slug, name, values in checked:
        content = read_yaml(tree / values["file"])
        assert {**values} == {**json.loads(json.dumps(content)), "file": values["file"]}, (slug, name)
    assert len(checked) == 4 + 2 + 3


def test_the_parameters_of_the_schedules_mean_what_the_files_mean(tree):
    for slug, name, values in parameters(tree):
        model, load = MODELS[name]
        path = tree / values["file"]
        assert model.model_validate(values).model_copy(update={"file": str(path)}) == load(path), (slug, name)


def test_each_example_region_has_a_schedule_that_is_off_until_somebody_wants_it(tree):
    regions = {
        path.stem
        for path in (tree / "deployments" / "regions").glob("*.yaml")
        if not path.stem.endswith(("-train", "-predict"))
    }
    found = schedules(tree)
    assert sorted(one["slug"] for one in found) == sorted(regions)
    assert all(one["active"] is False and one["cron"] and one["timezone"] for one in found)
    assert all(one["parameters"]["region"]["name"] == one["slug"] for one in found)


def test_pools_take_no_command_and_no_environment(tree):
    template = json.loads((tree / "deployments" / "work-pool.json").read_text())
    assert "{{" not in json.dumps(template)
    assert not {"command", "env", "working_dir"} & template["job_configuration"].keys()
    assert (
        template["variables"]["properties"] == {} and template["variables"]["additionalProperties"] is False
    )


def test_the_file_of_deployments_is_the_named_one_then_that_of_this_folder_then_the_shipped_one(
    tmp_path, monkeypatch, tree
):
    monkeypatch.chdir(tmp_path)
    shipped = find_deployments(None)
    assert shipped.resolve() == tree / "deployments" / "prefect.yaml"
    (tmp_path / "deployments").mkdir()
    here = tmp_path / "deployments" / "prefect.yaml"
    here.write_text("deployments: []")
    assert find_deployments(None) == here
    assert find_deployments(shipped) == shipped
    with pytest.raises(BadInputError, match=r"--deployments nowhere\.yaml is no file"):
        find_deployments(tmp_path.relative_to(tmp_path) / "nowhere.yaml")


def test_a_beacon_is_private_and_counts_only_while_it_is_held(tmp_path):
    assert read_beacon(tmp_path) is None
    with hold_beacon(tmp_path):
        assert is_held(tmp_path) and read_beacon(tmp_path) is None  # still starting
        light(tmp_path, HERE)
        assert read_beacon(tmp_path) == HERE
        assert (tmp_path / "up.json").stat().st_mode & 0o777 == 0o600
        kept = (tmp_path / "up.json").read_text()
    assert not (tmp_path / "up.json").exists()
    (tmp_path / "up.json").write_text(kept)  # as kill -9 leaves it behind
    assert read_beacon(tmp_path) is None
    with hold_beacon(tmp_path):
        assert read_beacon(tmp_path) is None, "the address of an earlier one"


def test_a_second_holder_is_told_who_is_there(tmp_path):
    with hold_beacon(tmp_path):
        with (
            pytest.raises(LockedError, match=r"runs already .*, still starting: use that one"),
            hold_beacon(tmp_path),
        ):
            pass
        light(tmp_path, HERE)
        with (
            pytest.raises(
                LockedError, match=rf"at http://127\.0\.0\.1:1 \(pid {os.getpid()}\): use that one"
            ),
            hold_beacon(tmp_path),
        ):
            pass


def test_a_beacon_can_be_taken_while_a_command_looks_for_one(tmp_path):
    with hold_beacon(tmp_path):
        pass
    looker = os.open(tmp_path / "up.lock", os.O_RDONLY)
    fcntl.flock(looker, fcntl.LOCK_SH)
    done_looking = threading.Timer(0.1, os.close, [looker])
    done_looking.start()
    with hold_beacon(tmp_path):
        assert is_held(tmp_path)
    done_looking.join()


def test_roots_are_those_named_then_those_of_the_environment_then_this_folder(tmp_path, monkeypatch):
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.symlink_to(one)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CHIPMILL_ROOTS", raising=False)
    assert checked_roots(()) == (tmp_path.resolve(),)
    monkeypatch.setenv("CHIPMILL_ROOTS", f"{one}{os.pathsep}{tmp_path}")
    assert checked_roots(()) == (one.resolve(), tmp_path.resolve())
    assert checked_roots((two,)) == (one.resolve(),)
    monkeypatch.setenv("CHIPMILL_ROOTS", str(tmp_path / "gone"))
    with pytest.raises(BadInputError, match=r"CHIPMILL_ROOTS names .*gone"):
        checked_roots(())


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--port", "99999"], "--port 99999: expected 1 to 65535"),
        (["--at-once", "0"], "--at-once 0: expected 1 or more"),
        (["--root", "nowhere"], "--root nowhere is no directory"),
        (["--deployments", "nowhere.yaml"], "--deployments nowhere.yaml is no file"),
    ],
)
def test_a_wrong_option_is_refused_before_anything_starts(words, sentence, tmp_path, monkeypatch):
    monkeypatch.setenv("CHIPMILL_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    told = CliRunner().invoke(app, ["up", *words, "--json"])
    assert told.exit_code == 2
    assert sentence in told.output
    assert not (tmp_path / "state").exists()


PROGRAM = """
import os, sys
from pathlib import Path
first = sys.stdin.buffer.readline()
Path(sys.argv[1]).open("a").write(f"{os.getpid()} {first.decode()}")
sys.stdin.buffer.read()
"""


@pytest.fixture
def programs(tmp_path, monkeypatch):
    (tmp_path / "one_child.py").write_text(PROGRAM)
    (tmp_path / "dies.py").write_text("raise SystemExit(3)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


def lines(file, number):
    end = time.monotonic() + 30
    while time.monotonic() < end:
        if file.exists() and len(found := file.read_text().splitlines()) >= number:
            return found
        time.sleep(0.02)
    pytest.fail(f"{file} did not get {number} lines")


def test_a_child_that_is_killed_is_started_again_with_the_same_words_and_ends_with_its_pipe(programs):
    told = programs / "told"
    child = Child("one_child", (str(told),), {"word": "secret"}, programs, programs / "log")
    try:
        (first,) = lines(told, 1)
        child.keep()
        os.kill(child.pid, 9)
        again = lines(told, 2)[1]
    finally:
        child.end(10)
    assert first.split(maxsplit=1)[1] == again.split(maxsplit=1)[1] == '{"word": "secret"}'
    assert first.split()[0] != again.split()[0]
    assert child.ended_with() == 0, "the pipe did not end it"


def test_a_child_that_always_dies_at_once_is_given_up(programs):
    child = Child("dies", (), {}, programs, programs / "log")
    child.keep()
    try:
        assert child.given_up.wait(60)
    finally:
        child.end(10)
    assert child.ended_with() == 3
