"""The geometric median, whatever the spectra: where it lies, what it does not depend on, and that nothing beats it."""

import os

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from chipmill.imagery.geomedian import geomedian

EXAMPLES = 300 if os.environ.get("CHIPMILL_PROFILE") == "nightly" else 40
spectra = st.integers(1, 9).flatmap(
    lambda count: arrays(np.float64, (count, 3), elements=st.integers(-2000, 16000).map(float))
)


def median(points):
    """Of spectra (time, band)."""
    stack = np.ascontiguousarray(points.T)[:, :, np.newaxis]
    return geomedian(stack, np.ones(stack.shape[1:], bool))[:, 0]


def cost(point, points):
    return np.linalg.norm(points - point, axis=1).sum()


@given(spectra, st.randoms(use_true_random=False))
@settings(max_examples=EXAMPLES, deadline=None)
def test_no_spectrum_median_mean_or_step_is_better(points, random):
    found = median(points)
    rivals = [*points, points.mean(axis=0), np.median(points, axis=0)]
    rivals += [found + np.array([random.uniform(-5, 5) for _ in range(3)]) for _ in range(8)]
    best = min(cost(one, points) for one in rivals)
    assert cost(found, points) <= best * (1 + 1e-6) + 1e-2
    assert (found >= points.min(axis=0) - 1e-6).all() and (found <= points.max(axis=0) + 1e-6).all()


@given(spectra, st.randoms(use_true_random=False))
@settings(max_examples=EXAMPLES, deadline=None)
def test_order_of_time_and_masked_values_do_not_matter(points, random):
    found = median(points)
    shuffled = list(range(len(points)))
    random.shuffle(shuffled)
    moved = np.array([random.uniform(-500, 500) for _ in range(3)])
    # Where several points are equally good (two spectra, or a line of them) the start decides, and it is the same.
    np.testing.assert_allclose(median(points[shuffled]), found, atol=0.1)
    assert abs(cost(median(points + moved), points + moved) - cost(found, points)) < 1e-2
    stack = np.concatenate([points, np.full((2, 3), 99999.0)])
    valid = np.arange(len(stack))[:, np.newaxis] < len(points)
    np.testing.assert_array_equal(
        geomedian(np.ascontiguousarray(stack.T)[:, :, np.newaxis], valid)[:, 0], found
    )
