"""Every kind of splits through a whole dataset: certificate, what is evaluated, and that re-splitting is a build by it."""

import dataclasses
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyogrio.raw
import pytest
import shapely
from tests import select_world as sw
from tests.imagery_world import LATTICE, PLACE

from chipmill.core.tables import CHIPS, read_table
from chipmill.dataset.manifest import load_manifest
from chipmill.dataset.outlook import look_ahead
from chipmill.dataset.reselect import select_dataset
from chipmill.dataset.verify import verify_dataset
from chipmill.imagery.planning import make_tiles
from chipmill.learning import held_out
from chipmill.learning.held_out import held_blocks, held_remark
from chipmill.region.grid import Window
from chipmill.region.plan import region_dir
from chipmill.region.tiles import Point, Tile
from chipmill.report.dataset import dataset_page

DAYS = ("2019-03-01", "2019-05-01")
CHANGES = {
    "tiles": {
        "from": "file",
        "path": "tiles.gpkg",
        "time": "day",
        "split": "part",
        "attributes": ["farm", "part"],
    },
    "time": {"range": ("2019-01-01", "2020-01-01"), "slots": {"around_label": {}}},
}
KINDS = {
    "given": {"by": "given"},
    "attribute": {
        "by": "attribute",
        "attribute": "part",
        "map": {"train": "train", "val": "test", "test": "val"},
    },
    "group": {"by": "group", "attribute": "farm", "train": 0.5, "val": 0.0, "test": 0.5},
    "time": {"by": "time", "hold_out": {"test": ["2019-05-01", "2019-06-01"]}},
    "random": {"by": "random", "train": 0.5, "val": 0.2, "test": 0.3},
    "polygons": {"by": "polygons", "path": "parts.gpkg", "attribute": "part"},
}


def dataset(kind):
    """Rules by a kind; windows overlap."""
    return sw.BASE | {"splits": {"block_px": 32} | KINDS[kind]}


def square(col, row, side):
    return shapely.box(*LATTICE.bounds(Window(PLACE.col_off + col, PLACE.row_off + row, side, side))).wkb


