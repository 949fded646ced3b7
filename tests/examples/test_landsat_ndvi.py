"""A year of two Landsats against numpy, and none of the faults of the Earth Engine post that this example replaces."""

import numpy as np
import pytest
import rasterio
from examples.landsat_ndvi.make_data import DILATED, FILL, PLACE, SCENES, SHADOW, fields

from chipmill.core.tables import CHIPS, read_table
from chipmill.imagery.freeze import read_items

BANDS = {"blue": "blue", "green": "green", "red": "red", "nir": "nir08"}
USED = ("2005-01-16", "2005-03-05", "2005-04-22", "2005-06-09", "2005-08-28", "2005-12-31")
"""Days of the year that are not hopeless: the scene of 95 % cloud and those of 2004 and 2006 are not there."""


@pytest.fixture(scope="module")
def built(example):
    return example("landsat_ndvi")


def scene(built, day, key):
    (folder,) = (built.folder / "data" / "landsat").glob(f"*_{day.replace('-', '')}_*")
    with rasterio.open(folder / f"{key}.tif") as raster:
        return raster.read(1)


@pytest.fixture(scope="module")
def oracle(built):
    """(reflectance by band as integers of 1e-4, number of valid and of observed dates), of the whole place."""
    quality = np.stack([scene(built, day, "qa_pixel") for day in USED]).astype(int)
    seen = quality >> 0 & 1 == 0
    cloud = (quality >> 1 & 1) | (quality >> 2 & 1) | (quality >> 3 & 1) | (quality >> 4 & 1)
    clear = seen & (cloud == 0)
    values = {}
    for band, key in BANDS.items():
        dn = np.ma.masked_array(np.stack([scene(built, day, key) for day in USED]), ~clear)
        middle = np.ma.median(dn.astype(float), axis=0)
        values[band] = np.rint((middle.filled(0) * 2.75e-5 - 0.2) / 1e-4).astype(int)
        values[band][clear.sum(axis=0) == 0] = -32768
    return values, clear.sum(axis=0), seen.sum(axis=0)


def places(built):
    """Yield (tile id, slices of the place) of each tile."""
    for tile in built.tiles:
        left, top = round((tile.transform.c - PLACE.left) / 30), round((PLACE.top - tile.transform.f) / 30)
        yield tile.tile_id, np.s_[top : top + 64, left : left + 64]


def test_every_composite_is_the_median_of_the_clear_dates_in_reflectance(built, oracle):
    values, valid, observed = oracle
    assert len(np.unique(valid)) > 4, "the masks differ: else the rule was not tried"
    tiles = list(places(built))
    assert len(tiles) == 9
    for tile, place in tiles:
        made = built.composite(tile, "landsat", "p1")
        np.testing.assert_array_equal(made["valid_count"], valid[place])
        np.testing.assert_array_equal(made["observed_count"], observed[place])
        for band in BANDS:
            np.testing.assert_allclose(made[band], values[band][place], atol=1, err_msg=band)
            assert (made[band] != values[band][place]).mean() < 0.01, "but for ties of the rounding"


def test_ndvi_is_that_of_the_composite_and_tells_crops_from_soil_and_water(built):
    kinds = fields()
    for tile, place in places(built):
        made = {name: pixels.astype(float) for name, pixels in built.composite(tile, "landsat", "p1").items()}
        there = made["valid_count"] > 0
        expected = (made["nir"] - made["red"]) / (made["nir"] + made["red"])
        np.testing.assert_allclose(made["ndvi"][there] * 1e-4, expected[there], atol=5.1e-5)
        assert (made["ndvi"][there & (kinds[place] == 1)] > 6000).all()
        assert (made["ndvi"][there & (kinds[place] == 0)] < 3500).all()
        assert (made["ndvi"][~there] == -32768).all()


def test_gaps_are_not_clouds_and_margins_and_shadows_are(built, oracle):
    _, valid, observed = oracle
    day = USED.index("2005-03-05")
    quality = scene(built, USED[day], "qa_pixel")
    assert {FILL, DILATED, SHADOW} <= set(np.unique(quality))
    (row,) = {
        (row["coverage_fraction"], row["clear_fraction"])
        for row in built.rows
        if row["tile_id"] == next(places(built))[0] and row["datetime"].date().isoformat() == USED[day]
    }
    assert row[0] < 1, "stripes of Landsat 7 were not observed"
    assert valid.min() < observed.min() <= len(USED) - 1


def test_the_year_is_a_year_and_the_hopeless_scene_was_never_opened(built):
    days = {item.datetime.date().isoformat() for item in read_items(built.version.items)}
    assert days == set(USED)
    assert "2006-01-01" in {day for _, day, *_ in SCENES}
    assert all(row["chosen"] for row in built.rows)


def test_scale_and_offset_are_the_products_own_where_an_item_does_not_say_them(built):
    scalings = {
        (one.scale, round(one.offset, 6))
        for item in read_items(built.version.items)
        for name, one in item.assets.items()
        if name != "mask"
    }
    assert scalings == {(2.75e-5, -0.2)}
    evidence = {item.platform: item.offset_evidence for item in read_items(built.version.items)}
    assert evidence["landsat-5"] == "declared"
    assert evidence["landsat-7"] != evidence["landsat-5"]


def test_records_hold_bands_in_their_order_rows_as_rows_and_the_classes_of_the_label(built):
    names = ["p1_blue", "p1_green", "p1_red", "p1_nir", "p1_ndvi"]
    assert [band.name for band in built.dataset.manifest.bands] == names
    kinds, rows = (
        fields(),
        {row["chip_id"]: row for row in read_table(built.version.chips, CHIPS).to_pylist()},
    )
    assert not np.array_equal(kinds, kinds.T)
    first_col, first_row = round(PLACE.left / 30), round(-PLACE.top / 30)
    seen = 0
    for chip in built.dataset:
        row = rows[chip.chip_id]
        top, left = row["row_off"] - first_row, row["col_off"] - first_col
        part = kinds[top : top + 64, left : left + 64]
        np.testing.assert_array_equal(chip.label[chip.label != 255], (part == 1)[chip.label != 255])
        composite = dict(zip(names, np.moveaxis(chip.image, -1, 0), strict=True))
        there = composite["p1_red"] != -32768
        assert (composite["p1_nir"][there & (part == 1)] > composite["p1_red"][there & (part == 1)]).all()
        np.testing.assert_array_equal(chip.label == 255, ~there)
        seen += 1
    assert seen > 10


def test_the_test_set_is_not_the_training_set(built):
    rows = [row for row in read_table(built.version.chips, CHIPS).to_pylist() if row["state"] == "written"]
    assert {row["split"] for row in rows} == {"train", "val", "test"}
    train = [(row["col_off"], row["row_off"]) for row in rows if row["split"] == "train"]
    held = [(row["col_off"], row["row_off"]) for row in rows if row["split"] != "train"]
    assert not [1 for x, y in train for u, v in held if abs(x - u) < 64 and abs(y - v) < 64]
