"""Label layers together: rules, what counts of a layer, which of overlapping features a pixel is of, texts, GeoParquet."""

import geopandas
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyogrio.raw
import pytest
import shapely
from tests import stack_world as sw

from chipmill.core.errors import BadInputError, LabelError
from chipmill.dataset.labels import check_label_values, label_fingerprint, paint_label
from chipmill.dataset.preflight import check_region
from chipmill.region.geoparquet import geoparquet_facts, read_geoparquet
from chipmill.region.grid import Lattice, Window, projector, reproject_shape
from chipmill.region.identity import config_fingerprint
from chipmill.region.layers import LabelLayer, Labels
from chipmill.region.load import dump_config, load_region
from chipmill.region.vectors import layers_remark

INNER = np.s_[3:-3, 3:-3]
"""The world's AOI leaves three pixels on each side."""


def _setup(folder, layers, classes=None, **labels):
    classes = classes or {"0": "background", "1": "ice", "2": "debris"}
    config = sw.region(folder, sw.place(1, 1), labels={"layers": layers, "classes": classes, **labels})
    return config, sw.plan(folder, config).tiles()[0]


def _raster(folder, tile, name, values, **options):
    sw.save_raster(folder / name, values.astype(np.uint8), tile.window, **options)


def _label(region, tile):
    return paint_label(region, tile).label[INNER]


def test_debris_is_the_glacier_without_its_clean_ice(tmp_path):
    """RGI minus STEM, as the glacier example needs it: a vector outline, a raster of clean ice, ground outside."""
    layers = [
        {"path": "rgi.gpkg", "value": 2},
        {"path": "stem.tif", "rule": "difference", "only": [1]},
        {"path": "stem.tif", "rule": "first", "only": [1]},
    ]
    region, tile = _setup(tmp_path, layers, outside="background")
    sw.save_vectors(tmp_path / "rgi.gpkg", [sw.box(tile, 10, 10, 40, 40)])
    ice = np.zeros((64, 64))
    ice[20:30, 5:30] = 1
    _raster(tmp_path, tile, "stem.tif", ice)
    expected = np.zeros((64, 64))
    expected[10:50, 10:50] = 2
    expected[ice == 1] = 1
    np.testing.assert_array_equal(_label(region, tile), expected[INNER])
    # outside the outline, what a rule took away and what nothing spoke of is ignore unless a class is named
    region, tile = _setup(tmp_path, layers[:2])
    expected[(expected != 2)] = 255
    np.testing.assert_array_equal(_label(region, tile), expected[INNER])


def test_nothing_inside_the_coverage_is_the_class_of_outside_and_ignore_beyond(tmp_path):
    region, tile = _setup(tmp_path, [{"path": "v.gpkg", "value": 1}], outside="background", coverage="c.gpkg")
    sw.save_vectors(tmp_path / "v.gpkg", [sw.box(tile, 20, 20, 10, 10), sw.box(tile, 50, 50, 5, 5)])
    sw.save_vectors(tmp_path / "c.gpkg", [sw.box(tile, 10, 10, 30, 30)])
    expected = np.full((64, 64), 255)
    expected[10:40, 10:40] = 0
    expected[20:30, 20:30] = 1
    np.testing.assert_array_equal(_label(region, tile), expected[INNER])


def test_labels_are_kept_only_where_a_mask_has_a_value(tmp_path):
    layers = [
        {"path": "a.tif"},
        {"path": "fields.gpkg", "rule": "intersect", "attribute": "use", "only": ["arable", "7"]},
    ]
    region, tile = _setup(tmp_path, layers)
    values = np.random.default_rng(3).integers(0, 3, (64, 64))
    _raster(tmp_path, tile, "a.tif", values)
    boxes = [sw.box(tile, 8, 8, 20, 20), sw.box(tile, 30, 30, 10, 20), sw.box(tile, 30, 8, 10, 10)]
    sw.save_vectors(tmp_path / "fields.gpkg", boxes, use=["arable", "forest", "7"])
    kept = np.zeros((64, 64), dtype=bool)
    kept[8:28, 8:28] = kept[8:18, 30:40] = True
    np.testing.assert_array_equal(_label(region, tile), np.where(kept, values, 255)[INNER])
    check_label_values(region, [tile])  # what a mask's values are called needs no class


