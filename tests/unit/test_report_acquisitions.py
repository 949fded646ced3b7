"""Which acquisitions a page shows, and that what it shows are the pixels and the mask of the archive."""

import datetime as dt
import json

import numpy as np
import pytest
import rasterio
from tests import imagery_world as world

from chipmill.core.errors import AssetReadError, TransientReadError
from chipmill.core.tables import RANKING, read_table
from chipmill.imagery.freeze import read_items
from chipmill.imagery.hrefs import source_root
from chipmill.imagery.items import Item
from chipmill.imagery.reading import Grid
from chipmill.report import acquisitions
from chipmill.report.acquisitions import acquisition_section, caption, choices, covered_grid
from chipmill.report.images import rgb
from chipmill.report.quicklooks import CLEAR, DROPPED, SIDE_PX, Look, common_range, draw_look, read_look

SIDE = world.SIDE


def row(tile="t1", slot=1, rank=1, *, chosen=True, coverage=1.0, **more):
    start = dt.datetime(2020, slot, 1, tzinfo=dt.UTC)
    return {"tile_id": tile, "imagery": "s2", "slot": f"p{slot}", "slot_start": start, "slot_end": start, "rank": rank,
            "chosen": chosen, "coverage_fraction": coverage, **more}  # fmt: skip


def test_the_used_come_before_the_best_that_were_not_and_what_saw_nothing_is_no_candidate():
    rows = [row(rank=3, chosen=False), row(rank=2), row(rank=1, chosen=False), row(rank=4, chosen=False, coverage=0),
            row(rank=None, chosen=False)]  # fmt: skip
    ((one,), left) = choices(rows)
    assert [[found["rank"] for found in part] for part in (one.used, one.refused)] == [[2], [1, 3]]
    assert (one.counts, left) == ((1, 4), 0)


def test_at_most_so_many_are_shown_of_a_slot_and_of_a_page():
    rows = [
        row(tile, slot, rank, chosen=rank <= 8)
        for tile in ("t2", "t1")
        for slot in (2, 1)
        for rank in range(1, 15)
    ]
    found, left = choices(rows, most=20)
    assert [(one.tile_id, one.slot, len(one.used), len(one.refused)) for one in found] == [
        ("t1", "p1", 6, 3),
        ("t1", "p2", 6, 3),
    ]
    assert left == 2
    assert found[0].counts == (8, 14)
    assert len(choices(rows, most=1)[0]) == 1, "one slot is always shown"


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (
            {"evidence": "mask", "clear_fraction": 0.5, "chosen": True, "reason": "chosen"},
            "2022-12-06, rank 2, 50.0 % clear by its mask; used",
        ),
        (
            {"evidence": "cloud_cover", "clear_fraction": 0.1, "chosen": False, "reason": "clear 0.1000 below 0.3"},
            "2022-12-06, rank 2, 10.0 % clear by its metadata; not used: clear 0.1000 below 0.3",
        ),
        (
            {"evidence": "none", "clear_fraction": None, "chosen": True, "reason": "chosen"},
            "2022-12-06, rank 2, nothing known of clouds; used",
        ),
    ],
)  # fmt: skip
def test_a_caption_says_date_rank_share_evidence_and_fate(given, text):
    assert caption({"datetime": dt.datetime(2022, 12, 6, tzinfo=dt.UTC), "rank": 2, **given}) == text


def pixels(value):
    rows, columns = np.indices((SIDE, SIDE))
    return (value + 10 * rows + columns).astype(np.uint16)


