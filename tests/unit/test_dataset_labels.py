import json

import numpy as np
import pytest
import rasterio
import shapely
from rasterio.enums import Resampling
from tests import stack_world as sw

from chipmill.core.errors import LabelError
from chipmill.core.store import read_sidecar
from chipmill.core.units import load_batches
from chipmill.dataset.classes import ValueMap, default_color, resolve_classes
from chipmill.dataset.labels import (
    check_label_values,
    grid_layers,
    label_fingerprint,
    label_path,
    paint_label,
    static_path,
)
from chipmill.region.grid import Lattice, Window, lattice_of, reproject_shape

CODES = {0: 255, 10: 0, 20: 1, 25: 1, 29: 1, 30: 2, 255: 255}


def _setup(folder, labels=None, **changes):
    """Return (region, tile) of a one-tile world with the given labels section over the defaults."""
    default = {"layers": [{"path": "label.tif"}], "classes": sw.CLASSES, "ignore": [0]}
    config = sw.region(folder, sw.place(1, 1), labels=default | (labels or {}), **changes)
    return config, sw.plan(folder, config).tiles()[0]


def _values(seed=1, shape=(64, 64)):
    return np.random.default_rng(seed).choice(np.array([0, 10, 20, 25, 29, 30], dtype=np.uint8), shape)


def _inside(tile):
    """The world's AOI leaves three pixels on each side."""
    mask = np.zeros(tile.shape, dtype=bool)
    mask[3:-3, 3:-3] = True
    return mask


def _expected(values, tile):
    return np.where(_inside(tile), np.vectorize(CODES.get)(values), 255)


def test_classes_are_numbered_in_the_order_of_their_names():
    config = {"40": "crop", "10": "water", "20-30": "crop", "5": "built"}
    region = sw.Region.model_validate(
        {
            "name": "r", "aoi": {"bbox": [1, 2, 3, 4]}, "time": {"range": ("2019-01-01", "2020-01-01")},
            "imagery": [{"name": "s2", "source": {"catalog": "c"}, "bands": {"red": "red"}}],
            "labels": {"classes": config},
        }
    )  # fmt: skip
    classes = resolve_classes(region)
    assert [info.name for info in classes] == ["crop", "water", "built"]
    assert classes[0].values == ("40", "20-30")
    codes = ValueMap(classes, region.labels).codes(np.array([40, 20, 30, 10, 5, 31, 19, 24.5]))
    assert codes.tolist() == [0, 0, 0, 1, 2, -1, -1, -1]


@pytest.mark.parametrize(
    ("classes", "ignore", "text"),
    [
        ({"1-5": "a", "5": "b"}, (), "declared twice"),
        ({"1": "a"}, (1,), "declared twice"),
        ({"9-5": "a"}, (), "5-9"),
    ],
)
def test_classes_that_contradict_themselves_are_refused(tmp_path, classes, ignore, text):
    region, _ = _setup(tmp_path, {"classes": classes, "ignore": ignore})
    with pytest.raises(LabelError, match=text):
        ValueMap(resolve_classes(region), region.labels)


def test_labels_without_classes_are_refused_with_a_way_out(tmp_path):
    region = sw.region(tmp_path, sw.place(1, 1), labels={"layers": [{"path": "label.tif"}]})
    with pytest.raises(LabelError, match="list them, for example") as caught:
        resolve_classes(region)
    assert caught.value.exit_code == 2


def test_known_names_get_their_colour_and_others_one_each():
    assert default_color("water", 5) == default_color("open_water", 0) == "#2f6fb5"
    assert default_color("trees", 1) == default_color("tree", 3)
    assert len({default_color(f"x{code}", code) for code in range(9)}) == 9


