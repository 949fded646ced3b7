"""One tile per STAC label item, on the grid of its label raster, with the date of the label."""

import dataclasses
import datetime as dt
from collections.abc import Sequence
from typing import TYPE_CHECKING

from affine import Affine

from chipmill.core.errors import AoiError, GridError
from chipmill.region.config import Region
from chipmill.region.grid import Lattice, lattice_like
from chipmill.region.slots import TimeRange, cell_range, midnight
from chipmill.region.tiles import Tile, refuse_clashes, tile_name

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry


@dataclasses.dataclass(frozen=True, slots=True)
class LabelItem:
    """A STAC label item as far as tiles need it."""

    item_id: str
    time: dt.datetime
    """UTC; its day is the label's date."""
    href: str
    """The label raster."""
    epsg: int
    transform: Affine
    """Of the label raster, from its header."""
    width: int
    height: int
    content: str = ""
    """Identity of the raster's content: sha256, or what the item says of it."""
    classes: tuple[tuple[str, str], ...] = ()
    """(value, name) of ``classification:classes``, in order."""


def label_item_tiles(region: Region, items: Sequence[LabelItem], aoi: "BaseGeometry") -> tuple[Tile, ...]:
    """Return one tile per label item whose raster meets the AOI, on the raster's own grid, by date and id.

    Raises AoiError when none is left, GridError when two ids become the same file name.
    """
    import shapely

    tiles: list[Tile] = []
    lattices: dict[int, list[Lattice]] = {}
    for item in sorted(items, key=lambda one: (one.time, one.item_id)):
        lattice = _shared_lattice(lattices.setdefault(item.epsg, []), item)
        window = lattice.aligned_window(item.transform, item.width, item.height, item.item_id)
        cover = aoi.intersection(lattice.footprint(window))
        if cover.area == 0 or not cell_range(region).holds(item.time):
            continue
        day = midnight(item.time.date())
        time = TimeRange(day, day + dt.timedelta(days=1))
        wkb = shapely.to_wkb(shapely.normalize(cover))
        tile = Tile(
            tile_id=tile_name(item.item_id),
            lattice=lattice,
            window=window,
            source_id=item.item_id,
            anchor=time.start_date,
            time=time,
            lattice_tile=False,
            label_href=item.href,
            split=None,
            reject=False,
            cover=wkb,
            label_content=item.content,
        )
        tiles.append(tile)
    refuse_clashes(tiles)
    if not tiles:
        raise AoiError(
            f"none of {len(items)} label items meets the AOI and time of {region.name}: check both"
        )
    return tuple(tiles)


def _shared_lattice(known: list[Lattice], item: LabelItem) -> Lattice:
    """Reuse the lattice of an earlier item where the grids agree, so that places shared by dates share windows."""
    for lattice in known:
        try:
            lattice.aligned_window(item.transform, item.width, item.height, item.item_id)
        except GridError:
            continue
        return lattice
    known.append(lattice_like(item.item_id, item.epsg, item.transform))
    return known[-1]
