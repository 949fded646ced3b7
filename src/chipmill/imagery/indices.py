"""Spectral indices from composited reflectance: the table to extend for another index.

Its name goes into :mod:`chipmill.region.fields` too, by which region files and forms know it. An index is a function of reflectance bands by our name; its result is stored in the composite's own integers
(``out.scale``), so that one scale holds for a whole stack.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from chipmill.core.errors import BadInputError
from chipmill.imagery.kernels import Conversion

Real = NDArray[np.float64]


@dataclasses.dataclass(frozen=True, slots=True)
class Index:
    """A formula over reflectance bands; ``low`` and ``high`` are the range that its definition has."""

    bands: tuple[str, ...]
    formula: Callable[..., Real]
    low: float = -1.0
    high: float = 1.0


def _difference(a: Real, b: Real) -> Real:
    return (a - b) / (a + b)


def _evi(nir: Real, red: Real, blue: Real) -> Real:
    return 2.5 * (nir - red) / (nir + 6.0 * red - 7.5 * blue + 1.0)


def _evi2(nir: Real, red: Real) -> Real:
    return 2.5 * (nir - red) / (nir + 2.4 * red + 1.0)


def _savi(nir: Real, red: Real) -> Real:
    return 1.5 * (nir - red) / (nir + red + 0.5)


def _bsi(swir16: Real, red: Real, nir: Real, blue: Real) -> Real:
    return _difference(swir16 + red, nir + blue)


INDICES: Final[Mapping[str, Index]] = {
    "ndvi": Index(("nir", "red"), _difference),  # Rouse et al. 1974
    "gndvi": Index(("nir", "green"), _difference),  # Gitelson et al. 1996
    "ndwi": Index(("green", "nir"), _difference),  # McFeeters 1996: open water > 0
    "mndwi": Index(("green", "swir16"), _difference),  # Xu 2006
    "ndmi": Index(("nir", "swir16"), _difference),  # Gao 1996: water in leaves
    "ndbi": Index(("swir16", "nir"), _difference),  # Zha et al. 2003
    "nbr": Index(("nir", "swir22"), _difference),  # Key and Benson 1999
    "ndsi": Index(("green", "swir16"), _difference),  # Hall et al. 1995: snow
    "bsi": Index(("swir16", "red", "nir", "blue"), _bsi),  # Rikimaru et al. 2002
    "evi": Index(("nir", "red", "blue"), _evi, -3.0, 3.0),  # Huete et al. 2002
    "evi2": Index(("nir", "red"), _evi2, -3.0, 3.0),  # Jiang et al. 2008
    "savi": Index(("nir", "red"), _savi, -1.5, 1.5),  # Huete 1988, L = 0.5
}


def indices_of(wanted: Iterable[str], bands: Iterable[str]) -> tuple[str, ...]:
    """Return those of the wanted indices, in their order, that can be made from these bands alone."""
    has = set(bands)
    return tuple(name for name in wanted if has.issuperset(find_index(name).bands))


def check_indices(wanted: Sequence[str], band_sets: Sequence[Iterable[str]]) -> None:
    """Refuse an index that is unknown, or whose bands no imagery entry has together.

    Raises:
        BadInputError: names the index, its bands, and the known ones.
    """
    sets = [set(bands) for bands in band_sets]
    for name in wanted:
        needs = find_index(name).bands
        if not any(has.issuperset(needs) for has in sets):
            raise BadInputError(
                f"the index {name} needs the bands {', '.join(needs)} of one imagery entry, and none has them all: "
                "add them to its bands, or leave the index out"
            )


def find_index(name: str) -> Index:
    """Return the index of that name; raises BadInputError that lists the known names."""
    if name not in INDICES:
        raise BadInputError(
            f"{name!r} is not an index that is known here: write one of {', '.join(sorted(INDICES))}"
        )
    return INDICES[name]


def index_band(
    name: str, bands: Mapping[str, NDArray[Any]], out_scale: float, rule: Conversion
) -> tuple[NDArray[np.int16], int]:
    """Compute an index from composited bands.

    Args:
        name: one of :data:`INDICES`.
        bands: our band name -> integers (y, x), reflectance = integer * out_scale, ``rule.nodata`` where there is none.
        out_scale: of the bands and of the result.
        rule: range and nodata of the result; its gain and shift are not used.

    Returns:
        Integers (y, x) of the bands' type, nodata where a band is or where the formula divides by zero, and the
        number of pixels that lay outside the index's range (reflectance <= 0 leads there) and were cut to it.
    """
    index = find_index(name)
    inputs = [bands[band] for band in index.bands]
    valid = np.logical_and.reduce([band != rule.nodata for band in inputs])
    with np.errstate(divide="ignore", invalid="ignore"):
        value = index.formula(*(band.astype(np.float64) * out_scale for band in inputs))
    valid &= np.isfinite(value)
    value[~valid] = 0.0
    cut = np.clip(value, index.low, index.high)
    integers = np.clip(np.rint(cut / out_scale), rule.low, rule.high)
    saturated = int(np.count_nonzero(cut != value))
    return np.where(valid, integers, rule.nodata).astype(inputs[0].dtype), saturated
