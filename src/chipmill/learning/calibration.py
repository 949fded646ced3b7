"""How far probabilities can be believed: temperature scaling, and the calibration error before and after.

One temperature is fitted on validation pixels and applied to the blended probabilities, which leaves the order of
the classes, and so every map and accuracy figure, as it was. Another calibration: replace `fit_temperature` and
`apply_temperature` together.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

BINS: Final = 15
_TINY: Final = 1e-7

type Floats = NDArray[np.float32]


def apply_temperature(probability: Floats, temperature: float) -> Floats:
    """Return `p^(1/T)` normalised over the last axis, float32; T > 1 makes a model less sure (Guo et al. 2017)."""
    if temperature == 1.0:
        return probability
    logs = np.log(np.maximum(probability, _TINY)) / np.float32(temperature)
    powers = np.exp(logs - logs.max(axis=-1, keepdims=True))
    calibrated: Floats = (powers / powers.sum(axis=-1, keepdims=True)).astype(np.float32)
    return calibrated


def fit_temperature(probability: Floats, label: NDArray[np.uint8]) -> float:
    """Return the temperature that minimises the cross-entropy of `probability` `(pixel, class)`.

    `label` is `(pixel,)` with no ignored pixel. Searched in 0.05..20; 1.0 where there is no pixel.
    """
    from scipy.optimize import minimize_scalar

    if not len(label):
        return 1.0
    logs = np.log(np.maximum(probability, _TINY)).astype(np.float64)
    own = logs[np.arange(len(label)), label]

    def cross_entropy(log_temperature: float) -> float:
        scaled = logs / np.exp(log_temperature)
        top = scaled.max(axis=1)
        total = top + np.log(np.exp(scaled - top[:, None]).sum(axis=1))
        return float(np.mean(total - own / np.exp(log_temperature)))

    found = minimize_scalar(cross_entropy, bounds=(np.log(0.05), np.log(20)), method="bounded")
    return round(float(np.exp(found.x)), 6)


@dataclass(slots=True)
class Reliability:
    """Counts from which the expected calibration error comes; pixels are added piece by piece."""

    count: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))
    correct: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))
    confidence: NDArray[np.float64] = field(default_factory=lambda: np.zeros(BINS))

    def add(self, probability: Floats, label: NDArray[np.uint8]) -> None:
        """Count pixels: `probability` `(pixel, class)`, `label` `(pixel,)` without ignored ones."""
        best = probability.max(axis=1).astype(np.float64)
        place = np.minimum((best * BINS).astype(np.int64), BINS - 1)
        right = probability.argmax(axis=1) == label
        self.count += np.bincount(place, minlength=BINS)
        self.correct += np.bincount(place[right], minlength=BINS)
        self.confidence += np.bincount(place, weights=best, minlength=BINS)

    def error(self) -> float:
        """Return the expected calibration error: the mean gap of confidence and accuracy over bins, by pixels."""
        total = int(self.count.sum())
        return float(np.abs(self.confidence - self.correct).sum() / total) if total else float("nan")
