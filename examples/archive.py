"""A folder of single-band GeoTIFFs with a static STAC catalog, as an archive would hand it out. Pixels are `(y, x)`."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import rasterio.warp
from affine import Affine
from numpy.typing import NDArray

type Pixels = NDArray[np.generic]


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """Where the upper left corner of a raster lies."""

    epsg: int
    left: float
    """Metres."""
    top: float
    """Metres."""
    resolution: float = 10.0
    """Metres."""

    @property
    def transform(self) -> Affine:
        """(column, row) -> metres."""
        return Affine(self.resolution, 0, self.left, 0, -self.resolution, self.top)

    def degrees(self, shape: tuple[int, ...]) -> list[float]:
        """Return west, south, east, north of a raster of ``shape`` (..., y, x) here."""
        right, bottom = self.transform @ (shape[-1], shape[-2])
        box = rasterio.warp.transform_bounds(
            f"EPSG:{self.epsg}", "EPSG:4326", self.left, bottom, right, self.top
        )
        return list(box)


@dataclasses.dataclass(frozen=True, slots=True)
class Asset:
    """One file of an item."""

    pixels: Pixels
    """`(y, x)`, or `(band, y, x)`."""
    nodata: float | None = None
    about: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """What the item says of it, e.g. ``raster:bands``."""


def write_tif(path: Path, pixels: Pixels, place: Place, nodata: float | None = None) -> Path:
    """Write `(y, x)` or `(band, y, x)` as a tiled GeoTIFF and return its path."""
    layers = pixels if pixels.ndim == 3 else pixels[np.newaxis]
    depth, height, width = layers.shape
    profile = {"driver": "GTiff", "count": depth, "height": height, "width": width, "dtype": layers.dtype.name,
               "crs": f"EPSG:{place.epsg}", "transform": place.transform, "nodata": nodata, "tiled": True,
               "blockxsize": 64, "blockysize": 64, "compress": "deflate"}  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(path, "w", **profile) as target:
        target.write(layers)
    return path


class Archive:
    """One collection below a folder: add items, then write the catalog."""

    def __init__(self, folder: Path, collection: str) -> None:
        self._folder, self._collection = folder, collection
        self._ids: list[str] = []

    def add(
        self, item_id: str, when: str, place: Place, assets: Mapping[str, Asset], **properties: object
    ) -> None:
        """Write the files of an item and the item itself; ``when`` is an ISO 8601 instant."""
        folder = self._folder / item_id
        described: dict[str, Any] = {}
        for key, asset in assets.items():
            write_tif(folder / f"{key}.tif", asset.pixels, place, asset.nodata)
            described[key] = {"href": f"./{key}.tif", **asset.about}
        west, south, east, north = box = place.degrees(next(iter(assets.values())).pixels.shape)
        ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
        item = {
            "type": "Feature", "stac_version": "1.0.0", "id": item_id, "collection": self._collection, "bbox": box,
            "geometry": {"type": "Polygon", "coordinates": [ring]}, "assets": described, "links": [],
            "properties": {"datetime": when, **properties},
        }  # fmt: skip
        (folder / "item.json").write_text(json.dumps(item, indent=1))
        self._ids.append(item_id)

    def write(self) -> Path:
        """Write collection.json and catalog.json; return the path of catalog.json."""
        links = [{"rel": "item", "href": f"./{item_id}/item.json"} for item_id in self._ids]
        collection = {"type": "Collection", "stac_version": "1.0.0", "id": self._collection, "links": links}
        (self._folder / "collection.json").write_text(json.dumps(collection, indent=1))
        child = {"rel": "child", "href": "./collection.json"}
        catalog = {"type": "Catalog", "stac_version": "1.0.0", "id": "example", "links": [child]}
        path = self._folder / "catalog.json"
        path.write_text(json.dumps(catalog, indent=1))
        return path
