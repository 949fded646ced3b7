"""Splits that are not dealt by blocks: what each kind gives a window, what it drops, what it tells, and what is refused."""

import dataclasses
import datetime as dt

import numpy as np
import pyogrio.raw
import pytest
import shapely
from pydantic import ValidationError
from tests import select_world as sw

from chipmill.core.errors import RegionFileError, SplitError
from chipmill.core.paths import RegionDir
from chipmill.dataset.block_deals import deal_groups, group_block
from chipmill.dataset.blocks import Dealt, read_blocks, with_like, write_blocks
from chipmill.dataset.certificate import certify, covered_px, shared_px
from chipmill.dataset.outlook import candidate_table, check_splits, look_ahead
from chipmill.dataset.places import KEPT, NONE, SPLITS, TEST, TRAIN, VAL, Places
from chipmill.dataset.split_kinds import anchor_split, by_chance, place_by_kind
from chipmill.region.dataset import HoldOut, Splits
from chipmill.region.grid import Window, lattice_of
from chipmill.region.identity import config_fingerprint, named_files
from chipmill.region.slots import TimeRange
from chipmill.region.tiles import Point, Tile

LATTICE = lattice_of(32633, 10.0)
COVER = shapely.to_wkb(shapely.box(0, 0, 1, 1))
LEFT, TOP = 50_048, -500_032


def tile(name, right=0, down=0, side=32, *, day=None, **facts):
    """A tile without neighbours, ``right`` and ``down`` pixels from a corner, of one day or of the cell's time."""
    time = None
    if day is not None:
        start = dt.datetime.fromisoformat(day).replace(tzinfo=dt.UTC)
        time = TimeRange(start, start + dt.timedelta(days=1))
    values = {
        "tile_id": name, "lattice": LATTICE, "window": Window(LEFT + right, TOP + down, side, side),
        "source_id": name, "anchor": day or "2019-01-01", "time": time, "lattice_tile": False, "label_href": None,
        "split": None, "reject": False, "cover": COVER,
    }  # fmt: skip
    return Tile(**(values | facts))


def region(folder, splits, **changes):
    """A region with chips of 16 px, side by side, and some splits."""
    dataset = {"chips": {"size_px": 16, "stride_px": 16}, "splits": splits}
    return sw.region(folder, dataset, **changes)


def by_kind(folder, splits, tiles, **changes):
    """Return (chip ids, names of splits, reasons) of the windows of some tiles."""
    own = region(folder, splits, **changes)
    table, places = candidate_table(own, tiles)
    codes, drops = place_by_kind(own, tiles, table, places)
    names = [SPLITS[code] if code != NONE else None for code in codes]
    return table["chip_id"].to_pylist(), names, drops.tolist()


# fields


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"by": "polygons", "attribute": "split"}, "splits by polygons need path"),
        ({"by": "polygons", "path": "a.gpkg"}, "splits by polygons need attribute"),
        ({"by": "attribute"}, "splits by attribute need attribute"),
        ({"by": "group"}, "splits by group need attribute"),
        ({"by": "time"}, "splits by time need hold_out"),
        ({"by": "random", "attribute": "a"}, "splits by random take no attribute"),
        ({"by": "time", "hold_out": {"test": ["2019-01-01", "2019-02-01"]}, "folds": 3}, "take no folds"),
        ({"by": "random", "like": ["other"]}, "take no like"),
        ({"by": "given", "map": {"a": "train"}}, "take no map"),
        ({"hold_out": {"val": ["2019-01-01", "2019-02-01"]}}, "splits by blocks take no hold_out"),
    ],
)
def test_fields_belong_to_kinds(values, says):
    with pytest.raises(ValidationError, match=says):
        Splits.model_validate(values)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({}, "needs val, test or both"),
        ({"val": ["2019-02-01", "2019-02-01"]}, "must lie before end"),
        ({"val": ["2019-01-01", "2019-03-01"], "test": ["2019-02-01", "2019-04-01"]}, "overlap"),
    ],
)
def test_days_that_cannot_be_held_out_are_refused(values, says):
    with pytest.raises(ValidationError, match=says):
        HoldOut.model_validate(values)


def test_the_default_kind_leaves_fingerprints_as_they_are(tmp_path):
    sw.make_inputs(tmp_path)
    assert config_fingerprint(sw.region(tmp_path, sw.BASE)) == config_fingerprint(
        sw.region(tmp_path, sw.rules(splits={"by": "blocks", "like": []}))
    )
    assert config_fingerprint(sw.region(tmp_path, sw.BASE)) != config_fingerprint(
        sw.region(tmp_path, sw.rules(splits={"by": "given"}))
    )


