"""Figures and bundle: each held-out pixel once, equal to the map; a version is whole, or remade where it is not."""

import json
import shutil

import numpy as np
import pytest
import rasterio
from tests.learning.conftest import make_model

from chipmill.core.errors import DamagedFileError, VersionNotFoundError
from chipmill.core.paths import OutputDir, VersionDir
from chipmill.core.units import load_batches
from chipmill.learning import bundle, metrics
from chipmill.learning.evaluation import held_blocks
from chipmill.learning.files import ModelDir
from chipmill.learning.stacks import open_stack, stack_rasters
from chipmill.mapping import areas, outputs, prediction
from chipmill.region.jobs import PredictConfig

pytestmark = pytest.mark.tensorflow


def predict_config(output, **changes):
    return PredictConfig(**({"model": "toy", "output": str(output)} | changes))


def make_map(ground, model, predict):
    """Plan, predict, stitch, measure, publish."""
    plan = prediction.plan_map(ground.dataset, ground.region, model, predict, "run")
    for batch in load_batches(plan.attempt, prediction.STAGE):
        assert not prediction.predict_strips(plan, batch).failed
    return plan, outputs.publish_map(plan, areas.estimate_areas(plan, outputs.stitch_map(plan)))


@pytest.fixture(scope="module")
def mapped(ground, trained, tmp_path_factory):
    output = tmp_path_factory.mktemp("map")
    return output, *make_map(ground, trained[1], predict_config(output))


@pytest.fixture(scope="module")
def stack(ground):
    """Pixels and label of the whole region."""
    version = VersionDir(ground.dataset.path)
    (raster,) = stack_rasters(version)
    from chipmill.dataset.union import dataset_schema

    with open_stack(raster, dataset_schema(ground.dataset.path).bands) as reader:
        pixels = reader.pixels(raster.extent)
        return raster, reader.observed(pixels), reader.label(raster.extent)


def read(path):
    with rasterio.open(path) as opened:
        return opened.read()


def test_the_figures_are_those_of_the_map_on_held_out_blocks_each_pixel_once(ground, trained, mapped, stack):
    raster, observed, label = stack
    classes = read(mapped[2].path / "classes-32633.tif")[0]
    held = np.zeros(label.shape, int)
    for block in held_blocks(ground.dataset.path, "test"):
        top, left = block.window.row_off - raster.extent.row_off, block.window.col_off - raster.extent.col_off
        held[top : top + block.window.height, left : left + block.window.width] += 1
    assert held.max() == 1
    assert (held > 0).sum() > 5000
    valid = (held > 0) & (label != 255) & observed
    # the map stops at the AOI, the figures at the blocks
    inside = valid & (classes != 255)
    facts = json.loads(ModelDir(trained[1].path).metrics.read_text())["splits"]["test"]
    assert facts["pixels"] == valid.sum()
    counted = metrics.confusion_matrix(label[inside], classes[inside], 3)
    gap = np.array(facts["confusion"]) - counted
    assert gap.min() >= 0
    assert gap.sum() == (valid & ~inside).sum()
    assert trained[1].miou == facts["miou"] > 0.8


def test_no_pixel_of_a_train_chip_is_evaluated(ground, stack):
    from chipmill.core.tables import CHIPS, read_table
    from chipmill.region.grid import Window

    rows = read_table(VersionDir(ground.dataset.path).chips, CHIPS).to_pylist()
    train = [row for row in rows if row["split"] == "train" and row["state"] == "written"]
    windows = [Window(row["col_off"], row["row_off"], row["width"], row["height"]) for row in train]
    for split in ("val", "test"):
        blocks = held_blocks(ground.dataset.path, split)
        assert blocks
        assert not any(block.window.intersection(window) for block in blocks for window in windows)


def test_calibration_is_fitted_on_validation_and_reported(trained):
    facts = json.loads(ModelDir(trained[1].path).metrics.read_text())
    assert facts["splits"]["val"]["ece_after"] <= facts["splits"]["val"]["ece_before"]
    assert bundle.load_bundle(trained[1].path).temperature == facts["temperature"]
    assert list(facts["splits"]["test"]["datasets"]) == ["toy/2019-01-01--2020-01-01"]


def test_nothing_to_do_is_found_and_any_missing_file_is_noticed(ground, trained, tmp_path):
    train, ref = trained
    assert bundle.current_model(train, (ground.dataset,)) == ref
    assert bundle.current_model(train.model_copy(update={"seed": 9}), (ground.dataset,)) is None
    for path in ModelDir(ref.path).products:
        shutil.move(path, tmp_path / path.name)
        assert bundle.current_model(train, (ground.dataset,)) is None
        shutil.move(tmp_path / path.name, path)
    assert bundle.current_model(train, (ground.dataset,)) == ref


def test_without_metrics_only_the_evaluation_is_redone(ground, trained, tmp_path):
    train, ref = trained
    copy = train.model_copy(update={"output": str(tmp_path)})
    shutil.copytree(
        OutputDir(train.output_dir).models("toy").folder, OutputDir(tmp_path).models("toy").folder
    )
    old = ModelDir(OutputDir(tmp_path).models("toy").path(1))
    facts = old.metrics.read_bytes()
    old.metrics.unlink()
    made = make_model(copy, ground.dataset)
    assert (made.version, made.fingerprint) == (2, ref.fingerprint)
    assert ModelDir(made.path).weights.stat().st_ino == old.weights.stat().st_ino
    assert ModelDir(made.path).metrics.read_bytes() == facts


