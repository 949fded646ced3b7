"""Conditions on what an item says of itself: the `query` of a STAC API, and CQL2 filters as text or JSON.

Each is a value whose `holds` answers for one item. To support another operator, add it to COMPARISONS or, for CQL2, to
PREDICATES or FUNCTIONS: an operator that the library would leave unanswered is refused here, never read as "no item".
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from chipmill.core.errors import BadInputError

type Json = dict[str, Any]

RFC3339: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)")
MAX_TEXT: Final = 2_000
"""Characters of a CQL2 text: its parser recurses, and some thousand signs in a row would end the process."""
OWN: Final = ("id", "collection", "geometry")
"""Fields of an item that are asked by name beside its properties."""
CRS84: Final = "http://www.opengis.net/def/crs/OGC/1.3/CRS84"
PREDICATES: Final[Mapping[str, int]] = {
    **dict.fromkeys(("not", "isNull"), 1),
    **dict.fromkeys(("=", "<>", "<", "<=", ">", ">=", "like", "in"), 2),
    **dict.fromkeys(("s_contains", "s_crosses", "s_disjoint", "s_equals"), 2),
    **dict.fromkeys(("s_intersects", "s_overlaps", "s_touches", "s_within"), 2),
    **dict.fromkeys(("t_after", "t_before", "t_during", "t_intersects"), 2),
    "between": 3,
    **dict.fromkeys(("and", "or"), -1),
}
"""Operators of CQL2 that are true or false, and how many arguments each takes; -1 is two or more."""
FUNCTIONS: Final[Mapping[str, int]] = {
    **dict.fromkeys(("casei", "accenti"), 1),
    **dict.fromkeys(("+", "-", "*", "/", "%", "^", "div"), 2),
}
"""Operators of CQL2 that give a value."""


class Condition(Protocol):
    """What an item may meet."""

    def holds(self, item: Json) -> bool:
        """Say whether `item` meets it; a property that it lacks meets nothing."""


def instant(text: str) -> datetime | None:
    """Return the moment in UTC that an RFC 3339 `text` names; None for other text."""
    try:
        if RFC3339.fullmatch(text):
            return datetime.fromisoformat(text.upper()).astimezone(UTC)
    except ValueError:  # the digits fit the pattern but name no day or hour
        pass
    return None


def lookup(item: Json, name: str) -> Any:
    """Return what `item` has under `name`: id, collection, geometry or a property, `properties.` before it or not."""
    if name in OWN:
        return item.get(name)
    return item.get("properties", {}).get(name.removeprefix("properties."))


def comparable(value: object) -> tuple[str, Any] | None:
    """Return the kind of `value` and a form of it that compares as it means; None for what has no order.

    Numbers are numbers whatever their type, RFC 3339 texts are instants.
    """
    if isinstance(value, bool):
        return "boolean", value
    if isinstance(value, int | float):
        return "number", value
    if isinstance(value, str):
        moment = instant(value)
        return ("text", value) if moment is None else ("time", moment)
    return None


def _compared(test: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def holds(held: object, wanted: object) -> bool:
        left, right = comparable(held), comparable(wanted)
        return left is not None and right is not None and left[0] == right[0] and test(left[1], right[1])

    return holds


_EQUAL: Final = _compared(operator.eq)
COMPARISONS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "eq": _EQUAL,
    "neq": _compared(operator.ne),
    "lt": _compared(operator.lt),
    "lte": _compared(operator.le),
    "gt": _compared(operator.gt),
    "gte": _compared(operator.ge),
    "startsWith": lambda held, wanted: isinstance(held, str) and held.startswith(wanted),
    "endsWith": lambda held, wanted: isinstance(held, str) and held.endswith(wanted),
    "contains": lambda held, wanted: isinstance(held, str | list) and wanted in held,
    "in": lambda held, wanted: any(_EQUAL(held, one) for one in wanted),
}
"""Operators of `query`: what the item holds, what is wanted -> whether it fits."""
_TEXTS: Final = ("startsWith", "endsWith", "contains")


@dataclass(frozen=True, slots=True)
class Comparison:
    """One operator on one property."""

    name: str
    operator: str
    wanted: Any

    def holds(self, item: Json) -> bool:
        """Say whether the property fits; one that is absent or of another type does not, whatever the operator."""
        return COMPARISONS[self.operator](lookup(item, self.name), self.wanted)


def parse_properties(value: object) -> tuple[Condition, ...]:
    """Read `query`, `{property: {operator: value}}` as an object or as JSON text; all of them must hold.

    Raises BadInputError for an unknown operator and for a value that it cannot be compared with.
    """
    given = _json("query", value) if isinstance(value, str) else value
    if not isinstance(given, dict) or not all(isinstance(one, dict) for one in given.values()):
        raise BadInputError(
            f"search: query is an object {{property: {{operator: value}}}}, got {str(value)[:80]!r}; correct it"
        )
    return tuple(
        _comparison(name, sign, wanted) for name, one in given.items() for sign, wanted in one.items()
    )


def _comparison(name: str, sign: str, wanted: object) -> Comparison:
    if sign not in COMPARISONS:
        raise BadInputError(
            f"search: query of {name!r} has the operator {sign!r}; use {', '.join(COMPARISONS)}"
        )
    if sign in _TEXTS:
        fits, expected = isinstance(wanted, str), "a text"
    elif sign == "in":
        fits, expected = isinstance(wanted, list) and None not in map(comparable, wanted), "a list of values"
    else:
        fits, expected = comparable(wanted) is not None, "a number, a text or a boolean"
    if not fits:
        raise BadInputError(
            f"search: query of {name!r}: {sign} takes {expected}, got {str(wanted)[:80]!r}; correct it"
        )
    return Comparison(name, sign, wanted)


@dataclass(frozen=True, slots=True)
class Filter:
    """A CQL2 expression."""

    expression: Any = field(repr=False)  # a cql2.Expr

    def holds(self, item: Json) -> bool:
        """Say whether the expression is true of `item`; unknown is not true."""
        try:
            return bool(self.expression.matches(item))
        except Exception as error:
            # a bare one is the package's word for a property that is absent or of another type than it is compared with
            if type(error) is not Exception:
                raise
            return False


def parse_filter(value: object, language: object = None, crs: object = None) -> Filter:
    """Read a CQL2 `filter`: text, or JSON as an object or as text; `language` is cql2-text or cql2-json, None = see.

    Raises BadInputError for what does not parse, has no truth value, is too long or nested, or uses an operator that
    is not evaluated here, and for a CRS other than longitude and latitude.
    """
    if crs not in (None, CRS84):
        raise BadInputError(f"search: filter-crs {crs!r} is not supported; leave it out for {CRS84}")
    if language not in (None, "cql2-text", "cql2-json"):
        raise BadInputError(f"search: filter-lang is cql2-text or cql2-json, got {language!r}; use one")
    as_text = isinstance(value, str) and language != "cql2-json"
    if not as_text and language == "cql2-text":
        raise BadInputError("search: filter-lang is cql2-text and the filter is JSON; say cql2-json")
    if isinstance(value, str) and as_text and len(value) > MAX_TEXT:
        raise BadInputError(
            f"search: filter has {len(value)} characters; expected at most {MAX_TEXT}: send CQL2 JSON"
        )
    return _expression(str(value) if as_text else json.dumps(_json("filter", value)), as_text)


def _expression(text: str, as_text: bool) -> Filter:
    import cql2

    try:
        parsed = cql2.parse_text(text) if as_text else cql2.parse_json(text)
    except cql2.ParseError as error:
        reason = " ".join(str(error).split())[:200]
        raise BadInputError(f"search: filter is not CQL2: {reason}; correct it") from error
    tree: Any = parsed.to_json()
    _check_operators(tree)
    if not isinstance(tree, bool) and not (isinstance(tree, dict) and tree.get("op") in PREDICATES):
        raise BadInputError(f"search: filter {text[:80]!r} is not true or false; compare it with something")
    return Filter(parsed)


def _check_operators(tree: object) -> None:
    """Refuse what the package would call unknown for every item; no recursion: a chain of `+` is deep."""
    todo = [tree]
    while todo:
        one = todo.pop()
        if isinstance(one, dict):
            todo.extend(one.values())
        if isinstance(one, list):
            todo.extend(one)
        if not isinstance(one, dict) or "op" not in one:
            continue
        name, given = one["op"], len(one["args"])
        expected = {**PREDICATES, **FUNCTIONS}.get(name)
        if expected is None:
            raise BadInputError(f"search: filter uses {name!r}, which is not evaluated here; leave it out")
        if given != expected and not (expected < 0 and given > 1):
            raise BadInputError(f"search: filter gives {given} arguments to {name!r}; correct their number")


def _json(name: str, value: object) -> Any:
    """Return `value`, or what it says where it is JSON text."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError) as error:
        raise BadInputError(f"search: {name} is not JSON: {error}; correct it") from error
