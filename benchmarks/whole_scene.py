"""The region of the end-to-end benchmark: a square of four quarters with three dates each, and a label with a rare class.

Chips of 128 px at a stride of 64 that hold the key class; one split, so that both contenders write the same chips.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import rasterio
import shapely

from benchmarks.archive import Square, make_square, region, waves
from benchmarks.scene import DATES, cover_a_quarter
from chipmill.region.config import Region
from chipmill.region.grid import lattice_of

SLOTS: Final = 4
CHIP_PX: Final = 128
STRIDE_PX: Final = 64
KEY: Final = 1
"""Code and value of the key class."""
MIN_KEY_FRACTION: Final = 0.05
CLASSES: Final = {"0": "ground", "1": "key"}


def make_whole(folder: Path, side_px: int, dates: int = DATES) -> Square:
    """Write the scenes and `label.tif`: 0 everywhere, 1 in blobs that meet about half of the windows."""
    square = make_square(folder / "archive", side_px, dates, scenes=dates)
    for number in range(2, dates, 3):
        cover_a_quarter(square.folder / f"scene-{number}" / "scl.tif")
    label = (waves(side_px, 71.0, shift=0.4) > 0.72).astype(np.uint8)
    lattice = lattice_of(32633, 10.0)
    profile: dict[str, Any] = {
        "driver": "GTiff",
        "count": 1,
        "height": side_px,
        "width": side_px,
        "dtype": "uint8",
        "crs": lattice.crs,
        "transform": lattice.transform(square.window),
        "tiled": True,
        "blockxsize": 512,
        "blockysize": 512,
        "compress": "deflate",
    }
    with rasterio.open(square.folder / "label.tif", "w", **profile) as target:
        target.write(label, 1)
    return square


def whole_region(square: Square, output: Path, tile_px: int) -> Region:
    """Return the region whose dataset is built."""
    dataset = {
        "chips": {"size_px": CHIP_PX, "stride_px": STRIDE_PX, "max_nodata_fraction": 1.0},
        "select": {"key_class": CLASSES[str(KEY)], "min_key_fraction": MIN_KEY_FRACTION},
        "splits": {"train": 1.0, "val": 0.0, "test": 0.0, "block_px": square.side_px},
        "shards": {"target_mb": 32},
    }
    return _labelled(square, region(square, output, tile_px, slots=SLOTS), dataset)


def tiled_region(square: Square, output: Path, tile_px: int, tiles: int) -> Region:
    """Return a region of so many tiles with a chip as large as each, dealt to all splits, in one slot."""
    dataset = {
        "chips": {"size_px": tile_px, "stride_px": tile_px, "max_nodata_fraction": 1.0},
        "splits": {"block_px": tile_px},
        "shards": {"target_mb": 1},
    }
    return _labelled(square, region(square, output, tile_px, tiles=tiles), dataset)


def _labelled(square: Square, plain: Region, dataset: dict[str, Any]) -> Region:
    labels = {"layers": [{"path": str(square.folder / "label.tif")}], "classes": CLASSES}
    # A box needs no library for vector files: with pyogrio come geopandas and pandas, 70 MB of a process.
    bounds = shapely.from_geojson((plain.output_dir.parent / "aoi.geojson").read_text()).bounds
    values = plain.model_dump(mode="json", by_alias=True) | {
        "file": str(plain.file),
        "aoi": {"bbox": bounds, "rule": "centre"},
        "labels": labels,
        "dataset": dataset,
    }
    return Region.model_validate(values)
