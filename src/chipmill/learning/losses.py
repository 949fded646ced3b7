"""Losses over chips with an ignore label. Another loss: write a function here and name it in LOSSES.

Every loss takes the label `(n, y, x)` uint8 with 255 = ignore and logits `(n, y, x, class)` float32, and returns one
float32 scalar; ignored pixels have no influence, and a batch of nothing else has loss 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

STAGE_VERSION: Final = 1
IGNORE: Final = 255

type Loss = Callable[[Any, Any], Any]


def cross_entropy(label: Any, logits: Any) -> Any:
    """Mean cross-entropy over the valid pixels of the batch."""
    from keras import ops

    valid, target = _valid_target(label, logits)
    per_pixel = -ops.sum(target * ops.log_softmax(logits), axis=-1)
    return ops.sum(per_pixel) / ops.maximum(ops.sum(valid), 1.0)


def dice(label: Any, logits: Any) -> Any:
    """One minus the soft Dice coefficient, averaged over the classes that the batch holds.

    2 sum(p t) / (sum p + sum t) per class over the whole batch (Milletari et al. 2016, without squares); classes
    that are absent from the batch are left out, else every false alarm of a rare class would cost a full unit.
    """
    from keras import ops

    valid, target = _valid_target(label, logits)
    probability = ops.softmax(logits) * valid[..., None]
    axes = (0, 1, 2)
    overlap, mass = ops.sum(probability * target, axis=axes), ops.sum(probability + target, axis=axes)
    present = ops.cast(ops.sum(target, axis=axes) > 0, "float32")
    loss = 1.0 - 2.0 * overlap / ops.maximum(mass, 1.0)
    return ops.sum(loss * present) / ops.maximum(ops.sum(present), 1.0)


def dice_ce(label: Any, logits: Any) -> Any:
    """Sum of `dice` and `cross_entropy`: better on rare classes than either (nnU-Net's choice)."""
    return dice(label, logits) + cross_entropy(label, logits)


def _valid_target(label: Any, logits: Any) -> tuple[Any, Any]:
    """Return float32 `valid` (n, y, x), 1 = counts, and the one-hot target, 0 in all classes where ignored."""
    from keras import ops

    valid = ops.cast(ops.not_equal(label, IGNORE), "float32")
    target = ops.one_hot(ops.cast(label, "int32"), logits.shape[-1])
    return valid, ops.cast(target, "float32") * valid[..., None]


LOSSES: Final[dict[str, Loss]] = {"dice+ce": dice_ce, "ce": cross_entropy, "dice": dice}
