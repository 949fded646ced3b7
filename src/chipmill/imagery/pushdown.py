"""What of a condition a STAC API is sent: only what it says that it understands, and only what loses no item.

Pushing down saves pages, never correctness: everything is evaluated here again. So a part is left out where a server
could leave out an item that we keep. Numbers are sent as numbers: some servers compare texts with them letter by letter.
"""

import dataclasses
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal

from chipmill.region.filters import parse_filter
from chipmill.region.imagery import Imagery

type Json = Mapping[str, Any]
type Mode = Literal["auto", "none", "query", "filter"]

_BASIC: Final = frozenset({"=", "<>", "<", "<=", ">", ">=", "isNull", "not", "and", "or"})
_ADVANCED: Final = frozenset({"in", "between", "like"})
_QUERY: Final = {"=": "eq", "<": "lt", "<=": "lte", ">": "gt", ">=": "gte", "in": "in"}
"""Of the query extension; what it lacks, or leaves open where a property is missing, is not sent."""
_TURNED: Final = {"=": "=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}


@dataclasses.dataclass(frozen=True, slots=True)
class Pushed:
    """What a search is sent beside collection, time and place."""

    body: Json
    """Members of the search's body."""
    told: str
    """For people: how much of the condition was sent, and how."""


NOTHING: Final = Pushed({}, "")


def condition_of(imagery: Imagery) -> Json | None:
    """Return what an imagery entry demands of an item as CQL2 JSON, None where it demands nothing.

    An item without eo:cloud_cover is kept by ``scene_cloud_max_pct``, so the condition says so.
    """
    parts: list[Json] = []
    if imagery.filter is not None:
        parts.append(parse_filter(imagery.filter))
    if imagery.scene_cloud_max_pct is not None:
        cover = {"property": "eo:cloud_cover"}
        known = {"op": "<=", "args": [cover, imagery.scene_cloud_max_pct]}
        parts.append({"op": "or", "args": [known, {"op": "isNull", "args": [cover]}]})
    return {"op": "and", "args": parts} if len(parts) > 1 else next(iter(parts), None)


def either(conditions: Sequence[Json | None]) -> Json | None:
    """Return the condition of one search for several entries: what any of them wants; None where one wants all."""
    unlike = [one for number, one in enumerate(conditions) if one not in conditions[:number]]
    known = [one for one in unlike if one is not None]
    if len(known) < len(unlike) or not known:
        return None
    return known[0] if len(known) == 1 else {"op": "or", "args": known}


def pushed(condition: Json | None, conforms: Iterable[str], mode: Mode) -> Pushed:
    """Return what to send of a condition.

    Args:
        condition: CQL2 JSON, or None.
        conforms: the conformance classes that the API names on its landing page.
        mode: ``auto`` follows them, CQL2 before the query extension; the others are taken instead.
    """
    if condition is None or mode == "none":
        return NOTHING
    classes = tuple(conforms)
    parts = list(_conjuncts(condition))
    if mode == "filter" or (
        mode == "auto" and _has(classes, "item-search#filter", "cql2-json", "basic-cql2")
    ):
        advanced = mode == "filter" or _has(classes, "advanced-comparison-operators")
        sent = [part for part in parts if _is_plain(part, _BASIC | (_ADVANCED if advanced else frozenset()))]
        whole = sent[0] if len(sent) == 1 else {"op": "and", "args": sent}
        return _told({"filter": whole, "filter-lang": "cql2-json"}, len(sent), len(parts), "CQL2")
    if mode == "query" or _has(classes, "item-search#query"):
        query: dict[str, dict[str, Any]] = {}
        count = 0
        for name, sign, value in (found for part in parts if (found := _as_query(part))):
            if sign not in query.setdefault(name, {}):
                query[name][sign] = value
                count += 1
        return _told({"query": query}, count, len(parts), "query")
    return NOTHING


def _told(body: Json, sent: int, parts: int, how: str) -> Pushed:
    if not sent:
        return NOTHING
    return Pushed(
        body, f"{sent} of {parts} conditions sent to the server as {how}, all of them evaluated here"
    )


def _has(classes: Sequence[str], *wanted: str) -> bool:
    """Tell whether each class is among those named, of any version of its specification."""
    return all(any(re.search(rf"[/]{re.escape(name)}$", one) for one in classes) for name in wanted)


def _conjuncts(condition: Json) -> Iterator[Json]:
    if condition.get("op") != "and":
        yield condition
        return
    for part in condition["args"]:
        yield from _conjuncts(part)


def _is_plain(node: Any, operators: frozenset[str]) -> bool:
    """Tell whether a condition has properties, numbers, texts, times and these operators alone."""
    if isinstance(node, list):
        return all(_is_plain(one, operators) for one in node)
    if not isinstance(node, dict):
        return _is_literal(node)
    if "op" in node:
        return node["op"] in operators and _is_plain(node["args"], operators)
    name = node.get("property")
    return _is_name(name) if name is not None else set(node) == {"timestamp"}


def _is_literal(value: Any) -> bool:
    """Tell whether a value can be sent: 1e999 is infinite, which JSON does not know."""
    return isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))


def _is_name(name: Any) -> bool:
    """Tell whether a property has a name that servers and we read alike: no path into an item."""
    return isinstance(name, str) and re.fullmatch(r"[A-Za-z0-9_:-]+", name) is not None


def _as_query(part: Json) -> tuple[str, str, Any] | None:
    """Return property, operator and value of a comparison of a property with literals; None for anything else."""
    args = part.get("args")
    if not isinstance(args, list) or len(args) != 2:
        return None
    sign, (left, right) = str(part.get("op")), args
    if isinstance(right, dict) and sign in _TURNED:
        sign, left, right = _TURNED[sign], right, left
    name = left.get("property") if isinstance(left, dict) else None
    values = right if isinstance(right, list) and sign == "in" else [right]
    if not _is_name(name) or name in ("id", "collection", "datetime", "geometry") or sign not in _QUERY:
        return None
    if not all(_is_literal(value) for value in values):
        return None
    return str(name), _QUERY[sign], right
