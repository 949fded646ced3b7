"""Blended prediction: the ramps sum to 1, and a pixel's value does not depend on how the raster is cut."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chipmill.core.errors import BadInputError
from chipmill.learning.blending import (
    mirror,
    predict_blended,
    predict_window,
    ramp,
    read_mirrored,
    step_px,
    window_starts,
)
from chipmill.region.grid import Window


def edge_aware(chips):
    """Two 'classes' that depend on the place in the chip and on all its pixels, as a network's do."""
    rows = np.linspace(0, 1, chips.shape[1], dtype=np.float32)[None, :, None]
    first = np.tanh(
        chips[..., 0].astype(np.float32) / 50 + rows + chips[..., 0].mean(axis=(1, 2))[:, None, None]
    )
    return np.stack([first, 1 - first], axis=-1).astype(np.float32)


def reader(image, origin):
    def read(window):
        top, left = window.row_off - origin[0], window.col_off - origin[1]
        assert top >= 0
        assert left >= 0
        assert top + window.height <= image.shape[0]
        assert left + window.width <= image.shape[1]
        return image[top : top + window.height, left : left + window.width]

    return read


@pytest.mark.parametrize(("chip", "overlap"), [(64, 0.25), (64, 0.5), (30, 0.1), (16, 0.0)])
def test_ramps_of_neighbours_sum_to_one(chip, overlap):
    step = step_px(chip, overlap)
    total = np.zeros(10 * chip)
    for start in range(0, 9 * chip, step):
        total[start : start + chip] += ramp(chip, step)
    assert total[chip : 8 * chip] == pytest.approx(np.ones(7 * chip), abs=1e-6)


@given(st.integers(-300, 300), st.integers(1, 200), st.integers(8, 64), st.floats(0, 0.5))
def test_window_starts_are_all_multiples_that_touch(start, length, chip, overlap):
    step = step_px(chip, overlap)
    found = list(window_starts(start, start + length, chip, step))
    brute = [at for at in range(-1000 * step, 1000 * step, step) if at < start + length and at + chip > start]
    assert found == brute


@given(st.integers(2, 9), st.lists(st.integers(-40, 40), min_size=1))
def test_mirror_is_numpys_reflect_padding(size, positions):
    padded = np.pad(np.arange(size), 60, mode="reflect")
    assert mirror(np.array(positions), size).tolist() == padded[np.array(positions) + 60].tolist()


def test_mirror_of_a_single_pixel_is_that_pixel():
    assert mirror(np.array([-3, 0, 5]), 1).tolist() == [0, 0, 0]


def test_reading_beyond_the_edge_mirrors_and_never_asks_outside():
    image = np.arange(5 * 7 * 2).reshape(5, 7, 2)
    read = read_mirrored(reader(image, (100, -3)), Window(-3, 100, 7, 5), Window(-6, 98, 14, 9))
    assert (read == np.pad(image, ((2, 2), (3, 4), (0, 0)), mode="reflect")).all()


@pytest.mark.parametrize("origin", [(0, 0), (1001, -517)])
def test_strips_and_tiles_give_the_whole_raster(origin):
    rng = np.random.default_rng(3)
    image = rng.integers(-30, 90, (75, 110, 1)).astype(np.int16)
    extent = Window(origin[1], origin[0], 110, 75)
    whole = predict_blended(edge_aware, image, 32, 0.25, origin)
    parts = np.full_like(whole, np.nan)
    for top, left, height, width in [(0, 0, 17, 110), (17, 0, 58, 41), (17, 41, 3, 69), (20, 41, 55, 69)]:
        window = Window(origin[1] + left, origin[0] + top, width, height)
        parts[top : top + height, left : left + width] = predict_window(
            edge_aware, reader(image, origin), extent, window, 32, 0.25
        )
    assert np.abs(parts - whole).max() < 1e-5
    assert whole.sum(axis=-1) == pytest.approx(np.ones((75, 110)), abs=1e-5)


def test_a_constant_model_stays_constant_to_the_corners():
    def constant(chips):
        return np.full((*chips.shape[:3], 3), [0.2, 0.3, 0.5], np.float32)

    blended = predict_blended(constant, np.zeros((50, 33, 2), np.int16), 16, 0.5)
    assert blended == pytest.approx(np.broadcast_to([0.2, 0.3, 0.5], (50, 33, 3)), abs=1e-6)


def test_a_jump_between_windows_is_smoothed():
    def seam(chips):
        level = (chips[:, :1, :1, 0] > 0).astype(np.float32)  # one value per window: its corner
        return np.broadcast_to(np.stack([level, 1 - level], -1), (*chips.shape[:3], 2)).astype(np.float32)

    image = np.zeros((32, 96, 1), np.int16)
    image[:, 40:] = 1
    steps = np.abs(np.diff(predict_blended(seam, image, 32, 0.5)[16, :, 0]))
    assert steps.max() < 0.15


@pytest.mark.parametrize("overlap", [-0.1, 0.51, 0.9])
def test_overlap_above_one_half_is_refused(overlap):
    with pytest.raises(BadInputError, match=r"between 0 and 0\.5"):
        step_px(64, overlap)
