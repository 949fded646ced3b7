"""Composites: one tiled GeoTIFF per tile, slot and imagery, from the acquisitions that the ranking chose.

The file to change for what a composite holds; the arithmetic over time is in :mod:`.kernels`. A composite is named by
what it was made from, so that one that is already good is never made again, and never overwritten by another.
"""

import dataclasses
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import rasterio
from numpy.typing import NDArray
from rasterio.windows import Window

from chipmill.core.errors import AssetReadError, BadInputError, ChipmillError
from chipmill.core.links import refuse_links
from chipmill.core.store import commit_file, fingerprint, is_good
from chipmill.core.tables import RANKING, read_table
from chipmill.core.tiff import IN_MEMORY_BYTES, new_tiff
from chipmill.core.units import Batch, BatchResult, UnitResult, failures, work_batch
from chipmill.imagery import kernels
from chipmill.imagery.canary import require_safe_gdal
from chipmill.imagery.evidence import tile_grid
from chipmill.imagery.freeze import read_items
from chipmill.imagery.hrefs import source_root
from chipmill.imagery.indices import index_band, indices_of
from chipmill.imagery.items import Acquisition, Item, RankingRef
from chipmill.imagery.reading import Grid, ReaderPool
from chipmill.imagery.strips import Strip, StripReader
from chipmill.region.config import Region
from chipmill.region.imagery import Imagery
from chipmill.region.plan import Plan
from chipmill.region.slots import Slot
from chipmill.region.tiles import Tile

STAGE: Final = "composite_tiles"
STAGE_VERSION: Final = 1
VALID_COUNT: Final = "valid_count"
OBSERVED_COUNT: Final = "observed_count"
BLOCK_PX: Final = 512

Reducer = Callable[[NDArray[Any], NDArray[np.bool_], kernels.Conversion, NDArray[Any]], int]
_REDUCERS: Final[Mapping[str, Reducer]] = {
    "median": kernels.reduce_median,
    "mean": kernels.reduce_mean,
    "least-cloudy": kernels.reduce_first,
    "first-valid": kernels.reduce_first,
}


@dataclasses.dataclass(frozen=True, slots=True)
class Order:
    """What one composite is made of and how."""

    region: Region
    imagery: Imagery
    grid: Grid
    acquisitions: tuple[Acquisition, ...]
    """In the order in which they are reduced."""

    @property
    def indices(self) -> tuple[str, ...]:
        """The indices that this imagery's bands allow, in the order of the region file."""
        return indices_of(self.region.indices, self.imagery.bands)

    @property
    def names(self) -> tuple[str, ...]:
        """Band names in order: bands, indices, the two counts."""
        return (*self.imagery.bands, *self.indices, VALID_COUNT, OBSERVED_COUNT)

    @property
    def fingerprint(self) -> str:
        """Over all that the pixels depend on."""
        imagery, grid = self.imagery, self.grid
        how = [
            list(imagery.bands),
            imagery.mask,
            imagery.reduce,
            imagery.resampling,
            imagery.out,
            list(self.indices),
        ]
        where = [grid.crs, [float(number).hex() for number in grid.transform[:6]], grid.width, grid.height]
        what = [[item.identity() for item in one.items] for one in self.acquisitions]
        return fingerprint(STAGE_VERSION, how, where, what)


