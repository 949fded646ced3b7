"""Ground that one dataset trains on and another one holds back: datasets that are used together must not leak.

The file to change for what counts as the same ground. On one lattice pixels are compared, exactly; across lattices
the outlines of chips, projected into one of the two CRSs.
"""

import dataclasses
from collections.abc import Sequence
from itertools import permutations
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from chipmill.core.errors import SplitMismatchError
from chipmill.dataset.certificate import shared_px
from chipmill.dataset.description import Manifest
from chipmill.dataset.filters import texts
from chipmill.dataset.places import SPLITS, Bools, Places
from chipmill.region.dataset import By
from chipmill.region.grid import Lattice, projector, reproject_shape

_SLIVER_PX: Final = 0.5
"""Two chips of different CRSs that share less only touch: their edges are bent against each other."""
_EARTH_M: Final = 6_371_009.0
_EDGE_PARTS: Final = 8  # as in Lattice.footprint


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Ground:
    """Where the written chips of a dataset lie."""

    name: str
    """What an error calls the dataset."""
    kind: By
    """How its splits were made."""
    lattices: dict[str, Lattice]
    places: Places
    train: Bools
    """Whether a chip is for training; the others are held back."""
    anchors: npt.NDArray[Any]
    """Date of each chip."""

    @classmethod
    def of(cls, name: str, manifest: Manifest, chips: pa.Table) -> "Ground":
        """Take what a manifest and the written rows of chips.parquet say; imported chips may have no place."""
        lattices = {one.lattice: Lattice(one.epsg, *one.origin, *one.resolution) for one in manifest.grids}
        chips = chips.filter(pc.is_in(chips["lattice"], pa.array(list(lattices), pa.string())))
        kind = manifest.certificate.kind if manifest.certificate else "blocks"
        train = texts(chips, "split") == SPLITS[0]
        return cls(name, kind, lattices, Places.of_table(chips), train, texts(chips, "anchor"))

    def bounds(self, lattice: str) -> tuple[float, float, float, float]:
        """Return (left, bottom, right, top) of the chips on a lattice, CRS units."""
        boxes = _bounds(self.places.take(self.places.lattice == lattice), self.lattices[lattice])
        return *boxes[:, :2].min(axis=0).tolist(), *boxes[:, 2:].max(axis=0).tolist()

    def take(self, rows: Bools) -> "Ground":
        """Return some of the chips."""
        return dataclasses.replace(
            self, places=self.places.take(rows), train=self.train[rows], anchors=self.anchors[rows]
        )


def check_leaks(grounds: Sequence[Ground]) -> None:
    """Raise SplitMismatchError where a dataset trains on ground that another one holds back for val or test.

    Where both are split by time, other days may share ground, as within each of them.
    """
    for one, other in permutations(grounds, 2):
        train, held = one.take(one.train), other.take(~other.train)
        if one.kind == other.kind == "time":
            days = sorted(set(train.anchors) & set(held.anchors))
            px = sum(
                _common_px(train.take(train.anchors == day), held.take(held.anchors == day)) for day in days
            )
        else:
            px = _common_px(train, held)
        if px:
            raise SplitMismatchError(
                f"{one.name} trains on {px:,} px of ground that {other.name} holds back for validation or test: name "
                "one region in the other's dataset.splits.like and run chipmill select --redeal, or leave one out"
            )


def _common_px(one: Ground, other: Ground) -> int:
    """Pixels of the first one's lattices that the other covers, too."""
    px = shared_px(one.places, other.places)
    for own, lattice in one.lattices.items():
        for far, another in other.lattices.items():
            if own != far:
                ours, theirs = one.places.lattice == own, other.places.lattice == far
                px += _across_px(one.places.take(ours), lattice, other.places.take(theirs), another)
    return px


def _across_px(one: Places, lattice: Lattice, other: Places, another: Lattice) -> int:
    """Common ground of rectangles of two lattices, in pixels of the one whose CRS it is measured in."""
    import shapely
    from pyproj import CRS

    if not len(one.col) or not len(other.col):
        return 0
    boxes, others = _bounds(one, lattice), _bounds(other, another)
    near, others_near = _close(boxes, lattice.epsg, others, another.epsg)
    if not near.any():
        return 0
    target = another if CRS.from_epsg(lattice.epsg).is_geographic else lattice
    ours = _outlines(boxes[near], lattice.epsg, target.epsg)
    tree = shapely.STRtree(_outlines(others[others_near], another.epsg, target.epsg))
    left, right = tree.query(ours, predicate="intersects")
    common = shapely.intersection(ours[left], tree.geometries[right])
    px = target.res_x * target.res_y
    common = common[shapely.area(common) > _SLIVER_PX * px]
    return max(1, round(float(shapely.union_all(common).area) / px)) if len(common) else 0


def _bounds(places: Places, lattice: Lattice) -> npt.NDArray[np.float64]:
    """(chip, 4): left, bottom, right, top in CRS units, each place once."""
    corners = np.column_stack([places.col, places.row + places.height, places.col + places.width, places.row])
    found = np.unique(corners, axis=0).astype(np.float64)
    origin = np.array([lattice.origin_x, lattice.origin_y, lattice.origin_x, lattice.origin_y])
    step = np.array([lattice.res_x, -lattice.res_y, lattice.res_x, -lattice.res_y])
    placed: npt.NDArray[np.float64] = origin + found * step
    return placed


def _close(
    boxes: npt.NDArray[np.float64], epsg: int, others: npt.NDArray[np.float64], other_epsg: int
) -> tuple[Bools, Bools]:
    """Tell which boxes of two CRSs may touch one of the other side: on the globe, where no CRS has an edge."""
    from scipy.spatial import cKDTree

    (centres, reach), (other_centres, other_reach) = _spots(boxes, epsg), _spots(others, other_epsg)
    limit = 1.01 * (reach + other_reach)
    near, _ = cKDTree(other_centres).query(centres, distance_upper_bound=limit)
    others_near, _ = cKDTree(centres).query(other_centres, distance_upper_bound=limit)
    return np.isfinite(near), np.isfinite(others_near)


def _spots(boxes: npt.NDArray[np.float64], epsg: int) -> tuple[npt.NDArray[np.float64], float]:
    """Centres (chip, xyz) on a globe in metres, and the longest way from one to a corner of its box."""
    left, bottom, right, top = boxes.T
    points = [((left + right) / 2, (bottom + top) / 2)]
    points += [(x, y) for x in (left, right) for y in (bottom, top)]
    places = []
    for x, y in points:
        longitude, latitude = map(np.radians, projector(epsg, 4326).transform(x, y))
        flat = np.cos(latitude)
        places.append(
            _EARTH_M * np.column_stack([flat * np.cos(longitude), flat * np.sin(longitude), np.sin(latitude)])
        )
    centre, *corners = places
    ways = [np.linalg.norm(corner - centre, axis=1) for corner in corners]
    return centre, float(np.max(ways))


def _outlines(boxes: npt.NDArray[np.float64], source_epsg: int, target_epsg: int) -> Any:
    """The boxes as polygons of another CRS, their edges bent as the projection bends them."""
    import shapely

    shapes: Any = shapely.box(*boxes.T)
    longest = np.maximum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1])
    bent: Any = shapely.segmentize(shapes, longest / _EDGE_PARTS)
    return reproject_shape(bent, source_epsg, target_epsg)
