import dataclasses
import datetime as dt

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
from chipmill.dataset.rasters import write_layer
from chipmill.dataset.windows import close_windows, index_windows, windows_fingerprint
from chipmill.imagery.orders import composite_path
from chipmill.region.grid import Window
from chipmill.region.plan import write_tiles
from chipmill.region.slots import TimeRange, midnight
from chipmill.region.tiles import Point


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
    monkeypatch.setattr("chipmill.dataset.counting._STRIP_PX", 16)
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


# what a rule leaves out


def _changed_tiles(world, changes):
    """Write the tiles anew, those at the given places with other fields, as another source of tiles would give them."""
    tiles = list(world.plan.tiles())
    for number, fields in changes.items():
        tiles[number] = dataclasses.replace(tiles[number], **fields)
    write_tiles(world.plan.version.tiles, tiles, "f")
    return tiles


def _window(row):
    return Window(row["col_off"], row["row_off"], row["width"], row["height"])


def _nothing_counted(row):
    lists = ("class_px", "nodata_fraction", "cloud_fraction", "imagery_nodata_fraction")
    numbers = ("ignore_px", "valid_fraction", "static_nodata_fraction")
    return all(row[name] == [] for name in lists) and all(row[name] is None for name in numbers)


def test_windows_that_touch_a_rejected_tile_are_left_out_whatever_fails(tmp_path, indexed):
    world = sw.world(tmp_path, on_failed="commit")
    tiles = _changed_tiles(world, {3: {"reject": True}})
    record_failure(world.plan.attempt, "composite_tiles", tiles[1].tile_id, "broken asset")
    rows = _index(world)
    assert [row["chip_id"] for row in rows] == [row["chip_id"] for row in indexed[1]]
    for row, whole in zip(rows, indexed[1], strict=True):
        if _window(row).intersection(tiles[3].window):
            assert (row["excluded_reason"], row["failed_reason"]) == ("rejected", None)
        elif row["tile_id"] == tiles[1].tile_id:
            assert (row["excluded_reason"], row["failed_reason"]) == (None, "composite_tiles")
        elif _window(row).intersection(tiles[1].window):
            assert (row["excluded_reason"], row["failed_reason"]) == (None, "neighbour")
        else:
            assert row == whole
        assert _nothing_counted(row) == bool(row["excluded_reason"] or row["failed_reason"])
    own = [row for row in rows if row["tile_id"] == tiles[1].tile_id]
    assert {row["excluded_reason"] for row in own} == {None, "rejected"}


def test_windows_do_not_mix_tiles_of_two_years(tmp_path, indexed):
    world = sw.world(tmp_path)
    other = TimeRange(midnight(dt.date(2018, 1, 1)), midnight(dt.date(2019, 1, 1)))
    tiles = _changed_tiles(world, {1: {"time": other}, 3: {"time": other}})
    for tile in tiles:
        sw.write_composites(world, tile)
    rows = _index(world)
    for row, whole in zip(rows, indexed[1], strict=True):
        mixed = len({one.time for one in tiles if _window(row).intersection(one.window)}) > 1
        assert row["excluded_reason"] == ("neighbour_year" if mixed else None)
        assert _nothing_counted(row) if mixed else row["class_px"] == whole["class_px"]
    assert 0 < sum(row["excluded_reason"] is not None for row in rows) < len(rows)


# edge: pad


def _lone(world):
    return _changed_tiles(
        world, {number: {"lattice_tile": False} for number in range(len(world.plan.tiles()))}
    )


def _inside(world, array, row, tile):
    common = _window(row).intersection(tile.window)
    place = dict(zip(("col_off", "row_off", "width", "height"), dataclasses.astuple(common), strict=True))
    return _cut(world, array, place)


def test_what_pad_adds_is_ignore_but_neither_nodata_nor_cloud(tmp_path):
    chips = {"size_px": 48, "stride_px": 32, "edge": "pad"}
    world = sw.world(tmp_path, 2, 1, dataset={"chips": chips})
    tiles = {tile.tile_id: tile for tile in _lone(world)}
    rows = _index(world)
    assert len(rows) == 2 * 2 * 2
    padded = 0
    for row in rows:
        tile = tiles[row["tile_id"]]
        valid = _inside(world, world.valid, row, tile) > 0
        seen = _inside(world, world.observed, row, tile) > 0
        assert row["nodata_fraction"] == (~seen & ~valid).mean(axis=(1, 2)).tolist()
        assert row["cloud_fraction"] == (seen & ~valid).mean(axis=(1, 2)).tolist()
        assert row["valid_fraction"] == valid.any(axis=0).mean()
        assert sum(row["class_px"]) + row["ignore_px"] == 48 * 48
        assert sum(row["class_px"]) <= valid.any(axis=0).sum()
        padded += valid[0].size < 48 * 48
    assert padded == 2 * 3
    # the same ground counted without padding gives the same classes
    inner = sw.world(tmp_path, 2, 1, dataset={"chips": chips | {"size_px": 32, "edge": "drop"}})
    _lone(inner)
    last = [row for row in _index(inner) if row["col_off"] % 64 == 32 and row["row_off"] % 64 == 32]
    big = [row for row in rows if row["col_off"] % 64 == 32 and row["row_off"] % 64 == 32]
    assert [row["class_px"] for row in last] == [row["class_px"] for row in big]


