"""The small demo, twice, as a user calls it: everything is made, everything is true, and the second call does nothing."""

import json
import os
import time
from pathlib import Path

import pytest
import rasterio

from chipmill.core.paths import VersionDir
from chipmill.dataset.manifest import load_manifest

CELL = "2019-01-01--2020-01-01"
PAGES = {
    "dataset": f"regions/demo/{CELL}/versions/1/report.html",
    "model": "models/demo-landcover/1/report.html",
    "map": f"maps/demo-landcover@1/demo/{CELL}/1/report.html",
}

pytestmark = [pytest.mark.tensorflow, pytest.mark.timeout(400)]


def snapshot(folder):
    """When each file was written."""
    return {path: path.stat().st_mtime_ns for path in sorted(folder.rglob("*")) if path.is_file()}


def test_it_says_what_it_made_and_where_to_look(made, call):
    folder, done = made
    for word in ("dataset", "model", "map", "mIoU", "rank_items", "fit_model", "predict_strips"):
        assert word in done.stdout
    for kind, page in PAGES.items():
        assert f"  {kind:<8} out/{page}" in done.stdout
        assert (folder / "out" / page).is_file()
    assert "Traceback" not in done.stderr


def test_the_model_is_worth_having(made, call):
    folder, _ = made
    figures = json.loads((folder / "out/models/demo-landcover/1/metrics.json").read_text())
    assert figures["splits"]["test"]["pixels"] > 10_000
    assert figures["miou"] > 0.5, "one class in six by chance would be below 0.1"


def test_the_directory_is_the_public_contract(made, call):
    version = VersionDir(made[0] / "out" / Path(PAGES["dataset"]).parent)
    tables = (version.tiles, version.items, version.ranking, version.windows, version.chips, version.manifest)
    assert all(path.is_file() and path.with_name(f"{path.name}.json").is_file() for path in tables)
    assert not (version.root / "units").exists(), "a committed version holds no working files"
    manifest = load_manifest(version.root)
    assert all((version.root / shard.path).is_file() for shard in manifest.shards)
    for path in [*version.stacks.glob("*.vrt"), *version.root.glob("stack-*.vrt")]:
        with rasterio.open(path) as source:
            assert source.descriptions[:2] == ("p1_blue", "p1_green")
            assert source.read(1, out_shape=(16, 16)).size == 256


def test_verify_says_good_and_bad_after_one_byte_has_changed(made, call):
    folder, _ = made
    region = folder / "out" / "region.yaml"
    assert call(folder, "verify", region, "--data").returncode == 0
    manifest = folder / "out" / Path(PAGES["dataset"]).parent
    shard = manifest / load_manifest(manifest).shards[0].path
    good, times = shard.read_bytes(), shard.stat()
    shard.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    try:
        done = call(folder, "verify", region, "--data", "--json")
        assert done.returncode == 1
        assert shard.name in json.loads(done.stdout)["problems"][0]
    finally:
        shard.write_bytes(good)
        os.utime(shard, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_a_second_call_does_nothing_and_starts_nothing(made, call):
    folder, _ = made
    before = snapshot(folder)
    began = time.monotonic()
    done = call(folder, "demo", "--size", "small", "--out", "out", "--json")
    took = time.monotonic() - began
    assert done.returncode == 0, done.stderr
    (run,) = json.loads(done.stdout)["runs"]
    assert run["changed"] is False
    assert "nothing to do" in run["message"]
    assert snapshot(folder) == before
    assert took < 30, "the promise is 5 s on a machine of one's own"


def test_the_files_that_it_leaves_work_by_themselves(made, call):
    """The region file names the static catalog, the demo asked the API: both are the same items."""
    folder, _ = made
    out = folder / "out"
    done = call(
        folder,
        "run",
        out / "region.yaml",
        "--train",
        out / "train.yaml",
        "--predict",
        out / "predict.yaml",
        "--json",
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["runs"][0]["changed"] is False


def test_plan_reads_no_pixel_and_bounds_what_was_made(made, call):
    folder, _ = made
    done = call(folder, "plan", folder / "out" / "region.yaml", "--json")
    bill = json.loads(done.stdout)
    counts = load_manifest(folder / "out" / Path(PAGES["dataset"]).parent).counts
    assert bill["windows"] == counts.planned
    assert bill["chips"] >= counts.written
    assert bill["minutes"] > 0


def test_status_and_report_read_what_stands(made, call):
    folder, _ = made
    cells = json.loads(call(folder, "status", folder / "out", "--json").stdout)["cells"]
    assert [(cell["region"], cell["version"], cell["attempt"], cell["holder"]) for cell in cells] == [
        ("demo", 1, None, None)
    ]
    page = folder / "again.html"
    assert call(folder, "report", folder / "out" / "region.yaml", "--out", page).returncode == 0
    # pictures of acquisitions too: the API of the demo ended with it, the region file names the catalog
    assert page.read_bytes() == (folder / "out" / PAGES["dataset"]).read_bytes()
    sample = call(
        folder,
        "report",
        folder / "out/models/demo-landcover",
        "--dataset",
        folder / "out/region.yaml",
        "--out",
        page,
    )
    assert sample.returncode == 0, sample.stderr
    assert "Prediction for chip" in page.read_text()
