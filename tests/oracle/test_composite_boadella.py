"""Real Sentinel-2 over Boadella: degrees, pixels that are not square, one composite per label date; and a median in UTM."""

import datetime as dt

import numpy as np
import pytest
import rasterio

from chipmill.core.tables import RANKING, read_table
from chipmill.core.units import load_batches
from chipmill.imagery.catalog import search_items
from chipmill.imagery.composite import composite_tiles
from chipmill.imagery.orders import composite_path
from chipmill.imagery.planning import tile_aoi
from chipmill.imagery.ranking import close_ranking, rank_items
from chipmill.region.config import Region

pytestmark = pytest.mark.real


def region(folder, catalog, **more) -> Region:
    source = {"catalog": str(catalog)}
    bands = {name: name for name in ("blue", "green", "red", "nir")}
    values = {
        "name": "boadella",
        "file": str(folder / "boadella.yaml"),
        "aoi": {"bbox": [2.79, 42.33, 2.84, 42.37]},
        "time": {"range": ["2020-01-01", "2022-01-01"], "slots": {"around_label": {}}},
        "tiles": {"from": "label-items", "source": source, "collection": "boadella-labels", "asset": "labels"},
        "imagery": [{"name": "s2", "source": {**source, "collection": "boadella-s2-l2a"}, "bands": bands,
                     "mask": {"asset": "scl"}, "clear": {"floor": 0.0}}],
        "indices": ["ndwi"],
        "labels": {"classes": {"0": "other", "1": "water"}},
        "dataset": {"layout": "single", "chips": {"size_px": 64, "stride_px": 32}, "splits": {"block_px": 64, "buffer_px": 0}},
    }  # fmt: skip
    return Region.model_validate(values | more)


def composites(config):
    """Return ((tile, slot, path) of every composite, ranking rows)."""
    plan = tile_aoi(config)
    items = search_items(plan)
    for batch in load_batches(plan.attempt, "rank_items"):
        rank_items(plan, items, batch)
    ranking = close_ranking(plan, items)
    for batch in load_batches(plan.attempt, "composite_tiles"):
        assert not composite_tiles(plan, ranking, batch).failed
    table = read_table(ranking.path, RANKING)
    made = [(tile, slot, composite_path(plan, table, tile, config.imagery[0], slot))
            for tile in plan.tiles() for slot in plan.slots(tile)]  # fmt: skip
    return made, table.to_pylist()


def test_one_composite_per_label_date_is_the_scene_itself(shared_data, tmp_path):
    catalog = shared_data / "catalog" / "catalog.json"
    made, rows = composites(region(tmp_path, catalog))
    assert len(made) == 4
    assert all(row["chosen"] for row in rows)
    assert [len([row for row in rows if row["tile_id"] == tile.tile_id]) for tile, *_ in made] == [1, 1, 1, 1]
    for tile, slot, path in made:
        scene = catalog.parent / "boadella-s2-l2a" / f"S2_BOADELLA_{slot.time.start_date.replace('-', '')}"
        with (
            rasterio.open(path) as composite,
            rasterio.open(scene / "nir.tif") as nir,
            rasterio.open(scene / "scl.tif") as scl,
        ):
            assert composite.transform.almost_equals(nir.transform, 1e-12)
            assert composite.shape == tile.shape == (377, 380)
            dropped = np.isin(scl.read(1), (0, 1, 3, 8, 9, 10))
            source = nir.read(1).astype(np.int16)
            expected = np.where((source != 0) & ~dropped, source, -32768).astype(np.int16)
            pixels = composite.read(composite.descriptions.index("nir") + 1)
            valid = composite.read(composite.descriptions.index("valid_count") + 1)
            np.testing.assert_array_equal(pixels[valid > 0], expected[valid > 0])
            assert (valid[expected == -32768] == 0).all()
            assert valid.mean() > 0.5


def test_a_yearly_median_warped_to_utm(shared_data, tmp_path):
    catalog = shared_data / "catalog" / "catalog.json"
    more = {
        "time": {"range": ["2020-01-01", "2021-01-01"], "slots": {"n": 1}},
        "tiles": {},
        "grid": {"crs": "EPSG:32631", "tile_px": 512},
    }
    made, rows = composites(region(tmp_path, catalog, **more))
    assert {row["evidence"] for row in rows} == {"mask"}
    assert all(row["datetime"] < dt.datetime(2021, 1, 1, tzinfo=dt.UTC) for row in rows)
    best = [row for row in rows if row["rank"] == 1]
    assert all(row["clear_fraction"] == max(one["clear_fraction"] for one in rows if one["tile_id"] == row["tile_id"])
               for row in best)  # fmt: skip
    water = 0
    for *_, path in made:
        with rasterio.open(path) as composite:
            valid = composite.read(composite.descriptions.index("valid_count") + 1)
            ndwi = composite.read(composite.descriptions.index("ndwi") + 1)
        water += int(((ndwi > 0) & (valid > 0)).sum())
    assert 5_000 < water < 60_000  # the reservoir, in pixels of 100 square metres
