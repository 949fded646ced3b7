"""The grid of a backfill, what a cell needs next, and the way over the grid: without a server and without pixels."""

import contextlib
import datetime as dt
import importlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from chipmill import cli
from chipmill.core.errors import BadInputError, ServerError
from chipmill.core.holder import killed_holder
from chipmill.core.store import lock, write_json, write_text
from chipmill.core.units import UnitResult, freeze_batches, work_batch
from chipmill.orchestration import backfill, cell_estimates, cell_runs, cell_table
from chipmill.orchestration.backfill import Backfill, CellsFailedError
from chipmill.orchestration.cell_table import Row, named_failed, table_rows
from chipmill.orchestration.choosing import CellRun, choose
from chipmill.orchestration.grid_of_cells import lay_grid
from chipmill.region.plan import cell_dir, region_dir

NOW = dt.datetime.now(dt.UTC)
YEAR = (dt.date(2019, 1, 1), dt.date(2020, 1, 1))
SPANS = ((dt.date(2019, 1, 1), dt.date(2019, 7, 1)), (dt.date(2019, 7, 1), dt.date(2020, 1, 1)))
LABELS = "labels: {layers: [{path: labels.tif}], classes: {1: tree, 2: crop}}\n"


def region_file(folder, name, more=""):
    path = folder / f"{name}.yaml"
    path.write_text(
        f"name: {name}\naoi: {{bbox: [15.0, 46.0, 15.1, 46.1]}}\ntime: {{range: [2019-01-01, 2020-01-01]}}\n"
        f"imagery: [{{name: s2, source: {{catalog: catalog.json}}, bands: {{red: red}}}}]\noutput: out\n{more}"
    )
    return str(path)


@pytest.fixture
def files(tmp_path):
    return [region_file(tmp_path, name) for name in ("a", "b")]


@pytest.fixture
def train(tmp_path, files):
    path = tmp_path / "train.yaml"
    path.write_text(f"name: crops\ndatasets: [{', '.join(files)}]\n")
    return str(path)


@pytest.fixture
def predict(tmp_path):
    path = tmp_path / "predict.yaml"
    path.write_text("model: crops\n")
    return str(path)


# --- the grid ---------------------------------------------------------------------------------------------------------


def test_cells_are_files_times_periods_in_that_order(files):
    grid = lay_grid("build_dataset", files, SPANS)
    first, second = "2019-01-01--2019-07-01", "2019-07-01--2020-01-01"
    assert [cell.name for cell in grid.cells] == [f"a/{first}", f"a/{second}", f"b/{first}", f"b/{second}"]
    assert [cell.job.region.time.range for cell in grid.cells] == [*SPANS, *SPANS]
    assert [cell.name for cell in lay_grid("build_dataset", files).cells] == [
        "a/2019-01-01--2020-01-01",
        "b/2019-01-01--2020-01-01",
    ]


def test_the_key_is_that_of_the_design(files):
    cell = lay_grid("refresh_region", files).cells[0]
    assert cell.key(3) == f"refresh-region/a/2019-01-01--2020-01-01/{cell.fingerprint}/3"
    assert len(cell.fingerprint) == 16 and int(cell.fingerprint, 16) >= 0
    assert lay_grid("refresh_region", files).cells[0] == cell, "the same input gives the same key"


def test_a_key_stands_for_parameters_and_for_the_content_of_files(tmp_path, files, predict):
    """A run that is tried again has the parameters of its first try: with others it has to be another run."""
    (tmp_path / "labels.tif").write_bytes(b"1")

    def mark(*words):
        return lay_grid(*words).cells[0].fingerprint

    plain = mark("refresh_region", files)
    assert mark("refresh_region", files, (), None, predict) != plain
    labelled = [region_file(tmp_path, "a", LABELS)]
    with_labels = mark("refresh_region", labelled)
    assert with_labels != plain
    (tmp_path / "labels.tif").write_bytes(b"22")
    assert mark("refresh_region", labelled) != with_labels
    text = (tmp_path / "a.yaml").read_text()
    (tmp_path / "a.yaml").write_text(text.replace("catalog.json", "other/catalog.json"))
    assert mark("refresh_region", labelled) not in (plain, with_labels), "the place of the source counts, too"


