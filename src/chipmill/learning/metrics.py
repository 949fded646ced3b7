"""Figures of a confusion matrix, with intervals that respect space. Another figure: add it to `score`.

A confusion matrix is int64 `(class, class)`, row = truth, column = prediction. Pixels whose label is 255 (ignore)
are in none. Intervals resample whole blocks, as neighbouring pixels are not independent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

IGNORE: Final = 255
_DRAWS: Final = 1000

type Counts = NDArray[np.int64]
type Floats = NDArray[np.float64]


def confusion_matrix(label: NDArray[np.uint8], predicted: NDArray[Any], classes: int) -> Counts:
    """Count pixels by label and prediction, both 0..classes-1 in arrays of one shape; label 255 is left out.

    Raises ValueError when a prediction is no class where the label is one.
    """
    valid = label != IGNORE
    truth, guess = label[valid].astype(np.int64), predicted[valid].astype(np.int64)
    counts = np.bincount(truth * classes + guess, minlength=classes * classes)
    if len(counts) > classes * classes or (guess >= classes).any():
        raise ValueError(
            f"expected codes below {classes}, got label {truth.max()} and prediction {guess.max()}"
        )
    return counts.reshape(classes, classes).astype(np.int64)


@dataclass(frozen=True, slots=True)
class Scores:
    """Figures of one confusion matrix; those of a class that is neither there nor predicted are nan."""

    iou: Floats  # per class
    f1: Floats
    precision: Floats  # user's accuracy
    recall: Floats  # producer's accuracy
    miou: float  # mean over the classes that are there or predicted
    accuracy: float  # overall
    kappa: float
    pixels: int


def score(confusion: Counts) -> Scores:
    """Compute the figures of a confusion matrix (definitions as in Olofsson et al. 2014; kappa: Cohen 1960)."""
    matrix = confusion.astype(np.float64)
    hit, truth, guess = np.diag(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
    total = matrix.sum()
    iou = _ratio(hit, truth + guess - hit)
    accuracy = float(_ratio(hit.sum(), total))
    chance = float(_ratio((truth * guess).sum(), total * total))
    return Scores(
        iou=iou,
        f1=_ratio(2 * hit, truth + guess),
        precision=_ratio(hit, guess),
        recall=_ratio(hit, truth),
        miou=_mean(iou),
        accuracy=accuracy,
        kappa=float(_ratio(accuracy - chance, 1 - chance)),
        pixels=int(confusion.sum()),
    )


def _ratio(above: Any, below: Any) -> Any:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(np.asarray(below) != 0, np.divide(above, below), np.nan)


def _mean(values: Floats) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def bootstrap(confusions: Counts, seed: int, draws: int = _DRAWS) -> dict[str, Any]:
    """Return 95 % intervals of mIoU, accuracy and IoU per class, resampling blocks with replacement.

    `confusions` is `(block, class, class)`, one per held-out block. The intervals are `[low, high]`, the 2.5 and
    97.5 percentiles (Efron 1979); they are null for fewer than two blocks, where nothing can be resampled.
    """
    blocks, classes = confusions.shape[0], confusions.shape[1]
    if blocks < 2:
        return {"miou": None, "accuracy": None, "iou": [None] * classes, "blocks": blocks, "draws": 0}
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(blocks, np.full(blocks, 1 / blocks), size=draws)
    drawn = (weights @ confusions.reshape(blocks, -1)).reshape(draws, classes, classes)
    scores = [score(matrix) for matrix in drawn]
    return {
        "miou": _interval(np.array([one.miou for one in scores])),
        "accuracy": _interval(np.array([one.accuracy for one in scores])),
        "iou": [_interval(np.array([one.iou[index] for one in scores])) for index in range(classes)],
        "blocks": blocks,
        "draws": draws,
    }


def _interval(values: Floats) -> list[float] | None:
    known = values[~np.isnan(values)]
    if not len(known):
        return None
    low, high = np.percentile(known, [2.5, 97.5])
    return [float(low), float(high)]


def report(confusions: Counts, names: Sequence[str], seed: int) -> dict[str, Any]:
    """Return all figures of blocks `(block, class, class)` as plain values for metrics.json; nan becomes None."""
    total = confusions.sum(axis=0)
    scores, spread = score(total), bootstrap(confusions, seed)
    per_class = [
        {
            "name": name,
            "iou": plain(scores.iou[index]),
            "iou_ci95": spread["iou"][index],
            "f1": plain(scores.f1[index]),
            "precision": plain(scores.precision[index]),
            "recall": plain(scores.recall[index]),
            "label_px": int(total[index].sum()),
            "predicted_px": int(total[:, index].sum()),
        }
        for index, name in enumerate(names)
    ]
    return {
        "miou": plain(scores.miou),
        "miou_ci95": spread["miou"],
        "accuracy": plain(scores.accuracy),
        "accuracy_ci95": spread["accuracy"],
        "kappa": plain(scores.kappa),
        "pixels": scores.pixels,
        "blocks": spread["blocks"],
        "bootstrap_draws": spread["draws"],
        "classes": per_class,
        "confusion": total.tolist(),
    }


def plain(value: float) -> float | None:
    """Return a float for JSON, None for nan."""
    return None if np.isnan(value) else float(value)