def test_the_vote_of_three_maps_and_the_larger_class_of_two(tmp_path):
    rng = np.random.default_rng(4)
    maps = [rng.integers(0, 3, (64, 64)) for _ in range(3)]
    names = ["a.tif", "b.tif", "c.tif"]
    region, tile = _setup(tmp_path, [{"path": name, "rule": "mode"} for name in names])
    for name, values in zip(names, maps, strict=True):
        _raster(tmp_path, tile, name, values)
    a, b, c = maps
    voted = np.where(b == c, b, a)
    np.testing.assert_array_equal(_label(region, tile), voted[INNER])
    region, tile = _setup(tmp_path, [{"path": "a.tif"}, {"path": "b.tif", "rule": "max"}])
    np.testing.assert_array_equal(_label(region, tile), np.maximum(a, b)[INNER])


def test_what_does_not_count_shows_the_layer_below_and_needs_no_class(tmp_path):
    layers = [{"path": "below.tif"}, {"path": "above.tif", "only": ["1-2"]}]
    region, tile = _setup(tmp_path, layers)
    below, above = np.zeros((64, 64)), np.random.default_rng(5).integers(0, 9, (64, 64))
    _raster(tmp_path, tile, "below.tif", below)
    _raster(tmp_path, tile, "above.tif", above)
    check_label_values(region)
    expected = np.where((above >= 1) & (above <= 2), above, 0)
    np.testing.assert_array_equal(_label(region, tile), expected[INNER])


@pytest.mark.parametrize("turn", [1, -1])
@pytest.mark.parametrize("order", [None, "year"])
def test_pixels_that_neighbours_touch_do_not_hang_on_the_order_of_the_file(tmp_path, turn, order):
    """Parcels that meet inside a pixel: it is of the one at its centre, where none has it of the class listed later."""
    region, tile = _setup(
        tmp_path, [{"path": "v.gpkg", "attribute": "kind", "all_touched": True, "order": order}]
    )
    parcels = [
        (0, sw.box(tile, 5, 10, 15.4, 10)), (1, sw.box(tile, 20.4, 10, 10.2, 10)),  # column 20: its centre is 1's
        (2, sw.box(tile, 30.6, 10, 8.4, 10)),  # column 30: its centre is 1's
        (1, sw.box(tile, 5, 30, 5.2, 5)), (2, sw.box(tile, 10.7, 30, 5.3, 5)),  # column 10: touched by both
    ][::turn]  # fmt: skip
    kinds = [kind for kind, _ in parcels]
    sw.save_vectors(tmp_path / "v.gpkg", [shape for _, shape in parcels], kind=kinds, year=[2019] * 5)
    expected = np.full((64, 64), 255)
    expected[10:20, 5:20], expected[10:20, 20:31], expected[10:20, 31:39] = 0, 1, 2
    expected[30:35, 5:10], expected[30:35, 10:16] = 1, 2
    np.testing.assert_array_equal(_label(region, tile), expected[INNER])


