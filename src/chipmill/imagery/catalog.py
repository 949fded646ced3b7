"""The search: which items a region has, asked once per collection and time range over all its tiles, then frozen.

Whatever the server says is filtered, deduplicated and sorted again here. What is left out is noted with its reason;
an answer that cannot be the whole truth is an error. :mod:`.api` asks servers, :mod:`.static` reads catalogs from
disk, :mod:`.stac` understands items, :mod:`.freeze` writes and reads items.parquet.
"""

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from chipmill.core.errors import BadInputError, ChipmillError, ItemSearchError
from chipmill.core.store import fingerprint, is_good, read_sidecar, sha256_file
from chipmill.imagery.api import search_api
from chipmill.imagery.extent import refuse_outside
from chipmill.imagery.freeze import read_items, write_items
from chipmill.imagery.hrefs import is_url, resolve_href, source_path, source_root
from chipmill.imagery.indices import check_indices
from chipmill.imagery.items import Answer, Asset, Item, ItemsRef, item_name
from chipmill.imagery.sources import open_asset
from chipmill.imagery.stac import find_asset, parse_item, parse_time
from chipmill.imagery.static import catalog_items, collection_items
from chipmill.region.config import Region
from chipmill.region.fields import Auth, Source
from chipmill.region.imagery import Imagery
from chipmill.region.plan import Plan
from chipmill.region.slots import TimeRange, cell_range, tile_slots
from chipmill.region.tiles import LabelItem, Tile, tile_name

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

STAGE_VERSION: Final = 1
Json = Mapping[str, Any]
_FILLED: Final = 0.5
"""Share of its bbox that a region must fill for the bbox to be asked: a thin one is asked by its outline."""
_MAX_VERTICES: Final = 500
"""Of the outline that is sent; a finer one is replaced by its hull, and the filter here is exact anyway."""


def find_items(region: Region, tiles: Sequence[Tile]) -> Answer:
    """Search all imagery of a region over all its tiles.

    Raises:
        BadInputError: an index whose bands no imagery has, or an imagery entry none of whose items has its bands.
        AoiError: the source has imagery, but nowhere near the tiles.
        ItemSearchError: no answer, not the whole answer, or no item at all for an imagery entry.
    """
    check_indices(region.indices, [imagery.bands for imagery in region.imagery])
    footprints = [tile_area(tile) for tile in tiles if not tile.reject]
    time = _span(region, tiles)
    raw: dict[str, list[tuple[Json, str]]] = {}
    items: list[Item] = []
    notes: list[str] = []
    for imagery in region.imagery:
        key = imagery.source.model_dump_json() + imagery.auth.model_dump_json()
        if key not in raw:
            raw[key] = _ask(region, imagery.source, time, footprints, imagery.auth)
        found, remarks = _select(region, imagery, raw[key], time, footprints)
        if not found:
            refuse_outside(region, imagery, [one for one, _ in raw[key]], footprints)
            raise ItemSearchError(_nothing(region, imagery, time, len(raw[key]), remarks))
        remarks += _useless(region, imagery, found)
        items += found
        notes += remarks
    return Answer(tuple(items), items_fingerprint(items), tuple(notes))


def items_fingerprint(items: Iterable[Item]) -> str:
    """Return the fingerprint of an answer: over the identity of its items, not over where they lie."""
    return fingerprint(STAGE_VERSION, [[item.imagery, *item.identity()] for item in items])


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


def find_label_items(region: Region, bbox: tuple[float, float, float, float]) -> tuple[LabelItem, ...]:
    """Search the label items of a region whose tiles are label items, and read the grids of their rasters.

    ``bbox`` is west, south, east, north in degrees. Raises ItemSearchError when none is found or one cannot be used,
    AssetReadError when a raster cannot be opened.
    """
    source, key = region.tiles.source, region.tiles.asset
    if source is None or key is None:
        raise ItemSearchError(
            f"tiles of region {region.name} name no source and asset of label items: add them"
        )
    import shapely

    source = source.model_copy(update={"collection": region.tiles.collection or source.collection})
    area, time, root = shapely.box(*bbox), cell_range(region), source_root(region, source)
    found: dict[tuple[str, str], LabelItem] = {}
    for raw, base in _ask(region, source, time, [area]):
        when = parse_time(raw.get("properties") or {}, str(raw.get("id")), region.tiles.date)
        shape = shapely.geometry.shape(raw["geometry"])
        if not time.holds(when) or not shape.intersects(area):
            continue
        asset = find_asset(raw, key, root, base)
        name = (str(raw.get("collection")), item_name(raw))
        classes = label_classes(raw["assets"][asset.key])
        found[name] = _label_item(name[1], when, asset, resolve_href(root, asset.href), classes)
    if not found:
        raise ItemSearchError(
            f"no label item of {source.collection or 'any collection'} lies in the AOI of {region.name} "
            f"between {time.start_date} and {time.end_date}: check tiles.source, tiles.collection and time.range"
        )
    return tuple(sorted(found.values(), key=lambda one: (one.time, one.item_id)))


