"""Indices of composited reflectance: formulas by hand, nodata, division by zero, range, and what may be asked for."""

import re

import numpy as np
import pytest

from chipmill.core.errors import BadInputError
from chipmill.imagery.indices import check_indices, evaluate, index_band, indices_of
from chipmill.imagery.kernels import conversion
from chipmill.region.fields import ID_PATTERN
from chipmill.region.formulas import BANDS, find_index, index_names, parse_formula

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
    with pytest.raises(BadInputError, match="'ndvj' is not an index that is known here: did you mean ndvi"):
        indices_of(("ndvj",), ("red",))
    with pytest.raises(BadInputError, match="needs the bands nir or nir08, red of one imagery entry"):
        check_indices(("ndvi",), [("red",), ("nir",)])
    check_indices(index_names(), [[name for names in BANDS.values() for name in names]])


def test_every_index_of_spyndex_is_what_spyndex_makes_of_it():
    import spyndex

    random = np.random.default_rng(1)
    bands = {letter: random.uniform(0.05, 0.6, 50) for letter in BANDS}
    constants = {name: one.default for name, one in spyndex.constants.items() if name not in bands}
    own = {"evi", "evi2", "savi"}  # savi has an L of its own
    by_name = {name.lower(): name for name in sorted(spyndex.indices, reverse=True)}
    compared = 0
    for name in index_names():
        if by_name.get(name) is None or name in own:
            continue
        with np.errstate(invalid="ignore"):
            theirs = spyndex.computeIndex(by_name[name], params=bands | constants)
            ours = evaluate(find_index(name).formula, bands)
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, err_msg=name)
        compared += 1
    assert compared > 240
    assert all(re.fullmatch(ID_PATTERN, name) for name in index_names()), "they become names of bands"


def test_names_that_differ_in_case_alone_and_names_that_need_more_than_bands():
    assert find_index("bai").letters == ("R", "N")  # BAI: burned area; BaI, bare ground, cannot be named
    assert [find_index(name) for name in ("kndvi", "fai", "nirvp", "NDVI", "s2")] == [None] * 5


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2 + 3 * 4", 14), ("(2 + 3) * 4", 20), ("8 / 4 / 2", 1), ("8 - 4 - 2", 2), ("2 ** 3 ** 2", 512),
        ("-2 ** 2", -4), ("2 ** -1", 0.5), ("- - 3", 3), ("+3", 3), (".5 * 1e1", 5), ("2.", 2), ("N - R * 2", -1),
    ],
)  # fmt: skip
def test_formulas_bind_as_pythons(text, value):
    assert evaluate(parse_formula(text), {"N": 3.0, "R": 2.0}) == value


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("N - X", "character 5, at 'X': no band has that name"),
        ("(N - R", "character 7, at the end: expected '\\)' that closes the bracket"),
        ("N R", "character 3, at 'R': expected an operator or the end"),
        ("N -", "character 4, at the end: expected a number, a name or a bracket"),
        ("N.real", "character 2: '.' belongs to no expression"),
        ("__import__('os')", "character 1: '_' belongs to no expression"),
        ("N(1)", "character 2, at '\\(': expected an operator"),
        ("-" * 70 + "N", "nests deeper than 50 levels"),
        ("(" * 70 + "N", "nests deeper than 50 levels"),
    ],
)
def test_a_wrong_formula_is_told_with_its_place(text, says):
    with pytest.raises(BadInputError, match=says):
        parse_formula(text)


def test_bands_by_their_other_names():
    assert indices_of(("ndvi",), ("red", "nir08")) == ("ndvi",)
    values, _ = index("ndvi", nir08=band(4000), red=band(1000))
    assert values.tolist() == [[6000]]
    # nir08 may stand for either near infrared, as no formula holds both.
    assert not [name for name in index_names() if {"N", "N2"} <= set(find_index(name).letters)]


def test_indices_of_radar_are_of_power():
    values, _ = index_band(
        "dprvivv",
        {"vv": band(-1000), "vh": band(-2000)},
        0.01,
        conversion(1.0, 0.0, 0.01, "int16", -32768),
        decibels=True,
    )
    assert values.tolist() == [[round(4 * 0.01 / (0.1 + 0.01) * 100)]]


def test_values_beyond_the_type_are_cut_and_counted():
    values, cut = index("sr", nir=band(9000, 3000), red=band(1000, 1000))  # a ratio has no range of its own
    assert values.tolist() == [[32767, 30000]]
    assert cut == 1
