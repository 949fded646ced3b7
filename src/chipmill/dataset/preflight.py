"""Everything that can be known to be wrong before a pixel is read, a server started or an attempt opened.

The one list of such checks, cheapest first; the command line and flows call it between the search and the work. A
check raises an error of bad input (exit code 2) or returns sentences that people should read. What depends on a train
file is in :mod:`chipmill.learning.preflight`.
"""

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from chipmill.core.errors import OutputError
from chipmill.region.aoi import aoi_remarks
from chipmill.region.config import Region
from chipmill.region.identity import check_named_files
from chipmill.region.plan import cell_dir, estimate, region_dir
from chipmill.region.tiles import Tile
from chipmill.region.windows import iter_windows, tile_index

if TYPE_CHECKING:
    from chipmill.dataset.places import Places
    from chipmill.imagery.items import Answer


def check_region(region: Region, tiles: Sequence[Tile], answer: "Answer | None" = None) -> tuple[str, ...]:
    """Run all checks of a region before its cell is worked on, and return what people should be told.

    Nothing is left behind in the output. AOI, bands and indices are judged where they are read: by
    :func:`chipmill.imagery.planning.place_tiles` and :func:`chipmill.imagery.catalog.find_items`, which come before.

    Args:
        region: with the classes that its label items bring, as ``place_tiles`` returns it.
        tiles: all tiles of the cell.
        answer: of the search, whose notes are passed on.

    Raises:
        RegionFileError: a file that the region names cannot be opened.
        OutputError: the output cannot be written, or has less room than the run may need.
        SplitError: too few blocks for the splits, or blocks that were dealt by other rules.
        LabelError: no classes, or values that they do not name, as far as a thinned copy of the labels shows.
        AssetReadError: a label raster cannot be read.
    """
    from chipmill.dataset.labels import check_label_values

    check_named_files(region)
    remarks = (*aoi_remarks(region), *(answer.notes if answer else ()))
    check_output(region, tiles)
    check_blocks(region, tiles)
    check_label_values(region, tiles)
    return remarks


def check_output(region: Region, tiles: Sequence[Tile]) -> None:
    """Raise OutputError where the cell's folder cannot be written, or the bound of the estimate has no room there.

    What the region holds already counts as room: good files are taken over, not written again.
    """
    place = nearest_existing(cell_dir(region).root)
    try:
        # made and removed at once: access bits say nothing of mounts that are read-only
        with tempfile.TemporaryDirectory(prefix=".chipmill-check-", dir=place):
            pass
        free = shutil.disk_usage(place).free
    except OSError as error:
        raise OutputError(
            f"the output {region.output_dir} cannot be written at {place} ({error.strerror}): choose another output, "
            "or mend its rights"
        ) from error
    need = estimate(region, tiles, 0, 0).write_bytes
    if need > free and need > free + _held_bytes(region_dir(region).root):
        raise OutputError(
            f"the disk is full for this run: {region.name} may write up to {need:,} bytes to {region.output_dir}, and "
            f"{free:,} are free: free some, choose another output, or take fewer tiles, bands or chips"
        )


def nearest_existing(path: Path) -> Path:
    """Return a path, or the nearest of the folders above it that exists (a file, where one stands in the way)."""
    return next(place for place in (path, *path.parents) if place.exists())


def _held_bytes(folder: Path) -> int:
    """Return the bytes of all files below a folder, each hard link once."""
    stats = [path.lstat() for path in folder.rglob("*") if path.is_file()]
    return sum({(one.st_dev, one.st_ino): one.st_size for one in stats}.values())


def check_blocks(region: Region, tiles: Sequence[Tile]) -> None:
    """Raise SplitError where the tiles' geometry alone leaves too few blocks, or their blocks have other rules.

    Tiles whose source brings the split, and regions whose blocks are dealt already, need none.
    """
    from chipmill.dataset.blocks import check_places, read_blocks

    if region.labels is None:
        return
    rules = region.dataset.splits
    free = [tile for tile in tiles if tile.split is None and not tile.reject]
    if free and not read_blocks(region_dir(region).blocks, rules).splits:
        check_places(_places(region, tiles, free), rules)


def _places(region: Region, tiles: Sequence[Tile], free: Sequence[Tile]) -> "Places":
    import numpy as np

    from chipmill.dataset.places import Places

    index, chips = tile_index(tiles), region.dataset.chips
    found = [(tile, window) for tile in free for window in iter_windows(tile, index, chips)]
    lattices = np.array([tile.lattice.lattice_id for tile, _ in found], dtype=object)
    fields = ("col_off", "row_off", "width", "height")
    columns = [np.array([getattr(one, field) for _, one in found], dtype=np.int64) for field in fields]
    return Places(lattices, *columns)
