"""`chipmill index`: the items of an archive without STAC, written once as stac-geoparquet, so that searches open no file."""

import os
from pathlib import Path
from typing import Final

from chipmill.cli.console import Terminal
from chipmill.core.errors import BadInputError
from chipmill.imagery.archive import find_files, item_of
from chipmill.imagery.geoparquet import write_parquet_items
from chipmill.region.patterns import parse_pattern

_TOLD_EVERY: Final = 1000
"""Items between two lines on how far the work is."""


def write_index(
    view: Terminal, folder: Path, pattern: str, out: Path | None, collection: str | None, *, checksums: bool
) -> None:
    """Write the items of the files below ``folder`` that a pattern means, and say how many; pixels are not read.

    Raises BadInputError where the index would not lie in or above the files' folder, RegionFileError for a pattern that
    is none, ItemSearchError and AssetReadError where an archive is not whole.
    """
    place = Path(os.path.normpath((folder / parse_pattern(pattern).folder).absolute()))
    path = Path(os.path.normpath((out or folder / "items.parquet").absolute()))
    if path.suffix.lower() not in (".parquet", ".geoparquet"):
        raise BadInputError(f"{path} is to be stac-geoparquet: give --out a name that ends in .parquet")
    if not place.is_relative_to(path.parent):
        raise BadInputError(
            f"{path} would name files outside its own folder, which no search may read: write it to {place} or to a "
            "folder above"
        )
    archive = find_files(place, parse_pattern(pattern))
    items = []
    for number, entry in enumerate(archive.entries, 1):
        item = item_of(archive, entry, collection or "files", entry.reading.day, checksums=checksums)
        for asset in item["assets"].values():
            asset["href"] = f"./{(place / asset['href']).relative_to(path.parent).as_posix()}"
        items.append(item)
        if number % _TOLD_EVERY == 0:
            view.note(f"{number:,} of {len(archive.entries):,} items")
    write_parquet_items(path, items)
    files = sum(len(entry.files) for entry in archive.entries)
    view.say(
        f"wrote {path}: {len(items):,} items of {files:,} files; name it in the region file as source: {{items: ...}}"
    )
    unread = [one for one in archive.unread if place / one != path]
    if unread:
        view.note(f"{len(unread):,} files do not fit the pattern, for example {unread[0]}")
    view.result(
        {
            "ok": True,
            "path": str(path),
            "items": len(items),
            "files": files,
            "not_fitting": unread[:100],
        }
    )
