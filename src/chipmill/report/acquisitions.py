"""The part of a dataset's page on the choice: per slot the acquisitions that were used and the best that were not.

They are read from the archive, so that an eye can judge what the ranking believed. That is done only where the
region's own file is at hand, and by what it says of the archive: the copy in a version says neither where relative paths
begin nor who wrote it.
"""

import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from affine import Affine

from chipmill.core.errors import ChipmillError, ItemSearchError, TransientReadError
from chipmill.core.paths import VersionDir
from chipmill.core.tables import RANKING, read_table
from chipmill.imagery.catalog import find_items
from chipmill.imagery.evidence import tile_grid
from chipmill.imagery.freeze import read_items
from chipmill.imagery.hrefs import source_root
from chipmill.imagery.items import Item
from chipmill.imagery.reading import Grid
from chipmill.region.config import Region
from chipmill.region.plan import load_tiles
from chipmill.region.tiles import Tile, from_degrees
from chipmill.report.blocks import Block, Gallery, Legend, Picture, Section, Text, section
from chipmill.report.images import Bytes, picture
from chipmill.report.numbers import day, interval, percent, plural
from chipmill.report.quicklooks import CLEAR, DROPPED, SIDE_PX, Look, common_range, draw_look, read_look

_MAX_SHOWN: Final = 32
"""Acquisitions on a page: each takes some files to read and some 50 kB of the page."""
_MOST_USED, _MOST_REFUSED = 6, 3
"""Of one tile and slot."""
_MAX_SECONDS: Final = 120.0
"""After that no further file is opened: the page of a run must not wait for a slow archive."""
_EVIDENCE: Final = {
    "mask": "clear by its mask",
    "cloud_cover": "clear by its metadata",
    "none": "nothing known of clouds",
}

_LEAD: Final = (
    "For each slot the acquisitions that were used and the best that were not, in the order of their rank: left as "
    "the archive has them, all of a slot stretched alike by what is clear in the used ones, right what their mask says."
)


@dataclass(frozen=True, slots=True)
class Choice:
    """What was shown of one imagery, tile and slot, from ranking.parquet."""

    imagery: str
    tile_id: str
    slot: str
    span: tuple[Any, Any]
    """Start and end of the slot."""
    used: tuple[Mapping[str, Any], ...]
    """Rows of the used acquisitions, best first, at most a few."""
    refused: tuple[Mapping[str, Any], ...]
    """Rows of the best ones that were not used and saw something of the tile."""
    counts: tuple[int, int]
    """All used ones, and all that were ranked."""