def composite_tiles(plan: Plan, ranking: RankingRef, batch: Batch) -> BatchResult:
    """Make every composite of the tiles of a batch that is not there yet.

    A tile fails, with all its slots, when one of its files cannot be read, when its ranking failed, or when a slot has
    no acquisition and ``empty`` says fail.
    """
    require_safe_gdal()
    table = read_table(ranking.path, RANKING)
    unranked = {failure.unit: failure.reason for failure in failures(plan.attempt, ("rank_items",))}

    def orders(unit: str) -> list[tuple[Path, Order, Slot]]:
        tile = plan.tile(unit)
        wanted = [(imagery, slot) for imagery in plan.region.imagery for slot in plan.slots(tile)]
        return [(*_planned(plan, table, tile, imagery, slot), slot) for imagery, slot in wanted]

    def work(unit: str) -> UnitResult:
        if unit in unranked:
            raise AssetReadError(f"its acquisitions could not be ranked: {unranked[unit]}")
        todo = orders(unit)
        for _, order, slot in todo:
            _check_empty(order, slot)
        for path, order, _ in todo:
            if not is_good(path, order.fingerprint):
                write_composite(path, order)
        return UnitResult(products=tuple(path for path, _, _ in todo))

    def unit_fingerprint(unit: str) -> str:
        return fingerprint(
            STAGE_VERSION, [(order.fingerprint, order.imagery.empty) for _, order, _ in orders(unit)]
        )

    return work_batch(plan.attempt, plan.run, batch, work, unit_fingerprint)


def _check_empty(order: Order, slot: Slot) -> None:
    if order.imagery.empty == "fail" and not order.acquisitions:
        raise ChipmillError(
            f"slot {slot.name} ({slot.time.start_date} to {slot.time.end_date}) of imagery {order.imagery.name} has no "
            "acquisition that is clear enough, and empty says fail: lower clear.floor, or set empty to skip or fill"
        )


def composite_path(plan: Plan, ranking: pa.Table, tile: Tile, imagery: Imagery, slot: Slot) -> Path:
    """Return where the composite of a tile, imagery and slot lies; ``ranking`` is ranking.parquet as a table."""
    return _planned(plan, ranking, tile, imagery, slot)[0]


def _planned(plan: Plan, ranking: pa.Table, tile: Tile, imagery: Imagery, slot: Slot) -> tuple[Path, Order]:
    order = Order(
        plan.region, imagery, tile_grid(tile), chosen_acquisitions(plan, ranking, tile, imagery, slot)
    )
    time = slot.time
    path = plan.region_dir.composite(
        imagery.name, time.start_date, time.end_date, tile.tile_id, order.fingerprint
    )
    return path, order


def chosen_acquisitions(
    plan: Plan, ranking: pa.Table, tile: Tile, imagery: Imagery, slot: Slot
) -> tuple[Acquisition, ...]:
    """Return the chosen acquisitions in the order of the reduction: by rank for least-cloudy, else by time and id."""
    wanted = (
        (pc.field("tile_id") == tile.tile_id)
        & (pc.field("imagery") == imagery.name)
        & (pc.field("slot") == slot.name)
        & pc.field("chosen")
    )
    rows = ranking.filter(wanted).select(["acquisition", "datetime", "item_ids", "rank"]).to_pylist()
    by_rank = imagery.reduce == "least-cloudy"
    rows.sort(key=lambda row: row["rank"] if by_rank else (row["datetime"], row["acquisition"]))
    known: dict[tuple[str, str, str], Item] = (
        {(item.imagery, item.acquisition_id, item.item_id): item for item in read_items(plan.version.items)}
        if rows
        else {}
    )
    return tuple(
        Acquisition(
            row["acquisition"],
            row["datetime"],
            tuple(known[imagery.name, row["acquisition"], item_id] for item_id in row["item_ids"]),
        )
        for row in rows
    )


def write_composite(path: Path, order: Order) -> None:
    """Compose and commit one composite: data bands int (out.dtype), then the counts; tiled, ZSTD 1, predictor 2.

    Raises AssetReadError, TransientReadError, AssetMismatchError, DiskFullError.
    """
    grid = order.grid
    depth, dtype = len(order.names), np.dtype(order.imagery.out.dtype)
    _check_nodata(order.imagery)
    size = depth * grid.height * grid.width * dtype.itemsize
    refuse_links(path.parent)
    path.parent.mkdir(parents=True, exist_ok=True)
    extra: dict[str, Any] = {"acquisitions": [one.acquisition_id for one in order.acquisitions]}
    with tempfile.TemporaryFile(dir=path.parent) as scratch:
        image: NDArray[Any]
        if size > IN_MEMORY_BYTES:
            image = np.asarray(np.memmap(scratch, dtype, "w+", shape=(depth, grid.height, grid.width)))
        else:
            image = np.empty((depth, grid.height, grid.width), dtype)
        extra["saturated_px"] = compose(order, image)
        with commit_file(path, order.fingerprint, extra=extra) as temp:
            _write_tiff(temp, image, order)


