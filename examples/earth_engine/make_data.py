"""Simulate two Landsat scenes, a land cover and points for training, validation and test: run it once before the region."""

import sys
from pathlib import Path
from typing import Final

import numpy as np
import pyogrio.raw
import shapely
from numpy.typing import NDArray

from examples.archive import Archive, Asset, Place, write_tif

SHAPE: Final = (640, 960)
"""`(y, x)`."""
PLACE: Final = Place(32718, 700_020.0, 8_190_000.0, 30.0)
CLEAR, CLOUD, FILL = 21824, 22280, 1
"""Values of QA_PIXEL."""
DAYS: Final = ("2016-02-11", "2016-07-04")
CLOUDY: Final = (np.s_[100:300, 50:400], np.s_[350:500, 500:900])
"""Rows and columns under cloud in each scene; what one hides the other shows."""
POINTS: Final = (
    # name, split, column and row of its pixel
    ("a-01", "training", 160, 170),
    ("a-02", "training", 200, 440),
    ("a-03", "training", 240, 300),
    ("b-01", "testing", 800, 180),
    ("b-02", "testing", 780, 460),
    ("c-01", "validation", 500, 500),
    ("c-02", "training", 520, 420),
    ("d-01", "training", 40, 40),
)
"""``c-02`` lies in the neighbourhood of a validation point, and ``d-01`` reaches beyond the scenes."""


def make(folder: Path) -> None:
    """Write ``data/landsat``, ``data/landcover.tif`` and ``data/points.fgb`` below a folder."""
    kinds = fields()
    write_tif(folder / "data" / "landcover.tif", np.array([20, 10], np.uint8)[kinds], PLACE, 0)
    archive = Archive(folder / "data" / "landsat", "landsat-c2l2-sr")
    for day, cloud in zip(DAYS, CLOUDY, strict=True):
        quality = np.full(SHAPE, CLEAR, np.uint16)
        quality[cloud] = CLOUD
        assets = {key: Asset(dn(key, kinds, quality), 0) for key in ("red", "nir08")}
        name = f"LC08_L2SP_004071_{day.replace('-', '')}_02_T1"
        properties = {
            "platform": "landsat-8",
            "landsat:collection_number": "02",
            "landsat:correction": "L2SP",
        }
        archive.add(
            name, f"{day}T14:50:00Z", PLACE, {**assets, "qa_pixel": Asset(quality, FILL)}, **properties
        )
    archive.write()
    names, splits, columns, rows = zip(*POINTS, strict=True)
    centres = [
        shapely.Point(*(PLACE.transform @ (x + 0.5, y + 0.5))) for x, y in zip(columns, rows, strict=True)
    ]
    pyogrio.raw.write(
        folder / "data" / "points.fgb", np.array([one.wkb for one in centres], object),
        [np.array(names), np.array(splits)], ["name", "use"], crs=f"EPSG:{PLACE.epsg}", geometry_type="Point",
    )  # fmt: skip


def fields() -> NDArray[np.int64]:
    """Return `(y, x)`: 0 bare soil, 1 cropland; no mirroring or turning maps it onto itself."""
    rows, columns = np.indices(SHAPE)
    return ((rows // 24 + columns // 40) % 3 == 1).astype(np.int64)


def dn(key: str, kinds: NDArray[np.int64], quality: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """Return the DN of a band `(y, x)`: reflectance is DN x 2.75e-5 - 0.2; clouds are white."""
    rows, columns = np.indices(SHAPE)
    level = {"red": (0.20, 0.05), "nir08": (0.28, 0.45)}[key]
    reflectance = np.array(level)[kinds] + 0.0004 * ((5 * rows + 3 * columns) % 23)
    reflectance[quality == CLOUD] = 0.9
    return np.rint((reflectance + 0.2) / 2.75e-5).astype(np.uint16)


if __name__ == "__main__":
    make(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
