"""The split certificate: what can be proved from the chips that were written, not from how they were planned."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from chipmill.core.errors import CountError
from chipmill.dataset.description import Certificate
from chipmill.dataset.filters import class_matrix, texts
from chipmill.dataset.places import SPLITS, Bools, Ints, Places
from chipmill.region.dataset import By


def certify(written: pa.Table, classes: int, blocks_sha256: str | None, kind: By = "blocks") -> Certificate:
    """Return the certificate of the written rows of chips.parquet; ``kind`` is that of the splits.

    Raises CountError when a train chip shares a pixel of its lattice with a val or test chip: of any date, but for
    splits by time, where other dates may share the ground; random splits share what they share, and it is told.
    """
    splits = np.array(written["split"].to_pylist(), dtype=object)
    places, train = Places.of_table(written), splits == SPLITS[0]
    shared, nearest = held_apart(places.take(train), places.take(~train))
    leak = _leak_of_day(written, places, train) if kind == "time" and shared else shared
    if leak and kind != "random":
        raise CountError(
            f"train chips share {leak} pixels with val or test chips: nothing is committed; deal anew with chipmill "
            "select --redeal, and report it, since windows near a split's edge must have been dropped"
        )
    counts = class_matrix(written, classes)
    class_px = {name: counts[splits == name].sum(axis=0) for name in SPLITS}
    return Certificate(
        kind=kind,
        shared_px=shared,
        leak_px=leak,
        warning=leak_warning(kind, shared, covered_px(places.take(~train)) if shared else 0),
        nearest_px=nearest,
        class_px={name: tuple(px.tolist()) for name, px in class_px.items()},
        class_shares=_shares(class_px),
        infeasible=(),
        blocks_sha256=blocks_sha256,
    )


def _leak_of_day(written: pa.Table, places: Places, train: Bools) -> int:
    """Return the pixels that train chips share with val or test chips of the same day."""
    anchors = texts(written, "anchor")
    both = set(anchors[train]) & set(anchors[~train])
    days = [(places.take(train & (anchors == one)), places.take(~train & (anchors == one))) for one in both]
    return sum(shared_px(*day) for day in days)


def leak_warning(kind: By, shared: int, held: int) -> str:
    """Return what ``shared`` of the ``held`` pixels under val and test chips mean for figures on them, "" for none."""
    if not shared:
        return ""
    ground = f"{shared:,} px, {100 * shared / held:.3g} % of the ground of val and test chips,"
    if kind == "time":
        return (
            f"{ground} are train ground of other days: figures tell of other days there, not of other places"
        )
    return f"{ground} are seen in training, too: figures on these chips flatter a model; use splits by blocks"


def _shares(class_px: Mapping[str, npt.NDArray[np.int64]]) -> dict[str, tuple[float, ...]]:
    return {name: tuple((px / max(int(px.sum()), 1)).tolist()) for name, px in class_px.items()}


def held_apart(train: Places, held: Places) -> tuple[int, float | None]:
    """Return (shared pixels, smallest distance in pixels) between two sets of rectangles, lattice by lattice.

    The distance is Euclidean between the rectangles' edges, 0 where they touch; None where no lattice has both.
    """
    import shapely

    nearest = None
    for lattice in sorted(set(train.lattice) & set(held.lattice)):
        ours = _boxes(train.take(train.lattice == lattice))
        tree = shapely.STRtree(_boxes(held.take(held.lattice == lattice)))
        _, distance = tree.query_nearest(ours, return_distance=True, all_matches=False)
        nearest = min(float(distance.min()), np.inf if nearest is None else nearest)
    return (shared_px(train, held) if nearest == 0 else 0), nearest


def shared_px(one: Places, other: Places) -> int:
    """Return how many pixels lie in a rectangle of both sets, each once, lattice by lattice."""
    lattices = sorted(set(one.lattice) & set(other.lattice))
    return sum(
        _swept(one.take(one.lattice == lattice), other.take(other.lattice == lattice)) for lattice in lattices
    )


def covered_px(places: Places) -> int:
    """Return how many pixels lie in a rectangle, each once, over all lattices."""
    return shared_px(places, places)


def _swept(one: Places, other: Places) -> int:
    """Sweep down the rows at which a rectangle begins or ends; in between, columns are covered as in one row."""
    sides = [_corners(one), _corners(other)]
    xs = np.unique(np.concatenate([side[:, [0, 2]].ravel() for side in sides]))
    ys = np.unique(np.concatenate([side[:, [1, 3]].ravel() for side in sides]))
    steps = [_steps(side, xs, ys) for side in sides]
    depth = [np.zeros(len(xs), dtype=np.int64) for _ in sides]
    total = 0
    for row in range(len(ys) - 1):
        for number, (starts, at, change) in enumerate(steps):
            some = slice(starts[row], starts[row + 1])
            np.add.at(depth[number], at[some], change[some])
        both = (depth[0].cumsum() > 0) & (depth[1].cumsum() > 0)
        total += int(np.diff(xs)[both[:-1]].sum()) * int(ys[row + 1] - ys[row])
    return total


def _steps(corners: Ints, xs: Ints, ys: Ints) -> tuple[Ints, Ints, Ints]:
    """Return (start per row of ys, place in xs, +1 or -1) of what changes when the sweep comes to each row."""
    left, top, right, bottom = corners.T
    rows = np.searchsorted(ys, np.concatenate([top, top, bottom, bottom]))
    at = np.searchsorted(xs, np.concatenate([left, right, left, right]))
    change = np.repeat(np.array([1, -1, -1, 1]), len(corners))
    order = np.argsort(rows, kind="stable")
    return np.searchsorted(rows[order], np.arange(len(ys) + 1)), at[order], change[order]


def _corners(places: Places) -> Ints:
    """Distinct rectangles as (left, top, right, bottom); chips of several dates at one place are one."""
    return np.unique(
        np.column_stack([places.col, places.row, places.col + places.width, places.row + places.height]),
        axis=0,
    )


def _boxes(places: Places) -> npt.NDArray[Any]:
    import shapely

    return np.asarray(shapely.box(*_corners(places).T.astype(np.float64)))
