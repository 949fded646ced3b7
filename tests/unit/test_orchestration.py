"""The parts of orchestration that need neither server nor cluster."""

import contextlib
import datetime as dt
import os
import pickle
import signal

import pytest

from chipmill.core.errors import BadInputError, LockedError, ServerError
from chipmill.core.state import make_state_dir
from chipmill.orchestration.ending import CommittedWithFailuresError, conclude, whole
from chipmill.orchestration.funnel import funnel_rows, slug
from chipmill.orchestration.progress import Progress, Stopwatch, listening, tell
from chipmill.orchestration.server import running_server
from chipmill.orchestration.settings import read_settings


@pytest.fixture
def environment(monkeypatch, tmp_path):
    """An environment without any variable of ours; returns the function that sets some."""
    for name in (
        "DASK_ADDRESS",
        "DASK_INSECURE",
        "WORKERS",
        "WORKER_MEMORY",
        "SERVER_TIMEOUT_S",
        "RETRY_WAIT_S",
    ):
        monkeypatch.delenv(f"CHIPMILL_{name}", raising=False)
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setenv("CHIPMILL_STATE_DIR", str(tmp_path / "state"))
    return lambda **values: [monkeypatch.setenv(name, value) for name, value in values.items()]


def test_defaults_of_the_settings(environment, tmp_path):
    settings = read_settings()
    assert settings.state_dir == tmp_path / "state"
    assert settings.workers >= 1
    assert (settings.api_url, settings.dask_address, settings.worker_memory) == (None, None, None)


def test_the_state_directory_follows_xdg(environment, monkeypatch, tmp_path):
    monkeypatch.delenv("CHIPMILL_STATE_DIR")
    environment(XDG_STATE_HOME=str(tmp_path))
    assert read_settings().state_dir == tmp_path / "chipmill"


