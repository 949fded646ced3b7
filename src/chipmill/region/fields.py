"""The base of all parameter models, and the small models that several of them share."""

import os
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

ID_PATTERN: Final = r"^[a-z0-9][a-z0-9._-]{0,62}$"
"""Ids of regions, classes, bands, tiles and models: they become file names and band names."""

Id = Annotated[str, StringConstraints(pattern=ID_PATTERN)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Resampling = Literal["nearest", "bilinear", "cubic", "average", "mode"]


class Model(BaseModel):
    """Frozen, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


def exactly_one(model: BaseModel, names: tuple[str, ...]) -> None:
    """Raise ValueError unless just one of the optional members is set."""
    given = [name for name in names if getattr(model, name) is not None]
    if len(given) != 1:
        raise ValueError(f"give exactly one of {', '.join(names)}; got {', '.join(given) or 'none'}")


class Source(Model):
    """Where items come from."""

    stac: str | None = None
    """URL of a STAC API."""
    catalog: str | None = None
    """Path of a static STAC catalog (catalog.json)."""
    items: str | None = None
    """Path of an ItemCollection (GeoJSON)."""
    collection: str | None = None
    """Id of the collection; may be left out where the source has one."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        exactly_one(self, ("stac", "catalog", "items"))
        return self


class OutType(Model):
    """How values are stored."""

    dtype: Literal["int16", "uint16", "uint8"] = "int16"
    """Pixel type."""
    scale: Annotated[float, Field(gt=0)] = 0.0001
    """Stored value x scale = physical value."""
    nodata: int = -32768
    """Stored value of "no data"."""


class FileModel(Model):
    """A model that is a file of its own; its relative paths are taken from the file's folder."""

    output: str = "out"
    """Directory of everything made, relative to this file."""
    file: str | None = Field(default=None, repr=False)
    """Absolute path of the file, whose folder relative paths are taken from; set when it is read."""

    def resolve(self, path: str) -> Path:
        """Return a path of the file as an absolute one, without ``..``, links left as they are."""
        return Path(os.path.normpath((Path(self.file or "region.yaml").parent / path).absolute()))

    @property
    def output_dir(self) -> Path:
        """The absolute output directory."""
        return self.resolve(self.output)
