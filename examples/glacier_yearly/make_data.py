"""Simulate yearly optical composites of a mountain, its terrain and its glaciers: run it once before the region."""

import sys
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from examples.archive import Place, write_tif

SIDE: Final = 192
PLACE: Final = Place(32606, 499_200.0, 6_800_640.0, 30.0)
"""Alaska, on the grid of Landsat."""
YEARS: Final = (2000, 2001, 2002)
NODATA: Final = -9999
GAP: Final = np.s_[10:20, 100:150]
"""Never clear in any year: no data."""
OTHER, ICE, DEBRIS = 0, 1, 2
LEVEL: Final = {
    # reflectance x 10,000 of rock, ice and debris-covered ice
    "blue": (900, 7000, 1100),
    "green": (1100, 7200, 1200),
    "red": (0, 7100, 1300),  # 0 is a legal reflectance, not "no data"
    "nir": (2300, 5200, 1500),
    "swir16": (2500, 400, 1400),
}


def make(folder: Path) -> None:
    """Write ``data/composites/<year>/<band>.tif``, ``data/terrain`` and ``data/glaciers.tif`` below a folder."""
    data = folder / "data"
    for year in YEARS:
        for band, pixels in composite(year).items():
            write_tif(data / "composites" / str(year) / f"{band}.tif", pixels, PLACE, NODATA)
    # what must not be taken for a year: the pattern has just a year there
    write_tif(data / "composites" / "2001_draft" / "blue.tif", composite(2002)["blue"], PLACE, NODATA)
    height, steepness = terrain()
    write_tif(data / "terrain" / "elevation.tif", height, PLACE)
    write_tif(data / "terrain" / "slope.tif", steepness, PLACE)
    write_tif(data / "glaciers.tif", glaciers(2001), PLACE)


def terrain() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return elevation in metres and slope in degrees `(y, x)`."""
    rows, columns = np.indices((SIDE, SIDE)).astype(np.float64)
    height = 400.0 + 8.0 * columns + 300.0 * np.sin(rows / 25.0)
    down, across = np.gradient(height, PLACE.resolution)
    slope = np.degrees(np.arctan(np.hypot(down, across)))
    return height.astype(np.float32), slope.astype(np.float32)


def glaciers(year: int) -> NDArray[np.uint8]:
    """Return OTHER, ICE or DEBRIS `(y, x)`: tongues that end three pixels higher each year, debris at their ends."""
    height, _ = terrain()
    rows, columns = np.indices(height.shape)
    tongue = (rows % 64 > 10) & (rows % 64 < 50)
    end = 90 + 3 * (year - YEARS[0]) + rows // 8
    kinds = np.where(tongue & (columns > end), ICE, OTHER)
    kinds[tongue & (columns > end) & (columns <= end + 12)] = DEBRIS
    return kinds.astype(np.uint8)


def composite(year: int) -> dict[str, NDArray[np.int16]]:
    """Return the bands of a year as reflectance x 10,000 `(y, x)`, NODATA where nothing was ever seen."""
    kinds = glaciers(year)
    rows, columns = np.indices(kinds.shape)
    found = {}
    for band, levels in LEVEL.items():
        pixels = np.array(levels)[kinds] + (3 * rows + 7 * columns) % 40 * (kinds > OTHER) + (year - 2000)
        pixels[GAP] = NODATA
        found[band] = pixels.astype(np.int16)
    return found


if __name__ == "__main__":
    make(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
