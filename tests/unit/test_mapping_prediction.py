"""Strips and stored probabilities: every row once, and what a byte means."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chipmill.learning.stacks import Raster
from chipmill.mapping.outputs import category_xml
from chipmill.mapping.prediction import STRIP_PX, quantise, strips
from chipmill.region.grid import Lattice, Window

LATTICE = Lattice(32633, 0, 0, 10, 10)


def raster(tmp_path, row, height):
    return Raster("a-1", tmp_path / "x.vrt", LATTICE, Window(-7, row, 90, height), ())


@given(row=st.integers(-5000, 5000), height=st.integers(1, 2000))
def test_strips_cover_every_row_once(tmp_path_factory, row, height):
    found = strips(raster(tmp_path_factory.getbasetemp(), row, height))
    rows = [y for _, window in found for y in range(window.row_off, window.row_end)]
    assert rows == list(range(row, row + height))
    assert all(window.width == 90 and window.height <= STRIP_PX for _, window in found)
    assert [unit for unit, _ in found] == [f"a-1-{index}" for index in range(len(found))]


def test_quantised_layers_are_class_confidence_and_shares():
    probability = np.array([[[0.1, 0.7, 0.2], [1.0, 0.0, 0.0]]], np.float32)
    layers = quantise(probability)
    assert layers.shape == (5, 1, 2)
    assert layers[0].tolist() == [[1, 0]]
    assert layers[1].tolist() == [[178, 254]]
    assert layers[2:, 0, 0].tolist() == [25, 178, 51]


def test_no_probability_becomes_nodata():
    assert quantise(np.array([[[1.0000001, -1e-9]]], np.float32)).max() == 254


@given(st.floats(0, 1))
def test_a_stored_share_is_within_half_a_step(share):
    stored = quantise(np.array([[[share, 1 - share]]], np.float32))[2, 0, 0]
    assert abs(stored / 254 - share) <= 0.5 / 254 + 1e-6


def test_category_names_are_escaped():
    import xml.etree.ElementTree as ET

    names = [one.text for one in ET.fromstring(category_xml(["a&b", "<c>"])).iter("Category")]
    assert names == ["a&b", "<c>"]


@pytest.mark.parametrize("name", ["32633", "boadella-2020-02-02"])
def test_units_name_their_raster_whatever_it_is_called(tmp_path, name):
    one = Raster(name, tmp_path, LATTICE, Window(0, 0, 5, 600), ())
    assert {unit.rpartition("-")[0] for unit, _ in strips(one)} == {name}
