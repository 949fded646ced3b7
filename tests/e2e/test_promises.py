"""What the output of a run promises, checked on the files that the small demo left, with readers that are not ours."""

import csv
import itertools
import json
import os
import random

import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
import shapely
from pyproj import Geod
from rasterio.windows import Window as RasterWindow
from rio_cogeo.cogeo import cog_validate

from chipmill.dataset.manifest import load_manifest

pytestmark = [pytest.mark.tensorflow, pytest.mark.timeout(400)]

LOST = ["composite", "metrics", *(["shard"] if os.environ.get("CHIPMILL_PROFILE") == "nightly" else [])]
"""What is lost in turn; each costs a run."""


@pytest.fixture(scope="module")
def version(made):
    (path,) = made[0].glob("out/regions/demo/*/versions/1")
    return path


@pytest.fixture(scope="module")
def rows(version):
    return pq.read_table(version / "chips.parquet").to_pylist()


@pytest.fixture(scope="module")
def records(version):
    """Return chip_id -> parsed features, read by TensorFlow alone."""
    import tensorflow as tf

    spec = {
        name: tf.io.FixedLenFeature([], tf.string) for name in ("image", "label", "chip_id", "anchor", "crs")
    }
    found = {}
    for shard in sorted((version / "shards").glob("*.tfrecord")):
        for data in tf.data.TFRecordDataset(str(shard)):
            features = tf.io.parse_single_example(data, spec)
            found[features["chip_id"].numpy().decode()] = {
                "shard": shard.name,
                "image": features["image"].numpy(),
                "label": features["label"].numpy(),
            }
    return found


def test_every_raster_opens_and_reads(made):
    folder, _ = made
    paths = [path for ending in ("*.tif", "*.vrt") for path in (folder / "out" / "regions").rglob(ending)]
    assert len(paths) > 10
    for path in paths:
        with rasterio.open(path) as raster:
            assert raster.read(1).shape == raster.shape


def test_maps_are_cogs_with_overviews(made):
    paths = sorted((made[0] / "out" / "maps").rglob("*.tif"))
    kinds, zones = ("classes", "confidence", "probabilities"), ("32632", "32633")
    assert [path.stem for path in paths] == [f"{kind}-{zone}" for kind in kinds for zone in zones]
    for path in paths:
        valid, errors, _ = cog_validate(path, strict=False, quiet=True)
        assert valid, errors
        with rasterio.open(path) as raster:
            assert path.stem.endswith(f"-{raster.crs.to_epsg()}") and raster.nodata == 255
            assert raster.overviews(1)
            assert (raster.read(1) != 255).mean() > 0.2  # of a rectangle of whole tiles


def test_both_zones_are_in_data_and_map_and_each_place_once(made, rows):
    out = made[0] / "out"
    assert {row["lattice"][:5] for row in rows if row["state"] == "written"} == {"32632", "32633"}
    (areas,) = out.glob("maps/*/*/*/1/areas.csv")
    mapped = sum(float(row["mapped_ha"]) for row in csv.DictReader(areas.read_text().splitlines()))
    aoi = shapely.from_geojson((out / "world" / "aoi.geojson").read_text())
    true = abs(Geod(ellps="WGS84").geometry_area_perimeter(aoi.geoms[0])[0]) / 10_000
    assert mapped == pytest.approx(true, rel=1e-3), "doubled or left out at the border"


def test_shards_hold_exactly_the_written_chips(rows, records, version):
    written = {row["chip_id"]: row for row in rows if row["state"] == "written"}
    assert written.keys() == records.keys()
    assert all(records[name]["shard"].startswith(row["split"]) for name, row in written.items())
    manifest = load_manifest(version)
    assert sum(shard.count for shard in manifest.shards) == len(written)


