"""Real labels of ten CRSs in one dataset: every written pixel is that of the file, no place is on two sides.

And the two real Sentinel-2 chips that came with them: single-band GeoTIFFs with CRS, grid and nodata, so that an item
beside them is all that makes a source of them.
"""

import json
import shutil

import numpy as np
import pytest
import rasterio
import rasterio.warp
from benchmarks import chain
from tests.imagery_world import read
from tests.landcovernet_world import CLASSES, CLOUDY, expected_codes, landcovernet, raw_labels, simulated

from chipmill.core.paths import VersionDir
from chipmill.core.tables import BLOCKS, CHIPS, RANKING, TILES, read_table
from chipmill.core.units import load_batches
from chipmill.dataset.reader import open_dataset
from chipmill.imagery.catalog import search_items
from chipmill.imagery.composite import composite_tiles
from chipmill.imagery.orders import composite_path
from chipmill.imagery.planning import tile_aoi
from chipmill.imagery.ranking import close_ranking, rank_items
from chipmill.region.config import Region
from chipmill.region.plan import region_dir

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def built(shared_data, tmp_path_factory):
    """(region, committed version) of the 24 labels."""
    region = landcovernet(shared_data, tmp_path_factory.mktemp("landcovernet"))
    return region, chain.build(region).path


@pytest.fixture(scope="module")
def chips(built):
    return read_table(VersionDir(built[1]).chips, CHIPS).to_pylist()


def test_24_labels_of_ten_crss_are_one_dataset(built, shared_data):
    version = VersionDir(built[1])
    manifest = open_dataset(version.root).manifest
    raw = raw_labels(shared_data)
    tiles = read_table(version.tiles, TILES).to_pylist()
    assert len(raw) == 24
    assert {tile["source_id"]: (tuple(tile["transform"]), tile["epsg"]) for tile in tiles} == {
        name: (tuple(place)[:6], epsg) for name, (_, place, epsg) in raw.items()
    }
    assert len({grid.epsg for grid in manifest.grids}) == len(manifest.grids) == 10
    assert [one.name for one in manifest.classes] == list(CLASSES)
    assert manifest.counts.planned == 24 * 16
    assert not manifest.failures


def test_every_written_pixel_is_that_of_the_label_and_of_the_image(built, chips, shared_data):
    raw = raw_labels(shared_data)
    tiles = {row["tile_id"]: row for row in read_table(VersionDir(built[1]).tiles, TILES).to_pylist()}
    rows = {row["chip_id"]: row for row in chips if row["state"] == "written"}
    seen, unsure = set(), 0
    for chip in open_dataset(built[1]):
        row = rows[chip.chip_id]
        tile = tiles[row["tile_id"]]
        pixels = raw[tile["source_id"]][0]
        top, left = row["row_off"] - tile["row_off"], row["col_off"] - tile["col_off"]
        part = np.s_[top : top + 64, left : left + 64]
        np.testing.assert_array_equal(chip.label, expected_codes(pixels)[part])
        image = np.stack(list(simulated(pixels[0]).values()), -1).astype(np.int16)
        image[CLOUDY] = -32768
        np.testing.assert_array_equal(chip.image, image[part])
        unsure += int(((chip.label == 255) & (pixels[0][part] > 0)).sum())
        seen.add(tile["epsg"])
    assert len(rows) > 250
    assert len(seen) == 10
    assert unsure > 10_000, "labels below the confidence: else the rule was not tried"


def test_blocks_of_each_lattice_have_one_split_and_no_pixel_is_shared(built, chips):
    region, version = built
    blocks = {row["block"]: row for row in read_table(region_dir(region).blocks, BLOCKS).to_pylist()}
    written = [row for row in chips if row["state"] == "written"]
    for row in written:
        block = blocks[row["block"]]
        assert block["split"] == row["split"]
        assert block["block"] == f"{block['lattice']}_{block['bx']}_{block['by']}"
        assert row["chip_id"].startswith(f"{block['lattice']}_{row['col_off']}_")
    assert len({block["lattice"] for block in blocks.values()}) == 10
    assert {row["split"] for row in written} == {"train", "val", "test"}
    certificate = open_dataset(version).manifest.certificate
    assert certificate.shared_px == 0
    assert _overlaps(written, blocks) == 0


def _overlaps(written, blocks):
    """Pairs of chips of one lattice and unlike splits that share a pixel, by brute force."""
    places = [
        (blocks[row["block"]]["lattice"], row["split"], row["col_off"], row["row_off"]) for row in written
    ]
    return sum(
        one[0] == other[0]
        and one[1] != other[1]
        and abs(one[2] - other[2]) < 64
        and abs(one[3] - other[3]) < 64
        for at, one in enumerate(places)
        for other in places[:at]
    )


