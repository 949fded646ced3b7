"""The plan of a cell: what every later stage is given, and the bill before anything is read."""

import dataclasses
import datetime as dt
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Final

import pyarrow as pa

from chipmill.core.paths import CellDir, OutputDir, RegionDir, VersionDir
from chipmill.core.tables import TILES, read_table, write_table
from chipmill.region.config import Region
from chipmill.region.grid import Lattice, Window
from chipmill.region.slots import Slot, TimeRange, cell_range, slot_names, tile_slots
from chipmill.region.tiles import Point, Tile
from chipmill.region.windows import TileIndex, count_windows, iter_windows, tile_index


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """What crosses from stage to stage: the region and the attempt to work in. Small; tables are read where needed."""

    region: Region
    attempt: Path
    """Absolute directory of the attempt."""
    fingerprint: str
    """Of the configuration and the files that it names."""
    run: str
    """Names this try; start marks are counted below it."""

    @property
    def version(self) -> VersionDir:
        """File names of the attempt."""
        return VersionDir(self.attempt)

    @property
    def region_dir(self) -> RegionDir:
        """File names of the region."""
        return region_dir(self.region)

    @property
    def redo(self) -> str:
        """The command that redoes what failed, and only that."""
        return self.region.command("build")

    def tiles(self) -> tuple[Tile, ...]:
        """Return all tiles in order."""
        return load_tiles(self.version.tiles)

    def tile(self, tile_id: str) -> Tile:
        """Return a tile by its id."""
        return _tiles_by_id(*_stamp(self.version.tiles))[tile_id]

    def index(self) -> TileIndex:
        """Return the lattice tiles by their place."""
        return _index(*_stamp(self.version.tiles))

    def slots(self, tile: Tile) -> tuple[Slot, ...]:
        """Return the slots of a tile."""
        return tile_slots(self.region, tile.time)

    def windows(self, tile: Tile) -> list[Window]:
        """Return the candidate windows of a tile, planned from geometry alone."""
        return list(iter_windows(tile, self.index(), self.region.dataset.chips))


def region_dir(region: Region) -> RegionDir:
    """Return the directory of a region."""
    return OutputDir(region.output_dir).region(region.name)


def cell_dir(region: Region) -> CellDir:
    """Return the directory of a region's cell."""
    time = cell_range(region)
    return region_dir(region).cell(time.start_date, time.end_date)


def write_tiles(path: Path, tiles: Sequence[Tile], fingerprint: str) -> None:
    """Write tiles.parquet."""
    rows = [_tile_row(tile) for tile in tiles]
    write_table(path, pa.Table.from_pylist(rows, schema=TILES), TILES, fingerprint)


def _tile_row(tile: Tile) -> dict[str, object]:
    from shapely import to_wkb

    return {
        "tile_id": tile.tile_id,
        "source_id": tile.source_id,
        **dataclasses.asdict(tile.lattice),
        **dataclasses.asdict(tile.window),
        "transform": list(tile.transform)[:6],
        "anchor": tile.anchor,
        "time_start": tile.time.start if tile.time else None,
        "time_end": tile.time.end if tile.time else None,
        "lattice_tile": tile.lattice_tile,
        "label_href": tile.label_href,
        "label_content": tile.label_content,
        "split": tile.split,
        "reject": tile.reject,
        "cover": tile.cover,
        "geometry": to_wkb(tile.lattice.footprint(tile.window)),
        "state": "rejected" if tile.reject else "planned",
        "reason": "",
        "attributes": list(tile.attributes.items()),
        "points": None if tile.points is None else [_point_row(point) for point in tile.points],
    }


def _point_row(point: Point) -> dict[str, object]:
    return dataclasses.asdict(point) | {"attributes": list(point.attributes.items())}


def load_tiles(path: Path) -> tuple[Tile, ...]:
    """Return the tiles of a tiles.parquet in order; kept in memory until the file changes."""
    return _load_tiles(*_stamp(path))


def _stamp(path: Path) -> tuple[Path, int]:
    return path, path.stat().st_mtime_ns


@lru_cache(maxsize=8)
def _load_tiles(path: Path, _changed: int) -> tuple[Tile, ...]:
    return tuple(_tile(row) for row in read_table(path, TILES).to_pylist(maps_as_pydicts="strict"))


