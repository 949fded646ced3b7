"""The split certificate: what can be proved from the chips that were written, not from how they were planned."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from chipmill.core.errors import CountError
from chipmill.dataset.description import Certificate
from chipmill.dataset.filters import class_matrix
from chipmill.dataset.places import SPLITS, Places


def certify(written: pa.Table, classes: int, blocks_sha256: str | None) -> Certificate:
    """Return the certificate of the written rows of chips.parquet.

    Raises CountError when a train chip shares a pixel of its lattice with a val or test chip of any date.
    """
    splits = np.array(written["split"].to_pylist(), dtype=object)
    places = Places.of_table(written)
    shared, nearest = held_apart(places.take(splits == SPLITS[0]), places.take(splits != SPLITS[0]))
    if shared:
        raise CountError(
            f"train chips share {shared} pixels with val or test chips: nothing is committed; remove the region's "
            "blocks.parquet and run again, and report it, since windows near a split's edge must have been dropped"
        )
    counts = class_matrix(written, classes)
    class_px = {name: counts[splits == name].sum(axis=0) for name in SPLITS}
    return Certificate(
        shared_px=shared,
        nearest_px=nearest,
        class_px={name: tuple(px.tolist()) for name, px in class_px.items()},
        class_shares=_shares(class_px),
        infeasible=(),
        blocks_sha256=blocks_sha256,
    )


def _shares(class_px: Mapping[str, npt.NDArray[np.int64]]) -> dict[str, tuple[float, ...]]:
    return {name: tuple((px / max(int(px.sum()), 1)).tolist()) for name, px in class_px.items()}


def held_apart(train: Places, held: Places) -> tuple[int, float | None]:
    """Return (shared pixels, smallest distance in pixels) between two sets of rectangles, lattice by lattice.

    The distance is Euclidean between the rectangles' edges, 0 where they touch; None where no lattice has both.
    """
    import shapely

    shared, nearest = 0, None
    for lattice in sorted(set(train.lattice) & set(held.lattice)):
        ours = _boxes(train.take(train.lattice == lattice))
        tree = shapely.STRtree(_boxes(held.take(held.lattice == lattice)))
        left, right = tree.query(ours, predicate="intersects")
        common = shapely.intersection(ours[left], tree.geometries[right])
        shared += round(shapely.union_all(common[shapely.area(common) > 0]).area)
        _, distance = tree.query_nearest(ours, return_distance=True, all_matches=False)
        nearest = min(float(distance.min()), np.inf if nearest is None else nearest)
    return shared, nearest


def _boxes(places: Places) -> npt.NDArray[Any]:
    """Distinct rectangles as polygons in pixels; chips of several dates at one place are one."""
    corners = np.unique(
        np.column_stack([places.col, places.row, places.col + places.width, places.row + places.height]),
        axis=0,
    )
    import shapely

    return np.asarray(shapely.box(*corners.T.astype(np.float64)))