# random


def test_chance_goes_by_seed_and_id_alone_and_meets_the_shares():
    ids = [f"chip-{number}" for number in range(4000)]
    rules = Splits(by="random", train=0.5, val=0.3, test=0.2)
    codes = by_chance(ids, rules)
    assert np.abs(np.bincount(codes) / len(ids) - [0.5, 0.3, 0.2]).max() < 0.03
    assert (by_chance(ids[::-1], rules)[::-1] == codes).all()
    assert (by_chance(ids[:100], rules) == codes[:100]).all()
    assert (by_chance(ids, rules.model_copy(update={"seed": 9})) != codes).any()


@pytest.mark.parametrize("shares", [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.5, 0.5, 0.0), (0.5, 0.0, 0.5)])
def test_a_share_of_nothing_gets_nothing_and_one_of_all_gets_all(shares):
    rules = Splits(by="random", **dict(zip(SPLITS, shares, strict=True)))
    counts = np.bincount(by_chance([f"c{number}" for number in range(500)], rules), minlength=3)
    assert [count > 0 for count in counts] == [share > 0 for share in shares]


def test_the_leak_of_chance_is_told_before_and_after(tmp_path):
    own = sw.region(
        tmp_path, {"chips": {"size_px": 16, "stride_px": 8}, "splits": {"by": "random", "test": 0.15}}
    )
    tiles = [tile("a", side=64)]
    found = look_ahead(own, tiles)
    assert found.splits["train"] > found.splits["test"] > 0
    table, places = candidate_table(own, tiles)
    codes = by_chance(table["chip_id"].to_pylist(), own.dataset.splits)
    train, held = ground(places, codes == TRAIN), ground(places, codes > TRAIN)
    assert (
        f"{len(train & held):,} px, {100 * len(train & held) / len(held):.3g} % of the ground"
        in found.warning
    )
    assert "flatter" in found.warning
    assert check_splits(own, tiles) == (f"splits by random: {found.warning}",)


def test_chips_side_by_side_leak_nothing_by_chance(tmp_path):
    own = region(tmp_path, {"by": "random"})
    tiles = [tile("a", side=160)]
    assert look_ahead(own, tiles).warning == ""
    assert check_splits(own, tiles) == ()


def ground(places, rows):
    return {
        (x, y)
        for at in np.flatnonzero(rows)
        for x in range(places.col[at], places.col[at] + places.width[at])
        for y in range(places.row[at], places.row[at] + places.height[at])
    }


# given, attribute, group


def test_tiles_and_points_bring_their_splits_and_the_rest_is_left_out(tmp_path):
    points = tuple(
        Point(LEFT + col, TOP + 200, f"p{col}", split)
        for col, split in ((8, "train"), (100, "val"), (200, None))
    )
    tiles = [
        tile("a", split="train"),
        tile("b", 40, split="test"),
        tile("c", 80),
        tile("d", 0, 190, side=256, points=points),
    ]
    _, names, drops = by_kind(tmp_path, {"by": "given"}, tiles)
    assert names == ["train"] * 4 + ["test"] * 4 + [None] * 4 + ["train", "val", None]
    assert drops == [KEPT] * 8 + ["no_split"] * 4 + [KEPT, KEPT, "no_split"]


def test_train_windows_keep_off_the_windows_of_others_not_off_their_tiles(tmp_path):
    tiles = [tile("a", split="train"), tile("b", 36, split="test")]
    assert by_kind(tmp_path, {"by": "given", "buffer_px": 4}, tiles)[2] == [KEPT] * 8
    _, names, drops = by_kind(tmp_path, {"by": "given", "buffer_px": 5}, tiles)
    assert [name for name, drop in zip(names, drops, strict=True) if drop == "buffer"] == ["train"] * 2


def test_an_attribute_says_the_split_by_its_own_words_or_by_a_map(tmp_path):
    tiles = [
        tile(name, 40 * at, attributes={"fold": text})
        for at, (name, text) in enumerate({"a": "Training", "b": "dev", "c": "test"}.items())
    ] + [tile("d", 160)]
    _, names, drops = by_kind(tmp_path, {"by": "attribute", "attribute": "fold"}, tiles)
    assert names == ["train"] * 4 + ["val"] * 4 + ["test"] * 4 + [None] * 4
    assert drops[-4:] == ["no_split"] * 4
    mapped = {
        "by": "attribute",
        "attribute": "fold",
        "map": {"Training": "test", "dev": "train", "test": "train"},
    }
    assert by_kind(tmp_path, mapped, tiles)[1][:12] == ["test"] * 4 + ["train"] * 8


