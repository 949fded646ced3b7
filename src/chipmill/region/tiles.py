"""Tiles: the units of work, each with its own grid and CRS; those of a lattice over the AOI are made here.

Another way to make tiles is a module of its own with a function that returns :class:`Tile` objects:
:mod:`chipmill.region.label_tiles` has those of label items. Which way is taken says
:func:`chipmill.imagery.planning.place_tiles`.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from affine import Affine

from chipmill.core.errors import AoiError, GridError
from chipmill.core.plain import quoted
from chipmill.region.config import Region
from chipmill.region.fields import ID_PATTERN
from chipmill.region.grid import Lattice, Window, lattice_like, lattice_of, reproject_shape, utm_epsg
from chipmill.region.slots import TimeRange, cell_range

if TYPE_CHECKING:
    import numpy as np
    from odc.geo.geobox import GeoBox
    from shapely.geometry.base import BaseGeometry

MAX_TILES: Final = 1_000_000
"""More lattice tiles than this are refused: the AOI or the resolution is most likely wrong."""


@dataclasses.dataclass(frozen=True, slots=True)
class Point:
    """A point of a file, on whose pixel a chip is centred."""

    col: int
    """Column of its pixel on the lattice."""
    row: int
    """Row of its pixel on the lattice."""
    source_id: str
    """The id as the file spells it."""
    split: str | None
    """train, val or test where the file says so."""
    attributes: dict[str, str] = dataclasses.field(default_factory=dict, hash=False)
    """What the file says of it: name -> text."""


@dataclasses.dataclass(frozen=True, slots=True)
class Tile:
    """A square of a lattice, the place of a label item, or that of a feature of a file."""

    tile_id: str
    lattice: Lattice
    window: Window
    """Its pixels on the lattice."""
    source_id: str
    """The id as the source spells it."""
    anchor: str
    """ISO date of its samples: label date, else tile time, else cell start."""
    time: TimeRange | None
    """The label's day, or the tile's year; None where it has the cell's time."""
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
    attributes: dict[str, str] = dataclasses.field(default_factory=dict, hash=False)
    """What the source says of it: name -> text, of the attributes that ``tiles.attributes`` names."""
    points: tuple[Point, ...] | None = None
    """Points whose windows belong to the tile, by row and column of the window; None where windows are laid by stride."""

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
    return reproject_shape(densified(shape), 4326, epsg)


def densified(shape: "BaseGeometry") -> "BaseGeometry":
    """Return a shape whose edges are short enough to be reprojected vertex by vertex: 1/32 of its longer side."""
    from shapely import segmentize

    longest = max(shape.bounds[2] - shape.bounds[0], shape.bounds[3] - shape.bounds[1], 1e-9)
    return segmentize(shape, longest / 32)


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

    if (lattice := _one_lattice(region)) is not None:
        return [(lattice, aoi)]
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


def lattice_finder(region: Region) -> Callable[[float, float], Lattice]:
    """Return a function of longitude and latitude that returns the lattice of a place.

    That is the one of its UTM zone when crs is auto; the function raises AoiError near the poles then.
    """
    one = _one_lattice(region)

    def found(longitude: float, latitude: float) -> Lattice:
        if one is not None:
            return one
        if not -80 <= latitude <= 84:
            raise AoiError(f"{latitude:g} degrees north lies in no UTM zone: give grid.crs of {region.name}")
        return lattice_of(utm_epsg(longitude, latitude), region.grid.resolution)

    return found


def _one_lattice(region: Region) -> Lattice | None:
    """Return the lattice of all tiles, None where each UTM zone has its own."""
    if region.grid.like is not None:
        return _lattice_of_raster(region)
    if region.grid.crs != "auto":
        return lattice_of(int(region.grid.crs.removeprefix("EPSG:")), region.grid.resolution)
    return None


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
            if meets_rule(region, shape, shapely.box(*lattice.bounds(window))):
                name = place_name(lattice, ix, iy)
                tiles.append(Tile(name, lattice, window, name, anchor, None, True, None, None, False, wkb))
    return tiles


def place_name(lattice: Lattice, ix: int, iy: int) -> str:
    """Return ``<lattice>-<ix>-<iy>``, the id of a lattice tile by its column and row of tiles."""
    return f"{lattice.lattice_id}-{_signed(ix)}-{_signed(iy)}"


def meets_rule(region: Region, aoi: "BaseGeometry", outline: "BaseGeometry") -> bool:
    """Tell whether ``aoi.rule`` takes a tile of outline ``outline``; both shapes are in one CRS."""
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


def tile_name(source_id: str) -> str:
    """Return the file-safe id of a tile of a source: lower case, anything else than letters, digits, . _ - replaced."""
    name = re.sub(r"[^a-z0-9._-]+", "-", source_id.lower()).strip("-._")[:63]
    if not re.fullmatch(ID_PATTERN, name):
        raise GridError(
            f"the id {quoted(source_id)} cannot be turned into a file name: give the item another id"
        )
    return name


def refuse_clashes(tiles: Iterable[Tile]) -> None:
    """Raise GridError where two tiles of a source have the same file-safe id."""
    seen: dict[str, str] = {}
    for tile in tiles:
        if tile.tile_id in seen:
            raise GridError(
                f"the ids {quoted(seen[tile.tile_id])} and {quoted(tile.source_id)} both become {tile.tile_id!r}: rename one"
            )
        seen[tile.tile_id] = tile.source_id
