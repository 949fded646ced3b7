"""Layouts and encodings from the stack to dataset.json: each dataset holds the pixels of the truth and verifies."""

import numpy as np
import pytest
import rasterio
from tests import dataset_world as dw

from chipmill.core.errors import BadInputError
from chipmill.core.tables import CHIPS, read_table
from chipmill.dataset.cutting import check_storage, record_spec
from chipmill.dataset.manifest import load_manifest
from chipmill.dataset.reader import iter_records, open_dataset
from chipmill.dataset.verify import verify_dataset
from chipmill.region.grid import Window


def dataset(layout="stack", **shards):
    return dw.DATASET | {"layout": layout, "shards": {"target_mb": 0.2} | shards}


def elevation(folder, area):
    """A static layer on the grid of the world, and what the stack must hold of it."""
    values = np.arange(area.height * area.width, dtype=np.int16).reshape(area.height, area.width) % 3000
    dw.stack_world.save_raster(folder / "dem.tif", values, area)
    return values


def built(folder, *, static=False, static_layers=(), **changes):
    """A sealed dataset, and its truth (y, x, band) as a function of a window."""
    area = dw.stack_world.place(3, 3)
    if static:
        values = elevation(folder, area)
        static_layers = [{"name": "elevation", "path": "dem.tif", "resampling": "nearest"}]
    chain = dw.planned(folder, 3, 3, static=static_layers, **changes)
    assert all(result.failed == () for result in chain.write_shards())
    chain.seal()

    def truth(window):
        image = chain.image(window)
        if not static:
            return image
        row, col = window.row_off - area.row_off, window.col_off - area.col_off
        part = values[row : row + window.height, col : col + window.width]
        return np.concatenate([image, part[..., None]], axis=-1)

    return chain, truth


def windows_of(chain):
    rows = read_table(chain.plan.version.chips, CHIPS).to_pylist()
    return {
        row["chip_id"]: Window(row["col_off"], row["row_off"], row["width"], row["height"])
        for row in rows
        if row["state"] == "written"
    }


def flat(sample):
    """(y, x, band) of a sample of any layout, slot by slot, then the static bands."""
    if sample.image.ndim == 3:
        return sample.image
    slots = np.concatenate(list(sample.image), axis=-1)
    return np.concatenate([slots, sample.static], axis=-1) if sample.static.size else slots


@pytest.mark.parametrize(
    ("changes", "static"),
    [
        ({"compression": "gzip"}, False),
        ({"encoding": "geotiff"}, True),
        ({"encoding": "float", "compression": "gzip"}, False),
        ({"layout": "series"}, True),
        ({"layout": "series", "encoding": "float"}, True),
        ({"layout": "series", "compression": "gzip"}, False),
    ],
    ids=str,
)
def test_every_chip_holds_the_pixels_of_its_window(tmp_path, changes, static):
    chain, truth = built(tmp_path, static=static, dataset=dataset(**changes))
    windows, root = windows_of(chain), chain.plan.attempt
    found = {sample.chip_id: sample for sample in iter_records(root)}
    assert found.keys() == windows.keys()
    for chip_id, window in windows.items():
        np.testing.assert_array_equal(flat(found[chip_id]), truth(window))
        np.testing.assert_array_equal(found[chip_id].label, chain.label(window))
    assert verify_dataset(root, data=True).problems == ()
    one = open_dataset(root)[5]  # by its place
    np.testing.assert_array_equal(one.image, found[one.chip_id].image)
    for path in (root / "shards").glob("*.tfrecord*"):
        assert path.name.endswith((".json", ".tfrecord.gz" if "compression" in changes else ".tfrecord"))