def choices(rows: Sequence[Mapping[str, Any]], most: int = _MAX_SHOWN) -> tuple[list[Choice], int]:
    """Return which rows of ranking.parquet are shown, tile by tile, and how many tiles' slots are left out.

    At most ``most`` acquisitions are shown in all, the first tile's slots first, whole slots only but for the first.
    """
    groups: dict[tuple[str, str, Any, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        key = (row["tile_id"], row["imagery"], row["slot_start"], row["slot"])
        groups.setdefault(key, []).append(row)
    found: list[Choice] = []
    shown = 0
    for key in sorted(groups):
        one = _choice(groups[key])
        size = len(one.used) + len(one.refused)
        if found and shown + size > most:
            break
        found.append(one)
        shown += size
    return found, len(groups) - len(found)


def _choice(rows: Sequence[Mapping[str, Any]]) -> Choice:
    ranked = sorted((row for row in rows if row["rank"] is not None), key=lambda row: row["rank"])
    used = [row for row in ranked if row["chosen"]]
    refused = [row for row in ranked if not row["chosen"] and row["coverage_fraction"]]
    first = rows[0]
    return Choice(
        first["imagery"],
        first["tile_id"],
        first["slot"],
        (first["slot_start"], first["slot_end"]),
        tuple(used[:_MOST_USED]),
        tuple(refused[:_MOST_REFUSED]),
        (len(used), len(ranked)),
    )


def acquisition_section(version: VersionDir, made_of: Region, own: Region | None) -> Section:
    """Return the quicklooks of the used and the best unused acquisitions of each slot.

    Args:
        version: whose ranking and items are shown.
        made_of: the region that the version was made of, by its copy.
        own: the region as its own file has it, which says where the archive is and who asks; None where it is not at
            hand: then no archive is read and the section says so.
    """
    title = "Used and not used"
    if own is None:
        empty = "The archive is read only where the region file is at hand: `chipmill report REGION.yaml`."
        return section("acquisitions", title, _LEAD, (), empty)
    rows = read_table(version.ranking, RANKING).to_pylist() if version.ranking.exists() else []
    shown, left_out = choices(rows)
    if not shown:
        return section("acquisitions", title, _LEAD, (), "No acquisition was ranked, so there is no choice.")
    archive = _Archive(version, made_of, own)
    blocks: list[Block] = []
    if any(one.mask is not None for one in made_of.imagery):
        blocks.append(
            Legend((("clear", CLEAR), ("dropped by the mask", DROPPED), ("not seen", "transparent")))
        )
    for one in shown:
        blocks += _blocks(one, archive)
    blocks.append(Text(_evidence(archive, [row for one in shown for row in (*one.used, *one.refused)])))
    if left_out:
        blocks.append(Text(f"{plural(left_out, 'more slot')} of other tiles or times in ranking.parquet."))
    return section("acquisitions", title, _LEAD, blocks)


class _Archive:
    """Reads acquisitions of a version, until its time is up or an archive does not answer."""

    def __init__(self, version: VersionDir, made_of: Region, own: Region) -> None:
        self._version = version
        self._region = _placed(made_of, own)
        self._imagery = {one.name: one for one in self._region.imagery}
        self._moved = [one.name for one in made_of.imagery if self._imagery[one.name].source != one.source]
        """Imagery whose items were found elsewhere than where the region's own file says: endpoints are in no fingerprint."""
        lost = self._imagery.keys() - {one.name for one in own.imagery}
        self._silent = {name: f"the region file has no imagery {name} any more" for name in lost}
        """Imagery -> why it is not asked, or not again."""
        self._deadline = time.monotonic() + _MAX_SECONDS

    @cached_property
    def _tiles(self) -> dict[str, Tile]:
        return {tile.tile_id: tile for tile in load_tiles(self._version.tiles)}

    @cached_property
    def _items(self) -> dict[tuple[str, str, str], Item]:
        items = read_items(self._version.items)
        return {_key(item): item for item in items}

    @cached_property
    def _found(self) -> dict[tuple[str, str, str], Item] | str:
        """The items of moved imagery as they are found now, or why they are not."""
        moved = tuple(self._imagery[name] for name in self._moved)
        region = self._region.model_copy(update={"imagery": moved, "indices": ()})
        try:
            return {_key(item): item for item in find_items(region, tuple(self._tiles.values())).items}
        except ChipmillError as error:
            return str(error)

    def ready(self, row: Mapping[str, Any]) -> bool:
        """Tell whether a row is of composites that were made elsewhere: there was nothing to choose."""
        return self._imagery[row["imagery"]].source.composites is not None

    def items(self, row: Mapping[str, Any]) -> tuple[Item, ...]:
        """Return the items of an acquisition, in the order of their ids."""
        return tuple(self._items[row["imagery"], row["acquisition"], one] for one in row["item_ids"])

    def look(self, row: Mapping[str, Any]) -> Look | str:
        """Return the acquisition of a row of ranking.parquet over its tile, or one sentence on why it is not shown."""
        imagery = self._imagery[row["imagery"]]
        if imagery.name in self._silent:
            return self._silent[imagery.name]
        if time.monotonic() > self._deadline:
            return f"reading the quicklooks took more than {_MAX_SECONDS:.0f} s, so the rest is left out"
        try:
            items = self.items(row)
            if imagery.name in self._moved:
                if isinstance(self._found, str):
                    return self._found
                items = tuple(_same(item, self._found) for item in items)
            root = source_root(self._region, imagery.source, imagery.auth)
            return read_look(items, imagery, root, covered_grid(self._tiles[row["tile_id"]]))
        except TransientReadError as error:
            self._silent[imagery.name] = f"its archive does not answer ({error})"
            return self._silent[imagery.name]
        except ChipmillError as error:
            return str(error)


def _placed(made_of: Region, own: Region) -> Region:
    """Return the region of a version with all that its own file says of where its archive is and who asks there."""
    known = {one.name: {"source": one.source, "auth": one.auth} for one in own.imagery}
    imagery = tuple(one.model_copy(update=known.get(one.name, {})) for one in made_of.imagery)
    places = {"file": own.file, "allow_hosts": own.allow_hosts, "tiles": own.tiles}
    return made_of.model_copy(update=places | {"imagery": imagery})


def _key(item: Item) -> tuple[str, str, str]:
    return item.imagery, item.acquisition_id, item.item_id


def _same(item: Item, found: Mapping[tuple[str, str, str], Item]) -> Item:
    """Return an item as it is found now; raises ItemSearchError where it is gone or another than it was."""
    now = found.get(_key(item))
    if now is None or now.identity() != item.identity():
        raise ItemSearchError(
            f"item {item.item_id} of the source in the region file is {'gone' if now is None else 'another one'}"
        )
    return now


def _blocks(one: Choice, archive: _Archive) -> Iterator[Block]:
    """Yield the quicklooks of one choice under their title, then what could not be shown and why."""
    rows = (*one.used, *one.refused)
    looks = [archive.look(row) for row in rows]
    seen = [(row, look) for row, look in zip(rows, looks, strict=True) if isinstance(look, Look)]
    title = f"{one.imagery}, tile {one.tile_id}, {one.slot}: {interval(*one.span)}"
    used, ranked = one.counts
    title += f"; {used} of {plural(ranked, 'acquisition')} used"
    if seen:
        decisive = [look for row, look in seen if row["chosen"]]
        ranges = common_range(decisive or [look for _, look in seen])
        width = draw_look(seen[0][1], ranges).shape[1]
        step = max(1, SIDE_PX // max(seen[0][1].valid.shape))
        pictures = [_picture(row, draw_look(look, ranges), ready=archive.ready(row)) for row, look in seen]
        yield Gallery(tuple((drawn,) for drawn in pictures), title, width * step)
    else:
        yield Text(f"{title}.")
    for row, look in zip(rows, looks, strict=True):
        if isinstance(look, str):
            yield Text(f"{day(row['datetime'])} is not shown: {look}.", "bad")


def _picture(row: Mapping[str, Any], rgba: Bytes, *, ready: bool) -> Picture:
    return picture(rgba, f"Acquisition {row['acquisition']} and its mask", caption(row, ready=ready))


def covered_grid(tile: Tile) -> Grid:
    """Return the pixels around the part of a tile that it answers for: a small area in a large tile shows itself."""
    import shapely

    whole = tile_grid(tile)
    west, south, east, north = from_degrees(shapely.from_wkb(tile.cover), tile.lattice.epsg).bounds
    left, top = ~whole.transform @ (west, north)
    right, bottom = ~whole.transform @ (east, south)
    first = max(0, math.floor(left)), max(0, math.floor(top))
    last = min(whole.width, math.ceil(right)), min(whole.height, math.ceil(bottom))
    if first[0] >= last[0] or first[1] >= last[1]:
        return whole
    place = whole.transform @ Affine.translation(*first)
    return Grid(whole.crs, place, last[0] - first[0], last[1] - first[1])


def caption(row: Mapping[str, Any], *, ready: bool = False) -> str:
    """Return what stands below a quicklook: date, used or why not, clear share and what it was taken from."""
    if ready:
        return f"{day(row['datetime'])}, a composite that was ready"
    share = _EVIDENCE.get(row["evidence"], row["evidence"])
    if row["clear_fraction"] is not None:
        share = f"{percent(row['clear_fraction'])} {share}"
    fate = "used" if row["chosen"] else f"not used: {row['reason']}"
    return f"{day(row['datetime'])}, rank {row['rank']}, {share}; {fate}"


def _evidence(archive: _Archive, rows: Sequence[Mapping[str, Any]]) -> str:
    """Return what the scales and offsets of the shown items rest on."""
    items = {(item.imagery, item.item_id): item for row in rows for item in archive.items(row)}.values()
    scales, offsets = (
        ", ".join(f"{kind} ({number})" for kind, number in sorted(Counter(kinds).items()))
        for kinds in ((item.scale_evidence for item in items), (item.offset_evidence for item in items))
    )
    return f"What the numbers of these {plural(len(items), 'item')} mean rests on: scale {scales}; offset {offsets}."