@pytest.mark.parametrize(("order", "on_top"), [("year", 2), ("-year", 1), ("name", 1), ("-name", 2)])
@pytest.mark.parametrize("all_touched", [False, True])
def test_an_attribute_says_which_of_overlapping_features_lies_on_top(tmp_path, order, on_top, all_touched):
    layer = {"path": "v.gpkg", "attribute": "kind", "order": order, "all_touched": all_touched}
    region, tile = _setup(tmp_path, [layer])
    boxes = [sw.box(tile, 10, 10, 20, 20), sw.box(tile, 20, 10, 20, 20), sw.box(tile, 5, 10, 50, 20)]
    sw.save_vectors(
        tmp_path / "v.gpkg", boxes, kind=[2, 1, 0], year=[9.0, 3.0, np.nan], name=["a", "b", None]
    )
    row = paint_label(region, tile).label[15]
    assert set(row[20:30]) == {on_top}
    # what has no place in the order lies below all others
    assert set(row[6:10]) == set(row[40:54]) == {0} and set(row[10:20]) == {2} and set(row[30:40]) == {1}


@pytest.mark.parametrize("epsg", [32633, 4326])
def test_a_label_by_mode_ends_where_its_raster_ends(tmp_path, epsg):
    region, tile = _setup(tmp_path, [{"path": "a.tif"}], resampling="mode")
    edges = sw.box(tile, 20, 24, 20, 16)
    left, _, _, top = reproject_shape(edges, 32633, epsg).bounds
    side = 5.0 if epsg == 32633 else 5e-5
    shape = (32, 40)
    sw.save_raster(
        tmp_path / "a.tif",
        np.ones(shape, np.uint8),
        Window(0, 0, 40, 32),
        Lattice(epsg, left, top, side, side),
    )
    place = sw.LATTICE.transform(tile.window)
    columns, rows = np.meshgrid(np.arange(64) + 0.5, np.arange(64) + 0.5)
    x, y = projector(32633, epsg).transform(*(place @ (columns, rows)))
    inside = (x > left) & (x < left + 40 * side) & (y < top) & (y > top - 32 * side)
    assert 250 < inside.sum() < 700
    np.testing.assert_array_equal(_label(region, tile), np.where(inside, 1, 255)[INNER])


def test_a_line_that_is_touched_is_there(tmp_path):
    region, tile = _setup(tmp_path, [{"path": "v.gpkg", "value": 1, "all_touched": True}])
    left, bottom, right, top = sw.box(tile, 10, 10.2, 30, 0.1).bounds
    line = shapely.LineString([(left, bottom), (right, top)])
    sw.save_vectors(tmp_path / "v.gpkg", [line], geometry_type="LineString")
    assert (paint_label(region, tile).label[10, 10:40] == 1).all()


def test_texts_of_an_attribute_are_classes(tmp_path):
    classes = {"Triticum aestivum": "wheat", "Čebula": "onion", "20-29": "tree"}
    layer = {"path": "v.gpkg", "attribute": "crop"}
    region, tile = _setup(tmp_path, [layer], classes, ignore=["unknown"])
    boxes = [sw.box(tile, 5 + 10 * number, 10, 10, 10) for number in range(5)]
    texts = ["Triticum aestivum", "Čebula", "25", "unknown", ""]
    sw.save_vectors(tmp_path / "v.gpkg", boxes, crop=texts)
    check_label_values(region, [tile])
    row = paint_label(region, tile).label[15]
    assert [set(row[start : start + 10]) for start in (5, 15, 25, 35, 45)] == [{0}, {1}, {2}, {255}, {255}]
    sw.save_vectors(tmp_path / "v.gpkg", boxes, crop=[*texts[:4], "čebula"])
    for look in (paint_label, lambda *given: check_label_values(given[0], [given[1]])):
        with pytest.raises(LabelError, match=r"holds '\\u010debula' \(1 feature"):
            look(region, tile)


