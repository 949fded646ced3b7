"""The value objects of this room: an item as we need it, its assets, the acquisitions that items form, and references.

An item is what one imagery entry of the region sees of a STAC item: its own bands and mask, each with the scale and
offset that were decided on. Nothing here reads or writes.
"""

import dataclasses
import datetime as dt
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from chipmill.core.errors import ItemSearchError
from chipmill.core.plain import quoted

_MAX_ID: Final = 512
MASK: Final = "mask"
"""The name under which an item's assets hold the mask; bands have the names of the region file."""
CONTRADICTION: Final = "contradiction"
"""The evidence of an offset of which an item says two things."""


@dataclasses.dataclass(frozen=True, slots=True)
class Asset:
    """One band of one file, and what is said of it."""

    key: str
    """The asset's key in its item."""
    href: str
    """Unsigned; relative to the root of its source where it lies below it."""
    band: int = 1
    """Band of the file, from 1."""
    scale: float | None = None
    """Physical value = DN * scale + offset; None = nobody told it at the search."""
    offset: float = 0.0
    """In physical units."""
    nodata: float | None = None
    """DN that means no data; counts only where the file itself names none."""
    bytes: int | None = None
    """Size of the file: file:size, or that of the local file."""
    checksum: str | None = None
    """file:checksum (multihash)."""
    epsg: int | None = None
    """What the item says of the file's CRS; the file is believed, and a contradiction is an error."""
    shape: tuple[int, int] | None = None
    """The same of its rows and columns."""
    transform: tuple[float, ...] | None = None
    """The same of its affine transform, six numbers."""


@dataclasses.dataclass(frozen=True, slots=True)
class Item:
    """A STAC item as one imagery entry sees it."""

    imagery: str
    collection: str
    item_id: str
    datetime: dt.datetime
    """UTC; the start where the item has an interval."""
    platform: str
    cloud_cover_pct: float | None
    """eo:cloud_cover, per cent."""
    geometry_wkb: bytes
    """Footprint, EPSG:4326."""
    bbox: tuple[float, float, float, float]
    """West, south, east, north in degrees."""
    updated: str | None
    assets: Mapping[str, Asset]
    """Our band name, or "mask" -> asset; in the order of the region file, the mask last."""
    scale_evidence: str = "none"
    """Where the scale comes from: override, declared, the name of a profile, none; several joined by +."""
    offset_evidence: str = "none"
    """Where the offset comes from: override, boa_offset_applied, declared, baseline, the name of a profile, none; or
    contradiction, where the item says two things of it and is not used."""
    problem: str = ""
    """Why the item cannot be used: it is left out of every slot with this reason."""
    tiles: tuple[str, ...] = ()
    """Ids of the tiles that it is for, where their label items name it as their source; empty: any that it meets."""

    @property
    def solar_day(self) -> dt.date:
        """Local day at the footprint's centre, by its longitude (15 degrees an hour)."""
        west, _, east, _ = self.bbox
        middle = (west + east + (360.0 if east < west else 0.0)) / 2.0
        return (self.datetime + dt.timedelta(hours=middle / 15.0)).date()

    @property
    def acquisition_id(self) -> str:
        """``<collection>/<platform>/<solar day>``: what is ranked and reduced as one."""
        return f"{self.collection}/{self.platform}/{self.solar_day.isoformat()}"

    def identity(self) -> list[object]:
        """What a product that was made from this item depends on; no href, so that a moved archive changes nothing."""
        assets = [
            [
                name,
                asset.key,
                asset.band,
                asset.checksum or asset.bytes,
                asset.scale,
                asset.offset,
                asset.nodata,
            ]
            for name, asset in sorted(self.assets.items())
        ]
        return [self.collection, self.item_id, self.updated, assets, self.problem]


