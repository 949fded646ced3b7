"""A strip of all acquisitions of a slot: bands, validity and counts, ready to be reduced over time.

Clouds are masked here, before any reduction, and a pixel is valid only where all bands are. Only as many rows as fit
the budget are held, so that a tile of any size and any number of dates is composited in bounded memory.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from chipmill.imagery.hrefs import resolve_href
from chipmill.imagery.items import MASK, Acquisition, Asset, Item
from chipmill.imagery.kernels import Conversion, conversion
from chipmill.imagery.masks import classify, dilate
from chipmill.imagery.reading import BandReader, Grid, ReaderPool
from chipmill.region.imagery import Imagery

BUDGET_BYTES: Final = 96 << 20
"""Of the values and validity of one strip."""


@dataclasses.dataclass(frozen=True, slots=True)
class Strip:
    """Rows of a tile at all times; ``values`` and ``valid`` have the time first, in the order of the acquisitions."""

    values: Mapping[str, NDArray[Any]]
    """Our band name -> (time, y, x) DN, or composite units in float64 where DN of the band mean different things."""
    valid: NDArray[np.bool_]
    """(time, y, x) True where all bands are valid and the mask is clear."""
    observed: NDArray[np.int16]
    """(y, x) number of acquisitions that saw the pixel, cloud or not."""


class StripReader:
    """Reads the acquisitions of a slot on a tile's grid. Use it inside a :class:`ReaderPool`."""

    def __init__(
        self, pool: ReaderPool, acquisitions: Sequence[Acquisition], imagery: Imagery, root: str, grid: Grid
    ) -> None:
        self._pool, self._grid, self._root, self._imagery = pool, grid, root, imagery
        self._acquisitions = acquisitions
        self._halo = imagery.mask.dilation_px if imagery.mask else 0
        items = [item for one in acquisitions for item in one.items]
        self._mixed = {band for band in imagery.bands if self._is_mixed(band, items)}
        self.dtypes = {band: self._dtype(band, items) for band in imagery.bands}
        """Of the values of each band."""

    def _is_mixed(self, band: str, items: Sequence[Item]) -> bool:
        scalings = {(item.assets[band].scale, item.assets[band].offset) for item in items}
        return len(scalings) > 1

    def _dtype(self, band: str, items: Sequence[Item]) -> np.dtype[Any]:
        if band in self._mixed or not items:
            return np.dtype(np.float64)
        return np.result_type(*(self._band(item.assets[band]).dtype for item in items))

    def _band(self, asset: Asset) -> BandReader:
        location = resolve_href(self._root, asset.href)
        return self._pool.get(asset, location, self._grid, self._imagery.resampling)

    def rows_at_once(self) -> int:
        """Return how many rows fit the budget, at least one."""
        pixel = 1 + sum(dtype.itemsize for dtype in self.dtypes.values())
        return max(1, BUDGET_BYTES // max(1, pixel * self._grid.width * len(self._acquisitions)))

    def rule(self, band: str) -> Conversion:
        """Return how a reduced value of a band becomes a composite's integer."""
        out = self._imagery.out
        assets = [item.assets[band] for one in self._acquisitions for item in one.items]
        if band in self._mixed or not assets:
            return conversion(out.scale, 0.0, out.scale, out.dtype, out.nodata)
        return self._rule_of(assets[0])

    def _rule_of(self, asset: Asset) -> Conversion:
        out = self._imagery.out
        scale = out.scale if asset.scale is None else asset.scale
        return conversion(scale, asset.offset, out.scale, out.dtype, out.nodata)

    def read(self, row: int, rows: int) -> Strip:
        """Return the strip of ``rows`` rows from ``row`` on; raises AssetReadError and TransientReadError."""
        shape = (len(self._acquisitions), rows, self._grid.width)
        values = {band: np.zeros(shape, dtype) for band, dtype in self.dtypes.items()}
        valid = np.zeros(shape, np.bool_)
        observed = np.zeros(shape[1:], np.int16)
        for time, acquisition in enumerate(self._acquisitions):
            seen = np.zeros(shape[1:], np.bool_)
            for item in acquisition.items:
                seen |= self._merge(
                    item, row, rows, {band: one[time] for band, one in values.items()}, valid[time]
                )
            observed += seen
        return Strip(values, valid, observed)

    def _merge(
        self, item: Item, row: int, rows: int, values: Mapping[str, NDArray[Any]], valid: NDArray[np.bool_]
    ) -> NDArray[np.bool_]:
        """Add an item to its acquisition where nothing valid is yet; return where the item was observed."""
        clear, cloud = self._masked(item, row, rows)
        if not clear.any():
            return cloud  # nothing here would be used, so its bands are not even decoded
        parts: dict[str, NDArray[Any]] = {}
        for band in values:
            parts[band], good = self._band(item.assets[band]).read(row, rows)
            clear &= good
        take = clear & ~valid
        for band, target in values.items():
            np.copyto(target, self._scaled(band, item, parts[band]), where=take, casting="same_kind")
        valid |= clear
        return clear | cloud

    def _scaled(self, band: str, item: Item, part: NDArray[Any]) -> NDArray[Any]:
        if band not in self._mixed:
            return part
        rule = self._rule_of(item.assets[band])
        return part * rule.gain + rule.shift

    def _masked(self, item: Item, row: int, rows: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Return clear and dropped pixels of an item, the dropped ones grown."""
        mask, halo, width = self._imagery.mask, self._halo, self._grid.width
        if mask is None:
            return np.ones((rows, width), np.bool_), np.zeros((rows, width), np.bool_)
        asset = item.assets[MASK]
        # The margin makes clouds beyond the strip and the tile grow into it, so that neighbours fit together.
        reader = self._pool.get(
            asset, resolve_href(self._root, asset.href), self._grid.padded(halo), "nearest"
        )
        clear, dropped = classify(*reader.read(row, rows + 2 * halo), mask)
        grown = dilate(dropped, halo)
        inside = np.s_[halo : halo + rows, halo : halo + width]
        return clear[inside] & ~grown[inside], (clear | dropped)[inside] & grown[inside]
