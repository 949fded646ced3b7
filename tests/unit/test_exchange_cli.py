"""`chipmill convert`: each direction through the command line, one sentence for an error, JSON for machines."""

import json

import numpy as np
import pytest
import rasterio
from tests import exchange_world as ew
from typer.testing import CliRunner

from chipmill import cli
from chipmill.cli.convert import convert

NAMES = sorted(one.name for one in convert.registered_commands)


def call(*words):
    return CliRunner().invoke(cli.app, ["convert", *map(str, words)])


@pytest.fixture
def pairs(tmp_path):
    for at in range(3):
        ew.pair(tmp_path / "in", f"b{at}", at)
    return tmp_path


FROM = ("--date", "2019-06-01", "--class", "0=other", "--class", "1=water", "--class", "2=tree")


def test_every_direction_is_a_command_with_help_and_json():
    assert NAMES == [
        "dtype", "from-dl-records", "from-earthengine", "from-esri", "from-folders", "raster-from-earthengine",
        "raster-to-earthengine", "to-earthengine", "to-esri", "to-folders",
    ]  # fmt: skip
    for name in NAMES:
        done = call(name, "--help")
        assert done.exit_code == 0 and "--json" in done.output, name


def test_a_dataset_goes_through_every_format_and_comes_back(pairs):
    assert (
        call(
            "from-folders", pairs / "in", pairs / "0", *FROM, "--band", "r", "--band", "g", "--band", "b"
        ).exit_code
        == 0
    )
    for number, kind in enumerate(("folders", "esri", "earthengine")):
        assert call(f"to-{kind}", pairs / str(number), pairs / kind).exit_code == 0
        done = call(f"from-{kind}", pairs / kind, pairs / str(number + 1), "--json")
        assert json.loads(done.stdout) == {
            "ok": True,
            "path": str(pairs / str(number + 1)),
            "chips": 3,
            "notes": [],
        }
    first, last = (
        sorted((pairs / one / "versions" / "1" / "shards").glob("*.tfrecord")) for one in ("0", "3")
    )
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in last]
    assert CliRunner().invoke(cli.app, ["verify", str(pairs / "3"), "--data"]).exit_code == 0


def test_a_raster_goes_out_and_comes_back(tmp_path):
    pixels = np.arange(900, dtype=np.uint8).reshape(1, 30, 30)
    ew.save(tmp_path / "map.tif", pixels)
    words = ("--patch", 16, 16, "--margin", 4, 4, "--asset", "projects/p/assets/m", "--bucket", "gs://b/x")
    assert call("raster-to-earthengine", tmp_path / "map.tif", tmp_path / "ee", *words).exit_code == 0
    assert (tmp_path / "ee" / "upload.json").is_file()
    done = call("raster-from-earthengine", tmp_path / "ee", tmp_path / "back", "--json")
    assert json.loads(done.stdout)["patches"] == 4
    with rasterio.open(tmp_path / "back" / "ee.tif") as file:
        np.testing.assert_array_equal(file.read()[:, :30, :30], pixels)


def test_dtype_tells_what_did_not_fit(tmp_path):
    ew.save(tmp_path / "in" / "a.tif", np.full((1, 4, 4), 300, np.int16))
    done = call(
        "dtype", tmp_path / "in", tmp_path / "out", "--to", "uint8", "--suffix", "_8", "--exclude", "old/**"
    )
    assert done.exit_code == 0 and "16 pixels of 1 files did not fit" in done.stdout
    assert (tmp_path / "out" / "a_8.tif").is_file()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("from-folders", "in", "out"), "name the classes, as 1=water"),
        (("from-folders", "in", "out", "--class", "water"), "class: expected VALUE=NAME"),
        (("from-folders", "in", "out", *FROM, "--split", "dev"), "split: expected one of train, val, test"),
        (("from-folders", "in", "out", *FROM, "--date", "June"), "date: expected YYYY-MM-DD"),
        (("from-folders", "nowhere", "out", *FROM), "is no folder"),
        (("from-folders", "in", "in", *FROM), "is there already"),
        (("from-earthengine", "in", "out", *FROM, "--scale", "ndvi"), "scale: expected BAND=NUMBER"),
        (("from-earthengine", "in", "out", *FROM), "holds no .tfrecord"),
        (("from-dl-records", "in", "out", *FROM), "expected the shards of one set"),
        (("from-esri", "in", "out"), "has no esri_model_definition.emd"),
        (("to-esri", "in", "out"), "is no version of a dataset"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(pairs, monkeypatch, words, says):
    monkeypatch.chdir(pairs)
    done = call(*words)
    assert done.exit_code in (1, 2), done.output
    assert says in done.stderr and done.stderr.count("\n") == 1
    assert [path.name for path in pairs.iterdir()] == ["in"]
