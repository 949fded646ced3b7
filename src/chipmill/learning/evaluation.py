"""evaluate_model: how good is the map on ground that the model never saw?

Held-out ground (:mod:`chipmill.learning.held_out`), whole blocks as a rule, is predicted from the stack by the predictor
that makes maps, each pixel once, so overlapping chips count nothing twice and windows that were dropped flatter nobody.
Every dataset and split has a confusion matrix of its own. The temperature is fitted on validation blocks before the test
blocks are looked at.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from chipmill.core.paths import span_name
from chipmill.core.store import commit_file, fingerprint, is_good, lock, read_json, write_json
from chipmill.dataset.manifest import DatasetRef, load_manifest
from chipmill.dataset.union import InputSchema, merged_schema
from chipmill.learning import blending, metrics, model
from chipmill.learning.calibration import Reliability, apply_temperature, fit_temperature
from chipmill.learning.files import ModelDir
from chipmill.learning.held_out import HeldBlock, held_blocks, held_remark
from chipmill.learning.stacks import StackReader, open_stack
from chipmill.learning.training import FitRef, adopt_products, model_versions
from chipmill.region.jobs import TrainConfig

STAGE_VERSION: Final = 2
OVERLAP: Final = 0.25  # of the windows; the default of predict.yaml
_SAMPLE_PX: Final = 4096  # most pixels of a block that the temperature is fitted on

type Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class MetricsRef:
    """metrics.json of an attempt."""

    path: Path
    fingerprint: str
    temperature: float
    miou: float | None  # on the test blocks of all datasets, None where there are none


@dataclass(slots=True)
class _Tally:
    """Counts of one split: confusion `(class, class)` per block and dataset, and reliability."""

    blocks: dict[str, list[NDArray[np.int64]]] = field(default_factory=dict)
    before: Reliability = field(default_factory=Reliability)
    after: Reliability = field(default_factory=Reliability)


def metrics_fingerprint(fit: FitRef) -> str:
    """Return what metrics.json depends on: the model and the versions of the code that judges it."""
    return fingerprint("metrics", STAGE_VERSION, blending.STAGE_VERSION, fit.fingerprint)


def evaluate_model(
    datasets: tuple[DatasetRef, ...], fit: FitRef, train: TrainConfig, run: str = ""
) -> MetricsRef:
    """Predict the held-out blocks of `datasets` and commit metrics.json in the attempt of `fit`.

    A good metrics.json of the same model, here or in the version in force, is taken as it is. A pixel counts where
    it has a label and was observed in some slot. Without validation blocks the temperature is 1.
    """
    files, mark, versions = ModelDir(fit.path), metrics_fingerprint(fit), model_versions(train)
    with lock(versions.folder / ".lock", run):
        adopt_products(versions, files, mark, ("metrics",))
        if not is_good(files.metrics, mark):
            facts = _evaluate(datasets, files, train)
            with commit_file(files.metrics, mark) as temp:
                write_json(temp, facts)
    facts = read_json(files.metrics)
    return MetricsRef(files.metrics, mark, facts["temperature"], facts["miou"])


def _evaluate(datasets: Sequence[DatasetRef], files: ModelDir, train: TrainConfig) -> dict[str, Any]:
    merged = merged_schema([one.path for one in datasets])
    model.make_deterministic(train.seed)
    predict = model.probability_fn(model.load_network(merged, train.preset, files.weights))
    val, temperature = _tally_validation(datasets, merged, predict)
    test = _Tally()
    for name, probability, label in _held_out(datasets, merged, predict, "test"):
        test.blocks.setdefault(name, []).append(_confusion(probability, label))
        test.before.add(probability, label)
        test.after.add(apply_temperature(probability, temperature), label)
    splits = {
        split: _split_report(tally, merged, train.seed)
        for split, tally in (("val", val), ("test", test))
        if tally.blocks
    }
    return {
        "temperature": temperature,
        "miou": splits["test"]["miou"] if "test" in splits else None,
        "splits": splits,
        "overlap": OVERLAP,
        "class_names": list(merged.class_names),
        "remarks": [text for one in datasets if (text := held_remark(load_manifest(one.path)))],
    }


def _tally_validation(
    datasets: Sequence[DatasetRef], merged: InputSchema, predict: blending.ModelFn
) -> tuple[_Tally, float]:
    """Count the validation blocks and fit the temperature on a sample of each, at most 4,096 pixels a block."""
    tally = _Tally()
    sampled: list[tuple[Floats, NDArray[np.uint8]]] = []
    for name, probability, label in _held_out(datasets, merged, predict, "val"):
        tally.blocks.setdefault(name, []).append(_confusion(probability, label))
        every = -(-len(label) // _SAMPLE_PX)
        sampled.append((probability[::every], label[::every]))
    if not sampled:
        return tally, 1.0
    probability, label = (np.concatenate(parts) for parts in zip(*sampled, strict=True))
    temperature = fit_temperature(probability, label)
    tally.before.add(probability, label)
    tally.after.add(apply_temperature(probability, temperature), label)
    return tally, temperature


def _confusion(probability: Floats, label: NDArray[np.uint8]) -> NDArray[np.int64]:
    return metrics.confusion_matrix(label, probability.argmax(axis=-1), probability.shape[-1])


def _split_report(tally: _Tally, merged: InputSchema, seed: int) -> dict[str, Any]:
    names = merged.class_names
    everything = np.stack([block for blocks in tally.blocks.values() for block in blocks])
    return {
        **metrics.report(everything, names, seed),
        "ece_before": metrics.plain(tally.before.error()),
        "ece_after": metrics.plain(tally.after.error()),
        "datasets": {
            name: metrics.report(np.stack(blocks), names, seed)
            for name, blocks in sorted(tally.blocks.items())
        },
    }


def _held_out(
    datasets: Sequence[DatasetRef], merged: InputSchema, predict: blending.ModelFn, split: str
) -> Iterator[tuple[str, Floats, NDArray[np.uint8]]]:
    """Yield (dataset, probability `(pixel, class)`, label `(pixel,)`) of the valid pixels of each held-out block."""
    for dataset in datasets:
        manifest = load_manifest(dataset.path)
        name = f"{manifest.region}/{span_name(*manifest.cell)}"
        for raster, blocks in itertools.groupby(held_blocks(dataset.path, split), lambda block: block.raster):
            with open_stack(raster, merged.bands) as reader:
                for block in blocks:
                    probability, label = predict_block(block, reader, predict, merged.chip_px)
                    if len(label):
                        yield name, probability, label


def predict_block(
    block: HeldBlock, reader: StackReader, predict: blending.ModelFn, chip_px: int
) -> tuple[Floats, NDArray[np.uint8]]:
    """Return blended probabilities `(pixel, class)` and labels `(pixel,)` of the block's valid pixels."""
    label = reader.label(block.window)
    valid = (label != metrics.IGNORE) & block.mask() & reader.observed(reader.pixels(block.window))
    extent = reader.extent_for(chip_px)
    probability = blending.predict_window(predict, reader.pixels, extent, block.window, chip_px, OVERLAP)
    return probability[valid], label[valid]
