"""How sure a label is, from the confidence band of its source to the weight of a sample."""

import numpy as np
import pytest
import rasterio
from tests import dataset_world as dw
from tests import stack_world as sw

from chipmill.core.errors import LabelError
from chipmill.dataset.labels import check_label_values, label_fingerprint, label_path, paint_label
from chipmill.dataset.manifest import publish_dataset
from chipmill.dataset.reader import open_dataset
from chipmill.region.grid import Window, lattice_of

CONFIDENCE = {"band": 2, "min": 30, "weight": True}
INNER = np.s_[3:-3, 3:-3]


def _labels(**changes):
    return {
        "layers": [{"path": "sure.tif"}],
        "classes": sw.CLASSES,
        "ignore": [0],
        "confidence": CONFIDENCE,
    } | changes


def _sources(folder, area, seed=6):
    """A label with a confidence of 0..120 beside it; above 100 is as sure as 100."""
    rng = np.random.default_rng(seed)
    values = rng.choice(np.array([0, 10, 25, 30], dtype=np.uint8), area.shape)
    level = rng.integers(0, 121, area.shape, dtype=np.uint8)
    sw.save_raster(folder / "sure.tif", np.stack([values, level]), area)
    return values, level


def _expected(values, level, low=30, full=100):
    weight = np.rint(254 * np.minimum(level / full, 1))
    return np.where((values == 0) | (level < low), 0, weight)


def _setup(folder, **labels):
    region = sw.region(folder, sw.place(1, 1), labels=_labels(**labels))
    return region, sw.plan(folder, region).tiles()[0]


def test_the_weight_is_the_confidence_and_nothing_where_there_is_no_label(tmp_path):
    region, tile = _setup(tmp_path)
    values, level = _sources(tmp_path, tile.window)
    painted = paint_label(region, tile)
    np.testing.assert_array_equal(painted.weight[INNER], _expected(values, level)[INNER])
    assert ((painted.weight == 0) | (painted.label != 255)).all() and painted.weight.max() == 254
    region, tile = _setup(tmp_path, confidence=CONFIDENCE | {"full": 50, "min": 0})
    weight = paint_label(region, tile).weight
    np.testing.assert_array_equal(weight[INNER], _expected(values, level, 0, 50)[INNER])
    region, tile = _setup(tmp_path, confidence={"band": 2, "min": 30})
    assert paint_label(region, tile).weight is None


def test_a_pixel_has_the_weight_of_the_layer_whose_class_it_has(tmp_path):
    layers = [
        {"path": "sure.tif"},
        {"path": "v.gpkg", "value": 10, "rule": "first"},
        {"path": "other.tif", "rule": "max"},
        {"path": "w.gpkg", "rule": "difference"},
    ]
    region, tile = _setup(tmp_path, layers=layers, outside="tree")
    (values, level), (others, more) = (_sources(tmp_path, tile.window, seed) for seed in (6, 7))
    level[:], more[:] = np.maximum(level, 30), np.maximum(more, 30)
    sw.save_raster(tmp_path / "sure.tif", np.stack([values, level]), tile.window, nodata=10)
    sw.save_raster(tmp_path / "other.tif", np.stack([others, more]), tile.window)
    sw.save_vectors(tmp_path / "v.gpkg", [sw.box(tile, 0, 0, 64, 64)])
    sw.save_vectors(tmp_path / "w.gpkg", [sw.box(tile, 20, 20, 10, 10)])
    codes = {0: 255, 10: 0, 25: 1, 30: 2}
    first = np.where(values == 10, 0, np.vectorize(codes.get)(values))
    second = np.vectorize(codes.get)(others)
    wins = (second != 255) & ((first == 255) | (second > first))
    label = np.where(wins, second, first)
    weight = np.where(wins, _expected(others, more), np.where(values == 10, 254, _expected(values, level)))
    label[20:30, 20:30], weight[20:30, 20:30] = (
        1,
        254,
    )  # taken away: the class of outside, which the user names
    weight[label == 255] = 0
    painted = paint_label(region, tile)
    np.testing.assert_array_equal(painted.label[INNER], label[INNER])
    np.testing.assert_array_equal(painted.weight[INNER], weight[INNER])


