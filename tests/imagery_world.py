"""A small archive of known pixels with a static catalog, and a cell over it: for tests of the imagery room."""

import datetime as dt
import json
from pathlib import Path

import numpy as np
import rasterio
import rasterio.warp
import shapely
from affine import Affine

from chipmill.core.tables import RANKING, read_table
from chipmill.core.units import freeze_batches, load_batches
from chipmill.imagery.catalog import search_items
from chipmill.imagery.composite import composite_tiles
from chipmill.imagery.items import Asset
from chipmill.imagery.orders import composite_path
from chipmill.imagery.ranking import close_ranking, rank_items
from chipmill.region.aoi import read_aoi
from chipmill.region.config import Region
from chipmill.region.grid import Window, lattice_of
from chipmill.region.plan import Plan, write_tiles
from chipmill.region.tiles import lattice_tiles

LATTICE = lattice_of(32633, 10.0)
SIDE = 64
PLACE = Window(50_048, -500_032, SIDE, SIDE)
"""One tile of the lattice: both corners are multiples of 64."""
STAGES = ("rank_items", "composite_tiles")
CLEAR, CLOUD, EMPTY = 4, 9, 0
"""Classes of the mask, as in Sentinel-2's SCL."""


def transform() -> Affine:
    return LATTICE.transform(PLACE)


def save(path: Path, pixels, *, nodata=None, crs="EPSG:32633", place=None, block=16, overviews=(), **more):
    """Write (y, x) or (band, y, x) as a tiled GeoTIFF."""
    pixels = pixels if pixels.ndim == 3 else pixels[np.newaxis]
    profile = {"driver": "GTiff", "count": len(pixels), "height": pixels.shape[1], "width": pixels.shape[2],
               "dtype": pixels.dtype.name, "crs": crs, "transform": place or transform(), "nodata": nodata,
               "tiled": True, "blockxsize": block, "blockysize": block, "compress": "deflate"}  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(path, "w", **(profile | more)) as target:
        target.write(pixels)
        if overviews:
            target.build_overviews(list(overviews), rasterio.enums.Resampling.nearest)
    return path


def read(path: Path):
    """Return (band name -> pixels) of a composite."""
    with rasterio.open(path) as source:
        return dict(zip(source.descriptions, source.read(), strict=True))


class Archive:
    """Scenes with a static catalog; add scenes, then call :meth:`write`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.items: list[dict] = []

    def scene(
        self,
        when: str,
        bands: dict,
        mask=None,
        *,
        name=None,
        place=None,
        crs="EPSG:32633",
        nodata=0,
        **properties,
    ):
        """Add a scene: pixels of each band and of the mask (y, x), a date, and properties of the item."""
        name = name or f"s{when[:10]}"
        where, shape = place or transform(), next(iter(bands.values())).shape
        assets = {}
        for key, pixels in bands.items():
            save(self.folder / name / f"{key}.tif", pixels, nodata=nodata, place=where, crs=crs)
            assets[key] = {"href": f"./{key}.tif", "raster:bands": [{"scale": 1e-4, "offset": 0.0}]}
        if mask is not None:
            save(self.folder / name / "scl.tif", mask, nodata=EMPTY, place=where, crs=crs)
            assets["scl"] = {"href": "./scl.tif"}
        outline = shapely.box(*_degrees(where, shape, crs))
        item = {"type": "Feature", "stac_version": "1.0.0", "id": name, "collection": "toy",
                "geometry": shapely.geometry.mapping(outline), "bbox": list(outline.bounds), "links": [],
                "assets": assets,
                "properties": {"datetime": f"{when}T10:00:00Z" if len(when) == 10 else when, "platform": "sat-1",
                               **properties}}  # fmt: skip
        self.items.append(item)
        return item

    def write(self) -> Path:
        """Write catalog.json, its collection and its items; return the path of catalog.json."""

        def dump(path: Path, value: dict) -> None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(value))

        links = [{"rel": "item", "href": f"./{item['id']}/{item['id']}.json"} for item in self.items]
        dump(self.folder / "collection.json", {"type": "Collection", "id": "toy", "links": links})
        child = {"rel": "child", "href": "./collection.json"}
        dump(self.folder / "catalog.json", {"type": "Catalog", "id": "root", "links": [child]})
        for item in self.items:
            dump(self.folder / item["id"] / f"{item['id']}.json", item)
        return self.folder / "catalog.json"


def _degrees(place: Affine, shape, crs: str) -> tuple[float, float, float, float]:
    left, top = place @ (0, 0)
    right, bottom = place @ (shape[1], shape[0])
    return rasterio.warp.transform_bounds(crs, "EPSG:4326", left, bottom, right, top)


def region(folder: Path, source: dict, **changes) -> Region:
    """Return a region of one tile over PLACE; ``changes`` of the imagery entry go into ``imagery``."""
    outline = LATTICE.footprint(Window(PLACE.col_off + 2, PLACE.row_off + 2, SIDE - 4, SIDE - 4))
    imagery = {
        "name": "s2",
        "source": source,
        "bands": {"red": "red", "nir": "nir"},
        "mask": {"asset": "scl"},
    }
    imagery |= changes.pop("imagery", {})
    values = {
        "name": "toy",
        "file": str(folder / "toy.yaml"),
        "aoi": {"bbox": list(outline.bounds), "rule": "centre"},
        "time": {"range": ("2019-01-01", "2020-01-01"), "slots": {"n": 1}},
        "grid": {"crs": "EPSG:32633", "resolution": 10, "tile_px": SIDE},
        "imagery": [imagery],
    }
    return Region.model_validate(values | changes)


def plan(config: Region) -> Plan:
    """Return the plan of a region as the first stage would leave it."""
    attempt = config.output_dir / "regions" / config.name / "2019-01-01--2020-01-01" / "versions" / ".1"
    tiles = lattice_tiles(config, read_aoi(config))
    made = Plan(config, attempt, "f", "run")
    write_tiles(made.version.tiles, tiles, "f")
    for stage in STAGES:
        freeze_batches(attempt, stage, [tile.tile_id for tile in tiles], 1.0)
    return made


def run(config: Region):
    """Search, rank and composite all tiles; return (plan, ranking rows, composite of the first tile and slot, failures)."""
    made = plan(config)
    items = search_items(made)
    for batch in load_batches(made.attempt, "rank_items"):
        rank_items(made, items, batch)
    ranking = close_ranking(made, items)
    failed = []
    for batch in load_batches(made.attempt, "composite_tiles"):
        failed += composite_tiles(made, ranking, batch).failed
    table = read_table(ranking.path, RANKING)
    tile = made.tiles()[0]
    path = composite_path(made, table, tile, config.imagery[0], made.slots(tile)[0])
    return made, table.to_pylist(), path, failed


def asset(href: str = "x.tif", **more) -> Asset:
    return Asset("x", href, **more)


def day(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC)
