"""Composites: one tiled GeoTIFF per tile, slot and imagery, from the acquisitions that the ranking chose.

The file to change for what a composite holds; the arithmetic over time is in :mod:`.kernels`. A composite is named by
what it was made from, so that one that is already good is never made again, and never overwritten by another.
"""

import contextlib
import dataclasses
import functools
import math
import tempfile
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow.compute as pc
import rasterio
from numpy.typing import NDArray
from rasterio.windows import Window

from chipmill.core.errors import AssetReadError, BadInputError, ChipmillError
from chipmill.core.links import refuse_links
from chipmill.core.store import commit_file, fingerprint, is_good
from chipmill.core.tables import RANKING, read_table
from chipmill.core.tiff import BLOCK_PX, IN_MEMORY_BYTES, new_tiff
from chipmill.core.units import Batch, BatchResult, UnitResult, failures, work_batch
from chipmill.imagery import kernels
from chipmill.imagery.ahead import Ahead, read_ahead
from chipmill.imagery.blocks import Counts
from chipmill.imagery.canary import require_safe_gdal
from chipmill.imagery.hrefs import source_root
from chipmill.imagery.indices import index_band
from chipmill.imagery.items import RankingRef
from chipmill.imagery.negatives import Negatives, refuse_doubtful
from chipmill.imagery.orders import STAGE_VERSION, Order, Orders, composite_file
from chipmill.imagery.reducers import reduce_bands
from chipmill.imagery.strips import AHEAD, Strip, StripSource, open_blocks
from chipmill.imagery.workers import Behind
from chipmill.region.imagery import Imagery
from chipmill.region.plan import Plan
from chipmill.region.slots import Slot

STAGE: Final = "composite_tiles"


def composite_tiles(plan: Plan, ranking: RankingRef, batch: Batch) -> BatchResult:
    """Make every composite of the tiles of a batch that is not there yet.

    A tile fails, with all its slots, when one of its files cannot be read, when its ranking failed, or when a slot has
    no acquisition and ``empty`` says fail.
    """
    require_safe_gdal()
    known = Orders(plan, read_table(ranking.path, RANKING, pc.field("tile_id").isin(list(batch.units))))
    unranked = {failure.unit: failure.reason for failure in failures(plan.attempt, ("rank_items",))}

    def orders(unit: str) -> list[tuple[Path, Order, Slot]]:
        tile = plan.tile(unit)
        wanted = [(imagery, slot) for imagery in plan.region.imagery for slot in plan.slots(tile)]
        made = [(known.order(tile, imagery, slot), slot) for imagery, slot in wanted]
        return [(composite_file(plan, tile, slot, order), order, slot) for order, slot in made]

    def work(unit: str) -> UnitResult:
        if unit in unranked:
            raise AssetReadError(f"its acquisitions could not be ranked: {unranked[unit]}")
        todo = orders(unit)
        for _, order, slot in todo:
            _check_empty(order, slot)
        missing = [(path, order) for path, order, _ in todo if not is_good(path, order.fingerprint)]
        # The files of a composite are synced one after the other: meanwhile the next slot is composed.
        with contextlib.closing(strips_of([order for _, order in missing])) as strips, Behind() as behind:
            for path, order in missing:
                write_composite(path, order, strips, behind)
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


def write_composite(
    path: Path, order: Order, strips: Iterator[Ahead] | None = None, behind: Behind | None = None
) -> None:
    """Compose and commit one composite: data bands int (out.dtype), then the counts; tiled, ZSTD 1, predictor 2.

    ``strips`` are those of :func:`strips_of` and stand at the order's first one; None opens the order's files.
    ``behind`` writes and commits it after the call; None does so in the call.

    Raises AssetReadError, TransientReadError, AssetMismatchError, DiskFullError.
    """
    grid = order.grid
    depth, dtype = len(order.names), np.dtype(order.imagery.out.dtype)
    _check_nodata(order.imagery)
    shape = (depth, grid.height, grid.width)
    refuse_links(path.parent)
    path.parent.mkdir(parents=True, exist_ok=True)
    image: NDArray[Any]
    if math.prod(shape) * dtype.itemsize > IN_MEMORY_BYTES:
        with tempfile.TemporaryFile(dir=path.parent) as scratch:
            image = np.asarray(np.memmap(scratch, dtype, "w+", shape=shape))
            _commit(path, order, image, _compose_checked(order, image, strips))
        return
    image = np.empty(shape, dtype)
    finish = functools.partial(_commit, path, order, image, _compose_checked(order, image, strips))
    if behind is None:
        finish()
    else:
        behind.do(finish)


