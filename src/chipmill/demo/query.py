"""One item search as a value, and the parsers of its fields: what STAC API clients may ask of the engine.

To support another search parameter, add a field to Query, parse it here and test it in `engine.matches`. The parameters of
EXTENSIONS are parsed in `conditions` (query, CQL2) and `arranging` (sortby, fields).
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from shapely import from_geojson
from shapely.errors import GEOSException
from shapely.geometry import MultiPolygon, box
from shapely.geometry.base import BaseGeometry

from chipmill.core.errors import BadInputError
from chipmill.demo.arranging import Fields, Sort, parse_fields, parse_sort
from chipmill.demo.conditions import Condition, instant, parse_filter, parse_properties

DEFAULT_LIMIT, MAX_LIMIT = 100, 10_000
FIELDS = ("collections", "ids", "bbox", "intersects", "datetime", "limit", "token")
EXTENSIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "query": ("query",),
    "filter": ("filter", "filter-lang", "filter-crs"),
    "sort": ("sortby",),
    "fields": ("fields",),
}
"""What may be asked beyond FIELDS: the name of the STAC API extension -> its parameters."""


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked; None asks nothing. All given conditions must hold."""

    collections: frozenset[str] | None = None
    ids: frozenset[str] | None = None
    area: BaseGeometry | None = None  # lon/lat
    start: datetime | None = None  # both ends belong to the interval, as STAC API has it
    end: datetime | None = None
    limit: int = DEFAULT_LIMIT
    offset: int = 0  # items of earlier pages
    conditions: tuple[Condition, ...] = ()
    order: tuple[Sort, ...] = ()  # none: newest first, then by id
    fields: Fields | None = None  # None: items whole


def parse_query(fields: Mapping[str, Any], extensions: Collection[str] = tuple(EXTENSIONS)) -> Query:
    """Read the body of a POST search, or GET parameters whose lists were split before.

    Raises BadInputError for an unknown parameter, also one of an extension that is not in ``extensions``: leaving a
    condition out would answer another question.
    """
    known = (*FIELDS, *(name for extension in extensions for name in EXTENSIONS[extension]))
    unknown = sorted(set(fields) - set(known))
    if unknown:
        raise BadInputError(f"search: parameter {unknown[0]!r} is not supported; use {', '.join(known)}")
    given = {name: value for name, value in fields.items() if value is not None}
    if "bbox" in given and "intersects" in given:
        raise BadInputError("search: expected bbox or intersects, got both; leave one out")
    start, end = parse_datetime(given["datetime"]) if "datetime" in given else (None, None)
    return Query(
        collections=_names("collections", given),
        ids=_names("ids", given),
        area=_area(given),
        start=start,
        end=end,
        limit=min(_whole("limit", given.get("limit", DEFAULT_LIMIT), 1), MAX_LIMIT),
        offset=_whole("token", given.get("token", 0), 0),
        conditions=_conditions(given),
        order=parse_sort(given["sortby"]) if "sortby" in given else (),
        fields=parse_fields(given["fields"]) if "fields" in given else None,
    )


def parse_text(fields: Mapping[str, str], extensions: Collection[str] = tuple(EXTENSIONS)) -> Query:
    """Read the parameters of a GET search: lists are separated by commas, `intersects` and `query` are JSON text.

    Raises BadInputError as `parse_query` does.
    """
    parsed: dict[str, Any] = dict(fields)
    for name in ("collections", "ids", "bbox"):
        if name in fields:
            parsed[name] = fields[name].split(",")
    return parse_query(parsed, extensions)


def _conditions(given: Mapping[str, Any]) -> tuple[Condition, ...]:
    compared = parse_properties(given["query"]) if "query" in given else ()
    if "filter" in given:
        return (*compared, parse_filter(given["filter"], given.get("filter-lang"), given.get("filter-crs")))
    return compared


def parse_datetime(text: object) -> tuple[datetime | None, datetime | None]:
    """Return the closed interval that `text` names: an RFC 3339 instant, `a/b`, `../b` or `a/..`; None = open."""
    ends = text.split("/") if isinstance(text, str) else []
    if len(ends) == 1:
        instant = _instant(ends[0])
        return instant, instant
    if len(ends) != 2 or all(end in ("", "..") for end in ends):
        raise BadInputError(
            f"search: datetime is an RFC 3339 instant or an interval a/b, got {text!r}; give one"
        )
    start, end = (None if part in ("", "..") else _instant(part) for part in ends)
    if start is not None and end is not None and start > end:
        raise BadInputError(f"search: datetime starts after its end in {text!r}; swap them")
    return start, end


def _instant(text: str) -> datetime:
    moment = instant(text)
    if moment is None:
        raise BadInputError(f"search: datetime {text!r} is not RFC 3339; write it as 2019-06-16T10:10:31Z")
    return moment


def _names(field: str, given: Mapping[str, Any]) -> frozenset[str] | None:
    if field not in given:
        return None
    value = [given[field]] if isinstance(given[field], str) else given[field]
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise BadInputError(f"search: {field} is a list of names, got {value!r}; send a list")
    return frozenset(value)


def _whole(field: str, value: object, lowest: int) -> int:
    text = str(value)
    if isinstance(value, bool) or not re.fullmatch(r"\d{1,9}", text) or int(text) < lowest:
        raise BadInputError(f"search: {field} is a whole number from {lowest}, got {value!r}; correct it")
    return int(text)


def _area(given: Mapping[str, Any]) -> BaseGeometry | None:
    if "bbox" in given:
        return parse_bbox(given["bbox"])
    return parse_geometry(given["intersects"]) if "intersects" in given else None


def parse_bbox(value: object) -> BaseGeometry:
    """Return the box of `[west, south, east, north]` (or with heights); west > east crosses the antimeridian."""
    try:
        numbers = [float(number) for number in value] if isinstance(value, list) else []
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) == 6:
        numbers = [numbers[i] for i in (0, 1, 3, 4)]
    if len(numbers) != 4 or not all(abs(n) <= 360 for n in numbers) or numbers[1] > numbers[3]:
        raise BadInputError(
            f"search: bbox is [west, south, east, north] in degrees, got {value!r}; correct it"
        )
    west, south, east, north = numbers
    if west > east:
        return MultiPolygon([box(west, south, 180, north), box(-180, south, east, north)])
    return box(west, south, east, north)


def parse_geometry(value: object) -> BaseGeometry:
    """Return a GeoJSON geometry, given as text or as an object."""
    try:
        geometry = from_geojson(value if isinstance(value, str) else json.dumps(value))
    except (GEOSException, TypeError, ValueError) as error:
        raise BadInputError(
            f"search: intersects is a GeoJSON geometry, got {str(value)[:80]!r}; {error}"
        ) from error
    if geometry.is_empty or not geometry.is_valid:
        raise BadInputError(
            f"search: intersects is an empty or invalid geometry: {str(value)[:80]!r}; repair it"
        )
    return geometry
