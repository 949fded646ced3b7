"""Parameters of chips, selection, splits and shards; those of labels and static layers are in layers.py."""

import datetime as dt
from collections.abc import Collection
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from chipmill.region.fields import Fraction, Id, Model, exactly_one


class Dense(Model):
    """More windows where the key class and the others mix; they are for training alone."""

    stride_px: Annotated[int, Field(ge=1, le=4096)] = 32
    """Step between these windows in pixels; chips.stride_px must be a multiple of it."""
    between: tuple[Fraction, Fraction] = (0.4, 0.6)
    """Least and largest share of the key class among labelled pixels, 0 to 1."""
    of: Literal["tile", "window"] = "tile"
    """Whose share is asked: that of the window's tile, or the window's own."""

    @model_validator(mode="after")
    def _order(self) -> Self:
        if self.between[0] > self.between[1]:
            raise ValueError(f"between: the least share must come first, got {list(self.between)}")
        return self


class Chips(Model):
    """How windows are laid."""

    size_px: Annotated[int, Field(ge=16, le=4096)] = 256
    """Side of a chip in pixels."""
    stride_px: Annotated[int, Field(ge=1, le=4096)] = 256
    """Step between windows in pixels."""
    edge: Literal["drop", "shift", "pad"] = "shift"
    """Last windows of a tile without neighbours: left out, shifted inwards, or padded with nodata and ignore."""
    dense: Dense | None = None
    """Windows at a smaller stride in tiles that mix the key class with others; null lays none."""
    max_nodata_fraction: Fraction = 0.2
    """Largest share of nodata in any slot."""
    max_cloud_fraction: Fraction = 1.0
    """Largest share of always-cloudy pixels in any slot."""
    max_static_nodata_fraction: Fraction = 1.0
    """Largest share of pixels where a static layer is nodata."""

    @model_validator(mode="after")
    def _dense_fits(self) -> Self:
        if self.dense is not None and self.stride_px % self.dense.stride_px:
            raise ValueError(
                f"dense.stride_px {self.dense.stride_px} must divide stride_px {self.stride_px} without remainder"
            )
        return self


class Quota(Model):
    """How many training chips may count for a class: a number or a share."""

    max_chips: Annotated[int, Field(ge=0)] | None = None
    """At most so many chips."""
    max_fraction: Fraction | None = None
    """At most this share of all training chips that stay."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        exactly_one(self, ("max_chips", "max_fraction"))
        return self


class Select(Model):
    """Which windows become training chips."""

    key_class: Id | None = None
    """Class that a training chip must hold; null takes all."""
    min_key_fraction: Fraction = 0.05
    """Least share of the key class among labelled pixels."""
    min_key_px: Annotated[int, Field(ge=1)] | None = None
    """Least pixels of the key class; where it is given, the share is not asked."""
    keep_negatives: Fraction = 0.0
    """Probability with which a chip without enough of it is kept all the same; depends on the chip's id alone."""
    quotas: dict[Id, Quota] = Field(default={})
    """Class -> how many training chips may count for it; a chip counts for the class of which it holds the largest part."""

    def refuse_unknown(self, classes: Collection[str]) -> None:
        """Raise ValueError where a rule names none of the classes."""
        keys = [] if self.key_class is None else [("dataset.select.key_class", self.key_class)]
        for where, name in [*keys, *(("dataset.select.quotas", name) for name in self.quotas)]:
            if name not in classes:
                raise ValueError(f"{where} {name!r} is no class: choose of {', '.join(sorted(classes))}")


class HoldOut(Model):
    """Days whose chips are kept from training, by the anchor of each chip: half-open intervals of days in UTC."""

    val: tuple[dt.date, dt.date] | None = None
    """First day for validation, and the day after the last."""
    test: tuple[dt.date, dt.date] | None = None
    """First day for the test, and the day after the last."""

    @model_validator(mode="after")
    def _order(self) -> Self:
        given = {name: days for name in ("val", "test") if (days := getattr(self, name)) is not None}
        if not given:
            raise ValueError("hold_out needs val, test or both: the days that are kept from training")
        for name, (start, end) in given.items():
            if start >= end:
                raise ValueError(f"hold_out.{name}: start {start} must lie before end {end}")
        spans = sorted(given.values())
        if len(spans) == 2 and spans[0][1] > spans[1][0]:
            raise ValueError("hold_out: the days of val and test overlap: a chip has one split")
        return self


By = Literal["blocks", "given", "polygons", "attribute", "group", "time", "random"]

