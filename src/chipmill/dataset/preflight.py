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
from chipmill.region.identity import check_named_files, named_files
from chipmill.region.plan import cell_dir, estimate, region_dir
from chipmill.region.tiles import Tile
from chipmill.region.vectors import is_vector, layers_remark

if TYPE_CHECKING:
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
        BadInputError: an encoding of shards that cannot hold the bands.
        SplitError: too few blocks for the splits, blocks that were dealt by other rules, or splits without a window.
        LabelError: no classes, or values that they do not name, as far as a thinned copy of the labels shows.
        AssetReadError: a label raster or a static layer cannot be read.
        AssetMismatchError: a static layer lacks its band or its CRS.
    """
    from chipmill.dataset.cutting import check_storage
    from chipmill.dataset.labels import check_label_values
    from chipmill.dataset.outlook import check_splits
    from chipmill.dataset.static import check_static_layers
    from chipmill.imagery.planning import place_remarks

    check_named_files(region)
    remarks = (*aoi_remarks(region), *place_remarks(region), *(answer.notes if answer else ()))
    check_output(region, tiles)
    check_storage(region)
    remarks += check_splits(region, tiles)
    check_static_layers(region, tiles)
    check_label_values(region, tiles)
    return (*remarks, *_layer_remarks(region))


def _layer_remarks(region: Region) -> tuple[str, ...]:
    """Return which vector files but the AOI's, which is told with it, have several layers, of which one is read."""
    paths = dict.fromkeys(path for name, path in named_files(region).items() if name != "aoi")
    told = [layers_remark(region.resolve(path)) for path in paths if is_vector(path)]
    return tuple(remark for remark in told if remark)


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
