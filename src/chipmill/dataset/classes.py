"""Classes: from the values of a label source to codes 0..n-1, their names and their colours.

The file to change for how values are declared and for the default palette. 255 is ignore and nodata everywhere.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from chipmill.core.errors import LabelError
from chipmill.core.plain import quoted
from chipmill.region.config import Region
from chipmill.region.layers import Labels, is_number_or_range

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
    """Source values, inclusive ranges and texts: "10", "20-30", "wheat"."""
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
        """Read values, inclusive ranges and texts of ``classes``; raises LabelError where two overlap."""
        pairs = [(value, code) for code, info in enumerate(classes) for value in info.values]
        pairs += [(value, IGNORE) for value in labels.ignore]
        self._known = ValueSet([value for value, _ in pairs], "labels.classes and labels.ignore")
        self._codes = np.array([code for _, code in pairs] + [-1], dtype=np.int16)
        names = [info.name for info in classes]
        if labels.outside != "ignore" and labels.outside not in names:
            raise LabelError(
                f"labels.outside: {labels.outside!r} is no class of {', '.join(names)}: name one, or ignore"
            )
        self.outside: Final = IGNORE if labels.outside == "ignore" else names.index(labels.outside)
        """Code of pixels where no layer has a value."""

    def codes(self, values: NDArray[Any]) -> NDArray[np.int16]:
        """Return the code of each value of a 1-D array of numbers or objects, -1 where it is not declared."""
        return self._codes[self._known.places(values)]

    def undeclared(self, values: NDArray[Any]) -> list[Any]:
        """Return those of ``values`` that are neither class nor ignored, numbers before texts, sorted."""
        if values.dtype.kind == "O":
            present = np.empty(len(once := dict.fromkeys(values.tolist())), dtype=object)
            present[:] = list(once)
        else:
            present = np.unique(values)
        wrong = present[self.codes(present) < 0].tolist()
        return sorted(
            wrong, key=lambda one: (0, one, "") if isinstance(one, int | float) else (1, 0, str(one))
        )


class ValueSet:
    """Values, inclusive ranges and texts, as the region file writes them: "10", "20-30", "Triticum aestivum"."""

    def __init__(self, keys: Sequence[str], field: str) -> None:
        """Read the keys; raises LabelError, which names ``field``, where two overlap or a range runs backwards."""
        self._spans = sorted(
            (*_span(key, field), place) for place, key in enumerate(keys) if is_number_or_range(key)
        )
        for (low, high, _), (after, _, _) in zip(self._spans, self._spans[1:], strict=False):
            if after <= high:
                raise LabelError(f"{field}: {after} is declared twice, also in {low}-{high}")
        texts = [(key, place) for place, key in enumerate(keys) if not is_number_or_range(key)]
        self._texts = dict(texts)
        if len(self._texts) < len(texts):
            doubled = next(key for key, place in texts if self._texts[key] != place)
            raise LabelError(f"{field}: {quoted(doubled)} is declared twice")

    def __bool__(self) -> bool:
        """Tell whether there is any key."""
        return bool(self._spans or self._texts)

    def places(self, values: NDArray[Any]) -> NDArray[np.int64]:
        """Return which key each value of a 1-D array belongs to, -1 for none.

        The array holds numbers, or objects: numbers and texts. A text is looked up as it is; one that is no key but
        reads as a number counts as that number.
        """
        if values.dtype.kind != "O":
            return self._spans_of(values)
        place = {value: self._place(value) for value in dict.fromkeys(values.tolist())}
        return np.array([place[value] for value in values.tolist()], dtype=np.int64)

    def holds(self, values: NDArray[Any]) -> NDArray[np.bool_]:
        """Tell of each value whether a key is or holds it; the array may have any shape."""
        held: NDArray[np.bool_] = self.places(values.ravel()).reshape(values.shape) >= 0
        return held

    def _spans_of(self, values: NDArray[Any]) -> NDArray[np.int64]:
        result = np.full(values.shape, -1, dtype=np.int64)
        whole = values == np.floor(values)
        for low, high, place in self._spans:
            result[(values >= low) & (values <= high) & whole] = place
        return result

    def _place(self, value: object) -> int:
        if isinstance(value, str):
            if value in self._texts:
                return self._texts[value]
            try:
                value = float(value)
            except ValueError:
                return -1
        if not isinstance(value, int | float):
            return -1
        return int(self._spans_of(np.array([value], dtype=np.float64))[0])


def _span(text: str, field: str) -> tuple[int, int]:
    """Return the inclusive bounds of "10", "-3" or "20-30"."""
    cut = text.find("-", 1)
    low, high = (int(text), int(text)) if cut < 0 else (int(text[:cut]), int(text[cut + 1 :]))
    if low > high:
        raise LabelError(f"{field}: the range {text!r} runs backwards: write {high}-{low}")
    return low, high
