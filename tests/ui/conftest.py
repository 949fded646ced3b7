"""Real pages of a small dataset, a model, a map and a run, drawn once for all tests of this tier."""

import pytest
from tests import report_world

from chipmill.core.units import UnitFailure
from chipmill.region.load import load_region
from chipmill.report.dataset import dataset_page
from chipmill.report.map import map_page
from chipmill.report.model import model_page
from chipmill.report.run import Made, RunFacts, StageTime, run_page


@pytest.fixture(scope="session")
def dataset(small_world, tmp_path_factory):
    """Directory of a committed dataset."""
    return report_world.make_dataset(small_world, tmp_path_factory.mktemp("pages"))


@pytest.fixture(scope="session")
def archive(dataset):
    """The region of the dataset as its own file says it."""
    return load_region(dataset.parents[5] / "region.yaml")


@pytest.fixture(scope="session")
def pages(dataset, archive, tmp_path_factory):
    """Kind of page -> its file."""
    out = tmp_path_factory.mktemp("html")
    model = report_world.make_model(dataset, out / "model")
    mapped = report_world.make_map(dataset, out / "map")
    run = RunFacts(
        name="refresh-region/meadows/2019-01-01--2020-01-01",
        state="Failed",
        host="host",
        started="2026-01-01T00:00:00+00:00",
        seconds=75.0,
        stages=(StageTime("rank_items", 5.0, 9, 0), StageTime("predict_strips", 60.0, 3, 1)),
        made=(Made("map", "meadows", out / "map.html"),),
        failures=(UnitFailure("predict_strips", "32633-7", "out of <memory>", True),),
        redo="chipmill run meadows.yaml",
        versions=(("chipmill", "0.1.0"),),
    )
    return {
        "dataset": dataset_page(dataset, out / "dataset.html", archive=archive),
        "model": model_page(model, (), out / "model.html"),
        "map": map_page(mapped, out / "map.html"),
        "run": run_page(run, out / "run.html"),
    }