@pytest.fixture
def built(tmp_path):
    """Region, version, and rows of an archive with a clear, a half cloudy and an all cloudy scene."""
    archive = world.Archive(tmp_path / "archive")
    half = np.full((SIDE, SIDE), world.CLEAR, np.uint8)
    half[:, : SIDE // 2] = world.CLOUD
    for day, mask in (("2019-03-01", np.full((SIDE, SIDE), world.CLEAR, np.uint8)), ("2019-04-01", half),
                      ("2019-05-01", np.full((SIDE, SIDE), world.CLOUD, np.uint8))):  # fmt: skip
        bands = {"red": pixels(1000), "nir": pixels(3000)}
        bands["red"][0, 0] = 0  # nodata
        archive.scene(day, bands, mask)
    region = world.region(tmp_path, {"catalog": str(archive.write())}, imagery={"clear": {"floor": 0.3}})
    made, rows, _, failed = world.run(region)
    assert not failed
    return region, made.version, rows


def look_of(region, version, rows, day):
    (row,) = [row for row in rows if f"{row['datetime']:%Y-%m-%d}" == day]
    items = [item for item in read_items(version.items) if item.item_id in row["item_ids"]]
    imagery = region.imagery[0]
    root = source_root(region, imagery.source, imagery.auth)
    grid = Grid("EPSG:32633", world.transform(), SIDE, SIDE)
    return read_look(items, imagery, root, grid)


def test_a_look_is_the_physical_pixels_and_what_the_mask_says(built):
    look = look_of(*built, "2019-04-01")
    # two bands are neither true colour nor three: the first one is shown, as brightness
    assert look.data.shape == (1, SIDE, SIDE)
    np.testing.assert_allclose(look.data[0][look.valid], pixels(1000)[look.valid] * 1e-4)
    assert not look.valid[0, 0]
    assert look.valid.sum() == SIDE * SIDE - 1
    assert look.dropped[:, : SIDE // 2].all()
    assert look.clear[:, SIDE // 2 :].all()
    assert not (look.clear & look.dropped).any()
    assert not look.usable[0, 0]


def test_the_picture_is_the_image_a_gap_and_the_mask_in_its_two_colours(built):
    look = look_of(*built, "2019-04-01")
    drawn = draw_look(look, common_range([look]))
    assert drawn.shape == (SIDE, 2 * SIDE + 2, 4)
    assert (drawn[:, SIDE : SIDE + 2, 3] == 0).all()
    mask = drawn[:, SIDE + 2 :]
    assert (mask[:, : SIDE // 2] == (*rgb(DROPPED), 255)).all()
    assert (mask[:, SIDE // 2 :] == (*rgb(CLEAR), 255)).all()
    assert drawn[0, 0, 3] == 0, "nodata is transparent"
    assert drawn[-1, SIDE - 1, :3].tolist() == [255] * 3, "the brightest clear pixel is white"


def test_all_of_a_slot_are_stretched_alike_by_what_is_clear_and_one_cloud_darkens_no_other(built):
    region, version, rows = built
    clear, half = (look_of(region, version, rows, day) for day in ("2019-03-01", "2019-04-01"))
    ends = [np.percentile(one.data[0][one.usable], [2, 98]) for one in (clear, half)]
    low, high = common_range([clear, half])[0]
    np.testing.assert_allclose([low, high], [ends[0][0], (ends[0][1] + ends[1][1]) / 2], rtol=1e-9)
    overlooked = Look(np.full_like(clear.data, 0.9), clear.valid, clear.clear, clear.dropped)
    assert common_range([clear, overlooked, half])[0][1] == pytest.approx(max(ends[0][1], ends[1][1]))
    none = look_of(region, version, rows, "2019-05-01")
    assert np.isfinite(common_range([none])).all(), "with nothing usable the range is still one"


def blocks_of(section, kind):
    return [block for block in section.blocks if block.kind == kind]


def test_the_section_shows_the_used_and_the_refused_with_their_reasons(built):
    region, version, _ = built
    section = acquisition_section(version, region, region)
    (gallery,) = blocks_of(section, "gallery")
    assert "1 of 3 acquisitions used" in gallery.title
    captions = [picture.caption for (picture,) in gallery.groups]
    assert captions[0] == "2019-03-01, rank 1, 100.0 % clear by its mask; used"
    assert captions[1].startswith("2019-04-01, rank 2, 50")
    assert captions[1].endswith("below 0.9")
    assert (
        captions[2] == "2019-05-01, rank 3, 0.0 % clear by its mask; not used: no clear pixel over the tile"
    )
    (evidence,) = [block.text for block in blocks_of(section, "text")]
    assert evidence.endswith("these 3 items mean rests on: scale declared (3); offset declared (3).")
    assert acquisition_section(version, region, region) == section


def test_without_the_regions_own_file_no_archive_is_read(built, monkeypatch):
    monkeypatch.setattr(acquisitions, "read_look", lambda *_: pytest.fail("the archive was read"))
    section = acquisition_section(built[1], built[0], None)
    assert not section.blocks
    assert "chipmill report REGION.yaml" in section.empty


def bad_texts(section):
    return [block.text for block in blocks_of(section, "text") if block.tone == "bad"]


def test_an_archive_that_moved_is_read_where_the_regions_own_file_says(built, tmp_path):
    """Its hrefs may be others there: each item is found anew, and shown where it is the one that was ranked."""
    region, version, _ = built
    before = acquisition_section(version, region, region)
    (tmp_path / "archive").rename(tmp_path / "bare")
    (tmp_path / "new").mkdir()
    (tmp_path / "bare").rename(tmp_path / "new" / "deeper")
    link = {"rel": "child", "href": "./deeper/collection.json"}
    (tmp_path / "new" / "catalog.json").write_text(
        json.dumps({"type": "Catalog", "id": "r", "links": [link]})
    )
    own = world.region(tmp_path, {"catalog": "new/catalog.json"})
    assert acquisition_section(version, region, own) == before
    (tmp_path / "new" / "deeper" / "s2019-03-01" / "red.tif").write_bytes(b"x")
    (tmp_path / "new" / "deeper" / "s2019-04-01" / "s2019-04-01.json").write_text('{"type": "Feature"}')
    told = bad_texts(acquisition_section(version, region, own))
    assert told == [
        "2019-03-01 is not shown: item s2019-03-01 of the source in the region file is another one.",
        "2019-04-01 is not shown: item s2019-04-01 of the source in the region file is gone.",
    ]
    (tmp_path / "new" / "catalog.json").unlink()
    told = bad_texts(acquisition_section(version, region, own))
    assert len(told) == 3 and all("new/catalog.json" in text for text in told)


def test_what_a_version_says_of_its_archive_is_never_followed(built, monkeypatch):
    """Its copy of the region may be a stranger's: neither its source nor who asks there counts beside the own file."""
    region, version, _ = built
    strange = world.region(version.root, {"stac": "http://127.0.0.1:9/"}, allow_hosts=["127.0.0.1"])
    asked = []
    monkeypatch.setattr(
        acquisitions, "source_root", lambda *given: asked.append(given) or source_root(*given)
    )
    (gallery,) = blocks_of(acquisition_section(version, strange, region), "gallery")
    assert len(gallery.groups) == 3
    own = region.imagery[0]
    assert asked == [(asked[0][0], own.source, own.auth)] * 3
    assert asked[0][0].allow_hosts == ()


def test_imagery_that_the_region_file_has_no_more_is_not_read(built, monkeypatch):
    monkeypatch.setattr(acquisitions, "read_look", lambda *_: pytest.fail("the archive was read"))
    region, version, _ = built
    own = region.model_copy(update={"imagery": (region.imagery[0].model_copy(update={"name": "other"}),)})
    told = bad_texts(acquisition_section(version, region, own))
    assert len(told) == 3 and all("the region file has no imagery s2 any more" in text for text in told)


def test_a_file_that_is_gone_is_told_of_and_the_others_are_shown(built, tmp_path):
    region, version, _ = built
    (tmp_path / "archive" / "s2019-04-01" / "red.tif").unlink()
    section = acquisition_section(version, region, region)
    (gallery,) = blocks_of(section, "gallery")
    assert [picture.caption[:10] for (picture,) in gallery.groups] == ["2019-03-01", "2019-05-01"]
    (told,) = [block.text for block in blocks_of(section, "text") if block.tone == "bad"]
    assert told.startswith("2019-04-01 is not shown: ")
    assert "red.tif does not exist" in told


@pytest.mark.parametrize(("error", "asked"), [(TransientReadError("busy"), 1), (AssetReadError("bad"), 3)])
def test_an_archive_that_does_not_answer_is_asked_once(built, monkeypatch, error, asked):
    calls = []

    def fail(*_):
        calls.append(1)
        raise error

    monkeypatch.setattr(acquisitions, "read_look", fail)
    section = acquisition_section(built[1], built[0], built[0])
    assert len(calls) == asked
    assert len([block for block in blocks_of(section, "text") if block.tone == "bad"]) == 3


def test_when_its_time_is_up_no_further_file_is_opened(built, monkeypatch):
    monkeypatch.setattr(acquisitions, "_MAX_SECONDS", -1.0)
    monkeypatch.setattr(acquisitions, "read_look", lambda *_: pytest.fail("a file was opened"))
    section = acquisition_section(built[1], built[0], built[0])
    assert all(
        "so the rest is left out" in block.text for block in blocks_of(section, "text") if block.tone == "bad"
    )


def test_a_small_area_in_a_large_tile_shows_itself(built):
    """The area of this world is 2 px smaller than its tile on each side."""
    (tile,) = acquisitions.load_tiles(built[1].tiles)
    grid = covered_grid(tile)
    assert (grid.width, grid.height) == pytest.approx((SIDE - 4, SIDE - 4), abs=2)
    assert grid.transform.c == pytest.approx(tile.transform.c + 20, abs=10.1)
    assert read_table(built[1].ranking, RANKING).num_rows == 3


@pytest.mark.parametrize("overviews", [(), (2, 4, 8)])
def test_a_large_tile_is_averaged_for_the_eye_and_not_sampled(tmp_path, overviews):
    """Stripes of one pixel become grey; sampled they would be black or white. A mask is never averaged."""
    side = 8 * SIDE_PX
    stripes = np.where(np.arange(side) % 2, 3000, 1000).astype(np.uint16) * np.ones((side, 1), np.uint16)
    mask = np.where(np.arange(side) < side // 2, world.CLEAR, world.CLOUD).astype(np.uint8) * np.ones(
        (side, 1), np.uint8
    )
    world.save(tmp_path / "red.tif", stripes, nodata=0, block=256)
    with rasterio.open(tmp_path / "red.tif", "r+") as target:
        if overviews:
            target.build_overviews(list(overviews), rasterio.enums.Resampling.average)
    world.save(tmp_path / "scl.tif", mask, nodata=0, block=256)
    assets = {"red": world.asset("red.tif", scale=1e-4), "mask": world.asset("scl.tif")}
    item = Item("s2", "c", "i", world.day("2019-01-01"), "p", None, b"", (0, 0, 1, 1), None, assets)
    imagery = world.region(tmp_path, {"items": "x.json"}, imagery={"bands": {"red": "red"}}).imagery[0]
    look = read_look([item], imagery, str(tmp_path), Grid("EPSG:32633", world.transform(), side, side))
    assert look.data.shape == (1, SIDE_PX, SIDE_PX)
    np.testing.assert_allclose(look.data[0], 0.2, atol=1e-3)
    assert look.clear[:, : SIDE_PX // 2].all()
    assert look.dropped[:, SIDE_PX // 2 :].all()
