"""Reading a static STAC catalog or an ItemCollection from disk, without network: every item that it links to.

A link that leads nowhere is an error: a catalog that is not whole would make a dataset that looks whole.
"""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from chipmill.core.errors import ItemSearchError
from chipmill.imagery.hrefs import is_url
from chipmill.imagery.items import links_of

MAX_BYTES: Final = 256 << 20
"""Of one JSON file: an ItemCollection of a hundred thousand items; beyond it a STAC API is the right source."""


def collection_items(path: Path, collection: str | None) -> Iterator[tuple[Mapping[str, Any], str]]:
    """Yield (item, path of the document that its hrefs are relative to) of an ItemCollection file.

    ``collection`` None takes every item. Raises ItemSearchError when the file is missing or not a FeatureCollection.
    """
    return page_items(read_json_file(path), str(path), collection)


def page_items(
    page: Mapping[str, Any], name: str, collection: str | None
) -> Iterator[tuple[Mapping[str, Any], str]]:
    """Yield (item, ``name``) of an ItemCollection that was read from the URL or path ``name``.

    Raises ItemSearchError when it is no FeatureCollection.
    """
    features = page.get("features")
    if page.get("type") != "FeatureCollection" or not isinstance(features, list):
        raise ItemSearchError(f"{name} is a {page.get('type')!r}, expected a FeatureCollection of STAC items")
    for feature in features:
        if isinstance(feature, Mapping) and collection in (None, feature.get("collection")):
            yield feature, name


def catalog_items(path: Path, collection: str | None) -> Iterator[tuple[Mapping[str, Any], str]]:
    """Yield (item, path of its file) of a static catalog by following its child and item links.

    Other collections than the one that is asked for are not opened further. Raises ItemSearchError when a file is
    missing or no STAC, when a link leaves the catalog's folder, or when links run in a circle.
    """
    root = path.parent
    todo, seen = [path], set[Path]()
    while todo:
        at = todo.pop()
        if at in seen:
            raise ItemSearchError(f"{at} is linked twice in the catalog {path}: its links must form a tree")
        seen.add(at)
        node = read_json_file(at)
        if node.get("type") == "Feature":
            if collection in (None, node.get("collection")):
                yield node, str(at)
            continue
        if node.get("type") == "Collection" and collection not in (None, node.get("id")):
            continue
        todo += reversed(list(_children(node, at, root)))


def _children(node: Mapping[str, Any], at: Path, root: Path) -> Iterator[Path]:
    for link in links_of(node, str(at)):
        if link.get("rel") not in ("child", "item"):
            continue
        href = str(link.get("href") or "")
        target = Path(os.path.normpath(at.parent / href.removeprefix("file://")))
        if is_url(href) or not href or not target.is_relative_to(root):
            raise ItemSearchError(
                f"{at} links to {href or 'nothing'}, which is not below {root}: "
                "a static catalog is read from its own folder alone: use relative links, or a STAC API as source"
            )
        yield target


def read_json_file(path: Path) -> dict[str, Any]:
    """Return a JSON object from a file; raises ItemSearchError when it is missing, too large or something else."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ItemSearchError(
                f"{path} is larger than {MAX_BYTES:,} bytes: serve it by a STAC API instead"
            )
        data = path.read_bytes()
    except (OSError, ValueError) as error:  # a path with a null byte is a ValueError
        if isinstance(error, ItemSearchError):
            raise
        raise ItemSearchError(
            f"{path} cannot be read as JSON ({error}): mend the link or the file"
        ) from error
    return parse_json(data, str(path))


def parse_json(data: bytes, name: str) -> dict[str, Any]:
    """Return the JSON object that the content of a file is; raises ItemSearchError when it is something else."""
    try:
        value = json.loads(data)
    except ValueError as error:
        raise ItemSearchError(
            f"{name} cannot be read as JSON ({error}): mend the link or the file"
        ) from error
    if not isinstance(value, dict):
        raise ItemSearchError(
            f"{name} holds a JSON {type(value).__name__}, expected an object: mend the file"
        )
    return value
