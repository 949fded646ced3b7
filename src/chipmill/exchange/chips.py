"""A chip on its way: what the caller says of a foreign folder, names made usable, label values to codes and back.

The file to change for what all formats have in common. Samples are (y, x, band), pictures (band, y, x).
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from chipmill.core.errors import BadInputError, LabelError
from chipmill.dataset.classes import IGNORE, default_color
from chipmill.dataset.description import Manifest
from chipmill.dataset.places import SPLITS
from chipmill.dataset.records import Sample
from chipmill.exchange.origin import Origin
from chipmill.region.fields import ID_PATTERN

_DATE: Final = r"\d{4}-\d{2}-\d{2}"


@dataclasses.dataclass(frozen=True, slots=True)
class ImportOptions:
    """What the files of another program do not say."""

    name: str | None = None
    """Of the dataset; None = that of the exported dataset, else the folder's."""
    date: str | None = None
    """When the pictures are from, YYYY-MM-DD; needed where chips.csv does not say it."""
    split: str = SPLITS[0]
    """Of chips in a folder that is not divided into train, val and test."""
    classes: Mapping[int, str] = dataclasses.field(default_factory=dict)
    """Value in the label -> name, in the order of the codes; needed where the files do not say it."""
    ignore: tuple[int, ...] = ()
    """Values in the label that mean: not known."""
    bands: tuple[str, ...] = ()
    """Names of the bands in their order; () = those of the files."""
    shares: tuple[float, float, float] | None = None
    """Of train, val and test, for pairs in a folder that is not divided; None = all belong to ``split``."""
    seed: int = 8
    """Of the order in which chips are dealt."""

    def __post_init__(self) -> None:
        """Raise BadInputError for a split, a date or shares that are none."""
        if self.shares is not None and not (min(self.shares) >= 0 and 0 < sum(self.shares) < float("inf")):
            raise BadInputError(
                f"shares: expected three numbers from 0 up, as 0.7 0.15 0.15, got {self.shares}"
            )
        if self.split not in SPLITS:
            raise BadInputError(f"split: expected one of {', '.join(SPLITS)}, got {self.split[:40]!r}")
        if self.date is not None and not re.fullmatch(_DATE, self.date):
            raise BadInputError(f"date: expected YYYY-MM-DD, got {self.date[:40]!r}")

    def dated(self, where: str) -> str:
        """Return the date of a chip that says none itself; raises BadInputError, naming ``where``, without one."""
        if self.date is None:
            raise BadInputError(f"{where} does not say when it is from: give the date of the pictures")
        return self.date


def parse_classes(texts: Iterable[str]) -> dict[int, str]:
    """Return value -> name of texts as "1=water"; raises BadInputError for one that is none, or a value named twice."""
    found: dict[int, str] = {}
    for text in texts:
        value, equals, name = text.partition("=")
        if not equals or not name.strip() or not re.fullmatch(r"-?\d{1,9}", value.strip()):
            raise BadInputError(f"class: expected VALUE=NAME, as 1=water, got {text[:60]!r}")
        if int(value) in found:
            raise BadInputError(
                f"class: the value {int(value)} is named twice, {found[int(value)]!r} and {name!r}"
            )
        found[int(value)] = name.strip()
    return found


@dataclasses.dataclass(frozen=True, slots=True)
class Converted:
    """What a conversion did."""

    out: Path
    chips: int
    """Chips, records or files that were written."""
    notes: tuple[str, ...] = ()
    """What whoever uses the result must be told, one sentence each."""


def usable(text: str, other: str) -> str:
    """Return a name of a stranger as an id of ours: small letters, digits, ``._-``; ``other`` where nothing is left."""
    name = re.sub(r"[^a-z0-9._-]+", "_", text.lower()).strip("._-")[:63]
    return name if re.fullmatch(ID_PATTERN, name) else other


def usable_all(texts: Sequence[str], what: str) -> tuple[str, ...]:
    """Return the names of bands or classes as ids; raises BadInputError where two become the same."""
    names = tuple(usable(text, f"{what}-{number}") for number, text in enumerate(texts, 1))
    for number, name in enumerate(names):
        if name in names[:number]:
            first = texts[names.index(name)]
            raise BadInputError(
                f"two {what}s, {first!r} and {texts[number]!r}, have the same name {name}: rename one"
            )
    return names


