"""Own archives without STAC: files whose names say what they are become items, by a pattern and their headers.

The file to change for what an item of such an archive holds. Each file that the time range needs is opened once, its
pixels are not read. The files are found below the pattern's folder alone: links that lead out of it are refused.
"""

import dataclasses
import datetime as dt
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from affine import Affine

from chipmill.core.errors import AssetReadError, ItemSearchError
from chipmill.core.plain import quoted
from chipmill.imagery.sources import open_asset
from chipmill.region.aoi import Bounds
from chipmill.region.identity import content_hash
from chipmill.region.patterns import BAND, Pattern, Reading

if TYPE_CHECKING:
    from rasterio.io import DatasetReader
    from shapely.geometry.base import BaseGeometry

type Json = dict[str, Any]
_MAX_FILES: Final = 1_000_000
_ONE_FILE: Final = "data"
"""Key of the asset where all bands are in one file."""
_SEGMENTS: Final = 8
"""An outline's edges are cut so often before it is turned into degrees."""
_SHA256: Final = "1220"
"""Multihash prefix of file:checksum."""
_EXTENSIONS: Final = (
    "https://stac-extensions.github.io/file/v2.1.0/schema.json",
    "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
    "https://stac-extensions.github.io/raster/v2.0.0/schema.json",
)


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """The files of one item, and what their names say."""

    item_id: str
    reading: Reading
    files: Mapping[str, str]
    """Key of the asset -> path below the archive's folder."""


@dataclasses.dataclass(frozen=True, slots=True)
class Archive:
    """The files of a folder that fit a pattern."""

    folder: Path
    """Absolute; the pattern's."""
    pattern: Pattern
    entries: tuple[Entry, ...]
    """In the order of time and id."""
    unread: tuple[str, ...]
    """Paths below the folder that do not fit."""


def find_files(folder: Path, pattern: Pattern) -> Archive:
    """Return the files below ``folder`` that a pattern means, grouped to items; nothing is opened.

    Raises ItemSearchError where the folder is missing, nothing fits, a link leads out, or two names mean one item,
    RegionFileError where a name can be read in two ways.
    """
    if not folder.is_dir():
        raise ItemSearchError(
            f"{folder} is no folder, but the pattern {pattern.text} begins there: check the path"
        )
    groups: dict[str, tuple[Reading, dict[str, str]]] = {}
    unread: list[str] = []
    count = 0
    for path in _walk(folder, pattern):
        count += 1
        if count > _MAX_FILES:
            raise ItemSearchError(
                f"{folder} holds more than {_MAX_FILES:,} files: name a folder further down"
            )
        reading = pattern.read(path)
        if reading is None:
            unread.append(path)
            continue
        _refuse_link(folder, path)
        _refuse_bytes(folder, path)
        known, files = groups.setdefault(reading.item_id, (reading, {}))
        if _without_band(known) != _without_band(reading):
            raise ItemSearchError(
                f"{quoted(path)} and {quoted(next(iter(files.values())))} in {folder} mean the same item "
                f"{reading.item_id} by the pattern {pattern.text}: give the fields another order, or widths"
            )
        files[reading.fields.get(BAND, _ONE_FILE)] = path
    if not groups:
        other = f", for example {quoted(unread[0])} does not" if unread else ""
        raise ItemSearchError(
            f"no file below {folder} fits the pattern {pattern.text}{other}: mend the pattern"
        )
    entries = [Entry(name, reading, files) for name, (reading, files) in groups.items()]
    entries.sort(key=lambda one: (one.reading.start, one.item_id))
    return Archive(folder, pattern, tuple(entries), tuple(unread))


def archive_items(
    archive: Archive,
    *,
    collection: str | None,
    bounds: Bounds,
    when: Callable[[Reading], dt.datetime | None],
    checksums: bool = False,
) -> Iterator[Json]:
    """Yield the raw items that may be wanted, hrefs relative to the archive's folder.

    Args:
        archive: made by :func:`find_files`.
        collection: their collection; None = "files".
        bounds: west, south, east, north in degrees.
        when: the datetime of what a name says, None = it is not wanted: its files are not opened.
        checksums: hash the files; else one that changed at the same size is the same.

    Where nothing that is wanted lies in the box, all is given: whoever asked can then say where and when the archive
    has something. Raises AssetReadError for a file that cannot be opened and placed.
    """
    name = collection or "files"
    placed = [(entry, when(entry.reading)) for entry in archive.entries]
    found = False
    elsewhere: list[Json] = []
    for entry, time in placed:
        if time is None:
            continue
        raw = item_of(archive, entry, name, time, checksums=checksums)
        if _meets(raw["bbox"], bounds):
            found = True
            yield raw
        else:
            elsewhere.append(raw)
    if not found:
        yield from elsewhere
        yield from (
            item_of(archive, entry, name, entry.reading.day) for entry, time in placed if time is None
        )


def _meets(box: Sequence[float], bounds: Bounds) -> bool:
    west, south, east, north = bounds
    return box[0] <= east and box[2] >= west and box[1] <= north and box[3] >= south


