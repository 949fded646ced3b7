"""CHIPMILL_ROOTS: a parameter's paths lie below the allowed directories, whatever they look like."""

import os

import pytest
from pydantic import ValidationError

from chipmill.core.errors import RegionFileError
from chipmill.learning.preflight import check_training
from chipmill.orchestration.cells import training_set
from chipmill.region.config import Region
from chipmill.region.jobs import PredictConfig, TrainConfig
from chipmill.region.load import dump_config
from chipmill.region.roots import check_place, check_roots, own_roots, paths_of


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Two roots, and a folder beside them."""
    for name in ("one", "two", "one-more", "private"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("CHIPMILL_ROOTS", f"{tmp_path / 'one'}:{tmp_path / 'two'}")
    return tmp_path


def region(**changes):
    values = {
        "name": "r",
        "aoi": {"path": "aoi.gpkg"},
        "time": {"range": ("2019-01-01", "2020-01-01")},
        "imagery": [{"name": "s2", "source": {"catalog": "cat/catalog.json"}, "bands": {"red": "red"}}],
        "labels": {"layers": [{"path": "l.tif"}], "classes": {"1": "crop"}, "coverage": "c.gpkg"},
        "static": [{"name": "dem", "path": "dem.tif"}],
        "grid": {"like": "like.tif"},
        "tiles": {"from": "label-items", "source": {"items": "labels.json"}, "asset": "label"},
    }
    return Region.model_validate(values | changes)


def test_without_roots_nothing_is_restricted(monkeypatch):
    monkeypatch.delenv("CHIPMILL_ROOTS", raising=False)
    config = region(output="/anywhere")
    assert check_roots(config) is config


def test_relative_paths_begin_at_the_first_root(places):
    checked = check_roots(region())
    assert checked.resolve("aoi.gpkg") == places / "one" / "aoi.gpkg"
    assert checked.output_dir == places / "one" / "out"


def test_a_file_inside_a_root_keeps_its_folder(places):
    checked = check_roots(region(file=str(places / "two" / "sub" / "r.yaml"), output="../out"))
    assert checked.output_dir == places / "two" / "out"


def test_a_relative_file_lies_below_the_first_root(places):
    checked = check_roots(region(file="regions/r.yaml", output="../out"))
    assert checked.file == str(places / "one" / "regions" / "r.yaml")
    assert checked.output_dir == places / "one" / "out"


def test_absolute_paths_inside_are_allowed(places):
    check_roots(region(output=str(places / "two" / "out")))


@pytest.mark.parametrize("output", ["s3://bucket/out", "S3://../../out", "gs://b", "file:///tmp/out"])
def test_an_output_in_a_store_is_refused_by_its_name(output):
    """It would quietly become a folder "s3:"."""
    with pytest.raises(ValidationError, match=r"output\n.*must be a directory of this machine"):
        region(output=output)


def test_a_place_that_a_run_is_given_lies_in_the_roots(places):
    check_place("dataset.path", places / "two" / "out" / "versions" / "1")
    with pytest.raises(RegionFileError, match=r"^dataset.path: .*outside"):
        check_place("dataset.path", places / "private")


def test_files_of_the_command_line_bring_their_folder_and_output_where_roots_are_set(places, monkeypatch):
    own = region(file=str(places / "private" / "r.yaml"), output=str(places / "elsewhere" / "out"))
    with pytest.raises(RegionFileError, match=r"^file: "):
        check_roots(own)
    with own_roots([own]):
        assert check_roots(own) == own
        with pytest.raises(RegionFileError, match=r"^output: "):
            check_roots(own.model_copy(update={"output": str(places / "one-more")}))
    with pytest.raises(RegionFileError, match=r"^file: "):
        check_roots(own)
    monkeypatch.delenv("CHIPMILL_ROOTS")
    with own_roots([own]):
        assert "CHIPMILL_ROOTS" not in os.environ


def test_an_output_that_cannot_be_made_is_said(places):
    (places / "private" / "file").touch()
    own = region(file=str(places / "private" / "r.yaml"), output="file/out")
    with (
        pytest.raises(RegionFileError, match=r"output: .*/private/file/out cannot be made"),
        own_roots([own]),
    ):
        pytest.fail("it was made")


def test_the_files_that_a_train_file_lists_are_looked_at_themselves(places):
    """A region file inside the roots may name places outside of them."""
    inside = places / "one" / "r.yaml"
    inside.write_text(dump_config(region(static=[{"name": "dem", "path": "/etc/passwd"}])))
    train = check_roots(TrainConfig(name="m", datasets=("r.yaml",)))
    for look in (check_training, training_set):
        with pytest.raises(RegionFileError, match=r"^static.dem: '/etc/passwd' lies outside"):
            look(train)


def _with(field, path):
    source = {"name": "s2", "source": {"catalog": path}, "bands": {"red": "red"}}
    items = {"name": "s2", "source": {"items": path}, "bands": {"red": "red"}}
    return {
        "output": lambda: region(output=path),
        "file": lambda: region(file=path),
        "aoi": lambda: region(aoi={"path": path}),
        "grid.like": lambda: region(grid={"like": path}),
        "static.dem": lambda: region(static=[{"name": "dem", "path": path}]),
        "labels.layers.0": lambda: region(labels={"layers": [{"path": path}], "classes": {"1": "crop"}}),
        "labels.coverage": lambda: region(
            labels={"layers": [{"path": "l.tif"}], "classes": {"1": "crop"}, "coverage": path}
        ),
        "imagery.0.source.catalog": lambda: region(imagery=[source]),
        "imagery.0.source.items": lambda: region(imagery=[items]),
        "imagery.0.source.files": lambda: region(
            imagery=[items | {"source": {"files": f"{path}/{{year}}.tif"}}]
        ),
        "imagery.0.source.composites": lambda: region(
            imagery=[items | {"source": {"composites": f"{path}/x{{year}}/{{band}}.tif"}}]
        ),
        "tiles.source.items": lambda: region(
            tiles={"from": "label-items", "source": {"items": path}, "asset": "label"}
        ),
        "tiles.path": lambda: region(tiles={"from": "file", "path": path}),
        "tiles.year.path": lambda: region(tiles={"year": {"attribute": "year", "path": path}}),
        "datasets.0": lambda: TrainConfig(name="m", datasets=(path,)),
        "regions.0": lambda: PredictConfig(model="m", regions=(path,)),
    }[field]()


FIELDS = [
    "output", "file", "aoi", "grid.like", "static.dem", "labels.layers.0", "labels.coverage", "imagery.0.source.catalog",
    "imagery.0.source.items", "imagery.0.source.files", "imagery.0.source.composites", "tiles.source.items",
    "tiles.path", "tiles.year.path", "datasets.0", "regions.0",
]  # fmt: skip


SHAPES = ["absolute", "climbing", "store", "sibling", "through a link", "below a link"]
BY_THE_MODEL = [
    "output", "imagery.0.source.items", "imagery.0.source.files", "imagery.0.source.composites", "tiles.source.items",
]  # fmt: skip
OUTSIDE = [
    (field, shape) for field in FIELDS for shape in SHAPES if shape != "store" or field not in BY_THE_MODEL
]
"""A store, or what only looks like an object of one, is refused by the model itself."""


@pytest.mark.parametrize("field", BY_THE_MODEL[1:])
def test_what_only_looks_like_an_object_of_a_store_is_refused_by_the_model(field):
    for path in (
        "s3://../../../private/x.tif",
        "s3://bucket/../x.json",
        "gs://bucket/x.json",
        "S3://bucket/x",
    ):
        with pytest.raises(ValidationError, match=r"s3://bucket/key|is no pattern of a path"):
            _with(field, path)


def test_an_object_of_a_store_is_no_path_of_this_machine(places):
    config = _with("imagery.0.source.items", "s3://bucket/list/items.parquet")
    assert check_roots(config).imagery == config.imagery


@pytest.mark.parametrize(("field", "shape"), OUTSIDE)
def test_a_path_outside_is_refused_with_its_field(places, field, shape):
    (places / "one" / "link").symlink_to(places / "private")
    path = {
        "absolute": "/etc/passwd",
        "climbing": "../private/x.tif",
        "store": "s3://../../../private/x.tif",
        "sibling": str(places / "one-more" / "x.tif"),
        "through a link": str(places / "one" / "link"),
        "below a link": "link/new/x.tif" if field != "file" else str(places / "one" / "link" / "r.yaml"),
    }[shape]
    with pytest.raises(RegionFileError, match=f"^{field}: .*outside the directories of CHIPMILL_ROOTS"):
        check_roots(_with(field, path))


def test_every_path_of_a_region_is_looked_at():
    """A new field with a path must be added to paths_of: all texts of a full region that look like paths are known."""
    from chipmill.region.fields import texts_of

    looks = {
        text for _, text in texts_of(region().model_dump(exclude={"file"})) if "." in text or text == "out"
    }
    assert looks == set(paths_of(region()).values())


@pytest.mark.parametrize("value", ["relative/dir", "/does/not/exist"])
def test_roots_must_be_directories(monkeypatch, value):
    monkeypatch.setenv("CHIPMILL_ROOTS", value)
    with pytest.raises(RegionFileError, match="CHIPMILL_ROOTS names"):
        check_roots(region())


def test_a_root_may_be_a_link(places, monkeypatch):
    (places / "alias").symlink_to(places / "two")
    monkeypatch.setenv("CHIPMILL_ROOTS", os.fspath(places / "alias"))
    check_roots(region(output=str(places / "alias" / "out")))
    check_roots(region(output=str(places / "two" / "out")))
