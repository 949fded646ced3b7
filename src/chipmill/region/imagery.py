"""Parameters of an image collection: where items come from, what is cloud, how a slot is reduced, how it is stored."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from chipmill.region.fields import Auth, Fraction, Id, Model, OutType, Source


class Mask(Model):
    """Which pixels are cloud or otherwise unusable."""

    asset: str
    """Asset key of the class band, e.g. scl."""
    drop: tuple[int, ...] = (0, 1, 3, 8, 9, 10)
    """Class values that are not clear; for Sentinel-2 SCL: nodata, defective, shadow, clouds, cirrus."""
    nodata: int | None = 0
    """Class value that means "not observed"; it is not counted as cloud."""
    dilation_px: Annotated[int, Field(ge=0, le=64)] = 0
    """Pixels of the composite grid by which dropped areas grow."""


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
    mask: Mask | None = None
    """Cloud mask; null where there are no clouds (radar)."""
    scene_cloud_max_pct: Annotated[float, Field(ge=0, le=100)] | None = None
    """Cheap pre-filter on eo:cloud_cover, per cent."""
    clear: Clear = Clear()
    """How many acquisitions of a slot are used."""
    reduce: Literal["median", "mean", "least-cloudy", "first-valid"] = "median"
    """Per-pixel reduction over the acquisitions of a slot."""
    empty: Literal["skip", "fill", "fail"] = "skip"
    """A slot without acquisition: its windows are filtered, it is nodata, or the tile fails."""
    offset: Literal["auto", "none"] = "auto"
    """Offset added to the scaled value: auto follows the metadata (Sentinel-2 baseline 04.00), none adds 0."""
    offset_override: float | None = None
    """Offset in units of the scaled value that replaces what the metadata say."""
    out: OutType = OutType()
    """How composites are stored."""

    @field_validator("bands")
    @classmethod
    def _bands(cls, bands: dict[str, str]) -> dict[str, str]:
        if not bands:
            raise ValueError("give at least one band")
        return bands