@pytest.mark.parametrize(
    ("layer", "more", "says"),
    [
        (
            {"attribute": "kind"},
            {"classes": {"a b": "x", " a": "y"}},
            "' a' must be printable, without blanks",
        ),
        ({"attribute": "kind"}, {"classes": {"10 - 20": "x"}}, "'10 - 20' is neither a value like 10"),
        ({"value": 1}, {"classes": {"wheat": "x"}}, "'wheat' is neither.*and none has one"),
        ({"attribute": "kind", "only": ["10 - 20"]}, {}, r"layers\.0\.only: '10 - 20' is neither"),
        ({"rule": "difference", "value": 1}, {}, "difference takes no value and no background"),
        ({"rule": "intersect", "background": 1}, {}, "intersect takes no value and no background"),
        ({"rule": "difference", "attribute": "kind"}, {}, "needs only"),
        ({"rule": "union"}, {}, "paint"),
        ({"value": 1}, {"outside": "rock"}, "'rock' is neither ignore nor a class of water"),
    ],
)
def test_layers_that_contradict_themselves_are_refused(layer, more, says):
    with pytest.raises(ValueError, match=says):
        Labels.model_validate({"layers": [{"path": "v.gpkg", **layer}], "classes": {"1": "water"}} | more)


@pytest.mark.parametrize(
    ("layer", "says"),
    [
        ({"path": "v.gpkg", "value": 1, "only": [1]}, "has only, but no attribute"),
        ({"path": "v.gpkg", "value": 1, "order": "age"}, "no attribute 'age', but kind"),
        ({"path": "v.gpkg", "value": 1, "order": "-age"}, "no attribute 'age', but kind"),
        ({"path": "a.tif", "attribute": "kind"}, "is a raster: attribute, value, order and background"),
        ({"path": "a.tif", "background": 1}, "is a raster: attribute, value, order and background"),
        ({"path": "a.tif", "rule": "difference"}, "has the rule difference, before which there is no label"),
        ({"path": "a.tif", "only": ["9-1"]}, r"labels\.layers\.only: the range '9-1' runs backwards"),
    ],
)
def test_layers_that_do_not_fit_their_file_are_refused(tmp_path, layer, says):
    region, tile = _setup(tmp_path, [layer])
    sw.save_vectors(tmp_path / "v.gpkg", [sw.box(tile, 5, 5, 9, 9)], kind=[1])
    _raster(tmp_path, tile, "a.tif", np.ones((64, 64)))
    with pytest.raises(LabelError, match=says):
        paint_label(region, tile)
    with pytest.raises(LabelError, match=says):  # and before any work
        check_label_values(region, [tile])


def test_points_are_their_pixels_and_texts_need_no_layer_in_the_file(tmp_path):
    """Tiles from points bring the layer themselves."""
    region, tile = _setup(tmp_path, [], {"wheat": "wheat", "rye": "rye"})
    points = [sw.box(tile, 10, 12, 1, 1).centroid, sw.box(tile, 40, 30, 1, 1).centroid]
    sw.save_vectors(tmp_path / "p.gpkg", points, geometry_type="Point", crop=["rye", "wheat"])
    implied = LabelLayer(path="p.gpkg", attribute="crop")
    labels = region.labels.model_copy(update={"layers": (implied,)})
    expected = np.full((64, 64), 255)
    expected[12, 10], expected[30, 40] = 1, 0
    found = paint_label(region.model_copy(update={"labels": labels}), tile).label
    np.testing.assert_array_equal(found, expected)


def test_a_class_outside_that_label_items_do_not_bring_is_refused(tmp_path):
    region, tile = _setup(tmp_path, [{"path": "a.tif"}], outside="ice")
    other = region.labels.model_copy(update={"classes": {"1": "water"}})
    with pytest.raises(LabelError, match="'ice' is no class of water"):
        paint_label(region.model_copy(update={"labels": other}), tile)


def test_rules_are_part_of_what_a_label_depends_on_and_defaults_change_nothing(tmp_path):
    _raster(tmp_path, _setup(tmp_path, [{"path": "a.tif"}])[1], "a.tif", np.ones((64, 64)))
    seen = set()
    for layer, more in [
        ({}, {}), ({"rule": "first"}, {}), ({"only": [1]}, {}), ({}, {"outside": "ice"}), ({"order": "x"}, {}),
    ]:  # fmt: skip
        region, tile = _setup(tmp_path, [{"path": "a.tif", **layer}], **more)
        seen.add((label_fingerprint(region, tile), config_fingerprint(region)))
    assert len({label for label, _ in seen}) == len({config for _, config in seen}) == 5
    plain = LabelLayer(path="a.tif")
    assert (plain.rule, plain.only, plain.order, Labels().outside) == ("paint", (), None, "ignore")


