"""The four flows on the embedded world: the graph that the screen shows is the chain of the design, and nothing else.

The network is a stand-in (`numpy_model`): that the real one trains in a flow is for tests/learning and tests/e2e.
"""

import contextvars
import threading
from pathlib import Path
from uuid import UUID

import pytest
from tests.flows import deployed, numpy_model, screen

# rasterio.features.rasterize mutes this one itself, but the filters of a process are shared by its threads, and the
# worker of these tests is one.
pytestmark = pytest.mark.filterwarnings("ignore:Dataset has no geotransform")

BUILD = {
    ("tile_aoi", "search_items"),
    ("search_items", "rank_items"),
    ("rank_items", "close_ranking"),
    ("close_ranking", "composite_tiles"),
    ("close_ranking", "grid_layers"),
    ("composite_tiles", "build_stacks"),
    ("grid_layers", "build_stacks"),
    ("build_stacks", "index_windows"),
    ("index_windows", "close_windows"),
    ("close_windows", "assign_splits"),
    ("assign_splits", "select_chips"),
    ("select_chips", "write_shards"),
    ("write_shards", "commit_dataset"),
}
TRAIN = {("fit_model", "evaluate_model"), ("evaluate_model", "export_model")}
PREDICT = {("plan_map", "predict_strips"), ("predict_strips", "stitch_map"), ("stitch_map", "estimate_areas")}
REFRESH = {("build-dataset", "train-model"), ("train-model", "predict-map"), ("predict-map", "write_report")}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A demo directory with a training of one epoch."""
    from chipmill.demo.run import prepare
    from chipmill.region.load import load_predict, load_region, load_train

    made = prepare(tmp_path_factory.mktemp("demo"), "small", 8, lambda _: None)
    train = load_train(made.train).model_copy(update={"epochs": 1})
    return load_region(made.region), train, load_predict(made.predict)


@pytest.fixture(scope="module")
def refreshed(cluster, files):
    """The state of refresh_region on the small world: dataset, model, map, report."""
    from chipmill.flows.refresh_region import refresh_region

    with pytest.MonkeyPatch.context() as patch:
        numpy_model.plant(patch)
        yield refresh_region(*files, return_state=True)


@pytest.fixture(scope="module")
def runs(refreshed, server):
    """Name of a flow -> its run, for the refresh and its subflows."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        query = {"flow_runs": {"root_flow_run_id": None}, "limit": 50, "sort": "START_TIME_DESC"}
        found = client.request(
            "POST", "/flow_runs/filter", json={key: query[key] for key in ("limit", "sort")}
        ).json()
    names = {run["name"].split("/")[0]: run for run in reversed(found)}
    assert names["refresh-region"]["id"] == str(refreshed.state_details.flow_run_id)
    return names


@pytest.mark.parametrize(
    ("flow", "chain"),
    [("build-dataset", BUILD), ("train-model", TRAIN), ("predict-map", PREDICT), ("refresh-region", REFRESH)],
)
def test_the_graph_is_the_chain_of_the_design(runs, client, flow, chain):
    run = runs[flow]["id"]
    assert runs[flow]["state_type"] == "COMPLETED"
    assert screen.wait_for(lambda: screen.open_task_runs(client, run), lambda found: not found) == []
    assert screen.wait_for(lambda: screen.edges(client, run), lambda found: found == chain) == chain


def test_runs_are_named_by_region_and_cell(runs):
    names = {run["name"] for run in runs.values()}
    cell = "demo/2019-01-01--2020-01-01"
    assert names >= {f"{flow}/{cell}" for flow in ("refresh-region", "build-dataset", "predict-map")}


def test_what_was_made_is_whole_and_told(refreshed):
    made = refreshed.result()
    for product in (made.dataset, made.model, made.map):
        assert (product.path / "report.html").is_file()
        assert product.version == 1
    assert made.record.is_file()
    page = made.page.read_text()
    for stage in ("composite_tiles", "write_shards", "fit_model", "predict_strips"):
        assert stage in page


def test_the_funnel_and_the_progress_are_on_the_screen(runs, client, refreshed):
    found = screen.artifacts(client, runs["build-dataset"]["id"])
    stages = ("rank-items", "composite-tiles", "grid-layers", "index-windows", "write-shards")
    assert found.keys() >= {"funnel-demo", "report-demo", *(f"progress-{stage}" for stage in stages)}
    assert {found[f"progress-{stage}"]["data"] for stage in stages} == {100.0}
    assert str(refreshed.result().dataset.chips) in found["funnel-demo"]["data"]


def test_what_is_in_force_is_found_without_starting_anything(refreshed, files, monkeypatch, tmp_path):
    from chipmill.orchestration import run
    from chipmill.orchestration.jobs import Job

    monkeypatch.setattr(run, "running_server", lambda: pytest.fail("a server was started"))
    monkeypatch.setenv("CHIPMILL_ROOTS", str(tmp_path))  # the files of a command bring their own
    summary = run.run_job(Job("refresh", *files), lambda: pytest.fail("a flow was imported"))
    made = refreshed.result()
    assert (summary.exit_code, summary.changed) == (0, False)
    assert (summary.dataset, summary.model, summary.map) == (made.dataset, made.model, made.map)


