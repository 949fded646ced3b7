"""Which acquisitions a tile uses in a slot: rank by clear fraction, lower the threshold by steps, choose, say why not.

The rules are in :func:`rank`, a pure function; :mod:`.evidence` measures. Every candidate gets a row with its reason.
"""

import datetime as dt
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import groupby
from typing import Any, Final

import pyarrow as pa

from chipmill.core.store import fingerprint, is_good
from chipmill.core.tables import RANKING, write_table
from chipmill.core.units import Batch, BatchResult, UnitResult, settle, unit_table, work_batch
from chipmill.imagery.canary import require_safe_gdal
from chipmill.imagery.catalog import load_items, tile_area
from chipmill.imagery.evidence import Candidate, Ground, assess
from chipmill.imagery.hrefs import source_root
from chipmill.imagery.items import Item, ItemsRef, RankingRef, acquisitions
from chipmill.imagery.nearest import refusal
from chipmill.region.imagery import Clear, Imagery
from chipmill.region.plan import Plan
from chipmill.region.slots import Slot
from chipmill.region.tiles import Tile

STAGE: Final = "rank_items"
STAGE_VERSION: Final = 2
CHOSEN: Final = "chosen"
_EVIDENCE: Final = ("mask", "cloud_cover", "none")
"""Best first; fractions of different evidence are never compared."""


def rank(candidates: Iterable[Candidate], clear: Clear) -> list[tuple[Candidate, bool, str]]:
    """Return the candidates of a slot, best first, each with whether it is chosen and the reason.

    Evidence of a weaker kind is used only where the stronger kinds gave fewer than ``min_count``; ties go to the
    acquisition nearest to the lower median date of the tied, then by id. All that reach the threshold are used, at
    most ``n_best``; where nothing is known of any cloud (radar), all are.
    """
    ordered: list[tuple[Candidate, bool, str]] = []
    chosen = 0
    by_kind = sorted(
        candidates, key=lambda one: (_EVIDENCE.index(one.evidence), -(one.clear_fraction or 0.0))
    )
    for kind, same_kind in groupby(by_kind, key=lambda one: one.evidence):
        group = _untied(list(same_kind))
        before = chosen
        level = clear_level([one.clear_fraction for one in group if one.clear_fraction is not None], clear)
        for one in group:
            reason = _refusal(one, level)
            if not reason and before >= clear.min_count:
                reason = f"not needed: {before} with better evidence than {kind}"
            if not reason and clear.n_best is not None and chosen >= clear.n_best:
                reason = f"beyond n_best {clear.n_best}"
            chosen += not reason
            ordered.append((one, not reason, reason or CHOSEN))
    return ordered


def clear_level(fractions: Sequence[float], clear: Clear) -> float:
    """Return the threshold after it fell by steps until ``min_count`` fractions reach it, at the lowest ``floor``."""
    level, steps = clear.threshold, 0
    while level > clear.floor and sum(one >= level for one in fractions) < clear.min_count:
        steps += 1
        # Rounded, so that 0.9 minus six times 0.1 is 0.3 and not a little less or more.
        level = max(clear.floor, round(clear.threshold - steps * clear.step, 9))
    return level


def _refusal(one: Candidate, level: float) -> str:
    if one.coverage_fraction == 0:
        return "no data over the tile"
    if one.clear_fraction is None:
        return ""
    if one.clear_fraction == 0:
        return "no clear pixel over the tile"
    return f"clear {one.clear_fraction:.4f} below {level:g}" if one.clear_fraction < level else ""


