"""Bad input is answered by one clear sentence and exit code 2, before any work: nothing is created in the output.

Each case breaks one thing of a region that is good, and is put to the command line; what is mended is said.
"""

import json
import shutil

import numpy as np
import pyogrio.raw
import pytest
import shapely
import yaml
from tests import imagery_world as iw
from typer.testing import CliRunner

from chipmill import cli
from chipmill.core.errors import AoiError, BadInputError, RegionFileError, SplitError
from chipmill.core.paths import OutputDir
from chipmill.core.store import lock
from chipmill.core.yaml import parse_yaml
from chipmill.dataset.blocks import Dealt, write_blocks
from chipmill.dataset.outlook import check_splits
from chipmill.dataset.preflight import check_output, check_region
from chipmill.imagery.catalog import find_items
from chipmill.imagery.planning import place_tiles
from chipmill.learning.preflight import check_training
from chipmill.region.aoi import aoi_remarks, read_aoi
from chipmill.region.config import Region
from chipmill.region.grid import Window, reproject_shape
from chipmill.region.load import load_predict, load_region, load_train
from chipmill.region.plan import cell_dir

SIDE = iw.SIDE
WEST, SOUTH, EAST, NORTH = iw.LATTICE.footprint(
    Window(iw.PLACE.col_off + 2, iw.PLACE.row_off + 2, SIDE - 4, SIDE - 4)
).bounds


