"""A square archive of simulated scenes with a static catalog, of any number of dates, and a region of tiles over it.

For benchmarks that need many tiles or dates: a few scenes are written, and further dates are links to their files under
other names, so that disk and time to make them stay small while every date is a file of its own to the reader.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
import rasterio
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.enums import Resampling

from chipmill.region.config import Region
from chipmill.region.grid import Window, lattice_of

BANDS: Final = ("blue", "green", "red", "nir")
YEAR: Final = 2019
_LATTICE: Final = lattice_of(32633, 10.0)
_CORNER: Final = (51_200, -509_952)
"""Column and row of the 10 m lattice at which the square begins: multiples of 1,024."""
_CLEAR, _CLOUD = 4, 9  # classes of Sentinel-2's SCL


@dataclass(frozen=True, slots=True)
class Square:
    """An archive and how large it is."""

    folder: Path
    side_px: int
    """Of 10 m."""
    dates: int

    @property
    def window(self) -> Window:
        """Its place on the lattice."""
        return Window(*_CORNER, self.side_px, self.side_px)


def make_square(
    folder: Path,
    side_px: int,
    dates: int,
    *,
    scenes: int = 3,
    overviews: tuple[int, ...] = (),
    bands: tuple[str, ...] = BANDS,
) -> Square:
    """Write `scenes` scenes of `bands` (10 m, uint16) and a mask (20 m), and a catalog of `dates` dates of them.

    Files are deflated in blocks of 512 px; `overviews` are those of the mask. A band that is not written is in the
    catalog all the same: enough for what reads masks alone.
    """
    square = Square(folder, side_px, dates)
    first = [f"scene-{number}" for number in range(min(scenes, dates))]
    for number, name in enumerate(first):
        _write_scene(folder / name, square.window, number, bands, overviews)
    items = []
    for number in range(dates):
        name = f"scene-{number}"
        if number >= len(first):
            _link(folder / first[number % len(first)], folder / name)
        when = datetime(YEAR, 1, 1, 10, tzinfo=UTC) + timedelta(days=364 * number / max(dates, 1))
        items.append(_item(name, when, square.window))
    links = [{"rel": "item", "href": f"./{item['id']}/item.json"} for item in items]
    for item in items:
        _dump(folder / item["id"] / "item.json", item)
    _dump(folder / "collection.json", {"type": "Collection", "id": "square", "links": links})
    child = {"rel": "child", "href": "./collection.json"}
    _dump(folder / "catalog.json", {"type": "Catalog", "id": "root", "links": [child]})
    return square


def region(square: Square, output: Path, tile_px: int, *, slots: int = 1, tiles: int | None = None) -> Region:
    """Return a region of the square in tiles, all acquisitions of a slot used; `tiles` takes so many rows of them."""
    across = square.side_px // tile_px
    rows = across if tiles is None else max(1, tiles // across)
    shape = _LATTICE.footprint(Window(*_CORNER, square.side_px, rows * tile_px))
    output.mkdir(parents=True, exist_ok=True)
    (output / "aoi.geojson").write_text(shapely.to_geojson(shape))
    imagery = {
        "name": "s2",
        "source": {"catalog": str(square.folder / "catalog.json")},
        "bands": {band: band for band in BANDS},
        "mask": {"asset": "scl"},
        "clear": {"threshold": 0.0, "floor": 0.0},
    }
    values: dict[str, Any] = {
        "name": "square",
        "file": str(output / "square.yaml"),
        "aoi": {"path": "aoi.geojson", "rule": "centre"},
        "time": {"range": (f"{YEAR}-01-01", f"{YEAR + 1}-01-01"), "slots": {"n": slots}},
        "grid": {"crs": "EPSG:32633", "resolution": 10, "tile_px": tile_px},
        "imagery": [imagery],
        "output": str(output / "out"),
    }
    return Region.model_validate(values)


def _write_scene(
    folder: Path, window: Window, seed: int, bands: tuple[str, ...], overviews: tuple[int, ...]
) -> None:
    rng = np.random.default_rng(seed)
    side = window.width
    place = _LATTICE.transform(window)
    for number, band in enumerate(bands):
        ground = waves(side, 90.0 + 11 * number) * 900 + 1500 + 400 * number
        noise = rng.integers(0, 64, (side, side), np.uint16)
        _save(folder / f"{band}.tif", ground.astype(np.uint16) + noise, place, nodata=0)
    clouds = waves(side // 2, 210.0 + 17 * seed, shift=seed) > 0.7
    mask = np.where(clouds, _CLOUD, _CLEAR).astype(np.uint8)
    _save(folder / "scl.tif", mask, place @ Affine.scale(2), nodata=0, overviews=overviews)


def waves(side: int, length_px: float, shift: float = 0.0) -> NDArray[np.float32]:
    """Return (y, x) values from -1 to 1 that compress as a landscape does."""
    steps = np.arange(side, dtype=np.float32) / length_px
    return np.asarray(np.sin(steps + shift)[:, None] * np.cos(1.7 * steps)[None, :], np.float32)


def _save(
    path: Path, pixels: NDArray[Any], place: Affine, *, nodata: int, overviews: tuple[int, ...] = ()
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    block = min(512, -(-pixels.shape[0] // 16) * 16)
    profile = {
        "driver": "GTiff",
        "count": 1,
        "height": pixels.shape[0],
        "width": pixels.shape[1],
        "dtype": pixels.dtype.name,
        "crs": "EPSG:32633",
        "transform": place,
        "nodata": nodata,
        "tiled": True,
        "blockxsize": block,
        "blockysize": block,
        "compress": "deflate",
        "zlevel": 1,
        "predictor": 2,
    }
    with rasterio.open(path, "w", **profile) as target:
        target.write(pixels, 1)
        if overviews:
            target.build_overviews(list(overviews), Resampling.nearest)


def _link(source: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for file in source.glob("*.tif"):
        os.link(file, target / file.name)


def _item(name: str, when: datetime, window: Window) -> dict[str, Any]:
    outline = _LATTICE.footprint(window)
    bands = {
        band: {"href": f"./{band}.tif", "raster:bands": [{"scale": 1e-4, "offset": 0.0}]} for band in BANDS
    }
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": name,
        "collection": "square",
        "geometry": shapely.geometry.mapping(outline),
        "bbox": list(outline.bounds),
        "links": [],
        "properties": {"datetime": when.isoformat(), "platform": f"sat-{name}"},
        "assets": bands | {"scl": {"href": "./scl.tif"}},
    }


def _dump(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