def test_parameters_are_plain_values_that_the_flow_takes_back(files, train, predict):
    from chipmill.region.config import Region

    (cell, _) = lay_grid("refresh_region", files, (), train, predict).cells
    assert json.loads(json.dumps(cell.parameters)) == cell.parameters
    assert cell.parameters.keys() == {"region", "train", "predict"}
    assert Region.model_validate(cell.parameters["region"]) == cell.job.region
    assert cell.job.kind == "refresh"
    assert lay_grid("build_dataset", files).cells[0].parameters.keys() == {"region"}


def test_a_broken_file_is_a_cell_with_its_trouble_for_each_period(tmp_path, files):
    broken = tmp_path / "broken.yaml"
    broken.write_text("name: broken\nepochz: 3\n")
    missing = str(tmp_path / "none.yaml")
    cells = lay_grid("build_dataset", [*files, str(broken), missing], SPANS).cells
    assert len(cells) == 8
    assert [bool(cell.trouble) for cell in cells] == [False] * 4 + [True] * 4
    assert all("epochz" in cell.trouble for cell in cells[4:6])
    assert all("none.yaml" in cell.trouble and cell.region == missing for cell in cells[6:])


def test_a_file_that_names_a_missing_one_is_a_cell_with_its_trouble(tmp_path, files):
    labelled = region_file(tmp_path, "c", LABELS)
    cell = lay_grid("build_dataset", [*files, labelled]).cells[2]
    assert "labels.tif cannot be read" in cell.trouble


def test_slots_with_days_of_their_own_cannot_be_moved(tmp_path):
    path = tmp_path / "c.yaml"
    text = (tmp_path / region_file(tmp_path, "c")).read_text()
    slots = "slots: {list: [{name: may, start: 2019-05-01, end: 2019-06-01}]}"
    path.write_text(text.replace("2020-01-01]}", f"2020-01-01], {slots}}}"))
    assert not lay_grid("build_dataset", [str(path)]).cells[0].trouble
    assert (
        "time.slots.list names days of its own"
        in lay_grid("build_dataset", [str(path)], SPANS).cells[0].trouble
    )


@pytest.mark.parametrize(
    ("flow", "twice", "spans", "options", "sentence"),
    [
        (
            "build_dataset",
            True,
            (),
            {},
            r"a/2019-01-01--2020-01-01 is named twice, by .*a\.yaml and .*a\.yaml",
        ),
        ("build_dataset", False, (YEAR, YEAR), {}, "time_ranges: 2019-01-01--2020-01-01 is named twice"),
        ("build_dataset", False, (YEAR[::-1],), {}, "time_ranges: start 2020-01-01 must lie before end"),
        ("predict_map", False, (), {}, "predict is missing"),
        ("build_dataset", False, (), {"train": "train.yaml"}, "train: build_dataset trains no model"),
        ("build_dataset", False, (), {"predict": "p.yaml"}, "predict: build_dataset makes no map"),
        ("refresh_region", False, (), {"train": "none.yaml"}, "none.yaml"),
    ],
)
def test_what_concerns_all_cells_is_refused_before_any_work(files, flow, twice, spans, options, sentence):
    with pytest.raises(BadInputError, match=sentence):
        lay_grid(flow, [*files, *(files[:1] if twice else ())], spans, **options)


def test_two_files_of_one_cell_are_refused_and_no_files_at_all(tmp_path, files):
    (tmp_path / "copy.yaml").write_text((tmp_path / "a.yaml").read_text())
    with pytest.raises(BadInputError, match=r"named twice, by .*a\.yaml and .*copy\.yaml"):
        lay_grid("build_dataset", [*files, str(tmp_path / "copy.yaml")])
    with pytest.raises(BadInputError, match="regions is empty"):
        lay_grid("build_dataset", [])


def test_cells_that_would_train_one_model_against_each_other_are_refused(tmp_path, files, train):
    alone = tmp_path / "alone.yaml"
    alone.write_text("name: crops\n")
    with pytest.raises(BadInputError, match="each cell would train crops on its own data"):
        lay_grid("refresh_region", files, (), str(alone))
    assert len(lay_grid("refresh_region", files[:1], (), str(alone)).cells) == 1
    with pytest.raises(BadInputError, match="at_once is 2: cells that train share one model"):
        Backfill(lay_grid("refresh_region", files, (), train), Server(), 2)
    with pytest.raises(BadInputError, match="at_once is 0"):
        Backfill(lay_grid("build_dataset", files), Server(), 0)


