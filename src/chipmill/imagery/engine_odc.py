"""The odc-stac engine: ``odc.stac.load`` with a reader driver whose files our gate opens."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
import rasterio
from numpy.typing import NDArray

from chipmill.imagery.engines import File, address, file_of, float_type
from chipmill.imagery.reading import Grid
from chipmill.imagery.sources import open_asset, reading

_BAND: Final = "band"
_PROJECTION: Final = "https://stac-extensions.github.io/projection/v2.0.0/schema.json"
_SAME_PX: Final = 1e-3
"""Grids shifted by less are the same. odc-stac's own bound for nearest is 0.9 px, which takes the wrong neighbour."""


def load(files: Sequence[File], grid: Grid, resampling: str) -> NDArray[np.floating[Any]]:
    """Return (file, y, x) as :class:`chipmill.imagery.engines.Engine` says."""
    import odc.stac
    from odc.geo.geobox import GeoBox

    loaded = odc.stac.load(
        [_item(number, grid) for number in range(len(files))],
        bands=[_BAND],
        geobox=GeoBox((grid.height, grid.width), grid.transform, grid.crs),
        groupby="id",
        preserve_original_order=True,
        resampling=resampling,
        dtype=float_type(files).name,
        use_overviews=False,
        driver=_driver(files),
    )
    return np.asarray(loaded[_BAND].values)


def _item(number: int, grid: Grid) -> Any:
    """Return an item of one file that is said to lie on the grid: what of it does is found out when it is read."""
    import pystac

    properties = {
        "proj:code": grid.crs,
        "proj:shape": [grid.height, grid.width],
        "proj:transform": list(grid.transform[:6]),
    }
    day = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)
    item = pystac.Item(str(number), None, None, day, properties, stac_extensions=[_PROJECTION])
    item.add_asset(_BAND, pystac.Asset(address(number), media_type="image/tiff", roles=["data"]))
    return item


def _driver(files: Sequence[File]) -> Any:
    """Return a reader driver of odc-stac that opens nothing but these files, and those through our gate."""
    from odc.geo.converters import rio_geobox
    from odc.geo.overlap import compute_reproject_roi
    from odc.loader._rio import RioDriver, _do_read

    class Reader:
        def __init__(self, file: File) -> None:
            self._file = file

        def read(self, cfg: Any, dst_geobox: Any, *, dst: Any = None, selection: Any = None) -> Any:
            del selection  # of a dimension that our bands do not have
            file = self._file
            with open_asset(file.location) as dataset, reading(file.location):
                overlap = compute_reproject_roi(rio_geobox(dataset), dst_geobox, ttol=_SAME_PX)
                band = rasterio.band(dataset, file.asset.band)
                told = replace(cfg, src_nodata_override=file.nodata)
                return _do_read(band, told, dst_geobox, overlap, dst=dst)

    class Driver(RioDriver):
        def open(self, src: Any, ctx: Any) -> Any:
            del ctx
            return Reader(file_of(files, src.uri))

    return Driver()
