"""The command line: light, one sentence for an error, the exit codes of its contract, JSON for machines."""

import json
import os
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from chipmill import cli
from chipmill.cli.console import terminal
from chipmill.core import errors
from chipmill.core.store import lock
from chipmill.region.load import load_region

COMMANDS = (
    "init",
    "index",
    "plan",
    "run",
    "build",
    "select",
    "train",
    "predict",
    "verify",
    "report",
    "status",
    "doctor",
    "demo",
    "backfill",
    "up",
)
CONVERT = (
    "to-esri",
    "from-esri",
    "to-folders",
    "from-folders",
    "dtype",
    "from-dl-records",
    "to-earthengine",
    "from-earthengine",
    "raster-to-earthengine",
    "raster-from-earthengine",
)


def call(*words):
    return CliRunner().invoke(cli.app, [str(word) for word in words])


def test_help_names_every_command_and_stays_light():
    code = (
        "import sys; sys.argv = ['chipmill', '--help']\n"
        "from chipmill.cli import app\n"
        "try:\n    app()\nexcept SystemExit:\n    pass\n"
        "heavy = {'rasterio', 'numpy', 'pyarrow', 'pydantic', 'prefect', 'distributed', 'tensorflow', 'jinja2', 'shapely'}\n"
        "print('LOADED', sorted(heavy & sys.modules.keys()))"
    )
    environment = {**os.environ, "COLUMNS": "200", "TERM": "dumb"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True, env=environment
    )
    assert done.stdout.splitlines()[-1] == "LOADED []"
    assert all(f" {name} " in done.stdout for name in (*COMMANDS, "convert"))


@pytest.mark.parametrize("words", [*((name,) for name in COMMANDS), *(("convert", name) for name in CONVERT)])
def test_every_command_has_a_help_and_json(words):
    done = call(*words, "--help")
    assert done.exit_code == 0
    assert "--json" in done.output


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.ItemSearchError("no answer"), 1),
        (errors.BadInputError("wrong"), 2),
        (errors.RegionFileError("aoi is missing"), 2),
        (errors.TilesFailedError("2 of 40 failed"), 3),
    ],
)
def test_an_error_of_ours_is_one_line_on_stderr_and_its_exit_code(capsys, error, code):
    with pytest.raises(typer.Exit) as ended, terminal(False):
        raise error
    assert ended.value.exit_code == code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == f"{error}\n"


def test_an_error_for_machines_is_json_on_stdout(capsys):
    with pytest.raises(typer.Exit), terminal(True):
        raise errors.BadInputError("wrong [red]field[/red]")
    shown = capsys.readouterr()
    assert json.loads(shown.out) == {"ok": False, "error": "wrong [red]field[/red]", "exit_code": 2}
    assert "wrong [red]field[/red]" in shown.err, "a text is never read as markup"


def test_a_defect_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError), terminal(False):
        _ = 1 / 0


def test_ctrl_c_ends_with_130_and_says_how_to_go_on(capsys):
    with pytest.raises(typer.Exit) as ended, terminal(False):
        raise KeyboardInterrupt
    assert ended.value.exit_code == 130
    assert "the same command goes on" in capsys.readouterr().err


def test_init_writes_a_file_that_is_valid_and_never_replaces_one(tmp_path):
    path = tmp_path / "savinja.yaml"
    assert call("init", "savinja", "--out", path).exit_code == 0
    assert load_region(path).name == "savinja"
    again = call("init", "other", "--out", path)
    assert (again.exit_code, load_region(path).name) == (2, "savinja")
    assert "exists" in again.stderr
    assert call("init", "other", "--out", path, "--force", "--json").exit_code == 0
    assert load_region(path).name == "other"
    assert call("init", "No Name", "--out", tmp_path / "x.yaml").exit_code == 2


@pytest.mark.parametrize("command", ["plan", "run", "build", "train", "predict", "status"])
def test_a_file_that_is_missing_or_wrong_is_bad_input(tmp_path, command):
    missing = call(command, tmp_path / "none.yaml")
    assert missing.exit_code == 2
    assert "none.yaml" in missing.stderr
    assert missing.stderr.count("\n") == 1
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("name: x\nepochz: 3\n")
    assert call(command, wrong).exit_code == 2


def test_a_train_or_predict_file_without_regions_is_bad_input(tmp_path):
    (tmp_path / "train.yaml").write_text("name: x\n")
    (tmp_path / "predict.yaml").write_text("model: x\n")
    for command in ("train", "predict"):
        done = call(command, tmp_path / f"{command}.yaml")
        assert done.exit_code == 2
        assert "is empty" in done.stderr


def test_verify_says_10_for_what_is_no_dataset_and_11_while_somebody_works_on_it(tmp_path):
    assert call("verify", tmp_path).exit_code == 10
    model = tmp_path / "model"
    model.mkdir()
    (model / "model.json").write_text("{}")
    assert call("verify", model).exit_code == 10
    version = tmp_path / "cell" / "versions" / "1"
    version.mkdir(parents=True)
    (version / "dataset.json").write_text("{}")
    with lock(tmp_path / "cell" / ".lock", "r1"):
        done = call("verify", version, "--json")
    assert done.exit_code == 11
    assert "run r1" in json.loads(done.stdout)["locked"]
    assert call("verify", version).exit_code == 1, "a manifest that cannot be read is a bad dataset"
    assert call("verify", version, "--data-subset", "many").exit_code == 2


def test_report_never_writes_into_a_version(tmp_path):
    (tmp_path / "dataset.json").write_text("{}")
    done = call("report", tmp_path, "--out", tmp_path / "report.html")
    assert done.exit_code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["dataset.json"]
    assert call("report", tmp_path / "nothing", "--out", tmp_path / "x.html").exit_code == 1


def test_status_of_an_output_without_runs_and_of_no_output(tmp_path):
    assert call("status", tmp_path).exit_code == 2
    (tmp_path / "regions").mkdir()
    done = call("status", tmp_path, "--json")
    assert done.exit_code == 0
    assert json.loads(done.stdout) == {"ok": True, "cells": []}


def test_doctor_speaks_json(tmp_path):
    done = call("doctor", "--output", tmp_path, "--json")
    found = json.loads(done.stdout)
    assert done.exit_code == (0 if found["ok"] else 1)
    assert {check["name"] for check in found["checks"]} >= {"python", "gdal", "disk"}
