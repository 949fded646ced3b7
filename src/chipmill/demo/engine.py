"""The search engine behind the local STAC API: a static catalog in memory, filtered in process.

`load_archive` reads any static catalog folder; `search` answers one page of a query. No HTTP here.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from shapely import from_geojson
from shapely.errors import GEOSException
from shapely.geometry.base import BaseGeometry

from chipmill.core.errors import BadInputError
from chipmill.demo.arranging import Sort
from chipmill.demo.conditions import Json, comparable, lookup
from chipmill.demo.query import Query

REMOTE = ("http", "https", "s3", "gs")


@dataclass(frozen=True, slots=True)
class Entry:
    """One item and what searches need of it."""

    item: Json = field(repr=False)  # as on disk, but asset hrefs are absolute paths, or URLs as they were
    collection: str
    item_id: str
    start: datetime
    end: datetime  # equal to `start` for an instant
    geometry: BaseGeometry | None


@dataclass(frozen=True, slots=True)
class Archive:
    """A static catalog in memory."""

    root: Path
    collections: tuple[Json, ...]  # in the order of their ids
    entries: tuple[Entry, ...]  # newest first, then by id
    files: frozenset[Path]  # every asset that lies below `root`


@dataclass(frozen=True, slots=True)
class Page:
    """One page of an answer."""

    entries: tuple[Entry, ...]
    matched: int  # over all pages
    next_token: str | None  # None on the last page


def load_archive(folder: Path) -> Archive:
    """Read the static catalog in `folder` (its `catalog.json` and all that child and item links reach).

    Raises BadInputError when a file is missing or not JSON, when a link or a relative asset leads out of `folder`
    (also through a symbolic link), and when an id occurs twice.
    """
    root = folder.resolve()
    collections: dict[str, Json] = {}
    entries: dict[tuple[str, str], Entry] = {}
    files: set[Path] = set()
    for path, content in _walk(root):
        kind, name = content.get("type"), str(content.get("id"))
        if kind == "Collection":
            if name in collections:
                raise BadInputError(f"catalog {root}: collection {name!r} occurs twice; rename one")
            collections[name] = content
        elif kind == "Feature":
            entry = _entry(_absolute_assets(content, path, root, files), path)
            if entries.setdefault((entry.collection, name), entry) is not entry:
                raise BadInputError(f"catalog {root}: item {name!r} occurs twice; rename one")
    ordered = sorted(collections.items())
    return Archive(root, tuple(c for _, c in ordered), sort_entries(entries.values()), frozenset(files))


def sort_entries(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """Return `entries` newest first, then by id and collection: the order of all answers."""
    return tuple(sorted(entries, key=lambda e: (-e.start.timestamp(), e.item_id, e.collection)))


def search(entries: Collection[Entry], query: Query) -> Page:
    """Return the page of `query` over `entries`, which are in the order of `sort_entries`.

    That order stays among items that `query.order` ranks alike; items without the field come last. Raises
    BadInputError when no item at all has a field of that order.
    """
    for sort in query.order:
        if entries and not any(_rank(entry, sort) for entry in entries):
            raise BadInputError(f"search: no item can be sorted by {sort.name!r}; use one of its properties")
    found = _in_order([entry for entry in entries if matches(entry, query)], query.order)
    stop = query.offset + query.limit
    return Page(tuple(found[query.offset : stop]), len(found), str(stop) if stop < len(found) else None)


def matches(entry: Entry, query: Query) -> bool:
    """Say whether `entry` meets every condition of `query`; touching borders count as intersecting."""
    if query.collections is not None and entry.collection not in query.collections:
        return False
    if query.ids is not None and entry.item_id not in query.ids:
        return False
    if query.start is not None and entry.end < query.start:
        return False
    if query.end is not None and entry.start > query.end:
        return False
    if query.area is not None and (entry.geometry is None or not query.area.intersects(entry.geometry)):
        return False
    return all(condition.holds(entry.item) for condition in query.conditions)


def _rank(entry: Entry, sort: Sort) -> tuple[str, Any] | None:
    if sort.name in ("datetime", "properties.datetime"):  # also of an item that has an interval
        return "time", entry.start
    return comparable(lookup(entry.item, sort.name))


def _in_order(found: list[Entry], order: Sequence[Sort]) -> list[Entry]:
    for sort in reversed(order):
        ranks = [(_rank(entry, sort), entry) for entry in found]
        ranked = [(rank, entry) for rank, entry in ranks if rank is not None]
        ranked.sort(key=lambda pair: pair[0], reverse=sort.descending)
        found = [entry for _, entry in ranked] + [entry for rank, entry in ranks if rank is None]
    return found


def _walk(root: Path) -> Iterator[tuple[Path, Json]]:
    """Yield every catalog, collection and item file once, parents first."""
    waiting, seen = [root / "catalog.json"], set()
    while waiting:
        path = waiting.pop(0)
        if path in seen:
            continue
        seen.add(path)
        content = _read(path)
        yield path, content
        links = (link for link in content.get("links", []) if link.get("rel") in ("child", "item"))
        waiting.extend(_inside(str(link.get("href")), path, root) for link in links)


def _read(path: Path) -> Json:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInputError(f"catalog file {path} cannot be read: {error}; repair it or its link") from error
    if not isinstance(content, dict):
        raise BadInputError(
            f"catalog file {path}: expected a JSON object, got {type(content).__name__}; repair it"
        )
    return content


def _inside(href: str, source: Path, root: Path) -> Path:
    """Return the file that `href` of `source` names; BadInputError when it lies outside of `root`."""
    target = (source.parent / unquote(urlsplit(href).path)).resolve()
    if urlsplit(href).scheme or not target.is_relative_to(root):
        raise BadInputError(f"catalog file {source}: {href!r} leads out of {root}; keep the files below it")
    return target


def _absolute_assets(item: Json, path: Path, root: Path, files: set[Path]) -> Json:
    """Return `item` with local asset hrefs made absolute paths, and note them in `files`."""
    assets = {}
    for key, asset in item.get("assets", {}).items():
        href = str(asset["href"])
        if urlsplit(href).scheme not in REMOTE:
            target = _inside(href, path, root)
            files.add(target)
            href = str(target)
        assets[key] = {**asset, "href": href}
    return {**item, "assets": assets}


def _entry(item: Json, path: Path) -> Entry:
    properties, geometry = item.get("properties", {}), item.get("geometry")
    try:
        first = properties.get("datetime") or properties["start_datetime"]
        last = properties.get("datetime") or properties["end_datetime"]
        shape = None if geometry is None else from_geojson(json.dumps(geometry))
        return Entry(item, str(item["collection"]), str(item["id"]), _time(first), _time(last), shape)
    except (KeyError, ValueError, TypeError, GEOSException) as error:
        raise BadInputError(
            f"item file {path}: needs id, collection, a geometry or null, and a datetime or both ends; got {error!r}"
        ) from error


def _time(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
