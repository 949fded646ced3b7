"""The commented region file of `chipmill init`: written from the models themselves, so that it cannot fall behind them.

Every field stands there with its default and its description; fields that are not used (null) and the other members of
an exactly-one group are comments.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel

from chipmill.core.errors import BadInputError
from chipmill.core.store import write_text
from chipmill.region.config import Region
from chipmill.region.fields import ID_PATTERN
from chipmill.region.imagery import Mask

_HEAD: Final = """\
# A region: an area, a time range, imagery and labels. Made by `chipmill init`.
# Fill in the five fields marked FILL IN; all others hold their defaults and may be removed.
# Paths are relative to this file. `chipmill plan {file}` says what a run would cost before anything is read.
"""
_FILL: Final = ("name", "aoi", "time", "imagery", "labels")
_LAST: Final = ("on_failed", "output")
"""Top-level fields that few people change."""
_UNSEEN: Final = ("file",)
"""Fields that chipmill sets when it reads a file."""
_COLUMN: Final = 46
"""Where descriptions begin."""


def example_region(name: str) -> Region:
    """Return the region that the template shows; it is valid, its paths and its URL are placeholders."""
    return Region.model_validate(
        {
            "name": name,
            "aoi": {"path": "aoi.geojson"},
            "time": {"range": ["2019-01-01", "2020-01-01"], "slots": {"every": "P3M"}},
            "imagery": [
                {
                    "name": "s2",
                    "source": {"stac": "https://stac.example.org/v1", "collection": "sentinel-2-l2a"},
                    "bands": {"blue": "blue", "green": "green", "red": "red", "nir": "nir"},
                    "mask": Mask(asset="scl", dilation_px=2).model_dump(),
                    "scene_cloud_max_pct": 90,
                }
            ],
            "indices": ["ndvi"],
            "labels": {
                "layers": [{"path": "landcover.tif"}],
                "classes": {"1": "water", "2": "crop", "3": "other"},
                "ignore": [0],
            },
        }
    )


def write_template(name: str, out: Path, *, force: bool) -> Path:
    """Write the region file of ``name`` and return its path; raises BadInputError where it is there, unless ``force``."""
    if out.exists() and not force:
        raise BadInputError(f"{out} exists: choose another name with --out, or replace it with --force")
    if not re.fullmatch(ID_PATTERN, name):
        raise BadInputError(
            f"{name!r} cannot be the name of a region: use lower-case letters, digits, dots, dashes"
        )
    write_text(out, render_template(example_region(name), out.name))
    return out


def render_template(region: Region, file: str) -> str:
    """Return the YAML text of a region with a description behind every field."""
    parts: dict[str, list[str]] = {}
    current = ""
    for name, line in _fields(region, depth=0):
        current = name or current
        parts.setdefault(current, []).append(_marked(line) if name in _FILL else line)
    order = [*(name for name in parts if name not in _LAST), *_LAST]
    return _HEAD.format(file=file) + "".join(f"{line}\n" for name in order for line in parts[name])


def _marked(line: str) -> str:
    text, _, note = line.partition("  # ")
    return f"{text.ljust(_COLUMN)}  # FILL IN: {note.strip()}"


def _fields(model: BaseModel, depth: int) -> Iterator[tuple[str, str]]:
    """Yield (name of a top-level field or "", line) for each line of a model."""
    for name, field in type(model).model_fields.items():
        if name in _UNSEEN:
            continue
        key, value = field.alias or name, getattr(model, name)
        head = f"{'  ' * depth}{'# ' if value is None else ''}{key}:"
        rest = list(_below(value, depth + 1))
        text = head if rest else f"{head} {_flow(value)}"
        yield name if depth == 0 else "", f"{text.ljust(_COLUMN)}  # {_note(field.description)}"
        for line in rest:
            yield "", line


def _below(value: Any, depth: int) -> Iterator[str]:
    """Yield the lines below a key: those of a model, or of a list of models; none where the value fits the key's line."""
    if isinstance(value, BaseModel):
        yield from (line for _, line in _fields(value, depth))
    elif isinstance(value, tuple) and value and isinstance(value[0], BaseModel):
        for one in value:
            lines = [line for _, line in _fields(one, depth + 1)]
            first = next(index for index, line in enumerate(lines) if not line.lstrip().startswith("#"))
            indent = "  " * depth
            lines[first] = f"{indent}- {lines[first].lstrip()}".replace("-   ", "- ", 1)
            yield from (lines[first], *lines[:first], *lines[first + 1 :])


def _flow(value: Any) -> str:
    """Return a plain value in YAML's flow style."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_flow(one)}" for key, one in value.items()) + "}"
    if isinstance(value, tuple | list):
        return "[" + ", ".join(_flow(one) for one in value) + "]"
    return str(value)


def _note(description: str | None) -> str:
    return " ".join((description or "").split())
