import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests import stack_world as sw

from chipmill.core.errors import TilesFailedError
from chipmill.core.tables import WINDOWS, read_table
from chipmill.core.units import failures, load_batches, record_failure
from chipmill.dataset.histograms import RectangleCounter
from chipmill.dataset.pixels import any_slot_valid, read_stack
from chipmill.dataset.windows import close_windows, index_windows
from chipmill.region.grid import Window


def _index(world):
    """Run the stage as a flow would and return the rows of windows.parquet."""
    stack = world.stack()
    for batch in load_batches(world.plan.attempt, "index_windows"):
        index_windows(world.plan, stack, batch)
    ref = close_windows(world.plan, stack)
    rows = read_table(ref.path, WINDOWS).to_pylist()
    assert len(rows) == ref.rows
    return rows


def _cut(world, array, row):
    left, top = row["col_off"] - world.area.col_off, row["row_off"] - world.area.row_off
    return array[..., top : top + row["height"], left : left + row["width"]]


@st.composite
def _rasters(draw):
    height, width = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    kinds = draw(st.integers(1, 5))
    codes = np.array(
        draw(st.lists(st.integers(0, kinds - 1), min_size=height * width, max_size=height * width))
    )
    corners = st.tuples(st.integers(0, width - 1), st.integers(0, height - 1))
    boxes = []
    for col, row in draw(st.lists(corners, min_size=0, max_size=6)):
        boxes.append((col, row, draw(st.integers(1, width - col)), draw(st.integers(1, height - row))))
    cuts = sorted(draw(st.sets(st.integers(1, height), max_size=4)) | {height})
    return codes.reshape(height, width).astype(np.uint8), kinds, boxes, cuts


@given(_rasters())
def test_counts_of_overlapping_rectangles_equal_brute_force_however_the_raster_is_cut(case):
    codes, kinds, boxes, cuts = case
    counter = RectangleCounter(boxes, codes.shape[1], kinds)
    start = 0
    for end in cuts:
        counter.add(start, codes[start:end])
        start = end
    brute = [
        np.bincount(codes[row : row + height, col : col + width].ravel(), minlength=kinds)
        for col, row, width, height in boxes
    ]
    np.testing.assert_array_equal(counter.counts(), np.array(brute, dtype=np.int64).reshape(-1, kinds))


@pytest.fixture(scope="module")
def indexed(tmp_path_factory):
    world = sw.world(tmp_path_factory.mktemp("world"))
    return world, _index(world)


def test_every_planned_window_is_there_once_in_order(indexed):
    world, rows = indexed
    planned = [
        (tile.tile_id, window.row_off, window.col_off)
        for tile in world.plan.tiles()
        for window in world.plan.windows(tile)
    ]
    assert [(row["tile_id"], row["row_off"], row["col_off"]) for row in rows] == planned
    assert len({row["chip_id"] for row in rows}) == len(rows) == 7 * 7
    # 7 x 7 starts of stride 16 in 128 px: some windows lie across the edges of the 64-px tiles
    assert any(row["col_off"] % 64 > 32 and row["row_off"] % 64 > 32 for row in rows)


def test_fractions_equal_those_of_the_written_counts(indexed):
    world, rows = indexed
    for row in rows:
        valid, seen = _cut(world, world.valid, row) > 0, _cut(world, world.observed, row) > 0
        assert row["slots"] == ["p1", "p2"]
        assert row["nodata_fraction"] == (~seen & ~valid).mean(axis=(1, 2)).tolist()
        assert row["cloud_fraction"] == (seen & ~valid).mean(axis=(1, 2)).tolist()
        assert row["valid_fraction"] == valid.any(axis=0).mean()
        assert not row["empty_slot"] and row["failed_reason"] is None


