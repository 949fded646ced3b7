"""Classes: from the values of a label source to codes 0..n-1, their names and their colours.

The file to change for how values are declared and for the default palette. 255 is ignore and nodata everywhere.
"""

import dataclasses
from collections.abc import Iterable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from chipmill.core.errors import LabelError
from chipmill.region.config import Region
from chipmill.region.dataset import Labels

IGNORE: Final = 255
"""Label code of pixels that no loss and no metric may see."""

_KNOWN_COLORS: Final = {
    "water": "#2f6fb5", "river": "#2f6fb5", "lake": "#2f6fb5", "sea": "#1d4e89", "snow": "#e8f1f5", "ice": "#d3e8f0",
    "wetland": "#5fa3a3", "mangrove": "#2f7d6b", "tree": "#2e7d32", "forest": "#1f6b2a", "wood": "#3b7a3b",
    "shrub": "#a3a847", "grass": "#8bc34a", "meadow": "#9ccc65", "pasture": "#aed581", "crop": "#d9a441",
    "field": "#d9a441", "arable": "#d9a441", "orchard": "#b58a3c", "vineyard": "#8e5a7f", "built": "#c0392b",
    "urban": "#c0392b", "building": "#c0392b", "road": "#6d6d6d", "bare": "#b79f86", "sand": "#e3cf9f",
    "rock": "#8d8175", "burn": "#4a2c2a", "cloud": "#f2f2f2", "other": "#9e9e9e", "background": "#9e9e9e",
}  # fmt: skip
# Paul Tol's "muted" scheme: told apart by colour-blind readers, for names that are not known.
_SPARE_COLORS: Final = (
    "#332288", "#88ccee", "#44aa99", "#117733", "#999933", "#ddcc77", "#cc6677", "#882255", "#aa4499",
)  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True)
class ClassInfo:
    """One class; its code is its place in the tuple of all classes."""

    name: str
    values: tuple[str, ...]
    """Source values and inclusive ranges, "10" or "20-30"."""
    color: str
    """``#rrggbb``."""


def resolve_classes(region: Region) -> tuple[ClassInfo, ...]:
    """Return the classes of a region in the order of their codes.

    Several source values may have one name. Tiles from label items bring their ``classification:classes`` into
    ``labels.classes`` when they are planned. Raises LabelError when there are none.
    """
    if region.labels is None:
        return ()
    if not region.labels.classes:
        raise LabelError(
            f"region {region.name}: labels have no classes, and no label item brings classification:classes: "
            "list them, for example labels: {classes: {0: other, 1: water}}"
        )
    return _make(region.labels.classes.items())


def _make(pairs: Iterable[tuple[str, str]]) -> tuple[ClassInfo, ...]:
    values: dict[str, tuple[str, ...]] = {}
    for value, name in pairs:
        values[name] = (*values.get(name, ()), value)
    return tuple(
        ClassInfo(name, own, default_color(name, code)) for code, (name, own) in enumerate(values.items())
    )


def default_color(name: str, code: int) -> str:
    """Return ``#rrggbb`` for a class: by a word in its name where one is known, else the ``code``-th spare colour."""
    words = name.lower().replace("-", "_").replace(".", "_").split("_")
    for word in words:
        known = [color for key, color in _KNOWN_COLORS.items() if word in (key, f"{key}s")]
        if known:
            return known[0]
    return _SPARE_COLORS[code % len(_SPARE_COLORS)]


class ValueMap:
    """Maps source values to codes; ``ignore`` values become 255, a value that is not declared is found, never guessed."""

    def __init__(self, classes: tuple[ClassInfo, ...], labels: Labels) -> None:
        """Read the values and inclusive ranges of ``classes``; raises LabelError where two overlap."""
        spans = [(*_span(value), code) for code, info in enumerate(classes) for value in info.values]
        self._spans = sorted([*spans, *((value, value, IGNORE) for value in labels.ignore)])
        for (low, high, _), (after, _, _) in zip(self._spans, self._spans[1:], strict=False):
            if after <= high:
                raise LabelError(
                    f"labels.classes and labels.ignore: {after} is declared twice, also in {low}-{high}"
                )

    def codes(self, values: NDArray[Any]) -> NDArray[np.int16]:
        """Return the code of each value of a 1-D array, -1 where it is not declared."""
        result = np.full(values.shape, -1, dtype=np.int16)
        whole = values == np.floor(values)
        for low, high, code in self._spans:
            result[(values >= low) & (values <= high) & whole] = code
        return result

    def undeclared(self, values: NDArray[Any]) -> list[Any]:
        """Return those of ``values`` that are neither class nor ignored, sorted."""
        present = np.unique(values)
        return [value.item() for value in present[self.codes(present) < 0]]


def _span(text: str) -> tuple[int, int]:
    """Return the inclusive bounds of "10", "-3" or "20-30"."""
    cut = text.find("-", 1)
    low, high = (int(text), int(text)) if cut < 0 else (int(text[:cut]), int(text[cut + 1 :]))
    if low > high:
        raise LabelError(f"labels.classes: the range {text!r} runs backwards: write {high}-{low}")
    return low, high
