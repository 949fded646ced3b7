"""Simulate outlines of glaciers of several years, a map of clean ice and tiles to train on: run it once before the region.

The mountain, its yearly composites and its heights are those of the example glacier_yearly.
"""

import sys
from pathlib import Path
from typing import Final

import numpy as np
import pyogrio.raw
import rasterio.features
import shapely
from numpy.typing import NDArray

from examples.archive import write_tif
from examples.glacier_yearly.make_data import (
    ICE,
    OTHER,
    PLACE,
    SIDE,
    YEARS,
    composite,
    glaciers,
    terrain,
)

TILE: Final = 64
"""Side of a tile in pixels; each row of tiles holds one tongue, and its outline is of one year."""
ROLES: Final = (("train", "train", "train"), ("train", "dev", "train"), ("train", "test", "train"))
"""Of the tiles by row and column."""
REJECTED: Final = "t-2-0"


def make(folder: Path) -> None:
    """Write composites, heights, ``rgi.fgb``, ``stem.tif`` and ``tiles.fgb`` below ``data`` of a folder."""
    data = folder / "data"
    for year in YEARS:
        for band, pixels in composite(year).items():
            write_tif(data / "composites" / str(year) / f"{band}.tif", pixels, PLACE, -9999)
    height, _ = terrain()
    write_tif(data / "elevation.tif", height, PLACE)
    write_tif(data / "stem.tif", np.where(kinds() == ICE, 1, 0).astype(np.uint8), PLACE)
    outlines = [_outline(number) for number in range(len(YEARS))]
    _save(data / "rgi.fgb", outlines, {"year": np.array(YEARS)})
    boxes, names, roles, rejects = [], [], [], []
    for row, column in np.ndindex(3, 3):
        left, top = PLACE.transform @ (column * TILE, row * TILE)
        right, bottom = PLACE.transform @ ((column + 1) * TILE, (row + 1) * TILE)
        boxes.append(shapely.box(left, bottom, right, top))
        names.append(f"t-{row}-{column}")
        roles.append(ROLES[row][column])
        rejects.append(int(names[-1] == REJECTED))
    _save(
        data / "tiles.fgb",
        boxes,
        {"id": np.array(names), "role": np.array(roles), "reject": np.array(rejects)},
    )


def year_of(row: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the year of the outline in a row of pixels."""
    return np.array(YEARS)[row // TILE]


def kinds() -> NDArray[np.uint8]:
    """Return OTHER, ICE or DEBRIS `(y, x)`, each row of tiles in its own year."""
    rows = np.arange(SIDE)
    return np.concatenate([glaciers(year)[year_of(rows) == year] for year in YEARS])


def _outline(number: int) -> shapely.MultiPolygon:
    inside = kinds() != OTHER
    inside[np.arange(SIDE) // TILE != number] = False
    shapes = rasterio.features.shapes(inside.astype(np.uint8), inside, transform=PLACE.transform)
    return shapely.MultiPolygon([shapely.geometry.shape(one) for one, _ in shapes])


def _save(
    path: Path, shapes: list[shapely.Polygon] | list[shapely.MultiPolygon], fields: dict[str, NDArray]
) -> None:
    pyogrio.raw.write(
        path, np.array([one.wkb for one in shapes], object), list(fields.values()), list(fields),
        crs=f"EPSG:{PLACE.epsg}", geometry_type=shapes[0].geom_type,
    )  # fmt: skip


if __name__ == "__main__":
    make(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
