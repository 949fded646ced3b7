"""make_world: the embedded world as files in one folder, made once and found again.

<out>/catalog/catalog.json         static STAC catalog over two UTM zones: collection, items, a COG per band, cloud mask
<out>/aoi.geojson                  the area to work on, lon/lat
<out>/landcover.tif, .gpkg         the labels as raster and as polygons
<out>/dem.tif                      elevation in metres
<out>/world.json                   size, seed, version: written last
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from affine import Affine

from chipmill.core.errors import BadInputError
from chipmill.demo.granules import EAST, MERIDIAN, cut, granules
from chipmill.demo.landscape import Landscape, make_landscape
from chipmill.demo.rasters import write_cog, write_polygons
from chipmill.demo.scenes import SCHEDULE, Pass, render
from chipmill.demo.signatures import BANDS, CLASSES, COLORS
from chipmill.demo.stac_files import (
    COLLECTION,
    bounding_box,
    footprint,
    item_id,
    lonlat_polygon,
    write_catalog,
    write_item,
    write_json,
)

WORLD_VERSION = 2  # goes up when the same seed gives other files
SIZES = {"small": 512, "medium": 1536, "large": 4096}  # pixels of the side
CRS = EAST
PIXEL_M = 10
TOP = 5_122_260  # northing of the upper edge: on the 10 m lattice, off every tile border; near 46 N
BORDER = 268_600  # easting of 12 E, where the next zone begins, at the upper edge
LEAN = 0.038  # how far 12 E leans to the west on its way south
AOI = (
    (0.02, 0.05),
    (0.35, 0.015),
    (0.7, 0.03),
    (0.98, 0.02),
    (0.985, 0.6),
    (0.96, 0.97),
    (0.5, 0.985),
    (0.03, 0.97),
)
NAMES = ("catalog", "aoi.geojson", "landcover.tif", "landcover.gpkg", "dem.tif", "world.json")


@dataclass(frozen=True, slots=True)
class World:
    """Where the embedded world lies and what is in it."""

    root: Path
    catalog: Path  # folder of catalog.json
    aoi: Path
    labels: Path  # raster: uint8, the keys of `classes`, 0 = unlabelled
    labels_vector: Path  # polygons with the integer attribute `class`
    dem: Path  # float32, metres
    collection: str
    bands: tuple[str, ...]  # asset keys and common names
    mask: str  # asset key of the scene classification
    classes: dict[int, str]  # label value -> name
    dates: tuple[datetime, ...]  # of the passes, UTC
    time_range: tuple[datetime, datetime]  # half-open
    crs: str  # of labels and terrain, and of the items of the eastern zone
    transform: Affine
    shape: tuple[int, int]  # rows, columns


def make_world(out: Path, size: str = "medium", seed: int = 8, cloud: float = 1.0) -> World:
    """Make the embedded world in the folder `out`, or return the one that is there with the same arguments.

    `size` is a key of SIZES; `cloud` multiplies the cloudiness of every pass (0 = a year without clouds). Equal
    arguments give equal bytes. The files appear at once when all are done, so a killed call leaves nothing that a
    later one would trust. A world with other arguments is replaced; BadInputError where `out` holds other things, or
    an argument is out of range.
    """
    if size not in SIZES:
        raise BadInputError(
            f"demo world: size is one of {', '.join(SIZES)}, got {size!r}; choose one of them"
        )
    if not 0.0 <= cloud <= 10.0:
        raise BadInputError(f"demo world: cloud is a factor from 0 to 10, got {cloud}; 1 is a usual year")
    out = out.resolve()
    stamp = {"version": WORLD_VERSION, "size": size, "seed": seed, "cloud": float(cloud)}
    world = _describe(out, size)
    out.parent.mkdir(parents=True, exist_ok=True)
    with _folder_lock(out.parent):
        if _read_stamp(out) == stamp:
            return world
        _refuse_foreign(out)
        making = out.parent / f".{out.name}.making"
        shutil.rmtree(making, ignore_errors=True)
        _fill(_describe(making, size), seed, cloud)
        write_json(making / "world.json", stamp)
        if out.exists():
            shutil.rmtree(out)
        making.rename(out)
    return world


def grid_of(side: int) -> Affine:
    """Return where a world of `side` pixels lies, (column, row) -> metres in CRS: the border has its share of it west."""
    left = BORDER - round((MERIDIAN + LEAN / 2) * side) * PIXEL_M
    return Affine(PIXEL_M, 0, left, 0, -PIXEL_M, TOP)


def _describe(root: Path, size: str) -> World:
    side = SIZES[size]
    return World(
        root=root,
        catalog=root / "catalog",
        aoi=root / "aoi.geojson",
        labels=root / "landcover.tif",
        labels_vector=root / "landcover.gpkg",
        dem=root / "dem.tif",
        collection=COLLECTION,
        bands=BANDS,
        mask="scl",
        classes=dict(CLASSES),
        dates=tuple(scene.moment for scene in SCHEDULE),
        time_range=(datetime(2019, 1, 1, tzinfo=UTC), datetime(2020, 1, 1, tzinfo=UTC)),
        crs=CRS,
        transform=grid_of(side),
        shape=(side, side),
    )


@contextmanager
def _folder_lock(folder: Path) -> Iterator[None]:
    """Let one process at a time make worlds in `folder`; the others wait. The lock ends with its process."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _read_stamp(out: Path) -> object:
    path = out / "world.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _refuse_foreign(out: Path) -> None:
    """Raise BadInputError when `out` holds anything that make_world does not make: it would be deleted."""
    if not out.exists():
        return
    foreign = [] if not out.is_dir() else sorted(p.name for p in out.iterdir() if p.name not in NAMES)
    if foreign or not out.is_dir():
        found = foreign[0] if foreign else "a file"
        raise BadInputError(
            f"demo world: {out} must be a new folder or an earlier world, found {found}; name another folder"
        )