def test_values_that_say_no_split_are_named(tmp_path):
    tiles = [tile(f"t{at}", 40 * at, attributes={"fold": f"odd{at}"}) for at in range(7)]
    with pytest.raises(SplitError, match=r"'fold' has the values 'odd0', .* and 2 more.*dataset.splits.map"):
        by_kind(tmp_path, {"by": "attribute", "attribute": "fold"}, tiles)


def test_an_attribute_that_tiles_do_not_keep_is_refused_before_a_run(tmp_path):
    own = region(tmp_path, {"by": "group", "attribute": "farm"})
    with pytest.raises(SplitError, match=r"'farm' is none that tiles.attributes keeps \(none\)"):
        check_splits(own, [tile("a")])


FARMS = {"tiles": {"from": "file", "path": "tiles.gpkg", "attributes": ["farm"]}}


def farms(count, step=40):
    """Two tiles of each farm."""
    return [tile(f"t{at}", step * at, attributes={"farm": f"farm {at // 2}"}) for at in range(2 * count)]


def test_a_group_is_never_parted(tmp_path):
    own = region(tmp_path, {"by": "group", "attribute": "farm"}, **FARMS)
    found = look_ahead(own, farms(10))
    assert {name: number % 8 for name, number in found.splits.items()} == dict.fromkeys(SPLITS, 0)
    assert sum(found.splits.values()) == found.windows == 80
    assert all(found.splits.values())
    assert check_splits(own, farms(10)) == ()


def test_ground_that_groups_share_is_that_of_the_held_out_one(tmp_path):
    own = region(tmp_path, {"by": "group", "attribute": "farm"}, **FARMS)
    found = look_ahead(own, farms(10, step=24))
    assert found.lost["buffer"] > 0
    assert found.warning == ""


def test_groups_stick_and_are_filed_with_their_rules(tmp_path):
    rules = Splits(by="group", attribute="farm")
    names = [f"farm {at}" for at in range(20)]
    weights = np.ones((20, 3))
    first = deal_groups(names, weights, rules, Dealt({}, {}))
    write_blocks(tmp_path / "blocks.parquet", first, rules, changed=True)
    known = read_blocks(tmp_path / "blocks.parquet", rules)
    assert known == first
    more = deal_groups([*names, "new 1", "new 2"], np.ones((22, 3)), rules, known)
    assert first.splits.items() < more.splits.items()
    assert group_block("new 1") in more.splits
    with pytest.raises(SplitError, match=r"attribute was farm and is now owner"):
        read_blocks(tmp_path / "blocks.parquet", rules.model_copy(update={"attribute": "owner"}))
    with pytest.raises(SplitError, match="by was group and is now unset"):
        read_blocks(tmp_path / "blocks.parquet", Splits())


def test_too_few_groups_are_refused_with_a_way_out(tmp_path):
    own = region(tmp_path, {"by": "group", "attribute": "farm"}, **FARMS)
    with pytest.raises(SplitError, match=r"3 groups of 'farm' that hold one are needed, 2 are there"):
        check_splits(own, farms(2))


# time

MAY = {"by": "time", "hold_out": {"val": ["2019-05-01", "2019-06-01"], "test": ["2019-06-01", "2019-07-01"]}}
DAYS = {"time": {"range": ("2019-01-01", "2020-01-01"), "slots": {"around_label": {}}}}


@pytest.mark.parametrize(
    ("day", "code"),
    [
        ("2019-04-30", TRAIN), ("2019-05-01", VAL), ("2019-05-31", VAL), ("2019-06-01", TEST), ("2019-06-30", TEST),
        ("2019-07-01", TRAIN),
    ],
)  # fmt: skip
def test_days_are_held_out_half_open(day, code):
    assert anchor_split(Splits.model_validate(MAY), day) == code


def test_one_place_may_be_learnt_and_tested_on_other_days(tmp_path):
    tiles = [tile("a", day="2019-04-01"), tile("b", day="2019-06-01"), tile("c", 200, day="2019-05-05")]
    _, names, drops = by_kind(tmp_path, MAY, tiles, **DAYS)
    assert names == ["train"] * 4 + ["test"] * 4 + ["val"] * 4
    assert drops == [KEPT] * 12
    found = look_ahead(region(tmp_path, MAY, **DAYS), tiles)
    assert "1,024 px, 50 % of the ground" in found.warning
    assert "not of other places" in found.warning