def save(path, shapes, **fields):
    columns = [np.array(values, dtype=object) for values in fields.values()]
    pyogrio.raw.write(
        path, np.array(shapes, dtype=object), columns, list(fields), crs="EPSG:32633", geometry_type="Polygon"
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Four places, each a tile on two days; farms are the columns, parts the rows and one corner."""
    folder = sw.make_inputs(tmp_path_factory.mktemp("kinds") / "made")
    corners = [(col, row) for row in (0, 32) for col in (0, 32)]
    rows = [(square(*corner, 32), day, corner) for day in DAYS for corner in corners]
    shapes, days, places = zip(*rows, strict=True)
    parts = {(0, 0): "train", (32, 0): "train", (0, 32): "val", (32, 32): "test"}
    save(
        folder / "tiles.gpkg", shapes, day=days, farm=[f"farm {col}" for col, _ in places],
        part=[parts[place] for place in places],
    )  # fmt: skip
    save(folder / "parts.gpkg", [square(0, 0, 30), square(32, 0, 32)], part=["train", "test"])
    sw.build(folder, dataset("given"), **CHANGES)
    return folder


@pytest.fixture(scope="module", params=list(KINDS))
def split(request, made, tmp_path_factory):
    """(kind, version, region) of the dataset, re-split by each kind."""
    kind = request.param
    folder = shutil.copytree(made, tmp_path_factory.mktemp(kind) / "own")
    region = sw.region(folder, dataset(kind), **CHANGES)
    return kind, select_dataset(region).dataset.path, region


def written(path):
    table = read_table(path / "chips.parquet", CHIPS)
    return [row for row in table.to_pylist() if row["state"] == "written"]


def pixels(rows):
    return {
        (row["tile_id"], x, y)
        for row in rows
        for x in range(row["col_off"], row["col_off"] + row["width"])
        for y in range(row["row_off"], row["row_off"] + row["height"])
    }


def test_the_dataset_is_good_and_its_certificate_true(split):
    kind, path, region = split
    assert verify_dataset(path, data=True).problems == ()
    proof, rows = load_manifest(path).certificate, written(path)
    train, held = (
        {pixel[1:] for pixel in pixels(row for row in rows if (row["split"] == "train") == own)}
        for own in (True, False)
    )
    assert train
    assert held
    assert (proof.kind, proof.shared_px) == (kind, len(train & held))
    assert (proof.leak_px > 0) == (kind == "random")
    assert (proof.warning != "") == (kind in ("random", "time"))
    assert (proof.blocks_sha256 is not None) == (kind == "group") == region_dir(region).blocks.exists()


def test_windows_have_the_splits_that_were_asked_for(split):
    kind, path, _ = split
    rows = written(path)
    if kind == "given":
        assert all(row["split"] == dict(row["attributes"])["part"] for row in rows)
    if kind == "attribute":
        turned = {"train": "train", "val": "test", "test": "val"}
        assert all(row["split"] == turned[dict(row["attributes"])["part"]] for row in rows)
    if kind == "group":
        assert len({(dict(row["attributes"])["farm"], row["split"]) for row in rows}) == 2
    if kind == "time":
        assert {(row["anchor"], row["split"]) for row in rows} == {(DAYS[0], "train"), (DAYS[1], "test")}
    if kind == "polygons":
        assert {row["col_off"] - PLACE.col_off < 32 for row in rows if row["split"] == "train"} == {True}


def test_the_look_ahead_sees_what_a_run_does(split):
    kind, path, region = split
    found = look_ahead(region, make_tiles(region))
    counts = load_manifest(path).counts
    assert found.windows == counts.planned
    if kind != "group":  # which is dealt by classes in a run
        assert found.lost == {name: counts.filtered[name] for name in found.lost}
        lost = counts.planned - counts.written - sum(found.lost.values())
        assert sum(found.splits.values()) == counts.written + lost


def test_what_is_evaluated_is_held_out_and_each_pixel_counts_once(split):
    kind, path, _ = split
    rows = written(path)
    train = pixels(row for row in rows if row["split"] == "train")
    for name in {row["split"] for row in rows} - {"train"}:
        counted = [
            (block.raster.name, block.window.col_off + x, block.window.row_off + y)
            for block in held_blocks(path, name)
            for y, x in np.argwhere(block.mask())
        ]
        own = pixels(row for row in rows if row["split"] == name)
        before = train | (pixels(row for row in rows if row["split"] == "val") if name == "test" else set())
        assert len(counted) == len(set(counted))
        assert set(counted) == own - before
        assert kind == "random" or own - before == own
    remark = held_remark(load_manifest(path))
    assert f"splits by {kind}: figures are of the ground of its held-out chips alone" in remark
    assert ("are left out here" in remark) == (kind == "random")


def test_a_point_that_brings_its_split_holds_out_its_chip_and_not_its_block(monkeypatch):
    """The other point of the block was dealt to train, and what its chip shows is no held-out ground."""
    lattice = LATTICE.lattice_id
    points = tuple(Point(col, 8, str(col), part) for col, part in ((8, None), (40, "test")))
    place = Window(0, 0, 64, 64)
    tile = Tile("t", LATTICE, place, "t", DAYS[0], None, True, None, None, False, b"", points=points)
    rows = [
        {"tile_id": "t", "block": f"{lattice}_0_0", "split": name, "state": "written", "col_off": col, "row_off": 0,
         "width": 16, "height": 16} for col, name in ((0, "train"), (32, "test"))
    ]  # fmt: skip
    facts = SimpleNamespace(
        inputs=SimpleNamespace(origin=None), certificate=SimpleNamespace(kind="blocks"), block_px=64
    )
    raster = held_out.Raster("32633", Path("stack.vrt"), LATTICE, place, (tile,))
    monkeypatch.setattr(held_out, "load_manifest", lambda _: facts)
    monkeypatch.setattr(held_out, "read_table", lambda *_: pa.Table.from_pylist(rows))
    monkeypatch.setattr(held_out, "stack_rasters", lambda _: (raster,))
    (block,) = held_blocks(Path("v"), "test")
    assert block.window == Window(32, 0, 16, 16) and block.mask().all()
    free = tuple(dataclasses.replace(point, split=None) for point in points)
    raster = dataclasses.replace(raster, tiles=(dataclasses.replace(tile, points=free),))
    (block,) = held_blocks(Path("v"), "test")
    assert block.window == place and block.mask().all()


def test_an_imported_dataset_is_not_evaluated_and_that_is_said(made, tmp_path):
    facts = json.loads((made / "out/regions/toy/2019-01-01--2020-01-01/versions/1/dataset.json").read_text())
    facts["inputs"]["origin"] = "esri"
    (tmp_path / "dataset.json").write_text(json.dumps(facts))
    assert held_blocks(tmp_path, "test") == []
    assert "toy was imported from esri" in held_remark(load_manifest(tmp_path))


def test_the_page_tells_the_kind_and_its_leak(split, tmp_path):
    kind, path, _ = split
    page = dataset_page(path, tmp_path / "report.html").read_text()
    assert f"by {kind}" in page
    proof = load_manifest(path).certificate
    if proof.warning:
        assert proof.warning[10:] in page
    else:
        assert "No pixel of a train chip lies in a val or test chip." in page
    assert (">Groups<" in page) == (kind == "group")
    assert ">Blocks<" not in page


@pytest.mark.parametrize("kind", ["polygons"])
def test_resplitting_equals_a_build_by_that_kind_from_the_start(made, tmp_path, kind):
    own = shutil.copytree(made, tmp_path / "own")
    start = sw.from_start(made, tmp_path / "start", blocks=False)
    right = sw.build(start, dataset(kind), **CHANGES)
    done = select_dataset(sw.region(own, dataset(kind), **CHANGES))
    assert sw.tree(done.dataset.path) == sw.tree(right.path)


def test_polygons_that_were_moved_are_a_new_split(made, tmp_path):
    own = shutil.copytree(made, tmp_path / "own")
    region = sw.region(own, dataset("polygons"), **CHANGES)
    first = select_dataset(region)
    (own / "parts.gpkg").unlink()
    save(own / "parts.gpkg", [square(0, 0, 30), square(0, 32, 32)], part=["train", "test"])
    second = select_dataset(region)
    assert (second.changed, second.dataset.version) == (True, first.dataset.version + 1)
    assert {
        row["row_off"] - PLACE.row_off >= 32 for row in written(second.dataset.path) if row["split"] == "test"
    } == {True}


def test_regions_that_name_each_other_never_test_what_the_other_learns(tmp_path):
    """The second one lies half beside the first, and is of another seed."""
    folder = sw.make_inputs(tmp_path)
    first = sw.region(folder, sw.rules(splits={"like": ["second"]}))
    sw.build(folder, sw.rules(splits={"like": ["second"]}))
    rules = sw.rules(splits={"like": ["toy"], "seed": 3})
    second = sw.build(
        folder, rules, name="second", grid={"crs": "EPSG:32633", "resolution": 10, "tile_px": 16}
    )
    one, other = (
        dict(zip(*(read_table(path)[name].to_pylist() for name in ("block", "split")), strict=True))
        for path in (region_dir(first).blocks, region_dir(first).sibling("second").blocks)
    )
    assert one.items() <= other.items()
    assert {row["block"]: row["split"] for row in written(second.path)}.items() <= one.items()
    again = select_dataset(sw.region(folder, sw.rules(splits={"like": ["second"], "seed": 5})), redeal=True)
    assert {row["block"]: row["split"] for row in written(again.dataset.path)}.items() <= other.items()
