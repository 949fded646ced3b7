"""A model of Boadella maps Mol and Antwerp: another place and grid, images smaller than a chip, and what must be told."""

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from benchmarks import chain
from tests.learning.test_evaluation import make_map

from chipmill.core.errors import SchemaMismatchError
from chipmill.core.paths import VersionDir
from chipmill.learning.blending import predict_blended
from chipmill.learning.bundle import load_bundle, load_model
from chipmill.learning.calibration import apply_temperature
from chipmill.learning.model import probability_fn
from chipmill.learning.stacks import open_stack, stack_rasters
from chipmill.mapping.files import MapDir
from chipmill.mapping.prediction import plan_map, quantise
from chipmill.region.config import Grid, Region
from chipmill.region.load import load_predict, load_region, load_train
from chipmill.report.map import map_page

pytestmark = [pytest.mark.real, pytest.mark.tensorflow]

REGIONS = Path(__file__).resolve().parents[2] / "deployments" / "regions"


def shipped(name: str, output: Path, **changes) -> Region:
    return load_region(REGIONS / f"{name}.yaml").model_copy(update={"output": str(output), **changes})


@pytest.fixture(scope="module")
def model(shared_data, tmp_path_factory):
    """The shipped model of four bands, trained for a moment: what it maps is no matter here, how it is asked is."""
    folder = tmp_path_factory.mktemp("rgbn")
    quick = {"output": str(folder), "preset": "tiny", "epochs": 2}
    train = load_train(REGIONS / "boadella-rgbn-train.yaml").model_copy(update=quick)
    return chain.train(train, chain.build(shipped("boadella-rgbn", folder)))


def asked(model, region: Region):
    """Return what make_map wants of a ground, the model and the predict file."""
    ground = type("Ground", (), {"region": region, "dataset": chain.build(region)})
    predict = load_predict(REGIONS / "belgium-predict.yaml")
    return ground, model, predict.model_copy(update={"output": str(region.output_dir)})


@pytest.mark.parametrize(("name", "shape"), [("mol", (66, 66)), ("antwerp", (52, 52))])
def test_a_small_image_on_its_own_grid_is_mapped_as_if_nodata_lay_around_it(
    model, shared_data, tmp_path, name, shape
):
    ground, _, predict = asked(model, shipped(name, tmp_path))
    plan, ref = make_map(ground, model, predict)
    assert plan.notes == ()
    with rasterio.open(MapDir(ref.path).layer("probabilities", "32631")) as opened:
        assert (opened.crs.to_epsg(), opened.shape, opened.res) == (32631, shape, (10, 10))
        shares = opened.read()
    bundle = load_bundle(model.path)
    (raster,) = stack_rasters(VersionDir(ground.dataset.path))
    with open_stack(raster, bundle.schema.bands) as reader:
        pixels = reader.pixels(raster.extent)
        seen = reader.observed(pixels)
    assert 0.85 < seen.mean() < 1
    mapped = shares[0] != 255
    assert (mapped <= seen).all()
    assert mapped.sum() > 0.9 * seen.sum()
    side = bundle.schema.chip_px
    grown = np.full((max(shape[0], side), max(shape[1], side), pixels.shape[2]), -32768, np.int16)
    grown[: shape[0], : shape[1]] = pixels
    origin = raster.extent.row_off, raster.extent.col_off
    raw = predict_blended(probability_fn(load_model(bundle)), grown, side, predict.overlap, origin)
    expected = quantise(apply_temperature(raw, bundle.temperature))[2:, : shape[0], : shape[1]]
    gaps = np.abs(shares.astype(int) - expected)[:, mapped]
    assert gaps.max() <= 1  # of 254: the last bit of a float may turn a rounding
    assert np.ptp(expected[:, mapped]) > 20, "a model that hesitates somewhere: else nothing is compared"


def test_another_resolution_is_told_in_the_manifest_and_the_report_of_the_map(model, shared_data, tmp_path):
    region = shipped("mol", tmp_path, grid=Grid(crs="EPSG:32631", resolution=12, tile_px=64))
    ground, _, predict = asked(model, region)
    plan, ref = make_map(ground, model, predict)
    (note,) = plan.notes
    assert note.startswith(
        "region mol has pixels of 12 m and model boadella-water-rgbn@1 of 9.994 m, 20.1 % apart"
    )
    assert json.loads(MapDir(ref.path).facts.read_text())["notes"] == [note]
    assert note in map_page(ref.path, tmp_path / "page.html").read_text()


def test_a_resolution_more_than_a_quarter_off_is_refused_before_work(model, shared_data, tmp_path):
    region = shipped("mol", tmp_path, grid=Grid(crs="EPSG:32631", resolution=20, tile_px=64))
    ground, _, predict = asked(model, region)
    with pytest.raises(SchemaMismatchError, match=r"pixels of 20 m and .* of 9\.994 m, more than 25 % apart"):
        plan_map(ground.dataset, region, model, predict)
    assert not (tmp_path / "maps").exists()


def test_a_region_without_one_of_the_bands_is_refused(model, shared_data, tmp_path):
    region = shipped("mol", tmp_path, indices=())
    ground, _, predict = asked(model, region)
    with pytest.raises(SchemaMismatchError, match="bands differs"):
        plan_map(ground.dataset, region, model, predict)