@pytest.fixture
def good(tmp_path):
    """The values of a region file that can be built: one tile, two scenes, a label of two classes."""
    pixels = {name: np.full((SIDE, SIDE), 500, np.uint16) for name in ("red", "nir")}
    archive = iw.Archive(tmp_path / "archive")
    for when in ("2019-02-01", "2019-03-01"):
        archive.scene(when, pixels, np.full((SIDE, SIDE), iw.CLEAR, np.uint8))
    archive.write()
    label = np.ones((SIDE, SIDE), np.uint8)
    label[:, : SIDE // 2] = 2
    iw.save(tmp_path / "label.tif", label)
    return {
        "name": "toy",
        "aoi": {"bbox": [WEST, SOUTH, EAST, NORTH], "rule": "centre"},
        "time": {"range": ["2019-01-01", "2020-01-01"]},
        "grid": {"crs": "EPSG:32633", "resolution": 10, "tile_px": SIDE},
        "imagery": [
            {
                "name": "s2",
                "source": {"catalog": "archive/catalog.json"},
                "bands": {"red": "red", "nir": "nir"},
                "mask": {"asset": "scl"},
            }
        ],
        "labels": {"layers": [{"path": "label.tif"}], "classes": {"1": "water", "2": "crop"}},
        "dataset": {"chips": {"size_px": 16, "stride_px": 16}, "splits": {"block_px": 32}},
    }


def changed(values, path, value):
    """Return nested values with one of them replaced; ``path`` is dotted."""
    copy = json.loads(json.dumps(values))
    *above, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    block = copy
    for part in above:
        block = block[part]
    block[last] = value
    return copy


def write(folder, values, name="toy.yaml"):
    path = folder / name
    path.write_text(values if isinstance(values, str) else yaml.safe_dump(values, sort_keys=False))
    return path


def call(*words):
    return CliRunner().invoke(cli.app, [str(word) for word in words])


def sentence(done):
    """Return the one line that a refused command said; checks code and that no traceback was shown."""
    assert done.exit_code == 2, done.output + repr(done.exception)
    assert isinstance(done.exception, SystemExit)
    return done.stderr.splitlines()[-1]


def refused(folder, values, *says, command=None, more=()):
    """Check that a command (else plan and run) refuses a region file by one sentence that says all of ``says``, and
    creates nothing.
    """
    if command is None:
        return [refused(folder, values, *says, command=one, more=more) for one in ("plan", "run")][-1]
    done = call(command, write(folder, values), *more)
    told = sentence(done)
    assert not [word for word in says if word not in told], told
    assert not (folder / "out").exists()
    return told


def polygons(path, shapes, crs="EPSG:4326"):
    kinds = {shape.geom_type for shape in shapes}
    pyogrio.raw.write(
        path, geometry=np.array([shape.wkb for shape in shapes], dtype=object), field_data=[], fields=[],
        geometry_type=kinds.pop() if len(kinds) == 1 else "Unknown", crs=crs,
    )  # fmt: skip
    return path


def test_the_region_of_these_tests_is_good_and_a_plan_creates_nothing(tmp_path, good):
    done = call("plan", write(tmp_path, good), "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["remarks"] == []
    assert not (tmp_path / "out").exists()


# --- the file itself


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("epochz", 3, "epochz is no field: known here are"),
        ("imagry", [], "imagry is no field: did you mean imagery"),
        ("dataset.chips.size_pix", 64, "dataset.chips.size_pix is no field: did you mean size_px"),
        ("imagery.0.mask.assett", "scl", "imagery.0.mask.assett is no field: did you mean asset"),
        ("labels.layers.0.atribute", "x", "labels.layers.0.atribute is no field: did you mean attribute"),
        ("tile_px", 64, "tile_px is no field: did you mean grid.tile_px"),
        ("imagery.0.reduce", "medain", "imagery.0.reduce: Input should be 'median'"),
        ("indices", ["NDVI"], "got 'NDVI': did you mean ndvi"),
        ("imagery.0.out", {"dtype": "uint8"}, "nodata -32768 lies outside uint8 (0..255): set nodata"),
        ("imagery.0.out", {"nodata": 40000}, "nodata 40000 lies outside int16 (-32768..32767)"),
        ("static", [{"name": "dem", "path": "d.tif", "out": {"dtype": "uint16", "nodata": -1}}], "static.0.out"),
        ("aoi.bbox", [SOUTH, 150.0, NORTH, 151.0], "(latitude and longitude look swapped)"),
        ("aoi.bbox", [100.0, 101.0, 10.0, 11.0], "(latitude and longitude look swapped)"),
        ("aoi.bbox", [WEST, SOUTH, WEST, NORTH], "bbox must be west < east"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("command", ["plan", "run"])
def test_a_wrong_field_is_named_with_the_nearest_right_one(tmp_path, good, path, value, says, command):
    assert says in refused(tmp_path, changed(good, path, value), "toy.yaml", command=command)


def test_a_misspelt_choice_names_the_nearest_one(tmp_path, good):
    refused(tmp_path, changed(good, "imagery.0.reduce", "medain"), "did you mean median")


def test_train_and_predict_files_name_the_nearest_field_too(tmp_path, good):
    region = write(tmp_path, good)
    train = write(tmp_path, "name: m\npatiense: 3\n", "train.yaml")
    predict = write(tmp_path, "model: m\nregion: [toy.yaml]\n", "predict.yaml")
    for told in (
        sentence(call("train", train)),
        sentence(call("run", region, "--train", train)),
    ):
        assert "train.yaml: patiense is no field: did you mean patience" in told
    for told in (sentence(call("predict", predict)), sentence(call("run", region, "--predict", predict))):
        assert "predict.yaml: region is no field: did you mean regions" in told
    assert not (tmp_path / "out").exists()
    with pytest.raises(RegionFileError, match="did you mean batch_size"):
        load_train(write(tmp_path, "name: m\nbatchsize: 3\n", "train.yaml"))
    with pytest.raises(RegionFileError, match="did you mean overlap"):
        load_predict(write(tmp_path, "model: m\noverlpa: 0.1\n", "predict.yaml"))


def test_a_file_of_another_kind_and_a_file_of_many_errors(tmp_path, good):
    train = write(tmp_path, "name: m\ndatasets: [toy.yaml]\n", "train.yaml")
    assert sentence(call("plan", train)).endswith("is a train file, not a region file: give the other one")
    assert "is a region file, not a train file" in sentence(call("train", write(tmp_path, good)))
    told = refused(tmp_path, good | {f"key{number}": 1 for number in range(7)}, "key4 is no field")
    assert told.endswith("; and 2 more")


BOMB = "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name: a\nname: b\n", "toy.yaml line 2: the key 'name' stands twice"),
        ("time: {range: [2019-01-01, 2020-01-01], range: 3}\n", "the key 'range' stands twice"),
        (BOMB, "toy.yaml line 1 uses an anchor or alias"),
        ("[" * 5000 + "]" * 5000, "nests deeper than 50 levels"),
        ("name: " + "9" * 5000, "holds a value that cannot be read"),
        ("name: !!int many\n", "holds a value that cannot be read"),
        ("name: !!python/object/apply:os.system [ls]\n", "could not determine a constructor"),
        ("name: [1, 2\n", "toy.yaml line"),
        ("x: " + "y" * (1 << 20), "larger than 1,048,576 bytes"),
        ("", "holds no fields"),
    ],
    ids=["doubled", "doubled-deep", "bomb", "nest", "digits", "tag", "python", "bracket", "large", "empty"],
)
def test_doubled_keys_bombs_and_broken_yaml(tmp_path, text, says):
    refused(tmp_path, text, says)