def test_a_loaded_model_is_the_trained_one_and_damaged_weights_are_refused(trained, tmp_path):
    copy = tmp_path / "1"
    shutil.copytree(trained[1].path, copy)
    loaded = bundle.load_model(bundle.load_bundle(copy))
    assert loaded.count_params() == json.loads((copy / "model.json").read_text())["parameters"]
    data = bytearray(ModelDir(copy).weights.read_bytes())
    data[len(data) // 2] ^= 1
    ModelDir(copy).weights.write_bytes(data)
    with pytest.raises(DamagedFileError, match=r"not what model\.json names"):
        bundle.load_model(bundle.load_bundle(copy))


def test_models_are_found_by_name_and_number(trained, tmp_path):
    train, ref = trained
    assert bundle.find_model("toy", train.output_dir) == ref
    assert bundle.find_model("toy@1", train.output_dir) == ref
    for name in ("toy@2", "nobody"):
        with pytest.raises(VersionNotFoundError, match=name):
            bundle.find_model(name, train.output_dir)


def test_card_and_item_tell_the_facts(trained):
    import pystac

    files = ModelDir(trained[1].path)
    card = files.card.read_text()
    assert "Each pixel once".lower() in card.lower()
    assert f"mIoU {trained[1].miou:.3f}" in card
    item = pystac.Item.from_dict(json.loads(files.item.read_text()))
    assert item.properties["mlm:output"][0]["classification:classes"][0]["name"] == "water"
    assert (files.root / item.assets["weights"].href).is_file()
    assert len(item.properties["mlm:input"][0]["bands"]) == 6


def test_the_map_is_a_set_of_valid_cogs_on_the_grid_of_the_stack(mapped, stack):
    from rio_cogeo import cog_validate

    raster = stack[0]
    for layer, count in (("classes", 1), ("confidence", 1), ("probabilities", 3)):
        path = mapped[2].path / f"{layer}-32633.tif"
        valid, errors, _ = cog_validate(path)
        assert valid, errors
        with rasterio.open(path) as opened:
            assert (opened.count, opened.nodata, opened.dtypes[0]) == (count, 255, "uint8")
            assert opened.transform == raster.lattice.transform(raster.extent)
            assert opened.crs.to_epsg() == 32633
    with rasterio.open(mapped[2].path / "classes-32633.tif") as opened:
        assert opened.colormap(1)[0][:3] == (47, 111, 181)
    assert "<Category>water</Category>" in (mapped[2].path / "classes-32633.tif.aux.xml").read_text()


def test_layers_agree_and_nodata_is_where_nothing_was_seen_or_wanted(mapped, stack):
    raster, observed, _ = stack
    classes, confidence = (
        read(mapped[2].path / f"{name}-32633.tif")[0] for name in ("classes", "confidence")
    )
    shares = read(mapped[2].path / "probabilities-32633.tif")
    wanted = observed & prediction.covered(raster, raster.extent)
    assert 0 < wanted.sum() < wanted.size
    for layer in (classes, confidence, *shares):
        assert ((layer != 255) == wanted).all()
    assert (shares.max(axis=0)[wanted] == confidence[wanted]).all()
    assert (
        np.take_along_axis(shares, np.where(wanted, classes, 0)[None].astype(int), 0)[0] == shares.max(axis=0)
    )[wanted].all()
    assert np.abs(shares[:, wanted].sum(axis=0) - 254.0).max() <= 3


def test_other_strips_give_the_same_map(ground, trained, mapped, tmp_path, monkeypatch):
    monkeypatch.setattr(prediction, "STRIP_PX", 48)
    _, other = make_map(ground, trained[1], predict_config(tmp_path))
    for layer in ("classes", "confidence", "probabilities"):
        one, two = (read(path / f"{layer}-32633.tif").astype(int) for path in (mapped[2].path, other.path))
        # blending in another order moves the last bit of a float, and with it rarely a rounding
        assert np.mean(one != two) < 1e-3
        assert np.abs(one - two).max() <= (2 if layer == "classes" else 1)


def test_a_map_in_force_is_found_and_a_missing_layer_is_noticed(ground, trained, mapped, tmp_path):
    output, _, ref = mapped
    predict = predict_config(output)
    assert outputs.current_map(ground.dataset, ground.region, trained[1], predict) == ref
    other = predict_config(output, overlap=0.5)
    assert outputs.current_map(ground.dataset, ground.region, trained[1], other) is None
    lost = ref.path / "confidence-32633.tif"
    shutil.move(lost, tmp_path / "x.tif")
    assert outputs.current_map(ground.dataset, ground.region, trained[1], predict) is None
    shutil.move(tmp_path / "x.tif", lost)


def test_a_new_version_of_the_same_model_takes_over_the_layers(ground, trained, mapped):
    import dataclasses

    output, _, ref = mapped
    newer = dataclasses.replace(trained[1], version=2)
    plan = prediction.plan_map(ground.dataset, ground.region, newer, predict_config(output), "run")
    one, two = (path / "classes-32633.tif" for path in (ref.path, plan.attempt))
    assert one.stat().st_ino == two.stat().st_ino
    assert outputs.stitch_map(plan).rasters == ("32633",)
    assert two.with_name(f"{two.name}.aux.xml").is_file()


def test_areas_add_up(mapped):
    import csv

    with (mapped[2].path / "areas.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    classes = read(mapped[2].path / "classes-32633.tif")[0]
    assert [int(row["mapped_px"]) for row in rows] == [int((classes == code).sum()) for code in range(3)]
    # UTM: 0.9996 on the central meridian, so a nominal hectare is up to 0.08 % more on the ground
    for row in rows:
        assert float(row["mapped_ha"]) == pytest.approx(int(row["mapped_px"]) / 100, rel=1e-3)
    assert sum(float(row["mapped_share"]) for row in rows) == pytest.approx(1)
