"""Label items: the tiles, dates, grids and classes that they give, and the imagery that they name as their source.

A label item may link to the scenes that it was drawn from (``rel: source``). With ``tiles.source_links`` these links
are the list of items, tile by tile: nothing is searched, and a tile uses no scene that only another one's label names.
"""

import datetime as dt
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin

from chipmill.core.errors import ItemSearchError
from chipmill.core.redact import redact
from chipmill.core.store import sha256_file
from chipmill.imagery.api import fetch_item
from chipmill.imagery.asking import Json, Raw, ask_source, hrefs_of
from chipmill.imagery.hrefs import is_url, resolve_href, source_root
from chipmill.imagery.items import Asset, item_name, mapping
from chipmill.imagery.reach import origin
from chipmill.imagery.sources import open_asset
from chipmill.imagery.stac import find_asset, parse_geometry, parse_time
from chipmill.imagery.static import read_json_file
from chipmill.region.config import Region
from chipmill.region.fields import Source
from chipmill.region.imagery import Imagery
from chipmill.region.label_tiles import LabelItem
from chipmill.region.slots import cell_range
from chipmill.region.tiles import Tile, tile_name

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

type Tell = Callable[[str], object]
type Labels = Mapping[str, Sequence[Raw]]
"""Id of a tile -> its label item; none where the source no longer has it."""
type Bound = dict[tuple[str, str], tuple[str, ...]]
"""(Collection, id) of an item -> ids of the tiles whose labels name it, in order."""


def find_label_items(region: Region, bbox: tuple[float, float, float, float]) -> tuple[LabelItem, ...]:
    """Search the label items of a region whose tiles are label items, and read the grids of their rasters.

    ``bbox`` is west, south, east, north in degrees. Raises ItemSearchError when none is found or one cannot be used,
    AssetReadError when a raster cannot be opened.
    """
    import shapely

    source, key = _label_source(region)
    time, root = cell_range(region), source_root(region, source, region.tiles.auth)
    found: dict[tuple[str, str], LabelItem] = {}
    for raw, base, when in _label_items(region, shapely.box(*bbox)):
        asset = find_asset(raw, key, root, base)
        name = _key(raw)
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


def _label_source(region: Region) -> tuple[Source, str]:
    source, key = region.tiles.source, region.tiles.asset
    if source is None or key is None:
        raise ItemSearchError(
            f"tiles of region {region.name} name no source and asset of label items: add them"
        )
    return source.model_copy(update={"collection": region.tiles.collection or source.collection}), key


def _label_items(region: Region, area: "BaseGeometry") -> Iterator[tuple[Json, str, dt.datetime]]:
    """Yield the label items of the cell in an area: the item, the document that its hrefs are relative to, its date."""
    import shapely

    source, _ = _label_source(region)
    time = cell_range(region)
    for raw, base in ask_source(region, source, time, [area], region.tiles.auth):
        item_id = item_name(raw)
        when = parse_time(mapping(raw.get("properties")), item_id, region.tiles.date)
        if time.holds(when) and shapely.from_wkb(parse_geometry(raw, item_id)[0]).intersects(area):
            yield raw, base, when


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


def labels_of(region: Region, tiles: Sequence[Tile], footprints: Sequence["BaseGeometry"]) -> Labels:
    """Return the label items of tiles, asked for once for all imagery; ``footprints`` are those of these tiles, degrees."""
    import shapely

    names = {tile.source_id: tile.tile_id for tile in tiles if not tile.reject}
    labels: dict[str, list[Raw]] = {tile_id: [] for tile_id in names.values()}
    for raw, base, _ in _label_items(region, shapely.box(*shapely.union_all(list(footprints)).bounds)):
        if (tile_id := names.get(item_name(raw))) is not None:
            labels[tile_id].append((raw, base))
    return labels


def linked_items(
    region: Region, imagery: Imagery, labels: Labels, read: dict[str, Raw], tell: Tell
) -> tuple[list[Raw], Bound]:
    """Return the items of an imagery entry that label items name as their sources, and for which tiles.

    Args:
        region: its tiles are label items.
        imagery: a link counts for the entry in whose source it leads: below the folder of its catalog, or on the host
            of its API, and to an item of its collection.
        labels: made by :func:`labels_of`.
        read: what was read for the entries before, by its place; what is read here is added.
        tell: is called with a sentence on the tiles that have none.

    Raises ItemSearchError where a linked item cannot be read.
    """
    root = source_root(region, imagery.source, imagery.auth)
    wanted: dict[str, Raw] = {}
    bound: dict[tuple[str, str], set[str]] = {}
    without = 0
    for tile_id, label in labels.items():
        keys = set()
        for place in _places(root, label):
            if place not in read:
                read[place] = _read(root, place)
            item = read[place][0]
            if imagery.source.collection in (None, item.get("collection")):
                wanted[place] = read[place]
                keys.add(_key(item))
        for key in keys:
            bound.setdefault(key, set()).add(tile_id)
        without += not keys
    if without:
        tell(
            f"{without} of {len(labels)} label items link to no item of its source: their tiles have none of it"
        )
    return list(wanted.values()), {key: tuple(sorted(found)) for key, found in bound.items()}


def _places(root: str, label: Sequence[Raw]) -> list[str]:
    hrefs = [(base, href) for raw, base in label for href in hrefs_of(raw, "source")]
    return list(dict.fromkeys(place for base, href in hrefs if (place := _place(root, base, href))))


def _key(raw: Json) -> tuple[str, str]:
    return str(raw.get("collection") or ""), item_name(raw)


def _place(root: str, base: str, href: str) -> str | None:
    """Return the URL or path of a link's item where it lies in the source of ``root``, else None."""
    if is_url(href) or is_url(base):
        try:
            url = urljoin(base, href)
            return url if is_url(root) and origin(url) == origin(root) else None
        except ValueError as error:
            raise ItemSearchError(
                f"the link {redact(href[:200])!r} is no URL: mend the label item"
            ) from error
    path = Path(os.path.normpath(Path(base).parent / href.removeprefix("file://")))
    return str(path) if not is_url(root) and "\0" not in href and path.is_relative_to(root) else None


def _read(root: str, place: str) -> Raw:
    if not is_url(place):
        found: Mapping[str, Any] = read_json_file(Path(place))
        if found.get("type") != "Feature":
            raise ItemSearchError(
                f"{place} is no STAC item: expected a Feature: mend the link of the label item"
            )
        return found, place
    return fetch_item(root, place), place