def test_deep_but_sane_yaml_is_read():
    assert parse_yaml("[" * 50 + "]" * 50, "x")


@pytest.mark.parametrize("what", ["labels.layers.0", "static.dem", "grid.like", "aoi"])
def test_a_file_that_is_named_and_missing(tmp_path, good, what):
    path, value = {
        "labels.layers.0": ("labels.layers.0.path", "none.tif"),
        "static.dem": ("static", [{"name": "dem", "path": "none.tif"}]),
        "grid.like": ("grid.like", "none.tif"),
        "aoi": ("aoi", {"path": "none.gpkg"}),
    }[what]
    refused(
        tmp_path, changed(good, path, value), "none.", "check the path" if what != "aoi" else "does not exist"
    )


# --- the area


@pytest.mark.parametrize("command", ["plan", "run"])
def test_an_aoi_outside_the_imagery_names_both_extents(tmp_path, good, command):
    there = [WEST + 20, SOUTH, EAST + 20, NORTH]
    values = changed(changed(good, "aoi.bbox", there), "grid.crs", "auto")
    told = refused(
        tmp_path, values, "the AOI of toy lies outside the imagery s2: its tiles span", command=command
    )
    assert f"{there[0]:.2f}"[:4] in told and f"{WEST:.2f}"[:4] in told and f"{SOUTH:.2f}"[:4] in told
    assert "swapped" not in told


def test_swapped_coordinates_that_are_valid_degrees_are_guessed_from_the_imagery(tmp_path, good):
    values = changed(changed(good, "aoi", {"bbox": [SOUTH, WEST, NORTH, EAST]}), "grid.crs", "auto")
    refused(tmp_path, values, "lies outside the imagery s2", "(latitude and longitude look swapped)")
    turned = shapely.box(SOUTH, WEST, NORTH, EAST)
    polygons(tmp_path / "aoi.geojson", [turned])
    refused(tmp_path, changed(values, "aoi", {"path": "aoi.geojson"}), "look swapped")


def test_an_aoi_outside_an_api_names_the_extent_of_the_collection(tmp_path, good, stac_api, small_world):
    values = changed(good, "imagery.0.source", {"stac": stac_api.url, "collection": small_world.collection})
    values |= {"aoi": {"bbox": [100.0, 10.0, 100.01, 10.01]}, "grid": {"tile_px": SIDE}}
    told = refused(tmp_path, values, "lies outside the imagery s2", "span 100", f"{small_world.collection} 1")
    assert "swapped" not in told
    values["aoi"] = {"bbox": [46.18, 12.0, 46.2, 12.03]}
    refused(tmp_path, values, "(latitude and longitude look swapped)")
    values["imagery"][0]["source"]["collection"] = "sentinel-9"
    done = call("plan", write(tmp_path, values))
    assert done.exit_code == 1 and "does not have the collection sentinel-9" in done.stderr


def test_time_without_imagery_is_not_blamed_on_the_area(tmp_path, good):
    done = call("plan", write(tmp_path, changed(good, "time.range", ["2001-01-01", "2002-01-01"])))
    assert done.exit_code == 1
    assert "no item of the source is left" in done.stderr and "outside" not in done.stderr


def test_a_self_crossing_aoi_is_mended_and_said(tmp_path, good):
    bow = shapely.Polygon([(WEST, SOUTH), (EAST, NORTH), (EAST, SOUTH), (WEST, NORTH), (WEST, SOUTH)])
    polygons(tmp_path / "aoi.geojson", [bow])
    path = write(tmp_path, changed(good, "aoi", {"path": "aoi.geojson"}))
    region = load_region(path)
    (remark,) = aoi_remarks(region)
    assert (
        "aoi.geojson: 1 of 1 polygons were invalid (Self-intersection" in remark and "were mended" in remark
    )
    assert read_aoi(region).is_valid
    assert read_aoi(region).area == pytest.approx((EAST - WEST) * (NORTH - SOUTH) / 2)
    done = call("plan", path)
    assert done.exit_code == 0 and remark in done.stdout
    assert remark in json.loads(call("plan", path, "--json").stdout)["remarks"]


