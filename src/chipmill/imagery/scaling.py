"""What the numbers of files mean: one scale and offset per file, and the conversion of each band to the composite.

The file to change for how a DN becomes a physical value. What the search decided comes first (:mod:`.profiles`), then
the file's own tags; where nobody says anything, floats are physical and integers are in the composite's units.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rasterio.io import DatasetReader

from chipmill.imagery.items import Acquisition, Asset
from chipmill.imagery.kernels import Conversion, conversion
from chipmill.region.imagery import Imagery


class Own(NamedTuple):
    """What a file says of the values of one of its bands."""

    dtype: np.dtype[Any]
    scale: float
    """Physical value = DN * scale + offset by the file's own tags; 1 and 0 where it has none."""
    offset: float


def own_of(dataset: DatasetReader, band: int) -> Own:
    """Return what an open file says of one of its bands (from 1)."""
    place = band - 1
    return Own(np.dtype(dataset.dtypes[place]), dataset.scales[place], dataset.offsets[place])


class Scaling:
    """The scale of every band of a slot's acquisitions."""

    def __init__(
        self, acquisitions: Sequence[Acquisition], imagery: Imagery, own: Mapping[Asset, Own]
    ) -> None:
        """``own`` has what the files say, for every asset of the imagery's bands."""
        self._out = imagery.out
        self._offset_given = imagery.offset_override is not None or imagery.offset == "none"
        self._own = own
        items = [item for one in acquisitions for item in one.items]
        self._assets = {band: [item.assets[band] for item in items] for band in imagery.bands}
        self.mixed = {
            band for band, assets in self._assets.items() if len({self._scale(asset) for asset in assets}) > 1
        }
        """Bands whose DN mean different things: they are scaled before the reduction."""
        self.dtypes = {band: self._dtype(band) for band in imagery.bands}
        """Of the values that are reduced, per band."""

    def rule(self, band: str) -> Conversion:
        """Return how a reduced value of a band becomes a composite's integer."""
        if band in self.mixed or not self._assets[band]:
            return self._conversion(self._out.scale, 0.0)
        return self._conversion(*self._scale(self._assets[band][0]))

    def scaled(self, band: str, asset: Asset, part: NDArray[Any]) -> NDArray[Any]:
        """Return DN of an asset as they are, or in the composite's units (float64) where the band is mixed."""
        if band not in self.mixed:
            return part
        rule = self._conversion(*self._scale(asset))
        return part * rule.gain + rule.shift

    def _scale(self, asset: Asset) -> tuple[float, float]:
        """Return scale and offset of an asset."""
        own = self._own[asset]
        if asset.scale is not None:
            return asset.scale, asset.offset
        if (own.scale, own.offset) != (1.0, 0.0):
            return own.scale, asset.offset if self._offset_given else own.offset
        return (1.0 if own.dtype.kind == "f" else self._out.scale), asset.offset

    def _conversion(self, scale: float, offset: float) -> Conversion:
        out = self._out
        return conversion(scale, offset, out.scale, out.dtype, out.nodata)

    def _dtype(self, band: str) -> np.dtype[Any]:
        if band in self.mixed or not self._assets[band]:
            return np.dtype(np.float64)
        return np.result_type(*(self._own[asset].dtype for asset in self._assets[band]))
