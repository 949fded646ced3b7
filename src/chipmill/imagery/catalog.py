"""The search: which items a region has, asked once per collection and time range over all its tiles, then frozen.

Whatever the server says is filtered, deduplicated and sorted again here. What is left out is noted with its reason;
an answer that cannot be the whole truth is an error. :mod:`.asking` asks a source of any kind, :mod:`.stac` understands
items, :mod:`.filtering` decides on conditions, :mod:`.freeze` writes and reads items.parquet.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from chipmill.core.errors import BadInputError, ChipmillError, ItemSearchError
from chipmill.core.store import fingerprint, is_good, read_sidecar
from chipmill.imagery.asking import Json, Raw, ask_source
from chipmill.imagery.extent import refuse_outside
from chipmill.imagery.filtering import meets
from chipmill.imagery.freeze import read_items, write_items
from chipmill.imagery.hrefs import source_root
from chipmill.imagery.indices import check_indices
from chipmill.imagery.items import CONTRADICTION, Answer, Item, ItemsRef
from chipmill.imagery.label_items import Bound, labels_of, linked_items
from chipmill.imagery.pushdown import condition_of, either
from chipmill.imagery.stac import parse_item
from chipmill.region.config import Region
from chipmill.region.imagery import Imagery
from chipmill.region.plan import Plan
from chipmill.region.slots import TimeRange, tile_slots
from chipmill.region.tiles import Tile

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

STAGE_VERSION: Final = 1

type Asked = dict[str, list[Raw]]
"""What each source gave, by its key: it is asked once for all entries that have it."""


def find_items(region: Region, tiles: Sequence[Tile]) -> Answer:
    """Search all imagery of a region over all its tiles.

    Raises:
        BadInputError: an index whose bands no imagery has, an imagery entry none of whose items has its bands, or ready
            composites of two days in a slot.
        AoiError: the source has imagery, but nowhere near the tiles.
        ItemSearchError: no answer, not the whole answer, or no item at all for an imagery entry.
    """
    check_indices(region.indices, [imagery.bands for imagery in region.imagery])
    footprints = [tile_area(tile) for tile in tiles if not tile.reject]
    time = _span(region, tiles)
    asked: Asked = {}
    labels = labels_of(region, tiles, footprints) if region.tiles.source_links else {}
    linked: dict[str, Raw] = {}
    items: list[Item] = []
    notes: list[str] = []
    for imagery in region.imagery:
        remarks: list[str] = []
        bound: Bound = {}
        if region.tiles.source_links:
            raw, bound = linked_items(region, imagery, labels, linked, remarks.append)
        else:
            raw = _asked_once(region, imagery, time, footprints, asked, remarks)
        found = [_bind(item, bound) for item in _select(region, imagery, raw, time, footprints, remarks)]
        remarks = [f"{imagery.name}: {remark}" for remark in remarks]
        if not found:
            refuse_outside(region, imagery, [one for one, _ in raw], footprints)
            raise ItemSearchError(_nothing(region, imagery, time, len(raw), remarks))
        remarks += _useless(region, imagery, found)
        items += found
        notes += remarks + _unscaled(imagery, found)
    return Answer(tuple(items), items_fingerprint(items), tuple(notes))


def _key(imagery: Imagery) -> str:
    return imagery.source.model_dump_json() + imagery.auth.model_dump_json()


def _asked_once(
    region: Region,
    imagery: Imagery,
    time: TimeRange,
    footprints: Sequence["BaseGeometry"],
    asked: Asked,
    remarks: list[str],
) -> list[Raw]:
    """Return what the source of an entry gives, asked when no entry before had it, for all entries that have it."""
    key = _key(imagery)
    if key not in asked:
        wanted = either([condition_of(one) for one in region.imagery if _key(one) == key])
        asked[key] = ask_source(
            region, imagery.source, time, footprints, imagery.auth, wanted, remarks.append
        )
    return asked[key]


def _bind(item: Item, bound: Bound) -> Item:
    tiles = bound.get((item.collection, item.item_id), ())
    return dataclasses.replace(item, tiles=tiles) if tiles else item


def items_fingerprint(items: Iterable[Item]) -> str:
    """Return the fingerprint of an answer: over the identity of its items, not over where they lie."""
    # Tiles come last and only where there are some: a list without them keeps the fingerprint that it always had.
    return fingerprint(
        STAGE_VERSION,
        [[item.imagery, *item.identity(), *([item.tiles] if item.tiles else [])] for item in items],
    )


def search_items(plan: Plan) -> ItemsRef:
    """Return the attempt's frozen list, or search and freeze when it has none; raises as :func:`find_items` does."""
    path = plan.version.items
    sidecar = read_sidecar(path)
    if sidecar is not None and is_good(path):
        return ItemsRef(path, sidecar.fingerprint, sidecar.records or 0)
    return freeze_items(plan, find_items(plan.region, plan.tiles()))


def freeze_items(plan: Plan, answer: Answer) -> ItemsRef:
    """Write items.parquet of an attempt, unless it holds this answer already."""
    path = plan.version.items
    if not is_good(path, answer.fingerprint):
        write_items(path, answer.items, answer.fingerprint)
    return ItemsRef(path, answer.fingerprint, len(answer.items))


