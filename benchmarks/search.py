"""How many requests a search costs: 400 tiles x 5 slots over an API that pages, counted by the server.

The limit is one request per page of the answer and one for the landing page. Whoever searches per tile and slot sends
at least tiles x slots.
"""

from __future__ import annotations

import contextlib
import json
import math
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, date, timedelta
from datetime import datetime as instant
from pathlib import Path
from typing import Any, Final

import shapely
import uvicorn

from benchmarks.figure import Figure
from chipmill.demo.api import make_app
from chipmill.imagery import catalog, planning
from chipmill.imagery.api import PAGE_ITEMS
from chipmill.region.config import Region
from chipmill.region.grid import Window, lattice_of

TILE_PX: Final = 512
_LATTICE: Final = lattice_of(32633, 10.0)
_CORNER: Final = (100 * TILE_PX, -996 * TILE_PX)
"""Column and row of the lattice at which the square begins."""
_YEAR: Final = 2019


def run(quick: bool) -> list[Figure]:
    """Count the requests of one search; ``quick``: 100 tiles and a third of the dates."""
    side = 10 if quick else 20
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        items = write_catalog(folder / "archive", side, every_days=15 if quick else 5)
        with counted_api(folder / "archive") as (url, requests):
            plan = planning.tile_aoi(region(folder, url, side))
            requests.clear()
            began = time.perf_counter()
            found = catalog.search_items(plan)
            seconds = time.perf_counter() - began
        tiles, slots = len(plan.tiles()), len(plan.slots(plan.tiles()[0]))
    if (tiles, slots, found.count) != (side * side, 5, items):
        raise RuntimeError(f"{tiles} tiles, {slots} slots and {found.count} items of {items} were met")
    pages, total = math.ceil(items / PAGE_ITEMS), requests.total()
    context = {
        "tiles": tiles,
        "slots": slots,
        "items": items,
        "pages": pages,
        "requests": dict(requests),
        "one_search_per_tile_and_slot": tiles * slots,
        "seconds": seconds,
    }
    return [Figure("search: requests", total, "requests", f"<= {pages + 1}", total <= pages + 1, context)]


def region(folder: Path, url: str, side: int) -> Region:
    """Return a region of ``side`` x ``side`` tiles and five slots, searched at an API."""
    square = _LATTICE.footprint(Window(*_CORNER, side * TILE_PX, side * TILE_PX))
    (folder / "aoi.geojson").write_text(shapely.to_geojson(square))
    imagery = {
        "name": "s2",
        "source": {"stac": url, "collection": "toy"},
        "bands": {"red": "red"},
        "mask": {"asset": "scl"},
    }
    values: dict[str, Any] = {
        "name": "square",
        "file": str(folder / "square.yaml"),
        "aoi": {"path": "aoi.geojson", "rule": "centre"},
        "time": {"range": (f"{_YEAR}-01-01", f"{_YEAR + 1}-01-01"), "slots": {"n": 5}},
        "grid": {"crs": "EPSG:32633", "resolution": 10, "tile_px": TILE_PX},
        "imagery": [imagery],
    }
    return Region.model_validate(values)


def write_catalog(folder: Path, side: int, every_days: int) -> int:
    """Write a static catalog of items without files, four granules a date; return how many items it has."""
    square = _LATTICE.footprint(Window(*_CORNER, side * TILE_PX, side * TILE_PX))
    west, south, east, north = square.bounds
    middle_x, middle_y = (west + east) / 2, (south + north) / 2
    boxes = [
        shapely.box(x0, y0, x1, y1)
        for x0, x1 in ((west, middle_x), (middle_x, east))
        for y0, y1 in ((south, middle_y), (middle_y, north))
    ]
    days = [date(_YEAR, 1, 1) + timedelta(days=count) for count in range(0, 365, every_days)]
    links = []
    for day in days:
        for number, box in enumerate(boxes):
            name = f"s{day:%Y%m%d}-{number}"
            _dump(folder / "toy" / f"{name}.json", _item(name, day, box))
            links.append({"rel": "item", "href": f"./toy/{name}.json"})
    extent = {
        "spatial": {"bbox": [[west, south, east, north]]},
        "temporal": {"interval": [[f"{_YEAR}-01-01T00:00:00Z", None]]},
    }
    collection = {"type": "Collection", "id": "toy", "stac_version": "1.0.0", "description": "toy"}
    collection |= {"license": "other", "extent": extent}
    _dump(folder / "collection.json", collection | {"links": links})
    root = {"type": "Catalog", "id": "root", "stac_version": "1.0.0", "description": "root"}
    _dump(folder / "catalog.json", root | {"links": [{"rel": "child", "href": "./collection.json"}]})
    return len(links)


def _item(name: str, day: date, box: shapely.Polygon) -> dict[str, Any]:
    at = instant(day.year, day.month, day.day, 10, tzinfo=UTC)
    band = {"href": f"https://files.example/{name}-red.tif", "raster:bands": [{"scale": 1e-4, "offset": 0.0}]}
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": name,
        "collection": "toy",
        "geometry": shapely.geometry.mapping(box),
        "bbox": list(box.bounds),
        "links": [],
        "properties": {"datetime": at.isoformat(), "platform": "sat-1", "eo:cloud_cover": 20.0},
        "assets": {"red": band, "scl": {"href": f"https://files.example/{name}-scl.tif"}},
    }


def _dump(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


@contextlib.contextmanager
def counted_api(folder: Path) -> Iterator[tuple[str, Counter[str]]]:
    """Serve a static catalog as an API in a thread; yield its URL and the requests by path, as they come."""
    requests: Counter[str] = Counter()
    app = make_app([folder])

    async def counting(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            requests[scope["path"]] += 1
        await app(scope, receive, send)

    server = uvicorn.Server(uvicorn.Config(counting, host="127.0.0.1", port=0, log_level="warning"))
    thread = threading.Thread(target=server.run, name="api")
    thread.start()
    try:
        deadline = time.monotonic() + 30
        while not server.started:
            if time.monotonic() > deadline or not thread.is_alive():
                raise RuntimeError("the local API did not start")
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}", requests
    finally:
        server.should_exit = True
        thread.join()
