"""Raw items of the sources that are listed here, not asked for: item files, files by a pattern, ready composites.

One function for all of them, so that the search treats them like any other: it filters, dedupes and sorts by itself.
"""

import datetime as dt
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from chipmill.imagery.archive import archive_items, find_files
from chipmill.imagery.geoparquet import parquet_items
from chipmill.imagery.hrefs import source_path, source_root
from chipmill.imagery.objects import open_object, read_object
from chipmill.imagery.ready import ready_times
from chipmill.imagery.static import MAX_BYTES, collection_items, page_items, parse_json
from chipmill.imagery.stores import is_store, object_url
from chipmill.region.aoi import Bounds
from chipmill.region.config import Region
from chipmill.region.fields import Auth, Source
from chipmill.region.patterns import Reading, parse_pattern
from chipmill.region.slots import TimeRange

type Listed = Iterator[tuple[Mapping[str, Any], str]]
"""(raw item, path or URL of the document that its hrefs are relative to)."""


def listed_items(region: Region, source: Source, time: TimeRange, bounds: Bounds, auth: Auth) -> Listed:
    """Yield the raw items of a source of kind ``items``, ``files`` or ``composites``.

    ``time`` (half-open) and ``bounds`` (west, south, east, north in degrees) only spare work: items outside of them
    may be given. ``auth`` is that of the entry. Raises ItemSearchError, BadInputError and AssetReadError as the readers
    of each kind do.
    """
    if source.files is not None or source.composites is not None:
        place = source_path(region, source)
        found = _of_pattern(region, source, place.parent, time, bounds)
        return ((raw, str(place)) for raw in found)
    given = source.items or ""
    if is_store(given):
        listed = _of_store(given, source_root(region, source, auth), source.collection, time, bounds)
    else:
        listed = _of_path(source_path(region, source), source.collection, time, bounds)
    in_store = is_store(given) or auth.kind == "s3"
    return ((_by_url(raw), base) for raw, base in listed) if in_store else listed


def _of_pattern(
    region: Region, source: Source, folder: Path, time: TimeRange, bounds: Bounds
) -> Iterator[Mapping[str, Any]]:
    archive = find_files(folder, parse_pattern(source.files or source.composites or ""))
    ready = source.composites is not None
    times = ready_times(region, (one.reading for one in archive.entries)) if ready else {}

    def when(reading: Reading) -> dt.datetime | None:
        if ready:
            return times.get((reading.start, reading.end))
        return reading.day if reading.start < time.end and time.start < reading.end else None

    # composites made anew are often of the same size
    return archive_items(archive, collection=source.collection, bounds=bounds, when=when, checksums=ready)


def _of_path(path: Path, collection: str | None, time: TimeRange, bounds: Bounds) -> Listed:
    if not _is_parquet(path.name):
        return collection_items(path, collection)
    rows = parquet_items(path, str(path), collection=collection, time=time, bounds=bounds)
    return ((raw, str(path)) for raw in rows)


def _of_store(place: str, root: str, collection: str | None, time: TimeRange, bounds: Bounds) -> Listed:
    base = object_url(place)
    if not _is_parquet(place):
        page = parse_json(read_object(place, root, MAX_BYTES), place)
        yield from ((raw, base) for raw, _ in page_items(page, place, collection))
        return
    with open_object(place, root) as stream:
        for raw in parquet_items(stream, place, collection=collection, time=time, bounds=bounds):
            yield raw, base


def _is_parquet(name: str) -> bool:
    return name.lower().endswith((".parquet", ".geoparquet"))


def _by_url(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return an item whose hrefs of objects (s3://) are the URLs of these objects in the store."""
    assets = raw.get("assets")
    if not isinstance(assets, Mapping):
        return raw
    return {**raw, "assets": {key: _asset_by_url(asset) for key, asset in assets.items()}}


def _asset_by_url(asset: Any) -> Any:
    href = asset.get("href") if isinstance(asset, Mapping) else None
    return {**asset, "href": object_url(href)} if isinstance(href, str) and is_store(href) else asset