@pytest.mark.parametrize(("resampling", "between"), [("nearest", False), ("mode", True)])
def test_weights_of_another_grid_go_with_their_labels(tmp_path, resampling, between):
    region, tile = _setup(tmp_path, resampling=resampling)
    window = Window(tile.window.col_off * 2, tile.window.row_off * 2, 128, 128)
    level = np.tile(np.array([[40, 80], [80, 40]], np.uint8), (64, 64))
    sw.save_raster(tmp_path / "sure.tif", np.stack([level * 0 + 25, level]), window, lattice_of(32633, 5.0))
    painted = paint_label(region, tile)
    found = set(np.unique(painted.weight[INNER]))
    assert found and found <= ({152, 153} if between else {102, 203})  # the mean of both is 152.5
    assert (painted.label[INNER] == 1).all()


def test_a_layer_that_is_sure_needs_no_band(tmp_path):
    layers = [{"path": "sure.tif"}, {"path": "plain.tif", "rule": "first"}]
    region, tile = _setup(tmp_path, layers=layers)
    values, level = _sources(tmp_path, tile.window)
    level[:] = np.maximum(level, 30)
    sw.save_raster(tmp_path / "sure.tif", np.stack([values, level]), tile.window, nodata=10)
    sw.save_raster(tmp_path / "plain.tif", np.full((64, 64), 30, np.uint8), tile.window)
    for look in (lambda: paint_label(region, tile), lambda: check_label_values(region, [tile])):
        with pytest.raises(LabelError, match=r"plain\.tif has 1 band\(s\): .*say sure: true"):
            look()
    region, tile = _setup(tmp_path, layers=[layers[0], layers[1] | {"sure": True}])
    check_label_values(region, [tile])
    painted = paint_label(region, tile)
    assert (painted.label[INNER][values[INNER] == 10] == 2).all()
    expected = np.where(values == 10, 254, _expected(values, level))
    np.testing.assert_array_equal(painted.weight[INNER], expected[INNER])


def test_a_raster_without_the_band_is_refused(tmp_path):
    region, tile = _setup(tmp_path, confidence=CONFIDENCE | {"band": 3})
    _sources(tmp_path, tile.window)
    with pytest.raises(LabelError, match=r"2 band\(s\)"):
        paint_label(region, tile)


def test_weights_lie_in_the_label_file_the_stack_and_the_samples(tmp_path):
    area = sw.place(4, 4)
    values, level = _sources(tmp_path, area)
    chain = dw.planned(tmp_path, labels=_labels())
    assert chain.stack.bands[-2:] == ("weight", "label")
    assert [layer.name for layer in chain.stack.predictors] == list(chain.stack.bands[:-2])
    tile = chain.plan.tiles()[5]
    with rasterio.open(label_path(chain.plan, tile)) as dataset:
        assert dataset.descriptions == ("label", "weight") and dataset.dtypes == ("uint8", "uint8")
    chain.write_shards()
    chain.seal()
    dataset = open_dataset(publish_dataset(chain.plan).path)
    truth = _expected(values, level)
    assert len(dataset) > 20
    for sample in dataset:
        row = round((sw.LATTICE.origin_y - sample.transform[5]) / 10) - area.row_off
        column = round((sample.transform[2] - sw.LATTICE.origin_x) / 10) - area.col_off
        own = np.where(sample.label == 255, 0, truth[row : row + 32, column : column + 32])
        np.testing.assert_array_equal(sample.weight, own)
    plain = chain.plan.region.labels.model_copy(update={"confidence": None})
    other = chain.plan.region.model_copy(update={"labels": plain})
    assert label_fingerprint(other, tile) != label_fingerprint(chain.plan.region, tile)