def _check_nodata(imagery: Imagery) -> None:
    limits = np.iinfo(imagery.out.dtype)
    if not limits.min <= imagery.out.nodata <= limits.max:
        raise BadInputError(
            f"imagery {imagery.name}: out.nodata {imagery.out.nodata} is no {imagery.out.dtype} "
            f"({limits.min}..{limits.max}): choose one of its values"
        )


def compose(order: Order, image: NDArray[Any]) -> dict[str, int]:
    """Fill ``image`` (band, y, x) in the order of ``order.names``; return how many pixels of each band saturated."""
    saturated = dict.fromkeys(order.names[:-2], 0)
    root = source_root(order.region, order.imagery.source, order.imagery.auth)
    with ReaderPool() as pool:
        reader = StripReader(pool, order.acquisitions, order.imagery, root, order.grid)
        step = min(BLOCK_PX, reader.rows_at_once())
        for row in range(0, order.grid.height, step):
            rows = min(step, order.grid.height - row)
            strip = reader.read(row, rows)
            counts = _reduce(order, reader, strip, image[:, row : row + rows])
            for name, count in counts.items():
                saturated[name] += count
    return saturated


def _reduce(order: Order, reader: StripReader, strip: Strip, image: NDArray[Any]) -> dict[str, int]:
    """Fill a strip (band, y, x) of the composite; return the saturated pixels of each band."""
    imagery = order.imagery
    counts: dict[str, int] = {}
    bands: dict[str, NDArray[Any]] = {}
    for place, band in enumerate(imagery.bands):
        bands[band] = image[place]
        counts[band] = _REDUCERS[imagery.reduce](
            strip.values[band], strip.valid, reader.rule(band), image[place]
        )
    for place, name in enumerate(order.indices, len(bands)):
        out = imagery.out
        rule = kernels.conversion(out.scale, 0.0, out.scale, out.dtype, out.nodata)
        image[place], counts[name] = index_band(name, bands, out.scale, rule)
    top = np.iinfo(image.dtype).max
    image[-2] = np.minimum(np.count_nonzero(strip.valid, axis=0), top)
    image[-1] = np.minimum(strip.observed, top)
    return counts


def _write_tiff(path: Path, image: NDArray[Any], order: Order) -> None:
    """Write in one go, after all sources are closed: then the order of blocks in the file is always the same."""
    grid, out = order.grid, order.imagery.out
    profile = {
        "driver": "GTiff",
        "dtype": out.dtype,
        "count": len(order.names),
        "width": grid.width,
        "height": grid.height,
        "crs": grid.crs,
        "transform": grid.transform,
        "nodata": out.nodata,
        "tiled": True,
        "blockxsize": _block(grid.width),
        "blockysize": _block(grid.height),
        "compress": "zstd",
        "zstd_level": 1,
        "predictor": 2,
        "interleave": "band",
        "bigtiff": "if_safer",
    }
    with rasterio.Env(GDAL_PAM_ENABLED="NO"), new_tiff(path, profile, image.nbytes) as target:
        target.descriptions = order.names
        data = len(order.names) - 2
        target.scales = (out.scale,) * data + (1.0, 1.0)
        for place in range(len(order.names)):
            for row in range(0, grid.height, BLOCK_PX):
                part = image[place, row : row + BLOCK_PX]
                target.write(part, place + 1, window=Window(0, row, grid.width, part.shape[0]))


def _block(size: int) -> int:
    """Return the side of a block: 512 px, or the next multiple of 16 over a smaller tile."""
    return min(BLOCK_PX, -(-size // 16) * 16)
