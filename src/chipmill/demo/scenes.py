"""What a satellite sees of the landscape: the passes of the year, sun, snow, clouds, shadows, haze and noise.

The noise is strong on purpose: one pixel alone says little about its class, its neighbourhood says much. To make the
archive harder (cloudier, noisier, more gaps), change SCHEDULE or the constants below.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from chipmill.demo.landscape import Landscape, Mask, Terrain
from chipmill.demo.noise import Floats, fractal_field, named_rng, rank_field
from chipmill.demo.signatures import BANDS, COVERS, per_code, reflectance_table

LATITUDE, LONGITUDE = 46.0, 14.5  # degrees; for which the sun is computed, a little east of the region
SPECKLE = 0.20  # standard deviation of the noise of one pass, relative
FLOOR = 0.008  # the same, reflectance
SHARED = 0.8  # how much of the fixed texture all bands have in common
CLOUD_COLOR = (0.62, 0.60, 0.60, 0.62, 0.46)
SNOW_COLOR = (0.70, 0.72, 0.70, 0.60, 0.12)
SEEN_CLOUD, SEEN_SHADOW = (
    0.12,
    0.25,
)  # opacity from which the scene classification notices; less stays in the data


@dataclass(frozen=True, slots=True)
class Pass:
    """One pass of a satellite over the region."""

    moment: datetime
    platform: str
    cloud: float  # share of the region under cloud
    snowline: float = 2.0  # rank of height above which snow lies
    swath: float = 2.0  # the swath ends at this share of the width; > 1: beyond the region
    granules: int = 1  # files it is delivered as in the eastern zone, 1 or 2; neighbours overlap


def _at(moment: str) -> datetime:
    return datetime.fromisoformat(moment).replace(tzinfo=UTC)


SCHEDULE = (
    Pass(_at("2019-01-17T10:13:51"), "sentinel-2a", 0.35, snowline=0.72),
    Pass(_at("2019-02-16T10:11:29"), "sentinel-2b", 0.02, snowline=0.80),
    Pass(_at("2019-03-23T10:10:21"), "sentinel-2a", 0.60, snowline=0.93, swath=0.62),
    Pass(_at("2019-04-07T10:10:31"), "sentinel-2b", 0.22, snowline=0.96),
    Pass(_at("2019-05-02T10:10:29"), "sentinel-2a", 0.93),
    Pass(_at("2019-05-27T10:10:31"), "sentinel-2b", 0.01),
    Pass(_at("2019-06-16T10:10:31"), "sentinel-2a", 0.45, granules=2),
    Pass(_at("2019-07-06T10:10:39"), "sentinel-2b", 0.18, swath=0.48),
    Pass(_at("2019-07-26T10:10:36"), "sentinel-2a", 0.00),
    Pass(_at("2019-08-20T10:10:31"), "sentinel-2b", 0.78),
    Pass(_at("2019-09-14T10:10:29"), "sentinel-2a", 0.40),
    Pass(_at("2019-10-09T10:08:59"), "sentinel-2b", 0.03),
    Pass(_at("2019-11-13T10:12:51"), "sentinel-2a", 0.97, snowline=0.95),
    Pass(_at("2019-12-18T10:13:09"), "sentinel-2b", 0.30, snowline=0.78),
)


@dataclass(frozen=True, slots=True)
class Sun:
    """Where the sun stands, degrees; azimuth clockwise from north."""

    elevation: float
    azimuth: float


@dataclass(frozen=True, slots=True)
class Acquisition:
    """The pixels of one pass over the whole region."""

    bands: NDArray[np.uint16]  # (band, y, x) in the order of BANDS, reflectance x 10000, 0 = nodata
    scl: NDArray[np.uint8]  # (y, x) scene classification as of Sentinel-2 level 2A, 0 = nodata


def sun_at(moment: datetime) -> Sun:
    """Return the position of the sun over the region (declination after Cooper 1969)."""
    hour = moment.hour + moment.minute / 60 + LONGITUDE / 15
    angle, latitude = np.radians(15 * (hour - 12)), np.radians(LATITUDE)
    tilt = np.radians(23.45) * np.sin(2 * np.pi * (284 + day_of_year(moment)) / 365)
    height = np.sin(latitude) * np.sin(tilt) + np.cos(latitude) * np.cos(tilt) * np.cos(angle)
    azimuth = np.arctan2(np.sin(angle), np.cos(angle) * np.sin(latitude) - np.tan(tilt) * np.cos(latitude))
    return Sun(float(np.degrees(np.arcsin(height))), float(np.degrees(azimuth)) + 180)


def day_of_year(moment: datetime) -> int:
    """Return 1 for the first of January."""
    return moment.timetuple().tm_yday


def illumination(terrain: Terrain, sun: Sun) -> Floats:
    """Return the light on each slope relative to flat ground, float32 `(y, x)`; a quarter of it is diffuse."""
    height, azimuth = np.radians(sun.elevation), np.radians(sun.azimuth)
    east, north = np.float32(np.sin(azimuth) / np.tan(height)), np.float32(np.cos(azimuth) / np.tan(height))
    steep = np.sqrt(1 + terrain.slope_x**2 + terrain.slope_y**2)
    direct = (1 - terrain.slope_x * east + terrain.slope_y * north) / steep
    light = np.float32(0.25) + np.float32(0.75) * np.clip(direct, 0.2, 1.7)
    return light.astype(np.float32, copy=False)


def cloud_opacity(shape: tuple[int, int], seed: int, scene: Pass, cloudiness: float) -> Floats:
    """Return the opacity of the clouds, float32 0..1 `(y, x)`; `cloudiness` multiplies the share of the pass."""
    share = min(scene.cloud * cloudiness, 0.97)
    if share <= 0.0:
        return np.zeros(shape, np.float32)
    field = fractal_field(shape, named_rng(seed, "cloud", scene.moment.isoformat()), 150, 2.3)
    above = rank_field(field) - np.float32(1 - share)
    opacity: Floats = np.sqrt(np.clip(above / np.float32(min(0.12, 0.5 * share)), 0, 1))
    return opacity.astype(np.float32, copy=False)


def _cast(opacity: Floats, sun: Sun) -> Floats:
    """Return the shadow that clouds about 450 m above ground throw, 10 m pixels; it wraps as the field does."""
    length_px = 45 / np.tan(np.radians(sun.elevation))
    away = np.radians(sun.azimuth + 180)
    # rows grow to the south
    return np.roll(opacity, (round(-np.cos(away) * length_px), round(np.sin(away) * length_px)), (0, 1))


def _snow(landscape: Landscape, seed: int, scene: Pass) -> Floats:
    """Return how white the ground is, 0..1; trees show through."""
    ragged = fractal_field(landscape.code.shape, named_rng(seed, "snow", scene.moment.isoformat()), 60, 2.2)
    depth = np.clip((landscape.terrain.height - scene.snowline + 0.03 * ragged) / 0.05, 0, 1)
    wooded = np.array([0.35 if c.value == 50 else 0.0 if c.value == 10 else 0.85 for c in COVERS])
    return (depth * per_code(tuple(wooded))[landscape.code]).astype(np.float32)


def _blur(field: Floats) -> Floats:
    """Mix each pixel with its neighbours (1 2 1 both ways): the footprint of a detector is wider than a pixel."""
    wide = np.pad(field, 1, mode="edge")
    rows = wide[:-2] + 2 * wide[1:-1] + wide[2:]
    mixed: Floats = (rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:]) * np.float32(1 / 16)
    return mixed


def _swath(shape: tuple[int, int], scene: Pass) -> Mask:
    """Return True where the pass saw the ground; the edge of a swath leans as the orbit does."""
    y, x = np.ogrid[0 : shape[0], 0 : shape[1]]
    return np.asarray(x + 0.5 < scene.swath * shape[1] - 0.2 * (y + 0.5 - shape[0] / 2))


@dataclass(frozen=True, slots=True)
class _View:
    """What lies between ground and sensor in one pass, the same for all bands; arrays float32 `(y, x)`."""

    light: Floats
    snow: Floats
    cloud: Floats
    shadow: Floats
    texture: Floats  # standard deviation of the fixed variation
    grain: Floats  # what of that variation all bands have in common
    seen: Mask


def render(landscape: Landscape, scene: Pass, seed: int, cloudiness: float = 1.0) -> Acquisition:
    """Return what `scene` sees of `landscape`; equal arguments give equal pixels."""
    shape, sun = landscape.code.shape, sun_at(scene.moment)
    table = reflectance_table(day_of_year(scene.moment), seed)
    cloud = cloud_opacity(shape, seed, scene, cloudiness)
    view = _View(
        light=landscape.brightness * illumination(landscape.terrain, sun),
        snow=_snow(landscape, seed, scene),
        cloud=cloud,
        shadow=_cast(cloud, sun) * (1 - cloud),
        texture=per_code(tuple(c.texture for c in COVERS))[landscape.code],
        grain=named_rng(seed, "texture").standard_normal(shape, dtype=np.float32),
        seen=_swath(shape, scene),
    )
    bands = np.empty((len(BANDS), *shape), np.uint16)
    for index, band in enumerate(BANDS):
        own = named_rng(seed, "texture", band).standard_normal(shape, dtype=np.float32)
        clean = _reflectance(table[index][landscape.code], index, view, own)
        rng = named_rng(seed, "speckle", scene.moment.isoformat(), band)
        bands[index] = np.where(view.seen, _measure(clean, rng), np.uint16(0))
    return Acquisition(bands, _classify(table, landscape.code, view))


def _reflectance(ground: Floats, index: int, view: _View, own: Floats) -> Floats:
    """Return what reaches the sensor in band `index`; `ground` is the mean of each pixel's cover."""
    lit = ground * view.light
    lit += view.snow * (np.float32(SNOW_COLOR[index]) - lit)
    grain = np.float32(SHARED) * view.grain + np.float32((1 - SHARED**2) ** 0.5) * own
    lit = _blur(lit) * np.exp(view.texture * grain) * (1 - np.float32(0.6) * view.shadow)
    white = np.float32(CLOUD_COLOR[index]) * (np.float32(0.8) + np.float32(0.3) * view.cloud)
    return lit + view.cloud * (white - lit)


