"""Neighbourhoods of points with NDVI against numpy, and none of the faults of the post that this example replaces."""

import numpy as np
import pytest
from examples.earth_engine.make_data import CLEAR, PLACE, POINTS, SHAPE, dn, fields

from chipmill.core.tables import CHIPS, read_table

SIDE = 257
WANTED = {
    "a-01": ("train", "written", ""), "a-02": ("train", "written", ""), "a-03": ("train", "written", ""),
    "b-01": ("test", "written", ""), "b-02": ("test", "written", ""), "c-01": ("val", "written", ""),
    "c-02": ("train", "filtered", "buffer"), "d-01": ("train", "filtered", "empty_slot"),
}  # fmt: skip


@pytest.fixture(scope="module")
def built(example):
    return example("earth_engine")


@pytest.fixture(scope="module")
def rows(built):
    return read_table(built.version.chips, CHIPS).to_pylist()


@pytest.fixture(scope="module")
def truth():
    """red, nir and ndvi as stored, and the codes of the land cover; `(y, x)` of the whole place."""
    kinds, quality = fields(), np.full(SHAPE, CLEAR, np.uint16)
    red, nir = (
        np.rint((dn(key, kinds, quality) * 2.75e-5 - 0.2) / 1e-4).astype(int) for key in ("red", "nir08")
    )
    ndvi = np.rint(10_000 * (nir - red) / (nir + red)).astype(int)
    return np.stack([red, nir, ndvi], axis=-1), (kinds == 1).astype(np.uint8)


def test_each_point_has_a_window_its_split_and_a_reason(rows):
    assert {row["source_id"]: (row["split"], row["state"], row["reason"]) for row in rows} == WANTED


def test_each_chip_is_the_257_pixels_around_its_point(built, rows, truth):
    image, label = truth
    chips = {one.chip_id: one for one in built.dataset}
    places = {name: (x, y) for name, _, x, y in POINTS}
    assert [one.name for one in built.dataset.bands] == ["p1_red", "p1_nir", "p1_ndvi"]
    for row in rows:
        if row["state"] != "written":
            continue
        chip = chips[row["chip_id"]]
        x, y = places[row["source_id"]]
        part = np.s_[y - 128 : y + 129, x - 128 : x + 129]
        assert chip.image.shape == (SIDE, SIDE, 3)
        np.testing.assert_array_equal(chip.image[..., :2], image[part][..., :2])
        np.testing.assert_allclose(chip.image[..., 2], image[part][..., 2], atol=1)
        np.testing.assert_array_equal(chip.label, label[part])
        assert (chip.transform[2], chip.transform[5]) == (
            PLACE.left + 30 * (x - 128),
            PLACE.top - 30 * (y - 128),
        )


def test_no_ground_of_training_is_seen_in_validation_or_test(built):
    assert built.dataset.manifest.certificate.shared_px == 0


def test_statistics_are_of_each_training_pixel_once(built, rows, truth):
    image, _ = truth
    seen = np.zeros(SHAPE, bool)
    for name, _, x, y in POINTS:
        if WANTED[name][:2] == ("train", "written"):
            seen[y - 128 : y + 129, x - 128 : x + 129] = True
    for number, band in enumerate(built.dataset.bands[:2]):
        assert band.statistics.n == str(seen.sum())
        assert band.statistics.sum == str(image[seen][:, number].sum())