@pytest.mark.parametrize(
    ("lost", "remade"),
    [
        ("regions/demo/composites/*/*/*.tif", "dataset"),
        ("models/*/1/metrics.json", "model"),
        ("maps/*/*/*/1/areas.csv", "map"),
    ],
)
def test_what_is_missing_is_noticed_and_only_what_depends_on_it(refreshed, files, lost, remade):
    from chipmill.orchestration.jobs import Job, look

    found = min(Path(files[0].output_dir).glob(lost))
    kept = found.read_bytes()
    found.unlink()
    try:
        have = look(Job("refresh", *files))
    finally:
        found.write_bytes(kept)
    order = ["dataset", "model", "map"]
    missing = [name for name in order if getattr(have, name) is None]
    assert missing == order[order.index(remade) :]


@pytest.mark.parametrize("kind", ["refresh-region", "build-dataset", "train-model", "predict-map"])
def test_each_flow_that_nobody_has_looked_for_says_that_there_is_nothing_to_do(
    refreshed, files, client, kind
):
    from chipmill.orchestration.jobs import UP_TO_DATE

    region, train, predict = files
    asked = {
        "refresh-region": {"region": region, "train": train, "predict": predict},
        "build-dataset": {"region": region},
        "train-model": {"train": train},
        "predict-map": {"region": region, "predict": predict},
    }[kind]
    state = load_flow(kind)(**asked, return_state=True)
    assert (state.is_completed(), state.message) == (True, UP_TO_DATE)
    assert screen.task_runs(client, state.state_details.flow_run_id) == {}
    made, found = refreshed.result(), state.result()
    products = {"build-dataset": made.dataset, "train-model": made.model, "predict-map": made.map}
    if kind in products:
        assert found == products[kind]
    else:
        assert (found.dataset, found.model, found.map) == (made.dataset, made.model, made.map)


def load_flow(kind):
    from chipmill.cli import work

    return work.load_flow(kind.split("-")[0])


@pytest.fixture
def gpu(refreshed, files, monkeypatch, client):
    """A deployment for training with a worker, a thread here: it does whatever the test puts in its place."""
    from chipmill.flows.train_model import train_model
    from chipmill.orchestration import handover

    flow = train_model.to_deployment("gpu").apply()
    monkeypatch.setenv("CHIPMILL_GPU_DEPLOYMENT", "train-model/gpu")
    monkeypatch.setenv("CHIPMILL_ROOTS", str(files[0].output_dir))
    monkeypatch.setattr(handover, "POLL_S", 0.1)
    ended = threading.Event()

    def worker():
        while not ended.wait(0.1):
            query = {
                "deployments": {"id": {"any_": [str(flow)]}},
                "flow_runs": {"state": {"name": {"any_": ["Scheduled"]}}},
            }
            for run in client.request("POST", "/flow_runs/filter", json=query).json():
                deployed.work(client, train_model, UUID(run["id"]))

    # Prefect's settings are of the context, which a thread does not inherit by itself
    thread = threading.Thread(target=contextvars.copy_context().run, args=(worker,))
    thread.start()
    yield
    ended.set()
    thread.join()


def test_training_is_handed_to_the_deployment_with_the_gpu_and_its_model_is_taken(gpu, files, client):
    from chipmill.flows.refresh_region import refresh_region

    region, train, _ = files
    state = refresh_region(region, train.model_copy(update={"name": "there"}), return_state=True)
    made = state.result()
    assert (made.model.name, made.model.version) == ("there", 1)
    run = state.state_details.flow_run_id
    chain = {("train_on_deployment", "write_report")}
    assert screen.wait_for(lambda: screen.edges(client, run), lambda found: found >= chain) >= chain


def test_a_training_that_fails_there_fails_the_run_with_its_reason(gpu, files, monkeypatch):
    from chipmill.core.errors import TrainingError
    from chipmill.flows.refresh_region import refresh_region
    from chipmill.learning import training

    def fail(*_):
        raise TrainingError("the loss is nan")

    region, train, _ = files
    monkeypatch.setattr(training, "_fit", fail)
    with pytest.raises(
        TrainingError, match=r"the training on train-model/gpu ended Failed: .*the loss is nan"
    ):
        refresh_region(region, train.model_copy(update={"name": "lost"}))


def test_a_deployment_that_is_not_there_is_named(refreshed, files, monkeypatch):
    from chipmill.core.errors import BadInputError
    from chipmill.flows.refresh_region import refresh_region

    monkeypatch.setenv("CHIPMILL_GPU_DEPLOYMENT", "train-model/none")
    region, train, _ = files
    with pytest.raises(
        BadInputError, match="CHIPMILL_GPU_DEPLOYMENT names train-model/none, which the server does not"
    ):
        refresh_region(region, train.model_copy(update={"name": "lost"}))
