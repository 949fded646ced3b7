"""The compiled reductions against numpy's own, and the rounding rule against exact arithmetic."""

import warnings
from fractions import Fraction

import numpy as np
import pytest

from chipmill.imagery.kernels import (
    conversion,
    median_network,
    reduce_first,
    reduce_mean,
    reduce_median,
    sorting_network,
)
from chipmill.imagery.validity import settle

PLAIN = conversion(1e-4, 0.0, 1e-4, "int16", -32768)


def stack(count, dtype="uint16", seed=0, high=6000, share=0.6):
    rng = np.random.default_rng(seed)
    values = rng.integers(0, high, (count, 13, 17)).astype(dtype)
    return values, rng.random(values.shape) < share


def oracle(function, values, valid, rule):
    """Reduce with numpy in float64, then round half to even, saturate, and put nodata where nothing is valid."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # all-NaN columns are what nodata is for
        number = np.rint(
            function(np.where(valid, values.astype(float), np.nan), axis=0) * rule.gain + rule.shift
        )
    return np.where(np.isnan(number), rule.nodata, np.clip(number, rule.low, rule.high)).astype(np.int16)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "int32", "float32", "float64"])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 12, 31])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 1.0])
def test_median_is_numpys(count, dtype, share):
    values, valid = stack(count, dtype, seed=count, high=250, share=share)
    out = np.empty(values.shape[1:], np.int16)
    assert reduce_median(values, valid, PLAIN, out) == 0
    np.testing.assert_array_equal(out, oracle(np.nanmedian, values, valid, PLAIN))


@pytest.mark.parametrize("dtype", ["int16", "uint16", "float32"])
@pytest.mark.parametrize(
    ("scale", "offset"), [(1e-4, -0.1), (1e-4, -0.10001), (1e-4, 4.0), (1e-4, 0.00005), (2.75e-5, -0.2)]
)
def test_median_rounds_and_cuts_as_the_exact_rule_says(dtype, scale, offset):
    """With gain 1 and a whole shift it counts in integers, else in floats: the same numbers either way."""
    rng = np.random.default_rng(1)
    low = -30000 if dtype != "uint16" else 0
    values = rng.integers(low, 32000, (6, 40, 50)).astype(dtype)
    valid = rng.random(values.shape) < 0.6
    rule = conversion(scale, offset, 1e-4, "int16", -32768)
    out = np.empty(values.shape[1:], np.int16)
    saturated = reduce_median(values, valid, rule, out)
    expected = oracle(np.nanmedian, values, valid, rule)
    np.testing.assert_array_equal(out, expected)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        middle = np.nanmedian(np.where(valid, values.astype(float), np.nan), axis=0)
    number = np.rint(middle * rule.gain + rule.shift)
    assert saturated == np.count_nonzero((number < rule.low) | (number > rule.high))


@pytest.mark.parametrize("count", range(1, 15))
def test_the_median_network_puts_the_middle_of_every_row_in_its_place(count):
    """By the 0-1 principle over all rows of zeros and ones, with fewer comparisons than the sort."""
    bits = np.arange(2**count)[np.newaxis] >> np.arange(count)[:, np.newaxis] & 1
    rows = bits.copy()
    network = median_network(count)
    for a, b in network:
        rows[a], rows[b] = np.minimum(rows[a], rows[b]), np.maximum(rows[a], rows[b])
    middle = [max(count // 2 - 1, 0), count // 2]
    np.testing.assert_array_equal(rows[middle], np.sort(bits, axis=0)[middle])
    assert len(network) < len(sorting_network(count)) or count < 7


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16"])
def test_settling_drops_the_nodata_of_every_band_that_is_to_be_tested_and_counts(dtype):
    rng = np.random.default_rng(5)
    bands, times, height, width = 3, 4, 7, 33
    values = rng.integers(0, 4, (bands, times, height, width)).astype(dtype)
    codes = rng.integers(0, 4, (bands, times))
    codes[0, 0] = np.iinfo(dtype).max
    values[0, 0, 2] = np.iinfo(dtype).max
    tested = rng.random((bands, times)) < 0.7
    valid, seen = (rng.random((times, height, width)) < share for share in (0.8, 0.3))
    empty = (values == codes[..., np.newaxis, np.newaxis]) & tested[..., np.newaxis, np.newaxis]
    expected = valid & ~empty.any(axis=0)
    counted, observed = settle(values, codes, tested, valid, seen)
    np.testing.assert_array_equal(valid, expected)
    np.testing.assert_array_equal(counted, expected.sum(axis=0))
    np.testing.assert_array_equal(observed, (expected | seen).sum(axis=0))


@pytest.mark.parametrize("count", [1, 2, 5, 12])
def test_mean_is_numpys(count):
    values, valid = stack(count, seed=count)
    out = np.empty(values.shape[1:], np.int16)
    reduce_mean(values, valid, PLAIN, out)
    expected = np.where(valid, values, 0).sum(axis=0) / np.maximum(valid.sum(axis=0), 1)
    np.testing.assert_array_equal(
        out, np.where(valid.any(axis=0), np.rint(expected), -32768).astype(np.int16)
    )


def test_first_takes_the_first_valid_in_the_given_order():
    values, valid = stack(5)
    out = np.empty(values.shape[1:], np.int16)
    reduce_first(values, valid, PLAIN, out)
    first = np.take_along_axis(values.astype(np.int16), valid.argmax(axis=0)[np.newaxis], axis=0)[0]
    np.testing.assert_array_equal(out, np.where(valid.any(axis=0), first, -32768).astype(np.int16))


def test_even_median_rounds_half_to_even():
    values = np.array([[[0, 1, 2, 3]], [[1, 2, 3, 4]]], np.uint16)
    out = np.empty((1, 4), np.int16)
    reduce_median(values, np.ones(values.shape, np.bool_), PLAIN, out)
    assert out.tolist() == [[0, 2, 2, 4]]  # of 0.5, 1.5, 2.5, 3.5


def test_offset_is_applied_once_and_reflectance_below_zero_stays():
    rule = conversion(1e-4, -0.1, 1e-4, "int16", -32768)
    out = np.empty((1, 3), np.int16)
    reduce_median(np.array([[[0, 900, 3720]]], np.uint16), np.ones((1, 1, 3), np.bool_), rule, out)
    assert out.tolist() == [[-1000, -100, 2720]]


def test_saturated_pixels_are_counted_and_never_become_nodata():
    rule = conversion(1.0, -70000.0, 1.0, "int16", -32768)
    out = np.empty((1, 3), np.int16)
    saturated = reduce_median(
        np.array([[[0, 65535, 70000]]], np.int32), np.ones((1, 1, 3), np.bool_), rule, out
    )
    assert (saturated, out.tolist()) == (1, [[-32767, -4465, 0]])


def test_a_valid_value_equal_to_the_sorting_sentinel_counts():
    values = np.array([[[65535]], [[65535]], [[7]]], np.uint16)
    out = np.empty((1, 1), np.int16)
    rule = conversion(0.5, 0.0, 1.0, "int16", -32768)
    reduce_median(values, np.array([[[True]], [[True]], [[False]]]), rule, out)
    assert out[0, 0] == 32767  # 32767.5 to even is 32768, one beyond the type


def test_no_acquisition_at_all_is_nodata():
    out = np.zeros((2, 2), np.int16)
    reduce_median(np.empty((0, 2, 2), np.uint16), np.empty((0, 2, 2), np.bool_), PLAIN, out)
    assert (out == -32768).all()


@pytest.mark.parametrize("count", range(1, 20))
def test_the_network_sorts_every_row_of_zeros_and_ones(count):
    """Knuth's 0-1 principle: a network that sorts all zeros and ones sorts everything."""
    bits = np.arange(2 ** min(count, 14))[np.newaxis] >> np.arange(count)[:, np.newaxis] & 1
    rows = bits.copy()
    for a, b in sorting_network(count):
        rows[a], rows[b] = np.minimum(rows[a], rows[b]), np.maximum(rows[a], rows[b])
    np.testing.assert_array_equal(rows, np.sort(bits, axis=0))


@pytest.mark.parametrize(
    ("scale", "offset", "out"), [(1e-4, -0.1, 1e-4), (2.75e-5, -0.2, 1e-4), (0.01, 0.3, 0.01)]
)
def test_gain_and_shift_are_the_nearest_floats_of_the_exact_fractions(scale, offset, out):
    rule = conversion(scale, offset, out, "int16", -32768)
    assert rule.gain == float(Fraction(str(scale)) / Fraction(str(out)))
    assert rule.shift == float(Fraction(str(offset)) / Fraction(str(out)))