def _measure(reflectance: Floats, rng: np.random.Generator) -> NDArray[np.uint16]:
    """Add the noise of the pass and return digital numbers; 1 is the smallest, as 0 means nodata."""
    speckle = rng.standard_normal(reflectance.shape, dtype=np.float32)
    noisy = reflectance + (np.float32(SPECKLE) * reflectance + np.float32(FLOOR)) * speckle
    return np.clip(np.rint(noisy * 10000), 1, 20000).astype(np.uint16)


def _classify(table: Floats, code: NDArray[np.uint16], view: _View) -> NDArray[np.uint8]:
    """Return the scene classification: 3 shadow, 4 plants, 5 bare, 6 water, 8 and 9 cloud, 10 thin, 11 snow."""
    red, nir = table[BANDS.index("red")], table[BANDS.index("nir")]
    ground = np.where((nir - red) / (nir + red) > 0.4, 4, 5).astype(np.uint8)
    ground[per_code(tuple(float(c.value == 10) for c in COVERS)) > 0] = 6
    scl = ground[code]
    scl[view.snow > 0.3] = 11
    scl[view.shadow > SEEN_SHADOW] = 3
    for opacity, value in ((SEEN_CLOUD, 10), (0.45, 8), (0.8, 9)):
        scl[view.cloud > opacity] = value
    scl[~view.seen] = 0
    return scl
