"""A small region that is built for real, its inputs, and the same one built by other rules from the start."""

import hashlib
import shutil
from pathlib import Path

import numpy as np
from benchmarks import chain
from tests.imagery_world import LATTICE, PLACE, SIDE, Archive, save
from tests.imagery_world import region as imagery_region

from chipmill.dataset.manifest import DatasetRef
from chipmill.region.config import Region
from chipmill.region.grid import Window
from chipmill.region.plan import cell_dir, region_dir

BASE: dict = {
    "chips": {"size_px": 16, "stride_px": 8, "max_nodata_fraction": 1.0},
    "splits": {"block_px": 16, "buffer_px": 0},
    "shards": {"target_mb": 0.008},
}
"""Rules ``dataset`` that the region is built by."""


def rules(**parts: dict) -> dict:
    """Return BASE with some fields of some parts replaced."""
    return {name: BASE.get(name, {}) | parts.get(name, {}) for name in BASE.keys() | parts.keys()}


def make_inputs(folder: Path) -> Path:
    """Write archive and labels: nine tenths of one class, the other one in some places."""
    rng = np.random.default_rng(8)
    archive = Archive(folder / "archive")
    for when in ("2019-03-01", "2019-05-01"):
        bands = {name: rng.integers(100, 9000, (SIDE, SIDE)).astype(np.uint16) for name in ("red", "nir")}
        mask = np.where(rng.random((SIDE, SIDE)) < 0.1, 9, 4).astype(np.uint8)
        archive.scene(when, bands, mask)
    archive.write()
    label = (
        np.where(rng.random((SIDE // 4, SIDE // 4)) < 0.2, 20, 10).astype(np.uint8).repeat(4, 0).repeat(4, 1)
    )
    save(folder / "label.tif", label, nodata=255)
    return folder


def region(folder: Path, dataset: dict, **changes) -> Region:
    """Return the region of a folder by some rules: four tiles of 32 px, one slot."""
    part = Window(PLACE.col_off + 2, PLACE.row_off + 2, SIDE - 4, SIDE - 4)
    values = {
        "aoi": {"bbox": list(LATTICE.footprint(part).bounds), "rule": "centre"},
        "grid": {"crs": "EPSG:32633", "resolution": 10, "tile_px": SIDE // 2},
        "labels": {"layers": [{"path": "label.tif"}], "classes": {"10": "water", "20": "tree"}},
        "dataset": dataset,
    }
    return imagery_region(folder, {"catalog": "archive/catalog.json"}, **(values | changes))


def build(folder: Path, dataset: dict, **changes) -> DatasetRef:
    """Build and commit the dataset of a folder by some rules."""
    return chain.build(region(folder, dataset, **changes))


def from_start(made: Path, folder: Path, *, blocks: bool) -> Path:
    """Return a copy of a built folder without a dataset: inputs, composites, layers on the tile grid.

    ``blocks`` keeps the split blocks, which stick to their splits whatever is built.
    """
    shutil.copytree(made, folder)
    own = region(folder, BASE)
    shutil.rmtree(cell_dir(own).root)
    if not blocks:
        for path in region_dir(own).root.glob("blocks*"):
            path.unlink()
    return folder


def tree(root: Path, *left_out: str) -> dict[str, str]:
    """Return the sha256 of every file below a directory by its relative name."""
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name not in left_out
    }
