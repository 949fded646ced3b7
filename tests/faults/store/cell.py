"""A tiny cell over a static catalog: its inputs, its region, and what a whole run leaves below its output."""

import hashlib
import shutil
from pathlib import Path

import numpy as np
from tests.imagery_world import LATTICE, PLACE, SIDE, Archive, save
from tests.imagery_world import region as imagery_region

from chipmill.core.paths import CellDir
from chipmill.region.config import Region
from chipmill.region.grid import Window
from chipmill.region.plan import cell_dir

CHIP_PX = 16
FIRST: dict = {"select": {"key_class": "tree", "min_key_fraction": 0.5}}
"""Selection of the version that is in force before a second run."""
SECOND: dict = {}
"""Selection of the second run, and of a first one where there is no version yet."""
REDUCED: dict = {"reduce": "mean"}
"""Second run that makes every composite anew: put under "imagery"."""


def make_inputs(folder: Path) -> None:
    """Write the archive and the labels that every cell links to."""
    rng = np.random.default_rng(8)
    shape = (SIDE, SIDE)
    archive = Archive(folder / "archive")
    for when in ("2019-03-01", "2019-05-01"):
        bands = {name: rng.integers(100, 9000, shape).astype(np.uint16) for name in ("red", "nir")}
        archive.scene(when, bands, np.full(shape, 4, np.uint8))
    archive.write()
    save(folder / "label.tif", rng.choice(np.array([10, 20], np.uint8), shape), nodata=255)


def new_cell(inputs: Path, folder: Path) -> Path:
    """Make the folder of a cell with inputs of its own, so that the region files of all cells are the same."""
    return Path(shutil.copytree(inputs, folder))


def region(folder: Path, dataset: dict, imagery: dict | None = None) -> Region:
    """Return the region of a cell folder: two tiles, one slot, eight chips."""
    part = Window(PLACE.col_off + 2, PLACE.row_off + 2, SIDE - 4, SIDE // 2 - 4)
    base = {
        "chips": {"size_px": CHIP_PX, "stride_px": CHIP_PX, "max_nodata_fraction": 1.0},
        "splits": {"block_px": CHIP_PX, "buffer_px": 0},
        "shards": {"target_mb": 0.001},
    }
    return imagery_region(
        folder,
        {"catalog": "archive/catalog.json"},
        aoi={"bbox": list(LATTICE.footprint(part).bounds), "rule": "centre"},
        grid={"crs": "EPSG:32633", "resolution": 10, "tile_px": SIDE // 2},
        imagery=imagery or {},
        labels={"layers": [{"path": "label.tif"}], "classes": {"10": "water", "20": "tree"}},
        dataset=base | dataset,
    )


def cell_of(folder: Path) -> CellDir:
    """Return the directory of the cell below its folder."""
    return cell_dir(region(folder, SECOND))


def copy_cell(folder: Path, target: Path) -> Path:
    """Copy a cell with everything that was made, times included."""
    return Path(shutil.copytree(folder, target))


def tree(root: Path) -> dict[str, str]:
    """Return the sha256 of every file below a directory by its relative name; the locks hold process ids."""
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file() and not path.name.endswith("lock")
    }


def outside_versions(folder: Path) -> dict[str, str]:
    """Return the tree of an output without the versions of its cell and its pointer."""
    cell = cell_of(folder).root.relative_to(folder / "out").as_posix()
    left_out = (f"{cell}/versions/", f"{cell}/CURRENT")
    return {name: sha for name, sha in tree(folder / "out").items() if not name.startswith(left_out)}


def assert_finished(folder: Path, whole: Path, older: int = 0) -> None:
    """Check a cell that was interrupted and run again against one that was not.

    Equal bytes in the version in force and beside the versions, no attempt, no temporary file. A kill between the
    rename of a version and the swap of CURRENT leaves that version behind: it must hold the same bytes, too. The
    first ``older`` versions are from before.
    """
    mine, right = cell_of(folder).versions, cell_of(whole).versions
    wanted = tree(right.current_path())
    assert mine.attempts() == [], "an attempt is left"
    assert list((folder / "out").rglob(".tmp-*")) == [], "a temporary file is left"
    numbers = mine.numbers()
    assert mine.pointer.read_text() == f"{numbers[-1]}\n"
    assert sorted(path.name for path in mine.folder.iterdir()) == sorted(map(str, numbers))
    for number in numbers:
        expected = tree(right.path(number)) if number <= older else wanted
        assert tree(mine.path(number)) == expected, f"version {number} differs"
    assert outside_versions(folder) == outside_versions(whole)