def test_points_and_further_layers_are_left_out_and_said(tmp_path, good):
    box = shapely.box(WEST, SOUTH, EAST, NORTH)
    polygons(tmp_path / "aoi.geojson", [box, shapely.Point(WEST, SOUTH)])
    region = load_region(write(tmp_path, changed(good, "aoi", {"path": "aoi.geojson"})))
    assert [
        text
        for text in aoi_remarks(region)
        if "1 of 2 features are points or lines and were left out" in text
    ]
    for layer in ("first", "second"):
        pyogrio.raw.write(
            tmp_path / "two.gpkg", geometry=np.array([box.wkb], dtype=object), field_data=[], fields=[],
            geometry_type="Polygon", crs="EPSG:4326", layer=layer, append=layer == "second",
        )  # fmt: skip
    region = load_region(write(tmp_path, changed(good, "aoi", {"path": "two.gpkg"})))
    assert aoi_remarks(region) == (f"{tmp_path / 'two.gpkg'} has the layers first, second: first is used",)


@pytest.mark.parametrize(
    "content",
    [
        {"type": "FeatureCollection", "features": []},
        {"type": "FeatureCollection", "features": [{"type": "Feature", "properties": {}, "geometry": None}]},
        {"type": "Polygon", "coordinates": []},
        {"type": "LineString", "coordinates": [[WEST, SOUTH], [EAST, NORTH]]},
        {"type": "Polygon", "coordinates": [[[WEST, SOUTH], [EAST, NORTH], [WEST, SOUTH]]]},
        "{",
        "",
    ],
    ids=["no-feature", "null", "no-ring", "line", "flat", "cut", "nothing"],
)
@pytest.mark.parametrize("command", ["plan", "run"])
def test_an_aoi_without_area_is_refused(tmp_path, good, content, command):
    text = content if isinstance(content, str) else json.dumps(content)
    (tmp_path / "aoi.geojson").write_text(text)
    told = refused(tmp_path, changed(good, "aoi", {"path": "aoi.geojson"}), "aoi.geojson", command=command)
    assert "holds no polygon with an area" in told or "cannot be read as vectors" in told


def test_an_aoi_in_another_crs_is_converted_and_said(tmp_path, good):
    metres = reproject_shape(shapely.box(WEST, SOUTH, EAST, NORTH), 4326, 3857)
    polygons(tmp_path / "aoi.gpkg", [metres], "EPSG:3857")
    path = write(tmp_path, changed(good, "aoi", {"path": "aoi.gpkg"}))
    assert read_aoi(load_region(path)).bounds == pytest.approx((WEST, SOUTH, EAST, NORTH))
    done = call("plan", path)
    assert done.exit_code == 0 and "is in EPSG:3857 and was converted to degrees" in done.stdout


def test_metres_that_say_they_are_degrees_are_refused(tmp_path, good):
    metres = reproject_shape(shapely.box(WEST, SOUTH, EAST, NORTH), 4326, 32633)
    polygons(tmp_path / "aoi.geojson", [metres])
    told = refused(
        tmp_path, changed(good, "aoi", {"path": "aoi.geojson"}), "which are no degrees", "check its CRS"
    )
    assert "swapped" not in told


def test_a_file_with_latitude_first_is_refused_with_the_hint(tmp_path, good):
    polygons(tmp_path / "aoi.geojson", [shapely.box(SOUTH, WEST + 80, NORTH, EAST + 80)])
    refused(
        tmp_path,
        changed(good, "aoi", {"path": "aoi.geojson"}),
        "no degrees (latitude and longitude look swapped)",
    )


# --- the imagery and the labels


@pytest.mark.parametrize("command", ["plan", "run"])
def test_bands_that_the_collection_lacks_are_answered_with_those_that_are_there(tmp_path, good, command):
    values = changed(good, "imagery.0.bands", {"red": "red", "swir": "B11"})
    refused(
        tmp_path, values, "imagery s2 of toy: none of its 2 items can be used",
        "has no asset or band B11; it has nir, red, scl", command=command,
    )  # fmt: skip
    values = changed(good, "imagery.0.mask", {"asset": "qa"})
    refused(tmp_path, values, "has no asset or band qa; it has nir, red, scl", command=command)


def test_bands_that_some_items_lack_are_said(tmp_path, good):
    path = next((tmp_path / "archive").glob("*/s2019-02-01.json"))
    item = json.loads(path.read_text())
    del item["assets"]["nir"]
    path.write_text(json.dumps(item))
    done = call("plan", write(tmp_path, good))
    assert done.exit_code == 0
    assert "s2: 1 of 2 items cannot be used: item s2019-02-01 has no asset or band nir" in done.stdout


