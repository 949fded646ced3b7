"""The answers of the local STAC API: one method per path, over archives that are in memory.

`api` binds them to paths and runs the server. `conformsTo` claims only what is here and served.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any, Final
from urllib.parse import quote, urlencode

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response

from chipmill.core.errors import BadInputError
from chipmill.demo.conditions import Json
from chipmill.demo.engine import Archive, Entry, Page, search, sort_entries
from chipmill.demo.query import EXTENSIONS, Query, parse_query, parse_text

CONFORMS_TO = [
    "https://api.stacspec.org/v1.0.0/core",
    "https://api.stacspec.org/v1.0.0/collections",
    "https://api.stacspec.org/v1.0.0/ogcapi-features",
    "https://api.stacspec.org/v1.0.0/item-search",
    "http://www.opengis.net/spec/ogcapi-features-1/1.0/conf/core",
    "http://www.opengis.net/spec/ogcapi-features-1/1.0/conf/geojson",
]
_STAC: Final = "https://api.stacspec.org/v1.0.0"
_OGC: Final = "http://www.opengis.net/spec"
EXTENSION_CLASSES: Final[Mapping[str, tuple[str, ...]]] = {
    "query": (f"{_STAC}/item-search#query", f"{_STAC}/ogcapi-features#query"),
    "filter": (
        f"{_STAC}/item-search#filter",
        *(f"{_OGC}/ogcapi-features-3/1.0/conf/{name}" for name in ("filter", "features-filter")),
        *(f"{_OGC}/cql2/1.0/conf/{name}" for name in ("cql2-text", "cql2-json", "basic-cql2")),
        f"{_OGC}/cql2/1.0/conf/advanced-comparison-operators",
        *(f"{_OGC}/cql2/1.0/conf/basic-spatial-functions{kind}" for kind in ("", "-plus")),
        f"{_OGC}/cql2/1.0/conf/case-insensitive-comparison",
        f"{_OGC}/cql2/1.0/conf/property-property",
        f"{_OGC}/cql2/1.0/conf/arithmetic",
    ),
    "sort": (f"{_STAC}/item-search#sort", f"{_STAC}/ogcapi-features#sort"),
    "fields": (f"{_STAC}/item-search#fields", f"{_STAC}/ogcapi-features#fields"),
}
"""What each extension lets the API claim."""
QUERYABLES: Final = "http://www.opengis.net/def/rel/ogc/1.0/queryables"
SCHEMA: Final = "application/schema+json"
GEOJSON = "application/geo+json"
ONE = "/collections/{collectionId}"
PATHS = ("/", "/conformance", "/collections", ONE, f"{ONE}/items", f"{ONE}/items/{{featureId}}", "/search")


class Site:
    """The handlers; holds the archives, which never change while it runs.

    ``extensions`` of EXTENSIONS are answered and claimed, a parameter of any other is refused.
    """

    def __init__(
        self, archives: tuple[Archive, ...], extensions: Collection[str] = tuple(EXTENSIONS)
    ) -> None:
        unknown = sorted(set(extensions) - set(EXTENSIONS))
        if unknown:
            raise BadInputError(f"STAC API: no extension {unknown[0]!r}; choose of {', '.join(EXTENSIONS)}")
        self.extensions = tuple(name for name in EXTENSIONS if name in extensions)
        self.conforms_to = [*CONFORMS_TO, *(c for name in self.extensions for c in EXTENSION_CLASSES[name])]
        self.archives = archives
        self.collections = {str(c["id"]): c for archive in archives for c in archive.collections}
        if len(self.collections) < sum(len(archive.collections) for archive in archives):
            raise BadInputError("STAC API: two catalogs hold a collection of the same id; rename one")
        self.entries = sort_entries(entry for archive in archives for entry in archive.entries)
        # the public path of each file: nothing else is ever opened, whatever a request names
        self.files = {
            f"{number}/{file.relative_to(archive.root).as_posix()}": file
            for number, archive in enumerate(archives)
            for file in archive.files
        }
        self.public = {str(file): path for path, file in self.files.items()}

    def landing(self, request: Request) -> Response:
        """Answer `/`: who this is, and where the rest is."""
        base = str(request.base_url)
        links = [
            _link("self", base),
            _link("root", base),
            _link("conformance", f"{base}conformance"),
            _link("data", f"{base}collections"),
            _link("service-desc", f"{base}api", "application/vnd.oai.openapi+json;version=3.0"),
            _link("search", f"{base}search", GEOJSON) | {"method": "GET"},
            _link("search", f"{base}search", GEOJSON) | {"method": "POST"},
            *(_link("child", f"{base}collections/{quote(name)}") for name in self.collections),
        ]
        if "filter" in self.extensions:
            links.append(_link(QUERYABLES, f"{base}queryables", SCHEMA))
        text = "Local item search over static catalogs"
        head = {
            "type": "Catalog",
            "stac_version": "1.0.0",
            "id": "chipmill",
            "title": "chipmill",
            "description": text,
        }
        return JSONResponse(head | {"conformsTo": self.conforms_to, "links": links})

    def conformance(self, _request: Request) -> Response:
        """Answer `/conformance`."""
        return JSONResponse({"conformsTo": self.conforms_to})

    def queryables(self, request: Request) -> Response:
        """Answer `/queryables` and `/collections/{id}/queryables`: the properties that items have, as a JSON schema."""
        if "filter" not in self.extensions:
            raise HTTPException(404, "no filter extension here")
        name = str(self._known(request)["id"]) if "collection" in request.path_params else None
        properties: dict[str, Json] = {"id": {"type": "string"}, "collection": {"type": "string"}}
        properties["geometry"] = {"$ref": "https://geojson.org/schema/Geometry.json"}
        for entry in self.entries:
            if name in (None, entry.collection):
                properties |= {key: _kind(value) for key, value in entry.item["properties"].items()}
        head = {"$schema": "https://json-schema.org/draft/2019-09/schema", "$id": str(request.url)}
        more = {"type": "object", "title": "Queryables", "additionalProperties": True}
        return JSONResponse(head | more | {"properties": properties}, media_type=SCHEMA)

    def description(self, _request: Request) -> Response:
        """Answer `/api`: the paths, as OpenAPI."""
        operation = {"responses": {"200": {"description": "see the STAC API specification"}}}
        more = ("/queryables", f"{ONE}/queryables") if "filter" in self.extensions else ()
        paths = {path: {"get": operation} for path in (*PATHS, *more)} | {
            "/search": {"get": operation, "post": operation}
        }
        content = {"openapi": "3.0.3", "info": {"title": "chipmill", "version": "1"}, "paths": paths}
        return JSONResponse(content, media_type="application/vnd.oai.openapi+json;version=3.0")

    def list_collections(self, request: Request) -> Response:
        """Answer `/collections`."""
        base = str(request.base_url)
        links = [_link("self", f"{base}collections"), _link("root", base)]
        found = [self._collection(content, base) for content in self.collections.values()]
        return JSONResponse({"collections": found, "links": links, "numberMatched": len(found)})

    def one_collection(self, request: Request) -> Response:
        """Answer `/collections/{id}`."""
        return JSONResponse(self._collection(self._known(request), str(request.base_url)))

    def collection_items(self, request: Request) -> Response:
        """Answer `/collections/{id}/items`: bbox, datetime, limit, token, and what the extensions take."""
        name = str(self._known(request)["id"])
        fields = dict(request.query_params)
        for field in ("collections", "ids", "intersects"):
            if field in fields:
                raise BadInputError(f"items of {name}: parameter {field!r} is not supported; use /search")
        return self._answer_get(request, fields | {"collections": name})

    def one_item(self, request: Request) -> Response:
        """Answer `/collections/{id}/items/{id}`."""
        name = str(self._known(request)["id"])
        for entry in self.entries:
            if (entry.collection, entry.item_id) == (name, request.path_params["item"]):
                return JSONResponse(self._item(entry, str(request.base_url)), media_type=GEOJSON)
        raise HTTPException(404, f"no item {request.path_params['item']!r} in collection {name!r}")

    def search_get(self, request: Request) -> Response:
        """Answer GET `/search`."""
        return self._answer_get(request, request.query_params)

    async def search_post(self, request: Request) -> Response:
        """Answer POST `/search`; the next page has the same body and a token."""
        try:
            body = json.loads(await request.body() or b"{}")
        except (ValueError, RecursionError) as error:
            raise BadInputError(f"search: the body is not JSON: {error}; send an object") from error
        if not isinstance(body, dict):
            raise BadInputError(
                f"search: the body is a JSON object, got {type(body).__name__}; send an object"
            )
        query = parse_query(body, self.extensions)
        page = search(self.entries, query)
        link = _link("next", f"{request.base_url}search", GEOJSON)
        more = {"method": "POST", "merge": True, "body": {"token": page.next_token}}
        return self._answer(request, query, page, link | more)

    def data(self, request: Request) -> Response:
        """Answer `/data/...`: the bytes of an asset, or the range asked for."""
        file = self.files.get(f"{request.path_params['number']}/{request.path_params['path']}")
        if file is None or not file.is_file():
            raise HTTPException(404, f"no asset at {request.url.path}")
        return FileResponse(file)

    def _known(self, request: Request) -> Json:
        name = request.path_params["collection"]
        if name not in self.collections:
            raise HTTPException(404, f"no collection {name!r}")
        return self.collections[name]

    def _collection(self, content: Json, base: str) -> Json:
        here = f"{base}collections/{quote(str(content['id']))}"
        links = [
            _link("self", here),
            _link("root", base),
            _link("parent", base),
            _link("items", f"{here}/items", GEOJSON),
        ]
        if "filter" in self.extensions:
            links.append(_link(QUERYABLES, f"{here}/queryables", SCHEMA))
        return {**content, "links": links}

    def _item(self, entry: Entry, base: str) -> Json:
        parent = f"{base}collections/{quote(entry.collection)}"
        links = [
            _link("self", f"{parent}/items/{quote(entry.item_id)}", GEOJSON),
            _link("root", base),
            _link("parent", parent),
            _link("collection", parent),
        ]
        assets = {}
        for key, asset in entry.item["assets"].items():
            public = self.public.get(asset["href"])
            href = asset["href"] if public is None else f"{base}data/{quote(public)}"
            assets[key] = {**asset, "href": href}
        return {**entry.item, "links": links, "assets": assets}

    def _answer_get(self, request: Request, parameters: Mapping[str, str]) -> Response:
        query = parse_text(parameters, self.extensions)
        page = search(self.entries, query)
        return self._answer(request, query, page, _next_get(request, page))

    def _answer(self, request: Request, query: Query, page: Page, following: Json) -> Response:
        base = str(request.base_url)
        links = [_link("root", base), _link("self", str(request.url), GEOJSON)]
        items = [self._item(entry, base) for entry in page.entries]
        content = {
            "type": "FeatureCollection",
            "features": items if query.fields is None else [query.fields.cut(item) for item in items],
            "links": [*links, following] if page.next_token is not None else links,
            "numberMatched": page.matched,
            "numberReturned": len(page.entries),
        }
        return JSONResponse(content, media_type=GEOJSON)


def _link(rel: str, href: str, kind: str = "application/json") -> Json:
    return {"rel": rel, "href": href, "type": kind}


def _kind(value: Any) -> Json:
    """Return the JSON schema of a property of that value; any where it is null."""
    kinds = (("boolean", bool), ("number", int | float), ("string", str), ("array", list), ("object", dict))
    return next(({"type": name} for name, kind in kinds if isinstance(value, kind)), {})


def _next_get(request: Request, page: Page) -> Json:
    fields = urlencode({**request.query_params, "token": page.next_token})
    return _link("next", f"{request.url.replace(query=fields)}", GEOJSON)