# dense


def _mixed_label(shares):
    """Labels of tiles in a row: crop in so many rows of 64 of each, water below."""
    column = [
        np.repeat(np.array([30, 10], np.uint8), [round(64 * share), 64 - round(64 * share)])
        for share in shares
    ]
    return np.repeat(np.stack(column, axis=1), 64, axis=1)


def _dense(of, between):
    return {
        "chips": {"size_px": 32, "stride_px": 32, "dense": {"stride_px": 8, "between": between, "of": of}},
        "select": {"key_class": "crop"},
    }


def test_dense_windows_stay_where_the_key_class_mixes_in_the_tile(tmp_path):
    world = sw.world(tmp_path, 3, 1, label=_mixed_label([0.5, 1.0, 0.25]), dataset=_dense("tile", [0.3, 0.6]))
    tiles = world.plan.tiles()
    rows = _index(world)
    assert len(rows) == sum(len(world.plan.windows(tile)) for tile in tiles)
    for row in rows:
        wide = row["col_off"] % 32 == row["row_off"] % 32 == 0
        sparse = not wide and row["tile_id"] != tiles[0].tile_id
        assert row["dense"] == (not wide)
        assert row["excluded_reason"] == ("sparse" if sparse else None)
        assert _nothing_counted(row) == sparse
    by_id = {row["chip_id"]: row for row in rows}
    plain = sw.world(
        tmp_path,
        3,
        1,
        label=_mixed_label([0.5, 1.0, 0.25]),
        dataset={"chips": {"size_px": 32, "stride_px": 32}},
    )
    for row in _index(plain):
        assert by_id[row["chip_id"]] == row


def test_dense_windows_stay_where_the_key_class_mixes_in_them(tmp_path):
    world = sw.world(tmp_path, 1, 1, label=_mixed_label([0.5]), dataset=_dense("window", [0.3, 0.6]))
    rows = _index(world)
    valid = (world.valid > 0).any(axis=0)
    crop = np.repeat(np.arange(64)[:, None] < 32, 64, axis=1)
    for row in rows:
        own = _cut(world, valid, row)
        share = (_cut(world, crop, row) & own).sum() / own.sum()
        assert row["excluded_reason"] == ("sparse" if row["dense"] and not 0.3 <= share <= 0.6 else None)
    assert {row["excluded_reason"] for row in rows if row["dense"]} == {None, "sparse"}


def test_a_dense_stride_of_no_class_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"give select\.key_class"):
        sw.world(tmp_path, dataset={"chips": {"dense": {}}})
    with pytest.raises(ValueError, match="must divide stride_px 100"):
        sw.world(
            tmp_path, dataset={"chips": {"stride_px": 100, "dense": {}}, "select": {"key_class": "crop"}}
        )
    with pytest.raises(ValueError, match="least share must come first"):
        sw.world(tmp_path, dataset={"chips": {"dense": {"between": [0.6, 0.4]}}})


# nodata by group of bands


def test_nodata_of_static_layers_is_counted_apart(tmp_path):
    area = sw.place(2, 2)
    rng = np.random.default_rng(3)
    layers = {
        name: rng.integers(0, 5, (area.height, area.width)).astype(np.int16) for name in ("high", "low")
    }
    for name, pixels in layers.items():
        sw.save_raster(tmp_path / f"{name}.tif", pixels, area, nodata=0)
    static = [{"name": name, "path": f"{name}.tif", "resampling": "nearest"} for name in layers]
    world = sw.world(tmp_path, static=static)
    empty = (layers["high"] == 0) | (layers["low"] == 0)
    for row in _index(world):
        assert row["static_nodata_fraction"] == _cut(world, empty, row).mean()
        assert row["imagery_nodata_fraction"] == []