def test_an_index_without_its_bands(tmp_path, good):
    for command in ("plan", "run"):
        refused(tmp_path, changed(good, "indices", ["ndwi"]), "needs the bands green, nir", command=command)


def test_undeclared_label_values_are_named(tmp_path, good):
    label = np.ones((SIDE, SIDE), np.uint8)
    label[5:9, 5:10] = 88
    iw.save(tmp_path / "label.tif", label)
    refused(tmp_path, good, "label.tif holds 88 (20 px), which labels.classes does not name: add it there")


def test_a_value_beyond_the_tiles_or_a_nan_accuses_nobody(tmp_path, good):
    label = np.ones((2 * SIDE, 2 * SIDE), np.float32)
    label[SIDE:, SIDE:] = 88
    label[:3] = np.nan
    iw.save(tmp_path / "label.tif", label)
    assert call("plan", write(tmp_path, good)).exit_code == 0
    label[SIDE - 1, SIDE - 1] = 88
    iw.save(tmp_path / "label.tif", label)
    refused(tmp_path, good, "label.tif holds 88 (1 px)")


def test_a_vector_label_is_accused_of_what_lies_in_the_tiles_alone(tmp_path, good):
    values = changed(good, "labels.layers", [{"path": "fields.gpkg", "attribute": "kind"}])
    boxes = [shapely.box(WEST, SOUTH, EAST, NORTH), shapely.box(WEST + 5, SOUTH, EAST + 5, NORTH)]

    def draw(*kinds):
        pyogrio.raw.write(
            tmp_path / "fields.gpkg", geometry=np.array([box.wkb for box in boxes], dtype=object),
            field_data=[np.array(kinds)], fields=["kind"], geometry_type="Polygon", crs="EPSG:4326",
        )  # fmt: skip

    draw(1, 88)
    assert call("plan", write(tmp_path, values)).exit_code == 0
    draw(88, 1)
    refused(tmp_path, values, "fields.gpkg holds 88 (1 feature(s))")


def test_classes_that_contradict_themselves_and_no_classes(tmp_path, good):
    refused(tmp_path, changed(good, "labels.classes", {"1-5": "a", "3": "b"}), "3 is declared twice")
    refused(tmp_path, changed(good, "labels.classes", {}), "labels have no classes")


# --- chips, blocks, output


@pytest.mark.parametrize("extra", [[], ["toy.yaml"]])
def test_chips_that_the_model_cannot_halve_are_refused_before_building(tmp_path, good, extra):
    train = {"name": "m", "preset": "base", "datasets": extra}
    values = changed(good, "dataset.chips.size_px", 36)
    write(tmp_path, train, "train.yaml")
    told = refused(
        tmp_path, values, "toy.yaml with preset base of m: chips of 36 px cannot pass a U-Net of 4 levels",
        command="run", more=("--train", tmp_path / "train.yaml"),
    )  # fmt: skip
    assert "must be a multiple of 8, e.g. 40" in told
    if extra:
        assert "must be a multiple of 8" in sentence(call("train", tmp_path / "train.yaml"))
    assert not (tmp_path / "out").exists()


def test_a_series_is_refused_by_training_in_a_sentence(tmp_path, good):
    write(tmp_path, changed(good, "dataset.layout", "series"), "a.yaml")
    train = write(tmp_path, {"name": "m", "preset": "tiny", "datasets": ["a.yaml"]}, "train.yaml")
    told = sentence(call("train", train))
    assert "dataset.layout series" in told
    assert "takes no axis of time: set it to stack" in told


def test_regions_with_chips_of_two_sizes_do_not_train_one_model(tmp_path, good):
    write(tmp_path, good, "a.yaml")
    write(tmp_path, changed(good, "dataset.chips.size_px", 32), "b.yaml")
    train = write(tmp_path, {"name": "m", "preset": "tiny", "datasets": ["a.yaml", "b.yaml"]}, "train.yaml")
    assert "needs chips of one size" in sentence(call("train", train))
    check_training(load_train(write(tmp_path, {"name": "m", "datasets": ["a.yaml"]}, "train.yaml")))
    write(tmp_path, {"name": "m", "datasets": ["none.yaml"]}, "train.yaml")
    assert "none.yaml cannot be read" in sentence(call("train", tmp_path / "train.yaml"))