@dataclasses.dataclass(frozen=True, slots=True)
class Acquisition:
    """All items of one collection, platform and solar day; where several hold a pixel, the first valid one counts."""

    acquisition_id: str
    datetime: dt.datetime
    """Of its earliest item."""
    items: tuple[Item, ...]
    """In the order of their ids."""

    @property
    def item_ids(self) -> tuple[str, ...]:
        """The ids of its items, in their order."""
        return tuple(item.item_id for item in self.items)

    @property
    def cloud_cover_pct(self) -> float | None:
        """Mean eo:cloud_cover of its items, per cent; None where one of them has none."""
        covers = [item.cloud_cover_pct for item in self.items]
        known = [cover for cover in covers if cover is not None]
        return sum(known) / len(known) if known and len(known) == len(covers) else None


def acquisitions(items: Iterable[Item]) -> tuple[Acquisition, ...]:
    """Group the items of one imagery entry, in the order of time and id."""
    groups: dict[str, list[Item]] = {}
    for item in items:
        groups.setdefault(item.acquisition_id, []).append(item)
    made = [acquisition(group) for group in groups.values()]
    return tuple(sorted(made, key=lambda one: (one.datetime, one.acquisition_id)))


def acquisition(items: Iterable[Item]) -> Acquisition:
    """Return the acquisition of items of one collection, platform and solar day, at least one."""
    ordered = tuple(sorted(items, key=lambda item: item.item_id))
    return Acquisition(ordered[0].acquisition_id, min(item.datetime for item in ordered), ordered)


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """What a search found, before it is frozen."""

    items: tuple[Item, ...]
    """In the order of imagery, time, collection and id."""
    fingerprint: str
    """Over the items' identity: equal answers have equal fingerprints, wherever the archive lies."""
    notes: tuple[str, ...] = ()
    """What was left out, and why: one sentence each."""


def changes(before: Iterable[Item], now: Iterable[Item]) -> str:
    """Return how two answers of a search differ, for people: ``2 items new, 1 gone, 3 changed``.

    Changed are those whose :meth:`Item.identity` or tiles are others.
    """
    old, new = (
        {(one.imagery, one.collection, one.item_id): [one.identity(), one.tiles] for one in items}
        for items in (before, now)
    )
    changed = sum(old[key] != new[key] for key in old.keys() & new.keys())
    return f"{len(new.keys() - old.keys())} items new, {len(old.keys() - new.keys())} gone, {changed} changed"


@dataclasses.dataclass(frozen=True, slots=True)
class ItemsRef:
    """The frozen answer: items.parquet."""

    path: Path
    fingerprint: str
    count: int


@dataclasses.dataclass(frozen=True, slots=True)
class RankingRef:
    """ranking.parquet."""

    path: Path
    fingerprint: str
    rows: int
    chosen: int


def mapping(value: Any) -> Mapping[str, Any]:
    """Return a part of raw JSON that should be an object, an empty one where it is something else."""
    return value if isinstance(value, Mapping) else {}


def links_of(node: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    """Return the links of a catalog's file or of a page of a search; raises ItemSearchError where they are no links.

    None that cannot be read is passed over: the list of items would look whole without what it leads to.
    """
    links = node.get("links") or []
    if not isinstance(links, list) or not all(isinstance(link, Mapping) for link in links):
        raise ItemSearchError(
            f"{name} has links that are none, expected a list of objects: mend the file or server"
        )
    return links


def item_name(raw: Mapping[str, Any]) -> str:
    """Return the id of an item, any text that a table can hold; it becomes a file name only by ``tile_name``.

    Raises ItemSearchError where it is missing or too long, or where a text of the item is not Unicode.
    """
    item_id = raw.get("id")
    if not isinstance(item_id, str) or not 0 < len(item_id) <= _MAX_ID:
        raise ItemSearchError(
            f"item id {quoted(str(item_id))} is no text of 1 to {_MAX_ID} characters: mend the item"
        )
    try:
        json.dumps(raw, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise ItemSearchError(
            f"item {quoted(item_id)} holds text that is not Unicode: mend the item"
        ) from error
    return item_id
