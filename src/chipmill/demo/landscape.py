"""The ground of the embedded world: terrain, rivers, roads, towns, fields, forests, rock.

`make_landscape` decides which cover each pixel has; how a cover looks is in `signatures`, what a satellite sees of
it in `scenes`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from chipmill.demo.noise import (
    Floats,
    Ids,
    fractal_field,
    hash_ids,
    hash_uniform,
    named_rng,
    nearest_cells,
    rank_field,
)
from chipmill.demo.signatures import COVER_INDEX, COVERS, cover_code

type Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Terrain:
    """Shape of the ground; all arrays `(y, x)` float32."""

    elevation: Floats  # metres
    height: Floats  # rank of the elevation, 0 lowest .. 1 highest
    valley: Floats  # distance to the bottom of the valley in pixels
    slope_y: Floats  # rise towards the south, metres per metre
    slope_x: Floats  # rise towards the east


@dataclass(frozen=True, slots=True)
class Landscape:
    """What lies where; all arrays `(y, x)`."""

    terrain: Terrain
    code: NDArray[np.uint16]  # cover, phase and variant, see signatures.cover_code
    brightness: Floats  # factor on all bands, one per field, smooth elsewhere
    landcover: NDArray[np.uint8]  # class values; 0 = nobody labelled it


@dataclass(frozen=True, slots=True)
class Parcels:
    """The pattern of fields and blocks; all arrays `(y, x)`."""

    field: Ids
    block: Ids
    border: Ids  # the pair of blocks that meet nearest
    border_px: Floats  # distance to that border


def make_terrain(shape: tuple[int, int], seed: int, pixel_m: float) -> Terrain:
    """Build hills around meandering valleys; lowlands are flat, heights are rough."""
    course = fractal_field(shape, named_rng(seed, "valley"), outer_px=420, roughness=3.2)
    hills = fractal_field(shape, named_rng(seed, "hills"), outer_px=380, roughness=3.0)
    rough = fractal_field(shape, named_rng(seed, "rough"), outer_px=90, roughness=2.9)
    # |course| is 0 along curves: they become valley floors, and the rivers follow them
    height = rank_field(np.abs(course) + 0.55 * hills + 0.08 * rough)
    elevation = 240 + 700 * height**2 + 22 * height * rough
    dy, dx = np.gradient(course)
    valley = np.abs(course) / np.maximum(np.hypot(dy, dx), 1e-4)
    slope_y, slope_x = np.gradient(elevation / pixel_m)
    parts = (elevation, height, valley, slope_y, slope_x)
    return Terrain(*(np.asarray(part, dtype=np.float32) for part in parts))


def make_parcels(shape: tuple[int, int], seed: int) -> Parcels:
    """Cut the plane into blocks, each block into rows of strip fields with a direction of its own."""
    y, x = np.meshgrid(*(np.arange(n, dtype=np.float32) for n in shape), indexing="ij")
    y = y + 2.5 * fractal_field(shape, named_rng(seed, "bend", 0), outer_px=60, roughness=2.6)
    x = x + 2.5 * fractal_field(shape, named_rng(seed, "bend", 1), outer_px=60, roughness=2.6)
    block, border, border_px = nearest_cells(y, x, spacing_px=76, seed=seed)
    angle = hash_uniform(block, 11) * np.float32(np.pi)
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    length, width = 26 + 30 * hash_uniform(block, 12), 9 + 12 * hash_uniform(block, 13)
    row = np.floor(along / length).astype(np.int64)
    strip = np.floor(across / width + hash_uniform(hash_ids(block, row), 14)).astype(np.int64)
    return Parcels(hash_ids(block, row, strip), block, border, border_px)


def _paint_wild(terrain: Terrain, seed: int) -> NDArray[np.uint8]:
    """Rock on the heights, pasture below it, forest on the slopes; the rest is farmland (meadow for now)."""
    shape = terrain.height.shape
    patch = fractal_field(shape, named_rng(seed, "forest"), outer_px=110, roughness=2.5)
    ragged = terrain.height + 0.04 * fractal_field(shape, named_rng(seed, "ragged"), 50, 1.9)
    steep = np.hypot(terrain.slope_y, terrain.slope_x)
    cover = np.full(shape, COVER_INDEX["meadow"], np.uint8)
    forest = 0.6 * patch + 1.0 * np.minimum(steep, 0.5) + 1.9 * terrain.height > 1.6
    conifer = ragged + 0.10 * fractal_field(shape, named_rng(seed, "conifer"), 70, 2.0) > 0.66
    cover[forest] = COVER_INDEX["broadleaf"]
    cover[forest & conifer] = COVER_INDEX["conifer"]
    cover[ragged > 0.84] = COVER_INDEX["pasture"]
    cover[ragged > 0.91] = COVER_INDEX["rock"]
    return cover


def _paint_fields(
    cover: NDArray[np.uint8], terrain: Terrain, parcels: Parcels, seed: int
) -> NDArray[np.uint8]:
    """Give each field of the farmland a crop or leave it meadow; some are woods, some gravel pits."""
    draw, kind = hash_uniform(parcels.field, 21), hash_uniform(parcels.field, 22)
    fertile = fractal_field(cover.shape, named_rng(seed, "fertile"), outer_px=160, roughness=2.4)
    crop_share = np.clip(0.85 - 0.55 * terrain.height + 0.15 * fertile, 0.05, 0.9)
    crops = np.array([COVER_INDEX[n] for n in ("wheat", "maize", "rape")], np.uint8)
    chosen = crops[np.searchsorted(np.array([0.45, 0.8]), kind)]
    chosen = np.where(draw < crop_share, chosen, np.uint8(COVER_INDEX["meadow"]))
    chosen = np.where(draw > 0.95, np.uint8(COVER_INDEX["broadleaf"]), chosen)
    chosen = np.where((draw > 0.925) & (draw <= 0.95), np.uint8(COVER_INDEX["gravel"]), chosen)
    farmland = cover == COVER_INDEX["meadow"]
    return np.where(farmland, chosen, cover).astype(np.uint8)


def _paint_towns(cover: NDArray[np.uint8], terrain: Terrain, parcels: Parcels, seed: int) -> None:
    """Build towns in the lowlands, with parks and gardens between the houses; changes `cover`."""
    spots = fractal_field(cover.shape, named_rng(seed, "towns"), outer_px=120, roughness=2.6)
    town = rank_field(spots - 1.2 * np.maximum(terrain.height - 0.45, 0) * 4) > 0.90
    draw = hash_uniform(parcels.field, 31)
    cover[town & (draw < 0.74)] = COVER_INDEX["built"]
    cover[town & (draw >= 0.74) & (draw < 0.9)] = COVER_INDEX["meadow"]
    cover[town & (draw >= 0.9)] = COVER_INDEX["broadleaf"]


def _paint_lines(cover: NDArray[np.uint8], terrain: Terrain, parcels: Parcels, seed: int) -> None:
    """Draw lakes, rivers with gravel banks, hedges and roads, thin ones last; changes `cover`."""
    shape, low = cover.shape, terrain.height < 0.62
    wide = 1.8 + 1.2 * np.clip(fractal_field(shape, named_rng(seed, "river"), 150, 2.4), -1, 1.5)
    lake = fractal_field(shape, named_rng(seed, "lakes"), outer_px=90, roughness=2.8)
    cover[low & (terrain.valley < wide + 1.2) & (lake < -0.3)] = COVER_INDEX["gravel"]
    wet = (
        rank_field(lake - 0.05 * np.minimum(terrain.valley, 60) - 3 * np.maximum(terrain.height - 0.3, 0))
        > 0.955
    )
    cover[(low & (terrain.valley < wide)) | wet] = COVER_INDEX["water"]
    use = hash_uniform(parcels.border, 41)
    farmed = np.isin(cover, [COVER_INDEX[n] for n in ("wheat", "maize", "rape", "meadow")])
    cover[farmed & (parcels.border_px < 1.1) & (use > 0.72)] = COVER_INDEX["broadleaf"]
    line = fractal_field(shape, named_rng(seed, "highway"), outer_px=300, roughness=3.4)
    dy, dx = np.gradient(line)
    highway = np.abs(line) / np.maximum(np.hypot(dy, dx), 1e-4) < 1.3
    road = (parcels.border_px < 0.8) & (use < 0.42)
    dry = cover != COVER_INDEX["water"]
    cover[(terrain.height < 0.7) & (highway | (road & dry & low))] = COVER_INDEX["built"]


def _unlabelled(shape: tuple[int, int], seed: int) -> Mask:
    """Return the part that nobody labelled: one round patch of about 1.5 % of the region, near a corner."""
    y, x = np.ogrid[0.0 : 1.0 : shape[0] * 1j, 0.0 : 1.0 : shape[1] * 1j]
    edge = 0.006 * fractal_field(shape, named_rng(seed, "unlabelled"), outer_px=80, roughness=2.6)
    distance = np.hypot(y - 0.84, x - 0.15) + edge
    return np.asarray(distance < 0.07)


def make_landscape(shape: tuple[int, int], seed: int, pixel_m: float = 10.0) -> Landscape:
    """Build the ground of `shape` `(rows, columns)`; equal arguments give equal arrays.

    The sizes of fields and hills are in pixels, so a larger region holds more of them.
    """
    terrain, parcels = make_terrain(shape, seed, pixel_m), make_parcels(shape, seed)
    cover = _paint_fields(_paint_wild(terrain, seed), terrain, parcels, seed)
    _paint_towns(cover, terrain, parcels, seed)
    _paint_lines(cover, terrain, parcels, seed)
    tended = np.isin(cover, [COVER_INDEX[n] for n in ("built", "wheat", "maize", "rape", "meadow", "gravel")])
    phase, variant, light = (_attribute(parcels, tended, seed, k) for k in range(3))
    values = np.array([c.value for c in COVERS], np.uint8)
    landcover = values[cover]
    landcover[_unlabelled(shape, seed)] = 0
    return Landscape(terrain, cover_code(cover, phase, variant), 0.82 + 0.36 * light, landcover)


def _attribute(parcels: Parcels, tended: Mask, seed: int, index: int) -> Floats:
    """Return a number in 0..1 that is constant on a field and smooth where no one farms."""
    smooth = rank_field(fractal_field(tended.shape, named_rng(seed, "attribute", index), 60, 2.0))
    return np.where(tended, hash_uniform(parcels.field, 50 + index), smooth).astype(np.float32)
