"""Land cover of the embedded world: classes, the covers they consist of, and their reflectance through the year.

A class is what the labels say; a cover is what grows or stands there, e.g. class crop is wheat or maize. To make a
class easier or harder to tell from the others, change its covers here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from chipmill.demo.noise import Floats, named_rng

BANDS = ("blue", "green", "red", "nir", "swir16")
CLASSES = {10: "water", 20: "built", 30: "crop", 40: "grass", 50: "tree", 60: "bare"}
COLORS = {
    0: (0, 0, 0),
    10: (0, 100, 200),
    20: (250, 0, 0),
    30: (240, 150, 255),
    40: (255, 255, 76),
    50: (0, 100, 0),
    60: (180, 180, 180),
}
PHASES = 8  # steps of how early or late a parcel is in the season
VARIANTS = 8  # steps of soil, roof or species within one cover


@dataclass(frozen=True, slots=True)
class Cover:
    """One kind of surface: reflectance with full leaves and without, per band in the order of BANDS."""

    name: str
    value: int  # class value in the labels
    green: tuple[float, float, float, float, float]
    dormant: tuple[float, float, float, float, float]
    seasons: tuple[tuple[float, float], ...]  # (start, end) of the green time, day of year
    spread_days: float  # how much later the latest parcel is than the earliest
    texture: float  # standard deviation of the fixed variation from pixel to pixel, relative


COVERS = (
    Cover(
        "water", 10, (0.055, 0.06, 0.045, 0.04, 0.025), (0.05, 0.05, 0.04, 0.03, 0.02), ((120, 270),), 20, 0.2
    ),
    Cover(
        "built", 20, (0.10, 0.125, 0.14, 0.23, 0.23), (0.10, 0.12, 0.14, 0.20, 0.23), ((110, 290),), 20, 0.42
    ),
    Cover(
        "wheat", 30, (0.035, 0.065, 0.05, 0.37, 0.18), (0.09, 0.12, 0.15, 0.24, 0.29), ((75, 185),), 40, 0.22
    ),
    Cover(
        "maize", 30, (0.035, 0.07, 0.05, 0.38, 0.20), (0.08, 0.105, 0.14, 0.22, 0.27), ((160, 262),), 40, 0.22
    ),
    Cover(
        "rape",
        30,
        (0.05, 0.10, 0.08, 0.38, 0.20),
        (0.08, 0.11, 0.14, 0.23, 0.28),
        ((65, 170), (250, 330)),
        30,
        0.22,
    ),
    Cover(
        "meadow",
        40,
        (0.04, 0.08, 0.06, 0.34, 0.21),
        (0.06, 0.09, 0.10, 0.24, 0.26),
        ((80, 175), (190, 310)),
        45,
        0.25,
    ),
    Cover(
        "pasture",
        40,
        (0.05, 0.08, 0.075, 0.29, 0.23),
        (0.07, 0.095, 0.11, 0.23, 0.27),
        ((120, 285),),
        35,
        0.28,
    ),
    Cover(
        "broadleaf",
        50,
        (0.028, 0.05, 0.035, 0.33, 0.16),
        (0.05, 0.065, 0.075, 0.20, 0.20),
        ((105, 300),),
        25,
        0.35,
    ),
    Cover(
        "conifer",
        50,
        (0.025, 0.042, 0.03, 0.24, 0.115),
        (0.025, 0.04, 0.032, 0.21, 0.11),
        ((120, 270),),
        25,
        0.35,
    ),
    Cover(
        "rock", 60, (0.12, 0.145, 0.165, 0.22, 0.26), (0.12, 0.14, 0.165, 0.21, 0.26), ((150, 260),), 25, 0.30
    ),
    Cover(
        "gravel", 60, (0.11, 0.14, 0.16, 0.23, 0.29), (0.11, 0.14, 0.16, 0.22, 0.29), ((130, 270),), 25, 0.26
    ),
)
COVER_INDEX = {cover.name: index for index, cover in enumerate(COVERS)}


def greenness(cover: Cover, day: float) -> Floats:
    """Return how green `cover` is on day of year `day`, one float32 in 0..1 per phase, early parcels first."""
    late = (np.arange(PHASES, dtype=np.float32) / (PHASES - 1) - 0.5) * cover.spread_days
    shares = [
        1 / (1 + np.exp(-(day - start - late) / 7)) / (1 + np.exp((day - end - late) / 7))
        for start, end in cover.seasons
    ]
    return np.max(np.stack(shares), axis=0).astype(np.float32)


def reflectance_table(day: float, seed: int) -> Floats:
    """Return the mean reflectance on day of year `day`, float32 `(band, code)`, see `cover_code`."""
    table = np.empty((len(BANDS), len(COVERS), PHASES, VARIANTS), np.float32)
    for index, cover in enumerate(COVERS):
        share = greenness(cover, day)[:, None]
        mean = share * np.array(cover.green, np.float32) + (1 - share) * np.array(cover.dormant, np.float32)
        tint = named_rng(seed, "tint", cover.name).standard_normal((VARIANTS, len(BANDS)), dtype=np.float32)
        table[:, index] = np.einsum("pb,vb->bpv", mean, np.exp(0.12 * tint))
    return table.reshape(len(BANDS), -1)


def cover_code(cover: np.ndarray, phase: Floats, variant: Floats) -> np.ndarray:
    """Pack cover index, phase and variant (both float32 in 0..1) into one uint16 code per pixel."""
    step = np.minimum(phase * PHASES, PHASES - 1).astype(np.uint16)
    kind = np.minimum(variant * VARIANTS, VARIANTS - 1).astype(np.uint16)
    return (cover.astype(np.uint16) * PHASES + step) * VARIANTS + kind


def per_code(values: tuple[float, ...]) -> Floats:
    """Spread one value per cover over all codes of that cover, float32 `(code,)`."""
    return np.repeat(np.array(values, np.float32), PHASES * VARIANTS)
