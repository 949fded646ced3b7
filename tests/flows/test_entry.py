"""A flow that nobody has looked for, as a worker starts it: it looks, refuses, says "nothing to do", or goes on."""

import json
from types import SimpleNamespace

import pytest
from prefect.exceptions import ParameterTypeError, PrefectHTTPStatusError
from pyproj import Transformer
from tests.flows import deployed, screen

from chipmill.core.errors import AssetReadError
from chipmill.core.store import lock
from chipmill.flows.build_dataset import build_dataset
from chipmill.flows.refresh_region import refresh_region
from chipmill.flows.train_model import train_model
from chipmill.imagery import catalog, composite
from chipmill.orchestration import jobs
from chipmill.orchestration.cells import is_held
from chipmill.region.config import Region
from chipmill.region.plan import cell_dir
from chipmill.region.roots import check_roots

# as in test_refresh
pytestmark = pytest.mark.filterwarnings("ignore:Dataset has no geotransform")
NOTHING = "everything is up to date: nothing to do"


@pytest.fixture
def root(tmp_path, monkeypatch, small_world, cluster):
    """A root of its own with the small world in it."""
    (tmp_path / "world").symlink_to(small_world.root)
    monkeypatch.setenv("CHIPMILL_ROOTS", f"{tmp_path}:{small_world.root}")
    return tmp_path


@pytest.fixture
def values(small_world):
    """A small region without labels, as the form of the UI sends it: four tiles in the middle of the world."""
    to_degrees = Transformer.from_crs(small_world.crs, 4326, always_xy=True)
    x, y = small_world.transform @ (small_world.shape[1] / 2, small_world.shape[0] / 2)
    return {
        "name": "entry",
        "file": "regions/entry.yaml",
        "aoi": {"bbox": to_degrees.transform_bounds(x - 700, y - 700, x + 700, y + 700)},
        "time": {"range": ["2019-01-01", "2019-04-01"]},
        "grid": {"tile_px": 128},
        "imagery": [
            {
                "name": "s2",
                "source": {"catalog": "../world/catalog/catalog.json", "collection": small_world.collection},
                "bands": {"red": "red"},
                "clear": {"floor": 0.1},
            }
        ],
        "output": "../out",
    }


@pytest.fixture
def seen(monkeypatch):
    """Count searches, and tiles whose composite is written; the tiles named in ``broken`` cannot be read."""

    seen = SimpleNamespace(searches=0, written=[], broken=set())

    def write_composite(path, order, strips, behind):
        tile = path.name.rpartition("-")[0]
        if tile in seen.broken:
            raise AssetReadError("a planted fault")
        seen.written.append(tile)
        return real_write(path, order, strips, behind)

    def find_items(region, tiles):
        seen.searches += 1
        return real_find(region, tiles)

    real_write, real_find = composite.write_composite, catalog.find_items
    monkeypatch.setattr(composite, "write_composite", write_composite)
    monkeypatch.setattr(catalog, "find_items", find_items)
    monkeypatch.setattr(jobs, "find_items", find_items)
    return seen


def tiles_of(values):
    return [tile.tile_id for tile in jobs.place_tiles(check_roots(Region.model_validate(values)))[1]]


def test_a_retried_run_redoes_only_the_missing_units_and_the_next_one_has_nothing_to_do(
    root, values, seen, client
):
    flow = deployed.deploy(build_dataset)
    tiles = tiles_of(values)
    seen.broken.add(tiles[1])
    run = deployed.start(client, flow, region=values)
    failed = deployed.work(client, build_dataset, run.id)
    assert failed.is_failed()
    assert f"the first is {tiles[1]}: a planted fault" in failed.message
    assert sorted(seen.written) == sorted({*tiles} - {tiles[1]})
    assert not (root / "out/regions/entry/2019-01-01--2019-04-01/versions/1").exists()

    seen.broken.clear()
    seen.written.clear()
    deployed.retry(client, run.id)
    assert deployed.work(client, build_dataset, run.id).is_completed()
    assert client.read_flow_run(run.id).run_count == 2
    assert seen.written == [tiles[1]]
    assert (root / "out/regions/entry/2019-01-01--2019-04-01/CURRENT").read_text() == "1\n"
    assert seen.searches == 2, "a search for each time that the run was started, and no more"

    again = deployed.start(client, flow, region=values)
    done = deployed.work(client, build_dataset, again.id)
    assert (done.is_completed(), done.message) == (True, NOTHING)
    assert seen.searches == 3
    assert screen.task_runs(client, again.id) == {}
    assert not is_held(check_roots(Region.model_validate(values)))