def test_a_series_says_what_its_axes_are(tmp_path):
    chain, _ = built(tmp_path, static=True, dataset=dataset("series"))
    manifest = load_manifest(chain.plan.attempt)
    features = {one.name: one for one in manifest.features}
    assert (features["image"].shape, features["image"].axes) == ((2, 32, 32, 3), ("t", "y", "x", "band"))
    assert (features["static"].shape, features["static"].axes) == ((32, 32, 1), ("y", "x", "band"))
    assert features["shape"].shape == (4,)
    assert manifest.layout == "series"
    assert [band.name for band in manifest.bands][2:4] == ["p1_ndvi", "p2_red"]
    assert manifest.bands[-1].name == "elevation"
    assert [slot.name for slot in manifest.slots] == ["p1", "p2"]
    assert manifest.record_spec() == record_spec(chain.plan.region)
    sample = open_dataset(chain.plan.attempt)[0]
    assert (sample.image.shape, sample.static.shape) == ((2, 32, 32, 3), (32, 32, 1))


def test_a_series_has_the_statistics_of_the_stack(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    both = [
        built(tmp_path / name, static=True, dataset=dataset(layout))[0]
        for name, layout in (("a", "stack"), ("b", "series"))
    ]
    stack, series = (load_manifest(chain.plan.attempt) for chain in both)
    assert [band.statistics for band in stack.bands] == [band.statistics for band in series.bands]
    assert stack.certificate == series.certificate
    assert stack.counts == series.counts


def test_the_manifest_says_how_types_were_unified(tmp_path):
    chain, _ = built(tmp_path, dataset=dataset())
    manifest = load_manifest(chain.plan.attempt)
    assert manifest.dtype_rule == "every band is stored as int16, and so is the image"
    assert (manifest.encoding, manifest.compression, manifest.quality) == ("array", "none", None)
    assert [band.offset for band in manifest.bands] == [0.0] * 6


def test_bands_of_several_types_are_widened_and_what_did_not_fit_is_counted(tmp_path):
    area = dw.stack_world.place(3, 3)
    values = elevation(tmp_path, area)
    static = [
        {"name": "high", "path": "dem.tif", "resampling": "nearest", "out": {"dtype": "uint16", "scale": 1, "nodata": 65535}},
        {"name": "low", "path": "dem.tif", "resampling": "nearest", "out": {"dtype": "uint8", "scale": 10, "nodata": 255}},
    ]  # fmt: skip
    chain, _ = built(tmp_path, dataset=dataset(), static_layers=static)
    manifest = load_manifest(chain.plan.attempt)
    assert manifest.dtype == "int32"
    assert manifest.dtype_rule.startswith("bands of int16, uint16, uint8 are widened to the smallest type")
    bands = {band.name: band for band in manifest.bands}
    assert (bands["high"].dtype, bands["low"].dtype, bands["p1_red"].dtype) == ("uint16", "uint8", "int16")
    # 255 is nodata, so 254 is the largest value
    assert (bands["high"].saturated_px, bands["low"].saturated_px) == (
        0,
        int((np.rint(values / 10) > 254).sum()),
    )
    assert bands["low"].saturated_px > 1000
    windows = windows_of(chain)
    for sample in iter_records(chain.plan.attempt):
        window = windows[sample.chip_id]
        row, col = window.row_off - area.row_off, window.col_off - area.col_off
        part = values[row : row + 32, col : col + 32]
        np.testing.assert_array_equal(sample.image[..., :6], chain.image(window))
        np.testing.assert_array_equal(sample.image[..., 6], part)
        np.testing.assert_array_equal(sample.image[..., 7], np.minimum(np.rint(part / 10), 254))
    assert verify_dataset(chain.plan.attempt, data=True).problems == ()


def test_the_same_bytes_whatever_the_order(tmp_path):
    trees = []
    for name, order in (("a", 1), ("b", -1)):
        (tmp_path / name).mkdir()
        chain = dw.planned(tmp_path / name, 3, 3, dataset=dataset("series", compression="gzip"))
        chain.write_shards(order)
        ref = chain.seal()
        shards = sorted((ref.path / "shards").glob("*.gz"))
        trees.append({path.name: path.read_bytes() for path in (*shards, ref.path / "dataset.json")})
    assert trees[0] == trees[1]
    assert len(trees[0]) > 3


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"encoding": "png"}, "toy has 6 bands of int16: set encoding to array"),
        ({"encoding": "jpeg"}, "jpeg holds 1 or 3 bands of uint8"),
        (
            {"layout": "series", "encoding": "geotiff"},
            "no axis of time, region toy has 6 bands of int16 in a series",
        ),
    ],
)
def test_an_encoding_that_cannot_hold_the_bands_is_refused_before_work(tmp_path, changes, said):
    region = dw.stack_world.region(tmp_path, dw.stack_world.place(1, 1), dataset=dataset(**changes))
    with pytest.raises(BadInputError, match=said):
        check_storage(region)
    check_storage(region.model_copy(update={"labels": None}))


