"""What libraries keep for later is bounded for the whole process, also while files are read and after."""

import os
import subprocess
import sys

import pytest

CHILD = """
import sys
import numpy as np, rasterio
from affine import Affine
from rasterio._env import get_gdal_config
from chipmill.imagery.sources import open_asset
path = sys.argv[1]
with rasterio.open(path, "w", driver="GTiff", count=1, height=8, width=8, dtype="uint8", crs="EPSG:32633",
                   transform=Affine(10, 0, 0, 0, -10, 0)) as target:
    target.write(np.ones((1, 8, 8), np.uint8))
sizes = []
with open_asset(path) as dataset:
    dataset.read()
    sizes.append(get_gdal_config("GDAL_CACHEMAX"))
sizes.append(get_gdal_config("GDAL_CACHEMAX"))
print(*sizes)
"""


TABLES = """
import sys
from pathlib import Path
import pyarrow as pa
from chipmill.core.tables import read_table, write_parquet
if sys.argv[2] == "read":
    import pyarrow.parquet as pq
    pq.write_table(pa.table({"a": [1]}), sys.argv[1])
    read_table(Path(sys.argv[1]))
else:
    write_parquet(Path(sys.argv[1]), pa.table({"a": [1]}))
print(pa.default_memory_pool().backend_name)
"""


def _said(child, *arguments, **environment):
    chosen = ("GDAL_CACHEMAX", "ARROW_DEFAULT_MEMORY_POOL")
    done = subprocess.run(
        [sys.executable, "-c", child, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=True,
        env={name: value for name, value in os.environ.items() if name not in chosen} | environment,
    )
    return done.stdout.split()


def _sizes(path, **environment):
    return [int(text) for text in _said(CHILD, path, **environment)]


def test_the_bound_holds_while_a_file_is_read_and_after(tmp_path):
    assert _sizes(tmp_path / "a.tif") == [128 << 20] * 2


def test_the_environment_has_the_last_word(tmp_path):
    assert _sizes(tmp_path / "a.tif", GDAL_CACHEMAX="200") == [200 << 20] * 2


@pytest.mark.parametrize("way", ["read", "write"])
def test_tables_lie_in_the_memory_that_all_else_uses(tmp_path, way):
    assert _said(TABLES, tmp_path / "a.parquet", way) == ["system"]
    named = _said(TABLES, tmp_path / "a.parquet", way, ARROW_DEFAULT_MEMORY_POOL="mimalloc")
    assert named == ["mimalloc"]
