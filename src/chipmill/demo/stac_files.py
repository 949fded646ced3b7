"""The static STAC catalog of the embedded world: items, collection, catalog, with relative links.

The dialect is that of Sentinel-2 archives: one COG per band, `proj:code`, `raster:bands`, `eo:bands`, file sizes and
checksums; times are those of the pass, never of the clock.
"""

from __future__ import annotations

import hashlib
import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from chipmill.demo.granules import Granule, Picture, granules
from chipmill.demo.scenes import Pass
from chipmill.demo.signatures import BANDS

COLLECTION = "demo-s2-l2a"
STAC_VERSION = "1.0.0"
UPDATED = "2020-01-15T00:00:00Z"
COG_TYPE = "image/tiff; application=geotiff; profile=cloud-optimized"
BAND_CODES = {"blue": "B02", "green": "B03", "red": "B04", "nir": "B08", "swir16": "B11"}
EXTENSIONS = [
    "https://stac-extensions.github.io/eo/v1.1.0/schema.json",
    "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
    "https://stac-extensions.github.io/raster/v1.1.0/schema.json",
    "https://stac-extensions.github.io/file/v2.1.0/schema.json",
]

type Json = dict[str, Any]


def write_json(path: Path, content: Json) -> None:
    """Write `content` with sorted keys, so that equal content is equal bytes."""
    path.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def lonlat_polygon(corners: list[tuple[float, float]], transform: Affine, crs: str) -> Json:
    """Return a GeoJSON polygon in lon/lat through `corners`, given as `(column, row)` in pixels.

    Long edges get points in between: a straight line of the projection is a bent one in lon/lat.
    """
    from rasterio.warp import transform as reproject
    from shapely.geometry import Polygon
    from shapely.geometry.polygon import orient

    places = orient(Polygon([transform @ corner for corner in corners])).segmentize(2000.0)
    lon, lat = reproject(crs, "EPSG:4326", *(list(axis) for axis in places.exterior.coords.xy))
    ring = [[round(x, 7), round(y, 7)] for x, y in zip(lon, lat, strict=True)]
    return {"type": "Polygon", "coordinates": [ring]}


def bounding_box(geometry: Json) -> list[float]:
    """Return `[west, south, east, north]` of a polygon as made by `lonlat_polygon`."""
    lon, lat = zip(*geometry["coordinates"][0], strict=True)
    return [min(lon), min(lat), max(lon), max(lat)]


def footprint(scene: Pass, shape: tuple[int, int], granule: Granule) -> list[tuple[float, float]]:
    """Return the corners `(column, row)` of the region, `shape` (rows, columns), between which `granule` shows ground."""
    left, right = granule.left, granule.right
    edge = [min(scene.swath * shape[1] - 0.2 * (y - shape[0] / 2), right) for y in (0, shape[0])]
    return [(left, 0), (edge[0], 0), (edge[1], shape[0]), (left, shape[0])]


def item_id(scene: Pass, granule: int) -> str:
    """Return the id of granule `granule` of `scene`, as `S2A_DEMO_20190616_0`."""
    return f"S{scene.platform[-2:].upper()}_DEMO_{scene.moment:%Y%m%d}_{granule}"


