"""CHIPMILL_ROOTS: a parameter's paths lie below the allowed directories, whatever they look like."""

import os

import pytest

from chipmill.core.errors import RegionFileError
from chipmill.region.config import Region
from chipmill.region.jobs import PredictConfig, TrainConfig
from chipmill.region.roots import check_roots, paths_of


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


def test_absolute_paths_inside_and_stores_are_allowed(places):
    check_roots(region(output=str(places / "two" / "out")))
    check_roots(region(output="s3://bucket/out"))


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
        "tiles.source.items": lambda: region(
            tiles={"from": "label-items", "source": {"items": path}, "asset": "label"}
        ),
        "datasets.0": lambda: TrainConfig(name="m", datasets=(path,)),
        "regions.0": lambda: PredictConfig(model="m", regions=(path,)),
    }[field]()


FIELDS = [
    "output", "file", "aoi", "grid.like", "static.dem", "labels.layers.0", "labels.coverage", "imagery.0.source.catalog",
    "imagery.0.source.items", "tiles.source.items", "datasets.0", "regions.0",
]  # fmt: skip


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("shape", ["absolute", "climbing", "sibling", "through a link", "below a link"])
def test_a_path_outside_is_refused_with_its_field(places, field, shape):
    (places / "one" / "link").symlink_to(places / "private")
    path = {
        "absolute": "/etc/passwd",
        "climbing": "../private/x.tif",
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
