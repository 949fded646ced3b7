"""GDAL's cache of blocks is bounded for the whole process, also while files are read and after."""

import os
import subprocess
import sys

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


def _sizes(path, **environment):
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(path)],
        capture_output=True,
        text=True,
        check=True,
        env={name: value for name, value in os.environ.items() if name != "GDAL_CACHEMAX"} | environment,
    )
    return [int(text) for text in done.stdout.split()]


def test_the_bound_holds_while_a_file_is_read_and_after(tmp_path):
    assert _sizes(tmp_path / "a.tif") == [128 << 20] * 2


def test_the_environment_has_the_last_word(tmp_path):
    assert _sizes(tmp_path / "a.tif", GDAL_CACHEMAX="200") == [200 << 20] * 2
