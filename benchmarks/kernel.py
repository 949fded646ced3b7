"""The masked median over dates on one core, against memcpy and what numpy, xarray and bottleneck have for it.

3 and 12 dates of 2048 x 512 px, uint16, a third of the values masked in patches as clouds are. Rates are MB/s of the values
that go in. The peers have no masks: they are given floats with NaN, made before the clock starts. Everything is timed
in turn, several times, and the fastest counts, so that what else the machine does hits all alike.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.figure import Figure
from chipmill.imagery.kernels import conversion, reduce_median

SHAPE: Final = (512, 2048)
GOALS: Final = {3: 0.14, 12: 0.08}
"""Dates -> least share of the rate of memcpy."""
_RULE: Final = conversion(1e-4, 0.0, 1e-4, "int16", -32768)


def run(quick: bool) -> list[Figure]:
    """Return the figures; ``quick`` measures fewer times."""
    return [figure for dates in GOALS for figure in _figures(dates, times=3 if quick else 15)]


def interleaved(
    calls: Mapping[str, Callable[[], object]], times: int, clock: Callable[[], float] = perf_counter
) -> dict[str, float]:
    """Return the fewest seconds of each call; all are made in turn, `times` times. Call each once before.

    ``clock`` process_time counts what one thread works, whatever else the machine does meanwhile.
    """
    best = dict.fromkeys(calls, float("inf"))
    for _ in range(times):
        for name, call in calls.items():
            start = clock()
            call()
            best[name] = min(best[name], clock() - start)
    return best


def _figures(dates: int, times: int) -> list[Figure]:
    values, valid = _stack(dates)
    out = np.empty(SHAPE, np.int16)
    copy = np.empty_like(values)
    ours: dict[str, Callable[[], object]] = {
        "memcpy": lambda: np.copyto(copy, values),
        "chipmill": lambda: reduce_median(values, valid, _RULE, out),
    }
    peers = _peers(values, valid)
    for call in (ours | peers).values():
        call()
    slow = interleaved(peers, max(1, times // 5))
    fast = interleaved(ours, times)
    rates = {name: values.nbytes / 1e6 / seconds for name, seconds in (fast | slow).items()}
    share = rates["chipmill"] / rates["memcpy"]
    context: dict[str, object] = {
        "dates": dates,
        "shape": list(SHAPE),
        "dtype": values.dtype.name,
        "valid_share": round(float(valid.mean()), 3),
        "mb_per_s": {name: round(rate, 1) for name, rate in rates.items()},
    }
    goal = GOALS[dates]
    best = max((name for name in slow), key=rates.__getitem__)
    return [
        Figure(f"kernel {dates} dates", rates["chipmill"], "MB/s", context=context),
        Figure(f"kernel {dates} dates / memcpy", share, "x", f">= {goal}", share >= goal, context),
        Figure(f"kernel {dates} dates / {best}", rates["chipmill"] / rates[best], "x", context=context),
    ]


def _stack(dates: int) -> tuple[NDArray[np.uint16], NDArray[np.bool_]]:
    rng = np.random.default_rng(dates)
    values = rng.integers(1, 6000, (dates, *SHAPE)).astype(np.uint16)
    patches = rng.random((dates, SHAPE[0] // 32, SHAPE[1] // 32)) < 2 / 3
    return values, np.repeat(np.repeat(patches, 32, axis=1), 32, axis=2)


def _peers(values: NDArray[np.uint16], valid: NDArray[np.bool_]) -> dict[str, Callable[[], object]]:
    import bottleneck
    import xarray as xr

    holes = np.where(valid, values, np.nan).astype(np.float32)
    # Time last and contiguous: bottleneck's fastest layout, made for it beforehand.
    last = np.ascontiguousarray(np.moveaxis(holes, 0, -1))
    cube = xr.DataArray(holes, dims=("time", "y", "x"))

    def quietly(function: Callable[[], Any]) -> Callable[[], object]:
        def call() -> object:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # pixels without any value
                return function()

        return call

    return {
        "numpy.nanmedian": quietly(lambda: np.nanmedian(holes, axis=0)),
        "xarray median(skipna)": quietly(lambda: cube.median("time", skipna=True)),
        "bottleneck.nanmedian": quietly(lambda: bottleneck.nanmedian(last, axis=-1)),
    }
