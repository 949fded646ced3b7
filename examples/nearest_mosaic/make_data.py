"""Simulate two products over one town, some days before and after a survey: run it once before the region."""

import sys
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from examples.archive import Archive, Asset, Place, write_tif

SIDE: Final = 128
PLACE: Final = Place(32633, 500_480.0, 5_100_800.0)
CLEAR, CLOUD = 4, 9
SURVEY: Final = "2020-07-01"
"""Day of the labels, the date that pixels shall be near to."""
CLOUDY_ROWS: Final = {
    # day -> first and last row under cloud
    "2020-04-20": (0, 0),  # clear, but before the first day that may be used
    "2020-05-27": (0, 0),
    "2020-06-21": (20, 70),
    "2020-07-02": (0, 50),
    "2020-07-11": (40, 128),  # as far after the survey as 06-21 lies before it
    "2020-07-26": (0, 128),  # cloud all over, although its scene says 3 %
    "2020-09-01": (0, 0),  # clear, but the day after the last one that may be used
}
SPOT: Final = ("2020-06-11", "2020-06-30", "2020-08-05")
"""Days of the second product, which has no mask; each image covers only a part."""


def make(folder: Path) -> None:
    """Write ``data/s2``, ``data/spot`` and ``data/buildings.tif`` below a folder."""
    data = folder / "data"
    rows, columns = np.indices((SIDE, SIDE))
    write_tif(data / "buildings.tif", ((rows // 12 + columns // 20) % 3 == 0).astype(np.uint8), PLACE)
    first = Archive(data / "s2", "sentinel-2-l2a")
    for number, (day, (top, bottom)) in enumerate(CLOUDY_ROWS.items()):
        mask = np.full((SIDE, SIDE), CLEAR, np.uint8)
        mask[top:bottom] = CLOUD
        bands = {"red": image(100 + number, mask == CLOUD), "nir": image(300 + number, mask == CLOUD)}
        files = {**{key: _asset(pixels) for key, pixels in bands.items()}, "scl": Asset(mask, 0)}
        cloud_pct = 3 if (top, bottom) == (0, SIDE) else 100 * (bottom - top) / SIDE
        first.add(
            f"S2_{day}",
            f"{day}T10:00:00Z",
            PLACE,
            files,
            platform="sentinel-2a",
            **{"eo:cloud_cover": cloud_pct},
        )
    first.write()
    second = Archive(data / "spot", "spot")
    for number, day in enumerate(SPOT):
        second.add(f"SPOT_{day}", f"{day}T11:00:00Z", PLACE, {"pan": _asset(part(number))}, platform="spot-7")
    second.write()


def image(level: int, cloud: NDArray[np.bool_]) -> NDArray[np.uint16]:
    """Return DN `(y, x)` that tell the day (thousands) and the pixel, and 65,000 under cloud."""
    rows, columns = np.indices(cloud.shape)
    return np.where(cloud, 65_000, 10 * level + (rows + 5 * columns) % 10).astype(np.uint16)


def part(number: int) -> NDArray[np.uint16]:
    """Return an image of the second product: the first day lacks the right half, the second the left half."""
    pixels = image(500 + number, np.zeros((SIDE, SIDE), bool))
    if number == 0:
        pixels[:, SIDE // 2 :] = 0
    if number == 1:
        pixels[:, : SIDE // 2] = 0
    return pixels


def _asset(pixels: NDArray[np.uint16]) -> Asset:
    return Asset(pixels, 0, {"raster:bands": [{"scale": 0.0001, "offset": 0.0}]})


if __name__ == "__main__":
    make(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
