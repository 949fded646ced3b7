"""What every composite of a cell is made of, and where it lies: the frozen items and the ranking, indexed once.

The file to change for which acquisitions a composite uses, in which order, and for what its name depends on.
"""

import dataclasses
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from chipmill.core.store import fingerprint
from chipmill.imagery.evidence import tile_grid
from chipmill.imagery.freeze import read_items
from chipmill.imagery.indices import indices_of
from chipmill.imagery.items import Acquisition, Item
from chipmill.imagery.nearest import nearness, reference_day
from chipmill.imagery.reading import Grid
from chipmill.region.config import Region
from chipmill.region.imagery import Imagery
from chipmill.region.plan import Plan
from chipmill.region.slots import Slot
from chipmill.region.tiles import Tile

STAGE_VERSION: Final = 1
"""Of the composites: raise it when the same order gives other pixels."""
VALID_COUNT: Final = "valid_count"
OBSERVED_COUNT: Final = "observed_count"
_USED: Final = ("tile_id", "imagery", "slot", "acquisition", "datetime", "item_ids", "rank")


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
        how: list[object] = [
            list(imagery.bands),
            imagery.mask,
            imagery.reduce,
            imagery.resampling,
            imagery.out,
            list(self.indices),
        ]
        if imagery.unit == "db":
            how.append(imagery.unit)
        if imagery.offset_check != "warn":
            how.append(imagery.offset_check)
        if imagery.engine != "blocks" and imagery.resampling != "nearest":  # with nearest all engines agree
            how.append(imagery.engine)
        where = [grid.crs, [float(number).hex() for number in grid.transform[:6]], grid.width, grid.height]
        what = [[item.identity() for item in one.items] for one in self.acquisitions]
        return fingerprint(STAGE_VERSION, how, where, what)


class Orders:
    """The orders of a plan's composites. The ranking is walked and the items are read once, whatever is asked."""

    def __init__(self, plan: Plan, ranking: pa.Table) -> None:
        """``ranking`` is ranking.parquet as a table, or the rows of it that belong to the tiles in question."""
        self._plan = plan
        self._chosen = ranking.filter(pc.field("chosen")).select(_USED)
        self._places: dict[str, list[int]] = {}
        for place, tile_id in enumerate(self._chosen.column("tile_id").to_pylist()):
            self._places.setdefault(tile_id, []).append(place)

    def order(self, tile: Tile, imagery: Imagery, slot: Slot) -> Order:
        """Return what the composite of a tile, imagery and slot is made of."""
        acquisitions = self.acquisitions(tile, imagery, slot)
        if imagery.mask is not None and imagery.mask.use == "rank":
            imagery = imagery.model_copy(
                update={"mask": None}
            )  # it has done its work: no pixel depends on it
        return Order(self._plan.region, imagery, tile_grid(tile), acquisitions)

    def path(self, tile: Tile, imagery: Imagery, slot: Slot) -> Path:
        """Return where that composite lies."""
        return composite_file(self._plan, tile, slot, self.order(tile, imagery, slot))

    def acquisitions(self, tile: Tile, imagery: Imagery, slot: Slot) -> tuple[Acquisition, ...]:
        """Return the chosen acquisitions in the order of the reduction."""
        places = pa.array(self._places.get(tile.tile_id, []), pa.int64())
        rows = self._chosen.take(places).to_pylist()
        wanted = [row for row in rows if (row["imagery"], row["slot"]) == (imagery.name, slot.name)]
        return tuple(self._acquisition(imagery, row) for row in _in_order(wanted, imagery, tile, slot))

    def _acquisition(self, imagery: Imagery, row: dict[str, Any]) -> Acquisition:
        name = row["acquisition"]
        items = tuple(self._items[imagery.name, name, item_id] for item_id in row["item_ids"])
        return Acquisition(name, row["datetime"], items)

    @cached_property
    def _items(self) -> dict[tuple[str, str, str], Item]:
        ids = {item_id for row in self._chosen.column("item_ids").to_pylist() for item_id in row}
        items = read_items(self._plan.version.items, ids)
        return {(item.imagery, item.acquisition_id, item.item_id): item for item in items}


def _in_order(
    rows: Sequence[dict[str, Any]], imagery: Imagery, tile: Tile, slot: Slot
) -> list[dict[str, Any]]:
    """Return rows of the ranking in the order of the reduction: by rank, by nearness, or by time and id."""
    if imagery.reduce == "least-cloudy":
        return sorted(rows, key=lambda row: row["rank"])
    if imagery.reduce == "nearest":
        day = reference_day(imagery.nearest, tile.time, slot.time)
        return sorted(rows, key=lambda row: nearness(day, row["datetime"], row["acquisition"]))
    return sorted(rows, key=lambda row: (row["datetime"], row["acquisition"]))


def composite_file(plan: Plan, tile: Tile, slot: Slot, order: Order) -> Path:
    """Return where the composite of an order lies: its name holds the order's fingerprint."""
    return plan.region_dir.composite(
        order.imagery.name, slot.time.start_date, slot.time.end_date, tile.tile_id, order.fingerprint
    )


def composite_path(plan: Plan, ranking: pa.Table, tile: Tile, imagery: Imagery, slot: Slot) -> Path:
    """Return where one composite lies; whoever asks for many keeps an :class:`Orders`."""
    return Orders(plan, ranking).path(tile, imagery, slot)
