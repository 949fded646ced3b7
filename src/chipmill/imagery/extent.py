"""Where a source has imagery: asked only when a search found nothing, to say whether the AOI is to blame.

A search that is bounded by the AOI cannot tell an empty season from an AOI on the wrong continent; the extent of the
collection can.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from chipmill.core.errors import AoiError, ChipmillError
from chipmill.imagery.api import collection_boxes
from chipmill.imagery.hrefs import source_root
from chipmill.imagery.stac import parse_geometry
from chipmill.region.aoi import Bounds, shown_bounds, swap_hint
from chipmill.region.config import Region
from chipmill.region.imagery import Imagery

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

Json = Mapping[str, Any]


def refuse_outside(
    region: Region, imagery: Imagery, raw: Iterable[Json], footprints: Sequence["BaseGeometry"]
) -> None:
    """Raise AoiError, with both extents, where no imagery of a source lies near the tiles at any time.

    Args:
        region: named in the message.
        imagery: the entry whose search left nothing.
        raw: the items that its source gave; a file's are all that it has, a server's are those of the AOI.
        footprints: outlines of the tiles, degrees.
    """
    import shapely

    source = imagery.source
    root = source_root(region, source, imagery.auth)
    boxes = collection_boxes(root, source.collection) if source.stac else _item_boxes(raw)
    if not boxes:
        return
    area = shapely.union_all(list(footprints))
    if any(area.intersects(shapely.box(*box)) for box in boxes):
        return
    extent = shapely.union_all([shapely.box(*box) for box in boxes]).bounds
    raise AoiError(
        f"the AOI of {region.name} lies outside the imagery {imagery.name}: its tiles span {shown_bounds(area.bounds)}, "
        f"{source.collection or 'the source'} {shown_bounds(extent)}{swap_hint(area.bounds, extent)}: "
        "check aoi and the collection"
    )


def _item_boxes(raw: Iterable[Json]) -> list[Bounds]:
    boxes = []
    for one in raw:
        try:
            boxes.append(parse_geometry(one, str(one.get("id")))[1])
        except ChipmillError:
            continue  # an item without geometry lies nowhere; the search has noted it
    return boxes
