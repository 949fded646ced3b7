"""What the files of Esri Classified Tiles say of the chips of a folder, counted while the pairs are written.

The file to change for a figure in stats.txt, esri_accumulated_stats.json or the .emd. Sums are exact; folders can be
merged by them.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chipmill.dataset.description import BandFacts
from chipmill.dataset.statistics import BandSums, band_sums
from chipmill.exchange.origin import OriginChip
from chipmill.exchange.pairs import WrittenPair


@dataclass(slots=True)
class BandSum:
    """Range and exact sums of one band over its valid pixels."""

    low: int | None = None
    high: int | None = None
    sums: BandSums = field(default_factory=BandSums)

    def add(self, values: NDArray[np.integer[Any]], sums: BandSums) -> None:
        """Count 1-D values whose sums are known."""
        self.sums += sums
        if values.size:
            low, high = int(values.min()), int(values.max())
            self.low = low if self.low is None else min(self.low, low)
            self.high = high if self.high is None else max(self.high, high)

    @property
    def n(self) -> int:
        """Number of valid pixels."""
        return self.sums.n

    @property
    def mean(self) -> float:
        """Mean, 0 where nothing was counted."""
        return self.sums.mean

    @property
    def deviations(self) -> float:
        """Sum of the squared deviations from the mean."""
        return float(self.sums.squares - Fraction(self.sums.total**2, self.n)) if self.n else 0.0

    @property
    def std(self) -> float:
        """Population standard deviation."""
        return (self.deviations / self.n) ** 0.5 if self.n else 0.0


@dataclass(slots=True)
class Span:
    """Smallest, largest and sum of a count over images."""

    low: int = 0
    high: int = 0
    total: int = 0
    images: int = 0

    def add(self, count: int) -> None:
        """Count an image."""
        self.low = min(self.low, count) if self.images else count
        self.high = max(self.high, count)
        self.total += count
        self.images += 1

    @property
    def mean(self) -> float:
        """Mean over the images."""
        return self.total / self.images if self.images else 0.0

    def facts(self) -> dict[str, int | float]:
        """Return it in Esri's words."""
        return {"Min": self.low, "Max": self.high, "Mean": self.mean, "Sum": self.total, "Count": self.images}


@dataclass(slots=True)
class Tally:
    """What the files say of the chips of a folder, gathered chip by chip."""

    classes: int
    bands: Sequence[BandFacts]
    names: list[str] = field(default_factory=list)
    shape: tuple[int, int] = (0, 0)
    per_class: list[Span] = field(init=False)
    per_image: Span = field(default_factory=Span)
    sums: list[BandSum] = field(init=False)

    def __post_init__(self) -> None:
        """Begin at nothing."""
        self.per_class = [Span() for _ in range(self.classes)]
        self.sums = [BandSum() for _ in self.bands]

    def counted(self, pairs: Iterable[WrittenPair]) -> Iterator[OriginChip]:
        """Count pairs as they are written, and yield what chips.csv says of each."""
        for pair in pairs:
            self.add(pair.chip.name, pair.image, pair.label)
            yield pair.chip

    def add(self, name: str, image: NDArray[Any], label: NDArray[np.uint8]) -> None:
        """Count a pair: image (band, y, x), label (y, x) with classes 1..n and 0 for no data."""
        self.names.append(name)
        self.shape = label.shape
        counts = np.bincount(label.ravel(), minlength=self.classes + 1)[1 : self.classes + 1]
        for span, count in zip(self.per_class, counts.tolist(), strict=True):
            if count:
                span.add(count)
        self.per_image.add(int(np.count_nonzero(counts)))
        sums = band_sums(image, [band.nodata for band in self.bands], np.ones(label.shape, bool))
        for own, pixels, band, counted in zip(self.sums, image, self.bands, sums, strict=True):
            own.add(pixels[pixels != band.nodata], counted)