def test_histograms_equal_the_chips_that_will_be_cut(indexed):
    world, rows = indexed
    layers = world.stack().layers
    for row in rows:
        tile = world.plan.tile(row["tile_id"])
        window = Window(
            row["col_off"] - tile.window.col_off,
            row["row_off"] - tile.window.row_off,
            row["width"],
            row["height"],
        )
        pixels = read_stack(world.plan.version.stack(tile.tile_id), window)
        label = np.where(any_slot_valid(pixels[:-1], layers[:-1]), pixels[-1], 255)
        assert row["class_px"] == np.bincount(label.ravel(), minlength=256)[:3].tolist()
        assert row["ignore_px"] == (label == 255).sum() > 0
        assert sum(row["class_px"]) + row["ignore_px"] == row["width"] * row["height"]


def test_windows_do_not_depend_on_strips_or_batches(tmp_path, monkeypatch, indexed):
    monkeypatch.setattr("chipmill.dataset.windows._STRIP_PX", 16)
    (tmp_path / "w").mkdir()
    world = sw.world(tmp_path / "w")
    assert _index(world) == indexed[1]


def test_windows_that_need_a_failed_tile_are_listed_with_the_reason(tmp_path, indexed):
    world = sw.world(tmp_path, on_failed="commit")
    lost = world.plan.tiles()[1]
    record_failure(world.plan.attempt, "composite_tiles", lost.tile_id, "broken asset")
    rows = _index(world)
    assert [row["chip_id"] for row in rows] == [row["chip_id"] for row in indexed[1]]
    for row, whole in zip(rows, indexed[1], strict=True):
        window = Window(row["col_off"], row["row_off"], row["width"], row["height"])
        if row["tile_id"] == lost.tile_id:
            assert row["failed_reason"] == "composite_tiles"
        elif window.intersection(lost.window):
            assert row["failed_reason"] == "neighbour"
        else:
            assert row == whole
        if row["failed_reason"]:
            assert row["class_px"] == row["nodata_fraction"] == row["cloud_fraction"] == []
            assert row["ignore_px"] is None and row["valid_fraction"] is None
    assert {row["failed_reason"] for row in rows} == {None, "neighbour", "composite_tiles"}


def test_a_composite_lost_after_the_stack_fails_the_tiles_that_need_it_and_no_pixel_is_zero(tmp_path):
    world = sw.world(tmp_path, on_failed="commit")
    stack = world.stack()
    tiles = world.plan.tiles()
    sw.composite_of(world, tiles[3], 0).unlink()
    for batch in load_batches(world.plan.attempt, "index_windows"):
        index_windows(world.plan, stack, batch)
    broken = {failure.unit for failure in failures(world.plan.attempt, ["index_windows"])}
    assert broken == {tile.tile_id for tile in tiles}  # the last tile lies right, below or diagonal of all
    assert all("cannot be read" in one.reason for one in failures(world.plan.attempt, ["index_windows"]))


def test_a_tile_that_failed_here_stops_the_run_when_the_region_says_so(tmp_path):
    world = sw.world(tmp_path)
    stack = world.stack()
    record_failure(world.plan.attempt, "index_windows", world.plan.tiles()[0].tile_id, "broken")
    with pytest.raises(TilesFailedError, match="broken"):
        close_windows(world.plan, stack)


def test_a_second_run_counts_nothing_again(tmp_path):
    world = sw.world(tmp_path)
    _index(world)
    stamp = world.plan.version.windows.stat().st_mtime_ns
    stack = world.stack()
    for batch in load_batches(world.plan.attempt, "index_windows"):
        result = index_windows(world.plan, stack, batch)
        assert result.done == batch.units and result.made == ()
    close_windows(world.plan, stack)
    assert world.plan.version.windows.stat().st_mtime_ns == stamp


@pytest.mark.parametrize(("empty", "expected"), [("skip", True), ("fill", False)])
def test_a_slot_without_acquisition_is_empty_only_where_it_is_skipped(tmp_path, empty, expected):
    imagery = [
        {"name": "s2", "source": {"catalog": "c"}, "bands": {"red": "red", "nir": "nir"}, "empty": empty}
    ]
    world = sw.world(tmp_path, 1, 1, imagery=imagery, chosen=(True, False))
    rows = _index(world)
    assert {row["empty_slot"] for row in rows} == {expected}