def label_classes(asset: Json) -> tuple[tuple[str, str], ...]:
    """Return (value, class name) of an asset's ``classification:classes``, names made file-safe, in their order."""
    listed = asset.get("classification:classes") or []
    return tuple((str(one["value"]), tile_name(str(one.get("name", one["value"])))) for one in listed)


def _label_item(
    item_id: str, when: dt.datetime, asset: Asset, location: str, classes: tuple[tuple[str, str], ...]
) -> LabelItem:
    with open_asset(location) as dataset:
        epsg = dataset.crs.to_epsg() if dataset.crs else None
        if epsg is None:
            raise ItemSearchError(
                f"the label raster of {item_id} names no EPSG code for its CRS: reproject it to one that has a code"
            )
        content = f"{asset.checksum or asset.bytes}" if is_url(location) else sha256_file(Path(location))
        grid = dataset.transform, dataset.width, dataset.height
        return LabelItem(item_id, when, asset.href, epsg, *grid, content, classes)


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


def _ask(
    region: Region,
    source: Source,
    time: TimeRange,
    footprints: Sequence["BaseGeometry"],
    auth: Auth | None = None,
) -> list[tuple[Json, str]]:
    """Return raw items of a source, each with the document that its hrefs are relative to."""
    if source.stac is not None:
        area = _area(footprints)
        span = "/".join(
            when.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ") for when in (time.start, time.end)
        )
        found = search_api(
            source_root(region, source, auth), collection=source.collection, datetime=span, **area
        )
        return [(raw, _self_link(raw) or source.stac.rstrip("/") + "/") for raw in found]
    read = catalog_items if source.catalog is not None else collection_items
    return list(read(source_path(region, source), source.collection))


def _self_link(raw: Json) -> str | None:
    links = raw.get("links")
    for link in links if isinstance(links, list) else []:
        if isinstance(link, Mapping) and link.get("rel") == "self":
            return str(link.get("href") or "") or None
    return None


def _area(footprints: Sequence["BaseGeometry"]) -> dict[str, Any]:
    """Return bbox or intersects of the union of all tiles."""
    import shapely

    union = shapely.union_all(footprints)
    if union.area >= _FILLED * shapely.box(*union.bounds).area:
        return {"bbox": list(union.bounds)}
    if shapely.get_num_coordinates(union) > _MAX_VERTICES:
        union = shapely.convex_hull(union)
    return {"intersects": shapely.geometry.mapping(union)}


def _select(
    region: Region,
    imagery: Imagery,
    raw: Iterable[tuple[Json, str]],
    time: TimeRange,
    footprints: Sequence["BaseGeometry"],
) -> tuple[list[Item], list[str]]:
    """Return the items of an imagery entry that lie in space and time, newest processing of each, and remarks."""
    import shapely

    root = source_root(region, imagery.source, imagery.auth)
    tree = shapely.STRtree(footprints)
    newest: dict[tuple[str, str], Item] = {}
    notes: list[str] = []
    doubled = cloudy = 0
    for one, base in raw:
        try:
            item = parse_item(imagery, one, root, base)
        except ChipmillError as error:
            notes.append(f"{imagery.name}: left out: {error}")
            continue
        if not time.holds(item.datetime):
            continue
        if not len(tree.query(shapely.from_wkb(item.geometry_wkb), predicate="intersects")):
            continue
        limit, cover = imagery.scene_cloud_max_pct, item.cloud_cover_pct
        if limit is not None and cover is not None and cover > limit:
            cloudy += 1
            continue
        key = (item.collection, item.item_id)
        known = newest.get(key)
        doubled += known is not None
        if known is None or (item.updated or "") > (known.updated or ""):
            newest[key] = item
    if doubled:
        notes.append(f"{imagery.name}: {doubled} doubled items: the newest processing of each is used")
    if cloudy:
        notes.append(
            f"{imagery.name}: {cloudy} items above scene_cloud_max_pct {imagery.scene_cloud_max_pct:g}"
        )
    return sorted(newest.values(), key=lambda item: (item.datetime, item.collection, item.item_id)), notes


def _useless(region: Region, imagery: Imagery, found: Sequence[Item]) -> list[str]:
    """Return a remark on the items that lack a band or contradict themselves; BadInputError where all of them do."""
    useless = [item for item in found if item.problem]
    if not useless:
        return []
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
        "check collection, AOI, time.range and scene_cloud_max_pct"
    )
