"""Sums of bands: exact for every type that a record may have, and only over what counts."""

import numpy as np
import pytest

from chipmill.dataset.statistics import band_sums


def _slow(values, nodata):
    good = [int(value) for value in values if value != nodata]
    return len(good), sum(good), sum(value * value for value in good)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "uint32"])
def test_sums_are_those_of_python_integers_up_to_the_ends_of_the_type(dtype):
    info = np.iinfo(dtype)
    rng = np.random.default_rng(8)
    image = rng.integers(info.min, info.max, (3, 40, 50), dtype, endpoint=True)
    image[0, :5], image[1, :5], image[2, 7] = info.min, info.max, 7
    mask = rng.random((40, 50)) < 0.8
    nodata = (info.min, info.max, 7)
    found = band_sums(image, nodata, mask)
    for band, empty, sums in zip(image, nodata, found, strict=True):
        assert (sums.n, sums.total, sums.squares) == _slow(band[mask], empty)
    assert found[0].n < mask.sum()


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32"])
def test_a_nodata_value_that_the_type_has_not_drops_nothing(dtype):
    image = np.arange(120, dtype=dtype).reshape(1, 10, 12)
    whole = np.ones((10, 12), dtype=bool)
    for nodata in (-99999.0, 0.5, 1e12):
        (sums,) = band_sums(image, [nodata], whole)
        assert (sums.n, sums.total) == (120, int(image.sum()))


def test_where_nothing_counts_all_sums_are_0():
    image = np.full((2, 4, 4), 9, np.int16)
    for mask, nodata in ((np.zeros((4, 4), bool), -1), (np.ones((4, 4), bool), 9)):
        assert [(one.n, one.total, one.squares) for one in band_sums(image, [nodata] * 2, mask)] == [
            (0, 0, 0)
        ] * 2
