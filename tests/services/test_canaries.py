"""Secrets are found nowhere in what real runs write, record and print; and while they run, only the loopback listens."""

import base64
import json
import os
import sqlite3
import subprocess
import sys
import time
from contextlib import closing

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests import canary_world as cw
from typer.testing import CliRunner

from chipmill import cli

RUN = "import sys; from chipmill.cli import app; sys.argv[0] = 'chipmill'; app()"
DEADLINE_S = 180.0
pytestmark = pytest.mark.timeout(300)  # the first that asks for them waits for a service and for two runs


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """The two archives, and the folder that is worked in."""
    folder = tmp_path_factory.mktemp("canaries")
    with cw.archives(folder / "far") as servers:
        (folder / "far" / "label.tif").rename(folder / "label.tif")
        yield folder, servers


@pytest.fixture(scope="module")
def ran(asked):
    """`chipmill build` as a process: what it printed, and what it and its children listened on and were called with."""
    folder, (first, second) = asked
    region = cw.write_region(folder / "toy.yaml", cw.region_values(first.url, second.url))
    names = ("PATH", "HOME", "LANG", "TMPDIR")
    environment = {name: os.environ[name] for name in names if name in os.environ} | cw.SECRETS
    environment |= {
        "CHIPMILL_STATE_DIR": str(folder / "state"),
        "CHIPMILL_WORKERS": "1",
        "CHIPMILL_RETRY_WAIT_S": "0.1",
        "PREFECT_LOGGING_LEVEL": "DEBUG",
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "DEBUG",
    }
    with (folder / "stdout").open("wb") as out, (folder / "stderr").open("wb") as err:
        process = subprocess.Popen(
            [sys.executable, "-c", RUN, "build", str(region), "--json"],
            cwd=folder, env=environment, stdout=out, stderr=err,
        )  # fmt: skip
        listeners, commands = _watch(process)
    return folder, process.returncode, listeners, commands


def _watch(process):
    """Return (kind of process, address) of every listener of a process and its children until it ends, and all commands."""
    listeners, commands, end = set(), set(), time.monotonic() + DEADLINE_S
    while process.poll() is None and time.monotonic() < end:
        try:
            family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        except psutil.NoSuchProcess:
            break
        for one in family:
            try:
                line = " ".join(one.cmdline())
                commands.add(line)
                listeners |= {
                    (line, place.laddr.ip)
                    for place in one.net_connections("inet")
                    if place.status == "LISTEN"
                }
            except psutil.Error:
                continue  # it ended meanwhile
        try:
            process.wait(0.25)
        except subprocess.TimeoutExpired:
            continue
    assert process.wait(max(end - time.monotonic(), 1.0)) is not None
    return listeners, commands


def test_the_run_did_what_it_is_to_be_judged_by(ran, asked):
    folder, code, *_ = ran
    assert code == 3, (folder / "stderr").read_text()[-2000:]
    (run,) = json.loads((folder / "stdout").read_text())["runs"]
    (lost,) = run["failures"]
    assert lost["stage"] == "composite_tiles"
    assert "404" in lost["reason"]
    made = {path.suffix for path in cw.files_below(folder / "out")}
    assert made >= {".parquet", ".tif", ".json", ".html", ".tfrecord", ".vrt", ".yaml"}
    for server in asked[1]:
        assert any(line.startswith("GET /west") for line in server.requests), "its pixels were asked for"


def test_the_canaries_are_found_nowhere(ran):
    folder, _, _, commands = ran
    paths = [
        *cw.files_below(folder / "out", folder / "state"),
        *(folder / name for name in ("stdout", "stderr")),
    ]
    assert {"prefect.db", "server.log", "items.parquet", "dataset.json"} <= {path.name for path in paths}
    assert cw.found(paths, {"commands": "\n".join(commands)}) == []


def test_the_database_tells_of_the_failure(ran):
    """Else the search above would look at nothing: the URL stands there, without what is secret in it."""
    folder, *_ = ran
    with closing(sqlite3.connect(folder / "state" / "server-0" / "prefect.db")) as database:
        text = "\n".join(database.iterdump())
    assert "red.tif cannot be read (HTTP response code: 404)" in text
    assert "composite_tiles" in text


def test_only_the_loopback_listened_while_it_ran(ran):
    """Flow process, scheduler and its dashboard, workers and their dashboards, nannies, gates, workflow server."""
    _, _, listeners, _ = ran
    assert {address for _, address in listeners} == {"127.0.0.1"}
    for kind in ("server_child", "multiprocessing", "build"):
        assert any(kind in line for line, _ in listeners), listeners


def test_what_looks_at_the_run_afterwards_says_none(ran):
    folder, *_ = ran
    said = {}
    for words in (("status",), ("status", "--json"), ("verify",), ("report", "--out", folder / "again.html")):
        done = CliRunner().invoke(
            cli.app, [str(word) for word in (words[0], folder / "toy.yaml", *words[1:])]
        )
        said[str(words)] = done.output
        assert done.exit_code in (0, 1), done.output
    assert cw.found([folder / "again.html"], said) == []


