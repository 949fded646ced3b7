"""Parameters of an image collection: where items come from, what is cloud, how a slot is reduced, how it is stored."""

import datetime as dt
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator

from chipmill.region.fields import Auth, Fraction, Id, Model, OutType, Source, exactly_one
from chipmill.region.filters import parse_filter
from chipmill.region.qa import parse_qa

_SCL: Final = (0, 1, 3, 8, 9, 10)
"""Nodata, defective, shadow, clouds, cirrus: what is dropped where the region file names no rule."""

_DB_RANGE: Final = (-50.0, 20.0)
"""Backscatter in decibels, from noise over calm water to corner reflectors."""


class CloudProbability(Model):
    """Which stored probabilities are cloud."""

    above: Fraction = 0.4
    """Probability (0 to 1) above which a pixel is cloud."""
    scale: Annotated[float, Field(gt=0)] = 0.01
    """Stored value x scale = probability; 0.01 where per cent are stored."""


class Mask(Model):
    """Which pixels are cloud or otherwise unusable."""

    asset: str
    """Asset key of the band of classes, quality bits or cloud probability, e.g. scl or qa_pixel."""
    drop: tuple[int, ...] | None = None
    """Class values that are not clear; null with neither qa nor probability: 0, 1, 3, 8, 9, 10, those of Sentinel-2's SCL."""
    qa: str | None = None
    """Quality bits that are not clear: a product (landsat-c1, landsat-c2, hls-fmask), its fields, or bits by offset and width."""
    probability: CloudProbability | None = None
    """Cloud probability above which a pixel is not clear."""
    nodata: int | None = 0
    """Stored value that means "not observed", which is not counted as cloud; null with qa and probability."""
    dilation_px: Annotated[int, Field(ge=0, le=64)] = 0
    """Pixels of the composite grid by which dropped areas grow."""
    use: Literal["mask", "rank"] = "mask"
    """mask: what is not clear is left out of composites; rank: it only says how clear an acquisition is."""

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_kind(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        classes = values.get("qa") is None and values.get("probability") is None
        kind = {"nodata": 0 if classes else None}
        return kind | values | ({"drop": _SCL} if classes and values.get("drop") is None else {})

    @field_validator("qa")
    @classmethod
    def _is_expression(cls, qa: str | None) -> str | None:
        if qa is not None:
            parse_qa(qa)
        return qa

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        exactly_one(self, ("drop", "qa", "probability"))
        if self.nodata == 0 and self.drop is None:
            raise ValueError(
                "nodata 0 would be every pixel without a flag or a probability: set nodata to null, or to what the "
                "file has where nothing was observed"
            )
        return self

    @model_serializer(mode="wrap")
    def _without_unused(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What is not used is not written: then composites keep their names when a field is added here."""
        unused = {"drop": None, "qa": None, "probability": None, "use": "mask"}
        return {name: value for name, value in write(self).items() if unused.get(name, ...) != value}


class Clear(Model):
    """How many acquisitions of a slot are used."""

    threshold: Fraction = 0.9
    """Clear fraction of tile and AOI that an acquisition must have."""
    step: Annotated[float, Field(gt=0, le=1)] = 0.1
    """By how much the threshold falls while too few qualify."""
    floor: Fraction = 0.3
    """Lowest threshold."""
    min_count: Annotated[int, Field(ge=1)] = 1
    """Number of acquisitions at which the threshold stops falling."""
    n_best: Annotated[int, Field(ge=1)] | None = None
    """At most so many are used, the best first; null uses all that qualify."""


class Nearest(Model):
    """Which day the reducer nearest looks for."""

    reference: dt.date | None = None
    """The wanted day (UTC); null: the day of the tile's label, else the middle of the slot."""
    min_date: dt.date | None = None
    """First day that may be used."""
    max_date: dt.date | None = None
    """The day after the last one that may be used."""

    @model_validator(mode="after")
    def _order(self) -> Self:
        if self.min_date is not None and self.max_date is not None and self.min_date >= self.max_date:
            raise ValueError(f"min_date {self.min_date} must lie before max_date {self.max_date}")
        return self


class Imagery(Model):
    """One image collection."""

    name: Id
    """Name of this imagery, a folder of composites."""
    source: Source
    """Where its items come from."""
    auth: Auth = Auth()
    """How the source knows who asks."""
    bands: dict[Id, str]
    """Our band name (unique over the region) -> asset key or common name."""
    resampling: Literal["nearest", "bilinear", "cubic", "average"] = "bilinear"
    """Used only where a source is on another grid."""
    engine: Literal["blocks", "odc-stac", "stackstac"] = "blocks"
    """Who reads composites' pixels: blocks is ours and the fastest; with resampling nearest all give the same pixels."""
    mask: Mask | None = None
    """Cloud mask; null where there are no clouds (radar)."""
    filter: str | None = None
    """CQL2 text that an item must meet, e.g. "eo:cloud_cover < 60 AND id NOT IN ('a', 'b')"; evaluated here, and sent to
    the server where it says that it can."""
    scene_cloud_max_pct: Annotated[float, Field(ge=0, le=100)] | None = None
    """Cheap pre-filter on eo:cloud_cover, per cent."""
    clear: Clear = Clear()
    """How many acquisitions of a slot are used."""
    reduce: Literal["median", "mean", "geomedian", "least-cloudy", "first-valid", "nearest"] = "median"
    """Per-pixel reduction over the acquisitions of a slot; geomedian takes all bands together, nearest the closest date."""
    unit: Literal["linear", "db"] | None = None
    """What radar values are: linear power, or db (decibels), of which mean and medians are taken as power; null: reflectance."""
    nearest: Nearest | None = None
    """The day that the reducer nearest looks for, and the days it may use; null: the label's day or the slot's middle."""
    empty: Literal["skip", "fill", "fail"] = "skip"
    """A slot without acquisition: its windows are filtered, it is nodata, or the tile fails."""
    offset: Literal["auto", "none"] = "auto"
    """Offset added to the scaled value: auto follows the metadata (Sentinel-2 baseline 04.00), none adds 0."""
    offset_check: Literal["warn", "exclude", "stop"] = "warn"
    """An acquisition that is largely negative after its offset is noted with the composite, left out, or fails the tile.
    Stop also refuses a search with items that contradict themselves on their offset; else such items are left out."""
    offset_override: float | None = None
    """Offset in units of the scaled value that replaces what the metadata say."""
    scale_override: Annotated[float, Field(gt=0)] | None = None
    """Physical value of one step of the stored number; replaces what the metadata say of all bands."""
    out: OutType = OutType()
    """How composites are stored."""

    @model_validator(mode="after")
    def _ready_is_not_masked(self) -> Self:
        if self.source.composites is not None and self.mask is not None:
            raise ValueError(
                "composites are ready, nothing is masked: leave mask out, or give the pattern as files"
            )
        return self

    @model_validator(mode="after")
    def _nearest_is_reduced_so(self) -> Self:
        if self.nearest is not None and self.reduce != "nearest":
            raise ValueError(
                f"nearest says which day is wanted, and reduce is {self.reduce}: set reduce to nearest"
            )
        return self

    @model_validator(mode="after")
    def _decibels_fit(self) -> Self:
        low, high = self.out.limits
        if self.unit == "db" and (low > _DB_RANGE[0] or high < _DB_RANGE[1]):
            raise ValueError(
                f"out holds {low:.4g} to {high:.4g}, and decibels of radar lie in {_DB_RANGE[0]:g} to {_DB_RANGE[1]:g}: "
                "set out, for example to {dtype: int16, scale: 0.01}"
            )
        return self

    @field_validator("filter")
    @classmethod
    def _filter(cls, text: str | None) -> str | None:
        if text is not None:
            parse_filter(text)
        return text

    @field_validator("bands")
    @classmethod
    def _bands(cls, bands: dict[str, str]) -> dict[str, str]:
        if not bands:
            raise ValueError("give at least one band")
        return bands
