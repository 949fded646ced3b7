"""How an answer is arranged: the order that `sortby` asks for, and the parts of each item that `fields` asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from chipmill.core.errors import BadInputError
from chipmill.demo.conditions import Json

type Path = tuple[str, ...]

ALWAYS: Final[tuple[Path, ...]] = (
    ("type",),
    ("stac_version",),
    ("stac_extensions",),
    ("id",),
    ("collection",),
    ("geometry",),
    ("bbox",),
    ("links",),
    ("assets",),
    ("properties", "datetime"),
    ("properties", "start_datetime"),
    ("properties", "end_datetime"),
)
"""What is left of an item when `fields` names nothing: a valid item."""
_TOP: Final = {path[0] for path in ALWAYS}


@dataclass(frozen=True, slots=True)
class Sort:
    """One key of an order."""

    name: str
    descending: bool


@dataclass(frozen=True, slots=True)
class Fields:
    """Which parts of an item are wanted, as the fields extension has it: ALWAYS and `include`, less `exclude`."""

    include: tuple[Path, ...]
    exclude: tuple[Path, ...]

    def cut(self, item: Json) -> Json:
        """Return the wanted parts of `item`, which stays as it is; a part that it lacks is left out."""
        kept: Json = {}
        for path in (*ALWAYS, *self.include):
            kept = _with(kept, item, path)
        for path in self.exclude:
            kept = _without(kept, path)
        return kept


def parse_sort(value: object) -> tuple[Sort, ...]:
    """Read `sortby`: `[{field, direction: asc | desc}]`, or text as in a GET, `+a,-b`; no sign is ascending.

    Raises BadInputError for anything else.
    """
    if isinstance(value, str):
        return tuple(_signed_sort(part) for part in value.split(","))
    if isinstance(value, list) and value:
        return tuple(_sort(one) for one in value)
    raise BadInputError(
        f"search: sortby is a list of {{field, direction}}, got {str(value)[:80]!r}; correct it"
    )


def _signed_sort(part: str) -> Sort:
    # an unescaped plus of a URL arrives as a space
    return _sort({"field": part.lstrip("+- "), "direction": "desc" if part.startswith("-") else "asc"})


def _sort(one: object) -> Sort:
    given = one if isinstance(one, dict) else {}
    name, direction = given.get("field"), given.get("direction", "asc")
    if not isinstance(name, str) or not name or direction not in ("asc", "desc"):
        raise BadInputError(
            f"search: sortby has {str(one)[:80]!r}; expected a field and the direction asc or desc"
        )
    return Sort(name, direction == "desc")


def parse_fields(value: object) -> Fields:
    """Read `fields`: `{include: [...], exclude: [...]}`, or text as in a GET, `a,-b`; a property may lack `properties.`.

    Raises BadInputError for anything else.
    """
    given: Any = value
    if isinstance(value, str):
        parts = [part.strip(" +") for part in value.split(",")]
        given = {
            "include": [part for part in parts if part and part[0] != "-"],
            "exclude": [part[1:] for part in parts if part.startswith("-")],
        }
    if not isinstance(given, dict) or set(given) - {"include", "exclude"}:
        raise BadInputError(
            f"search: fields is an object with include and exclude, got {str(value)[:80]!r}; correct it"
        )
    return Fields(_paths(given.get("include") or []), _paths(given.get("exclude") or []))


def _paths(names: object) -> tuple[Path, ...]:
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise BadInputError(f"search: fields takes lists of names, got {str(names)[:80]!r}; correct it")
    return tuple(_path(name) for name in names)


def _path(name: str) -> Path:
    first = name.split(".", maxsplit=1)[0]
    if first == "properties":  # the names of properties may hold dots
        return tuple(name.split(".", maxsplit=1))
    return tuple(name.split(".")) if first in _TOP else ("properties", name)


def _with(kept: Json, item: Json, path: Sequence[str]) -> Json:
    first, *rest = path
    if first not in item:
        return kept
    if not rest or not isinstance(item[first], dict):
        return {**kept, first: item[first]}
    return {**kept, first: _with(kept.get(first, {}), item[first], rest)}


def _without(kept: Json, path: Sequence[str]) -> Json:
    first, *rest = path
    if not rest:
        return {name: value for name, value in kept.items() if name != first}
    inner = kept.get(first)
    return {**kept, first: _without(inner, rest)} if isinstance(inner, dict) else kept
