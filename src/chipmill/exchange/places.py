"""Where imported chips lie: each on a pixel lattice of its CRS, or nowhere; and which ground was counted already.

The file to change for how chips of other programs are put on lattices. Chips of one grid share a lattice, so that
their overlaps are known to the pixel.
"""

import collections
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from affine import Affine

from chipmill.core.errors import GridError
from chipmill.dataset.statistics import unclaimed
from chipmill.region.grid import Lattice, Window, lattice_like


class Lattices:
    """The lattices that chips lie on, found as they come."""

    def __init__(self) -> None:
        """Begin without any."""
        self.known: dict[str, Lattice] = {}

    def place(
        self, crs: str, transform: Sequence[float], shape: tuple[int, int], where: str
    ) -> tuple[str, Window] | None:
        """Return (lattice id, window) of a chip of ``shape`` (rows, columns), None where it has no CRS.

        A chip lies on the lattice with its origin at (0, 0) of the CRS, else on that of an earlier chip, else on its
        own, whose origin is the first corner of a pixel right and below of (0, 0): it does not depend on which chip of
        a grid comes first. Raises GridError, naming ``where``, for one that is not north-up.
        """
        if not crs:
            return None
        epsg, affine = int(crs.removeprefix("EPSG:")), Affine(*transform)
        own = lattice_like(where, epsg, affine)
        zero = Lattice(epsg, 0.0, 0.0, own.res_x, own.res_y)
        first = Lattice(
            epsg, _phase(own.origin_x, own.res_x), _phase(own.origin_y, own.res_y), own.res_x, own.res_y
        )
        for lattice in (*(one for one in self.known.values() if one.epsg == epsg), zero, first):
            try:
                window = lattice.aligned_window(affine, shape[1], shape[0], where)
            except GridError:
                continue
            self.known.setdefault(lattice.lattice_id, lattice)
            return lattice.lattice_id, window
        raise GridError(
            f"{where} cannot be put on a pixel grid (transform {tuple(transform)}): warp it to one first"
        )


def _phase(origin: float, step: float) -> float:
    """Return the smallest corner that is not negative, to a millionth of a pixel: finer differences are float noise."""
    return round(origin / step % 1, 6) % 1 * step


class Ground:
    """Which pixels of the ground were counted, by lattice and date: each counts once, in the chip that comes first."""

    def __init__(self, side: int) -> None:
        """``side`` is that of a chip in pixels."""
        self._side = side
        self._near: dict[tuple[str, str, int, int], list[Window]] = collections.defaultdict(list)

    def claim(self, place: tuple[str, Window] | None, anchor: str) -> npt.NDArray[np.bool_]:
        """Return (y, x): True where a chip counts ground that none before it did; all of it for one without a place."""
        if place is None:
            return np.ones((self._side, self._side), dtype=bool)
        lattice, window = place
        cells = [
            (lattice, anchor, col, row)
            for col in _cells(window.col_off, window.col_end, self._side)
            for row in _cells(window.row_off, window.row_end, self._side)
        ]
        before = {other for cell in cells for other in self._near[cell]}
        for cell in cells:
            self._near[cell].append(window)
        return unclaimed(window, [window], before)


def _cells(start: int, end: int, side: int) -> range:
    return range(start // side, (end - 1) // side + 1)


def valid_px(image: npt.NDArray[Any], nodata: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Return (y, x): True where any band of an image (y, x, band) holds data."""
    return np.asarray((image != nodata).any(axis=2))
