"""The region file: frozen models that are the YAML file, the flow's parameter and the form in the Prefect UI at once.

Here are the area, the time, the grid and the region as a whole; :mod:`chipmill.region.imagery` and
:mod:`chipmill.region.dataset` hold the parameters of those rooms, :mod:`chipmill.region.layers` those of labels and
static layers, :mod:`chipmill.region.tiling` those of tiles, :mod:`chipmill.region.jobs` those of train.yaml and
predict.yaml, :mod:`chipmill.region.load` reads the files. Every field has a description, a unit and a default that
works; unknown keys are refused.
"""

import datetime as dt
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from chipmill.region.dataset import Dataset
from chipmill.region.fields import FileModel, Fraction, Id, IndexName, Model, exactly_one
from chipmill.region.imagery import Imagery
from chipmill.region.layers import Labels, Static
from chipmill.region.tiling import MAX_TILE_PX, Tiles


class Aoi(Model):
    """The area of interest: a vector file or a box."""

    path: str | None = None
    """Vector file (GeoJSON, GPKG, Parquet, Shapefile), relative to the region file."""
    bbox: tuple[float, float, float, float] | None = None
    """West, south, east, north in degrees (EPSG:4326)."""
    buffer_m: Annotated[float, Field(ge=0)] = 0.0
    """Metres added around the polygons."""
    rule: Literal["intersects", "centre", "within", "min_fraction"] = "intersects"
    """Which tiles of a lattice or a file are taken: those that touch the AOI, have their centre in it, lie within it, or
    share enough."""
    min_fraction: Fraction = 0.5
    """Share of a tile that must lie in the AOI under the rule min_fraction."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        exactly_one(self, ("path", "bbox"))
        if self.bbox is not None:
            west, south, east, north = self.bbox
            if not (-180 <= west < east <= 180 and -90 <= south < north <= 90):
                hint = " (latitude and longitude look swapped)" if _look_swapped(self.bbox) else ""
                raise ValueError(
                    f"bbox must be west < east, south < north in degrees, got {list(self.bbox)}{hint}"
                )
        return self


def _look_swapped(bbox: tuple[float, float, float, float]) -> bool:
    """Tell whether a box that is none would be one as south, west, north, east, or as west, east, south, north."""
    a, b, c, d = bbox
    turned = [(b, a, d, c), (a, c, b, d)]
    return any(-180 <= w < e <= 180 and -90 <= s < n <= 90 for w, s, e, n in turned)


class AroundLabel(Model):
    """A slot around each label's date."""

    before_days: Annotated[int, Field(ge=0)] = 0
    """Whole days before the label's day."""
    after_days: Annotated[int, Field(ge=0)] = 0
    """Whole days after the label's day; 0, 0 is the label's day alone."""


class SlotSpan(Model):
    """A named interval of a list of slots."""

    name: Id
    """Name of the slot, the prefix of its bands."""
    start: dt.date
    """First day."""
    end: dt.date
    """The day after the last one."""

    @model_validator(mode="after")
    def _order(self) -> Self:
        if self.start >= self.end:
            raise ValueError(f"slot {self.name}: start {self.start} must lie before end {self.end}")
        return self


class Slots(Model):
    """How the cell's time is cut into slots."""

    n: Annotated[int, Field(ge=1, le=366)] | None = None
    """Number of equal bins, cut at whole days, the remainder going to the first ones."""
    every: Annotated[str, StringConstraints(pattern=r"^P[1-9][0-9]{0,3}[DWMY]$")] | None = None
    """ISO 8601 duration of calendar bins from the start of the range: P1M, P3M, P16D."""
    seasons: dict[Id, tuple[int, int]] | None = None
    """Name -> first and last calendar month of a season, e.g. {summer: [6, 8]}; one slot per season and year."""
    list: tuple[SlotSpan, ...] | None = None
    """Named intervals."""
    around_label: AroundLabel | None = None
    """One slot around the date of each tile's label."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        exactly_one(self, ("n", "every", "seasons", "list", "around_label"))
        return self


class Time(Model):
    """The cell's time."""

    range: tuple[dt.date, dt.date]
    """Half-open interval of days in UTC: the first day, and the day after the last."""
    slots: Slots = Slots(n=1)
    """Bins of the range, one composite each."""

    @model_validator(mode="after")
    def _order(self) -> Self:
        if self.range[0] >= self.range[1]:
            raise ValueError(f"range: start {self.range[0]} must lie before end {self.range[1]}")
        return self


class Grid(Model):
    """The fixed pixel lattice."""

    crs: Annotated[str, StringConstraints(pattern=r"^(auto|EPSG:[0-9]{4,6})$")] = "auto"
    """EPSG code, or auto: the UTM zone of each tile's place."""
    resolution: Annotated[float, Field(gt=0)] = 10.0
    """Pixel side in units of the CRS."""
    like: str | None = None
    """Raster whose CRS, resolution and origin are taken."""
    tile_px: Annotated[int, Field(ge=16, le=MAX_TILE_PX)] = 1024
    """Side of a lattice tile in pixels."""


class Region(FileModel):
    """A named area with its own parameters: one YAML file. The shortest has name, aoi, time, imagery and labels."""

    name: Id
    """Name of the region, a directory of the output."""
    aoi: Aoi
    """The polygons to cover."""
    time: Time
    """The cell's time range and its slots."""
    grid: Grid = Grid()
    """The pixel lattice."""
    tiles: Tiles = Tiles()
    """Where tiles come from."""
    imagery: tuple[Imagery, ...]
    """Image collections; band names are unique over all of them."""
    indices: tuple[IndexName, ...] = ()
    """Spectral indices computed per slot from the composite, e.g. ndvi: names of spyndex in lower case."""
    static: tuple[Static, ...] = ()
    """Layers without time, e.g. elevation."""
    labels: Labels | None = None
    """The label layer; null for a region that is only mapped."""
    dataset: Dataset = Dataset()
    """Chips, selection, splits and shards."""
    allow_hosts: tuple[
        Annotated[str, StringConstraints(pattern=r"^[a-z0-9:]([a-z0-9.:-]{0,252}[a-z0-9:])?$")], ...
    ] = ()
    """Hosts in private networks that items may lead to, beside that of the source: names or addresses, no ports."""
    on_failed: Literal["stop", "commit"] = "stop"
    """After all other units of a stage are done: stop, or commit the rest with the failed ones listed."""

    @model_validator(mode="after")
    def _years_fit(self) -> Self:
        slots, year = self.time.slots, self.tiles.year
        if year is None:
            return self
        if slots.list is not None or slots.around_label is not None:
            raise ValueError("tiles.year needs slots that can be cut of any year: give n, every or seasons")
        if problem := year.problem(*self.time.range):
            raise ValueError(problem)
        return self

    @model_validator(mode="after")
    def _bands_unique(self) -> Self:
        if not self.imagery:
            raise ValueError("imagery: give at least one image collection")
        names = [name for imagery in self.imagery for name in imagery.bands]
        names += [*self.indices, *(layer.name for layer in self.static)]
        doubled = sorted({name for name in names if names.count(name) > 1})
        if doubled:
            raise ValueError(f"band names must be unique over the region, doubled: {', '.join(doubled)}")
        if self.labels is not None and self.labels.classes:
            self.dataset.select.refuse_unknown(set(self.labels.classes.values()))
        return self
