"""The base of all parameter models, and the small models that several of them share."""

import os
import re
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from chipmill.core.redact import SECRET_PREFIX, holds_secret, secret_free
from chipmill.region.formulas import find_index, index_names
from chipmill.region.patterns import STORE_PATTERN, parse_pattern

ID_PATTERN: Final = r"^[a-z0-9][a-z0-9._-]{0,62}$"
"""Ids of regions, classes, bands, tiles and models: they become file names and band names."""

Id = Annotated[str, StringConstraints(pattern=ID_PATTERN)]
Fraction = Annotated[float, Field(ge=0, le=1)]


def _is_index(name: str) -> str:
    if find_index(name) is None:
        # of this type is an error that lists what may be chosen, so that the nearest is named
        known = ", ".join(f"'{one}'" for one in index_names())
        raise PydanticCustomError("literal_error", "no index has that name", {"expected": known})
    return name


IndexName = Annotated[str, AfterValidator(_is_index)]
"""Spectral indices that a region file may name: those of :mod:`chipmill.region.formulas`."""
S3_LOGIN: Final = (f"{SECRET_PREFIX}S3_ACCESS_KEY", f"{SECRET_PREFIX}S3_SECRET_KEY")
"""Environment variables of the login at the object store."""
NO_FILE: Final = "parameters.yaml"
"""Stands for the file of a parameter that came from none."""
_RANGES: Final = {"int16": (-32768, 32767), "uint16": (0, 65535), "uint8": (0, 255)}
"""Smallest and largest stored value of each pixel type."""
Resampling = Literal["nearest", "bilinear", "cubic", "average", "mode"]


_UNITS: Final = {"m": "m", "px": "px", "pct": "%", "mb": "MB", "days": "days", "deg": "degrees"}
"""Suffix of a field's name -> how its unit is shown in a form."""


def form_title(name: str) -> str:
    """Return the title of a field in a form: its name as words, with the unit that its suffix says in brackets."""
    *words, last = name.strip("_").split("_")
    unit = f" ({_UNITS[last]})" if words and last in _UNITS else ""
    text = " ".join(words if unit else [*words, last])
    return text[:1].upper() + text[1:] + unit + (" (0 to 1)" if last == "fraction" else "")


def _title_blocks(schema: dict[str, Any]) -> None:
    """Give the fields that are models themselves a title, which pydantic leaves to the model's own."""
    for name, field in schema.get("properties", {}).items():
        field.setdefault("title", form_title(name))
    secret_free(schema)


class Model(BaseModel):
    """Frozen, and unknown keys are errors."""

    # A wrong value may be a secret in the wrong place: pydantic's own text must not repeat it.
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        hide_input_in_errors=True,
        field_title_generator=lambda name, _field: form_title(name),
        json_schema_extra=_title_blocks,
    )


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
    """Path, or s3://bucket/key, of an ItemCollection (GeoJSON) or of stac-geoparquet (.parquet)."""
    files: str | None = None
    """Pattern of the files of an archive without STAC, in quotes: "archive/{date:%Y%m%d}_{tile}_{band}.tif"."""
    composites: str | None = None
    """Pattern of composites that are ready, one period and slot each: "{year}/{band}.tif"; nothing is masked or reduced."""
    collection: str | None = None
    """Id of the collection; may be left out where the source has one."""
    pushdown: Literal["auto", "none", "query", "filter"] = "auto"
    """Which conditions a STAC API is sent: auto follows what it says it conforms to, the others are for one that errs.
    All are evaluated here as well, so the items are the same."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        exactly_one(self, ("stac", "catalog", "items", "files", "composites"))
        if (pattern := self.files or self.composites) is not None:
            parse_pattern(pattern)
        if self.items is not None and "://" in self.items and not re.fullmatch(STORE_PATTERN, self.items):
            raise ValueError(
                "items must be a path or s3://bucket/key: other stores are given by their STAC API"
            )
        if self.stac is not None and urlsplit(self.stac).scheme.lower() not in ("http", "https"):
            raise ValueError(
                "stac must be the http(s) URL of a STAC API: a file is given as catalog or items"
            )
        return self


class Auth(Model):
    """How a source knows who asks. The secret itself is never written here: ``env`` names the variable that holds it."""

    kind: Literal["none", "header", "query", "planetary-computer", "earthdata", "s3"] = "none"
    """Header or query send the secret to the source's own origin only, planetary-computer signs its assets when they
    are read, earthdata sends a bearer token to NASA's hosts of assets,
    s3 signs what lies in the operator's object store."""
    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")] | None = None
    """Name of the header or of the query parameter."""
    env: Annotated[str, StringConstraints(pattern=rf"^{SECRET_PREFIX}[A-Z0-9_]{{1,64}}$")] | None = None
    """Environment variable that holds the whole value, e.g. CHIPMILL_SECRET_CATALOG; planetary-computer and s3 need none."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        named, secret = self.name is not None, self.env is not None
        match self.kind:
            case "none" if named or secret:
                raise ValueError("auth with a name or env needs a kind, or leave all of them out")
            case "header" | "query" if not (named and secret):
                raise ValueError(f"auth of kind {self.kind} needs name and env")
            case "planetary-computer" if named:
                raise ValueError(
                    "auth of kind planetary-computer takes no name: give kind alone, or env of a subscription key"
                )
            case "earthdata" if named or not secret:
                raise ValueError(
                    "auth of kind earthdata needs env, which holds the bearer token, and no name"
                )
            case "s3" if named or secret:
                raise ValueError(
                    f"auth of kind s3 takes no name and no env: its login is in {S3_LOGIN[0]} and {S3_LOGIN[1]}"
                )
        return self

    @property
    def at_assets(self) -> bool:
        """Whether it holds for assets on other hosts than the source's, each by rules of its own."""
        return self.kind in ("planetary-computer", "earthdata", "s3")