def test_nodata_is_counted_for_each_imagery_where_there_are_several(tmp_path):
    imagery = [
        {"name": "s2", "source": {"catalog": "c"}, "bands": {"red": "red", "nir": "nir"}},
        {"name": "s1", "source": {"catalog": "c"}, "bands": {"vv": "vv"}, "empty": "fill"},
    ]
    world = sw.world(tmp_path, 1, 1, imagery=imagery)
    (tile,) = world.plan.tiles()
    rng = np.random.default_rng(5)
    seen = rng.integers(0, 2, (2, 64, 64)).astype(np.int16)
    for slot, own in zip(world.plan.slots(tile), seen, strict=True):
        path = composite_path(
            world.plan, read_table(world.ranking.path), tile, world.plan.region.imagery[1], slot
        )
        write_layer(
            path, "f", np.stack([own, own, own]), (tile.lattice, tile.window), nodata=-32768,
            names=["vv", "valid_count", "observed_count"],
        )  # fmt: skip
    for row in _index(world):
        none = np.stack([_cut(world, world.observed, row) == 0, _cut(world, seen, row) == 0], axis=1)
        assert row["imagery_nodata_fraction"] == none.mean(axis=(2, 3)).ravel().tolist()
        assert row["nodata_fraction"] == none.any(axis=1).mean(axis=(1, 2)).tolist()


# what stands already


def test_a_good_table_needs_no_results_of_units(tmp_path):
    world = sw.world(tmp_path, on_failed="commit")
    _index(world)
    stack = world.stack()
    first = close_windows(world.plan, stack)
    results = world.plan.attempt / "units" / "index_windows"
    for path in results.glob("*"):
        path.unlink()
    for batch in load_batches(world.plan.attempt, "index_windows"):
        again = index_windows(world.plan, stack, batch)
        assert (again.done, again.made, again.failed) == (batch.units, (), ())
    assert close_windows(world.plan, stack) == first
    assert list(results.glob("*")) == []
    # a tile that is lost now makes another table, so everything is counted again
    record_failure(world.plan.attempt, "composite_tiles", world.plan.tiles()[3].tile_id, "broken")
    rows = _index(world)
    assert len(rows) == first.rows and {row["failed_reason"] for row in rows} == {
        None, "neighbour", "composite_tiles",
    }  # fmt: skip


def test_the_table_depends_on_how_windows_are_laid_and_on_no_limit_or_share(tmp_path):
    world = sw.world(tmp_path)

    def stamp(chips=None, splits=None, **rules):
        dataset = world.plan.region.dataset
        rules |= {"chips": dataset.chips.model_copy(update=chips or {})}
        rules |= {"splits": dataset.splits.model_copy(update=splits or {})}
        region = world.plan.region.model_copy(update={"dataset": dataset.model_copy(update=rules)})
        return windows_fingerprint(dataclasses.replace(world.plan, region=region), "s", {})

    first = stamp()
    assert (
        stamp({"max_nodata_fraction": 0.5, "max_cloud_fraction": 0.5, "max_static_nodata_fraction": 0.5})
        == first
    )
    assert stamp(splits={"train": 0.5, "val": 0.25, "test": 0.25, "buffer_px": 9, "seed": 1}) == first
    others = [stamp({"stride_px": 8}), stamp({"edge": "pad"}), stamp(splits={"block_px": 128})]
    tiles = world.plan.tiles()
    point = Point(tiles[0].window.col_off + 16, tiles[0].window.row_off + 16, "p", None)
    for changes in ({"reject": True}, {"points": (point,)}, {"attributes": {"a": "b"}}):
        _changed_tiles(world, {0: changes})
        others.append(stamp())
    assert len({first, *others}) == 1 + len(others)


def test_windows_of_points_bear_their_names_and_those_of_named_tiles_the_tiles(tmp_path):
    world = sw.world(tmp_path)
    corner = world.plan.tiles()[0].window
    points = tuple(
        Point(corner.col_off + 20 + 9 * number, corner.row_off + 30, f"P{number}", None, {"crop": "maize"})
        for number in range(3)
    )
    _changed_tiles(
        world,
        {0: {"points": points}, 1: {"points": ()}, 2: {"attributes": {"a": "b"}}, 3: {"source_id": "T3"}},
    )
    rows = _index(world)
    tiles = world.plan.tiles()
    facts = [(row["tile_id"], row["source_id"], row["attributes"]) for row in rows]
    assert facts[:3] == [(tiles[0].tile_id, f"P{number}", [("crop", "maize")]) for number in range(3)]
    assert [(row["col_off"], row["row_off"]) for row in rows[:3]] == [
        (one.col - 16, one.row - 16) for one in points
    ]
    assert set(map(repr, facts[3:])) == {
        repr((tiles[2].tile_id, tiles[2].source_id, [("a", "b")])),
        repr((tiles[3].tile_id, "T3", [])),
    }
    for row in rows[:3]:
        assert sum(row["class_px"]) + row["ignore_px"] == 32 * 32
