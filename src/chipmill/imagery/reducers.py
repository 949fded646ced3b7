"""Which arithmetic a region file's ``reduce`` and ``unit`` mean, for all bands of a strip.

The file to change for another reducer; the kernels themselves are in :mod:`.kernels` and :mod:`.geomedian`. Values in
decibels are reduced as power and turned back: their mean is that of what the antenna received, not of its logarithm.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from chipmill.imagery import kernels
from chipmill.imagery.kernels import Conversion
from chipmill.region.imagery import Imagery

Reducer = Callable[[NDArray[Any], NDArray[np.bool_], Conversion, NDArray[Any]], int]
_REDUCERS: Final[Mapping[str, Reducer]] = {
    "median": kernels.reduce_median,
    "mean": kernels.reduce_mean,
    "least-cloudy": kernels.reduce_first,
    "first-valid": kernels.reduce_first,
    "nearest": kernels.reduce_first,
}
_MIXING: Final = ("median", "mean", "geomedian")
"""Reducers that make new numbers; the others take one as it is, in whichever unit."""
_POWER: Final = Conversion(gain=2.0**40, shift=0.0, low=0, high=2**62, nodata=-1)
"""From power to whole numbers that float64 holds exactly: five digits at -70 dB, and up to 66 dB."""


def reduce_bands(
    imagery: Imagery,
    values: Mapping[str, NDArray[Any]],
    valid: NDArray[np.bool_],
    rules: Mapping[str, Conversion],
    out: Mapping[str, NDArray[Any]],
) -> dict[str, int]:
    """Reduce all bands of a strip over time.

    Args:
        imagery: says how, and in which unit the values are.
        values: our band name -> DN (time, y, x), in the order of preference of the reducer.
        valid: bool (time, y, x), True = the value counts, in all bands.
        rules: band -> how its DN become the composite's integers.
        out: band -> integers (y, x), filled; nodata where no value is valid.

    Returns:
        Band -> number of pixels that were cut to the range of its type.
    """
    if imagery.unit == "db" and imagery.reduce in _MIXING:
        return _reduce_decibels(imagery, values, valid, rules, out)
    return _reduce(imagery.reduce, values, valid, rules, out)


def _reduce(
    name: str,
    values: Mapping[str, NDArray[Any]],
    valid: NDArray[np.bool_],
    rules: Mapping[str, Conversion],
    out: Mapping[str, NDArray[Any]],
) -> dict[str, int]:
    if name == "geomedian":
        from chipmill.imagery.geomedian import reduce_geomedian

        return reduce_geomedian(values, valid, rules, out)
    return {band: _REDUCERS[name](values[band], valid, rules[band], out[band]) for band in values}


def _reduce_decibels(
    imagery: Imagery,
    values: Mapping[str, NDArray[Any]],
    valid: NDArray[np.bool_],
    rules: Mapping[str, Conversion],
    out: Mapping[str, NDArray[Any]],
) -> dict[str, int]:
    """As :func:`reduce_bands`: decibels to power (10 ** (dB / 10)), reduce, power to decibels (10 log10)."""
    scale = imagery.out.scale
    power = {band: _power(values[band], rules[band], scale) for band in values}
    whole = {band: np.empty(valid.shape[1:], np.float64) for band in values}
    cut = _reduce(imagery.reduce, power, valid, dict.fromkeys(values, _POWER), whole)
    return {band: cut[band] + _store(whole[band], rules[band], scale, out[band]) for band in values}


def _power(values: NDArray[Any], rule: Conversion, scale: float) -> NDArray[np.float32]:
    with np.errstate(over="ignore", invalid="ignore"):  # of what is not valid anything may come out
        decibels = (values * np.float32(rule.gain) + np.float32(rule.shift)).astype(np.float32) * np.float32(
            scale
        )
        return np.asarray(np.power(np.float32(10.0), decibels / np.float32(10.0)))


def _store(whole: NDArray[np.float64], rule: Conversion, scale: float, out: NDArray[Any]) -> int:
    """Write power as the composite's integers of decibels; return how many were cut to their range."""
    empty = whole == _POWER.nodata
    with np.errstate(divide="ignore", invalid="ignore"):  # no power at all is the lowest number
        numbers = 10.0 * np.log10(np.where(empty, 1.0, whole) / _POWER.gain) / scale
    return kernels.store(numbers, empty, rule, out)
