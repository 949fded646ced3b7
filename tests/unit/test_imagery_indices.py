"""Indices of composited reflectance: formulas by hand, nodata, division by zero, range, and what may be asked for."""

import numpy as np
import pytest

from chipmill.core.errors import BadInputError
from chipmill.imagery.indices import INDICES, check_indices, index_band, indices_of
from chipmill.imagery.kernels import conversion

RULE = conversion(1e-4, 0.0, 1e-4, "int16", -32768)


def band(*values):
    return np.array([values], np.int16)


def index(name, **bands):
    return index_band(name, bands, 1e-4, RULE)


@pytest.mark.parametrize(
    ("name", "bands", "expected"),
    [
        ("ndvi", {"nir": 4000, "red": 1000}, 0.6),
        ("ndwi", {"green": 1500, "nir": 500}, 0.5),
        ("mndwi", {"green": 1000, "swir16": 3000}, -0.5),
        ("ndbi", {"swir16": 3000, "nir": 1000}, 0.5),
        ("nbr", {"nir": 3000, "swir22": 1000}, 0.5),
        ("evi", {"nir": 4000, "red": 1000, "blue": 500}, 2.5 * 0.3 / (0.4 + 0.6 - 0.375 + 1)),
        ("evi2", {"nir": 4000, "red": 1000}, 2.5 * 0.3 / (0.4 + 0.24 + 1)),
        ("savi", {"nir": 4000, "red": 1000}, 1.5 * 0.3 / 1.0),
        ("bsi", {"swir16": 3000, "red": 2000, "nir": 1000, "blue": 1000}, 0.3 / 0.7),
    ],
)
def test_formulas(name, bands, expected):
    values, _ = index(name, **{key: band(value) for key, value in bands.items()})
    assert values.dtype == np.int16
    assert abs(int(values[0, 0]) - expected * 10000) <= 0.5


def test_nodata_and_zero_by_zero_are_nodata():
    values, _ = index("ndvi", nir=band(-32768, 0, 5), red=band(5, 0, -32768))
    assert values.tolist() == [[-32768, -32768, -32768]]


def test_reflectance_below_zero_does_not_leave_the_range_and_is_counted():
    values, cut = index("ndvi", nir=band(100, 100, 100), red=band(-50, -100, 100))
    assert values.tolist() == [[10000, -32768, 0]]
    assert cut == 1


def test_an_index_belongs_to_the_imagery_that_has_its_bands():
    assert indices_of(("ndvi", "ndwi"), ("red", "nir")) == ("ndvi",)
    assert indices_of(("ndwi", "ndvi"), ("red", "nir", "green")) == ("ndwi", "ndvi")


def test_what_cannot_be_made_is_refused_with_a_way_out():
    with pytest.raises(BadInputError, match="bsi, evi, evi2"):
        indices_of(("ndvj",), ("red",))
    with pytest.raises(BadInputError, match="of one imagery entry"):
        check_indices(("ndvi",), [("red",), ("nir",)])
    with pytest.raises(BadInputError, match="'ndxx' is not an index that is known here: write one of bsi, "):
        check_indices(("ndxx",), [("red",)])
    check_indices(tuple(INDICES), [("red", "nir", "green", "blue", "swir16", "swir22")])
