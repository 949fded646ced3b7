"""Parameters of tiles: where they come from, and what a source of tiles says of each."""

import datetime as dt
from typing import Annotated, Final, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from chipmill.region.fields import Auth, Model, Source

MAX_TILE_PX: Final = 16384
"""Largest side of a tile in pixels."""
Year = Annotated[int, Field(ge=1, le=9998)]
_LABEL_ITEMS, _FILE, _POINTS = "label-items", "file", "points"
_SOURCE_OF: dict[str, tuple[str, ...]] = {
    "path": (_FILE, _POINTS),
    "id": (_FILE, _POINTS),
    "split": (_FILE, _POINTS),
    "attributes": (_FILE, _POINTS),
    "time": (_FILE,),
    "reject": (_FILE,),
    "class_": (_POINTS,),
    "year": ("lattice", _FILE),
}
"""Field -> the ways to make tiles that read it."""


class TileYear(Model):
    """The year of each tile, by an attribute of what overlaps it; the tile's slots are cut of that year."""

    attribute: str
    """Attribute that holds the year: a number like 2015, or a date."""
    path: str | None = None
    """Vector file (GeoJSON, GPKG, FlatGeobuf, GeoParquet, Shapefile) whose features have it, relative to the region
    file; the year with the largest area in a tile wins. Null: each tile of a file says its own."""
    available: tuple[Year, ...] | None = None
    """Years that may be taken, e.g. those with composites: the nearest is. Null: all whole years of time.range."""
    ties: Literal["earliest", "latest"] = "earliest"
    """Which year is taken of several with the same area, and of two available ones that are equally near."""
    default: Year | None = None
    """Year of a tile that nothing overlaps; null rejects such tiles."""

    @model_validator(mode="after")
    def _some(self) -> Self:
        if self.available == ():
            raise ValueError("available must name a year, or be left out")
        return self

    def years(self, start: dt.date, end: dt.date) -> tuple[int, ...]:
        """Return the available years in order; ``start`` and ``end`` are the half-open range of the cell."""
        whole = range(start.year + ((start.month, start.day) != (1, 1)), end.year)
        return tuple(whole if self.available is None else sorted(set(self.available)))

    def problem(self, start: dt.date, end: dt.date) -> str:
        """Return why the years do not fit into the cell's half-open range, "" where they do."""
        years = self.years(start, end)
        beyond = [year for year in years if dt.date(year, 1, 1) < start or end < dt.date(year + 1, 1, 1)]
        if not years or beyond:
            named = ", ".join(map(str, beyond[:5])) or "none"
            return f"time.range must hold each year of tiles.year wholly ({start} to {end} lacks {named}): widen it"
        if self.default is not None and self.default not in years:
            return f"tiles.year.default {self.default} must be one of the available years ({years[0]} to {years[-1]})"
        return ""


class Tiles(Model):
    """Where tiles come from."""

    from_: Annotated[Literal["lattice", "label-items", "file", "points"], Field(alias="from")] = "lattice"
    """lattice: a fixed global grid over the AOI; label-items: one tile per STAC label item; file: one per polygon of a
    vector file; points: the lattice tiles below chips that are centred on the points of a vector file."""
    source: Source | None = None
    """Source of the label items."""
    collection: str | None = None
    """Collection of the label items."""
    asset: str | None = None
    """Key of the label raster in a label item."""
    date: Literal["datetime", "start_datetime", "end_datetime"] = "datetime"
    """Property of a label item that is its date."""
    auth: Auth = Auth()
    """How the source of the label items knows who asks."""
    source_links: bool = False
    """Take as imagery of a tile just the items that its label item names by links of rel "source": nothing is searched."""
    path: str | None = None
    """Vector file (GeoJSON, GPKG, FlatGeobuf, GeoParquet, Shapefile) of polygons or points, relative to the region file."""
    id: str | None = None
    """Attribute of the file that names each feature; null: its number in the file."""
    time: str | None = None
    """Attribute of the file with the date of each tile; tiles outside time.range are left out."""
    year: TileYear | None = None
    """How each tile gets a year of its own; null: all have the cell's time."""
    split: str | None = None
    """Attribute of the file that says train, val (also dev, validation) or test; where it is empty the tile is dealt."""
    reject: str | None = None
    """Attribute of the file that says which tiles are not to be used: true, a number but 0, or yes."""
    class_: Annotated[str | None, Field(alias="class")] = None
    """Attribute of the points with their class, a value of labels.classes: the label of the point's pixel, where
    labels.layers is empty."""
    attributes: tuple[str, ...] = ()
    """Attributes of the file that go into tiles.parquet and chips.parquet with each tile or point."""

    model_config = ConfigDict(populate_by_name=True)

    @property
    def own_year(self) -> TileYear | None:
        """The rule of years where each feature of the file of tiles says its own, else None."""
        own = self.from_ == _FILE and self.year is not None and self.year.path is None
        return self.year if own else None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.from_ == _LABEL_ITEMS and (self.source is None or self.asset is None):
            raise ValueError("tiles from label-items need source and asset")
        if self.source_links and self.from_ != _LABEL_ITEMS:
            raise ValueError("source_links are those of label items: they need tiles from label-items")
        if self.from_ in (_FILE, _POINTS) and self.path is None:
            raise ValueError(f"tiles from {self.from_} need path, the vector file that holds them")
        for name, ways in _SOURCE_OF.items():
            if self.from_ not in ways and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(
                    f"tiles from {self.from_} take no {name.strip('_')}: it is for tiles from {' or '.join(ways)}"
                )
        if self.year is not None and self.time is not None:
            raise ValueError("tiles have either time or year: remove one of them")
        if self.year is not None and self.year.path is None and self.from_ != _FILE:
            raise ValueError("tiles.year needs path: name the vector file whose features have a year")
        return self