def _fill(world: World, seed: int, cloud: float) -> None:
    """Write all files of `world` but the stamp."""
    (world.catalog / COLLECTION).mkdir(parents=True)
    rows, columns = world.shape
    landscape = make_landscape(world.shape, seed, PIXEL_M)
    aoi = lonlat_polygon([(x * columns, y * rows) for x, y in AOI], world.transform, CRS)
    feature = {"type": "Feature", "properties": {"name": "demo"}, "geometry": aoi}
    write_json(world.aoi, {"type": "FeatureCollection", "features": [feature]})
    outline = lonlat_polygon([(0, 0), (columns, 0), (columns, rows), (0, rows)], world.transform, CRS)
    write_catalog(world.catalog, SCHEDULE, bounding_box(outline))
    # two passes at a time: numpy and the codecs use both cores, and a large region still fits into memory
    with ThreadPoolExecutor(max_workers=2) as pool:
        jobs = [pool.submit(_write_ground, world, landscape)]
        jobs += [pool.submit(_write_pass, world, landscape, scene, seed, cloud) for scene in SCHEDULE]
        try:
            for job in jobs:
                job.result()
        except BaseException:
            pool.shutdown(
                cancel_futures=True
            )  # after Ctrl-C or a full disk only what has begun is waited for
            raise


def _write_ground(world: World, landscape: Landscape) -> None:
    """Write labels and terrain."""
    write_cog(world.labels, landscape.landcover, world.transform, CRS, 0, "mode", COLORS)
    write_polygons(world.labels_vector, landscape.landcover, world.transform, CRS, CLASSES)
    elevation = np.round(landscape.terrain.elevation, 1)
    write_cog(world.dem, elevation, world.transform, CRS, -32768)


def _write_pass(world: World, landscape: Landscape, scene: Pass, seed: int, cloud: float) -> None:
    """Render one pass and write its granules, each with an item."""
    whole = render(landscape, scene, seed, cloud)
    for number, granule in enumerate(granules(scene, world.shape[1])):
        folder = world.catalog / COLLECTION / item_id(scene, number)
        folder.mkdir()
        picture = cut(whole, granule, world.transform)
        for name, pixels in zip(BANDS, picture.pixels.bands, strict=True):
            write_cog(folder / f"{name}.tif", pixels, picture.transform, picture.crs, 0)
        write_cog(folder / "scl.tif", picture.pixels.scl, picture.transform, picture.crs, 0, "mode")
        outline = lonlat_polygon(footprint(scene, world.shape, granule), world.transform, CRS)
        write_item(folder, scene, number, picture, outline)