def _utc(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _asset(path: Path, name: str) -> Json:
    data = path.read_bytes()
    asset: Json = {
        "href": f"./{path.name}",
        "type": COG_TYPE,
        "roles": ["data"],
        "file:size": len(data),
        "file:checksum": "1220" + hashlib.sha256(data).hexdigest(),  # multihash: 0x12 = sha256, 0x20 bytes
    }
    if name not in BANDS:
        return asset | {
            "title": "scene classification",
            "raster:bands": [{"data_type": "uint8", "nodata": 0}],
        }
    return asset | {
        "title": f"{name}, reflectance x 10000",
        "eo:bands": [{"name": BAND_CODES[name], "common_name": name}],
        "raster:bands": [{"data_type": "uint16", "nodata": 0, "scale": 0.0001, "offset": 0}],
    }


def _percentages(scl: NDArray[np.uint8]) -> Json:
    counts = np.bincount(scl.ravel(), minlength=12)
    seen = max(int(counts[1:].sum()), 1)

    def share(part: int, whole: int) -> float:
        return round(100 * part / whole, 4)

    return {
        "eo:cloud_cover": share(int(counts[[8, 9, 10]].sum()), seen),
        "s2:cloud_shadow_percentage": share(int(counts[3]), seen),
        "s2:snow_ice_percentage": share(int(counts[11]), seen),
        "s2:water_percentage": share(int(counts[6]), seen),
        "s2:nodata_pixel_percentage": share(int(counts[0]), int(counts.sum())),
    }


def write_item(folder: Path, scene: Pass, granule: int, picture: Picture, outline: Json) -> None:
    """Write the item of granule number `granule` into `folder`, beside its COGs, which must be there.

    `outline` is the GeoJSON polygon, lon/lat, of the ground that it shows.
    """
    properties = {
        "datetime": _utc(scene.moment + timedelta(seconds=14 * granule)),
        "updated": UPDATED,
        "platform": scene.platform,
        "constellation": "sentinel-2",
        "instruments": ["msi"],
        "gsd": 10,
        "proj:code": picture.crs,
        "proj:shape": list(picture.pixels.scl.shape),
        "proj:transform": list(picture.transform)[:6],
        "s2:processing_baseline": "03.01",
        **_percentages(picture.pixels.scl),
    }
    item = {
        "type": "Feature",
        "stac_version": STAC_VERSION,
        "stac_extensions": EXTENSIONS,
        "id": folder.name,
        "collection": COLLECTION,
        "geometry": outline,
        "bbox": bounding_box(outline),
        "properties": properties,
        "assets": {name: _asset(folder / f"{name}.tif", name) for name in (*BANDS, "scl")},
        "links": [
            _link("root", "../../catalog.json"),
            _link("parent", "../collection.json"),
            _link("collection", "../collection.json"),
        ],
    }
    write_json(folder / f"{folder.name}.json", item)


def _link(rel: str, href: str) -> Json:
    return {"rel": rel, "href": href, "type": "application/geo+json" if rel == "item" else "application/json"}


def write_catalog(folder: Path, scenes: tuple[Pass, ...], bbox: list[float]) -> None:
    """Write `catalog.json` and the collection over the items of `scenes`; `bbox` is lon/lat."""
    items = [item_id(scene, number) for scene in scenes for number in range(len(granules(scene, 100)))]
    first, last = (_utc(edge(s.moment for s in scenes)) for edge in (min, max))
    collection = {
        "type": "Collection",
        "stac_version": STAC_VERSION,
        "stac_extensions": [],
        "id": COLLECTION,
        "title": "Simulated Sentinel-2",
        "description": "A simulated landscape as Sentinel-2 level 2A would show it: five bands and a cloud mask.",
        "license": "CC0-1.0",
        "keywords": ["simulated"],
        "extent": {"spatial": {"bbox": [bbox]}, "temporal": {"interval": [[first, last]]}},
        "summaries": {"platform": sorted({s.platform for s in scenes}), "gsd": [10]},
        "links": [
            _link("root", "../catalog.json"),
            _link("parent", "../catalog.json"),
            *(_link("item", f"./{name}/{name}.json") for name in items),
        ],
    }
    write_json(folder / COLLECTION / "collection.json", collection)
    catalog = {
        "type": "Catalog",
        "stac_version": STAC_VERSION,
        "id": "chipmill-demo",
        "description": "The embedded world of chipmill",
        "links": [_link("root", "./catalog.json"), _link("child", f"./{COLLECTION}/collection.json")],
    }
    write_json(folder / "catalog.json", catalog)
