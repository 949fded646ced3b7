"""Was the offset right? The share of negative reflectance that each acquisition has after its offset.

The file to change for how a wrong offset is noticed. Sentinel-2's -0.1 on pixels from which an archive took it away
already makes dark ground negative: 60 to 79 % of all bands on the clear dates of three real series, where none is
negative without it. Clouds hide the fault, so that a share near zero proves nothing. Every fourth pixel of every
fourth row is looked at.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from chipmill.core.errors import AssetMismatchError
from chipmill.imagery.items import Acquisition
from chipmill.imagery.kernels import Conversion
from chipmill.imagery.strips import Strip
from chipmill.region.grid import Window

STEP_PX: Final = 4
DOUBTFUL_FRACTION: Final = 0.3
"""Share of negative pixels over all bands with an offset above which the offset is doubted."""


class Negatives:
    """Counts the negative pixels of a composite's acquisitions, window by window."""

    def __init__(self, acquisitions: Sequence[Acquisition], bands: Sequence[str]) -> None:
        """``acquisitions`` in the order of the strips' times; only those bands count that have an offset."""
        self._names = [one.acquisition_id for one in acquisitions]
        offset = {
            band: np.array(
                [any(item.assets[band].offset for item in one.items) for one in acquisitions], bool
            )
            for band in bands
        }
        self._offset = {band: has for band, has in offset.items() if has.any()}
        self._negative = {band: np.zeros(len(acquisitions), np.int64) for band in self._offset}
        self._valid = np.zeros(len(acquisitions), np.int64)

    def add(self, window: Window, strip: Strip, rules: Mapping[str, Conversion]) -> None:
        """Count the pixels of a window; ``rules`` turn its DN into the composite's units, offset included."""
        if not self._offset:
            return
        # Counted from the tile's corner, so that it does not matter how the tile is cut.
        sampled = np.s_[:, -window.row_off % STEP_PX :: STEP_PX, -window.col_off % STEP_PX :: STEP_PX]
        valid = strip.valid[sampled]
        self._valid += np.count_nonzero(valid, axis=(1, 2))
        for band in self._offset:
            rule = rules[band]
            below = strip.values[band][sampled] * rule.gain + rule.shift < 0
            self._negative[band] += np.count_nonzero(below & valid, axis=(1, 2))

    def fractions(self) -> dict[str, dict[str, float]]:
        """Return acquisition -> band -> share of its valid pixels that are negative, where there is an offset."""
        return {
            name: {band: round(float(self._negative[band][place] / self._valid[place]), 4) for band in bands}
            for place, name in enumerate(self._names)
            if self._valid[place] and (bands := [band for band, has in self._offset.items() if has[place]])
        }

    def doubtful(self) -> dict[str, float]:
        """Return the acquisitions whose share over all their bands is above the limit, and that share."""
        means = {name: float(np.mean(list(bands.values()))) for name, bands in self.fractions().items()}
        return {name: mean for name, mean in means.items() if mean > DOUBTFUL_FRACTION}


def refuse_doubtful(imagery: str, doubtful: Mapping[str, float]) -> None:
    """Raise AssetMismatchError where an offset is doubted, for ``offset_check: stop``."""
    for name, share in doubtful.items():
        raise AssetMismatchError(
            f"imagery {imagery}: {share:.0%} of the pixels of {name} are negative after the offset, as if it was taken "
            "away already: set offset to none or offset_override to what is right, or offset_check to warn or exclude"
        )
