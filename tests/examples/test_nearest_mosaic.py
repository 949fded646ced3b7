"""Each pixel from the nearest clear day, of two products; none of the faults of the notebook that this example replaces."""

import datetime as dt

import numpy as np
import pytest
import rasterio
from examples.nearest_mosaic.make_data import CLEAR, CLOUDY_ROWS, PLACE, SIDE, SPOT, SURVEY
from tests.examples.conftest import Built, make

from chipmill.core.errors import TilesFailedError

USED = {"s2": ("2020-07-02", "2020-06-21", "2020-07-11", "2020-05-27"), "spot": ("2020-06-30", "2020-06-11")}
"""Days by their distance from the survey, worked out by hand: 1, 10 before, 10 after, 35; 1 and 20."""


@pytest.fixture(scope="module")
def built(example):
    return example("nearest_mosaic")


def scene(built, product, day, key):
    name = f"{'S2' if product == 's2' else 'SPOT'}_{day}"
    with rasterio.open(built.folder / "data" / product / name / f"{key}.tif") as raster:
        return raster.read(1).astype(int)


def oracle(built, product, key):
    """(pixels, day's place in the list of used days or -1) of the whole place: the first day that is clear wins."""
    pixels, day_of = np.full((SIDE, SIDE), -32768), np.full((SIDE, SIDE), -1)
    for place, day in enumerate(USED[product]):
        values = scene(built, product, day, key)
        good = values != 0
        if product == "s2":
            good &= scene(built, product, day, "scl") == CLEAR
        take = good & (day_of < 0)
        pixels[take], day_of[take] = values[take], place
    return pixels, day_of


def whole(built, product, band):
    """The composites of the four tiles as one array over the place."""
    found = np.zeros((SIDE, SIDE), int)
    for tile in built.tiles:
        left, top = round((tile.transform.c - PLACE.left) / 10), round((PLACE.top - tile.transform.f) / 10)
        found[top : top + 64, left : left + 64] = built.composite(tile.tile_id, product, "p1")[band]
    return found


def test_the_days_are_as_far_from_the_survey_as_the_table_says():
    reference = dt.date.fromisoformat(SURVEY)
    days = {day: abs((dt.date.fromisoformat(day) - reference).days) for one in USED.values() for day in one}
    assert list(days.values()) == [1, 10, 10, 35, 1, 20]


@pytest.mark.parametrize(("product", "band"), [("s2", "red"), ("s2", "nir"), ("spot", "pan")])
def test_each_pixel_is_that_of_the_nearest_clear_day(built, product, band):
    pixels, day_of = oracle(built, product, band)
    np.testing.assert_array_equal(whole(built, product, band), pixels)
    assert set(np.unique(day_of)) == ({0, 1, 2, 3} if product == "s2" else {0, 1}), "several days are needed"


def test_of_two_equally_near_days_the_earlier_is_taken_whatever_the_order_of_reading(built):
    red = whole(built, "s2", "red")
    cloud = np.zeros((SIDE, SIDE), bool)
    cloud[: CLOUDY_ROWS["2020-07-02"][1]] = True
    early = slice(*CLOUDY_ROWS["2020-06-21"])
    tied = cloud.copy()
    tied[early] = False
    np.testing.assert_array_equal(red[tied], scene(built, "s2", "2020-06-21", "red")[tied])


def test_the_first_and_the_last_day_hold_for_every_product_and_are_told(built):
    for tile in built.tiles:
        reasons = built.reasons(tile.tile_id)
        assert "nearest.min_date 2020-05-01" in reasons["S2_2020-04-20"]
        assert "nearest.max_date 2020-09-01" in reasons["S2_2020-09-01"]
        assert "nearest.max_date 2020-07-15" in reasons["SPOT_2020-08-05"]
        assert len(reasons) == len(CLOUDY_ROWS) + len(SPOT), "each image has its reason"


def test_the_cloud_that_counts_is_that_of_the_tile(built):
    reasons = [built.reasons(tile.tile_id)["S2_2020-07-26"] for tile in built.tiles]
    assert set(reasons) == {"no clear pixel over the tile"}, "although its scene has 3 %"


def test_the_products_stand_side_by_side_and_an_image_without_data_is_no_image_of_zeros(built):
    assert [band.name for band in built.dataset.manifest.bands] == ["p1_red", "p1_nir", "p1_pan"]
    half = whole(built, "spot", "pan")
    second, first = (scene(built, "spot", day, "pan") for day in USED["spot"])
    np.testing.assert_array_equal(half[:, SIDE // 2 :], second[:, SIDE // 2 :])
    np.testing.assert_array_equal(half[:, : SIDE // 2], first[:, : SIDE // 2])
    assert (half > 0).all()


def test_an_image_that_cannot_be_read_is_a_failure_and_not_no_data(built, tmp_path):
    folder = make("nearest_mosaic", tmp_path)
    broken = folder / "data" / "s2" / "S2_2020-07-02" / "red.tif"
    broken.write_bytes(broken.read_bytes()[:600])
    with pytest.raises(TilesFailedError, match=r"S2_2020-07-02/red\.tif"):
        Built(folder)