def test_a_raster_on_the_grid_is_copied_as_codes_and_cut_to_the_cover(tmp_path):
    region, tile = _setup(tmp_path)
    values = _values()
    sw.save_raster(tmp_path / "label.tif", values, tile.window)
    label = paint_label(region, tile).label
    assert label.dtype == np.uint8
    np.testing.assert_array_equal(label, _expected(values, tile))
    # a larger raster that starts elsewhere gives the same pixels, one that ends early is ignore beyond its end
    window = Window(tile.window.col_off - 7, tile.window.row_off - 5, 80, 40)
    big = _values(2, (40, 80))
    sw.save_raster(tmp_path / "label.tif", big, window)
    label = paint_label(region, tile).label
    np.testing.assert_array_equal(label[:35], _expected(np.pad(big[5:, 7:71], ((0, 29), (0, 0))), tile)[:35])
    assert (label[35:] == 255).all()


@pytest.mark.parametrize(
    "dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"]
)
def test_labels_of_every_type_are_read_alike(tmp_path, dtype):
    low = -7 if np.dtype(dtype).kind in "if" else 7
    high = 125 if np.dtype(dtype).itemsize == 1 else 40_000 if dtype == "uint16" else 30_000
    classes = {str(low): "low", "10": "ten", f"{high}": "high"}
    region, tile = _setup(tmp_path, {"classes": classes, "ignore": [0]})
    values = np.random.default_rng(2).choice(np.array([0, low, 10, high]), (64, 64))
    sw.save_raster(tmp_path / "label.tif", values.astype(dtype), tile.window)
    expected = np.vectorize({0: 255, low: 0, 10: 1, high: 2}.get)(values)
    np.testing.assert_array_equal(paint_label(region, tile).label, np.where(_inside(tile), expected, 255))
    values[20, 20] = 11
    sw.save_raster(tmp_path / "label.tif", values.astype(dtype), tile.window)
    with pytest.raises(LabelError, match=r"holds 11 \(1 px\)"):
        paint_label(region, tile)


def test_the_written_file_says_what_it_is_and_is_not_written_twice(tmp_path):
    world = sw.world(tmp_path, 1, 1)
    tile = world.plan.tiles()[0]
    path = label_path(world.plan, tile)
    with rasterio.open(path) as dataset:
        assert dataset.dtypes == ("uint8",) and dataset.nodata == 255 and dataset.block_shapes == [(64, 64)]
        assert dataset.compression == rasterio.enums.Compression.zstd and dataset.descriptions == ("label",)
        assert dataset.transform == tile.transform and dataset.crs.to_epsg() == 32633
        assert dataset.colormap(1)[0][:3] == (0x2F, 0x6F, 0xB5)
        with rasterio.open(tmp_path / "label.tif") as source:
            np.testing.assert_array_equal(dataset.read(1), _expected(source.read(1), tile))
    assert read_sidecar(path).fingerprint == label_fingerprint(world.plan.region, tile)
    assert path.name == f"{tile.tile_id}-{label_fingerprint(world.plan.region, tile)[:8]}.tif"
    stamp = path.stat().st_mtime_ns
    (batch,) = load_batches(world.plan.attempt, "grid_layers")
    assert grid_layers(world.plan, batch).made == () and path.stat().st_mtime_ns == stamp
    path.unlink()
    assert grid_layers(world.plan, batch).made == batch.units and path.exists()


def test_an_undeclared_value_fails_its_tile_and_says_which_where_and_what_to_do(tmp_path):
    region, tile = _setup(tmp_path)
    values = _values()
    values[10, 10:13] = 77
    sw.save_raster(tmp_path / "label.tif", values, tile.window)
    made = sw.plan(tmp_path, region)
    (batch,) = load_batches(made.attempt, "grid_layers")
    (failure,) = grid_layers(made, batch).failed
    for part in ("77 (3 px)", tile.tile_id, "label.tif", "labels.ignore"):
        assert part in failure.reason
    assert not failure.transient


def test_nodata_of_the_file_needs_no_declaration(tmp_path):
    region, tile = _setup(tmp_path)
    values = _values()
    values[20:30] = 99
    sw.save_raster(tmp_path / "label.tif", values, tile.window, nodata=99)
    label = paint_label(region, tile).label
    assert (label[20:30] == 255).all() and (label[30:60, 5:60] != 255).any()


