"""Is the model worth having? Its map against a per-pixel random forest, and its water against NDWI > 0.

Both sides see the same bands, learn from the same train chips and are judged on the same held-back pixels: whole
held-out blocks, each pixel once, where there is a label and some slot was observed.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks import chain
from benchmarks.figure import Figure
from chipmill.core.errors import VersionNotFoundError
from chipmill.core.paths import OutputDir
from chipmill.core.store import read_json
from chipmill.dataset.opening import find_version
from chipmill.dataset.reader import open_dataset
from chipmill.dataset.union import dataset_schema
from chipmill.learning.evaluation import held_blocks
from chipmill.learning.files import ModelDir
from chipmill.learning.metrics import IGNORE, confusion_matrix, score
from chipmill.learning.stacks import open_stack
from chipmill.region.config import Region
from chipmill.region.jobs import TrainConfig
from chipmill.region.load import load_region, load_train

REGIONS: Final = Path(__file__).resolve().parents[1] / "deployments" / "regions"
CATALOG: Final = Path(__file__).resolve().parents[2] / "shared" / "data" / "catalog"
"""The real scenes that the example names."""
_TOLERANCE: Final = 0.03  # of the IoU that NDWI may be ahead
_FOLDS: Final = 3
_WATER: Final = 1

type Pixels = NDArray[Any]
type Classify = Callable[[Pixels], NDArray[np.uint8]]
"""Pixels `(pixel, band)` in stored values -> class codes."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One fold: water IoU of both sides on the same pixels."""

    model: float
    ndwi: float
    pixels: int


def measure(options: argparse.Namespace) -> Iterator[Figure]:
    """Yield the figures of the demo region and of Boadella, whichever of both is there."""
    if options.demo.is_dir():
        yield from demo_figures(options.demo, quick=options.quick)
    if CATALOG.is_dir():
        folds = [0] if options.quick and options.fold is None else range(_FOLDS)
        yield from boadella_figures(folds if options.fold is None else [options.fold])


def demo_figures(output: Path, *, quick: bool) -> Iterator[Figure]:
    """Yield mIoU on held-out blocks of the committed model and of a random forest on the same train chips."""
    dataset = find_version(output)
    facts = read_json(ModelDir(_only_model(output)).metrics)["splits"]["test"]
    classify = forest(dataset, pixels=20_000 if quick else 100_000, trees=50 if quick else 100)
    theirs = judge(dataset, classify)
    if int(theirs.sum()) != facts["pixels"]:
        raise RuntimeError(f"the forest was judged on {theirs.sum()} pixels, the model on {facts['pixels']}")
    other = score(theirs).miou
    context = {"pixels": facts["pixels"], "blocks": facts["blocks"], "model_ci95": facts["miou_ci95"]}
    yield Figure("demo: mIoU of the random forest", other, "mIoU", context=context)
    yield Figure(
        "demo: mIoU of the model", facts["miou"], "mIoU", f"> {other:.4f}", facts["miou"] > other, context
    )


def _only_model(output: Path) -> Path:
    names = sorted(pointer.parent.name for pointer in output.glob("models/*/CURRENT"))
    if len(names) != 1:
        raise VersionNotFoundError(f"{output} holds {len(names)} models, expected 1: run chipmill demo first")
    return OutputDir(output).models(names[0]).current_path()


def forest(dataset: Path, pixels: int, trees: int) -> Classify:
    """Fit a random forest on at most `pixels` labelled pixels of the train chips, drawn alike from all chips."""
    from sklearn.ensemble import RandomForestClassifier

    chips = open_dataset(dataset).split("train")
    share, rng = -(-pixels // len(chips)), np.random.default_rng(8)
    values, codes = [], []
    for chip in chips:
        labelled = np.flatnonzero(chip.label != IGNORE)
        drawn = rng.permutation(labelled)[:share]
        values.append(chip.image.reshape(-1, chip.image.shape[-1])[drawn])
        codes.append(chip.label.ravel()[drawn])
    model = RandomForestClassifier(trees, min_samples_leaf=2, n_jobs=-1, random_state=8)
    model.fit(np.concatenate(values), np.concatenate(codes))
    return lambda rows: model.predict(rows).astype(np.uint8)


def judge(dataset: Path, classify: Classify) -> NDArray[np.int64]:
    """Return the confusion matrix of a per-pixel classifier on the test blocks of a dataset."""
    schema = dataset_schema(dataset)
    count = len(schema.classes)
    total = np.zeros((count, count), np.int64)
    for raster, blocks in groupby(held_blocks(dataset, "test"), lambda block: block.raster):
        with open_stack(raster, schema.bands) as reader:
            for block in blocks:
                chip, label = reader.pixels(block.window), reader.label(block.window)
                valid = (label != IGNORE) & reader.observed(chip)
                if valid.any():
                    total += confusion_matrix(label[valid], classify(chip[valid]), count)
    return total


def boadella_figures(folds: Any) -> Iterator[Figure]:
    """Yield water IoU of the model and of NDWI > 0 per spatial fold, and their means."""
    trials = []
    for fold in folds:
        with tempfile.TemporaryDirectory() as folder:
            trials.append(boadella_trial(fold, Path(folder)))
        context = {"fold": fold, "pixels": trials[-1].pixels}
        yield Figure(f"boadella fold {fold}: water IoU of NDWI > 0", trials[-1].ndwi, "IoU", context=context)
        yield Figure(
            f"boadella fold {fold}: water IoU of the model", trials[-1].model, "IoU", context=context
        )
    ours, theirs = (float(np.mean([getattr(one, side) for one in trials])) for side in ("model", "ndwi"))
    least = theirs - _TOLERANCE
    context = {"folds": len(trials), "ndwi": theirs}
    yield Figure(
        "boadella: mean water IoU of the model", ours, "IoU", f">= {least:.4f}", ours >= least, context
    )


def boadella_trial(fold: int, folder: Path) -> Trial:
    """Build the fold, train, and judge both sides on its held-back pixels."""
    region, train = boadella_files(fold, folder)
    dataset = chain.build(region)
    model = chain.train(train, dataset)
    facts = read_json(ModelDir(model.path).metrics)["splits"]["test"]
    names = list(dataset_schema(dataset.path).names)
    green, nir = names.index("p1_green"), names.index("p1_nir")
    # (green - nir) / (green + nir) > 0 with positive reflectance
    theirs = judge(dataset.path, lambda rows: (rows[:, green] > rows[:, nir]).astype(np.uint8))
    if int(theirs.sum()) != facts["pixels"]:
        raise RuntimeError(f"NDWI was judged on {theirs.sum()} pixels, the model on {facts['pixels']}")
    return Trial(facts["classes"][_WATER]["iou"], float(score(theirs).iou[_WATER]), facts["pixels"])


def boadella_files(fold: int, folder: Path) -> tuple[Region, TrainConfig]:
    """Return the shipped example on real Sentinel-2 scenes with water labels of four dates, for one fold."""
    region, train = load_region(REGIONS / "boadella.yaml"), load_train(REGIONS / "boadella-train.yaml")
    splits = region.dataset.splits.model_copy(update={"fold": fold})
    dataset = region.dataset.model_copy(update={"splits": splits})
    update = {"output": str(folder)}
    return region.model_copy(update=update | {"dataset": dataset}), train.model_copy(update=update)