def test_a_band_called_like_a_feature_is_refused_where_features_are_bands(tmp_path):
    static = [{"name": "label", "path": "dem.tif"}]
    area = dw.stack_world.place(1, 1)
    for encoding in ("array", "float"):
        region = dw.stack_world.region(tmp_path, area, static=static, dataset=dataset(encoding=encoding))
        if encoding == "array":
            check_storage(region)
            continue
        with pytest.raises(BadInputError, match="a band called label"):
            check_storage(region)


def test_a_geotiff_in_a_shard_opens_in_its_place(tmp_path):
    from chipmill.dataset.examples import iter_features
    from chipmill.dataset.framing import iter_frames

    chain, truth = built(tmp_path, dataset=dataset(encoding="geotiff"))
    shard = min((chain.plan.attempt / "shards").glob("*.tfrecord"))
    features = dict(iter_features(next(iter_frames(shard)).data))
    (tmp_path / "chip.tif").write_bytes(features["image"].raw)
    window = windows_of(chain)[bytes(features["chip_id"].raw).decode()]
    with rasterio.open(tmp_path / "chip.tif") as source:
        assert source.transform == dw.stack_world.LATTICE.transform(window)
        np.testing.assert_array_equal(np.moveaxis(source.read(), 0, -1), truth(window))


def test_what_learns_and_maps_reads_the_label_and_not_its_weight(tmp_path):
    from chipmill.learning.stacks import open_stack, stack_rasters

    area = dw.stack_world.place(3, 3)
    rng = np.random.default_rng(8)
    values = rng.choice(np.array([10, 25, 30], np.uint8), area.shape)
    level = rng.integers(0, 101, area.shape, dtype=np.uint8)
    dw.stack_world.save_raster(tmp_path / "sure.tif", np.stack([values, level]), area)
    labels = {
        "layers": [{"path": "sure.tif"}], "classes": dw.stack_world.CLASSES, "ignore": [0],
        "confidence": {"band": 2, "min": 0, "weight": True},
    }  # fmt: skip
    chain, truth = built(tmp_path, dataset=dataset(encoding="float"), labels=labels)
    assert verify_dataset(chain.plan.attempt, data=True).problems == ()
    inner = Window(area.col_off + 40, area.row_off + 40, 64, 64)
    (raster,) = stack_rasters(chain.plan.version)
    with open_stack(raster, chain.stack.predictors) as reader:
        np.testing.assert_array_equal(reader.pixels(inner), truth(inner))
        codes = np.vectorize({10: 0, 25: 1, 30: 2}.get)(values[40:104, 40:104])
        np.testing.assert_array_equal(reader.label(inner), codes)
    sample = open_dataset(chain.plan.attempt)[0]
    window = windows_of(chain)[sample.chip_id]
    row, col = window.row_off - area.row_off, window.col_off - area.col_off
    part = level[row : row + 32, col : col + 32].astype(float)
    expected = np.where(sample.label == 255, 0, np.rint(254 * part / 100))
    np.testing.assert_array_equal(sample.weight, expected)
