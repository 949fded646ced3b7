"""The rules of the ranking, one by one, and the table that comes of them."""

import numpy as np
import pytest
from tests import imagery_world as iw

from chipmill.core.errors import TilesFailedError
from chipmill.core.tables import RANKING, read_table
from chipmill.imagery import evidence
from chipmill.imagery.evidence import Candidate
from chipmill.imagery.ranking import clear_level, rank
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


def test_a_large_tile_is_measured_in_the_overview(tmp_path, monkeypatch):
    archive = iw.Archive(tmp_path / "archive")
    checkered = mask(cloud_rows=32)
    archive.scene("2019-02-01", pixels(), checkered)
    iw.save(archive.folder / "s2019-02-01" / "scl.tif", checkered, nodata=iw.EMPTY, overviews=(2, 4))
    monkeypatch.setattr(evidence, "ENOUGH_PX", 16)
    opened = []
    real = evidence.open_band

    def spy(asset, location, grid, **more):
        opened.append((grid.width, more.get("overview")))
        return real(asset, location, grid, **more)

    monkeypatch.setattr(evidence, "open_band", spy)
    _, rows, *_ = iw.run(config(tmp_path, archive, imagery={"clear": {"floor": 0.0}}))
    assert opened == [(16, 1)]  # the overview of factor 4, once
    assert rows[0]["clear_fraction"] == pytest.approx(0.5, abs=0.05)


def test_each_mask_is_read_once_per_tile_though_slots_overlap(tmp_path, monkeypatch):
    archive = iw.Archive(tmp_path / "archive")
    archive.scene("2019-02-01", pixels(), mask())
    slots = [{"name": name, "start": "2019-01-01", "end": "2019-07-01"} for name in ("a", "b")]
    calls = []
    real = evidence.open_band
    monkeypatch.setattr(
        evidence, "open_band", lambda *args, **more: (calls.append(1), real(*args, **more))[1]
    )
    _, rows, *_ = iw.run(
        config(tmp_path, archive, time={"range": ("2019-01-01", "2020-01-01"), "slots": {"list": slots}})
    )
    assert (len(rows), len(calls)) == (2, 1)


def test_an_unreadable_mask_fails_the_tile_and_names_the_command(tmp_path):
    archive = iw.Archive(tmp_path / "archive")
    archive.scene("2019-02-01", pixels(), mask())
    (archive.folder / "s2019-02-01" / "scl.tif").write_bytes(b"II*\0broken")
    with pytest.raises(TilesFailedError, match=r"scl\.tif.*chipmill build"):
        iw.run(config(tmp_path, archive))
    *_, path, failed = iw.run(config(tmp_path, archive, on_failed="commit"))
    assert "could not be ranked" in failed[0].reason
    assert not path.exists()
