"""One acquisition as it is in its archive: its pixels over a tile, read small, beside what its mask says of them.

The file to change for how an acquisition is drawn; which ones are shown is decided in :mod:`.acquisitions`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from chipmill.imagery.hrefs import resolve_href
from chipmill.imagery.items import MASK, Asset, Item
from chipmill.imagery.masks import classify
from chipmill.imagery.reading import Grid
from chipmill.imagery.sources import open_asset, reading
from chipmill.region.imagery import Imagery
from chipmill.report.images import Bytes, color_bands, limits, rgb, small_shape, stretch

SIDE_PX: Final = 144
"""Longer side of a quicklook."""
CLEAR: Final = "#3f8f74"
DROPPED: Final = "#e0a526"
_GAP_PX: Final = 2


@dataclass(frozen=True, slots=True)
class Look:
    """An acquisition over a tile, small."""

    data: NDArray[np.float64]
    """`(band, y, x)`, one or three bands in physical units, where their items say how."""
    valid: NDArray[np.bool_]
    """`(y, x)`, True where all of these bands have data."""
    clear: NDArray[np.bool_]
    """`(y, x)`, True where the mask calls the pixel clear; everywhere where there is no mask."""
    dropped: NDArray[np.bool_] | None
    """`(y, x)`, True where the mask drops the pixel; None where there is no mask."""

    @property
    def usable(self) -> NDArray[np.bool_]:
        """`(y, x)`, True where a composite would take the pixel (before dilation)."""
        return self.valid & self.clear


def read_look(items: Sequence[Item], imagery: Imagery, root: str, grid: Grid) -> Look:
    """Read the items of an acquisition over a tile; where several hold a pixel, the first valid one counts.

    Args:
        items: the items of one acquisition in the order of their ids.
        imagery: whose bands and mask are shown.
        root: root of the source, see :func:`chipmill.imagery.hrefs.source_root`.
        grid: the tile's pixels; read into at most SIDE_PX on the longer side.

    Raises:
        AssetReadError, TransientReadError: a file cannot be read.
        ItemSearchError: a href that leads where it may not.
    """
    names, shape = color_bands(tuple(imagery.bands)), small_shape(grid.height, grid.width, SIDE_PX)
    data = np.zeros((len(names), *shape))
    valid, clear, dropped = (np.zeros(shape, np.bool_) for _ in range(3))
    for item in items:
        parts, good = _bands(item, names, root, grid, shape)
        np.copyto(data, parts, where=good & ~valid)
        valid |= good
        if imagery.mask is not None:
            values, seen = _read(item.assets[MASK], root, grid, shape, "nearest")
            fine, bad = classify(values, seen, imagery.mask)
            clear |= fine
            dropped |= bad & ~clear
    if imagery.mask is None:
        return Look(data, valid, np.ones(shape, np.bool_), None)
    return Look(data, valid, clear, dropped & ~clear)


def _bands(
    item: Item, names: Sequence[str], root: str, grid: Grid, shape: tuple[int, int]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return physical values (band, y, x) of an item and where all of them are valid."""
    data, valid = np.zeros((len(names), *shape)), np.ones(shape, np.bool_)
    for place, name in enumerate(names):
        asset = item.assets[name]
        values, good = _read(asset, root, grid, shape, "average")
        data[place] = values.astype(np.float64) * (1.0 if asset.scale is None else asset.scale) + asset.offset
        valid &= good
    return data, valid


def _read(
    asset: Asset, root: str, grid: Grid, shape: tuple[int, int], how: str
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Read a band over the grid into ``shape``; GDAL takes the overview that fits where the file has one."""
    from rasterio.enums import Resampling
    from rasterio.vrt import WarpedVRT

    location = resolve_href(root, asset.href)
    with open_asset(location) as dataset, reading(location):
        own = dataset.nodatavals[asset.band - 1]
        nodata = own if own is not None else asset.nodata
        ends: dict[str, Any] = (
            {"add_alpha": True} if nodata is None else {"src_nodata": nodata, "nodata": nodata}
        )
        place = {"transform": grid.transform, "width": grid.width, "height": grid.height}
        resampling = Resampling[how]
        # Named twice: where a file has no overview it is the view that makes the pixels small, not the read.
        with WarpedVRT(dataset, crs=grid.crs, resampling=resampling, **place, **ends) as view:
            values = view.read(asset.band, out_shape=shape, resampling=resampling)
            if nodata is None:
                return values, view.read(view.count, out_shape=shape) != 0
            return values, np.isfinite(values) & (values != nodata)


def common_range(looks: Sequence[Look]) -> NDArray[np.float64]:
    """Return the ``(band, 2)`` values between which looks are stretched alike, from what is usable in them.

    The lowest of their lower ends, and the median of their upper ones: a cloud that a mask overlooked stays white and
    makes no other one dark.
    """
    usable = [one for one in looks if one.usable.any()]
    each = np.stack([limits(one.data, one.usable) for one in usable or looks[:1]])
    return np.stack([each[:, :, 0].min(axis=0), np.median(each[:, :, 1], axis=0)], axis=1)


def draw_look(look: Look, ranges: NDArray[np.float64]) -> Bytes:
    """Return `(y, x, 4)` RGBA: the pixels, and right of a gap what the mask says where there is one."""
    image = stretch(look.data, look.valid, ranges)
    if look.dropped is None:
        return image
    mask = np.zeros_like(image)
    mask[look.clear] = (*rgb(CLEAR), 255)
    mask[look.dropped] = (*rgb(DROPPED), 255)
    gap = np.zeros((len(image), _GAP_PX, 4), np.uint8)
    return np.concatenate([image, gap, mask], axis=1)
