"""The rules of the ranking, one by one, and the table that comes of them."""

import numpy as np
import pytest
import rasterio
import rasterio.warp
import shapely
from affine import Affine
from benchmarks.counting import Decodes
from tests import imagery_world as iw

from chipmill.core.errors import TilesFailedError
from chipmill.core.tables import RANKING, read_table
from chipmill.imagery import evidence
from chipmill.imagery.catalog import load_items, search_items, tile_area
from chipmill.imagery.evidence import Candidate
from chipmill.imagery.ranking import TileItems, clear_level, rank
from chipmill.imagery.reading import Grid
from chipmill.region.imagery import Clear


def one(day, clear, kind="mask", coverage=1.0, cover=None):
    return Candidate(f"c/p/2019-{day}", iw.day(f"2019-{day}"), (day,), clear, coverage, cover, kind)


def chosen(candidates, **clear):
    return [found.acquisition_id[-5:] for found, yes, _ in rank(candidates, Clear(**clear)) if yes]


def reasons(candidates, **clear):
    return {found.acquisition_id[-5:]: reason for found, _, reason in rank(candidates, Clear(**clear))}


def test_all_that_reach_the_threshold_are_used_the_clearest_first():
    found = [one("01-01", 0.91), one("01-02", 0.99), one("01-03", 0.5)]
    assert chosen(found, threshold=0.9) == ["01-02", "01-01"]
    assert reasons(found, threshold=0.9)["01-03"] == "clear 0.5000 below 0.9"


def test_the_threshold_falls_by_steps_until_enough_qualify():
    found = [one("01-01", 0.85), one("01-02", 0.65), one("01-03", 0.62), one("01-04", 0.2)]
    settings = {"threshold": 0.9, "step": 0.1, "floor": 0.3}
    assert chosen(found, min_count=1, **settings) == ["01-01"]
    assert chosen(found, min_count=2, **settings) == ["01-01", "01-02", "01-03"]  # at 0.6 both come in
    assert chosen(found, min_count=4, **settings) == ["01-01", "01-02", "01-03"]  # the floor holds


@pytest.mark.parametrize("step", [0.1, 0.25, 0.07, 1.0])
def test_the_threshold_ends_at_the_floor_exactly(step):
    assert clear_level([], Clear(threshold=0.9, step=step, floor=0.3, min_count=3)) == 0.3


def test_a_fraction_equal_to_a_stepped_threshold_qualifies():
    assert clear_level([0.3], Clear(threshold=0.9, step=0.1, floor=0.1)) == 0.3


def test_a_threshold_below_the_floor_is_left_as_it_is():
    assert clear_level([], Clear(threshold=0.2, floor=0.5)) == 0.2


def test_ties_go_to_the_lower_median_date_then_to_the_id():
    tied = [one(day, 1.0) for day in ("01-01", "01-10", "01-20", "01-30")]
    assert chosen(tied, n_best=2) == ["01-10", "01-01"]  # 9 days away, against 10
    same_day = [
        Candidate(name, iw.day("2019-01-01"), (name,), 1.0, 1.0, None, "mask") for name in ("c/p/b", "c/p/a")
    ]
    assert [found.acquisition_id for found, *_ in rank(same_day, Clear())] == ["c/p/a", "c/p/b"]


def test_the_order_of_the_candidates_does_not_matter():
    found = [one("01-01", 1.0), one("01-02", 1.0), one("01-03", 0.7), one("01-04", None, "none")]
    assert rank(found, Clear()) == rank(found[::-1], Clear())


def test_n_best_says_so():
    found = [one("01-01", 0.99), one("01-02", 0.98)]
    assert reasons(found, n_best=1)["01-02"] == "beyond n_best 1"


def test_measured_evidence_comes_before_metadata_and_is_not_compared_with_it():
    found = [one("01-01", 0.95), one("01-02", 1.0, "cloud_cover")]
    assert chosen(found, threshold=0.9) == ["01-01"]
    assert reasons(found, threshold=0.9)["01-02"].startswith("not needed: 1 with better evidence")
    # Where the measured ones are too few, metadata is taken, by a threshold of its own.
    assert chosen(found, threshold=0.9, min_count=2) == ["01-01", "01-02"]


def test_without_any_evidence_all_are_used():
    radar = [one("01-01", None, "none"), one("01-02", None, "none")]
    assert len(chosen(radar)) == 2
    assert chosen([*radar, one("01-03", 1.0, "cloud_cover")]) == ["01-03"]


def test_no_clear_pixel_and_no_data_are_never_chosen():
    found = [one("01-01", 0.0), one("01-02", 0.0, coverage=0.0), one("01-03", None, "none", coverage=0.0)]
    assert chosen(found, threshold=0.0, floor=0.0) == []
    assert list(reasons(found).values()) == [
        "no clear pixel over the tile",
        "no data over the tile",
        "no data over the tile",
    ]