def test_files_begin_in_the_first_root_and_never_lie_outside_the_roots(tmp_path, monkeypatch):
    inside = tmp_path / "inside"
    inside.mkdir()
    region_file(inside, "a")
    outside = region_file(tmp_path, "secret")
    (inside / "link.yaml").symlink_to(outside)
    monkeypatch.setenv("CHIPMILL_ROOTS", str(inside))
    cells = lay_grid(
        "build_dataset", ["a.yaml", "../secret.yaml", outside, "link.yaml", "/no/such/file.yaml"]
    ).cells
    assert [cell.region for cell in cells[:1]] == ["a"]
    assert all("lies outside the directories of CHIPMILL_ROOTS" in cell.trouble for cell in cells[1:])
    with pytest.raises(BadInputError, match="lies outside"):
        lay_grid("predict_map", ["a.yaml"], (), None, outside)


def test_the_command_that_redoes_what_failed_names_files_and_options(files, predict):
    grid = lay_grid("predict_map", files, SPANS[:1], None, predict)
    assert grid.redo(grid.cells[1:]) == (
        f"chipmill backfill predict_map {files[1]} --time-range 2019-01-01--2019-07-01 --predict {predict} --only-failed"
    )


# --- what a cell needs next -------------------------------------------------------------------------------------------


def run_of(cell, state, number=1, *, mark=None, minutes=5, message=""):
    key = cell.key(number) if mark is None else f"{cell.stem}{mark}/{number}"
    return CellRun(f"{key}@{state}", key, state, NOW - dt.timedelta(minutes=minutes), message=message)


@pytest.fixture
def cell(files):
    return lay_grid("build_dataset", files).cells[0]


LIVE = ("scheduled", "pending", "running")
LOST = ("failed", "crashed", "cancelled")
TABLE = [
    # runs (state, n or mark), store current, flags -> act, n of its key
    ([], True, {}, "done", None),
    ([], False, {}, "start", 1),
    ([], False, {"only_failed": True}, "skip", None),
    ([], False, {"only_failed": True, "failed_before": True}, "start", 1),
    ([], True, {"only_failed": True, "failed_before": True}, "done", None),
    ([("completed", 1)], True, {}, "done", None),
    ([("completed", 1)], False, {}, "start", 2),
    ([("completed", 1), ("completed", 2)], False, {}, "start", 3),
    ([("completed", 1)], False, {"only_failed": True}, "skip", None),
    *[([(state, 1)], False, {}, "retry", 1) for state in LOST],
    *[([(state, 1)], False, {"only_failed": True}, "retry", 1) for state in LOST],
    *[([(state, 1)], False, {"redrive": False}, "list", 1) for state in LOST],
    *[([(state, 1)], True, {}, "done", None) for state in LOST],
    *[([(state, 1)], False, {}, "adopt", 1) for state in LIVE],
    *[([(state, 1)], True, {}, "adopt", 1) for state in LIVE],
    *[([(state, 1)], False, {"only_failed": True}, "adopt", 1) for state in LIVE],
    ([("running", 1)], False, {"dead": "gone"}, "crash", 1),
    ([("failed", 1), ("completed", 2)], False, {}, "start", 3),
    ([("completed", 1), ("failed", 2)], False, {}, "retry", 2),
    ([("failed", "other")], False, {}, "start", 1),
    ([("failed", "other")], False, {"only_failed": True}, "start", 1),
    ([("completed", "other")], False, {"only_failed": True}, "skip", None),
    ([("running", "other")], False, {}, "adopt", None),
]


@pytest.mark.parametrize(("runs", "current", "flags", "act", "number"), TABLE)
def test_the_table_of_what_a_cell_needs_next(cell, runs, current, flags, act, number):
    known = [
        run_of(
            cell,
            state,
            *((n,) if isinstance(n, int) else ()),
            mark=n if isinstance(n, str) else None,
            minutes=9 - i,
        )
        for i, (state, n) in enumerate(runs)
    ]
    flags = {"dead": "", **flags}
    dead = flags.pop("dead")
    choice = choose(cell, runs=known, current=lambda: current, dead=lambda _: dead, **flags)
    assert choice.act == act
    if number is not None:
        assert (choice.key or choice.run.key) == cell.key(number)
    assert choice.reason == ("gone" if act == "crash" else "")


def test_a_cell_is_only_looked_at_where_it_matters(cell):
    def look():
        pytest.fail("a look is a search")

    for state in LIVE:
        choose(cell, runs=[run_of(cell, state)], current=look, dead=lambda _: "")
    choose(cell, runs=[], current=look, dead=lambda _: "", only_failed=True)


# --- going over the grid ----------------------------------------------------------------------------------------------


STARTS = dt.timedelta(seconds=5)
"""That the process of a run takes to start."""


