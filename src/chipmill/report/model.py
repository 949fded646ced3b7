"""The page of a model: how it learnt, how good it is on held-out blocks, and what it says of chips it never saw."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from chipmill.core.store import read_json
from chipmill.learning.files import ModelDir
from chipmill.report.blocks import (
    Block,
    Cell,
    Chart,
    Facts,
    Page,
    Pair,
    Section,
    Table,
    Text,
    facts,
    section,
    table,
)
from chipmill.report.charts import Estimate, Series, interval_chart, line_chart, reliability_chart
from chipmill.report.images import class_colors
from chipmill.report.numbers import DASH, count, decimal, percent, plural
from chipmill.report.page import write_page
from chipmill.report.predictions import prediction_section

_BLUE: Final = "#4477aa"
_RED: Final = "#cc5544"


def model_page(model: Path, datasets: Sequence[Path] = (), out: Path | None = None) -> Path:
    """Write the page of a sealed or committed model and return its path.

    Args:
        model: directory of the version, or of the attempt that lacks only its report.
        datasets: versions that it learnt from; without them the page has no sample predictions, which need chips.
        out: where to write; beside model.json where None, which is for versions that are not committed yet.
    """
    files = ModelDir(model)
    about, figures = read_json(files.model), read_json(files.metrics)
    with files.history.open(newline="", encoding="utf-8") as stream:
        history = list(csv.DictReader(stream))
    held, split = _held(figures)
    colors = class_colors([one["color"] for one in about["input"]["classes"]])
    page = Page(
        about["name"],
        f"Model · version {about['version']} · {about['architecture']} {about['preset']}",
        ("", ""),
        _summary(about, held),
        (
            _curves(history, about),
            _accuracy(held, split, colors, figures.get("remarks", ())),
            _confusion(held, split),
            _calibration(held, figures),
            prediction_section(model, datasets, colors),
            _datasets(held, split),
            _provenance(about),
        ),
        f"Model {about['name']} version {about['version']}, fingerprint {about['fingerprint']}",
    )
    return write_page(out or files.report, page)


def _held(figures: Mapping[str, Any]) -> tuple[dict[str, Any] | None, str]:
    """Return the figures of the test blocks, else of the validation blocks, else None."""
    for split, name in (("test", "test"), ("val", "validation")):
        if split in figures["splits"]:
            return figures["splits"][split], name
    return None, "held-out"


def _summary(about: Mapping[str, Any], held: Mapping[str, Any] | None) -> Facts:
    return facts(
        {
            "mIoU on held-out blocks": decimal(held["miou"] if held else None),
            "Overall accuracy": percent(held["accuracy"] if held else None),
            "Classes": count(len(about["input"]["classes"])),
            "Input bands": count(len(about["input"]["bands"])),
            "Parameters": count(about["parameters"]),
            "Epochs": f"{about['epochs']} (best {about['best_epoch']})",
        },
        large=True,
    )


def _curves(history: Sequence[Mapping[str, str]], about: Mapping[str, Any]) -> Section:
    loss, score, rate = (_column(history, name) for name in ("loss", "val_miou", "learning_rate"))
    charts: list[Block] = [
        Chart(line_chart([Series("train", loss, _BLUE)], "Loss per epoch", "epoch"), "Loss")
    ]
    if any(value is not None for value in score):
        chart = line_chart([Series("validation", score, _RED)], "Validation mIoU per epoch", "epoch")
        note = f"mIoU of the validation chips; the weights are those of epoch {about['best_epoch']}"
        charts.append(Chart(chart, note))
    known = [value for value in rate if value is not None]
    rates = (
        Text(f"Learning rate {known[0]:.2g} in the first epoch, {known[-1]:.2g} in the last.")
        if known
        else None
    )
    lead = "One point per epoch over the training chips, and over the validation chips after it."
    empty = "No epoch is in the history, so there is no curve."
    return section("training", "Training", lead, (Pair(tuple(charts)), rates) if history else (), empty)


def _column(history: Sequence[Mapping[str, str]], name: str) -> list[float | None]:
    return [float(row[name]) if row[name] else None for row in history]


def _accuracy(
    held: Mapping[str, Any] | None, split: str, colors: Sequence[str], remarks: Sequence[str]
) -> Section:
    whole = f"Whole {split} blocks are predicted as a map, each pixel once; no window of another split reaches into them."
    lead = (
        f"{whole if not remarks else f'Held-out {split} ground is predicted as a map, each pixel once.'} "
        "Intervals are 95 %, from resampling blocks, because neighbouring pixels are not independent."
    )
    if held is None:
        empty = "No block was held out, so nothing can be said about accuracy."
        return section("accuracy", "Accuracy", lead, (), empty)
    rows = []
    for one, color in zip(held["classes"], colors, strict=True):
        low, high = one["iou_ci95"] or (None, None)
        rows.append(Estimate(one["name"], one["iou"], low, high, color))
    chart = Chart(interval_chart(rows, "IoU per class with its interval"), "IoU per class")
    total = Table(
        ("Figure", ">Value", ">95 % interval"),
        (
            ("mIoU", decimal(held["miou"]), _interval(held["miou_ci95"])),
            ("Overall accuracy", decimal(held["accuracy"]), _interval(held["accuracy_ci95"])),
            ("Kappa", decimal(held["kappa"]), DASH),
            ("Pixels", count(held["pixels"]), ""),
            ("Blocks", count(held["blocks"]), ""),
        ),
    )
    told = tuple(Text(f"{remark}.", "bad") for remark in remarks)
    return section("accuracy", "Accuracy", lead, (*told, Pair((chart, total)), _class_table(held, colors)))


def _interval(pair: Sequence[float] | None) -> str:
    return DASH if pair is None else f"{pair[0]:.3f} to {pair[1]:.3f}"


def _class_table(held: Mapping[str, Any], colors: Sequence[str]) -> Table:
    head = ("Class", ">IoU", ">95 % interval", ">F1", ">Precision", ">Recall", ">Label px", ">Map px")
    rows: list[tuple[str | Cell, ...]] = [
        (
            Cell(one["name"], swatch=color),
            decimal(one["iou"]),
            _interval(one["iou_ci95"]),
            *(decimal(one[name]) for name in ("f1", "precision", "recall")),
            count(one["label_px"]),
            count(one["predicted_px"]),
        )
        for one, color in zip(held["classes"], colors, strict=True)
    ]
    return table(head, rows)


def _confusion(held: Mapping[str, Any] | None, split: str) -> Section:
    lead = (
        f"Rows are labels, columns what the map says, in per cent of the row; pixels of the {split} blocks."
    )
    if held is None:
        return section(
            "confusion", "Confusion matrix", lead, (), "No block was held out, so nothing was compared."
        )
    names = [one["name"] for one in held["classes"]]
    rows: list[tuple[str | Cell, ...]] = []
    for name, counts in zip(names, held["confusion"], strict=True):
        total = sum(counts)
        shares = [value / total if total else None for value in counts]
        cells = [Cell(percent(share), shade=share or 0.0) for share in shares]
        rows.append((name, *cells, count(total)))
    head = ("Label \\ map", *(f">{name}" for name in names), ">Pixels")
    return section("confusion", "Confusion matrix", lead, (table(head, rows),))


def _calibration(held: Mapping[str, Any] | None, figures: Mapping[str, Any]) -> Section:
    lead = (
        "Can the probabilities be believed? Of pixels that the model is 80 % sure of, 80 % should be right. One "
        "temperature, fitted on validation blocks, corrects them; it changes no class of the map."
    )
    if held is None:
        empty = "No block was held out, so probabilities could not be compared with labels."
        return section("calibration", "Calibration", lead, (), empty)
    rows = (
        ("Temperature", decimal(figures["temperature"])),
        ("Expected calibration error before", percent(held["ece_before"], 2)),
        ("Expected calibration error after", percent(held["ece_after"], 2)),
    )
    numbers = Table(("Figure", ">Value"), rows)
    bins = [(row["confidence"], row["accuracy"], row["pixels"]) for row in held.get("reliability", ())]
    chart = Chart(
        reliability_chart(bins, "Reliability of the probabilities"), "After calibration; dots by pixels"
    )
    return section("calibration", "Calibration", lead, (Pair((chart, numbers)) if bins else numbers,))


def _datasets(held: Mapping[str, Any] | None, split: str) -> Section:
    lead = f"The same figures for the {split} blocks of each dataset."
    rows = [
        (
            name,
            decimal(one["miou"]),
            _interval(one["miou_ci95"]),
            percent(one["accuracy"]),
            count(one["pixels"]),
        )
        for name, one in (held or {}).get("datasets", {}).items()
    ]
    head = ("Dataset", ">mIoU", ">95 % interval", ">Accuracy", ">Pixels")
    empty = "No block was held out, so no dataset has figures."
    return section("datasets", "By dataset", lead, (table(head, rows),) if rows else (), empty)


def _provenance(about: Mapping[str, Any]) -> Section:
    train = about["train"]
    settings = {
        "Loss": train["loss"],
        "Batch": plural(train["batch_size"], "chip"),
        "Largest learning rate": f"{train['learning_rate']:g}",
        "Augmentation": "flips and quarter turns" if train["augment"] else "none",
        "Seed": str(train["seed"]),
        "Chip": f"{about['input']['chip_px']} px at {about['input']['resolution_m']:g} m",
        "Layout": about["input"]["layout"],
        "Weights": about["weights"]["file"],
    }
    rows = [(str(one["version"]), count(one["chips"]), one["fingerprint"][:16]) for one in about["datasets"]]
    bands = ", ".join(band["name"] for band in about["input"]["bands"])
    blocks = (
        facts(settings),
        table(("Dataset version", ">Chips", "Fingerprint"), rows),
        Text(f"Input bands in order: {bands}."),
        Text(f"Weights sha256 {about['weights']['sha256']}"),
    )
    return section(
        "provenance", "Provenance", "What it was made from; the fingerprint covers all of it.", blocks
    )