_USED_BY: dict[str, tuple[By, ...]] = {
    "path": ("polygons",),
    "attribute": ("polygons", "attribute", "group"),
    "map": ("polygons", "attribute"),
    "hold_out": ("time",),
    "folds": ("blocks", "group"),
    "like": ("blocks",),
}
"""Field of Splits -> the kinds of splits that read it."""
_NEEDED_BY: dict[By, tuple[str, ...]] = {
    "polygons": ("path", "attribute"),
    "attribute": ("attribute",),
    "group": ("attribute",),
    "time": ("hold_out",),
}


class Splits(Model):
    """How windows are parted into train, validation and test."""

    by: By = "blocks"
    """blocks: whole blocks of the lattice are dealt; given: as the tiles or points say; polygons: those of a file;
    attribute: of the tiles or points; group: all of one value of an attribute together; time: days are held out;
    random: chip by chip, which lets overlapping chips leak."""
    train: Fraction = 0.7
    """Share for training, where blocks, groups or chips are dealt."""
    val: Fraction = 0.15
    """Share for validation."""
    test: Fraction = 0.15
    """Share for the test."""
    folds: Annotated[int, Field(ge=2, le=20)] | None = None
    """Cross-validation: number of folds; fold k is the test, val is taken from the rest, train and test are unused."""
    fold: Annotated[int, Field(ge=0)] = 0
    """Which fold is the test."""
    block_px: Annotated[int, Field(ge=16)] = 1024
    """Side of a split block in pixels."""
    buffer_px: Annotated[int, Field(ge=0)] = 0
    """Train windows closer than this to validation or test ground are left out."""
    seed: int = 8
    """Seed of the dealing."""
    path: str | None = None
    """Vector file of the polygons, relative to the region file."""
    attribute: str | None = None
    """Attribute of the polygons, or of the tiles or points (one of tiles.attributes), that says split or group."""
    map: dict[str, Literal["train", "val", "test"]] = Field(default={})
    """Value of the attribute -> split; empty where the values are train, val (also dev, validation) and test."""
    hold_out: HoldOut | None = None
    """Days that are kept from training."""
    like: tuple[Id, ...] = ()
    """Names of regions of the same output whose blocks keep their split here: what one learns, none of them tests."""

    @model_validator(mode="after")
    def _shares(self) -> Self:
        if self.folds is None and abs(self.train + self.val + self.test - 1) > 1e-6:
            raise ValueError(f"train + val + test must be 1, got {self.train + self.val + self.test:g}")
        if self.folds is not None and self.fold >= self.folds:
            raise ValueError(f"fold must be below folds ({self.folds}), got {self.fold}")
        return self

    @model_validator(mode="after")
    def _fields_of_kind(self) -> Self:
        for name in _NEEDED_BY.get(self.by, ()):
            if getattr(self, name) is None:
                raise ValueError(f"splits by {self.by} need {name}")
        for name, kinds in _USED_BY.items():
            if self.by not in kinds and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(
                    f"splits by {self.by} take no {name}: it is for splits by {' or '.join(kinds)}"
                )
        return self


class Shards(Model):
    """How records are filed."""

    target_mb: Annotated[float, Field(gt=0, le=4096)] = 128.0
    """Size of a shard in 10^6 bytes that is aimed at."""
    encoding: Literal["array", "png", "jpeg", "geotiff", "float"] = "array"
    """array: raw little-endian pixels; png, jpeg (loses detail), geotiff: a picture; float: lists as Earth Engine's."""
    compression: Literal["none", "gzip"] = "none"
    """none: records are stored as they are; gzip: smaller files that are slower to write and to read."""
    jpeg_quality: Annotated[int, Field(ge=1, le=100)] = 90
    """Quality of the encoding jpeg; the others lose nothing."""


class Dataset(Model):
    """From stacks to shards."""

    layout: Literal["stack", "series", "single"] = "stack"
    """stack: all slots in one sample; series: the same with an axis of time; single: one slot, of the label's date."""
    chips: Chips = Chips()
    """How windows are laid."""
    select: Select = Select()
    """Which windows become training chips."""
    splits: Splits = Splits()
    """How blocks are dealt."""
    shards: Shards = Shards()
    """How records are filed."""

    @model_validator(mode="after")
    def _dense_has_key(self) -> Self:
        if self.chips.dense is not None and self.select.key_class is None:
            raise ValueError("chips.dense asks for the share of a key class: give select.key_class")
        return self
