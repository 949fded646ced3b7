"""Parameters of labels, chips, selection, splits and shards."""

import re
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from chipmill.region.fields import Fraction, Id, Model, OutType, Resampling


class Static(Model):
    """A layer without time."""

    name: Id
    """Band name in the stack."""
    path: str
    """Raster file, relative to the region file."""
    resampling: Resampling = "bilinear"
    """Used where the layer is on another grid."""
    out: OutType = OutType(scale=1.0)
    """How it is stored."""


class LabelLayer(Model):
    """One label layer."""

    path: str
    """Raster or vector file, relative to the region file."""
    attribute: str | None = None
    """Vector attribute that holds the class value."""
    value: int | None = None
    """Constant class value of every feature, where there is no attribute."""
    all_touched: bool = False
    """Burn every pixel that a polygon touches, not only those whose centre it covers."""
    background: int | None = None
    """Class value where no feature lies; null is ignore."""


class Confidence(Model):
    """A band that says how sure the label is."""

    band: Annotated[int, Field(ge=1)]
    """Band number of the label raster, from 1."""
    min: float
    """Pixels below are ignored."""


class Labels(Model):
    """The label layer."""

    layers: tuple[LabelLayer, ...] = ()
    """Painted in order, later ones on top; empty for label-item tiles, whose item brings the raster."""
    classes: dict[str, Id] = Field(default={})
    """Source value or range ("20-30") -> class name, in order; the stack holds 0..n-1 in the order of the names."""
    ignore: tuple[int, ...] = ()
    """Source values that are neither class nor error."""
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

    @field_validator("classes")
    @classmethod
    def _ranges(cls, classes: dict[str, str]) -> dict[str, str]:
        for key in classes:
            if not re.fullmatch(r"-?\d+(-\d+)?", key):
                raise ValueError(f"classes: {key!r} is neither a value like 10 nor a range like 20-30")
        if len(set(classes.values())) > 255:
            raise ValueError("classes: at most 255 names")
        return classes


class Chips(Model):
    """How windows are laid."""

    size_px: Annotated[int, Field(ge=16, le=4096)] = 256
    """Side of a chip in pixels."""
    stride_px: Annotated[int, Field(ge=1, le=4096)] = 256
    """Step between windows in pixels."""
    edge: Literal["drop", "shift"] = "shift"
    """Last windows of a tile without neighbours: left out, or shifted inwards."""
    max_nodata_fraction: Fraction = 0.2
    """Largest share of nodata in any slot."""
    max_cloud_fraction: Fraction = 1.0
    """Largest share of always-cloudy pixels in any slot."""


class Select(Model):
    """Which windows become training chips."""

    key_class: Id | None = None
    """Class that a training chip must hold; null takes all."""
    min_key_fraction: Fraction = 0.05
    """Least share of the key class among labelled pixels."""
    keep_negatives: Fraction = 0.0
    """Probability with which a chip without enough of it is kept all the same; depends on the chip's id alone."""


class Splits(Model):
    """How blocks of the lattice are dealt to train, validation and test."""

    train: Fraction = 0.7
    """Share of the blocks for training."""
    val: Fraction = 0.15
    """Share of the blocks for validation."""
    test: Fraction = 0.15
    """Share of the blocks for the test."""
    folds: Annotated[int, Field(ge=2, le=20)] | None = None
    """Cross-validation: number of folds; fold k is the test, val is taken from the rest, train and test are unused."""
    fold: Annotated[int, Field(ge=0)] = 0
    """Which fold is the test."""
    block_px: Annotated[int, Field(ge=16)] = 1024
    """Side of a split block in pixels."""
    buffer_px: Annotated[int, Field(ge=0)] = 0
    """Train windows closer than this to a validation or test block are left out."""
    seed: int = 8
    """Seed of the dealing."""

    @model_validator(mode="after")
    def _shares(self) -> Self:
        if self.folds is None and abs(self.train + self.val + self.test - 1) > 1e-6:
            raise ValueError(f"train + val + test must be 1, got {self.train + self.val + self.test:g}")
        if self.folds is not None and self.fold >= self.folds:
            raise ValueError(f"fold must be below folds ({self.folds}), got {self.fold}")
        return self


class Shards(Model):
    """How records are filed."""

    target_mb: Annotated[float, Field(gt=0, le=4096)] = 128.0
    """Size of a shard in 10^6 bytes that is aimed at."""
    encoding: Literal["array"] = "array"
    """array: raw little-endian pixels."""
    compression: Literal["none"] = "none"
    """Records are stored as they are."""


class Dataset(Model):
    """From stacks to shards."""

    layout: Literal["stack", "single"] = "stack"
    """stack: all slots in one sample; single: one sample per label date, for tiles with one slot."""
    chips: Chips = Chips()
    """How windows are laid."""
    select: Select = Select()
    """Which windows become training chips."""
    splits: Splits = Splits()
    """How blocks are dealt."""
    shards: Shards = Shards()
    """How records are filed."""
