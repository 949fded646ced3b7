"""How the layers of a label become one: ordered rules on arrays of class codes, no file is opened here.

The file to change for what a rule means. A layer is int16 ``(y, x)``: a class code, 255 for ignore (a value that is
neither class nor error), or NOTHING (-1) where the layer has no value. Ignore is a value: it lies on top and below as a
class does; but it never outweighs a class in ``max`` and has no vote in ``mode``.
"""

import dataclasses
from collections.abc import Iterable
from itertools import groupby
from typing import Final

import numpy as np
from numpy.typing import NDArray

from chipmill.dataset.classes import IGNORE

Codes = NDArray[np.int16]
NOTHING: Final = -1


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Combined:
    """What layers make together."""

    label: Codes
    """(y, x): a class code, 255, or NOTHING where no layer has a value."""
    origin: Codes
    """(y, x): number of the layer, from 0, that brought it; NOTHING where none did."""

    def put(self, layer: Codes, number: int, where: NDArray[np.bool_]) -> None:
        """Take a layer's pixels."""
        np.copyto(self.label, layer, where=where)
        self.origin[where] = number

    def clear(self, where: NDArray[np.bool_]) -> None:
        """Take the label away."""
        self.label[where] = self.origin[where] = NOTHING


def combine(layers: Iterable[tuple[str, Codes]], shape: tuple[int, int]) -> Combined:
    """Return the label that layers make, taken in order, each by its rule.

    Args:
        layers: (rule, layer) of :class:`chipmill.region.layers.LabelLayer`; taken one by one, only those of a run of
            ``mode`` are held at once.
        shape: (height, width) of all layers.
    """
    made = Combined(np.full(shape, NOTHING, dtype=np.int16), np.full(shape, NOTHING, dtype=np.int16))
    for rule, run in groupby(enumerate(layers), key=lambda numbered: numbered[1][0]):
        if rule == "mode":
            _vote(made, [(number, layer) for number, (_, layer) in run])
            continue
        for number, (_, layer) in run:
            _one(made, rule, number, layer)
    return made


def _one(made: Combined, rule: str, number: int, layer: Codes) -> None:
    label, has = made.label, layer != NOTHING
    match rule:
        case "paint":
            made.put(layer, number, has)
        case "first":
            made.put(layer, number, has & (label == NOTHING))
        case "max":
            outweighs = (label == IGNORE) | (layer > label)
            made.put(layer, number, has & ((label == NOTHING) | ((layer != IGNORE) & outweighs)))
        case "intersect":
            made.clear(~has)
        case "difference":
            made.clear(has)
        case _:
            raise ValueError(f"no such rule: {rule}")


def _vote(made: Combined, layers: list[tuple[int, Codes]]) -> None:
    """Take the class with most votes of the layers and of the label so far; of equals the one first voted for."""
    voices = [(NOTHING, made.label.copy()), *layers]
    most = np.zeros(made.label.shape, dtype=np.int16)
    for place, (number, voice) in enumerate(voices):
        # a class is counted once, where its first voice is met: later ones count fewer
        votes = np.sum([other == voice for _, other in voices[place:]], axis=0, dtype=np.int16)
        votes[(voice == NOTHING) | (voice == IGNORE)] = 0
        over = votes > most
        np.copyto(most, votes, where=over)
        if number != NOTHING:
            made.put(voice, number, over)
    for number, voice in layers:  # where none voted for a class, one that is unsure is more than nothing
        made.put(voice, number, (most == 0) & (made.label == NOTHING) & (voice == IGNORE))