def pixels(value=500):
    return {name: np.full((iw.SIDE, iw.SIDE), value, np.uint16) for name in ("red", "nir")}


def mask(cloud_rows=0, empty_rows=0):
    made = np.full((iw.SIDE, iw.SIDE), iw.CLEAR, np.uint8)
    made[:cloud_rows] = iw.CLOUD
    made[iw.SIDE - empty_rows :] = iw.EMPTY
    return made


def config(tmp_path, archive, **more):
    return iw.region(tmp_path, {"catalog": str(archive.write())}, **more)


def test_fractions_count_pixels_of_tile_and_cover(tmp_path):
    archive = iw.Archive(tmp_path / "archive")
    archive.scene("2019-02-01", pixels(), mask(cloud_rows=16, empty_rows=8))
    _, rows, *_ = iw.run(config(tmp_path, archive, imagery={"clear": {"floor": 0.0}}))
    # The AOI leaves out two rows and columns at each edge of the tile: 60 x 60 px are counted.
    assert rows[0]["clear_fraction"] == pytest.approx((60 - 14 - 6) / 60, abs=0.01)
    assert rows[0]["coverage_fraction"] == pytest.approx((60 - 6) / 60, abs=0.01)
    assert rows[0]["evidence"] == "mask"


def test_every_candidate_has_a_row_with_its_reason(tmp_path):
    archive = iw.Archive(tmp_path / "archive")
    archive.scene("2019-02-01", pixels(), mask())
    archive.scene("2019-03-01", pixels(), mask(cloud_rows=60))
    broken = archive.scene("2019-04-01", pixels(), mask())
    del broken["assets"]["nir"]
    masked = archive.scene("2019-05-01", pixels(), mask())
    del masked["assets"]["scl"]
    made, rows, _, failed = iw.run(config(tmp_path, archive))
    assert not failed
    by_day = {row["datetime"].strftime("%m"): row for row in rows}
    assert by_day["02"]["reason"] == "chosen"
    assert by_day["03"]["reason"].startswith("clear 0.0")
    assert "item s2019-04-01 has no asset or band nir" in by_day["04"]["reason"]
    assert "no asset or band scl" in by_day["05"]["reason"]
    assert [row["rank"] for row in rows] == [1, 2, None, None]
    assert read_table(made.version.ranking, RANKING).num_rows == 4


def test_slots_take_what_lies_in_them_and_the_end_is_excluded(tmp_path):
    archive = iw.Archive(tmp_path / "archive")
    for when in (
        "2019-01-01T00:00:00Z",
        "2019-06-30T23:59:59Z",
        "2019-07-01T00:00:00Z",
        "2020-01-01T00:00:00Z",
    ):
        archive.scene(when, pixels(), mask(), name=f"s{when[:10]}")
    slots = [
        {"name": "first", "start": "2019-01-01", "end": "2019-07-01"},
        {"name": "second", "start": "2019-07-01", "end": "2020-01-01"},
        {"name": "late", "start": "2019-06-01", "end": "2020-01-01"},
    ]
    _, rows, *_ = iw.run(
        config(tmp_path, archive, time={"range": ("2019-01-01", "2020-01-01"), "slots": {"list": slots}})
    )
    found = {(row["slot"], name[1:]) for row in rows for name in row["item_ids"]}
    assert found == {
        ("first", "2019-01-01"), ("first", "2019-06-30"), ("second", "2019-07-01"), ("late", "2019-06-30"),
        ("late", "2019-07-01"),
    }  # fmt: skip


def test_without_a_mask_cloud_cover_is_believed_as_far_as_the_scene_reaches(tmp_path):
    archive = iw.Archive(tmp_path / "archive")
    half = iw.transform() @ evidence.Grid("", iw.transform(), 1, 1).transform.translation(32, 0)
    archive.scene("2019-02-01", pixels(), **{"eo:cloud_cover": 20.0})
    archive.scene("2019-03-01", pixels(), place=half, **{"eo:cloud_cover": 0.0})
    archive.scene("2019-04-01", pixels())
    _, rows, *_ = iw.run(config(tmp_path, archive, imagery={"mask": None, "clear": {"threshold": 0.75}}))
    first, second, third = sorted(rows, key=lambda row: row["datetime"])
    assert (first["clear_fraction"], first["evidence"], first["chosen"]) == (0.8, "cloud_cover", True)
    assert second["clear_fraction"] == pytest.approx(0.5, abs=0.02)
    assert (third["clear_fraction"], third["evidence"], third["chosen"]) == (None, "none", False)


