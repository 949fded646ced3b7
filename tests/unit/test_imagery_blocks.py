"""The geometry of blocks, against counting pixel by pixel."""

import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chipmill.imagery.blocks import Layout, cut_windows, needed, spread, threads
from chipmill.region.grid import Window

sizes = st.integers(1, 40)
layouts = st.builds(
    Layout,
    st.builds(Window, st.integers(-30, 30), st.integers(-30, 30), st.integers(1, 80), st.integers(1, 80)),
    st.integers(1, 20),
    st.integers(1, 20),
)


def painted(windows, shape):
    """Return how often each pixel of a grid is in a window."""
    times = np.zeros(shape, int)
    for one in windows:
        assert one.col_off >= 0
        assert one.row_off >= 0
        times[one.row_off : one.row_end, one.col_off : one.col_end] += 1
    return times


def block_numbers(layout, window):
    """Return for each pixel of a window the number of the file's block in which it lies, -1 outside of the file."""
    y, x = np.mgrid[window.row_off : window.row_end, window.col_off : window.col_end]
    row, column = y - layout.extent.row_off, x - layout.extent.col_off
    inside = (row >= 0) & (column >= 0) & (row < layout.extent.height) & (column < layout.extent.width)
    return np.where(inside, row // layout.height * 1000 + column // layout.width, -1)


@given(sizes, sizes, st.lists(layouts, max_size=3), st.integers(1, 50), st.integers(1, 20_000))
def test_windows_hold_each_pixel_once_and_fit_the_budget(width, height, files, pixel, budget):
    windows = cut_windows(width, height, files, pixel, budget)
    assert (painted(windows, (height, width)) == 1).all()
    for one in windows:
        widest = min(width, max((file.width for file in files), default=width))
        assert one.height * one.width * pixel <= max(budget, widest * pixel)


@given(layouts, sizes, sizes)
def test_windows_end_where_blocks_end_while_the_budget_lasts(layout, width, height):
    numbers = block_numbers(layout, Window(0, 0, width, height))
    seen = set()
    for one in cut_windows(width, height, [layout], 1, layout.height * max(width, layout.width)):
        blocks = set(numbers[one.row_off : one.row_end, one.col_off : one.col_end].ravel().tolist()) - {-1}
        assert not blocks & seen
        seen |= blocks


@given(layouts, st.builds(Window, st.integers(0, 30), st.integers(0, 30), sizes, sizes), st.data())
def test_needed_blocks_are_those_with_a_wanted_pixel(layout, window, data):
    share = data.draw(st.sampled_from([0.0, 0.01, 0.1, 1.0]))
    seed = data.draw(st.integers(0, 99))
    wanted = np.random.default_rng(seed).random(window.shape) < share
    found = needed(layout, window, wanted)
    numbers = block_numbers(layout, window)
    used = set(numbers[wanted].tolist()) - {-1}
    assert found.decoded == len(used)
    assert found.skipped == len(set(numbers.ravel().tolist()) - {-1} - used)
    times = np.zeros(window.shape, int)
    for one in found.regions:
        assert window.contains(one)
        top, left = one.row_off - window.row_off, one.col_off - window.col_off
        times[top : top + one.height, left : left + one.width] += 1
    np.testing.assert_array_equal(times, np.isin(numbers, list(used)) & (numbers >= 0))


def test_neighbouring_blocks_are_one_region():
    layout = Layout(Window(0, 0, 64, 64), 16, 16)
    wanted = np.ones((64, 64), np.bool_)
    wanted[16:48, 32:48] = False
    found = needed(layout, Window(0, 0, 64, 64), wanted)
    assert (found.decoded, found.skipped) == (14, 2)
    assert found.regions == (
        Window(0, 0, 64, 16),
        Window(0, 16, 32, 32),
        Window(48, 16, 16, 32),
        Window(0, 48, 64, 16),
    )


@pytest.mark.parametrize("dtype", ["bool", "uint8", "uint16"])
@pytest.mark.parametrize("factor", [1, 2, 3, 4])
@pytest.mark.parametrize("corner", [(0, 0), (1, 0), (0, 1), (2, 3)])
def test_spread_repeats_each_pixel(dtype, factor, corner):
    pixels = np.random.default_rng(0).integers(0, 2, (9, 11)).astype(dtype)
    corner = (corner[0] % factor, corner[1] % factor)
    out = np.empty((9 * factor - 4, 11 * factor - 5), dtype)
    spread(pixels, factor, corner, out)
    whole = np.kron(pixels, np.ones((factor, factor), dtype)).astype(dtype)
    np.testing.assert_array_equal(out, whole[corner[0] :, corner[1] :][: out.shape[0], : out.shape[1]])


def test_threads_come_from_the_environment_or_the_cores(monkeypatch):
    monkeypatch.setenv("CHIPMILL_THREADS", "3")
    assert threads() == 3
    for value in ("0", "many", ""):
        monkeypatch.setenv("CHIPMILL_THREADS", value)
        assert threads() == len(os.sched_getaffinity(0))
        assert threads(workers=1000) == 1
