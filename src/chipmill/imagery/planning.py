"""Tiling the AOI: the first stage. Makes the tiles, opens the attempt, and freezes what each later stage works on."""

import uuid
from collections.abc import Sequence
from typing import Final

from chipmill.core.errors import AoiError, LabelError
from chipmill.core.store import fingerprint, is_good, remove_temporaries, write_json, write_text
from chipmill.core.units import clear_failures, freeze_batches
from chipmill.core.versions import open_attempt, seed
from chipmill.imagery.label_items import find_label_items
from chipmill.region.aoi import read_aoi
from chipmill.region.config import Region
from chipmill.region.identity import config_fingerprint
from chipmill.region.label_tiles import LabelItem, label_item_tiles
from chipmill.region.load import dump_config
from chipmill.region.plan import Plan, cell_dir, region_dir, write_tiles
from chipmill.region.point_tiles import point_remarks, point_tiles, with_point_label
from chipmill.region.slots import cell_range, slot_names
from chipmill.region.tile_files import file_tiles, refuse_shared_windows, tile_remarks
from chipmill.region.tiles import Tile, lattice_tiles
from chipmill.region.windows import count_windows, tile_index
from chipmill.region.years import with_years, year_remarks

STAGE_VERSION: Final = 2
_MEGAPIXEL: Final = 1e6
_SECONDS: Final = {"rank_items": 0.3, "composite_tiles": 1.5, "grid_layers": 0.3, "index_windows": 0.3}
"""Planned seconds per megapixel of a tile (composites: and slot); they only size batches."""
_FRESH: Final = ("items.parquet", "tiles.parquet")
"""Files that a new attempt does not take from the version in force: the search and the tiling make them anew."""


type Placed = tuple[Region, tuple[Tile, ...]]
"""A region, with the classes that its label items name, and its tiles."""


def make_tiles(region: Region) -> tuple[Tile, ...]:
    """Return the tiles of a region in order; asks the label source where tiles are label items.

    Raises AoiError, GridError, RegionFileError or ItemSearchError.
    """
    return place_tiles(region)[1]


def place_tiles(region: Region) -> Placed:
    """Return the tiles, and the region with the classes that its label items name where it names none itself.

    The class of points, where it is the label, has become its layer. Raises as :func:`make_tiles`, LabelError where label
    items name different classes, and AoiError where every tile is rejected.
    """
    placed, laid = _laid(region)
    tiles = with_years(placed, laid)
    if region.tiles.from_ == "file":
        refuse_shared_windows(region, tiles)
    if all(tile.reject for tile in tiles):
        raise AoiError(
            f"all {len(tiles)} tiles of {region.name} are rejected, by tiles.reject or for want of a year: correct the file"
        )
    return placed, tiles


def _laid(region: Region) -> Placed:
    aoi = read_aoi(region)
    match region.tiles.from_:
        case "lattice":
            return region, lattice_tiles(region, aoi)
        case "file":
            return region, file_tiles(region, aoi)
        case "points":
            return with_point_label(region), point_tiles(region, aoi)
        case "label-items":
            items = find_label_items(region, aoi.bounds)
            return _with_classes(region, items), label_item_tiles(region, items, aoi)


def place_remarks(region: Region) -> tuple[str, ...]:
    """Return what of the files of tiles, points and years is not used, one sentence each; none for other tiles.

    Raises as :func:`make_tiles`.
    """
    remarks: tuple[str, ...] = ()
    if region.tiles.from_ == "file":
        remarks = tile_remarks(region, read_aoi(region))
    elif region.tiles.from_ == "points":
        remarks = point_remarks(region, read_aoi(region))
    return remarks if region.tiles.year is None else remarks + year_remarks(region, _laid(region)[1])


def _with_classes(region: Region, items: Sequence[LabelItem]) -> Region:
    if region.labels is None or region.labels.classes:
        return region
    named = dict.fromkeys(item.classes for item in items if item.classes)
    if len(named) > 1:
        raise LabelError(
            f"the label items of {region.name} name different classification:classes: list labels.classes yourself"
        )
    labels = region.labels.model_copy(update={"classes": dict(next(iter(named), ()))})
    return region.model_copy(update={"labels": labels})


def tile_aoi(region: Region, *, fresh: bool = False, placed: Placed | None = None) -> Plan:
    """Return the plan of the region's cell: tiles and batches, frozen in an attempt.

    An open attempt of the same configuration is continued, its failures forgotten; ``fresh`` begins a new one. A new
    attempt takes over the good files of the newest version. ``placed`` saves making the tiles again. Call it under
    the cell's lock.
    """
    config = config_fingerprint(region)
    region, tiles = placed or place_tiles(region)
    versions = cell_dir(region).versions
    attempt = open_attempt(versions, config, fresh=fresh)
    remove_temporaries(region_dir(region).root)
    clear_failures(attempt)
    plan = Plan(region, attempt, config, uuid.uuid4().hex[:12])
    newest = versions.newest()
    if newest is not None and not plan.version.plan.exists():
        seed(attempt, versions.path(newest), leave=_FRESH)
    _freeze(plan, tiles)
    return plan


def _freeze(plan: Plan, tiles: Sequence[Tile]) -> None:
    region, version = plan.region, plan.version
    stamp = fingerprint(STAGE_VERSION, plan.fingerprint, [tile.tile_id for tile in tiles])
    if not is_good(version.tiles, stamp):
        write_tiles(version.tiles, tiles, stamp)
    write_text(version.region_yaml, dump_config(region))
    for stage, seconds in stage_seconds(region, tiles).items():
        freeze_batches(
            plan.attempt, stage, [tile.tile_id for tile in tiles if not tile.reject], seconds, stamp
        )
    labelled = region.labels is not None
    windows = count_windows(tiles, tile_index(tiles), region.dataset.chips) if labelled else 0
    facts = {
        "tiles": len(tiles),
        "windows": windows,
        "slots": slot_names(region),
        "fingerprint": plan.fingerprint,
    }
    write_json(version.plan, facts | {"cell": cell_range(region)})


def stage_seconds(region: Region, tiles: Sequence[Tile]) -> dict[str, float]:
    """Return the stages of a cell that work tile by tile, with the planned seconds per tile."""
    megapixels = max(tile.window.width * tile.window.height for tile in tiles) / _MEGAPIXEL
    stages = {name: seconds * megapixels for name, seconds in _SECONDS.items()}
    stages["composite_tiles"] *= len(slot_names(region)) * len(region.imagery)
    if region.labels is None:
        del stages["index_windows"]
    return stages
