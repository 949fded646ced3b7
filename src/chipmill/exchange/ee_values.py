"""From the numbers of Earth Engine to the integers of a dataset: exact, or scaled, rounded and counted.

The file to change for how a band of floats becomes a stored band. Earth Engine exports most bands as floats, also those
that hold integers: such a band is taken over exactly, and a band with decimals needs a scale.
"""

import collections
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from chipmill.core.errors import AssetMismatchError, BadInputError
from chipmill.dataset.rasters import saturate
from chipmill.exchange.imported_facts import ImportedBand

type Lost = collections.Counter[str]
"""Band -> values that did not fit."""

StoredType = Literal["uint8", "int16", "uint16", "int32"]


@dataclasses.dataclass(frozen=True, slots=True)
class Storing:
    """How the values of all bands are stored."""

    dtype: StoredType = "int16"
    scales: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """Band -> scale, stored value x scale = physical value; a band that is not named must hold integers."""
    nodata: float | None = None
    """Value in the source that means: no data; None = only NaN does, which a band without scale must not hold."""

    def __post_init__(self) -> None:
        """Raise BadInputError for a scale or a nodata value that makes no sense."""
        for band, scale in self.scales.items():
            if not 0 < scale < float("inf"):
                raise BadInputError(f"scale of {band}: expected a number over 0, got {scale:g}")
        info = np.iinfo(self.dtype)
        if self.nodata is not None and not (self.nodata.is_integer() and info.min <= self.nodata <= info.max):
            raise BadInputError(f"nodata: {self.nodata:g} is no value of {self.dtype}")

    @property
    def empty(self) -> float:
        """Value of no data in a scaled band: the lowest of a signed type, the highest of an unsigned one."""
        info = np.iinfo(self.dtype)
        return float(info.min or info.max)

    def refuse_unknown(self, names: Sequence[str]) -> None:
        """Raise BadInputError for a scale of a band that is not among ``names``."""
        unknown = [name for name in self.scales if name not in names]
        if unknown:
            raise BadInputError(f"scale: there is no band {', '.join(unknown)} but {', '.join(names)}")

    def band(self, name: str) -> ImportedBand:
        """Return what is said of a stored band."""
        scale = self.scales.get(name)
        return ImportedBand(
            name, self.dtype, scale or 1.0, nodata=self.nodata if scale is None else self.empty
        )

    def store(self, name: str, values: NDArray[Any], where: str) -> tuple[NDArray[Any], int]:
        """Return the stored values of a band, and how many did not fit.

        Raises AssetMismatchError, naming ``where``, for a value of a band without scale that is not an integer of the
        type.
        """
        scale = self.scales.get(name)
        if scale is None:
            return self._exact(name, values, where), 0
        physical = values.astype(np.float64)
        if self.nodata is not None:
            physical[values == self.nodata] = np.nan
        return saturate(physical / scale, self.dtype, self.empty)

    def _exact(self, name: str, values: NDArray[Any], where: str) -> NDArray[Any]:
        if values.dtype == np.dtype(self.dtype):
            return values
        info = np.iinfo(self.dtype)
        fits = (values >= info.min) & (values <= info.max)
        if values.dtype.kind == "f":
            fits &= values == np.floor(values)
        if not fits.all():
            raise AssetMismatchError(
                f"{where}: band {name} holds {values[~fits][0].item()!r}, which is no {self.dtype}: give the band a scale, "
                "for example 0.0001, or another type"
            )
        return values.astype(self.dtype)


def parse_scales(texts: Iterable[str]) -> dict[str, float]:
    """Return band -> scale of texts as "ndvi=0.0001"; raises BadInputError for one that is none, or a band named twice."""
    found: dict[str, float] = {}
    for text in texts:
        band, equals, number = text.partition("=")
        if band in found:
            raise BadInputError(f"scale: band {band[:40]!r} is named twice")
        try:
            found[band] = float(number)
        except ValueError as error:
            raise BadInputError(f"scale: expected BAND=NUMBER, as ndvi=0.0001, got {text[:60]!r}") from error
        if not equals or not band:
            raise BadInputError(f"scale: expected BAND=NUMBER, as ndvi=0.0001, got {text[:60]!r}")
    return found


def lost_notes(lost: Lost) -> tuple[str, ...]:
    """Return what to tell of values that did not fit, a sentence for each band that had some."""
    return tuple(
        f"{count:,} values of band {name} did not fit and stand at the end of the range: another scale would keep them"
        for name, count in sorted(lost.items())
        if count
    )
