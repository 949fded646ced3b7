"""Tiles: the units of work. From a lattice over the AOI, or one per label item; each has its own grid and CRS.

Another way to make tiles is another function here that returns :class:`Tile` objects.
"""

import dataclasses
import datetime as dt
import math
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from affine import Affine

from chipmill.core.errors import AoiError, GridError
from chipmill.core.plain import quoted
from chipmill.region.config import Region
from chipmill.region.fields import ID_PATTERN
from chipmill.region.grid import Lattice, Window, lattice_like, lattice_of, reproject_shape, utm_epsg
from chipmill.region.slots import TimeRange, cell_range, midnight

if TYPE_CHECKING:
    import numpy as np
    from odc.geo.geobox import GeoBox
    from shapely.geometry.base import BaseGeometry

MAX_TILES: Final = 1_000_000
"""More lattice tiles than this are refused: the AOI or the resolution is most likely wrong."""


@dataclasses.dataclass(frozen=True, slots=True)
class Tile:
    """A square of a lattice, or the place of a label item."""

    tile_id: str
    lattice: Lattice
    window: Window
    """Its pixels on the lattice."""
    source_id: str
    """The id as the source spells it."""
    anchor: str
    """ISO date of its samples: label date, else tile time, else cell start."""
    time: TimeRange | None
    """The label's day, where it has one."""
    lattice_tile: bool
    """True for tiles of a lattice, which have neighbours; windows of others end at their own edge."""
    label_href: str | None
    """Where the label raster of a label item is."""
    split: str | None
    """train, val or test where the source says so."""
    reject: bool
    """True when the source says that it is not to be used."""
    cover: bytes
    """WKB in degrees: the part of AOI and UTM zone that the tile answers for."""
    label_content: str | None = None
    """Identity of the label raster's content: sha256, or what its item says of it."""

    @property
    def crs(self) -> str:
        """``EPSG:<code>``."""
        return self.lattice.crs

    @property
    def transform(self) -> Affine:
        """(column, row) of the tile -> CRS units."""
        return self.lattice.transform(self.window)

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.window.shape

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """(left, bottom, right, top) in CRS units."""
        return self.lattice.bounds(self.window)

    @property
    def geobox(self) -> "GeoBox":
        """Shape, transform and CRS."""
        return self.lattice.geobox(self.window)


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


def cover_mask(tile: Tile, window: Window | None = None) -> "np.ndarray[tuple[int, ...], np.dtype[np.bool_]]":
    """Return bool (y, x), True where a pixel's centre lies in the tile's cover; ``window`` is in lattice pixels."""
    import numpy as np
    import shapely
    from rasterio.features import rasterize

    place = window or tile.window
    shape = from_degrees(shapely.from_wkb(tile.cover), tile.lattice.epsg)
    outline = shapely.box(*tile.lattice.bounds(place))
    if shape.contains(outline):
        return np.ones(place.shape, dtype=bool)
    part = shape.intersection(outline)
    polygons = [one for one in shapely.get_parts(part) if one.geom_type.endswith("Polygon") and one.area > 0]
    if not polygons:
        return np.zeros(place.shape, dtype=bool)
    burnt = rasterize(polygons, place.shape, transform=tile.lattice.transform(place), dtype="uint8")
    return np.asarray(burnt, dtype=np.bool_)


def from_degrees(shape: "BaseGeometry", epsg: int) -> "BaseGeometry":
    """Return a shape in degrees as one of another CRS, long edges densified first."""
    from shapely import segmentize

    longest = max(shape.bounds[2] - shape.bounds[0], shape.bounds[3] - shape.bounds[1], 1e-9)
    return reproject_shape(segmentize(shape, longest / 32), 4326, epsg)


def lattice_tiles(region: Region, aoi: "BaseGeometry") -> tuple[Tile, ...]:
    """Return the lattice tiles over the AOI, by CRS, then row, then column.

    Raises AoiError when there is none or more than a million.
    """
    anchor = cell_range(region).start_date
    tiles: list[Tile] = []
    for lattice, cover in zone_covers(region, aoi):
        tiles += _cover_tiles(region, lattice, cover, anchor)
    if not tiles:
        raise AoiError(
            f"no tile of {region.name} fulfils aoi.rule {region.aoi.rule}: use intersects, or a smaller grid.tile_px"
        )
    return tuple(tiles)