def test_twenty_records_equal_the_same_windows_of_the_stack(rows, records, version):
    manifest = load_manifest(version)
    tiles = {row["tile_id"]: row for row in pq.read_table(version / "tiles.parquet").to_pylist()}
    size = manifest.chip_size_px
    nodata = np.array([band.nodata for band in manifest.bands])[:, None, None]
    written = [row for row in rows if row["state"] == "written"]
    for row in random.Random(3).sample(written, 20):
        tile = tiles[row["tile_id"]]
        place = row["col_off"] - tile["col_off"], row["row_off"] - tile["row_off"]
        with rasterio.open(version / "stack" / f"{row['tile_id']}.vrt") as stack:
            window = RasterWindow(*place, size, size)
            predictors, own = (
                stack.read([*range(1, stack.count)], window=window),
                stack.read(stack.count, window=window),
            )
        image = np.frombuffer(records[row["chip_id"]]["image"], manifest.dtype).reshape(size, size, -1)
        label = np.frombuffer(records[row["chip_id"]]["label"], np.uint8).reshape(size, size)
        assert np.array_equal(image.transpose(2, 0, 1), predictors)
        slots = [band.slot for band in manifest.bands]
        valid = [(predictors != nodata)[[one == slot for one in slots]].all(0) for slot in {*slots} - {""}]
        assert np.array_equal(label, np.where(np.any(valid, axis=0), own, 255))


def test_no_pixel_of_a_train_chip_lies_in_a_val_or_test_chip(rows):
    def places(split):
        return [row for row in rows if row["state"] == "written" and row["split"] == split]

    def overlap(one, other):
        return (
            one["lattice"] == other["lattice"]
            and one["col_off"] < other["col_off"] + other["width"]
            and other["col_off"] < one["col_off"] + one["width"]
            and one["row_off"] < other["row_off"] + other["height"]
            and other["row_off"] < one["row_off"] + one["height"]
        )

    assert all(places(split) for split in ("train", "val", "test"))
    for one, other in itertools.combinations(("train", "val", "test"), 2):
        assert not any(overlap(a, b) for a in places(one) for b in places(other))


def test_the_sum_over_windows_holds(rows, version):
    counts = load_manifest(version).counts
    states = [row["state"] for row in rows]
    assert counts.planned == len(rows)
    assert states.count("written") == counts.written
    assert states.count("filtered") == sum(counts.filtered.values())
    assert all(row["reason"] for row in rows if row["state"] != "written")


def _tree(folder):
    """Return path -> (inode, mtime) of every committed product below the output, without versions' numbers."""
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("lost", LOST)
def test_a_lost_file_is_remade_and_nothing_else(made, call, lost):
    folder, _ = made
    out = folder / "out"
    place = {"composite": "regions/demo/composites", "shard": "regions/demo/*/versions", "metrics": "models"}[
        lost
    ]
    pattern = {"composite": "*/*/*.tif", "shard": "*/shards/*.tfrecord", "metrics": "*/*/metrics.json"}[lost]
    victim = max(out.glob(f"{place}/{pattern}"), key=lambda path: (path.stat().st_mtime_ns, path.name))
    if lost != "composite":
        folder_of = {"shard": victim.parents[2], "metrics": victim.parents[1]}[lost]
        number = int(((folder_of.parent if lost == "shard" else folder_of) / "CURRENT").read_text())
        (victim, *_) = sorted((folder_of / str(number)).glob(pattern.removeprefix("*/").removeprefix("*/")))
    content, before = victim.read_bytes(), _tree(out)
    victim.unlink()
    done = call(folder, "demo", "--size", "small", "--out", "out", "--json")
    assert done.returncode == 0, done.stderr
    (run,) = json.loads(done.stdout)["runs"]
    assert run["changed"] is True
    inodes = {inode for inode, _ in before.values()}
    fresh = [path for path in out.rglob("*") if path.is_file() and path.stat().st_ino not in inodes]
    pixels = {path.suffix for path in fresh} & {".tif", ".tfrecord", ".h5", ".parquet"}
    again = [path for path in fresh if path.name == victim.name and not path.name.endswith(".tif.json")]
    assert again and all(path.read_bytes() == content for path in again if lost != "metrics")
    assert (
        pixels
        <= {"composite": {".tif", ".parquet"}, "shard": {".tfrecord", ".parquet"}, "metrics": set()}[lost]
    )
    heavy = [path for path in fresh if path.suffix in (".tif", ".tfrecord", ".h5")]
    assert len(heavy) == (0 if lost == "metrics" else 1), heavy
