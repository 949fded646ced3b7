"""Parameters of what a stack holds beside imagery: static layers and labels."""

import re
from typing import Annotated, Final, Literal, Self

from pydantic import Field, WithJsonSchema, field_validator, model_validator

from chipmill.region.fields import Id, Model, OutType, Resampling

MASK_RULES: Final = ("intersect", "difference")
"""Rules by which a layer only says where a label is kept; what its values are called does not matter."""
SourceValue = Annotated[str, WithJsonSchema({"anyOf": [{"type": "integer"}, {"type": "string"}]})]
"""A value, range or text; numbers may be written bare, in parameters of a deployment, too."""
_NUMBER_OR_RANGE: Final = re.compile(r"-?\d+(-\d+)?")
_TEXT_LENGTH: Final = 200


_WHOLE_STEPS: Final = OutType(scale=1.0)
_USUAL_TYPES: Final[dict[str | None, OutType]] = {
    "slope": OutType(scale=0.01),
    "aspect": OutType(scale=0.02),
    "hillshade": OutType(dtype="uint8", scale=1.0, nodata=0),
}
"""How derived layers are stored where the region file does not say, others in whole steps. All fit into int16, the
usual type of composites: one band of uint16 beside it would make every record twice as large."""


class Static(Model):
    """A layer without time."""

    name: Id
    """Band name in the stack."""
    path: str
    """Raster file, relative to the region file; for distance it may be a vector file."""
    band: Annotated[int, Field(ge=1)] = 1
    """Band number of the raster, from 1."""
    derive: Literal["slope", "aspect", "hillshade", "distance"] | None = None
    """What is made of a raster of heights in metres: slope in degrees, aspect in degrees clockwise from north (flat
    ground has none), hillshade 1..255; distance in metres to the features of a vector file or to a raster's target.
    null: the raster itself."""
    target: int | None = None
    """distance: the raster value whose pixels are meant."""
    max_m: Annotated[float, Field(gt=0, le=100_000)] = 1000.0
    """distance: what is farther away counts as this far."""
    azimuth_deg: Annotated[float, Field(ge=0, le=360)] = 315.0
    """hillshade: where the light comes from, degrees clockwise from north."""
    altitude_deg: Annotated[float, Field(ge=0, le=90)] = 45.0
    """hillshade: how high the light stands, degrees above the horizon."""
    resampling: Resampling = "bilinear"
    """Used where the layer is on another grid."""
    out: OutType | None = None
    """How it is stored. null: as int16 in steps of 1, but slope in steps of 0.01 and aspect of 0.02 degrees, hillshade
    as uint8 with nodata 0."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.target is not None and self.derive != "distance":
            raise ValueError(
                "target is for derive: distance: the raster value to which distances are measured"
            )
        if self.derive == "distance" and self.max_m > self.stored.limits[1]:
            raise ValueError(
                f"max_m {self.max_m:g} does not fit into {self.stored.dtype} in steps of {self.stored.scale:g} m, which "
                f"ends at {self.stored.limits[1]:g}: lower it, or raise out.scale"
            )
        return self

    @property
    def stored(self) -> OutType:
        """How it is stored: as the region file says, or as is usual for what it is."""
        return self.out or _USUAL_TYPES.get(self.derive, _WHOLE_STEPS)


class LabelLayer(Model):
    """One label layer."""

    path: str
    """Raster or vector file (GPKG, GeoJSON, Shapefile, FlatGeobuf, GeoParquet), relative to the region file."""
    rule: Literal["paint", "intersect", "difference", "first", "max", "mode"] = "paint"
    """What it does to the label that the layers before it made. paint: on top, where it has a value; first: below, where
    they have none; max: of two classes the one later in classes; mode: a run of such layers and the label before them
    vote, and the first listed of those with most votes wins; intersect: the label is kept only where this layer has a
    value; difference: only where it has none. Where nothing is left, labels.outside decides."""
    attribute: str | None = None
    """Vector attribute that holds the class value, a number or a text."""
    value: int | None = None
    """Constant class value of every feature, where there is no attribute."""
    only: tuple[SourceValue, ...] = ()
    """Source values, ranges ("20-30") or texts that count, what else it holds is nothing; empty: all of them."""
    order: str | None = None
    """Attribute by which features that overlap are drawn, the largest on top, with "-" before it the smallest;
    null: by their order in the file."""
    all_touched: bool = False
    """Burn every pixel that a polygon touches, not only those whose centre it covers. One that several touch is of that
    which covers its centre, else of the class later in classes, unless order decides."""
    background: int | None = None
    """Class value where no feature lies; null is nothing, so that the layers below show."""
    sure: bool = False
    """Raster: labels.confidence is not meant for it, all its pixels are sure."""

    @field_validator("only", mode="before")
    @classmethod
    def _texts(cls, values: object) -> object:
        return as_texts(values)

    @model_validator(mode="after")
    def _mask_has_no_class(self) -> Self:
        if self.rule in MASK_RULES and (self.value is not None or self.background is not None):
            raise ValueError(
                f"the rule {self.rule} takes no value and no background: the layer brings no class, it says where "
                "labels are kept; choose its values by only"
            )
        if self.rule in MASK_RULES and self.attribute is not None and not self.only:
            raise ValueError(f"the rule {self.rule} with attribute needs only: which of its values count")
        return self


class Confidence(Model):
    """A band that says how sure the label is."""

    band: Annotated[int, Field(ge=1)]
    """Band number of the label raster, from 1."""
    min: float
    """Pixels below are ignored."""
    weight: bool = False
    """Keep the band as the weight of each labelled pixel: a band of the stack and a feature of the records, 0..254."""
    full: Annotated[float, Field(gt=0)] = 100.0
    """weight: value of the band, and above, that has the full weight of 254; what is no raster has it everywhere."""


class Labels(Model):
    """The label layer."""

    layers: tuple[LabelLayer, ...] = ()
    """Taken in order, each by its rule; empty for label-item tiles, whose item brings the raster as the first layer."""
    classes: dict[str, Id] = Field(default={})
    """Source value, range ("20-30") or text of an attribute -> class name, in order; the stack holds 0..n-1 in the order
    of the names."""
    ignore: tuple[SourceValue, ...] = ()
    """Source values, ranges or texts that are neither class nor error."""
    outside: Id = "ignore"
    """What pixels inside the coverage are where no layer says anything: ignore, or the name of a class."""
    confidence: Confidence | None = None
    """Band of the raster that says how sure a pixel is."""
    coverage: str | None = None
    """Polygons inside which labels are complete; outside is ignore."""
    resampling: Literal["refuse", "nearest", "mode"] = "refuse"
    """What to do with a label on another grid or in another CRS."""

    @field_validator("classes", mode="before")
    @classmethod
    def _text_keys(cls, classes: object) -> object:
        return {str(key): name for key, name in classes.items()} if isinstance(classes, dict) else classes

    @field_validator("ignore", mode="before")
    @classmethod
    def _texts(cls, values: object) -> object:
        return as_texts(values)

    @model_validator(mode="after")
    def _keys(self) -> Self:
        # tiles from points may bring a layer of their own, with texts
        texts = not self.layers or any(layer.attribute is not None for layer in self.layers)
        lists = {"classes": tuple(self.classes), "ignore": self.ignore}
        lists |= {f"layers.{number}.only": layer.only for number, layer in enumerate(self.layers)}
        for name, keys in lists.items():
            for key in keys:
                _check_key(name, key, texts)
        if len(set(self.classes.values())) > 255:
            raise ValueError("classes: at most 255 names")
        if self.outside != "ignore" and self.classes and self.outside not in self.classes.values():
            names = ", ".join(dict.fromkeys(self.classes.values()))
            raise ValueError(f"outside: {self.outside!r} is neither ignore nor a class of {names}")
        return self


def is_number_or_range(key: str) -> bool:
    """Tell a value like "10" or "-3" or a range like "20-30" from the text of an attribute."""
    return _NUMBER_OR_RANGE.fullmatch(key) is not None


def as_texts(values: object) -> object:
    """Return a list whose whole numbers became texts, as YAML gives them bare; anything else stays for pydantic."""
    if not isinstance(values, list | tuple):
        return values
    return tuple(str(one) if isinstance(one, int) and not isinstance(one, bool) else one for one in values)


def _check_key(name: str, key: str, texts: bool) -> None:
    if is_number_or_range(key):
        return
    if not texts or not any(letter.isalpha() for letter in key):
        more = "" if texts else "; texts are values of the attribute of a vector layer, and none has one"
        raise ValueError(f"{name}: {key[:80]!r} is neither a value like 10 nor a range like 20-30{more}")
    if not key.isprintable() or key != key.strip() or len(key) > _TEXT_LENGTH:
        raise ValueError(
            f"{name}: {key[:80]!r} must be printable, without blanks around it, of at most {_TEXT_LENGTH} characters"
        )
