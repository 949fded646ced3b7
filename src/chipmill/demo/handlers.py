"""The answers of the local STAC API: one method per path, over archives that are in memory.

`api` binds them to paths and runs the server. `conformsTo` claims only what is here.
"""

from __future__ import annotations

import json
from urllib.parse import quote, urlencode

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response

from chipmill.core.errors import BadInputError
from chipmill.demo.engine import Archive, Entry, Page, search, sort_entries
from chipmill.demo.query import Json, parse_query, parse_text

CONFORMS_TO = [
    "https://api.stacspec.org/v1.0.0/core",
    "https://api.stacspec.org/v1.0.0/collections",
    "https://api.stacspec.org/v1.0.0/ogcapi-features",
    "https://api.stacspec.org/v1.0.0/item-search",
    "http://www.opengis.net/spec/ogcapi-features-1/1.0/conf/core",
    "http://www.opengis.net/spec/ogcapi-features-1/1.0/conf/geojson",
]
GEOJSON = "application/geo+json"
ONE = "/collections/{collectionId}"
PATHS = ("/", "/conformance", "/collections", ONE, f"{ONE}/items", f"{ONE}/items/{{featureId}}", "/search")


class Site:
    """The handlers; holds the archives, which never change while it runs."""

    def __init__(self, archives: tuple[Archive, ...]) -> None:
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
        text = "Local item search over static catalogs"
        head = {
            "type": "Catalog",
            "stac_version": "1.0.0",
            "id": "chipmill",
            "title": "chipmill",
            "description": text,
        }
        return JSONResponse(head | {"conformsTo": CONFORMS_TO, "links": links})

    def conformance(self, _request: Request) -> Response:
        """Answer `/conformance`."""
        return JSONResponse({"conformsTo": CONFORMS_TO})

    def description(self, _request: Request) -> Response:
        """Answer `/api`: the paths, as OpenAPI."""
        operation = {"responses": {"200": {"description": "see the STAC API specification"}}}
        paths = {path: {"get": operation} for path in PATHS} | {
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
        """Answer `/collections/{id}/items`: bbox, datetime, limit, token."""
        name = str(self._known(request)["id"])
        fields = dict(request.query_params)
        for field in ("collections", "ids", "intersects"):
            if field in fields:
                raise BadInputError(f"items of {name}: parameter {field!r} is not supported; use /search")
        page = search(self.entries, parse_text(fields | {"collections": name}))
        return self._answer(request, page, _next_get(request, page))

    def one_item(self, request: Request) -> Response:
        """Answer `/collections/{id}/items/{id}`."""
        name = str(self._known(request)["id"])
        for entry in self.entries:
            if (entry.collection, entry.item_id) == (name, request.path_params["item"]):
                return JSONResponse(self._item(entry, str(request.base_url)), media_type=GEOJSON)
        raise HTTPException(404, f"no item {request.path_params['item']!r} in collection {name!r}")

    def search_get(self, request: Request) -> Response:
        """Answer GET `/search`."""
        page = search(self.entries, parse_text(request.query_params))
        return self._answer(request, page, _next_get(request, page))

    async def search_post(self, request: Request) -> Response:
        """Answer POST `/search`; the next page has the same body and a token."""
        try:
            body = json.loads(await request.body() or b"{}")
        except ValueError as error:
            raise BadInputError(f"search: the body is not JSON: {error}; send an object") from error
        if not isinstance(body, dict):
            raise BadInputError(
                f"search: the body is a JSON object, got {type(body).__name__}; send an object"
            )
        page = search(self.entries, parse_query(body))
        link = _link("next", f"{request.base_url}search", GEOJSON)
        more = {"method": "POST", "merge": True, "body": {"token": page.next_token}}
        return self._answer(request, page, link | more)

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

    def _answer(self, request: Request, page: Page, following: Json) -> Response:
        base = str(request.base_url)
        links = [_link("root", base), _link("self", str(request.url), GEOJSON)]
        content = {
            "type": "FeatureCollection",
            "features": [self._item(entry, base) for entry in page.entries],
            "links": [*links, following] if page.next_token is not None else links,
            "numberMatched": page.matched,
            "numberReturned": len(page.entries),
        }
        return JSONResponse(content, media_type=GEOJSON)


def _link(rel: str, href: str, kind: str = "application/json") -> Json:
    return {"rel": rel, "href": href, "type": kind}


def _next_get(request: Request, page: Page) -> Json:
    fields = urlencode({**request.query_params, "token": page.next_token})
    return _link("next", f"{request.url.replace(query=fields)}", GEOJSON)