def test_snow_on_the_equator_is_taken_as_the_label_says_it(built, chips):
    """36NZH_02 calls two thirds of a chip in Kenya snow: the labels carry noise, and nothing here cleans them."""
    rows = [row for row in chips if row["tile_id"].endswith("36nzh_02")]
    snow = sum(row["class_px"][CLASSES.index("snow-ice")] for row in rows)
    assert snow > 30_000


CHIPS_S2 = {
    "image1": ("blue", "red", "NIR", "Scene Classification Layer"),
    "image2": tuple(f"52UEA_08_20180720_{band}_10m" for band in ("B02", "B04", "B08", "SCL")),
}
"""Files of blue, red, nir and the SCL of the two chips."""


def source_of(shared, folder, name):
    """Copy a chip's files below an ItemCollection of one item; return (region, source arrays, SCL)."""
    folder.mkdir(parents=True)
    keys, arrays, assets = ("blue", "red", "nir", "scl"), {}, {}
    for key, file in zip(keys, CHIPS_S2[name], strict=True):
        path = folder / f"{file}.tif"
        shutil.copyfile(shared / "landcovernet" / "s2_chips" / name / path.name, path)
        assets[key] = {"href": f"./{path.name}"}
        with rasterio.open(path) as source:
            arrays[key], bounds, crs = source.read(1), source.bounds, source.crs
    box = rasterio.warp.transform_bounds(crs, "EPSG:4326", *bounds)
    west, south, east, north = box
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    item = {"type": "Feature", "id": name, "collection": "sentinel-2-chips", "bbox": box, "assets": assets,
            "geometry": {"type": "Polygon", "coordinates": [ring]}, "links": [],
            "properties": {"datetime": "2018-07-20T00:00:00Z", "platform": "sentinel-2"}}  # fmt: skip
    (folder / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": [item]}))
    inset = [west + 2e-3, south + 2e-3, east - 2e-3, north - 2e-3]
    values = {
        "name": name, "file": str(folder / "chip.yaml"), "aoi": {"bbox": inset},
        "time": {"range": ["2018-07-01", "2018-08-01"], "slots": {"n": 1}},
        "grid": {"like": f"{CHIPS_S2[name][0]}.tif", "tile_px": 256},
        "imagery": [{"name": "s2", "source": {"items": "items.json"}, "mask": {"asset": "scl"},
                     "bands": {key: key for key in keys[:3]}, "clear": {"floor": 0.0}}],
    }  # fmt: skip
    return Region.model_validate(values), arrays


def composited(region):
    """Return (composite's bands, ranking rows, tile) of a region of one tile."""
    plan = tile_aoi(region)
    items = search_items(plan)
    for batch in load_batches(plan.attempt, "rank_items"):
        assert not rank_items(plan, items, batch).failed
    ranking = close_ranking(plan, items)
    for batch in load_batches(plan.attempt, "composite_tiles"):
        assert not composite_tiles(plan, ranking, batch).failed
    (tile,) = plan.tiles()
    table = read_table(ranking.path, RANKING)
    (slot,) = plan.slots(tile)
    path = composite_path(plan, table, tile, region.imagery[0], slot)
    return read(path), table.to_pylist(), tile


def test_a_real_chip_is_a_source_and_its_clear_pixels_come_through(shared_data, tmp_path):
    region, arrays = source_of(shared_data, tmp_path / "one", "image1")
    made, (row,), tile = composited(region)
    assert row["chosen"]
    assert (tile.crs, tile.shape) == ("EPSG:32636", (256, 256))
    clear = ~np.isin(arrays["scl"], (0, 1, 3, 8, 9, 10))
    assert 0.5 < clear.mean() < 1
    np.testing.assert_array_equal(made["valid_count"] > 0, clear)
    for band in ("blue", "red", "nir"):
        np.testing.assert_array_equal(made[band], np.where(clear, arrays[band].astype(np.int16), -32768))


def test_a_real_chip_under_cloud_is_not_chosen_and_without_mask_it_is_itself(shared_data, tmp_path):
    region, arrays = source_of(shared_data, tmp_path / "one", "image2")
    made, (row,), tile = composited(region)
    assert tile.crs == "EPSG:32652"
    assert (row["chosen"], row["reason"]) == (False, "no clear pixel over the tile")
    assert not made["valid_count"].any()
    assert (made["red"] == -32768).all()
    region, arrays = source_of(shared_data, tmp_path / "two", "image2")
    imagery = region.imagery[0].model_copy(update={"mask": None})
    made, (row,), _ = composited(region.model_copy(update={"imagery": (imagery,)}))
    assert row["evidence"] == "none"
    for band in ("blue", "red", "nir"):
        np.testing.assert_array_equal(made[band], arrays[band])
