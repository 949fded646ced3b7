"""The cheapest grid of cells that runs for real: regions of one tile of 64 px without labels, a scene in each quarter."""

import itertools
from pathlib import Path

import numpy as np
from tests import imagery_world

from chipmill.region.load import dump_config

QUARTERS = ("2019-01-01", "2019-04-01", "2019-07-01", "2019-10-01", "2020-01-01")
SPANS = tuple(itertools.pairwise(QUARTERS))
PERIODS = tuple(f"{start}--{end}" for start, end in SPANS)


def archive(folder: Path) -> Path:
    """Write one scene for each quarter; return the path of catalog.json."""
    made = imagery_world.Archive(folder)
    pixels = np.full((imagery_world.SIDE, imagery_world.SIDE), 1000, np.uint16)
    mask = np.full(pixels.shape, imagery_world.CLEAR, np.uint8)
    for number, day in enumerate(QUARTERS[:-1]):
        bands = {"red": pixels + number, "nir": pixels + 2 * number}
        made.scene(f"{day[:8]}15", bands, mask)
    return made.write()


def region_file(folder: Path, name: str, catalog: Path, **changes) -> Path:
    """Write a region file over the archive's tile, for the whole year; return its path."""
    source = {"catalog": str(catalog), "collection": "toy"}
    made = imagery_world.region(folder, source, name=name, output="out", **changes)
    path = folder / f"{name}.yaml"
    path.write_text(dump_config(made))
    return path


def asset(catalog: Path, period: str, band: str = "red") -> Path:
    """The file of a band in the scene of a period."""
    return catalog.parent / f"s{period[:8]}15" / f"{band}.tif"