@pytest.fixture
def decodes(monkeypatch):
    """Every block of a mask that the ranking decodes, and every file that it opens."""
    seen = Decodes()
    monkeypatch.setattr(evidence, "open_asset", seen.watch(evidence.open_asset))
    return seen


def test_a_large_tile_is_measured_in_the_overview(tmp_path, monkeypatch, decodes):
    archive = iw.Archive(tmp_path / "archive")
    checkered = mask(cloud_rows=32)
    archive.scene("2019-02-01", pixels(), checkered)
    iw.save(archive.folder / "s2019-02-01" / "scl.tif", checkered, nodata=iw.EMPTY, overviews=(2, 4))
    monkeypatch.setattr(evidence, "ENOUGH_PX", 16)
    _, rows, *_ = iw.run(config(tmp_path, archive, imagery={"clear": {"floor": 0.0}}))
    assert {block[1] for block in decodes.blocks} == {1}  # the overview of factor 4, not the file
    assert set(decodes.blocks.values()) == {1}
    assert rows[0]["clear_fraction"] == pytest.approx(0.5, abs=0.05)


def coarse(name, by, overviews=()):
    """A mask of pixels ``by`` times as large: the upper half is cloud."""
    side = iw.SIDE // by
    made = np.full((side, side), iw.CLEAR, np.uint8)
    made[: side // 2] = iw.CLOUD
    iw.save(name, made, nodata=iw.EMPTY, place=iw.transform() @ Affine.scale(by), overviews=overviews)


@pytest.mark.parametrize(
    ("by", "overviews", "level", "blocks"),
    [
        (1, (), None, 16),  # no overview: the file, thinned out
        (1, (2,), 0, 1),  # an overview has blocks of its own size
        (1, (2, 4, 8), 1, 1),  # the coarsest that still holds as much as is counted
        (2, (), None, 4),  # as fine as half of what is counted
        (2, (2, 4), 0, 1),
        (4, (), None, 1),  # the file itself is what is wanted
        (4, (2, 4), None, 1),  # and its overviews are too coarse
        (8, (2,), None, 1),  # coarser than what is counted
    ],
)
def test_the_level_is_the_coarsest_that_is_fine_enough(
    tmp_path, monkeypatch, decodes, by, overviews, level, blocks
):
    archive = iw.Archive(tmp_path / "archive")
    archive.scene("2019-02-01", pixels(), mask())
    coarse(archive.folder / "s2019-02-01" / "scl.tif", by, overviews)
    monkeypatch.setattr(evidence, "ENOUGH_PX", 16)  # 64 px are counted as 16
    _, rows, *_ = iw.run(config(tmp_path, archive, imagery={"clear": {"floor": 0.0}}))
    assert {block[1] for block in decodes.blocks} == {level}
    assert (len(decodes.blocks), set(decodes.blocks.values())) == (blocks, {1})
    assert rows[0]["clear_fraction"] == pytest.approx(0.5, abs=0.05)
    assert len(decodes.opened) == (1 if level is None else 2)


@pytest.mark.parametrize("shift_px", [0.0, 0.4, 7.0, -29.5, 200.0])
def test_a_mask_on_a_shifted_grid_counts_where_it_lies(tmp_path, decodes, shift_px):
    archive = iw.Archive(tmp_path / "archive")
    archive.scene("2019-02-01", pixels(), mask())
    made = np.full((iw.SIDE, iw.SIDE), iw.CLEAR, np.uint8)
    place = iw.transform() @ Affine.translation(shift_px, 0)
    iw.save(archive.folder / "s2019-02-01" / "scl.tif", made, nodata=iw.EMPTY, place=place)
    _, rows, *_ = iw.run(config(tmp_path, archive, imagery={"clear": {"floor": 0.0}}))
    # Of the 60 columns from 2 to 61 that are counted, those whose centre lies in the file.
    seen = np.count_nonzero(
        (np.arange(2, 62) + 0.5 >= shift_px) & (np.arange(2, 62) + 0.5 < shift_px + iw.SIDE)
    )
    assert rows[0]["coverage_fraction"] == pytest.approx(seen / 60, abs=0.01)
    assert set(decodes.blocks.values()) <= {1}


def test_a_mask_of_another_zone_counts_where_it_lies(tmp_path):
    archive = iw.Archive(tmp_path / "archive")
    archive.scene("2019-02-01", pixels(), mask())
    west, south, east, north = iw.LATTICE.footprint(iw.PLACE).bounds
    place, side = rasterio.transform.from_bounds(west, south, east, north, 90, 90), 90
    made = np.full((side, side), iw.CLEAR, np.uint8)
    made[: side // 2] = iw.CLOUD
    iw.save(archive.folder / "s2019-02-01" / "scl.tif", made, nodata=iw.EMPTY, crs="EPSG:4326", place=place)
    _, rows, *_ = iw.run(config(tmp_path, archive, imagery={"clear": {"floor": 0.0}}))
    assert rows[0]["clear_fraction"] == pytest.approx(0.5, abs=0.03)
    assert rows[0]["coverage_fraction"] == pytest.approx(1.0, abs=0.03)


@pytest.mark.parametrize("factor", [1, 2, 4])
@pytest.mark.parametrize(
    ("pixel_m", "shift_m"), [(10, 0), (10, 3), (20, -130), (60, 44), (7, 101), (10, -333)]
)
def test_a_mask_is_sampled_as_rasterio_resamples_by_the_nearest_pixel(
    tmp_path, decodes, factor, pixel_m, shift_m
):
    rng = np.random.default_rng(pixel_m)
    classes = rng.choice(np.array([iw.EMPTY, iw.CLEAR, iw.CLOUD], np.uint8), (75, 90))
    place = iw.transform() @ Affine.translation(shift_m / 10, -shift_m / 10) @ Affine.scale(pixel_m / 10)
    path = iw.save(tmp_path / "scl.tif", classes, nodata=iw.EMPTY, place=place)
    grid = Grid("EPSG:32633", iw.transform(), iw.SIDE, iw.SIDE).coarsened(factor)
    found = np.zeros((grid.height, grid.width), np.uint8)
    for where, values, valid in evidence.read_parts(iw.asset(), str(path), grid):
        found[where] = np.where(valid, values, iw.EMPTY)
    expected = np.zeros_like(found)
    rasterio.warp.reproject(
        classes, expected, src_transform=place, src_crs=grid.crs, src_nodata=iw.EMPTY,
        dst_transform=grid.transform, dst_crs=grid.crs, dst_nodata=iw.EMPTY,
        resampling=rasterio.enums.Resampling.nearest,
    )  # fmt: skip
    np.testing.assert_array_equal(found, expected)
    assert set(decodes.blocks.values()) <= {1}


def test_each_mask_block_is_decoded_once_per_tile_though_slots_overlap(tmp_path, decodes):
    archive = iw.Archive(tmp_path / "archive")
    archive.scene("2019-02-01", pixels(), mask())
    slots = [{"name": name, "start": "2019-01-01", "end": "2019-07-01"} for name in ("a", "b")]
    _, rows, *_ = iw.run(
        config(tmp_path, archive, time={"range": ("2019-01-01", "2020-01-01"), "slots": {"list": slots}})
    )
    assert (len(rows), len(decodes.opened)) == (2, 1)
    assert (len(decodes.blocks), set(decodes.blocks.values())) == (16, {1})  # 64 px in blocks of 16


def test_what_a_tile_answers_for_is_drawn_once_for_all_its_acquisitions(tmp_path, monkeypatch):
    archive = iw.Archive(tmp_path / "archive")
    for day in range(1, 6):
        archive.scene(f"2019-02-0{day}", pixels(), mask())
    drawn = []
    real = evidence.cover_mask
    monkeypatch.setattr(evidence, "cover_mask", lambda tile: (drawn.append(tile.tile_id), real(tile))[1])
    _, rows, *_ = iw.run(config(tmp_path, archive))
    assert (len(rows), len(drawn)) == (5, 1)


def test_items_are_found_by_place_in_their_order(tmp_path):
    archive = iw.Archive(tmp_path / "archive")
    for day, columns in ((1, 0), (2, 500), (3, -40), (4, 64.5)):
        archive.scene(
            f"2019-02-0{day}", pixels(), mask(), place=iw.transform() @ Affine.translation(columns, 0)
        )
    region = config(tmp_path, archive)
    made = iw.plan(region)
    items = load_items(search_items(made))
    tile = made.tiles()[0]
    found = [item.item_id for item in TileItems(made, items).meeting(tile, region.imagery[0])]
    shape = tile_area(tile)
    assert found == [item.item_id for item in items if shape.intersects(shapely.from_wkb(item.geometry_wkb))]
    assert found == ["s2019-02-01", "s2019-02-03"]


def test_an_unreadable_mask_fails_the_tile_and_names_the_command(tmp_path):
    archive = iw.Archive(tmp_path / "archive")
    archive.scene("2019-02-01", pixels(), mask())
    (archive.folder / "s2019-02-01" / "scl.tif").write_bytes(b"II*\0broken")
    with pytest.raises(TilesFailedError, match=r"scl\.tif.*chipmill build"):
        iw.run(config(tmp_path, archive))
    *_, path, failed = iw.run(config(tmp_path, archive, on_failed="commit"))
    assert "could not be ranked" in failed[0].reason
    assert not path.exists()
