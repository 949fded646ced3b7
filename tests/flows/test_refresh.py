"""The four flows on the embedded world: the graph that the screen shows is the chain of the design, and nothing else."""

from pathlib import Path

import pytest
from tests.flows import screen

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

    return refresh_region(*files, return_state=True)


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


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("flow", "chain"),
    [("build-dataset", BUILD), ("train-model", TRAIN), ("predict-map", PREDICT), ("refresh-region", REFRESH)],
)
def test_the_graph_is_the_chain_of_the_design(runs, client, flow, chain):
    run = runs[flow]["id"]
    assert runs[flow]["state_type"] == "COMPLETED"
    assert screen.wait_for(lambda: screen.open_task_runs(client, run), lambda found: not found) == []
    assert screen.wait_for(lambda: screen.edges(client, run), lambda found: found == chain) == chain


@pytest.mark.tensorflow
def test_runs_are_named_by_region_and_cell(runs):
    names = {run["name"] for run in runs.values()}
    cell = "demo/2019-01-01--2020-01-01"
    assert names >= {f"{flow}/{cell}" for flow in ("refresh-region", "build-dataset", "predict-map")}


@pytest.mark.tensorflow
def test_what_was_made_is_whole_and_told(refreshed):
    made = refreshed.result()
    for product in (made.dataset, made.model, made.map):
        assert (product.path / "report.html").is_file()
        assert product.version == 1
    assert made.record.is_file()
    page = made.page.read_text()
    for stage in ("composite_tiles", "write_shards", "fit_model", "predict_strips"):
        assert stage in page


@pytest.mark.tensorflow
def test_the_funnel_and_the_progress_are_on_the_screen(runs, client, refreshed):
    found = screen.artifacts(client, runs["build-dataset"]["id"])
    stages = ("rank-items", "composite-tiles", "grid-layers", "index-windows", "write-shards")
    assert found.keys() >= {"funnel-demo", "report-demo", *(f"progress-{stage}" for stage in stages)}
    assert {found[f"progress-{stage}"]["data"] for stage in stages} == {100.0}
    assert str(refreshed.result().dataset.chips) in found["funnel-demo"]["data"]


@pytest.mark.tensorflow
def test_what_is_in_force_is_found_without_starting_anything(refreshed, files, monkeypatch):
    from chipmill.orchestration import run

    monkeypatch.setattr(run, "running_server", lambda: pytest.fail("a server was started"))
    summary = run.run_job(run.Job("refresh", *files), lambda: pytest.fail("a flow was imported"))
    made = refreshed.result()
    assert (summary.exit_code, summary.changed) == (0, False)
    assert (summary.dataset, summary.model, summary.map) == (made.dataset, made.model, made.map)


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("lost", "remade"),
    [
        ("regions/demo/composites/*/*/*.tif", "dataset"),
        ("models/*/1/metrics.json", "model"),
        ("maps/*/*/*/1/areas.csv", "map"),
    ],
)
def test_what_is_missing_is_noticed_and_only_what_depends_on_it(refreshed, files, lost, remade):
    from chipmill.orchestration import run

    found = min(Path(files[0].output_dir).glob(lost))
    kept = found.read_bytes()
    found.unlink()
    try:
        have = run.look(run.Job("refresh", *files))
    finally:
        found.write_bytes(kept)
    order = ["dataset", "model", "map"]
    missing = [name for name in order if getattr(have, name) is None]
    assert missing == order[order.index(remade) :]