def _commit(path: Path, order: Order, image: NDArray[Any], extra: Mapping[str, Any]) -> None:
    with commit_file(path, order.fingerprint, extra=extra) as temp:
        _write_tiff(temp, image, order)


def _compose_checked(order: Order, image: NDArray[Any], strips: Iterator[Ahead] | None) -> dict[str, Any]:
    """Compose, without the acquisitions whose offset is doubted where they are to be left out; return what is noted."""
    imagery = order.imagery
    negatives = Negatives(order.acquisitions, tuple(imagery.bands))
    saturated = compose(order, image, negatives=negatives, strips=strips)
    doubtful = negatives.doubtful()
    if imagery.offset_check == "stop":
        refuse_doubtful(imagery.name, doubtful)
    if imagery.offset_check == "exclude" and doubtful:
        kept = tuple(one for one in order.acquisitions if one.acquisition_id not in doubtful)
        order = dataclasses.replace(order, acquisitions=kept)
        saturated = compose(order, image)
    noted: dict[str, Any] = {
        "acquisitions": [one.acquisition_id for one in order.acquisitions],
        "saturated_px": saturated,
    }
    shares = {"negative_fraction": negatives.fractions(), "offset_doubtful": doubtful}
    return noted | {name: value for name, value in shares.items() if value}


def _check_nodata(imagery: Imagery) -> None:
    limits = np.iinfo(imagery.out.dtype)
    if not limits.min <= imagery.out.nodata <= limits.max:
        raise BadInputError(
            f"imagery {imagery.name}: out.nodata {imagery.out.nodata} is no {imagery.out.dtype} "
            f"({limits.min}..{limits.max}): choose one of its values"
        )


def strips_of(orders: Sequence[Order], counts: Counts | None = None) -> Generator[Ahead]:
    """Yield the strips of several orders one after the other, read ahead across them; close it when done.

    ``counts`` is told how many source blocks were read. Raises as :func:`write_composite` does.
    """
    ahead = min((AHEAD if order.imagery.engine == "blocks" else 1 for order in orders), default=1)
    return read_ahead([functools.partial(_open, order, counts) for order in orders], ahead)


def compose(
    order: Order,
    image: NDArray[Any],
    counts: Counts | None = None,
    negatives: Negatives | None = None,
    strips: Iterator[Ahead] | None = None,
) -> dict[str, int]:
    """Fill ``image`` (band, y, x) in the order of ``order.names``; return how many pixels of each band saturated.

    ``counts`` is told how many source blocks were read, ``negatives`` how many pixels are negative after the offset;
    ``strips`` are those of :func:`strips_of`, at this order's first one. Raises as :func:`write_composite` does.
    """
    if strips is None:
        with contextlib.closing(strips_of([order], counts)) as own:
            return compose(order, image, negatives=negatives, strips=own)
    saturated = dict.fromkeys(order.names[:-2], 0)
    for source, window, strip, last in strips:
        rows, columns = slice(window.row_off, window.row_end), slice(window.col_off, window.col_end)
        rules = {band: source.rule(band) for band in order.imagery.bands}
        if negatives is not None:
            negatives.add(window, strip, rules)
        for name, count in _reduce(order, rules, strip, image[:, rows, columns]).items():
            saturated[name] += count
        if last:
            break
    return saturated


def _open(order: Order, counts: Counts | None) -> AbstractContextManager[StripSource]:
    """Return the source of strips that the imagery names; a foreign engine is imported only where one is named."""
    root = source_root(order.region, order.imagery.source, order.imagery.auth)
    if order.imagery.engine == "blocks":
        return open_blocks(order, root, counts)
    from chipmill.imagery.engines import open_engine

    return open_engine(order.imagery.engine, order, root)


def _reduce(
    order: Order, rules: Mapping[str, kernels.Conversion], strip: Strip, image: NDArray[Any]
) -> dict[str, int]:
    """Fill a window (band, y, x) of the composite; return the saturated pixels of each band."""
    imagery = order.imagery
    bands = {band: image[place] for place, band in enumerate(imagery.bands)}
    counts = reduce_bands(imagery, strip.values, strip.valid, rules, bands)
    for place, name in enumerate(order.indices, len(bands)):
        out = imagery.out
        rule = kernels.conversion(out.scale, 0.0, out.scale, out.dtype, out.nodata)
        image[place], counts[name] = index_band(name, bands, out.scale, rule, decibels=imagery.unit == "db")
    most = np.iinfo(image.dtype).max
    for place, found in ((-2, strip.counted), (-1, strip.observed)):
        np.minimum(found, most, out=image[place], casting="unsafe")
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
    """Return the side of a block, in pixels, or the next multiple of 16 over a smaller tile."""
    return min(BLOCK_PX, -(-size // 16) * 16)
