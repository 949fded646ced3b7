"""chips.parquet as an index on the map: where each window lies, in degrees and on its own grid."""

from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from chipmill.core.geo import BBOX, SHAPES, boxes, geo_schema
from chipmill.core.tables import CHIP_INDEX
from chipmill.region.grid import Lattice, projector

_PLACE: Final = ("crs", "transform", "bbox", "geometry")
"""Columns of CHIP_INDEX that say where a window is."""


def place_chips(table: pa.Table, lattices: "dict[str, Lattice]") -> tuple[pa.Table, pa.Schema]:
    """Return rows of CHIPS with geometry, bbox, crs and transform, and the schema to write them by.

    Args:
        table: rows of :data:`CHIPS`, in their order.
        lattices: id -> lattice of every window.

    The outline has the four corners of the window, counter-clockwise from the lower left one, in degrees.
    """
    rows = table.num_rows
    coded = table["lattice"].combine_chunks().dictionary_encode()
    known = [lattices[name] for name in coded.dictionary.to_pylist()]
    codes = np.asarray(coded.indices)
    left, top, width, height = (
        table[name].to_numpy().astype(np.int64) for name in ("col_off", "row_off", "width", "height")
    )
    corners = np.empty((rows, 5, 2))
    transforms = np.empty((rows, 6))
    for code, lattice in enumerate(known):
        of = codes == code
        x0, y0 = lattice.origin_x, lattice.origin_y
        west, east = x0 + left[of] * lattice.res_x, x0 + (left[of] + width[of]) * lattice.res_x
        north, south = y0 - top[of] * lattice.res_y, y0 - (top[of] + height[of]) * lattice.res_y
        x = np.stack([west, east, east, west, west], axis=1)
        y = np.stack([south, south, north, north, south], axis=1)
        corners[of] = np.stack(projector(lattice.epsg, 4326).transform(x, y), axis=-1)
        zero = np.zeros_like(west)
        transforms[of] = np.stack(
            [zero + lattice.res_x, zero, west, zero, zero - lattice.res_y, north], axis=1
        )
    crs = pa.DictionaryArray.from_arrays(coded.indices, pa.array([one.crs for one in known], pa.string()))
    placed = table.select(CHIP_INDEX.names[: -len(_PLACE)])
    columns = (
        crs.dictionary_decode(),
        pa.FixedSizeListArray.from_arrays(pa.array(transforms.ravel()), 6),
        *_outlines(corners),
    )
    for name, column in zip(_PLACE, columns, strict=True):
        placed = placed.append_column(name, column)
    return placed, geo_schema(CHIP_INDEX, placed, "geometry", covering="bbox")


def _outlines(corners: npt.NDArray[np.float64]) -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    """Return box and WKB of rings (ring, corner, 2)."""
    import shapely

    covers, outlines = [], []
    for start in range(0, len(corners), SHAPES):
        shapes = np.asarray(shapely.polygons(corners[start : start + SHAPES]), dtype=object)
        covers.append(boxes(shapes))
        outlines.append(pa.array(shapely.to_wkb(shapes), pa.binary()))
    return pa.chunked_array(covers, BBOX), pa.chunked_array(outlines, pa.binary())