@pytest.mark.parametrize("epsg", [32633, 4326])
def test_geoparquet_labels_equal_those_of_a_geopackage(tmp_path, epsg):
    layer = {"attribute": "kind", "order": "year", "background": 0}
    region, tile = _setup(tmp_path, [{"path": "v.gpkg", **layer}])
    shapes = [sw.box(tile, 10, 10, 30, 30), sw.box(tile, 20, 20, 30, 30), sw.box(tile, 500, 500, 9, 9)]
    shapes = [reproject_shape(shapely.segmentize(shape, 50.0), 32633, epsg) for shape in shapes]
    kinds, years = ["1", "2", "1"], [2020, 2019, 2021]
    sw.save_vectors(tmp_path / "v.gpkg", shapes, epsg, kind=kinds, year=years)
    expected = paint_label(region, tile).label
    assert len(np.unique(expected[INNER])) == 3
    rows = {"kind": [*kinds, None], "year": [*years, 2030]}
    frame = geopandas.GeoDataFrame(rows, geometry=[*shapes, None], crs=f"EPSG:{epsg}")
    frame.to_parquet(tmp_path / "v.parquet")
    region, _ = _setup(tmp_path, [{"path": "v.parquet", **layer}])
    check_label_values(region, [tile])
    np.testing.assert_array_equal(paint_label(region, tile).label, expected)
    table = read_geoparquet(tmp_path / "v.parquet", ["year", "no such"])
    assert table.facts.has == ("kind", "year") and table.fields["year"].tolist() == [2020, 2019, 2021, 2030]
    assert table.wkb[3] is None and len(table.wkb) == 4


def test_of_several_layers_of_a_file_the_first_with_geometries_is_read_and_told(tmp_path):
    region, tile = _setup(tmp_path, [{"path": "v.gpkg", "attribute": "kind"}])
    path = tmp_path / "v.gpkg"
    pyogrio.raw.write(
        path, None, [np.array([7])], ["other"], layer="notes", geometry_type=None, crs=None, driver="GPKG"
    )
    for name, left in (("first", 10), ("second", 30)):
        pyogrio.raw.write(
            path, np.array([sw.box(tile, left, 10, 10, 10).wkb]), [np.array([2])], ["kind"], layer=name,
            geometry_type="Polygon", crs="EPSG:32633", append=True,
        )  # fmt: skip
    check_label_values(region, [tile])  # without a warning of another layer, which is an error here
    expected = np.full((64, 64), 255)
    expected[10:20, 10:20] = 2
    np.testing.assert_array_equal(_label(region, tile), expected[INNER])
    static = ({"name": "away", "path": "v.gpkg", "derive": "distance", "max_m": 100},)
    told = check_region(sw.region(tmp_path, sw.place(1, 1), labels=None, static=static), [tile])
    assert told[-1] == f"{path} has the layers first, second: first is used"


def test_a_coverage_that_cannot_be_read_is_refused_before_any_work(tmp_path):
    region, tile = _setup(tmp_path, [{"path": "v.gpkg", "value": 1}], coverage="c.gpkg")
    sw.save_vectors(tmp_path / "v.gpkg", [sw.box(tile, 20, 20, 10, 10)])
    (tmp_path / "c.gpkg").write_text("<OGRVRTDataSource/>")
    for look in (lambda: paint_label(region, tile), lambda: check_label_values(region, [tile])):
        with pytest.raises(LabelError, match=r"content is not that of a \.gpkg file"):
            look()
    assert layers_remark(tmp_path / "c.gpkg") == ""  # GDAL would follow it
    (tmp_path / "c.gpkg").write_bytes(b"SQLite format 3\0 and nothing else")
    with pytest.raises(BadInputError, match=r"c\.gpkg cannot be read as vectors"):
        layers_remark(tmp_path / "c.gpkg")


