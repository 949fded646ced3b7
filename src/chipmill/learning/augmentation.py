"""Flips and quarter turns of training chips. Another augmentation: change `augment`.

A view from above has no up or left, so all eight symmetries of the square are equally likely. The draw is a pure
function of seed, epoch and step: a resumed training meets the same chips.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def turn(pixels: NDArray[Any], element: int) -> NDArray[Any]:
    """Return `(y, x, ...)` under one of the eight symmetries: element % 4 quarter turns, then a flip from 4 on."""
    turned = np.rot90(pixels, element % 4)
    return turned[::-1] if element >= 4 else turned


def augment(
    image: NDArray[Any], label: NDArray[np.uint8], seed: int, epoch: int, step: int
) -> tuple[NDArray[Any], NDArray[np.uint8]]:
    """Return a batch of chips `(n, y, x, band)` and labels `(n, y, x)`, each chip turned at random with its label."""
    elements = np.random.default_rng([seed, epoch, step]).integers(8, size=len(image))
    images, labels = np.empty_like(image), np.empty_like(label)
    for index, element in enumerate(elements):
        images[index] = turn(image[index], int(element))
        labels[index] = turn(label[index], int(element))
    return images, labels
