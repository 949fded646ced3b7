"""A committed dataset of the embedded world, and a model and a map of it with made-up pixels: what pages are drawn from."""

import json
from pathlib import Path

import numpy as np
import rasterio

from chipmill.core.units import load_batches
from chipmill.dataset import labels, manifest, selection, shards, splits, stack, windows
from chipmill.dataset.union import dataset_schema
from chipmill.imagery import catalog, composite, planning, ranking
from chipmill.learning.metrics import report
from chipmill.learning.schema import schema_to_json
from chipmill.region.load import load_region

REGION = """
name: meadows
aoi: {{path: {aoi}}}
time: {{range: [2019-01-01, 2020-01-01], slots: {{n: 2}}}}
grid: {{tile_px: 256}}
imagery:
  - name: s2
    source: {{catalog: {catalog}/catalog.json, collection: {collection}}}
    bands: {{green: green, red: red, nir: nir}}
    mask: {{asset: scl}}
    clear: {{floor: 0.1, min_count: 2}}
indices: [ndvi]
static: [{{name: elevation, path: {dem}}}]
labels:
  layers: [{{path: {labels}}}]
  classes: {{10: water, 20: built, 30: crop, 40: grass, 50: tree, 60: bare}}
  ignore: [0]
  resampling: nearest
dataset:
  chips: {{size_px: 64, stride_px: 32}}
  splits: {{train: 0.6, val: 0.2, test: 0.2, block_px: 128, buffer_px: 0}}
output: out
"""


def make_dataset(world, folder: Path) -> Path:
    """Build and commit the dataset of the world without a scheduler; return the directory of its version."""
    folder.mkdir(parents=True, exist_ok=True)
    places = {name: getattr(world, name) for name in ("aoi", "catalog", "collection", "dem", "labels")}
    (folder / "region.yaml").write_text(REGION.format(**places))
    plan = planning.tile_aoi(load_region(folder / "region.yaml"))
    items = catalog.search_items(plan)
    _work(plan, "rank_items", lambda batch: ranking.rank_items(plan, items, batch))
    ranked = ranking.close_ranking(plan, items)
    _work(plan, "composite_tiles", lambda batch: composite.composite_tiles(plan, ranked, batch))
    _work(plan, "grid_layers", lambda batch: labels.grid_layers(plan, batch))
    stacks = stack.build_stacks(plan, ranked)
    _work(plan, "index_windows", lambda batch: windows.index_windows(plan, stacks, batch))
    chips = selection.select_chips(plan, splits.assign_splits(plan, windows.close_windows(plan, stacks)))
    _work(plan, "write_shards", lambda batch: shards.write_shards(plan, chips, batch))
    manifest.seal_dataset(plan, items, ranked, stacks, chips)
    return manifest.publish_dataset(plan).path


def _work(plan, stage, verb):
    for batch in load_batches(plan.attempt, stage):
        assert not verb(batch).failed


def make_model(dataset: Path, folder: Path, name: str = "trees") -> Path:
    """Write model.json, metrics.json and history.csv as a training leaves them; return the folder."""
    folder.mkdir(parents=True)
    facts = manifest.load_manifest(dataset)
    classes = [one.name for one in facts.classes]
    rng = np.random.default_rng(1)
    blocks = rng.integers(0, 40, (6, len(classes), len(classes))) + 400 * np.eye(len(classes), dtype=np.int64)
    figures = report(blocks, classes, seed=8) | {"ece_before": 0.09, "ece_after": 0.03}
    held = {**figures, "datasets": {"meadows/2019-01-01--2020-01-01": figures}}
    _json(folder / "metrics.json", {"temperature": 1.4, "miou": held["miou"], "splits": {"test": held}})
    train = {"loss": "dice+ce", "batch_size": 16, "learning_rate": 0.001, "augment": True, "seed": 8}
    about = {
        "schema_version": 1, "name": name, "version": 1, "fingerprint": "f" * 64, "architecture": "unet",
        "preset": "tiny", "parameters": 7526, "temperature": 1.4, "epochs": 3, "best_epoch": 2, "train": train,
        "input": schema_to_json(dataset_schema(dataset)),
        "datasets": [{"fingerprint": facts.fingerprint, "version": 1, "chips": facts.counts.written}],
        "weights": {"file": "weights.weights.h5", "bytes": 1, "sha256": "0" * 64},
    }  # fmt: skip
    _json(folder / "model.json", about)
    rows = "1,2.5,0.20,0.001\n2,1.9,0.31,0.0005\n3,1.7,,0.0001\n"
    (folder / "history.csv").write_text("epoch,loss,val_miou,learning_rate\n" + rows)
    return folder


def make_map(dataset: Path, folder: Path, model: str = "trees") -> Path:
    """Write the files of a map with stripes of classes; return the folder."""
    folder.mkdir(parents=True)
    facts = manifest.load_manifest(dataset)
    codes = np.repeat(np.arange(120) // 20, 120).reshape(120, 120).astype(np.uint8)
    codes[:10] = 255
    confidence = np.where(codes == 255, 255, 80 + codes * 25).astype(np.uint8)
    profile = {"driver": "GTiff", "width": 120, "height": 120, "count": 1, "dtype": "uint8", "nodata": 255}
    place = {"crs": "EPSG:32633", "transform": rasterio.Affine(10, 0, 453_620, 0, -10, 5_101_780)}
    for name, pixels in (("classes", codes), ("confidence", confidence)):
        with rasterio.open(folder / f"{name}-32633.tif", "w", **profile, **place) as target:
            target.write(pixels, 1)
    rows = [
        f"{one.name},{(codes == one.code).sum()},{(codes == one.code).sum() / 100},{1 / 6}"
        for one in facts.classes
    ]
    (folder / "areas.csv").write_text("class,mapped_px,mapped_ha,mapped_share\n" + "\n".join(rows) + "\n")
    classes = [{"code": one.code, "name": one.name, "color": one.color} for one in facts.classes]
    about = {
        "region": "meadows", "cell": ["2019-01-01", "2020-01-01"], "rasters": ["32633"], "failed": ["32633-7"],
        "model": {"name": model, "version": 1, "fingerprint": "f" * 64}, "classes": classes, "overlap": 0.25,
        "temperature": 1.4, "areas": "mapped area: pixels counted", "fingerprint": "a" * 64,
    }  # fmt: skip
    _json(folder / "map.json", about)
    return folder


def _json(path: Path, value) -> None:
    path.write_text(json.dumps(value))