@pytest.mark.parametrize(("after", "kept"), [(29, True), (31, False)])
def test_images_of_the_same_days_on_the_same_ground_are_seen_once(tmp_path, after, kept):
    """Slots that reach from a train day into a test day hold the same images."""
    slots = {"time": DAYS["time"] | {"slots": {"around_label": {"after_days": after}}}}
    tiles = [tile("a", day="2019-05-02"), tile("b", day="2019-06-01"), tile("c", 400, day="2019-05-02")]
    late = {"by": "time", "hold_out": {"test": ["2019-06-01", "2019-07-01"]}}
    _, names, drops = by_kind(tmp_path, late, tiles, **slots)
    assert names == ["train"] * 4 + ["test"] * 4 + ["train"] * 4
    assert drops == [KEPT if kept else "buffer"] * 4 + [KEPT] * 8


def test_days_without_a_tile_are_refused_before_a_run(tmp_path):
    own = region(tmp_path, MAY, **DAYS)
    with pytest.raises(SplitError, match=r"splits by time leave test without a window \(8 windows in all"):
        check_splits(own, [tile("a", day="2019-04-01"), tile("b", 40, day="2019-05-01")])


# polygons


def save_polygons(folder, **squares):
    """Write squares (first column, row, side in pixels from the corner) in metres; the name is the value of "part"."""
    shapes = [
        shapely.box(*LATTICE.bounds(Window(LEFT + col, TOP + row, side, side)))
        for col, row, side in squares.values()
    ]
    pyogrio.raw.write(
        folder / "parts.gpkg", np.array([shape.wkb for shape in shapes], dtype=object),
        [np.array([name.rstrip("0123456789") for name in squares], dtype=object)], ["part"], crs="EPSG:32633",
        geometry_type="Polygon",
    )  # fmt: skip


PARTS = {"by": "polygons", "path": "parts.gpkg", "attribute": "part"}


@pytest.mark.parametrize(
    ("buffer_px", "lost"), [(0, []), (16, []), (17, [(16, 0), (16, 16), (16, 32), (16, 48)])]
)
def test_polygons_hold_windows_and_keep_the_buffer(tmp_path, buffer_px, lost):
    """Train reaches to column 32, val begins at 48: 16 px between."""
    save_polygons(tmp_path, train=(0, 0, 32), train2=(0, 32, 32), val=(48, 0, 64), test=(112, 0, 64))
    ids, names, drops = by_kind(tmp_path, PARTS | {"buffer_px": buffer_px}, [tile("a", side=256)])
    places = [tuple(int(part) for part in one.split("_")[1:3]) for one in ids]
    found = {
        (col - LEFT, row - TOP): (name, drop)
        for (col, row), name, drop in zip(places, names, drops, strict=True)
    }
    for (col, row), (name, drop) in found.items():
        inside = (
            "train" if col < 32 and row < 64 else "val" if 48 <= col < 112 and row < 64
            else "test" if 112 <= col < 176 and row < 64 else None
        )  # fmt: skip
        assert name == inside, (col, row)
        assert drop == ("no_split" if inside is None else "buffer" if (col, row) in lost else KEPT)


def test_windows_across_the_border_of_val_or_test_straddle(tmp_path):
    save_polygons(tmp_path, train=(0, 0, 24), val=(24, 0, 36), test=(60, 0, 62))
    ids, names, drops = by_kind(tmp_path, PARTS, [tile("a", side=128)])
    row = [
        (int(one.split("_")[1]) - LEFT, name, drop) for one, name, drop in zip(ids, names, drops, strict=True)
    ][:8]
    assert row == [
        (0, "train", KEPT), (16, "val", "straddles"), (32, "val", KEPT), (48, "val", "straddles"),
        (64, "test", KEPT), (80, "test", KEPT), (96, "test", KEPT), (112, "test", "straddles"),
    ]  # fmt: skip


def test_polygons_in_degrees_hold_the_same_windows(tmp_path):
    from chipmill.region.grid import reproject_shape

    save_polygons(tmp_path, train=(0, 0, 64), test=(72, 0, 60))
    metres = by_kind(tmp_path, PARTS | {"buffer_px": 4}, [tile("a", side=128)])
    layer = pyogrio.raw.read(tmp_path / "parts.gpkg")
    shapes = [reproject_shape(shapely.from_wkb(one), 32633, 4326) for one in layer[2]]
    (tmp_path / "parts.gpkg").unlink()
    pyogrio.raw.write(
        tmp_path / "parts.gpkg", np.array([one.wkb for one in shapes], dtype=object), layer[3], ["part"],
        crs="EPSG:4326", geometry_type="Polygon",
    )  # fmt: skip
    assert by_kind(tmp_path, PARTS | {"buffer_px": 4}, [tile("a", side=128)])[1] == metres[1]