def test_on_failed_of_the_run_stands_above_that_of_the_region(root, values, seen, client):
    tiles = tiles_of(values)
    seen.broken.add(tiles[0])
    state = refresh_region(Region.model_validate(values), on_failed="commit", return_state=True)
    assert state.is_failed()
    assert "1 units failed, all others are committed in" in state.message
    manifest = root / "out/regions/entry/2019-01-01--2019-04-01/versions/1/dataset.json"
    assert [one["unit"] for one in json.loads(manifest.read_text())["failures"]] == [tiles[0]]


def refused(client, flow, **parameters):
    """Start a deployed flow that must fail before any work, and return why."""
    run = deployed.start(client, deployed.deploy(flow), **parameters)
    state = deployed.work(client, flow, run.id)
    assert state.is_failed()
    assert screen.task_runs(client, run.id) == {}
    return state.message


def test_bad_input_is_refused_before_any_work_with_the_name_of_the_field(
    root, values, seen, client, tmp_path, monkeypatch
):
    assert "region.dataset.chips.size_px" in refused(
        client, build_dataset, region=values | {"dataset": {"chips": {"size_px": "many"}}}
    )
    outside = values | {"static": [{"name": "dem", "path": "/etc/passwd"}]}
    assert "static.dem: '/etc/passwd' lies outside the directories of CHIPMILL_ROOTS" in refused(
        client, build_dataset, region=outside
    )
    stranger = {"path": "/etc", "version": 1, "fingerprint": "f", "chips": 1, "shards": 1, "failed": 0}
    assert "dataset.path: '/etc' lies outside" in refused(
        client, refresh_region, region=values, dataset=stranger
    )
    assert "datasets.0.path: '/etc' lies outside" in refused(
        client, train_model, train={"name": "m"}, datasets=[stranger]
    )
    listed = {"name": "m", "datasets": ["../../elsewhere.yaml"]}
    assert "datasets.0: '../../elsewhere.yaml' lies outside" in refused(client, train_model, train=listed)
    assert "datasets is empty: name at least one region file" in refused(
        client, train_model, train={"name": "m"}
    )
    assert "model none is not in" in refused(
        client, refresh_region, region=values, predict={"model": "none"}
    ), "before the dataset is built"
    monkeypatch.delenv("CHIPMILL_ROOTS")
    assert "CHIPMILL_ROOTS is not set for this worker" in refused(client, build_dataset, region=values)
    assert seen.searches == 0
    assert not (tmp_path / "out").exists()


def test_a_cell_that_another_run_works_on_is_refused_with_its_name(root, values, client):
    place = cell_dir(check_roots(Region.model_validate(values))).lock
    with lock(place, "of chipmill build entry.yaml"):
        assert "run of chipmill build entry.yaml" in refused(client, build_dataset, region=values)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"dataset": {"chips": {"size_px": "many"}}}, "region.dataset.chips.size_px"),
        ({"reginn": 1}, "region.reginn"),
        ({"output": "s3://bucket/out"}, "region.output"),
    ],
)
def test_a_wrong_value_is_answered_with_the_name_of_its_field(values, change, field):
    with pytest.raises(ParameterTypeError, match=rf"{field}: "):
        build_dataset.validate_parameters({"region": values | change})


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"dataset": {"chips": {"size_px": 7}}}, "region.dataset.chips.size_px"),
        ({"on_failed": "go on"}, "region.on_failed"),
    ],
)
def test_the_server_refuses_to_make_a_run_with_a_wrong_value(values, client, change, field):
    made = deployed.deploy(build_dataset, checked=True)
    with pytest.raises(PrefectHTTPStatusError) as refused_with:
        client.create_flow_run_from_deployment(made, parameters={"region": values | change})
    assert f"Validation failed for field '{field}'" in refused_with.value.response.json()["detail"]