@dataclasses.dataclass(frozen=True, slots=True)
class LabelCodes:
    """What the values of a foreign label mean: code 0..n-1 by place, or ignore."""

    classes: tuple[tuple[str, str, tuple[int, ...]], ...]
    """(name, colour ``#rrggbb``, its values) in the order of the codes."""
    ignore: tuple[int, ...]

    def encode(self, values: NDArray[Any], where: str) -> NDArray[np.uint8]:
        """Return the codes (y, x) of label values of any number type; 255 where they are to be ignored.

        Raises LabelError, naming ``where``, for a value that is neither declared nor ignored.
        """
        present, place = np.unique(values, return_inverse=True)
        codes = {float(value): code for code, (_, _, own) in enumerate(self.classes) for value in own}
        codes |= dict.fromkeys(map(float, self.ignore), IGNORE)
        unknown = [value.item() for value in present if float(value) not in codes]
        if unknown:
            raise LabelError(
                f"{where} holds {len(unknown)} values that no class declares ({', '.join(map(str, unknown[:5]))}): "
                "declare them as classes, or as values to ignore"
            )
        table = np.array([codes[float(value)] for value in present], dtype=np.uint8)
        return table[place].reshape(values.shape)

    @classmethod
    def of(cls, options: ImportOptions, origin: Origin | None, where: Path) -> "LabelCodes":
        """Take the classes that the caller names, else those of an export of ours; raises LabelError for neither."""
        if options.classes or not origin:
            return cls.of_options(options, where)
        return cls.of_origin(origin, options.ignore)

    @classmethod
    def of_options(cls, options: ImportOptions, where: Path) -> "LabelCodes":
        """Take the classes that the caller names; raises LabelError where none are, or one is ignored, too."""
        if not options.classes:
            raise LabelError(f"{where} does not say what its label values mean: name the classes, as 1=water")
        both = sorted(options.classes.keys() & set(options.ignore))
        if both:
            raise LabelError(
                f"{where}: the label value {both[0]} is to be ignored and names the class "
                f"{options.classes[both[0]]!r}: leave out one"
            )
        values: dict[str, list[int]] = {}
        for value, name in options.classes.items():
            values.setdefault(name, []).append(value)
        return cls.of_names(list(values), list(values.values()), options.ignore)

    @classmethod
    def of_names(
        cls, names: Sequence[str], values: Sequence[Sequence[int]], ignore: Iterable[int]
    ) -> "LabelCodes":
        """Make it of any names and of the values of each, with default colours."""
        usable_names = usable_all(names, "class")
        colors = [default_color(name, code) for code, name in enumerate(usable_names)]
        return cls(tuple(zip(usable_names, colors, map(tuple, values), strict=True)), tuple(ignore))

    @classmethod
    def of_origin(cls, origin: Origin, ignore: Iterable[int] = ()) -> "LabelCodes":
        """Take the classes of an export of ours, and further values to ignore."""
        classes = tuple((one.name, one.color, (one.written,)) for one in origin.classes)
        return cls(classes, (origin.ignore, *ignore))


def written_values(count: int, first: int, ignore: int) -> NDArray[np.uint8]:
    """Return the label value of each code 0..255: class 0 becomes ``first``, and so on; all else ``ignore``."""
    table = np.full(256, ignore, dtype=np.uint8)
    table[:count] = np.arange(first, first + count)
    return table


def flat_image(sample: Sample) -> NDArray[Any]:
    """Return the image of a sample as (band, y, x): a series slot by slot, then its static bands."""
    image = sample.image
    if image.ndim == 4:
        image = np.moveaxis(image, 0, 2).reshape(*image.shape[1:3], -1)
        if sample.static.size:
            image = np.concatenate([image, sample.static], axis=2)
    return np.ascontiguousarray(np.moveaxis(image, 2, 0))


def left_out(manifest: Manifest) -> tuple[str, ...]:
    """Return what to tell of a dataset that pictures and lists of bands cannot hold, a sentence each."""
    notes = []
    if any(feature.name == "weight" for feature in manifest.features):
        notes.append("the confidence of the labels (weight) is not part of this format and was left out")
    if manifest.layout == "series":
        notes.append(
            "the series is written slot by slot, as bands of one picture: an import gives the layout stack"
        )
    return tuple(notes)