class OutType(Model):
    """How values are stored."""

    dtype: Literal["int16", "uint16", "uint8"] = "int16"
    """Pixel type."""
    scale: Annotated[float, Field(gt=0)] = 0.0001
    """Stored value x scale = physical value."""
    nodata: int = -32768
    """Stored value of "no data"."""

    @model_validator(mode="after")
    def _nodata_fits(self) -> Self:
        low, high = _RANGES[self.dtype]
        if not low <= self.nodata <= high:
            raise ValueError(
                f"nodata {self.nodata} lies outside {self.dtype} ({low}..{high}): set nodata, for example to "
                f"{low or high}"
            )
        return self

    @property
    def limits(self) -> tuple[float, float]:
        """Smallest and largest physical value that can be stored, nodata included."""
        low, high = _RANGES[self.dtype]
        return low * self.scale, high * self.scale


class FileModel(Model):
    """A model that is a file of its own; its relative paths are taken from the file's folder."""

    output: str = "out"
    """Directory of everything made, relative to this file."""
    file: str | None = Field(default=None, repr=False)
    """May be left empty: path of the file that these values were read from; relative paths begin in its folder."""

    @model_validator(mode="before")
    @classmethod
    def _no_secrets(cls, values: Any) -> Any:
        """A parameter is stored in clear wherever runs are listed, so a URL with credentials is refused."""
        for name, text in texts_of(values):
            if holds_secret(text):
                raise ValueError(
                    f"{name} holds a URL with a password, key or signature: parameters are stored in clear: "
                    f"give the bare URL, and the secret by auth and a {SECRET_PREFIX}... variable"
                )
        return values

    @field_validator("output")
    @classmethod
    def _is_directory(cls, output: str) -> str:
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", output):
            raise ValueError(
                "must be a directory of this machine: products are not written to stores such as s3, give a folder, "
                "which may be mounted"
            )
        return output

    def command(self, verb: str, options: str = "") -> str:
        """Return the chipmill command that is asked for by this file; without a file it can only be asked for again."""
        if self.file is None or (Path(self.file).name == NO_FILE and not Path(self.file).is_file()):
            return "Retry of this run, or another run with the same parameters"
        return f"chipmill {verb} {self.file}{options}"

    def resolve(self, path: str) -> Path:
        """Return a path of the file as an absolute one, without ``..``, links left as they are."""
        return Path(os.path.normpath((Path(self.file or "region.yaml").parent / path).absolute()))

    @property
    def output_dir(self) -> Path:
        """The absolute output directory."""
        return self.resolve(self.output)


def texts_of(values: Any, name: str = "") -> list[tuple[str, str]]:
    """Return (dotted name, text) of every text in nested mappings and lists."""
    if isinstance(values, BaseModel):
        values = dict(values)
    if isinstance(values, dict):
        return [one for key, value in values.items() for one in texts_of(value, f"{name}.{key}".strip("."))]
    if isinstance(values, list | tuple):
        return [one for number, value in enumerate(values) for one in texts_of(value, f"{name}.{number}")]
    return [(name, values)] if isinstance(values, str) else []