def test_a_label_file_without_geometries_is_refused(tmp_path):
    region, tile = _setup(tmp_path, [{"path": "v.gpkg", "attribute": "kind"}])
    pyogrio.raw.write(
        tmp_path / "v.gpkg", None, [np.array([1])], ["kind"], layer="notes", geometry_type=None, crs=None
    )
    with pytest.raises(LabelError, match=r"v\.gpkg cannot be opened \(no geometries\)"):
        paint_label(region, tile)


def test_parquet_that_is_no_geoparquet_is_refused(tmp_path):
    import pandas as pd

    path = tmp_path / "v.parquet"
    pd.DataFrame({"kind": [1]}).to_parquet(path)
    with pytest.raises(BadInputError, match="without the facts of GeoParquet"):
        geoparquet_facts(path)
    frame = geopandas.GeoDataFrame({"kind": [1]}, geometry=[shapely.Point(1, 2)], crs="EPSG:4326")
    frame.to_parquet(path, geometry_encoding="geoarrow")
    with pytest.raises(BadInputError, match="holds geometries as point, expected WKB"):
        read_geoparquet(path)
    frame.to_parquet(path)
    table = pq.read_table(path)
    place = table.column_names.index("geometry")
    cut = pa.array([b"\x01\x03\x00"])  # the beginning of a polygon
    pq.write_table(table.set_column(place, table.field(place), cut), path)
    with pytest.raises(BadInputError, match="cannot be read as GeoParquet"):
        read_geoparquet(path, bbox=(0, 0, 1, 1))
    path.write_bytes(b"PAR1" + b"\0" * 64)
    with pytest.raises(BadInputError, match="cannot be read as GeoParquet"):
        read_geoparquet(path)
    region, tile = _setup(tmp_path, [{"path": "v.parquet", "value": 1}])
    with pytest.raises(LabelError, match=r"v\.parquet cannot be read"):
        paint_label(region, tile)
    frame.set_crs(None, allow_override=True).to_parquet(path)
    with pytest.raises(LabelError, match="does not say its CRS"):
        paint_label(region, tile)


GLACIER = """
name: glacier
aoi: {bbox: [14.5, 46.0, 14.7, 46.1]}
time: {range: [2019-01-01, 2020-01-01]}
imagery:
  - {name: s2, source: {catalog: cat.json}, bands: {red: red}}
static:
  - {name: slope, path: dem.tif, derive: slope}
  - {name: to_ice, path: rgi.gpkg, derive: distance, max_m: 2000}
labels:
  layers:
    - {path: rgi.gpkg, value: 2}
    - {path: stem.tif, rule: difference, only: [1]}
    - {path: crops.parquet, rule: first, attribute: crop, order: -year, only: [wheat, 20-29]}
  classes: {0: background, 1: ice, 2: debris, wheat: crop, 20-29: crop}
  ignore: [7, unknown]
  outside: background
  confidence: {band: 2, min: 50, weight: true}
"""


def test_a_region_file_with_all_of_it_reads_back_as_it_was_written(tmp_path):
    (tmp_path / "a.yaml").write_text(GLACIER)
    region = load_region(tmp_path / "a.yaml")
    assert region.labels.ignore == ("7", "unknown") and region.labels.layers[1].only == ("1",)
    assert [layer.stored.scale for layer in region.static] == [0.01, 1.0]
    (tmp_path / "b.yaml").write_text(dump_config(region))
    again = load_region(tmp_path / "b.yaml")
    assert again.model_copy(update={"file": None}) == region.model_copy(update={"file": None})