def _untied(group: list[Candidate]) -> list[Candidate]:
    ordered: list[Candidate] = []
    for _, tied in groupby(group, key=lambda one: one.clear_fraction):
        same = list(tied)
        dates = sorted(one.datetime for one in same)
        middle = dates[(len(dates) - 1) // 2]
        ordered += sorted(same, key=lambda one: (abs(one.datetime - middle), one.acquisition_id))
    return ordered


class TileItems:
    """The region's items by imagery and place: which of them meet a tile."""

    def __init__(self, plan: Plan, items: Sequence[Item]) -> None:
        import shapely

        self._plan = plan
        self._items: dict[str, list[Item]] = {imagery.name: [] for imagery in plan.region.imagery}
        for item in items:
            self._items[item.imagery].append(item)
        self._trees = {
            name: shapely.STRtree([shapely.from_wkb(item.geometry_wkb) for item in found])
            for name, found in self._items.items()
        }
        # What a ranking depends on of an item is put together once, not once per tile that it meets.
        self._stamp = cache(lambda name, place: fingerprint(_identity(self._items[name][place])))

    def meeting(self, tile: Tile, imagery: Imagery) -> tuple[Item, ...]:
        """Return the items of an imagery entry whose footprint meets the tile, in order."""
        return tuple(self._items[imagery.name][place] for place in self._places(tile, imagery))

    def _places(self, tile: Tile, imagery: Imagery) -> list[int]:
        items = self._items[imagery.name]
        found = self._trees[imagery.name].query(tile_area(tile), predicate="intersects")
        # An item that label items name as their source is for their tiles alone.
        return [
            place
            for place in sorted(found.tolist())
            if tile.tile_id in (items[place].tiles or (tile.tile_id,))
        ]

    def fingerprint(self, tile: Tile) -> str:
        """Return what the ranking of a tile depends on."""
        region = self._plan.region
        parts = [
            [
                imagery.name,
                imagery.mask,
                imagery.clear,
                [self._stamp(imagery.name, place) for place in self._places(tile, imagery)],
                *([imagery.nearest.min_date, imagery.nearest.max_date] if imagery.nearest else ()),
            ]
            for imagery in region.imagery
        ]
        place = [tile.lattice.lattice_id, tile.window, tile.cover]
        return fingerprint(STAGE_VERSION, place, self._plan.slots(tile), parts)


def _identity(item: Item) -> list[object]:
    return [item.acquisition_id, item.datetime, item.cloud_cover_pct, item.geometry_wkb, *item.identity()]


def rank_items(plan: Plan, items: ItemsRef, batch: Batch) -> BatchResult:
    """Rank the acquisitions of each tile of a batch, slot by slot; a tile whose mask cannot be read fails."""
    require_safe_gdal()
    index = TileItems(plan, load_items(items))

    def work(unit: str) -> UnitResult:
        rows = list(tile_rows(plan, plan.tile(unit), index))
        return UnitResult(pa.Table.from_pylist(rows, schema=RANKING))

    return work_batch(plan.attempt, plan.run, batch, work, lambda unit: index.fingerprint(plan.tile(unit)))


def tile_rows(plan: Plan, tile: Tile, index: TileItems) -> Iterator[dict[str, Any]]:
    """Yield the rows of ranking.parquet of a tile: by imagery, slot and rank, then the items that cannot be used."""
    ground = Ground(tile)
    for imagery in plan.region.imagery:
        root = source_root(plan.region, imagery.source, imagery.auth)
        known: dict[tuple[str, tuple[str, ...]], Candidate] = {}
        met = index.meeting(tile, imagery)
        for slot in plan.slots(tile):
            inside = [item for item in met if slot.time.holds(item.datetime)]
            candidates: list[Candidate] = []
            refused: list[tuple[Candidate, str]] = []
            for one in acquisitions(item for item in inside if not item.problem):
                if why := refusal(imagery.nearest, one.datetime):
                    refused.append(
                        (_unseen(one.acquisition_id, one.datetime, one.item_ids, one.cloud_cover_pct), why)
                    )
                    continue
                key = (one.acquisition_id, one.item_ids)
                # Slots may overlap; a mask is read once per tile all the same.
                if key not in known:
                    known[key] = assess(one, ground, imagery.mask, root)
                candidates.append(known[key])
            for place, (candidate, chosen, reason) in enumerate(rank(candidates, imagery.clear), 1):
                yield _row(tile, imagery, slot, candidate, place, chosen, reason)
            for item in (item for item in inside if item.problem):
                unseen = _unseen(item.acquisition_id, item.datetime, (item.item_id,), item.cloud_cover_pct)
                refused.append((unseen, item.problem))
            for unseen, why in refused:
                yield _row(tile, imagery, slot, unseen, None, False, why)


def _unseen(name: str, when: dt.datetime, item_ids: tuple[str, ...], cover_pct: float | None) -> Candidate:
    """Return a candidate that is refused before its mask is looked at."""
    return Candidate(name, when, item_ids, None, 0.0, cover_pct, "none")


def _row(
    tile: Tile, imagery: Imagery, slot: Slot, one: Candidate, place: int | None, chosen: bool, reason: str
) -> dict[str, Any]:
    when: dt.datetime = one.datetime
    return {
        "tile_id": tile.tile_id,
        "imagery": imagery.name,
        "slot": slot.name,
        "slot_start": slot.time.start,
        "slot_end": slot.time.end,
        "acquisition": one.acquisition_id,
        "datetime": when,
        "item_ids": list(one.item_ids),
        "clear_fraction": one.clear_fraction,
        "coverage_fraction": one.coverage_fraction,
        "cloud_cover_pct": one.cloud_cover_pct,
        "evidence": one.evidence,
        "rank": place,
        "chosen": chosen,
        "reason": reason,
    }


def close_ranking(plan: Plan, items: ItemsRef) -> RankingRef:
    """Merge the rows of all tiles into ranking.parquet.

    Raises TilesFailedError when a tile failed and the region says stop.
    """
    lost = settle(plan.attempt, (STAGE,), plan.region.on_failed, plan.redo)
    table = unit_table(plan.attempt, STAGE)
    table = table if table.num_columns else RANKING.empty_table()
    index = TileItems(plan, load_items(items))
    tiles = [index.fingerprint(tile) for tile in plan.tiles() if not tile.reject]
    stamp = fingerprint(STAGE_VERSION, tiles, sorted(one.unit for one in lost))
    path = plan.version.ranking
    if not is_good(path, stamp):
        write_table(path, table, RANKING, stamp)
    chosen = int(sum(table.column("chosen").to_pylist()))
    return RankingRef(path, stamp, table.num_rows, chosen)
