"""Simulate an aerial picture of fields and polygons of what grows on them: run it once before the region."""

import sys
from pathlib import Path
from typing import Final

import numpy as np
import pyogrio.raw
import shapely
from numpy.typing import NDArray

from examples.archive import Archive, Asset, Place

SIDE: Final = 384
PLACE: Final = Place(32630, 600_000.0, 5_700_000.0, 1.0)
FIELD: Final = 48
"""Side of a field in pixels."""
CROPS: Final = ("wheat", "rape", "pasture")


def make(folder: Path) -> None:
    """Write ``data/aerial`` and ``data/fields.fgb`` below a folder."""
    kinds = crops()
    rows, columns = np.indices(kinds.shape)
    archive = Archive(folder / "data" / "aerial", "aerial")
    levels = {"red": (120, 200, 60), "green": (110, 190, 140), "blue": (60, 40, 50)}
    bands = {
        key: Asset((np.array((90, *level))[kinds] + (3 * rows + 5 * columns) % 17).astype(np.uint8))
        for key, level in levels.items()
    }
    archive.add("flight_20200612", "2020-06-12T11:00:00Z", PLACE, bands)
    archive.write()
    shapes, names = zip(*_fields(), strict=True)
    pyogrio.raw.write(
        folder / "data" / "fields.fgb", np.array([one.wkb for one in shapes], object), [np.array(names)],
        ["crop"], crs=f"EPSG:{PLACE.epsg}", geometry_type="Polygon",
    )  # fmt: skip


def crops() -> NDArray[np.int64]:
    """Return `(y, x)`: 0 no field, else 1 + the number of the crop; each field has a margin of four pixels."""
    rows, columns = np.indices((SIDE, SIDE))
    inside = (rows % FIELD >= 4) & (columns % FIELD >= 4)
    return np.where(inside, 1 + _crop(rows // FIELD, columns // FIELD), 0)


def _crop(row: NDArray[np.int64], column: NDArray[np.int64]) -> NDArray[np.int64]:
    return (2 * row + column + (row * column) % 2) % len(CROPS)


def _fields() -> list[tuple[shapely.Polygon, str]]:
    found = []
    for row, column in np.ndindex(SIDE // FIELD, SIDE // FIELD):
        left, top = PLACE.transform @ (column * FIELD + 4, row * FIELD + 4)
        right, bottom = PLACE.transform @ ((column + 1) * FIELD, (row + 1) * FIELD)
        crop = CROPS[int(_crop(np.int64(row), np.int64(column)))]
        found.append((shapely.box(left, bottom, right, top), crop))
    return found


if __name__ == "__main__":
    make(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
