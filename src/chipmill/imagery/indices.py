"""Spectral indices from composited bands: which of the wanted ones an imagery entry allows, and their pixels.

An index is a function of physical values by band; its result is stored in the composite's own integers
(``out.scale``), so that one scale holds for a whole stack. The formulas are in :mod:`chipmill.region.formulas`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from chipmill.core.errors import BadInputError
from chipmill.imagery.kernels import Conversion
from chipmill.region.expressions import did_you_mean
from chipmill.region.formulas import (
    BANDS,
    Binary,
    Index,
    Name,
    Negated,
    Number,
    Operator,
    Term,
    find_index,
    index_names,
)

Real = NDArray[np.float64]
_OPERATORS: Final[Mapping[Operator, Callable[[Any, Any], Any]]] = {
    "+": np.add, "-": np.subtract, "*": np.multiply, "/": np.true_divide, "**": np.float_power,
}  # fmt: skip


def indices_of(wanted: Iterable[str], bands: Iterable[str]) -> tuple[str, ...]:
    """Return those of the wanted indices, in their order, that can be made from these bands alone."""
    has = set(bands)
    return tuple(name for name in wanted if None not in _bands_of(_known(name), has).values())


def check_indices(wanted: Sequence[str], band_sets: Sequence[Iterable[str]]) -> None:
    """Refuse an index that is unknown, or whose bands no imagery entry has together.

    Raises:
        BadInputError: names the index, its bands, and the way out.
    """
    sets = [set(bands) for bands in band_sets]
    for name in wanted:
        index = _known(name)
        if not any(None not in _bands_of(index, has).values() for has in sets):
            needs = ", ".join(" or ".join(BANDS[letter]) for letter in index.letters)
            raise BadInputError(
                f"the index {name} needs the bands {needs} of one imagery entry, and none has them all: "
                "add them to its bands, or leave the index out"
            )


def _known(name: str) -> Index:
    index = find_index(name)
    if index is None:
        raise BadInputError(
            f"{name!r} is not an index that is known here: {did_you_mean(name, index_names())}"
        )
    return index


def _bands_of(index: Index, has: Iterable[str]) -> dict[str, str | None]:
    """Return the letters of a formula and the band of each, None where there is none."""
    names = set(has)
    return {letter: next((band for band in BANDS[letter] if band in names), None) for letter in index.letters}


def index_band(
    name: str,
    bands: Mapping[str, NDArray[Any]],
    out_scale: float,
    rule: Conversion,
    *,
    decibels: bool = False,
) -> tuple[NDArray[Any], int]:
    """Compute an index from composited bands.

    Args:
        name: one of :func:`chipmill.region.formulas.index_names` that :func:`indices_of` returned for the bands.
        bands: our band name -> integers (y, x), physical = integer * out_scale, ``rule.nodata`` where there is none.
        out_scale: of the bands and of the result.
        rule: range and nodata of the result; its gain and shift are not used.
        decibels: the bands are decibels; formulas of radar are of power.

    Returns:
        Integers (y, x) of the bands' type, nodata where a band is or where the formula has no real value (division by
        zero, root of a negative number), and the number of pixels that lay outside the index's range or the type's
        (reflectance <= 0 leads there) and were cut to it.
    """
    index = _known(name)
    used = {letter: bands[band] for letter, band in _bands_of(index, bands).items() if band is not None}
    valid = np.logical_and.reduce([band != rule.nodata for band in used.values()])
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        physical = {letter: _physical(band, out_scale, decibels=decibels) for letter, band in used.items()}
        value = np.asarray(evaluate(index.formula, physical))
    valid &= np.isfinite(value)
    value[~valid] = 0.0
    cut = np.clip(value, index.low, index.high)
    rounded = np.rint(cut / out_scale)
    integers = np.clip(rounded, rule.low, rule.high)
    saturated = int(np.count_nonzero((cut != value) | (integers != rounded)))
    kind = next(iter(used.values())).dtype
    return np.where(valid, integers, rule.nodata).astype(kind), saturated


def _physical(band: NDArray[Any], scale: float, *, decibels: bool) -> Real:
    value = band.astype(np.float64) * scale
    return np.float_power(10.0, value / 10.0) if decibels else value


def evaluate(term: Term, values: Mapping[str, Real]) -> Real | float:
    """Return the value of a formula; ``values`` holds one array per name, all of one shape."""
    match term:
        case Number(value):
            return value
        case Name(name):
            return values[name]
        case Negated(part):
            return -evaluate(part, values)
        case Binary(operator, left, right):
            result: Real | float = _OPERATORS[operator](evaluate(left, values), evaluate(right, values))
            return result
