"""A cell with composites and labels of known pixels, made without a search: for tests from the stack on."""

import dataclasses
import datetime as dt
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyogrio.raw
import rasterio
import shapely

from chipmill.core.tables import RANKING, read_table, write_table
from chipmill.core.units import freeze_batches, load_batches
from chipmill.dataset.labels import grid_layers
from chipmill.dataset.rasters import crs_of, write_layer
from chipmill.dataset.stack import StackRef, build_stacks
from chipmill.imagery.freeze import write_items
from chipmill.imagery.items import Asset, Item, RankingRef
from chipmill.imagery.orders import composite_path
from chipmill.region.aoi import read_aoi
from chipmill.region.config import Region
from chipmill.region.grid import Lattice, Window, lattice_of
from chipmill.region.plan import Plan, write_tiles
from chipmill.region.slots import slot_names
from chipmill.region.tiles import lattice_tiles

LATTICE = lattice_of(32633, 10.0)
SIDE = 64
ORIGIN = (50_000, 500_000)
"""Column and row (counted up from the equator) of the first tile's corner; both are multiples of SIDE."""
CLASSES = {"10": "water", "20-29": "tree", "30": "crop"}
STAGES = ("rank_items", "composite_tiles", "grid_layers", "index_windows")


def place(columns: int, rows: int) -> Window:
    """Return the window of ``columns`` x ``rows`` tiles."""
    col, row = ORIGIN[0] // SIDE * SIDE, -(ORIGIN[1] // SIDE) * SIDE
    return Window(col, row, columns * SIDE, rows * SIDE)


def region(folder: Path, area: Window, **changes) -> Region:
    """Return a region of one imagery, ndvi and labels whose AOI is the inside of ``area``."""
    inner = Window(area.col_off + 3, area.row_off + 3, area.width - 6, area.height - 6)
    outline = LATTICE.footprint(inner)
    (folder / "aoi.geojson").write_text(shapely.to_geojson(outline))
    values = {
        "name": "toy",
        "file": str(folder / "toy.yaml"),
        "aoi": {"path": "aoi.geojson"},
        "time": {"range": ("2019-01-01", "2020-01-01"), "slots": {"n": 2}},
        "grid": {"crs": "EPSG:32633", "resolution": 10, "tile_px": SIDE},
        "imagery": [{"name": "s2", "source": {"catalog": "c"}, "bands": {"red": "red", "nir": "nir"}}],
        "indices": ["ndvi"],
        "labels": {"layers": [{"path": "label.tif"}], "classes": CLASSES, "ignore": [0]},
        "dataset": {"chips": {"size_px": 32, "stride_px": 16}, "splits": {"block_px": 64}},
    }
    return Region.model_validate(values | changes)


def save_raster(
    path: Path, pixels, window: Window, lattice: Lattice = LATTICE, nodata=None, **options
) -> None:
    """Write ``(band, y, x)`` (or ``(y, x)``) as a plain GeoTIFF on a window of a lattice."""
    pixels = pixels if pixels.ndim == 3 else pixels[np.newaxis]
    profile = {
        "driver": "GTiff", "count": len(pixels), "height": window.height, "width": window.width,
        "dtype": pixels.dtype.name, "crs": crs_of(lattice.epsg), "transform": lattice.transform(window),
    }  # fmt: skip
    with rasterio.open(path, "w", nodata=nodata, **(profile | options)) as target:
        target.write(pixels)


def save_vectors(path: Path, shapes, epsg=32633, geometry_type="Polygon", **fields) -> None:
    """Write geometries with attributes, one list per field."""
    data = [np.array(values) for values in fields.values()]
    pyogrio.raw.write(
        path, geometry=np.array([shape.wkb for shape in shapes]), field_data=data, fields=list(fields),
        geometry_type=geometry_type, crs=f"EPSG:{epsg}",
    )  # fmt: skip


def box(tile, left, top, width, height):
    """Return a rectangle of pixels of a tile, as a polygon; parts of pixels are allowed."""
    place = Window(tile.window.col_off + left, tile.window.row_off + top, width, height)
    return shapely.box(*tile.lattice.bounds(place))


def plan(folder: Path, config: Region) -> Plan:
    """Return the plan of a region: tiles and batches, as the first stage would leave them."""
    attempt = config.output_dir / "regions" / config.name / "2019-01-01--2020-01-01" / "versions" / ".1"
    tiles = lattice_tiles(config, read_aoi(config))
    made = Plan(config, attempt, "f", "run")
    write_tiles(made.version.tiles, tiles, "f")
    for stage in STAGES:
        freeze_batches(attempt, stage, [tile.tile_id for tile in tiles], 0.1)
    return made


