from pathlib import Path

import pytest

from chipmill.core.errors import RegionFileError
from chipmill.region.config import Region
from chipmill.region.identity import config_fingerprint
from chipmill.region.load import dump_config, load_predict, load_region, load_train

SHORTEST = """
name: savinja
aoi: {bbox: [14.5, 46.0, 14.7, 46.1]}
time: {range: [2019-01-01, 2020-01-01]}
imagery:
  - {name: s2, source: {catalog: cat.json}, bands: {red: red, nir: nir}}
labels: {layers: [{path: label.tif}], classes: {10: crop, "20-30": tree}}
"""


@pytest.fixture
def write(tmp_path):
    def one(text: str, name: str = "region.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text)
        (tmp_path / "label.tif").write_bytes(b"label")
        return path

    return one


def test_the_shortest_file_has_defaults_that_work(write):
    region = load_region(write(SHORTEST))
    assert (region.grid.resolution, region.dataset.chips.size_px, region.on_failed) == (10, 256, "stop")
    assert region.labels.classes == {"10": "crop", "20-30": "tree"}
    assert region.resolve("a.tif").parent == Path(region.file).parent
    assert region.output_dir == Path(region.file).parent / "out"
    assert region.resolve("../up/./a.tif") == Path(region.file).parents[1] / "up" / "a.tif"


def test_every_field_has_a_description_in_the_form():
    def bare(schema, path):
        for name, field in schema.get("properties", {}).items():
            # Pydantic leaves out a text that is the same as that of the model which the field refers to.
            if "description" not in field and "$ref" not in field:
                yield f"{path}.{name}"

    schema = Region.model_json_schema()
    missing = list(bare(schema, "Region"))
    missing += [one for name, definition in schema["$defs"].items() for one in bare(definition, name)]
    assert missing == []


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("name: savinja", "name: Savinja Valley", "name: String should match pattern"),
        ("aoi: {bbox", "aoi: {bufer_m: 3, bbox", r"aoi\.bufer_m is no field: did you mean buffer_m"),
        ("[14.5, 46.0, 14.7, 46.1]", "[46.0, 114.5, 46.1, 114.7]", "latitude and longitude look swapped"),
        ("aoi: {bbox: [14.5, 46.0, 14.7, 46.1]}", "aoi: {}", "exactly one of path, bbox; got none"),
        ("[2019-01-01, 2020-01-01]", "[2020-01-01, 2019-01-01]", "must lie before end"),
        ("2020-01-01]}", "2020-01-01], slots: {n: 3, every: P1M}}", "exactly one of n, every.*got n, every"),
        ("2020-01-01]}", "2020-01-01], slots: {every: monthly}}", r"time\.slots\.every"),
        ("nir: nir}", "nir: nir}, offset: maybe", r"imagery\.0\.offset"),
        ("{10: crop", "{x: crop", "neither a value like 10 nor a range"),
        ("labels:", "static: [{name: red, path: x.tif}]\nlabels:", "doubled: red"),
        ("labels:", "dataset: {select: {key_class: water}}\nlabels:", "key_class 'water' is no class"),
        ("labels:", "dataset: {splits: {train: 0.9}}\nlabels:", "train \\+ val \\+ test must be 1, got 1.2"),
        ("labels:", "dataset: {splits: {folds: 3, fold: 3}}\nlabels:", "fold must be below folds"),
        ("labels:", "file: x\nlabels:", "file is set by chipmill"),
        ("name: savinja\n", "", "name is missing"),
    ],
)
def test_a_wrong_field_is_named_in_one_sentence(write, old, new, says):
    assert old in SHORTEST
    with pytest.raises(RegionFileError, match=says) as caught:
        load_region(write(SHORTEST.replace(old, new)))
    assert "region.yaml" in str(caught.value) and "\n" not in str(caught.value)


def test_a_dump_reads_back_and_holds_no_place_of_the_file(write, tmp_path):
    region = load_region(write(SHORTEST))
    text = dump_config(region)
    assert str(tmp_path) not in text
    again = load_region(write(text, "again.yaml"))
    assert again.model_copy(update={"file": None}) == region.model_copy(update={"file": None})


def test_the_fingerprint_follows_parameters_and_contents_not_places(write):
    first = config_fingerprint(load_region(write(SHORTEST)))
    other_place = SHORTEST.replace("cat.json", "elsewhere/cat.json") + "output: other\non_failed: commit\n"
    assert config_fingerprint(load_region(write(other_place, "b.yaml"))) == first
    assert config_fingerprint(load_region(write(SHORTEST.replace("nir: nir", "nir: nir08")))) != first
    path = write(SHORTEST)
    (path.parent / "label.tif").write_bytes(b"changed")
    assert config_fingerprint(load_region(path)) != first
    (path.parent / "label.tif").unlink()
    with pytest.raises(RegionFileError, match=r"labels\.layers\.0: .*label\.tif cannot be read"):
        config_fingerprint(load_region(path))


def test_train_and_predict_files(write):
    train = load_train(write("name: crops\ndatasets: [savinja.yaml]\nepochs: 3", "train.yaml"))
    assert (train.batch_size, train.loss) == (16, "dice+ce")
    assert train.resolve(train.datasets[0]).name == "savinja.yaml"
    predict = load_predict(write("model: crops@3\nregions: [savinja.yaml]", "predict.yaml"))
    assert predict.overlap == 0.25
    with pytest.raises(RegionFileError, match="overlap"):
        load_predict(write("model: crops\noverlap: 1.0", "predict.yaml"))


def test_a_shapefile_is_all_its_parts(write):
    path = write(SHORTEST.replace("label.tif", "label.shp"))
    for ending in (".shp", ".dbf"):
        (path.parent / "label").with_suffix(ending).write_bytes(b"1")
    first = config_fingerprint(load_region(path))
    (path.parent / "label.dbf").write_bytes(b"22")
    assert config_fingerprint(load_region(path)) != first
