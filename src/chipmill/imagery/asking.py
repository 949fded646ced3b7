"""Asking a source of any kind for raw items: one call for an API, a catalog, a list and an archive without STAC.

The file to change for another kind of source. Nothing is filtered here for good: who asks looks at every item again.
"""

import datetime as dt
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from chipmill.imagery.api import search_api
from chipmill.imagery.hrefs import source_path, source_root
from chipmill.imagery.listing import listed_items
from chipmill.imagery.static import catalog_items
from chipmill.region.config import Region
from chipmill.region.fields import Auth, Source
from chipmill.region.slots import TimeRange

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

type Json = Mapping[str, Any]
type Raw = tuple[Json, str]
"""An item as parsed JSON, and the document (URL or absolute path) that its hrefs are relative to."""

_FILLED: Final = 0.5
"""Share of its bbox that a region must fill for the bbox to be asked: a thin one is asked by its outline."""
_MAX_VERTICES: Final = 500
"""Of the outline that is sent; a finer one is replaced by its hull, and the filter here is exact anyway."""


def ask_source(
    region: Region,
    source: Source,
    time: TimeRange,
    footprints: Sequence["BaseGeometry"],
    auth: Auth,
    condition: Json | None = None,
    tell: Callable[[str], object] = lambda _: None,
) -> list[Raw]:
    """Return the raw items of a source, at least those that meet the footprints, the time and the condition.

    Args:
        region: the paths of its source begin in its folder.
        source: where to ask.
        time: half-open; servers are asked for closed ends.
        footprints: polygons in degrees, together what is asked for.
        auth: how the source knows who asks.
        condition: CQL2 JSON that an API is sent as far as it says that it understands it.
        tell: is called with a sentence on what was sent of the condition.

    Raises ItemSearchError where the source does not answer in full.
    """
    if source.stac is not None:
        span = "/".join(
            when.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ") for when in (time.start, time.end)
        )
        found = search_api(
            source_root(region, source, auth),
            collection=source.collection,
            datetime=span,
            condition=condition,
            pushdown=source.pushdown,
            tell=tell,
            **_area(footprints),
        )
        home = source.stac.rstrip("/") + "/"
        return [(raw, next(hrefs_of(raw, "self"), "") or home) for raw in found]
    if source.catalog is not None:
        return list(catalog_items(source_path(region, source), source.collection))
    import shapely

    west, south, east, north = shapely.union_all(footprints).bounds
    return list(listed_items(region, source, time, (west, south, east, north), auth))


def hrefs_of(raw: Json, rel: str) -> Iterator[str]:
    """Yield where the links of an item with a relation lead, as it writes them; what is no link is passed over."""
    links = raw.get("links")
    for link in links if isinstance(links, list) else []:
        if isinstance(link, Mapping) and link.get("rel") == rel and isinstance(link.get("href"), str):
            yield link["href"]


def _area(footprints: Sequence["BaseGeometry"]) -> dict[str, Any]:
    """Return bbox or intersects of the union of all tiles."""
    import shapely

    union = shapely.union_all(footprints)
    if union.area >= _FILLED * shapely.box(*union.bounds).area:
        return {"bbox": list(union.bounds)}
    if shapely.get_num_coordinates(union) > _MAX_VERTICES:
        union = shapely.convex_hull(union)
    return {"intersects": shapely.geometry.mapping(union)}