class Server:
    """A workflow server in this process: a run goes through `script` of its cell, one state a poll."""

    def __init__(self, **scripts):
        self.runs, self.scripts, self.log = {}, scripts, []
        self.most = self.polls = 0
        self.away = 0

    def history(self, cells):
        stems = {cell.stem for cell in cells}
        return [run for run in self.runs.values() if run.key.rsplit("/", 2)[0] + "/" in stems]

    def _speak(self):
        if self.away:
            self.away -= 1
            raise ServerError("the workflow server does not answer")

    def start(self, cell, key):
        self._speak()
        self.log.append(("start", cell.region, key.rpartition("/")[2]))
        known = next((run for run in self.runs.values() if run.key == key), None)
        return known or self._put(CellRun(f"run-{len(self.runs)}", key, "scheduled", dt.datetime.now(dt.UTC)))

    def retry(self, run):
        self._speak()
        self.log.append(("retry", region_of(run), str(run.number)))
        return self._put(replace(run, state="scheduled", since=dt.datetime.now(dt.UTC)))

    def crash(self, run, reason):
        self.log.append(("crash", region_of(run), reason))
        return self._put(replace(run, state="crashed", message=reason))

    def beats(self, ids):
        self.log.append(("beats", len(ids), ""))
        return {}

    def poll(self, ids):
        self._speak()
        self.polls += 1
        self.most = max(self.most, len(ids))
        return [self._step(self.runs[one]) for one in ids if one in self.runs]

    def _step(self, run):
        script = self.scripts.setdefault(region_of(run), ["running", "completed"])
        state = script.pop(0) if script else "completed"
        if state == "completed":
            self.finish(run)
        return self._put(
            replace(
                run, state=state, message=f"{state}!", since=dt.datetime.now(dt.UTC) + STARTS, seconds=2.0
            )
        )

    def finish(self, run):
        """Commit something where the cell's run would."""

    def _put(self, run):
        self.runs[run.id] = run
        return run


def region_of(run):
    return run.key.split("/")[1]


class World:
    """The store of a grid: a cell is current once its run completed."""

    def __init__(self, grid, server):
        self.grid, self.server, self.looked = grid, server, []
        self.done, self.rows = set(), []
        server.finish = self.commit

    def commit(self, run):
        cell = next(cell for cell in self.grid.cells if run.key.startswith(cell.stem))
        self.done.add(cell.name)
        versions = cell_dir(cell.job.region).versions
        versions.path(1).mkdir(parents=True, exist_ok=True)
        write_text(versions.pointer, "1\n")

    def current(self, job):
        cell = next(cell for cell in self.grid.cells if cell.job == job)
        self.looked.append(cell.region)
        return cell.name in self.done

    def work(self, at_once=1, **options):
        options = {"current": self.current, "show": self.rows.append, "poll_s": 0.01} | options
        return Backfill(self.grid, self.server, at_once, **options).work()


@pytest.fixture
def eight(tmp_path):
    names = "abcdefgh"
    return lay_grid("build_dataset", [region_file(tmp_path, name) for name in names])


def test_every_cell_is_run_once_and_in_order(eight):
    world = World(eight, Server())
    rows = world.work()
    assert [row.state for row in rows] == ["done"] * 8
    assert [line[:2] for line in world.server.log] == [("start", name) for name in "abcdefgh"]
    assert world.server.most == 1
    assert [row.state for row in world.work()] == ["current"] * 8, "a second call starts nothing"
    assert len(world.server.log) == 8


def test_at_most_so_many_fly_and_they_are_polled_together(eight):
    world = World(eight, Server())
    world.work(3)
    assert world.server.most == 3
    assert world.server.polls < 8 * 2


def test_one_that_fails_stops_no_other_and_is_listed_with_its_reason_and_the_command(eight):
    world = World(eight, Server(c=["running", "failed"], e=["running", "crashed"]))
    with pytest.raises(
        CellsFailedError, match=r"2 of 8 cells failed, all others were gone through"
    ) as caught:
        world.work(2)
    states = {row.region: (row.state, row.reason) for row in caught.value.rows}
    assert states["c"] == ("failed", "failed!")
    assert states["e"] == ("failed", "crashed!")
    assert sum(state == "done" for state, _ in states.values()) == 6
    text = str(caught.value)
    assert "c/2019-01-01--2020-01-01 (failed!); e/2019-01-01--2020-01-01 (crashed!)" in text
    files = f"{eight.cells[2].file} {eight.cells[4].file}"
    assert text.endswith(f"chipmill backfill build_dataset {files} --only-failed")
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("only_failed", [False, True])
def test_the_second_call_works_on_the_failed_one_alone(eight, only_failed):
    world = World(eight, Server(c=["running", "failed"]))
    with pytest.raises(CellsFailedError):
        world.work(2)
    world.server.log.clear()
    world.looked.clear()
    rows = world.work(2, only_failed=only_failed)
    assert world.server.log == [("retry", "c", "1")]
    assert len(world.server.runs) == 8
    others = "passed over" if only_failed else "current"
    assert [row.state for row in rows] == [others] * 2 + ["done"] + [others] * 5
    assert world.looked == (["c"] if only_failed else list("abcdefgh"))


