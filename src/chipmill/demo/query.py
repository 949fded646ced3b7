"""One item search as a value, and the parsers of its fields: what STAC API clients may ask of the engine.

To support another search parameter, add a field to Query, parse it here and test it in `engine.matches`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from shapely import from_geojson
from shapely.errors import GEOSException
from shapely.geometry import MultiPolygon, box
from shapely.geometry.base import BaseGeometry

from chipmill.core.errors import BadInputError

type Json = dict[str, Any]

DEFAULT_LIMIT, MAX_LIMIT = 100, 10_000
FIELDS = ("collections", "ids", "bbox", "intersects", "datetime", "limit", "token")
RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)")


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


def parse_query(fields: Mapping[str, Any]) -> Query:
    """Read the body of a POST search, or GET parameters whose lists were split before.

    Raises BadInputError for an unknown parameter: leaving a condition out would answer another question.
    """
    unknown = sorted(set(fields) - set(FIELDS))
    if unknown:
        raise BadInputError(f"search: parameter {unknown[0]!r} is not supported; use {', '.join(FIELDS)}")
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
    )


def parse_text(fields: Mapping[str, str]) -> Query:
    """Read the parameters of a GET search: lists are separated by commas, `intersects` is GeoJSON text."""
    parsed: dict[str, Any] = dict(fields)
    for name in ("collections", "ids", "bbox"):
        if name in fields:
            parsed[name] = fields[name].split(",")
    return parse_query(parsed)


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
    try:
        if RFC3339.fullmatch(text):
            return datetime.fromisoformat(text.upper()).astimezone(UTC)
    except ValueError:  # the digits fit the pattern but name no day or hour
        pass
    raise BadInputError(f"search: datetime {text!r} is not RFC 3339; write it as 2019-06-16T10:10:31Z")


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