@lru_cache(maxsize=8)
def _tiles_by_id(path: Path, changed: int) -> dict[str, Tile]:
    return {tile.tile_id: tile for tile in _load_tiles(path, changed)}


@lru_cache(maxsize=8)
def _index(path: Path, changed: int) -> TileIndex:
    return tile_index(_load_tiles(path, changed))


def _tile(row: dict[str, object]) -> Tile:
    def pick(kind: type) -> dict[str, object]:
        return {field.name: row[field.name] for field in dataclasses.fields(kind)}

    time = None
    start, end = row["time_start"], row["time_end"]
    if isinstance(start, dt.datetime) and isinstance(end, dt.datetime):
        time = TimeRange(start, end)
    values = {field.name: row.get(field.name) for field in dataclasses.fields(Tile)}
    values.update(lattice=Lattice(**pick(Lattice)), window=Window(**pick(Window)), time=time)  # type: ignore[arg-type]
    if isinstance(points := row["points"], list):
        values["points"] = tuple(Point(**point) for point in points)
    return Tile(**values)  # type: ignore[arg-type]


_READ_RATE: Final = 500e6
"""Bytes decoded and reduced per second on two cores: planning figure."""
_WRITE_RATE: Final = 400e6
"""Bytes written and synced per second: planning figure."""
_START_SECONDS: Final = 20.0


@dataclasses.dataclass(frozen=True, slots=True)
class Estimate:
    """Bounds from geometry; no pixel is read for them."""

    tiles: int
    items: int
    """Items that the search found."""
    read_bytes: int
    """At most: every item over every tile that it meets, uncompressed."""
    windows: int
    chips: int
    """At most: every window is kept; dense ones, of which the labels decide, are not in it."""
    shards: int
    write_bytes: int
    """At most: composites, labels and shards, uncompressed."""
    minutes: float
    """At the planning rates of two cores below, start-up of server and cluster included."""


def estimate(region: Region, tiles: Sequence[Tile], items: int, item_pixels: int) -> Estimate:
    """Return the bill of a cell.

    ``item_pixels`` is the sum over tiles and items of the pixels that both share.
    """
    bands = sum(len(imagery.bands) + (imagery.mask is not None) for imagery in region.imagery)
    read_bytes = 2 * item_pixels * bands
    index = tile_index(tiles)
    labelled = region.labels is not None
    chips = region.dataset.chips
    windows = count_windows(tiles, index, chips) if labelled else 0
    sure = count_windows(tiles, index, chips.model_copy(update={"dense": None})) if labelled else 0
    pixels = sum(tile.window.width * tile.window.height for tile in tiles)
    depth = len(stack_bands(region))
    labels = 1 + bool(region.labels and region.labels.confidence and region.labels.confidence.weight)
    shard_bytes = sure * chips.size_px**2 * _record_bytes(region, depth, labels)
    write_bytes = pixels * (2 * depth + 4 * len(slot_names(region)) + labels) + shard_bytes
    shards = -(-shard_bytes // int(region.dataset.shards.target_mb * 1e6))
    seconds = read_bytes / _READ_RATE + write_bytes / _WRITE_RATE + _START_SECONDS
    return Estimate(len(tiles), items, read_bytes, windows, sure, shards, write_bytes, seconds / 60)


def _record_bytes(region: Region, bands: int, labels: int) -> int:
    """Return the bytes of a pixel of a record at most, by its bands and those of its label."""
    if region.dataset.shards.encoding == "float":
        return 4 * (bands + labels)
    types = {one.out.dtype for one in region.imagery} | {one.stored.dtype for one in region.static}
    wide = 4 if {"int16", "uint16"} <= types else 2  # int32 is the smallest type that holds both
    return wide * bands + labels


def stack_bands(region: Region) -> tuple[str, ...]:
    """Return the names of the predictor bands of a stack: slot by slot (file order, then indices), then static."""
    names = [name for imagery in region.imagery for name in imagery.bands] + list(region.indices)
    dynamic = [f"{slot}_{name}" for slot in slot_names(region) for name in names]
    return (*dynamic, *(layer.name for layer in region.static))
