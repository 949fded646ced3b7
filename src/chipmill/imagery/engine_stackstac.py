"""The stackstac engine: ``stackstac.stack`` with a reader whose files our gate opens.

Always with epsg, resolution and bounds and without rescaling: left to itself it guesses grids and mixes units.
"""

import contextlib
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.io import DatasetReader
from rasterio.vrt import WarpedVRT

from chipmill.core.errors import ChipmillError
from chipmill.imagery.engines import File, address, file_of, float_type
from chipmill.imagery.reading import Grid
from chipmill.imagery.sources import open_asset, reading

_BAND: Final = "band"


def load(files: Sequence[File], grid: Grid, resampling: str) -> NDArray[np.floating[Any]]:
    """Return (file, y, x) as :class:`chipmill.imagery.engines.Engine` says."""
    import stackstac

    left, top = grid.transform @ (0, 0)
    right, bottom = grid.transform @ (grid.width, grid.height)
    epsg = int(grid.crs.removeprefix("EPSG:"))
    bounds = (left, bottom, right, top)
    dtype = float_type(files)
    stack = stackstac.stack(
        [_item(number, epsg, bounds) for number in range(len(files))],
        assets=[_BAND],
        epsg=epsg,
        resolution=(grid.transform.a, -grid.transform.e),
        bounds=bounds,
        snap_bounds=False,
        resampling=Resampling[resampling],
        chunksize=max(grid.height, grid.width),
        dtype=dtype,
        fill_value=dtype.type(np.nan),
        rescale=False,
        sortby_date=False,
        xy_coords=False,
        properties=False,
        band_coords=False,
        errors_as_nodata=(),
        reader=_reader(files),
    )
    try:
        # In this thread: a worker has one, and files are opened where they are read.
        return np.asarray(stack.data.compute(scheduler="synchronous")[:, 0])
    except RuntimeError as error:
        # Our own error, which stackstac has wrapped in its words.
        if isinstance(error.__cause__, ChipmillError):
            raise error.__cause__ from error
        raise


def _item(number: int, epsg: int, bounds: tuple[float, float, float, float]) -> dict[str, Any]:
    """Return an item of one file that is said to fill the grid: what of it does is found out when it is read."""
    properties = {"datetime": "2000-01-01T00:00:00Z", "proj:epsg": epsg, "proj:bbox": list(bounds)}
    assets = {_BAND: {"href": address(number), "type": "image/tiff"}}
    return {"id": str(number), "type": "Feature", "properties": properties, "assets": assets}


class _Opened:
    """A file in the shape in which stackstac reads one: its band, and the alpha band of a warped view."""

    scale_offset = (1.0, 0.0)

    def __init__(
        self, stack: contextlib.ExitStack, source: DatasetReader | WarpedVRT, bands: list[int], file: File
    ) -> None:
        self._stack, self._source, self._bands, self._file = stack, source, bands, file

    def read(self, window: Any, **more: Any) -> Any:
        with reading(self._file.location):
            return self._source.read(self._bands, window=window, **more)

    def close(self) -> None:
        self._stack.close()


def _reader(files: Sequence[File]) -> Any:
    """Return a reader class of stackstac that opens nothing but these files, and those through our gate."""
    from stackstac.rio_reader import AutoParallelRioReader

    class Reader(AutoParallelRioReader):  # type: ignore[misc]
        def _open(self) -> _Opened:
            file = file_of(files, self.url)
            stack = contextlib.ExitStack()
            with stack:
                dataset = stack.enter_context(open_asset(file.location))
                nodata, alpha = file.nodata, file.nodata is None
                told = {} if alpha else {"src_nodata": nodata, "nodata": nodata}
                with reading(file.location):
                    # As stackstac's own reader makes it, also on the same grid: an item may name its file's nodata.
                    view = stack.enter_context(
                        WarpedVRT(
                            dataset,
                            resampling=self.resampling,
                            add_alpha=alpha,
                            **self.spec.vrt_params,
                            **told,
                        )
                    )
                bands = [file.asset.band, view.count] if alpha else [file.asset.band]
                return _Opened(stack.pop_all(), view, bands, file)

    return Reader