def test_fractional_values_are_undeclared_and_nan_is_nodata(tmp_path):
    region, tile = _setup(tmp_path)
    values = _values().astype(np.float32)
    values[5] = np.nan
    sw.save_raster(tmp_path / "label.tif", values, tile.window)
    expected = _expected(np.nan_to_num(values), tile)
    np.testing.assert_array_equal(paint_label(region, tile).label, expected)
    values[6, 6] = 24.5
    sw.save_raster(tmp_path / "label.tif", values, tile.window)
    with pytest.raises(LabelError, match=r"24\.5"):
        paint_label(region, tile)


@pytest.mark.parametrize("shift", [0.5, 0.3, -0.02])
def test_a_label_off_by_a_part_of_a_pixel_is_refused_unless_resampling_says_how(tmp_path, shift):
    region, tile = _setup(tmp_path)
    lattice = Lattice(32633, shift * 10, 0, 10, 10)
    values = _values()
    sw.save_raster(tmp_path / "label.tif", values, tile.window, lattice)
    with pytest.raises(LabelError, match=r"labels\.resampling"):
        paint_label(region, tile)
    region, tile = _setup(tmp_path, {"resampling": "nearest"})
    inner = np.s_[4:-4, 4:-4]
    expected = _expected(values, tile)
    moved = np.roll(expected, 1, axis=1) if shift == 0.5 else expected
    warped = paint_label(region, tile).label[inner]
    assert (warped == expected[inner]).all() or (warped == moved[inner]).all()