def test_a_failed_cell_is_tried_once_in_a_call(eight):
    world = World(eight, Server(c=["failed", "failed", "failed"]))
    for _ in range(2):
        with pytest.raises(CellsFailedError):
            world.work()
    assert [line for line in world.server.log if line[1] == "c"] == [("start", "c", "1"), ("retry", "c", "1")]


def test_a_broken_file_and_a_look_that_raises_are_failed_cells(tmp_path, eight):
    (tmp_path / "d.yaml").write_text("name: d\n")
    grid = lay_grid("build_dataset", [cell.file for cell in eight.cells])
    world = World(grid, Server())

    def current(job):
        if job.region.name == "b":
            raise BadInputError("the catalog is not there")
        if job.region.name == "c":
            raise ZeroDivisionError("a defect")
        return world.current(job)

    with pytest.raises(CellsFailedError, match="3 of 8 cells failed") as caught:
        world.work(current=current)
    failed = {row.region: row.reason for row in caught.value.rows if row.state == "failed"}
    assert failed.pop(str(tmp_path / "d.yaml")).endswith("imagery is missing")
    assert failed == {"b": "the catalog is not there", "c": "ZeroDivisionError: a defect"}
    assert len(world.server.runs) == 5


def test_a_backfill_that_was_killed_doubles_none_and_loses_none(eight):
    """Killed at each poll in turn, with two cells in flight, and started again each time."""
    server = Server()
    world = World(eight, server)
    poll, kills = server.poll, []

    class Killed(BaseException):
        pass

    def dies(ids):
        poll(ids)
        kills.append(ids)
        raise Killed

    server.poll = dies
    rows = ()
    while not rows:
        with contextlib.suppress(Killed):
            rows = world.work(2)
    assert len(kills) >= 8
    assert {row.state for row in rows} <= {"done", "current"}
    assert [line[0] for line in server.log] == ["start"] * 8
    assert sorted(line[1] for line in server.log) == list("abcdefgh")


def test_a_run_that_lives_is_adopted_and_a_run_of_other_parameters_is_waited_for(eight):
    server = Server(a=["running", "completed"], b=["running", "completed", "running", "completed"])
    world = World(eight, server)
    first, second = eight.cells[:2]
    for key in (first.key(1), f"{second.stem}{'0' * 16}/1"):
        server.runs[key] = CellRun(key, key, "running", dt.datetime.now(dt.UTC))
    server.finish = lambda run: world.commit(run) if "0" * 16 not in run.key else None
    rows = world.work()
    assert [row.state for row in rows] == ["done"] * 8
    assert [line for line in server.log if line[1] in "ab"] == [("start", "b", "1")]


def test_a_completed_run_whose_cell_changed_since_gets_the_next_number(eight):
    world = World(eight, Server())
    world.work()
    world.done.discard(eight.cells[0].name)
    world.server.log.clear()
    world.work()
    assert world.server.log == [("start", "a", "2")]


def test_a_run_that_completes_without_a_version_in_the_store_is_a_failure(eight):
    world = World(eight, Server())
    world.server.finish = lambda run: None if region_of(run) == "a" else world.commit(run)
    with pytest.raises(
        CellsFailedError, match=r"holds no version in force: let the worker see the same output"
    ):
        world.work()


@pytest.mark.parametrize("state", ["running", "pending"])
def test_a_run_without_a_sign_of_life_is_closed_and_tried_again_once(eight, state):
    world = World(eight, Server(a=["running", "completed"]))
    key = eight.cells[0].key(1)
    world.server.runs["old"] = CellRun("old", key, state, NOW - dt.timedelta(minutes=11))
    rows = world.work()
    assert rows[0].state == "done"
    log = [line for line in world.server.log if line[1] == "a"]
    assert [line[0] for line in log] == ["crash", "retry"]
    assert "no sign of life for " in log[0][2]


