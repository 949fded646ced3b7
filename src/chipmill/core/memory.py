"""How much memory libraries may keep for later in a process that works for us: the file to change for such a limit.

Each is set once, for the whole process, by the rooms that read and write; the libraries' own variables of the
environment go first.
"""

import functools
import os
from typing import Final

CACHE_BYTES: Final = 128 << 20
"""Blocks are read once, so that more would only fill memory; but windows within one row of large blocks come back."""


@functools.cache
def bound_cache() -> None:
    """Bound GDAL's cache of decoded blocks, unless the environment does by GDAL_CACHEMAX.

    GDAL's own limit is a twentieth of the machine's memory, for each process. The setting is the whole process's: set
    for a moment around the opening of a file, as rasterio's environments do, it holds for none of its reads.
    """
    from rasterio._env import set_gdal_config

    if "GDAL_CACHEMAX" not in os.environ:
        set_gdal_config("GDAL_CACHEMAX", CACHE_BYTES)


@functools.cache
def plain_tables() -> None:
    """Have pyarrow take its memory from the C library, unless the environment names a pool by ARROW_DEFAULT_MEMORY_POOL.

    Its default (mimalloc) keeps for itself what a table has freed, for tables alone: some 30 MB after the first few.
    """
    import pyarrow as pa

    if "ARROW_DEFAULT_MEMORY_POOL" not in os.environ:
        pa.set_memory_pool(pa.system_memory_pool())