def test_the_file_of_polygons_is_one_that_the_region_names(tmp_path):
    own = region(tmp_path, PARTS)
    assert named_files(own)["dataset.splits.path"] == "parts.gpkg"
    with pytest.raises(RegionFileError, match=r"dataset\.splits\.path"):
        config_fingerprint(own)
    with pytest.raises(SplitError, match=r"parts.gpkg does not exist"):
        check_splits(own, [tile("a")])
    save_polygons(tmp_path, odd=(0, 0, 64))
    with pytest.raises(SplitError, match="'part' has the values 'odd'"):
        check_splits(own, [tile("a")])
    save_polygons(tmp_path, test=(0, 0, 64))
    with pytest.raises(SplitError, match="leave train without a window"):
        check_splits(own, [tile("a")])


# blocks of other regions

RULES = Splits(block_px=16)
BLOCK = ("32633-00000000", 3, 4)


def test_regions_that_name_each_other_share_blocks(tmp_path):
    own, other = RegionDir(tmp_path / "a"), RegionDir(tmp_path / "b")
    write_blocks(
        other.blocks,
        Dealt({BLOCK: TEST}, {}),
        RULES.model_copy(update={"train": 0.6, "val": 0.25}),
        changed=True,
    )
    like = RULES.model_copy(update={"like": ("b", "c")})
    mine = Dealt({("32633-00000000", 0, 0): TRAIN}, {})
    assert with_like(own, like, mine).splits == mine.splits | {BLOCK: TEST}
    with pytest.raises(SplitError, match=r"1 blocks have another split in b.*32633-00000000_3_4.*--redeal"):
        with_like(own, like, Dealt({BLOCK: TRAIN}, {}))


@pytest.mark.parametrize(
    ("theirs", "says"),
    [({"block_px": 32}, "block_px 32, here it is 16"), ({"folds": 3}, "folds 3, here it is unset")],
)
def test_regions_of_other_blocks_cannot_share_them(tmp_path, theirs, says):
    own, other = RegionDir(tmp_path / "a"), RegionDir(tmp_path / "b")
    rules = RULES.model_copy(update=theirs)
    write_blocks(other.blocks, Dealt({BLOCK: TEST}, {BLOCK: 0}), rules, changed=True)
    with pytest.raises(SplitError, match=says):
        with_like(own, RULES.model_copy(update={"like": ("b",)}), Dealt({}, {}))


# certificate


def chips(rows):
    import pyarrow as pa

    names = ("lattice", "anchor", "col_off", "row_off", "width", "height", "split", "class_px")
    return pa.Table.from_pylist([dict(zip(names, row, strict=True)) for row in rows])


def chip(col, split, day="2019-01-01"):
    return ("l", day, col, 0, 10, 10, split, [60, 40])


def test_the_certificate_of_chance_holds_the_leak():
    proof = certify(chips([chip(0, "train"), chip(6, "test"), chip(40, "val")]), 2, None, "random")
    assert (proof.kind, proof.shared_px, proof.leak_px, proof.nearest_px) == ("random", 40, 40, 0)
    assert proof.warning.startswith("40 px, 20 % of the ground of val and test chips, are seen in training")


def test_the_certificate_of_days_holds_the_ground_that_they_share():
    proof = certify(chips([chip(0, "train"), chip(6, "test", "2019-06-01")]), 2, None, "time")
    assert (proof.shared_px, proof.leak_px) == (40, 0)
    assert "of other days" in proof.warning


def test_any_other_leak_commits_nothing():
    from chipmill.core.errors import CountError

    with pytest.raises(CountError, match="train chips share 40 pixels"):
        certify(chips([chip(0, "train"), chip(6, "test")]), 2, None, "given")
    with pytest.raises(CountError, match="train chips share 40 pixels"):
        certify(chips([chip(0, "train"), chip(6, "test")]), 2, None, "time")


def test_shared_pixels_are_counted_once_however_many_rectangles_lie_there():
    def places(*rows):
        columns = (np.array(one, dtype=np.int64) for one in zip(*rows, strict=True))
        return Places(np.full(len(rows), "l", dtype=object), *columns)

    one = places((0, 0, 10, 10), (0, 0, 10, 10), (5, 5, 10, 10))
    assert covered_px(one) == 175
    assert shared_px(one, places((8, 8, 4, 4), (9, 9, 2, 2), (100, 100, 5, 5))) == 16
    assert shared_px(one, dataclasses.replace(one, lattice=np.full(3, "m", dtype=object))) == 0
