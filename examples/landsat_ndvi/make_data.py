"""Simulate a year of Landsat 5 and 7 (Collection 2, Level 2) over irrigated fields: run it once before the region."""

import sys
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from examples.archive import Archive, Asset, Place, write_tif

SIDE: Final = 192
PLACE: Final = Place(32718, 721_920.0, 8_167_680.0, 30.0)
"""Camana, Peru; a multiple of the pixel, as Landsat's grids are."""
FILL, CLEAR, WATER, CLOUD, SHADOW, DILATED = 1, 21824, 21952, 22280, 23888, 21826
"""Values of QA_PIXEL that the Science Product Guide lists."""
DECLARED: Final = {"raster:bands": [{"scale": 2.75e-05, "offset": -0.2, "nodata": 0}]}
SCENES: Final = (
    # platform and day, first row under cloud (of ten rows), cloud of the whole scene in per cent, says its scale
    ("landsat-5", "2004-12-31", None, 0, True),
    ("landsat-5", "2005-01-16", 0, 12, True),
    ("landsat-7", "2005-03-05", 60, 15, False),
    ("landsat-5", "2005-04-22", 100, 18, True),
    ("landsat-7", "2005-06-09", None, 2, False),
    ("landsat-5", "2005-08-28", 20, 31, True),
    ("landsat-5", "2005-11-16", None, 95, True),
    ("landsat-7", "2005-12-31", 150, 9, False),
    ("landsat-5", "2006-01-01", None, 0, True),
)
LEVEL: Final = {
    # reflectance of bare soil, cropland and water, each in its season
    "blue": (0.10, 0.04, 0.03),
    "green": (0.15, 0.08, 0.03),
    "red": (0.20, 0.05, 0.02),
    "nir08": (0.28, 0.45, 0.01),
}


def make(folder: Path) -> None:
    """Write ``data/landsat`` and ``data/landcover.tif`` below a folder."""
    kinds = fields()
    write_tif(folder / "data" / "landcover.tif", np.array([20, 10, 60], np.uint8)[kinds], PLACE, 0)
    archive = Archive(folder / "data" / "landsat", "landsat-c2l2-sr")
    for number, (platform, day, cloud_row, cloud_pct, declared) in enumerate(SCENES):
        quality = _quality(kinds, cloud_row, striped=platform == "landsat-7")
        bands = _bands(kinds, quality, number, declared=declared)
        name = f"{'LT05' if platform == 'landsat-5' else 'LE07'}_L2SP_004071_{day.replace('-', '')}_02_T1"
        properties = {"platform": platform, "eo:cloud_cover": cloud_pct,
                      "landsat:collection_number": "02", "landsat:correction": "L2SP"}  # fmt: skip
        archive.add(
            name, f"{day}T14:50:00Z", PLACE, {**bands, "qa_pixel": Asset(quality, FILL)}, **properties
        )
    archive.write()


def fields() -> NDArray[np.int64]:
    """Return `(y, x)`: 0 bare soil, 1 cropland, 2 water; a valley that no mirroring or turning maps onto itself."""
    rows, columns = np.indices((SIDE, SIDE))
    valley = np.abs(rows - 0.6 * columns - 30) < 40
    kinds = np.where(valley & ((rows // 16 + columns // 24) % 3 > 0), 1, 0)
    kinds[np.abs(rows - 0.6 * columns - 30) < 3] = 2
    return kinds


def _quality(kinds: NDArray[np.int64], cloud_row: int | None, *, striped: bool) -> NDArray[np.uint16]:
    """Return QA_PIXEL: a cloud with its margin and shadow, water by its own bit, and the gaps of Landsat 7."""
    quality = np.where(kinds == 2, WATER, CLEAR).astype(np.uint16)
    if cloud_row is not None:
        quality[cloud_row : cloud_row + 30, 20:150] = CLOUD
        quality[cloud_row + 30 : cloud_row + 33, 20:150] = DILATED
        quality[cloud_row + 33 : cloud_row + 50, 40:170] = SHADOW
    if striped:
        rows, columns = np.indices(quality.shape)
        quality[(rows + columns // 8) % 40 < 6] = FILL
    return quality


def _bands(
    kinds: NDArray[np.int64], quality: NDArray[np.uint16], number: int, *, declared: bool
) -> dict[str, Asset]:
    """Return DN of four bands (reflectance = DN x 2.75e-5 - 0.2), white under cloud, dark in shadow, 0 in gaps."""
    rows, columns = np.indices(kinds.shape)
    texture = 0.0004 * ((5 * rows + 3 * columns) % 23) + 0.003 * number
    found = {}
    for key, levels in LEVEL.items():
        reflectance = np.array(levels)[kinds] + texture
        reflectance[np.isin(quality, (CLOUD, DILATED))] = 0.9
        reflectance[quality == SHADOW] *= 0.2
        dn = np.rint((reflectance + 0.2) / 2.75e-5).astype(np.uint16)
        dn[quality == FILL] = 0
        found[key] = Asset(dn, 0, DECLARED if declared else {})
    return found


if __name__ == "__main__":
    make(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