def test_names_of_the_archive_are_text_wherever_they_come_out(ran):
    folder, *_ = ran
    pages = [path.read_text() for path in cw.files_below(folder / "out") if path.suffix == ".html"]
    assert len(pages) >= 2
    assert any("&lt;img src=x onerror=alert(1)&gt;" in page for page in pages)
    for page in pages:
        assert "<img src=x" not in page
        assert "</script>" not in page
        assert "\x1b" not in page
    said = {name: (folder / name).read_text() for name in ("stdout", "stderr", "state/server-0/server.log")}
    said["status"] = CliRunner().invoke(cli.app, ["status", str(folder / "toy.yaml")]).output
    for name, text in said.items():
        assert "\x1b" not in text, name
        assert "\x07" not in text, name
    with closing(sqlite3.connect(folder / "state" / "server-0" / "prefect.db")) as database:
        shown = [
            *database.execute("select data, description from artifact"),
            *database.execute("select message from log"),
        ]
    assert len(shown) > 10
    assert not [row for row in shown if "\x1b" in str(row) or "<img" in str(row) or "\x1b" in repr(row)]


@pytest.mark.parametrize("command", ["plan", "build"])
def test_a_refused_secret_is_not_repeated(asked, command, monkeypatch, tmp_path):
    """The archive's 401 repeats what it was sent, in its headers and in its URL."""
    _, (first, second) = asked
    for name in cw.SECRETS:
        monkeypatch.setenv(name, cw.WRONG)
    values = cw.region_values(first.url, second.url)
    for number, order in enumerate((values["imagery"], values["imagery"][::-1])):
        file = cw.write_region(tmp_path / f"r{number}.yaml", values | {"imagery": order, "labels": None})
        done = CliRunner().invoke(cli.app, [command, str(file)])
        assert done.exit_code != 0
        assert "401" in done.output
        assert cw.found([], {"said": done.output}) == []


@pytest.mark.parametrize("stem", cw.STEMS)
def test_the_search_finds_a_canary_in_every_hiding_place(tmp_path, stem):
    """Else nothing above could fail."""
    long = "x" * 9000 + stem + "y" * 9000
    (tmp_path / "plain.log").write_text(long)
    for at in range(3):
        (tmp_path / f"{at}.html").write_bytes(base64.b64encode(b"z" * at + stem.encode() + b"/more"))
    pq.write_table(pa.table({"a": [{"b": long}]}), tmp_path / "t.parquet", compression="zstd")
    for mode in ("delete", "wal"):
        with closing(sqlite3.connect(tmp_path / f"{mode}.db")) as database:
            database.execute(f"pragma journal_mode={mode}")
            database.execute("create table t (a text)")
            database.execute("insert into t values (?)", [long])
            database.commit()
            found = cw.found(cw.files_below(tmp_path), {"said": stem})
            assert f"{tmp_path / f'{mode}.db'}: {stem}" in found
    names = {"plain.log", "0.html", "1.html", "2.html", "t.parquet", "delete.db"}
    assert names <= {line.split(": ")[0].rpartition("/")[2] for line in found}
    assert f"said: {stem}" in found


@pytest.fixture(scope="module")
def deployed(asked, up):
    """Two runs of a deployment by the worker of `chipmill up`: one loses a tile, one is refused by its archive."""
    folder, (first, second) = asked
    root = up.root / "canaries"
    root.mkdir()
    (root / "label.tif").write_bytes((folder / "label.tif").read_bytes())
    values = cw.region_values(first.url, second.url, file="canaries/toy.yaml", output="made")
    wrong = [one | {"auth": one["auth"] | {"env": "CHIPMILL_SECRET_ENV"}} for one in values["imagery"]]
    runs = [
        up.run("build-dataset/cell", {"region": one})
        for one in (values, values | {"name": "refused", "imagery": wrong})
    ]
    return [up.wait(run, deadline_s=DEADLINE_S) for run in runs]


def test_runs_of_a_deployment_leave_none_either(deployed, up):
    lost, refused = deployed
    assert "1 units failed" in lost.state.message
    assert "401" in refused.state.message
    assert "<CHIPMILL_SECRET_ENV>" in refused.state.message
    assert (up.root / "canaries" / "made" / "regions" / "toy").is_dir()
    with up.client() as client:
        query = {"flow_runs": {"id": {"any_": [str(lost.id)]}}, "limit": 200}
        answers = {
            path: client.request("POST", path, json=query).text
            for path in ("/artifacts/filter", "/logs/filter", "/flow_runs/filter", "/task_runs/filter")
        }
    assert "failed-composite-tiles" in answers["/artifacts/filter"]
    paths = cw.files_below(up.state, up.root / "canaries")
    assert {"prefect.db", "server.log", "worker.log"} <= {path.name for path in paths}
    assert not cw.files_below(up.state / "up" / "storage"), "a result of Prefect, which is a pickle"
    assert cw.found(paths, answers) == []
