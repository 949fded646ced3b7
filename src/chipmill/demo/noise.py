"""Random numbers of the embedded world: fractal fields, jittered cells and hashes, all fixed by a seed and a name.

Every draw is named, so that adding one never changes the others, and threads may run in any order.
"""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

type Floats = NDArray[np.float32]
type Ids = NDArray[np.uint64]


def named_rng(seed: int, *names: str | int) -> np.random.Generator:
    """Return the generator that belongs to `names` under `seed`; equal arguments give equal draws."""
    words = [zlib.crc32(str(name).encode()) for name in names]
    return np.random.Generator(np.random.SFC64([seed, *words]))


def fractal_field(
    shape: tuple[int, int], rng: np.random.Generator, outer_px: float, roughness: float
) -> Floats:
    """Return a periodic random field `(y, x)`, float32, mean 0 and standard deviation 1.

    `outer_px` is the size of the largest structures; `roughness` is the slope of the amplitude spectrum,
    `(f^2 + outer_px^-2)^(-roughness / 2)`: 1 is rugged, 3 is smooth (spectral synthesis, Peitgen & Saupe 1988).
    """
    from scipy import fft

    white = rng.standard_normal(shape, dtype=np.float32)
    spectrum = fft.rfft2(white, overwrite_x=True)
    fy = np.fft.fftfreq(shape[0]).astype(np.float32)[:, None]
    fx = np.fft.rfftfreq(shape[1]).astype(np.float32)[None, :]
    amplitude = (fy * fy + fx * fx + np.float32(outer_px**-2.0)) ** np.float32(-roughness / 2)
    amplitude[0, 0] = 0.0
    spectrum *= amplitude
    field: Floats = fft.irfft2(spectrum, s=shape, overwrite_x=True).astype(np.float32, copy=False)
    field /= field.std(dtype=np.float64)
    return field


def rank_field(field: Floats) -> Floats:
    """Return `field` as the share of pixels below each value, float32 in 0..1, so that thresholds are areas."""
    # the quantiles of a sample are exact enough for a landscape and spare the sort of a large region
    knots = np.quantile(field[::4, ::4], np.linspace(0, 1, 257)).astype(np.float32)
    return np.interp(field, knots, np.linspace(0, 1, 257)).astype(np.float32)


def hash_ids(*parts: Ids | NDArray[np.int64] | int) -> Ids:
    """Mix integers, scalars or arrays of one shape, into one uint64 each (splitmix64 rounds)."""
    mixed: Ids = np.asarray(np.uint64(0x9E3779B97F4A7C15))
    with np.errstate(over="ignore"):  # wrapping is the point
        for part in parts:
            mixed = mixed ^ np.asarray(part).astype(np.uint64)
            mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            mixed = mixed ^ (mixed >> np.uint64(31))
    return mixed


def hash_uniform(ids: Ids, salt: int) -> Floats:
    """Return one float32 in [0, 1) per id; another `salt` gives independent numbers."""
    return ((hash_ids(ids, salt) >> np.uint64(40)).astype(np.float32)) * np.float32(2.0**-24)


def nearest_cells(y: Floats, x: Floats, spacing_px: float, seed: int) -> tuple[Ids, Ids, Floats]:
    """Find for each position the two nearest points of a jittered lattice (a Worley cell pattern).

    Returns the id of the nearest point, the id of the pair (the same seen from both sides) and the distance to
    the border between both in pixels, each with the shape of `y` and `x`.
    """
    row, col = np.floor(y / spacing_px).astype(np.int64), np.floor(x / spacing_px).astype(np.int64)
    first: Floats = np.full(y.shape, np.inf, np.float32)
    second = first.copy()
    first_id, second_id = np.zeros(y.shape, np.uint64), np.zeros(y.shape, np.uint64)
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            ids = hash_ids(row + dy, col + dx, seed)
            py = (row + dy + 0.15 + 0.7 * hash_uniform(ids, 1)) * spacing_px - y
            px = (col + dx + 0.15 + 0.7 * hash_uniform(ids, 2)) * spacing_px - x
            distance = np.hypot(py, px).astype(np.float32)
            nearer, between = distance < first, (distance >= first) & (distance < second)
            second = np.where(nearer, first, np.where(between, distance, second))
            second_id = np.where(nearer, first_id, np.where(between, ids, second_id))
            first = np.where(nearer, distance, first)
            first_id = np.where(nearer, ids, first_id)
    pair: Ids = np.bitwise_xor(first_id, second_id)
    return first_id, pair, ((second - first) / 2).astype(np.float32)
