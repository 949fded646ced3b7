"""The geometric median against scipy's minimiser and a slow numpy one, on random and on awkward spectra."""

import numpy as np
import pytest
from scipy.optimize import minimize

from chipmill.imagery.geomedian import geomedian, reduce_geomedian
from chipmill.imagery.kernels import conversion, reduce_median

RULE = conversion(1e-4, 0.0, 1e-4, "int16", -32768)


def cost(point, spectra):
    return np.linalg.norm(spectra - point, axis=1).sum()


def slow(spectra):
    """Spectra (time, band): the best of the spectra themselves and of scipy's search from the median."""
    found = minimize(cost, np.median(spectra, axis=0), args=(spectra,), method="Nelder-Mead",
                     options={"xatol": 1e-6, "fatol": 1e-9, "maxiter": 20_000, "maxfev": 20_000, "adaptive": True})  # fmt: skip
    return min([found.x, *spectra], key=lambda point: cost(point, spectra))


def ours(spectra):
    points = np.asarray(spectra, np.float64).T[:, :, np.newaxis]
    return geomedian(points, np.ones(points.shape[1:], bool))[:, 0]


@pytest.mark.parametrize("count", [3, 4, 5, 8, 13])
@pytest.mark.parametrize("bands", [2, 4])
def test_it_is_scipys_minimum(count, bands):
    random = np.random.default_rng(count * 10 + bands)
    for _ in range(4):
        spectra = random.integers(0, 5000, (count, bands)).astype(float)
        best = slow(spectra)
        assert cost(ours(spectra), spectra) <= cost(best, spectra) * (1 + 1e-9)
        np.testing.assert_allclose(ours(spectra), best, atol=0.2)


@pytest.mark.parametrize(
    ("spectra", "expected"),
    [
        ([[100, 200]], [100, 200]),
        ([[100, 200], [300, 700]], [200, 450]),
        ([[1, 1], [1, 1], [9, 5]], [1, 1]),  # the most lie on one spectrum
        ([[5, 5], [5, 5], [5, 5]], [5, 5]),
        (
            [[0, 0], [1000, 0], [500, 1], [500, 900]],
            None,
        ),  # three nearly on a line, the answer is one of them
        ([[0, 0], [0, 10], [10, 0], [10, 10]], [5, 5]),
        ([[0, 0], [10, 0], [5, 100]], None),
        ([[0, 0], [100, 100], [200, 200], [300, 300], [400, 400]], [200, 200]),  # on a line: the median
        ([[0, 0, 0], [1, 0, 0], [0, 1, 0], [2000, 2000, 2000]], None),
    ],
)
def test_awkward_spectra(spectra, expected):
    spectra = np.array(spectra, float)
    found = ours(spectra)
    if expected is not None:
        np.testing.assert_allclose(found, expected, atol=1e-2)
    assert cost(found, spectra) <= cost(slow(spectra), spectra) * (1 + 1e-7)


def test_one_cloud_does_not_move_it_far_where_the_mean_goes():
    spectra = np.array([[500, 600, 700, 3000]] * 4 + [[9000, 9000, 9000, 9000]], float)
    np.testing.assert_array_equal(ours(spectra), spectra[0])
    assert np.linalg.norm(spectra.mean(axis=0) - spectra[0]) > 3000


def test_one_band_is_the_median_kernel():
    random = np.random.default_rng(3)
    values = random.integers(0, 6000, (6, 20, 30)).astype(np.uint16)
    valid = random.random(values.shape) < 0.6
    expected, found = np.empty((20, 30), np.int16), np.empty((20, 30), np.int16)
    reduce_median(values, valid, RULE, expected)
    assert reduce_geomedian({"red": values}, valid, {"red": RULE}, {"red": found}) == {"red": 0}
    np.testing.assert_array_equal(found, expected)


def test_bands_are_scaled_first_masked_spectra_do_not_count_and_chunks_do_not_matter(monkeypatch):
    random = np.random.default_rng(4)
    bands = {"red": random.integers(1000, 6000, (5, 8, 6)).astype(np.uint16),
             "nir": random.random((5, 8, 6), np.float32)}  # fmt: skip
    rules = {
        "red": conversion(1e-4, -0.1, 1e-4, "int16", -32768),
        "nir": conversion(1.0, 0.0, 1e-4, "int16", -32768),
    }
    valid = random.random((5, 8, 6)) < 0.7
    valid[:, 0, 0] = False

    def reduced():
        out = {name: np.full((8, 6), 7, np.int16) for name in bands}
        assert reduce_geomedian(bands, valid, rules, out) == {"red": 0, "nir": 0}
        return out

    whole = reduced()
    assert whole["red"][0, 0] == whole["nir"][0, 0] == -32768
    y, x = np.argwhere(valid.sum(axis=0) >= 3)[0]
    spectra = np.stack([bands["red"][:, y, x] - 1000.0, bands["nir"][:, y, x] * 1e4], axis=1)[valid[:, y, x]]
    np.testing.assert_array_equal([whole["red"][y, x], whole["nir"][y, x]], np.rint(slow(spectra)))
    monkeypatch.setattr("chipmill.imagery.geomedian._CHUNK_BYTES", 1)
    for name, pixels in reduced().items():
        np.testing.assert_array_equal(pixels, whole[name])


def test_what_leaves_the_range_is_cut_and_counted():
    bands = {"red": np.full((3, 1, 2), 60000, np.uint16), "nir": np.full((3, 1, 2), 5, np.uint16)}
    out = {name: np.zeros((1, 2), np.int16) for name in bands}
    valid = np.ones((3, 1, 2), bool)
    assert reduce_geomedian(bands, valid, dict.fromkeys(bands, RULE), out) == {"red": 2, "nir": 0}
    assert out["red"].tolist() == [[32767, 32767]]


def test_no_acquisition_is_nodata():
    bands = {"red": np.zeros((0, 2, 2), np.uint16)}
    out = {"red": np.zeros((2, 2), np.int16)}
    assert reduce_geomedian(bands, np.zeros((0, 2, 2), bool), {"red": RULE}, out) == {"red": 0}
    assert (out["red"] == -32768).all()