def zone_covers(region: Region, aoi: "BaseGeometry") -> list[tuple[Lattice, "BaseGeometry"]]:
    """Return each lattice with the part of the AOI (degrees) that it answers for: one per UTM zone when crs is auto."""
    from shapely import box

    if region.grid.like is not None:
        return [(_lattice_of_raster(region), aoi)]
    if region.grid.crs != "auto":
        return [(lattice_of(int(region.grid.crs.removeprefix("EPSG:")), region.grid.resolution), aoi)]
    west, south, east, north = aoi.bounds
    covers = []
    for zone in range(math.floor((west + 180) / 6), math.floor((east + 180) / 6) + 1):
        for bottom, top in ((0.0, 84.0), (-80.0, 0.0)):
            part = aoi.intersection(box(zone * 6 - 180, bottom, zone * 6 - 174, top))
            if part.area > 0:
                epsg = utm_epsg(zone * 6 - 177, (bottom + top) / 2)
                covers.append((lattice_of(epsg, region.grid.resolution), part))
    if not covers:
        raise AoiError(
            f"the AOI of {region.name} ({south:g}..{north:g} degrees north) lies in no UTM zone: give grid.crs"
        )
    return covers


def _lattice_of_raster(region: Region) -> Lattice:
    import rasterio

    path = region.resolve(str(region.grid.like))
    try:
        # one driver, told by the ending: a file in disguise would name others
        driver = "JP2OpenJPEG" if path.suffix.lower() == ".jp2" else "GTiff"
        with rasterio.open(path, driver=driver) as raster:
            return lattice_like(str(path), raster.crs.to_epsg() if raster.crs else None, raster.transform)
    except rasterio.errors.RasterioIOError as error:
        raise GridError(f"grid.like: {path} cannot be opened ({error}): check the path") from error


def _cover_tiles(region: Region, lattice: Lattice, cover: "BaseGeometry", anchor: str) -> list[Tile]:
    import shapely

    side = region.grid.tile_px
    shape = from_degrees(cover, lattice.epsg)
    hull = lattice.window(shape.bounds)
    columns = range(hull.col_off // side, -(-hull.col_end // side))
    rows = range(hull.row_off // side, -(-hull.row_end // side))
    if len(columns) * len(rows) > MAX_TILES:
        raise AoiError(
            f"{region.name} would have {len(columns) * len(rows):,} tiles, the limit is {MAX_TILES:,}: "
            "check the AOI, grid.resolution and grid.tile_px"
        )
    shapely.prepare(shape)
    wkb = shapely.to_wkb(shapely.normalize(cover))
    tiles = []
    for iy in rows:
        for ix in columns:
            window = Window(ix * side, iy * side, side, side)
            if _wanted(region, shape, shapely.box(*lattice.bounds(window))):
                name = f"{lattice.lattice_id}-{_signed(ix)}-{_signed(iy)}"
                tiles.append(Tile(name, lattice, window, name, anchor, None, True, None, None, False, wkb))
    return tiles


def _wanted(region: Region, aoi: "BaseGeometry", outline: "BaseGeometry") -> bool:
    if not aoi.intersects(outline) or aoi.touches(outline):
        return False
    match region.aoi.rule:
        case "intersects":
            return True
        case "centre":
            return bool(aoi.contains(outline.centroid))
        case "within":
            return bool(aoi.contains(outline))
        case "min_fraction":
            return bool(aoi.intersection(outline).area >= region.aoi.min_fraction * outline.area)


def _signed(index: int) -> str:
    return f"n{-index}" if index < 0 else str(index)


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
    _refuse_clashes(tiles)
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


def tile_name(source_id: str) -> str:
    """Return the file-safe id of a tile of a source: lower case, anything else than letters, digits, . _ - replaced."""
    name = re.sub(r"[^a-z0-9._-]+", "-", source_id.lower()).strip("-._")[:63]
    if not re.fullmatch(ID_PATTERN, name):
        raise GridError(
            f"the id {quoted(source_id)} cannot be turned into a file name: give the item another id"
        )
    return name


def _refuse_clashes(tiles: Iterable[Tile]) -> None:
    seen: dict[str, str] = {}
    for tile in tiles:
        if tile.tile_id in seen:
            raise GridError(
                f"the ids {quoted(seen[tile.tile_id])} and {quoted(tile.source_id)} both become {tile.tile_id!r}: rename one"
            )
        seen[tile.tile_id] = tile.source_id
