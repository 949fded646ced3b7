"""Some 50 tiles, one kills its worker, one takes more memory than a worker has and one meets a broken block of an image:
all others are committed, the three are listed, and the command that is printed redoes only them.
"""

import json
import shlex

import pytest
import rasterio
from rasterio.shutil import copy as copy_raster
from tests.faults.flow.conftest import DEADLINE_S, finish, recorded_as_open, version

from chipmill.core.tables import read_table
from chipmill.dataset.manifest import load_manifest

BLOCK_PX = 16


def break_block(demo, tile):
    """Overwrite the first bytes of one 16-px block, which lies inside the tile, in the clearest image of the catalog."""
    items = [json.loads(path.read_text()) for path in demo.glob("world/catalog/*/*/*.json")]
    clearest = min(
        (one for one in items if one.get("properties", {}).get("proj:code") == tile.crs),
        key=lambda one: one["properties"]["eo:cloud_cover"],
    )
    (asset,) = demo.glob(f"world/catalog/*/{clearest['id']}/red.tif")
    whole = asset.with_suffix(".whole.tif")
    asset.rename(whole)
    copy_raster(
        whole, asset, driver="GTiff", tiled=True, blockxsize=BLOCK_PX, blockysize=BLOCK_PX, compress="zstd"
    )
    with rasterio.open(asset) as dataset:
        left, bottom, right, top = tile.bounds
        row, column = (
            int(value) // BLOCK_PX for value in dataset.index((left + right) / 2, (bottom + top) / 2)
        )
        tags = {
            key: int(dataset.get_tag_item(f"BLOCK_{key}_{column}_{row}", "TIFF", bidx=1))
            for key in ("OFFSET", "SIZE")
        }
    with asset.open("r+b") as stream:
        stream.seek(tags["OFFSET"])
        stream.write(bytes(tags["SIZE"]))
    return asset, whole


def composites(demo):
    """Every composite and when it was written."""
    return {path: path.stat().st_mtime_ns for path in demo.glob("regions/*/composites/*/*/*.tif")}


@pytest.mark.timeout(3 * DEADLINE_S)
def test_all_other_tiles_are_committed_and_the_printed_command_redoes_only_the_failed(
    start_run, copy_demo, tmp_path
):
    demo = copy_demo("demo", tile_px=64)
    region = demo / "region.yaml"
    region.write_text(region.read_text() + "on_failed: commit\n")
    from chipmill.imagery.planning import make_tiles
    from chipmill.region.load import load_region

    tiles = make_tiles(load_region(region))
    assert len(tiles) >= 40
    inner = [
        tile for tile in tiles if tile.tile_id.endswith("-n8000") and tile.crs == "EPSG:32633"
    ]  # a row of them
    killer, broken, hog = inner[5].tile_id, inner[3], inner[1].tile_id
    asset, whole = break_block(demo, broken)

    planted = [
        {"stage": "composite_tiles", "unit": unit, "do": do} for unit, do in ((killer, "kill"), (hog, "hog"))
    ]
    code, told = finish(start_run("build", region, planted=planted))
    assert code == 3
    failed = {one["unit"]: one["reason"] for one in told["failures"]}
    assert failed.keys() == {killer, broken.tile_id, hog}
    for unit in (killer, hog):
        assert "its worker died twice on it (out of memory, limit 1.5 GB, or a crash)" in failed[unit]
    assert "red.tif" in failed[broken.tile_id]
    assert all(unit in told["message"] + str(failed) for unit in failed)

    assert recorded_as_open(tmp_path / "state") == []
    first = load_manifest(version(demo))
    assert {one.unit for one in first.failures} == failed.keys()
    counts = first.counts
    assert counts.planned == counts.written + sum(counts.filtered.values()) + sum(counts.failed.values())
    assert counts.failed
    states = read_table(version(demo) / "tiles.parquet").select(["tile_id", "state"]).to_pylist()
    assert {one["tile_id"] for one in states if one["state"] != "done"} == failed.keys()

    before = composites(demo)
    asset.unlink()
    whole.rename(asset)
    assert told["redo"].startswith("chipmill build ")
    code, told = finish(start_run(*shlex.split(told["redo"])[1:]))
    assert (code, told["failures"], told["redo"]) == (0, [], None)
    after = composites(demo)
    assert {path: after[path] for path in before} == before, "what stood was not made again"
    remade = {path.name.rpartition("-")[0] for path in after.keys() - before.keys()}
    assert remade == failed.keys()
    assert version(demo).name == "2"
    assert load_manifest(version(demo)).failures == ()