@pytest.mark.parametrize("method", ["nearest", "mode"])
def test_a_label_in_another_crs_is_refused_or_warped_as_rasterio_does(tmp_path, method):
    region, tile = _setup(tmp_path)
    left, bottom, right, top = shapely.bounds(tile.lattice.footprint(tile.window))
    finer = Lattice(4326, left - 1e-3, top + 1e-3, 3e-5, 2e-5)
    window = Window(0, 0, int((right - left + 2e-3) / 3e-5), int((top - bottom + 2e-3) / 2e-5))
    values = np.kron(_values(3, (window.height // 9 + 1, window.width // 9 + 1)), np.ones((9, 9), np.uint8))
    values = values[: window.height, : window.width]
    sw.save_raster(tmp_path / "label.tif", values, window, finer)
    with pytest.raises(LabelError, match="EPSG:4326"):
        paint_label(region, tile)
    region, tile = _setup(tmp_path, {"resampling": method})
    codes = np.vectorize(CODES.get)(values).astype(np.int16)
    oracle = np.full(tile.shape, -1, dtype=np.int16)
    rasterio.warp.reproject(
        codes, oracle, src_transform=finer.transform(window), src_crs="EPSG:4326", src_nodata=-1,
        dst_transform=tile.transform, dst_crs=tile.crs, dst_nodata=-1, resampling=Resampling[method],
    )  # fmt: skip
    label = paint_label(region, tile).label
    assert (oracle >= 0).all()
    assert (
        label == np.where(_inside(tile), oracle, 255)
    ).mean() > 0.999  # a pixel may round to its neighbour


def test_mode_counts_classes_not_values(tmp_path):
    region, tile = _setup(tmp_path, {"resampling": "mode"})
    fine = lattice_of(32633, 5.0)
    cell = np.array([[20, 10], [25, 10]], dtype=np.uint8)
    cell = np.where(np.arange(4).reshape(2, 2) == 1, 29, cell).astype(
        np.uint8
    )  # 20, 29, 25 are trees, 10 once
    values = np.tile(cell, (64, 64))
    window = Window(tile.window.col_off * 2, tile.window.row_off * 2, 128, 128)
    sw.save_raster(tmp_path / "label.tif", values, window, fine)
    assert set(paint_label(region, tile).label[5:-5, 5:-5].ravel()) == {1}


def test_unsure_pixels_are_ignore_and_never_background(tmp_path):
    region, tile = _setup(tmp_path, {"confidence": {"band": 2, "min": 60}})
    values, level = _values(), np.random.default_rng(5).integers(0, 100, (64, 64), dtype=np.uint8)
    sw.save_raster(tmp_path / "label.tif", np.stack([values, level]), tile.window)
    np.testing.assert_array_equal(
        paint_label(region, tile).label, np.where(level < 60, 255, _expected(values, tile))
    )
    region, tile = _setup(tmp_path, {"confidence": {"band": 3, "min": 60}})
    with pytest.raises(LabelError, match=r"2 band\(s\)"):
        paint_label(region, tile)


def test_outside_the_coverage_is_ignore(tmp_path):
    region, tile = _setup(tmp_path, {"coverage": "coverage.gpkg"})
    values = _values()
    sw.save_raster(tmp_path / "label.tif", values, tile.window)
    sw.save_vectors(tmp_path / "coverage.gpkg", [sw.box(tile, 10, 20, 30, 20)])
    label = paint_label(region, tile).label
    covered = np.zeros(tile.shape, dtype=bool)
    covered[20:40, 10:40] = True
    np.testing.assert_array_equal(label, np.where(covered, _expected(values, tile), 255))


@pytest.mark.parametrize("name", ["v.gpkg", "v.geojson", "v.shp", "v.fgb"])
def test_features_are_burned_in_the_order_of_the_file(tmp_path, name):
    region, tile = _setup(
        tmp_path, {"layers": [{"path": name, "attribute": "kind", "background": 30}], "classes": sw.CLASSES}
    )
    boxes = [sw.box(tile, 5, 5, 20, 20), sw.box(tile, 15, 15, 20, 20), sw.box(tile, 40, 40, 10, 10)]
    if name.endswith(".geojson"):
        boxes = [reproject_shape(shapely.segmentize(box, 100.0), 32633, 4326) for box in boxes]
    if name.endswith(".fgb"):  # it sorts its features on writing: only what does not overlap has an order
        boxes[1] = sw.box(tile, 25, 25, 10, 10)
    sw.save_vectors(tmp_path / name, boxes, 4326 if name.endswith(".geojson") else 32633, kind=[10, 25, 0])
    expected = np.full(tile.shape, 2)
    expected[5:25, 5:25] = 0
    expected[(np.s_[25:35, 25:35] if name.endswith(".fgb") else np.s_[15:35, 15:35])] = 1
    expected[40:50, 40:50] = 255
    np.testing.assert_array_equal(paint_label(region, tile).label, np.where(_inside(tile), expected, 255))


def test_a_constant_value_all_touched_and_a_layer_below(tmp_path):
    layers = [{"path": "label.tif"}, {"path": "v.gpkg", "value": 10, "all_touched": True}]
    region, tile = _setup(tmp_path, {"layers": layers})
    sw.save_raster(tmp_path / "label.tif", np.full((64, 64), 30, np.uint8), tile.window)
    left, bottom, right, top = sw.box(tile, 20, 20, 10, 10).bounds
    sw.save_vectors(tmp_path / "v.gpkg", [shapely.box(left - 1, bottom, right, top)])
    label = paint_label(region, tile).label
    assert (label[20:30, 19:30] == 0).all() and label[25, 18] == 2 and (label == 0).sum() >= 110


def test_a_layer_above_shows_the_one_below_where_it_is_nodata_but_not_where_it_is_ignore(tmp_path):
    region, tile = _setup(tmp_path, {"layers": [{"path": "below.tif"}, {"path": "label.tif"}]})
    sw.save_raster(tmp_path / "below.tif", np.full((64, 64), 10, np.uint8), tile.window)
    above = np.full((64, 64), 30, np.uint8)
    above[:, 20:30], above[:, 30:40] = 99, 0
    sw.save_raster(tmp_path / "label.tif", above, tile.window, nodata=99)
    row = paint_label(region, tile).label[32]
    assert set(row[4:20]) == {2} and set(row[20:30]) == {0} and set(row[30:40]) == {255}


@pytest.mark.parametrize(
    ("layer", "fields", "text"),
    [
        ({"attribute": "kind"}, {"kind": [7]}, "holds 7 (1 feature(s))"),
        ({"attribute": "king"}, {"kind": [10]}, "no attribute 'king', but kind"),
        ({"attribute": "kind"}, {"kind": ["wet"]}, "holds 'wet' (1 feature(s))"),
        ({}, {"kind": [10]}, "needs attribute or value"),
        ({"value": 10, "background": 5}, {"kind": [10]}, "background 5"),
    ],
)
def test_wrong_vector_layers_are_refused_with_a_reason(tmp_path, layer, fields, text):
    region, tile = _setup(tmp_path, {"layers": [{"path": "v.gpkg", **layer}]})
    sw.save_vectors(tmp_path / "v.gpkg", [sw.box(tile, 5, 5, 20, 20)], **fields)
    with pytest.raises(LabelError) as caught:
        paint_label(region, tile)
    assert text in str(caught.value)


def test_a_feature_without_a_value_is_ignore(tmp_path):
    region, tile = _setup(
        tmp_path, {"layers": [{"path": "v.geojson", "attribute": "kind", "background": 30}]}
    )
    shape = reproject_shape(sw.box(tile, 10, 10, 10, 10), 32633, 4326)
    feature = {
        "type": "Feature",
        "properties": {"kind": None},
        "geometry": json.loads(shapely.to_geojson(shape)),
    }
    known = feature | {"properties": {"kind": 10}}
    known["geometry"] = json.loads(
        shapely.to_geojson(reproject_shape(sw.box(tile, 30, 30, 10, 10), 32633, 4326))
    )
    (tmp_path / "v.geojson").write_text(
        json.dumps({"type": "FeatureCollection", "features": [feature, known]})
    )
    label = paint_label(region, tile).label
    assert (label[11:19, 11:19] == 255).all() and (label[31:39, 31:39] == 0).all() and label[50, 50] == 2


def test_the_fingerprint_follows_content_and_rules_not_the_path(tmp_path):
    region, tile = _setup(tmp_path)
    sw.save_raster(tmp_path / "label.tif", _values(), tile.window)
    first = label_fingerprint(region, tile)
    (tmp_path / "other.tif").write_bytes((tmp_path / "label.tif").read_bytes())
    moved, _ = _setup(tmp_path, {"layers": [{"path": "other.tif"}]})
    assert label_fingerprint(moved, tile) == first
    changed, _ = _setup(tmp_path, {"resampling": "mode"})
    assert label_fingerprint(changed, tile) != first
    sw.save_raster(tmp_path / "label.tif", _values(9), tile.window)
    assert label_fingerprint(region, tile) != first


def test_undeclared_values_are_found_before_work(tmp_path):
    region, tile = _setup(tmp_path)
    values = _values()
    sw.save_raster(tmp_path / "label.tif", values, tile.window)
    check_label_values(region)
    values[40, 40] = 88
    sw.save_raster(tmp_path / "label.tif", values, tile.window)
    with pytest.raises(LabelError, match="88"):
        check_label_values(region)
    region, tile = _setup(tmp_path, {"layers": [{"path": "v.gpkg", "attribute": "kind"}]})
    sw.save_vectors(tmp_path / "v.gpkg", [sw.box(tile, 0, 0, 5, 5)] * 2, kind=[10, 88])
    with pytest.raises(LabelError, match=r"88 \(1 feature\(s\)\)"):
        check_label_values(region)


def test_an_averaged_overview_does_not_accuse_a_good_label(tmp_path):
    _, tile = _setup(tmp_path)
    side = 2048
    values = np.tile(np.array([[10, 30]], dtype=np.uint8), (side, side // 2))
    window = Window(tile.window.col_off, tile.window.row_off, side, side)
    sw.save_raster(tmp_path / "label.tif", values, window, tiled=True, compress="deflate")
    with rasterio.open(tmp_path / "label.tif", "r+") as dataset:
        dataset.build_overviews([2], Resampling.average)
    with rasterio.open(tmp_path / "label.tif") as dataset:
        assert set(np.unique(dataset.read(1, out_shape=(1024, 1024)))) == {20}
    check_label_values(sw.region(tmp_path, sw.place(1, 1), labels={
        "layers": [{"path": "label.tif"}], "classes": {"10": "a", "30": "b"}
    }))  # fmt: skip
    # a value that pixels do have is found all the same
    with rasterio.open(tmp_path / "label.tif", "r+") as dataset:
        dataset.write(np.full((1, 2, 2), 20, np.uint8), window=rasterio.windows.Window(0, 0, 2, 2))
    with pytest.raises(LabelError, match="holds 20"):
        check_label_values(sw.region(tmp_path, sw.place(1, 1), labels={
            "layers": [{"path": "label.tif"}], "classes": {"10": "a", "30": "b"}
        }))  # fmt: skip


def test_static_layers_pass_unchanged_on_the_grid_and_are_warped_once_elsewhere(tmp_path):
    area = sw.place(1, 1)
    heights = np.random.default_rng(4).normal(400, 300, (64, 64)).astype(np.float32)
    heights[0, :5] = np.nan
    heights[1, 0] = 99_999
    sw.save_raster(tmp_path / "dem.tif", heights, area, nodata=np.nan)
    wide = lattice_of(32633, 25.0)
    window = Window(area.col_off * 2 // 5 - 2, area.row_off * 2 // 5 - 2, 32, 32)
    rain = np.random.default_rng(5).integers(0, 2000, (32, 32)).astype(np.int16)
    sw.save_raster(tmp_path / "rain.tif", rain, window, wide, nodata=-1)
    static = [
        {"name": "elevation", "path": "dem.tif", "out": {"scale": 0.5}},
        {"name": "rain", "path": "rain.tif", "resampling": "bilinear", "out": {"scale": 1.0}},
    ]
    world = sw.world(tmp_path, 1, 1, static=static)
    tile = world.plan.tiles()[0]
    elevation, rainfall = (static_path(world.plan, layer, tile) for layer in world.plan.region.static)
    with rasterio.open(elevation) as dataset:
        stored = dataset.read(1)
        assert (
            dataset.dtypes == ("int16",)
            and dataset.nodata == -32768
            and dataset.descriptions == ("elevation",)
        )
    assert (stored[0, :5] == -32768).all() and stored[1, 0] == 32767
    np.testing.assert_array_equal(stored[2:], np.rint(heights[2:].astype(np.float64) / 0.5))
    assert read_sidecar(elevation).extra["saturated_px"] == 1
    oracle = np.full((64, 64), np.nan)
    rasterio.warp.reproject(
        rain, oracle, src_transform=wide.transform(window), src_crs="EPSG:32633", src_nodata=-1,
        dst_transform=tile.transform, dst_crs=tile.crs, dst_nodata=np.nan, resampling=Resampling.bilinear,
    )  # fmt: skip
    with rasterio.open(rainfall) as dataset:
        np.testing.assert_array_equal(dataset.read(1), np.rint(oracle))
    stack = world.stack()
    assert stack.bands[-3:] == ("elevation", "rain", "label") and stack.layers[-3].scale == 0.5


@pytest.mark.parametrize("part", [0.3, 0.9])
def test_a_cut_static_layer_fails_its_tile(tmp_path, part):
    area = sw.place(1, 1)
    path = tmp_path / "dem.tif"
    sw.save_raster(path, np.random.default_rng(4).integers(1, 900, (64, 64)).astype(np.int16), area)
    config = sw.region(tmp_path, area, labels=None, static=[{"name": "elevation", "path": "dem.tif"}])
    path.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])
    made = sw.plan(tmp_path, config)
    (batch,) = load_batches(made.attempt, "grid_layers")
    (failure,) = grid_layers(made, batch).failed
    assert "dem.tif cannot be read" in failure.reason