def item_of(
    archive: Archive, entry: Entry, collection: str, when: dt.datetime, *, checksums: bool = False
) -> Json:
    """Return the STAC 1.1 item of an entry, by the headers of its files; ``checksums``: read and hash them, too.

    ``when`` (UTC) is its datetime; its period, and the other fields of the pattern, are properties. Raises
    AssetReadError where a file cannot be opened, has no CRS or no georeference.
    """
    import shapely

    assets: dict[str, Json] = {}
    outlines = []
    for key, path in sorted(entry.files.items()):
        assets[key], outline = _asset(archive.folder / path, key, checksums=checksums)
        assets[key]["href"] = f"./{path}"
        outlines.append(outline)
    outline = shapely.union_all(outlines)
    reading = entry.reading
    said = {name: text for name, text in reading.fields.items() if name != BAND and name[0] != "%"}
    last = reading.end - dt.timedelta(seconds=1)
    span = {"datetime": _text(when), "start_datetime": _text(reading.start), "end_datetime": _text(last)}
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": list(_EXTENSIONS),
        "id": entry.item_id,
        "collection": collection,
        "geometry": shapely.geometry.mapping(outline),
        "bbox": list(outline.bounds),
        "links": [],
        "assets": assets,
        "properties": said | span,
    }


def _asset(path: Path, key: str, *, checksums: bool) -> tuple[Json, "BaseGeometry"]:
    """Return an asset without href, by the file's header, and the file's outline in degrees."""
    with open_asset(str(path)) as dataset:
        asset: Json = {"roles": ["data"], "file:size": path.stat().st_size}
        if dataset.crs is None:
            raise AssetReadError(
                f"{path} has no CRS, so it cannot be placed: write its georeference into the file, or take it away"
            )
        epsg, place = dataset.crs.to_epsg(), tuple(dataset.transform)[:6]
        asset |= {"proj:code": f"EPSG:{epsg}"} if epsg else {}
        asset |= {"proj:shape": list(dataset.shape), "proj:transform": list(place)}
        asset["bands"] = [_band(dataset, number, key) for number in dataset.indexes]
        outline = _outline(dataset.crs.to_wkt(), place, dataset.width, dataset.height)
    if checksums:
        asset["file:checksum"] = _SHA256 + content_hash(path, "source")
    return asset, outline


def _band(dataset: "DatasetReader", number: int, key: str) -> Json:
    described = dataset.descriptions[number - 1] or (key if dataset.count == 1 else f"b{number}")
    band: Json = {"name": described, "data_type": dataset.dtypes[number - 1]}
    scale, offset = dataset.scales[number - 1], dataset.offsets[number - 1]
    return band if (scale, offset) == (1.0, 0.0) else band | {"raster:scale": scale, "raster:offset": offset}


@lru_cache(maxsize=4096)
def _outline(crs: str, transform: tuple[float, ...], width: int, height: int) -> "BaseGeometry":
    """Return the outline of a grid in degrees, cut at the antimeridian; files of one place share it."""
    import shapely
    from rasterio.warp import transform_geom

    corners = ((0, 0), (width, 0), (width, height), (0, height))
    edge = shapely.Polygon([Affine(*transform) @ corner for corner in corners])
    longest = max(edge.bounds[2] - edge.bounds[0], edge.bounds[3] - edge.bounds[1])
    dense = shapely.segmentize(edge, longest / _SEGMENTS)
    return shapely.geometry.shape(transform_geom(crs, "EPSG:4326", shapely.geometry.mapping(dense)))


def _text(when: dt.datetime) -> str:
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")


def _without_band(reading: Reading) -> dict[str, str]:
    return {name: text for name, text in reading.fields.items() if name != BAND}


def _walk(folder: Path, pattern: Pattern) -> Iterator[str]:
    """Yield the paths of files below ``folder`` at the pattern's depth, in order of their names."""
    todo = [""]
    while todo:
        place = todo.pop()
        below: list[str] = []
        try:
            with os.scandir(folder / place) as listed:
                entries = sorted(listed, key=lambda one: one.name)
        except OSError as error:
            raise ItemSearchError(
                f"{folder / place} cannot be listed ({error.strerror}): check its permissions"
            ) from error
        for entry in entries:
            path = f"{place}{entry.name}"
            if path.count("/") == len(pattern.levels) - 1:
                if not entry.is_dir():
                    yield path
            elif (entry.is_dir() or entry.is_symlink()) and pattern.may_hold(path):
                _refuse_link(folder, path)
                if not entry.is_symlink():
                    below.append(f"{path}/")
        todo += reversed(below)


def _refuse_link(folder: Path, path: str) -> None:
    place = folder / path
    if place.is_symlink() and not Path(os.path.realpath(place)).is_relative_to(os.path.realpath(folder)):
        raise ItemSearchError(
            f"{place} is a link that leads out of {folder}: an archive is read from its own folder alone: "
            "begin the pattern at a folder that holds both, or mount the other one there"
        )


def _refuse_bytes(folder: Path, path: str) -> None:
    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise ItemSearchError(
            f"{folder} holds a file whose name is no Unicode, {quoted(path)}, and no list of items can name it: rename it"
        ) from error