@dataclasses.dataclass
class World:
    """The plan, and the truth over ``area``, which all tiles fill."""

    plan: Plan
    area: Window
    data: np.ndarray
    """(slot, band red nir ndvi, y, x) int16."""
    valid: np.ndarray
    """(slot, y, x) valid_count."""
    observed: np.ndarray
    """(slot, y, x) observed_count."""
    ranking: RankingRef

    def stack(self) -> StackRef:
        """Write the stacks."""
        return build_stacks(self.plan, self.ranking)


def world(
    folder: Path, columns: int = 2, rows: int = 2, seed: int = 8, label=None, chosen=(True, True), **changes
) -> World:
    """Return a world with composites written and layers gridded; ``label`` (y, x) uint8 source values over its area,
    ``chosen`` says of each slot whether an acquisition was chosen for it.
    """
    area = place(columns, rows)
    rng = np.random.default_rng(seed)
    shape = (area.height, area.width)
    if label is None:
        label = rng.choice(np.array([0, 10, 20, 25, 29, 30, 255], dtype=np.uint8), shape)
    save_raster(folder / "label.tif", label, area, nodata=255)
    config = region(folder, area, **changes)
    made = plan(folder, config)
    count = len(slot_names(config))
    observed = rng.integers(0, 3, (count, *shape)).astype(np.int16)
    valid = np.minimum(observed, rng.integers(0, 3, (count, *shape))).astype(np.int16)
    data = rng.integers(-200, 10_000, (count, 3, *shape)).astype(np.int16)
    data = np.where(valid[:, None] > 0, data, np.int16(-32768))
    ranking = _ranking(made, chosen)
    result = World(made, area, data, valid, observed, ranking)
    for tile in made.tiles():
        write_composites(result, tile)
    for batch in load_batches(made.attempt, "grid_layers"):
        failed = grid_layers(made, batch).failed
        if failed:
            raise AssertionError(failed)
    return result


def _ranking(made: Plan, chosen: tuple[bool, ...]) -> RankingRef:
    """Write items.parquet and ranking.parquet: one item per slot, chosen on every tile."""
    cover = made.tiles()[0].cover
    slots = made.slots(made.tiles()[0])
    assets = {name: Asset(name, f"{name}.tif") for name in ("red", "nir")}
    items = [
        Item(
            "s2", "c", f"i-{slot.name}", slot.time.start + dt.timedelta(hours=10), "x", None, cover,
            shapely.from_wkb(cover).bounds, None, assets,
        )
        for slot in slots
    ]  # fmt: skip
    write_items(made.version.items, items, "f")
    rows = [
        {
            "tile_id": tile.tile_id, "imagery": "s2", "slot": slot.name, "slot_start": slot.time.start,
            "slot_end": slot.time.end, "acquisition": item.acquisition_id, "datetime": item.datetime,
            "item_ids": [item.item_id], "clear_fraction": 1.0, "coverage_fraction": 1.0, "cloud_cover_pct": None,
            "evidence": "mask", "rank": 1, "chosen": used, "reason": "chosen",
        }
        for tile in made.tiles() for slot, item, used in zip(slots, items, chosen, strict=True)
    ]  # fmt: skip
    write_table(made.version.ranking, pa.Table.from_pylist(rows, schema=RANKING), RANKING, "f")
    return RankingRef(made.version.ranking, "f", len(rows), len(rows))


def composite_of(made: World, tile, index: int) -> Path:
    """Return the composite of a tile and the ``index``-th slot."""
    table = read_table(made.ranking.path, RANKING)
    plan_ = made.plan
    return composite_path(plan_, table, tile, plan_.region.imagery[0], plan_.slots(tile)[index])


def write_composites(made: World, tile) -> None:
    """Write the composites of a tile from the truth."""
    top, left = tile.window.row_off - made.area.row_off, tile.window.col_off - made.area.col_off
    part = np.s_[..., top : top + tile.window.height, left : left + tile.window.width]
    for index in range(len(made.plan.slots(tile))):
        pixels = np.concatenate(
            [made.data[index][part], made.valid[index][part][None], made.observed[index][part][None]]
        )
        write_layer(
            composite_of(made, tile, index), "f", pixels, (tile.lattice, tile.window), nodata=-32768,
            names=["red", "nir", "ndvi", "valid_count", "observed_count"],
        )  # fmt: skip
