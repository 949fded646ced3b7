"""Sample predictions for the page of a model: image, label and what the model says, side by side."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from chipmill.core.paths import VersionDir
from chipmill.core.tables import CHIPS, read_table
from chipmill.dataset.classes import IGNORE
from chipmill.dataset.manifest import load_manifest
from chipmill.learning.bundle import load_bundle, load_model
from chipmill.learning.model import probability_fn
from chipmill.report.blocks import Gallery, Legend, Picture, Section, section
from chipmill.report.gallery import chip_pictures, label_picture, pick_chips, read_chips, shown_px
from chipmill.report.images import paint_classes, picture
from chipmill.report.numbers import percent

_CHIPS: Final = 8


def prediction_section(model: Path, datasets: Sequence[Path], colors: Sequence[str]) -> Section:
    """Return chips of the first dataset that has held-out ones, predicted by the model. Loads TensorFlow."""
    lead = (
        "Held-out chips as they lie in the shards, one block each: the image, its label, and the class that the model "
        "says. Ignored pixels of a label are transparent and do not count; the share of right pixels is below."
    )
    names = load_bundle(model).schema.class_names
    for dataset in datasets:
        chips = read_table(VersionDir(dataset).chips, CHIPS)
        for split in ("test", "val"):
            if rows := pick_chips(chips, split, _CHIPS):
                groups = _predicted(model, dataset, rows, colors)
                legend = Legend(tuple(zip(names, colors, strict=True)))
                return section(
                    "predictions",
                    "Sample predictions",
                    lead,
                    (legend, Gallery(groups, size_px=shown_px(groups[0][0].width_px))),
                )
    empty = (
        "No held-out chip is at hand: name the dataset with --dataset to see the model's work on its chips."
    )
    return section("predictions", "Sample predictions", lead, (), empty)


def _predicted(
    model: Path, dataset: Path, rows: Sequence[dict[str, object]], colors: Sequence[str]
) -> tuple[tuple[Picture, ...], ...]:
    bundle = load_bundle(model)
    samples = read_chips(dataset, rows, load_manifest(dataset).record_spec())
    predict = probability_fn(load_model(bundle))
    classes = predict(np.stack([sample.image for sample in samples])).argmax(axis=-1).astype(np.uint8)
    bands = bundle.schema.bands
    slots = list(dict.fromkeys(band.slot for band in bands if band.slot))
    slot = slots[len(slots) // 2] if slots else ""
    images = chip_pictures(samples, bundle.schema.names, [band.nodata for band in bands], slot)
    groups = []
    for sample, guess, image in zip(samples, classes, images, strict=True):
        valid = sample.label != IGNORE
        right = float((guess == sample.label)[valid].mean()) if valid.any() else float("nan")
        said = picture(
            paint_classes(guess, colors), f"Prediction for chip {sample.chip_id}", f"model: {percent(right)}"
        )
        groups.append((image, label_picture(sample, colors), said))
    return tuple(groups)