def load_items(items: ItemsRef) -> tuple[Item, ...]:
    """Return the frozen items in order; hrefs are resolved against the root of their source when they are opened."""
    return read_items(items.path)


def tile_area(tile: Tile) -> "BaseGeometry":
    """Return what a tile answers for, in degrees: its outline cut by its cover."""
    import shapely

    outline = tile.lattice.footprint(tile.window)
    part = outline.intersection(shapely.from_wkb(tile.cover))
    return outline if part.is_empty else part


def _span(region: Region, tiles: Iterable[Tile]) -> TimeRange:
    """Return the time from the first to the last slot of any tile: slots may reach beyond the cell's range."""
    slots = [slot.time for tile in tiles for slot in tile_slots(region, tile.time)]
    return TimeRange(min(slot.start for slot in slots), max(slot.end for slot in slots))


def _select(
    region: Region,
    imagery: Imagery,
    raw: Iterable[Raw],
    time: TimeRange,
    footprints: Sequence["BaseGeometry"],
    remarks: list[str],
) -> list[Item]:
    """Return the items of an imagery entry that it wants, the newest processing of each; remarks are added to."""
    import shapely

    root = source_root(region, imagery.source, imagery.auth)
    tree = shapely.STRtree(footprints)
    newest: dict[tuple[str, str], Item] = {}
    left: Counter[str] = Counter()
    for one, base in raw:
        try:
            item = parse_item(imagery, one, root, base)
        except ChipmillError as error:
            remarks.append(f"left out: {error}")
            continue
        if not time.holds(item.datetime):
            continue
        if not len(tree.query(shapely.from_wkb(item.geometry_wkb), predicate="intersects")):
            continue
        if why := _unwanted(imagery, item, one):
            left[why] += 1
            continue
        key = (item.collection, item.item_id)
        known = newest.get(key)
        left["doubled"] += known is not None
        if known is None or (item.updated or "") > (known.updated or ""):
            newest[key] = item
    if doubled := left.pop("doubled", 0):
        remarks.append(f"{doubled} doubled items: the newest processing of each is used")
    remarks += [f"{count} items {why}" for why, count in sorted(left.items())]
    return sorted(newest.values(), key=lambda item: (item.datetime, item.collection, item.item_id))


def _unwanted(imagery: Imagery, item: Item, raw: Json) -> str:
    """Return why an entry does not want an item by its own conditions, "" where it does."""
    limit, cover = imagery.scene_cloud_max_pct, item.cloud_cover_pct
    if limit is not None and cover is not None and cover > limit:
        return f"above scene_cloud_max_pct {limit:g}"
    met = True if imagery.filter is None else meets(imagery.filter, raw)
    if met is None:
        return "lack what the filter compares, or have it in another type: they do not meet it"
    return "" if met else "do not meet the filter"


def _unscaled(imagery: Imagery, found: Sequence[Item]) -> list[str]:
    """Return a remark on the bands whose scale neither their items nor a profile tell."""
    bands = [
        name
        for name in imagery.bands
        if any(name in item.assets and item.assets[name].scale is None for item in found)
    ]
    if not bands:
        return []
    told = (
        f"{imagery.name}: the items name no scale for {', '.join(bands)}: unless the files do, whole numbers count as "
        f"multiples of out.scale {imagery.out.scale:g} and fractions as they are: set scale_override if that is wrong"
    )
    return [told]


def _useless(region: Region, imagery: Imagery, found: Sequence[Item]) -> list[str]:
    """Return a remark on the items that lack a band or contradict themselves; BadInputError where all of them do.

    With ``offset_check: stop`` one that contradicts itself on its offset is enough.
    """
    useless = [item for item in found if item.problem]
    if not useless:
        return []
    contradicting = [item for item in useless if item.offset_evidence == CONTRADICTION]
    if contradicting and imagery.offset_check == "stop":
        raise BadInputError(
            f"imagery {imagery.name} of {region.name} has {len(contradicting)} of {len(found)} items that contradict "
            f"themselves, and offset_check says stop: {contradicting[0].problem}"
        )
    if len(useless) == len(found):
        raise BadInputError(
            f"imagery {imagery.name} of {region.name}: none of its {len(found)} items can be used: "
            f"{useless[0].problem}: correct imagery.bands and imagery.mask, or mend the items"
        )
    return [f"{imagery.name}: {len(useless)} of {len(found)} items cannot be used: {useless[0].problem}"]


def _nothing(region: Region, imagery: Imagery, time: TimeRange, raw: int, notes: Sequence[str]) -> str:
    why = f" ({'; '.join(notes[:3])})" if notes else ""
    return (
        f"no item of {imagery.source.collection or 'the source'} is left for imagery {imagery.name} of {region.name} "
        f"between {time.start_date} and {time.end_date}, of {raw} that the source gave{why}: "
        "check collection, AOI, time.range, filter and scene_cloud_max_pct"
    )
