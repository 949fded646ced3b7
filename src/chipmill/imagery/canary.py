"""The canary: proof that this GDAL reports a missing source instead of reading it as zeros.

GDAL 3.10 (rasterio 1.4.4) lost the errors of its reader threads: a VRT with a missing source read as zeros,
without an error, for reads of a million pixels and more. Pins keep such a pair out of a fresh set-up, but not
out of an environment that somebody else made; so a run asks the canary before it reads its first pixel.
"""

import threading
from functools import cache
from typing import Final

import rasterio
from rasterio.errors import RasterioError
from rasterio.io import MemoryFile
from rasterio.windows import Window

from chipmill.core.errors import CanaryError

SIDE_PX: Final = 2048  # of the VRT
READS_PX: Final = (256, 1024, 2048)  # sides of the reads tried; from 1,000,000 px on GDAL reads with threads

_guard: Final = threading.Lock()
_SOURCE: Final = """
<SimpleSource>
  <SourceFilename relativeToVRT="0">/vsimem/chipmill-canary-{x}-{y}.tif</SourceFilename><SourceBand>1</SourceBand>
  <SourceProperties RasterXSize="1024" RasterYSize="1024" DataType="UInt16" BlockXSize="256" BlockYSize="256"/>
  <SrcRect xOff="0" yOff="0" xSize="1024" ySize="1024"/><DstRect xOff="{x}" yOff="{y}" xSize="1024" ySize="1024"/>
</SimpleSource>"""


def canary_vrt() -> bytes:
    """A VRT of 2048 x 2048 px, uint16, four sources of 1024 px each, none of which exists."""
    sources = "".join(_SOURCE.format(x=x, y=y) for y in (0, 1024) for x in (0, 1024))
    return (
        f'<VRTDataset rasterXSize="{SIDE_PX}" rasterYSize="{SIDE_PX}">'
        "<GeoTransform>0, 10, 0, 0, 0, -10</GeoTransform>"
        f'<VRTRasterBand dataType="UInt16" band="1">{sources}</VRTRasterBand></VRTDataset>'
    ).encode()


def silent_reads() -> tuple[int, ...]:
    """Sides in pixels of those square reads of the canary that came back without an error: () where all is well."""
    return tuple(side for side in READS_PX if not _raises(side))


@cache
def require_safe_gdal() -> None:
    """Refuse to go on with a GDAL that reads missing sources as zeros; asked once per process.

    Raises:
        CanaryError: a read of the canary gave pixels.
    """
    with (
        _guard
    ):  # of two threads that opened the same missing files at once, one was seen to be told of no error
        silent = silent_reads()
    if silent:
        raise CanaryError(
            f"rasterio {rasterio.__version__} with GDAL {rasterio.__gdal_version__} reads a VRT whose sources are "
            f"missing as zeros, for square reads of {', '.join(map(str, silent))} px, where an error is expected: "
            f"install rasterio >= 1.5.2"
        )


def _raises(side_px: int) -> bool:
    corner = (SIDE_PX - side_px) // 2  # centred, so that every read touches all four sources
    with rasterio.Env(), MemoryFile(canary_vrt(), ext=".vrt") as memory:
        try:
            with memory.open(driver="VRT") as dataset:
                dataset.read(1, window=Window(corner, corner, side_px, side_px))
        except RasterioError:
            return True
    return False
