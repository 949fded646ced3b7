"""How much memory GDAL may keep decoded blocks in: the file to change for that number.

GDAL's own limit is a twentieth of the machine's memory, for each process. The setting is the whole process's: set for a
moment around the opening of a file, as rasterio's environments do, it holds for none of its reads.
"""

import functools
import os
from typing import Final

CACHE_BYTES: Final = 128 << 20
"""Blocks are read once, so that more would only fill memory; but windows within one row of large blocks come back."""


@functools.cache
def bound_cache() -> None:
    """Bound GDAL's cache in this process, unless the environment does by GDAL_CACHEMAX."""
    from rasterio._env import set_gdal_config

    if "GDAL_CACHEMAX" not in os.environ:
        set_gdal_config("GDAL_CACHEMAX", CACHE_BYTES)