def test_the_processes_of_a_cluster_share_the_cores_for_reading(environment, monkeypatch):
    from chipmill.orchestration.cluster import local_options

    monkeypatch.delenv("CHIPMILL_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    environment(CHIPMILL_WORKERS="3")
    assert local_options(read_settings())["env"] == {"CHIPMILL_THREADS": "2"}
    environment(CHIPMILL_THREADS="5")
    assert local_options(read_settings())["env"] == {"CHIPMILL_THREADS": "5"}


def test_requests_at_one_host_are_checked_with_the_settings(environment):
    assert read_settings().host_requests >= 1
    environment(CHIPMILL_HOST_REQUESTS="none")
    with pytest.raises(BadInputError, match="CHIPMILL_HOST_REQUESTS is 'none'"):
        read_settings()


@pytest.mark.parametrize("value", ["none", "0", "-1", "nan"])
def test_a_number_that_cannot_be_meant_is_named(environment, value):
    environment(CHIPMILL_WORKERS=value)
    with pytest.raises(BadInputError, match=f"CHIPMILL_WORKERS is '{value}'"):
        read_settings()


def test_dask_on_another_machine_needs_tls_or_a_permission(environment):
    environment(CHIPMILL_DASK_ADDRESS="tcp://10.0.0.1:8786")
    with pytest.raises(BadInputError, match="tls://"):
        read_settings()
    environment(CHIPMILL_DASK_INSECURE="1")
    assert read_settings().dask_address == "tcp://10.0.0.1:8786"


@pytest.mark.parametrize("address", ["tls://10.0.0.1:8786", "tcp://127.0.0.1:1", "tcp://[::1]:1"])
def test_dask_by_tls_or_on_this_machine_is_fine(environment, address):
    environment(CHIPMILL_DASK_ADDRESS=address)
    assert read_settings().dask_address == address


def test_the_state_directory_is_private_also_when_it_was_not(tmp_path):
    (tmp_path / "state").mkdir(mode=0o755)
    assert make_state_dir(tmp_path / "state").stat().st_mode & 0o777 == 0o700


def test_a_state_directory_that_cannot_be_made_says_what_to_set(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ServerError, match="CHIPMILL_STATE_DIR"):
        make_state_dir(tmp_path / "file" / "state")


def test_a_named_server_that_does_not_answer_is_named_and_none_is_started(environment, tmp_path):
    environment(PREFECT_API_URL="http://127.0.0.1:1/api?token=secret")
    with (
        pytest.raises(ServerError, match=r"PREFECT_API_URL http://127.0.0.1:1/api\?\.\.\. does not answer"),
        running_server(),
    ):
        pytest.fail("there is no server")
    assert not (tmp_path / "state").exists()


def test_a_cell_is_held_once_per_process_and_by_one_process(tmp_path):
    from chipmill.core.store import lock
    from chipmill.orchestration.cells import hold_cell
    from chipmill.region.config import Region
    from chipmill.region.plan import cell_dir

    region = Region.model_validate(
        {
            "name": "r",
            "aoi": {"bbox": [6.0, 50.0, 6.1, 50.1]},
            "time": {"range": ["2020-01-01", "2020-02-01"]},
            "imagery": [{"name": "s2", "source": {"stac": "http://127.0.0.1:1"}, "bands": {"red": "red"}}],
            "file": str(tmp_path / "region.yaml"),
        }
    )
    place = cell_dir(region).lock
    with hold_cell(region, "one"), hold_cell(region, "the flow inside"):
        refused = pytest.raises(LockedError, match="run one")
        with refused, lock(place, "another"):
            pytest.fail("two runs hold the cell")
    with lock(place, "another"):
        refused = pytest.raises(LockedError, match="run another")
        with refused, hold_cell(region, "one"):
            pytest.fail("two runs hold the cell")


class Product:
    """A product with missing units."""

    def __init__(self, failed):
        self.path, self.failed = "out/versions/1", failed


def test_whole_products_pass_and_others_fail_with_the_way_out():
    whole_one = Product(0)
    assert whole(whole_one, "redo") is whole_one
    with pytest.raises(
        CommittedWithFailuresError, match=r"2 units failed.*out/versions/1.*with: chipmill run r.yaml"
    ):
        whole(Product(2), "chipmill run r.yaml")


def test_a_flow_of_flows_ends_with_the_first_failure_and_its_own_product():
    assert conclude("run", [None, None]) == "run"
    with pytest.raises(CommittedWithFailuresError, match="first") as caught:
        conclude(
            "run",
            [
                None,
                CommittedWithFailuresError("first", "dataset"),
                CommittedWithFailuresError("second", "map"),
            ],
        )
    assert caught.value.product == "run"


def test_the_failure_survives_a_pickle_with_its_product():
    again = pickle.loads(pickle.dumps(CommittedWithFailuresError("text", ("product",))))
    assert (str(again), again.product) == ("text", ("product",))


def test_listeners_hear_changes_only_inside_their_block():
    heard = []
    with listening(heard.append), listening(None):
        tell(Progress("a", 0, 0, 2))
    tell(Progress("a", 2, 0, 2))
    assert heard == [Progress("a", 0, 0, 2)]


def test_the_stopwatch_keeps_the_order_and_the_last_standing(monkeypatch):
    now = iter([1.0, 4.0, 5.0, 9.5])
    monkeypatch.setattr("chipmill.orchestration.progress.time.monotonic", lambda: next(now))
    watch = Stopwatch()
    for change in (
        Progress("a", 0, 0, 2),
        Progress("a", 1, 1, 2),
        Progress("b", 0, 0, 1),
        Progress("b", 1, 0, 1),
    ):
        watch(change)
    assert watch.rows() == [(Progress("a", 1, 1, 2), 3.0), (Progress("b", 1, 0, 1), 4.5)]


def test_the_funnel_adds_up_and_names_each_reason():
    class Failure:
        stage = "composite_tiles"

    class Counts:
        planned, written, filtered, failed = 10, 5, {"nodata": 2, "buffer": 1}, {"composite_tiles": 2}

    class Manifest:
        counts, failures = Counts, (Failure,)

    rows = funnel_rows(Manifest)
    windows = {(row["what"], row["reason"]): row["count"] for row in rows}
    assert windows.pop(("windows planned", "")) == 10
    assert windows.pop(("units failed", "composite_tiles")) == 1
    assert sum(windows.values()) == 10
    assert windows[("windows filtered", "nodata")] == 2


def test_keys_of_artifacts_are_what_prefect_takes():
    assert slug("Region_1.ä") == "region-1--"


def test_the_commands_that_redo_a_job(tmp_path):
    from chipmill.orchestration.jobs import Job
    from chipmill.region.jobs import PredictConfig, TrainConfig

    train = TrainConfig(name="crops", file="train.yaml")
    predict = PredictConfig(model="crops", file="predict.yaml")

    class Region:
        file = "region.yaml"

    assert (
        Job("refresh", Region, train, predict).command
        == "chipmill run region.yaml --train train.yaml --predict predict.yaml"
    )
    assert Job("refresh", Region).command == "chipmill run region.yaml"
    assert Job("build", Region).command == "chipmill build region.yaml"
    assert Job("train", train=train).command == "chipmill train train.yaml"
    assert Job("predict", Region, predict=predict).command == "chipmill predict predict.yaml"


def test_a_record_of_a_run_holds_what_its_page_tells(tmp_path):
    from chipmill.core.paths import CellDir
    from chipmill.core.store import read_json
    from chipmill.core.units import UnitFailure
    from chipmill.orchestration.runs import write_run
    from chipmill.report.run import StageTime

    started = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)
    lost = (UnitFailure("composite_tiles", "t-1", "broken", False),)
    record, page = write_run(
        CellDir(tmp_path),
        "build/r",
        started,
        (StageTime("rank_items", 1.5, 9, 0),),
        (),
        lost,
        "chipmill build r.yaml",
    )
    facts = read_json(record)
    assert record.parent == page.parent == tmp_path / "runs"
    assert (facts["name"], facts["state"], facts["redo"]) == ("build/r", "Failed", "chipmill build r.yaml")
    assert facts["failures"][0]["unit"] == "t-1"
    assert facts["stages"] == [{"name": "rank_items", "seconds": 1.5, "units": 9, "failed": 0}]
    assert "t-1" in page.read_text()
    assert {name for name, _ in facts["versions"]} >= {"python", "chipmill", "rasterio", "prefect"}


def test_a_lost_ctrl_c_ends_the_run_at_its_next_step():
    from chipmill.orchestration.interrupt import interruptible, stop_if_asked

    steps = []

    def run():
        with interruptible():
            with contextlib.suppress(KeyboardInterrupt):  # as a callback of a library does
                signal.raise_signal(signal.SIGINT)
            steps.append("went on")
            stop_if_asked()
            steps.append("never")

    with pytest.raises(KeyboardInterrupt):
        run()
    assert steps == ["went on"]
    stop_if_asked()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_run_that_ends_although_it_was_asked_to_stop_says_so():
    from chipmill.orchestration.interrupt import interruptible

    def run():
        with interruptible(), contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run()