def test_a_run_with_a_sign_of_life_is_waited_for_however_long_it_takes(eight):
    world = World(eight, Server(a=["completed"]))
    key = eight.cells[0].key(1)
    world.server.runs["old"] = CellRun("old", key, "running", NOW - dt.timedelta(hours=3))
    world.server.beats = lambda ids: {"old": dt.datetime.now(dt.UTC)}
    assert world.work()[0].state == "done"
    assert not [line for line in world.server.log if line[1] == "a"]


def killed_lock(path):
    """Leave the lock of a process that was killed while it held it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    code = (
        "import os, signal, sys; from pathlib import Path; from chipmill.core.store import lock\n"
        "with lock(Path(sys.argv[1]), 'r1'): os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == -9


def test_a_run_whose_process_was_killed_on_this_host_is_known_at_once_by_its_lock(eight):
    world = World(eight, Server(a=["running", "completed"]))
    run = CellRun("x", eight.cells[0].key(1), "running", dt.datetime.now(dt.UTC))
    world.server.runs["x"] = run
    killed_lock(cell_dir(eight.cells[0].job.region).lock)
    assert world.work()[0].state == "done"
    assert [line[:3] for line in world.server.log[:2]] == [
        ("crash", "a", "the process that worked on it was killed"),
        ("retry", "a", "1"),
    ]


def test_a_run_that_is_killed_again_and_again_is_given_up(eight):
    world = World(eight, Server(a=["running"] * 9))
    killed_lock(cell_dir(eight.cells[0].job.region).lock)
    step = world.server._step

    def dies(run):
        found = step(run)
        if region_of(run) == "a":  # the lock is younger than its state
            past = replace(found, since=found.since - dt.timedelta(minutes=2))
            return world.server._put(past)
        return found

    world.server._step = dies
    with pytest.raises(CellsFailedError, match=r"1 of 8 cells failed.*a/2019.*was killed") as caught:
        world.work()
    assert sum(row.state == "done" for row in caught.value.rows) == 7
    assert [line[0] for line in world.server.log if line[1] == "a"] == ["start", "crash", "retry", "crash"]


def test_killed_holders_are_told_from_orderly_ends_and_from_those_that_live(tmp_path):
    path = tmp_path / ".lock"
    assert killed_holder(path) is None
    with lock(path, "r1"):
        assert killed_holder(path) is None
    assert killed_holder(path) is None
    killed_lock(path)
    since = killed_holder(path)
    assert abs((dt.datetime.now(dt.UTC) - since).total_seconds()) < 60
    path.write_text(path.read_text().replace(f" on {os.uname().nodename} ", " on elsewhere "))
    assert killed_holder(path) is None


def test_the_server_may_be_away_for_a_while(eight):
    world = World(eight, Server())
    world.server.away = 5
    assert [row.state for row in world.work(2)] == ["done"] * 8


def test_a_server_that_stays_away_ends_the_backfill(eight, monkeypatch):
    monkeypatch.setattr(backfill, "_SILENCE_S", 0.0)
    world = World(eight, Server())
    world.server.away = 1_000_000
    with pytest.raises(ServerError, match="does not answer"):
        world.work()


def test_cells_of_one_region_wait_until_its_blocks_are_dealt(tmp_path):
    (tmp_path / "labels.tif").write_bytes(b"1")
    grid = lay_grid("build_dataset", [region_file(tmp_path, "a", LABELS), region_file(tmp_path, "b")], SPANS)
    world = World(grid, Server(a=["running", "running", "completed", "running", "completed"]))
    commit, begun = world.commit, []

    def finish(run):
        commit(run)
        if region_of(run) == "a":
            blocks = region_dir(grid.cells[0].job.region).blocks
            begun.append((run.key, [line for line in world.server.log if line[1] == "a"]))
            blocks.write_text("dealt")

    world.server.finish = finish
    world.work(4)
    assert [len(lines) for _, lines in begun] == [1, 2], "the second began when the first was done"
    assert [line[1] for line in world.server.log[:3]] == ["a", "b", "b"], "others did not wait"


# --- what is shown ----------------------------------------------------------------------------------------------------


def row(**changes):
    return (
        Row("a", "a.yaml", "2019-01-01--2020-01-01", "failed", 1.26, "why", "http://x/run/1")
        if not changes
        else replace(row(), **changes)
    )


def test_texts_in_the_table_are_escaped_and_runs_are_links():
    (made,) = table_rows([row(reason="<img onerror=x> [a](http://evil)", file="</script>.yaml")])
    assert made["run"] == "[run](http://x/run/1)"
    assert made["seconds"] == 1.3
    assert "<" not in made["reason"] + made["file"]
    assert r"\[a\](" in made["reason"], "no link of a stranger's"


def test_what_failed_without_a_run_is_known_from_the_tables_of_earlier_backfills(files):
    cells = lay_grid("build_dataset", files, SPANS).cells
    period, other = cells[0].period, cells[1].period
    older = table_rows(row(file=files[0], period=one, state="failed") for one in (period, other))
    newer = table_rows(
        [row(file=files[0], period=period, state="done"), row(file=files[1], period="as in the file")]
    )
    waiting = table_rows([row(file=files[0], period=other, state="waiting")])
    assert named_failed([waiting, newer, older], cells) == {cells[1].name, cells[2].name, cells[3].name}
    assert named_failed([], cells) == frozenset()


def test_the_last_sentence_names_twenty_of_many(tmp_path):
    grid = lay_grid("build_dataset", [str(tmp_path / f"{n}.yaml") for n in range(30)])
    with pytest.raises(CellsFailedError, match=r"30 of 30 cells failed.*; 10 more: redo"):
        World(grid, Server()).work()


# --- estimate and status ----------------------------------------------------------------------------------------------


class Answer:
    items = ()


@pytest.fixture
def estimates(monkeypatch):
    """Estimates of cells whose search finds nothing, and which of them the store has."""
    current = set()
    monkeypatch.setattr(cell_estimates, "find_items", lambda region, tiles: Answer)
    monkeypatch.setattr(cell_estimates, "place_tiles", lambda region: (region, ()))
    monkeypatch.setattr(cell_estimates, "bill_of", lambda *_: Estimate)
    monkeypatch.setattr(cell_estimates, "current_dataset", lambda region, *_: region.name in current or None)
    return current


class Estimate:
    tiles, items, read_bytes, chips, minutes = 2, 3, 4_000_000, 5, 0.5


def test_the_estimate_says_of_each_cell_whether_it_is_current_failed_changed_or_new(tmp_path, estimates):
    files = [region_file(tmp_path, name) for name in "abcd"]
    cells = lay_grid("build_dataset", files).cells
    estimates.add("a")
    failing = cell_dir(cells[1].job.region).versions.attempt_path(1)
    (batch, *_) = freeze_batches(failing, "rank_items", ["t1"], 1.0)

    def breaks(_unit):
        raise OSError("broken")

    work_batch(failing, "r1", batch, breaks, lambda unit: unit)
    versions = cell_dir(cells[2].job.region).versions
    versions.path(1).mkdir(parents=True)
    write_text(versions.pointer, "1\n")
    grid = lay_grid("build_dataset", [*files, str(tmp_path / "none.yaml")])
    found = tuple(cell_estimates.estimate_cells(grid))
    assert [one.state for one in found] == ["current", "failed before", "changed", "new", "cannot run"]
    *_, broken, total = cell_estimates.estimate_rows(found)
    assert broken[3:8] == ("–",) * 5
    assert total == ("4 to do", "", "", "6", "9", "12.0 MB", "15", "1 min 30 s", ""), (
        "the current one costs nothing"
    )


def call(*words):
    return CliRunner().invoke(cli.app, [str(word) for word in words], env={"COLUMNS": "200"})


def test_dry_run_starts_nothing(tmp_path, files, estimates, monkeypatch):
    module = importlib.import_module("chipmill.cli.backfill")  # the command has its name in the package
    monkeypatch.setattr(module, "_work", lambda *_: pytest.fail("something was started"))
    done = call("backfill", "build_dataset", *files, "--dry-run", "--json")
    assert done.exit_code == 0
    assert [cell["state"] for cell in json.loads(done.stdout)["cells"]] == ["new", "new"]
    shown = call("backfill", "build_dataset", *files, tmp_path / "none.yaml", "--dry-run")
    assert "no pixel was read" in shown.stdout
    assert "3 to do" in shown.stdout
    assert "none.yaml" in shown.stdout
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["build_dataset", "a.yaml", "--time-range", "2019"], "--time-range takes two days"),
        (["build_dataset", "a.yaml", "--time-range", "2020-01-01--2019-01-01"], "must lie before end"),
        (["predict_map", "a.yaml"], "predict is missing"),
        (["build_dataset", "a.yaml", "a.yaml"], "is named twice"),
        (["build_models", "a.yaml"], "build_models"),
    ],
)
def test_a_wrong_call_is_bad_input_before_anything_is_started(files, tmp_path, monkeypatch, words, sentence):
    monkeypatch.chdir(tmp_path)
    done = call("backfill", *words)
    assert done.exit_code == 2
    assert sentence in done.stderr


def test_a_grid_that_is_current_starts_nothing(files, monkeypatch):
    monkeypatch.setattr(cell_estimates, "is_current", lambda job: True)
    monkeypatch.setattr("chipmill.orchestration.up.service", lambda **_: pytest.fail("a service was started"))
    done = call("backfill", "build_dataset", *files, "--json")
    assert done.exit_code == 0
    assert [cell["state"] for cell in json.loads(done.stdout)["cells"]] == ["current", "current"]


def test_status_shows_the_grid_of_region_by_period_from_the_store_alone(tmp_path, files):
    cells = lay_grid("build_dataset", files, SPANS).cells
    places = [cell_dir(cell.job.region) for cell in cells]
    for place in places[:2]:
        place.versions.path(1).mkdir(parents=True)
        write_text(place.versions.pointer, "1\n")
    write_json(places[0].versions.path(1) / "dataset.json", {"failures": [1, 2]})
    attempt = places[1].versions.attempt_path(2)
    batches = freeze_batches(attempt, "rank_items", ["t1", "t2"], 5.0)

    def work(unit):
        if unit == "t2":
            raise OSError("broken")
        return UnitResult()

    for batch in batches:
        work_batch(attempt, "r1", batch, work, lambda unit: unit)
    with lock(places[2].lock, "r1"):
        done = call("status", *files)
        listed = json.loads(call("status", tmp_path / "out", "--json").stdout)["cells"]
    assert done.exit_code == 0
    head, first, second = done.stdout.splitlines()[:3]
    assert head.split() == ["Region", "2019-01-01--2019-07-01", "2019-07-01--2020-01-01"]
    assert [part.strip() for part in first.split("   ") if part.strip()] == [
        "a",
        "version 1: 2 failed",
        "version 1, attempt 2: 1 failed",
    ]
    assert [part.strip() for part in second.split("   ") if part.strip()] == ["b", "running", "-"]
    assert [cell["state"] for cell in listed] == [
        "version 1: 2 failed",
        "version 1, attempt 2: 1 failed",
        "running",
    ]


def test_an_artifact_is_made_once_and_kept_up_to_date(monkeypatch):
    import prefect.artifacts

    made, updated = [], []
    monkeypatch.setattr(
        prefect.artifacts, "create_progress_artifact", lambda *_, **__: made.append("progress") or "p"
    )
    monkeypatch.setattr(
        prefect.artifacts, "create_table_artifact", lambda *_, **__: made.append("table") or "t"
    )
    monkeypatch.setattr(
        prefect.artifacts, "update_progress_artifact", lambda _, progress: updated.append(progress)
    )

    class Client:
        def update_artifact(self, one, change):
            updated.append([row["state"] for row in json.loads(change.data)])

    table = cell_table.CellTable(Client(), "build-dataset")
    table.show((row(state="waiting"), row(state="done")))
    table.show((row(state="running"), row(state="done")))
    table.show((row(state="done"), row(state="done")))
    table.show((row(state="done"), row(state="done")))
    assert made == ["progress", "table"]
    assert updated == [50.0, ["waiting", "done"], 100.0, ["done", "done"]], (
        "at most every two seconds, but the end at once"
    )


class Events:
    """A server that gives the newest beats of the runs asked for, as many as go on a page."""

    def __init__(self, beats):
        self.beats = beats

    def request(self, _method, _path, json):
        wanted = json["filter"]["resource"]["id"]
        found = [one for one in self.beats if one["resource"]["prefect.resource.id"] in wanted]
        return SimpleNamespace(json=lambda: {"events": found[: json["limit"]]})


def test_a_run_that_beats_is_never_without_a_sign_because_others_beat_too():
    ids = [f"run-{number}" for number in range(120)]
    beats = [
        {
            "resource": {"prefect.resource.id": f"prefect.flow-run.{one}"},
            "occurred": (NOW - dt.timedelta(seconds=180 * turn)).isoformat(),
        }
        for turn in range(3)
        for one in ids
    ]
    runs = cell_runs.ServerRuns(Events(beats), "build-dataset")
    assert runs.beats(ids) == dict.fromkeys(ids, NOW)
    assert runs.beats([]) == {}