@pytest.mark.parametrize(
    ("splits", "says"),
    [
        (
            {"block_px": 64},
            "3 blocks of 64 px that hold a whole window are needed for the splits, 1 are there",
        ),
        ({"block_px": 64}, "set dataset.splits.block_px to 32"),
        ({"block_px": 32, "folds": 5}, "5 blocks of 32 px"),
        ({"block_px": 16, "train": 0.5, "val": 0.5, "test": 0.0}, None),
        ({"block_px": 32, "folds": 4}, None),
    ],
)
def test_too_few_blocks_are_counted_from_geometry(tmp_path, good, splits, says):
    values = changed(good, "dataset.splits", splits)
    if says is None:
        assert call("plan", write(tmp_path, values)).exit_code == 0
    else:
        refused(tmp_path, values, says)


def test_tiles_too_small_for_a_chip(tmp_path, good):
    refused(tmp_path, changed(good, "dataset.chips.size_px", 128), "0 are there (0 windows)", "smaller chips")


def test_blocks_that_were_dealt_are_not_counted_and_their_rules_hold(tmp_path, good):
    region, tiles = place_tiles(load_region(write(tmp_path, changed(good, "dataset.splits.block_px", 64))))
    path = OutputDir(region.output_dir).region("toy").blocks
    block = (tiles[0].lattice.lattice_id, 0, 0)
    write_blocks(path, Dealt({block: 0}, {}), region.dataset.splits, changed=True)
    check_splits(region, tiles)
    other, _ = place_tiles(load_region(write(tmp_path, good)))
    with pytest.raises(SplitError, match="block_px was 64 and is now 32"):
        check_splits(other, tiles)


@pytest.mark.parametrize("command", ["plan", "run"])
def test_an_output_that_cannot_be_written(tmp_path, good, command):
    (tmp_path / "file").write_text("in the way")
    done = call(command, write(tmp_path, good | {"output": "file/out"}))
    told = sentence(done)
    assert str(tmp_path / "file") in told and "cannot be written" in told and "choose another output" in told
    assert (tmp_path / "file").read_text() == "in the way"


def test_a_disk_without_room_names_the_need(tmp_path, good, monkeypatch):
    region, tiles = place_tiles(load_region(write(tmp_path, good)))
    free = shutil.disk_usage(tmp_path)._replace(free=4096)
    monkeypatch.setattr("chipmill.dataset.preflight.shutil.disk_usage", lambda _: free)
    told = refused(tmp_path, good, "the disk is full for this run: toy may write up to", "and 4,096 are free")
    need = int(told.split("up to ")[1].split(" bytes")[0].replace(",", ""))
    # what is there already is taken over, so it counts as room
    held = region.output_dir / "regions" / "toy" / "composite.tif"
    held.parent.mkdir(parents=True)
    held.write_bytes(b"x" * (need - 4096))
    held.with_name("version.tif").hardlink_to(held)
    check_output(region, tiles)
    held.with_name("version.tif").unlink()
    held.write_bytes(b"x" * (need - 4097))
    with pytest.raises(OSError, match="disk is full"):
        check_output(region, tiles)


def test_a_cell_that_another_run_holds(tmp_path, good):
    path = write(tmp_path, good)
    held = cell_dir(load_region(path)).lock
    with lock(held, "r1"):
        told = sentence(call("run", path))
        assert "is locked by run r1 on" in told and "wait for it to end" in told
        assert [found for found in (tmp_path / "out").rglob("*") if found.is_file()] == [held]


def test_the_check_returns_what_is_to_be_said_and_leaves_nothing(tmp_path, good):
    region, tiles = place_tiles(load_region(write(tmp_path, good)))
    answer = find_items(region, tiles)
    assert check_region(region, tiles, answer) == answer.notes == ()
    assert not (tmp_path / "out").exists()
    assert check_region(region.model_copy(update={"labels": None}), tiles) == ()


def test_a_bad_input_is_json_for_machines(tmp_path, good):
    done = call("plan", write(tmp_path, changed(good, "dataset.splits.block_px", 64)), "--json")
    assert done.exit_code == 2
    assert json.loads(done.stdout) == {"ok": False, "error": json.loads(done.stdout)["error"], "exit_code": 2}


@pytest.mark.parametrize("error", [AoiError, BadInputError, RegionFileError, SplitError])
def test_errors_of_input_end_with_2(error):
    assert error("x").exit_code == 2


def test_a_region_is_refused_in_a_form_as_in_a_file(good):
    with pytest.raises(ValueError, match=r"nodata 300 lies outside uint8"):
        Region.model_validate(changed(good, "imagery.0.out", {"dtype": "uint8", "nodata": 300}))
