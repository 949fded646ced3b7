"""Whole builds over tiles from points, from a file and with years of their own, against the pixels of the archive."""

import numpy as np
import pyogrio.raw
import pytest
import shapely
from benchmarks import chain
from tests import imagery_world as iw

from chipmill.core.tables import CHIPS, read_table
from chipmill.dataset.manifest import current_dataset, load_manifest
from chipmill.dataset.reader import open_dataset
from chipmill.imagery.catalog import find_items
from chipmill.imagery.planning import place_tiles
from chipmill.region.config import Region
from chipmill.region.grid import Window

AREA = Window(50_048, -500_032, 640, 640)
"""What the archive shows, in lattice pixels."""
ROWS, COLUMNS = np.mgrid[0 : AREA.height, 0 : AREA.width]
RED = (1000 + COLUMNS).astype(np.uint16)
NIR = (3000 + ROWS).astype(np.uint16)
"""Neither is the transpose of the other, so that swapped axes or bands are seen."""
LABEL = np.where(ROWS + 2 * COLUMNS < 600, 10, 20).astype(np.uint8)
BY_YEAR = {2014: 0, 2015: 100, 2016: 200}
"""What is added to red in the scene of each year."""


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """A catalog of one scene a year over AREA, and a label raster beside it."""
    folder = tmp_path_factory.mktemp("archive")
    made = iw.Archive(folder)
    for year, more in BY_YEAR.items():
        bands = {"red": (RED + more).astype(np.uint16), "nir": NIR}
        made.scene(f"{year}-07-01", bands, place=iw.LATTICE.transform(AREA))
    made.write()
    for year in (2014, 2016):
        for name, pixels in (("red", RED + BY_YEAR[year]), ("nir", NIR)):
            path = folder / "ready" / str(year) / f"{name}.tif"
            iw.save(path, pixels.astype(np.uint16), place=iw.LATTICE.transform(AREA), nodata=0)
    iw.save(folder / "label.tif", LABEL, place=iw.LATTICE.transform(AREA), nodata=255)
    return folder


def at(col, row):
    """The centre of a pixel of AREA, in metres."""
    return shapely.Point(*(iw.LATTICE.transform(AREA) @ (col + 0.5, row + 0.5)))


def box(col, row, width, height):
    """A rectangle of pixels of AREA, in metres."""
    return shapely.box(*iw.LATTICE.bounds(Window(AREA.col_off + col, AREA.row_off + row, width, height)))


def save(path, shapes, **fields):
    columns = [np.array(values, dtype=object if None in values else None) for values in fields.values()]
    pyogrio.raw.write(
        path, np.array([shape.wkb for shape in shapes], dtype=object), columns, list(fields), crs="EPSG:32633",
        geometry_type="Unknown",
    )  # fmt: skip


def config(archive, folder, tiles, **changes):
    """A region over AREA with tiles made in that way."""
    values = {
        "name": "toy", "file": str(folder / "toy.yaml"),
        "aoi": {"bbox": list(iw.LATTICE.footprint(AREA.padded(-2)).bounds)},
        "time": {"range": ("2014-01-01", "2015-01-01")},
        "grid": {"crs": "EPSG:32633", "tile_px": 128}, "tiles": tiles,
        "imagery": [{"name": "s2", "source": {"catalog": str(archive / "catalog.json")},
                     "bands": {"red": "red", "nir": "nir"}}],
        "labels": {"layers": [{"path": str(archive / "label.tif")}], "classes": {"10": "crop", "20": "other"}},
    }  # fmt: skip
    return Region.model_validate(values | changes)


def build(region):
    """Build and return (chips.parquet as rows, samples by chip id, statistics of red)."""
    made = chain.build(region)
    rows = read_table(made.path / "chips.parquet", CHIPS).to_pylist(maps_as_pydicts="strict")
    dataset = open_dataset(made.path)
    return rows, {sample.chip_id: sample for sample in dataset}, load_manifest(made.path).bands[0].statistics


def part(row):
    """Where a chip lies in the arrays of AREA."""
    top, left = row["row_off"] - AREA.row_off, row["col_off"] - AREA.col_off
    return np.s_[top : top + row["height"], left : left + row["width"]]


def assert_true(row, sample, red=0):
    """The chip has the pixels of its place, axes and bands in order."""
    assert sample.image.shape == (row["height"], row["width"], 2)
    np.testing.assert_array_equal(sample.image[..., 0], RED[part(row)] + red)
    np.testing.assert_array_equal(sample.image[..., 1], NIR[part(row)])


def test_neighbourhoods_of_257_px_have_the_point_in_their_middle_and_the_split_of_the_point(
    archive, tmp_path
):
    places = {"a": (130, 480), "b": (500, 140), "c": (500, 480), "d": (330, 140)}
    save(
        tmp_path / "points.gpkg", [at(*place) for place in places.values()], name=list(places),
        fold=["train", "test", "val", "train"], plot=["north", None, "south", "x"],
    )  # fmt: skip
    tiles = {"from": "points", "path": "points.gpkg", "id": "name", "split": "fold", "attributes": ["plot"]}
    dataset = {"chips": {"size_px": 257}, "splits": {"by": "given"}}
    grid = {"crs": "EPSG:32633", "tile_px": 256}
    rows, samples, _ = build(config(archive, tmp_path, tiles, dataset=dataset, grid=grid))
    assert {row["source_id"]: (row["split"], row["state"], row["reason"]) for row in rows} == {
        "a": ("train", "written", ""), "b": ("test", "written", ""), "c": ("val", "written", ""),
        "d": ("train", "filtered", "buffer"),
    }, "d overlaps b: train shares no ground with the test"  # fmt: skip
    assert {row["source_id"]: row["attributes"] for row in rows} == {
        "a": {"plot": "north"}, "b": {}, "c": {"plot": "south"}, "d": {"plot": "x"},
    }  # fmt: skip
    for row in rows:
        if row["state"] != "written":
            continue
        col, line = places[row["source_id"]]
        sample = samples[row["chip_id"]]
        assert_true(row, sample)
        assert sample.image[128, 128].tolist() == [RED[line, col], NIR[line, col]]
        np.testing.assert_array_equal(sample.label, LABEL[part(row)] == 20)


def test_the_class_of_points_alone_labels_their_own_pixels(archive, tmp_path):
    places = [(40, 50), (60, 50), (300, 300), (400, 60)]
    save(tmp_path / "points.gpkg", [at(*place) for place in places], kind=[20, 10, 10, 20],
         fold=["train", "train", "val", "test"])  # fmt: skip
    tiles = {"from": "points", "path": "points.gpkg", "class": "kind", "split": "fold"}
    labels = {"classes": {"10": "crop", "20": "other"}}
    dataset = {"chips": {"size_px": 64}, "splits": {"by": "given"}}
    region = config(archive, tmp_path, tiles, labels=labels, dataset=dataset)
    rows, samples, statistics = build(region)
    assert [row["state"] for row in rows] == ["written"] * 4
    truth = np.full(LABEL.shape, 255)
    for (col, row), kind in zip(places, (1, 0, 0, 1), strict=True):
        truth[row, col] = kind
    for row in rows:
        np.testing.assert_array_equal(samples[row["chip_id"]].label, truth[part(row)])
        assert samples[row["chip_id"]].label[32, 32] == {"10": 0, "20": 1}[row["attributes"]["kind"]]
    assert sorted(sum(row["class_px"]) for row in rows) == [1, 1, 2, 2]
    seen = np.zeros(LABEL.shape, bool)
    for row in rows:
        if row["split"] == "train":
            seen[part(row)] = True
    assert int(statistics.n) == seen.sum() == 64 * 84, "the two of training overlap: each pixel once"
    assert int(statistics.sum) == RED[seen].astype(np.int64).sum()
    placed = place_tiles(region)
    assert current_dataset(region, find_items(*placed), placed[1]) is not None, (
        "a run again has nothing to do"
    )


def test_tiles_of_a_file_keep_their_split_and_what_they_reject(archive, tmp_path):
    save(
        tmp_path / "tiles.gpkg", [box(0, 0, 96, 64), box(100, 3, 64, 64), box(200, 0, 64, 64), box(300, 0, 70, 64)],
        name=["A", "B", "C", "D"], fold=["train", "dev", "test", "train"], bad=[0, 0, 0, 1], who=["x", "y", "x", "y"],
    )  # fmt: skip
    tiles = {
        "from": "file", "path": "tiles.gpkg", "id": "name", "split": "fold", "reject": "bad", "attributes": ["who"],
    }  # fmt: skip
    dataset = {"chips": {"size_px": 32, "stride_px": 32}, "splits": {"by": "given"}}
    rows, samples, _ = build(config(archive, tmp_path, tiles, dataset=dataset))
    found = {}
    for row in rows:
        found.setdefault((row["tile_id"], row["split"], row["state"], row["reason"]), []).append(row)
        assert (row["source_id"], row["attributes"]["who"]) in {
            ("A", "x"),
            ("B", "y"),
            ("C", "x"),
            ("D", "y"),
        }
        if row["state"] == "written":
            assert_true(row, samples[row["chip_id"]])
    counts = {key: len(value) for key, value in found.items()}
    written = {key: count for key, count in counts.items() if key[2] == "written"}
    assert written == {
        ("a", "train", "written", ""): 6, ("b", "val", "written", ""): 4, ("c", "test", "written", ""): 4,
    }  # fmt: skip
    (lost,) = [key for key in counts if key[0] == "d"]
    assert lost[2:] == ("filtered", "rejected") and counts[lost] == 6, (
        "32, 32 and a window shifted to the edge"
    )


def test_tiles_of_a_file_that_overlap_count_each_pixel_once(archive, tmp_path):
    squares = [box(0, 0, 64, 64), box(33, 5, 64, 64), box(300, 0, 64, 64), box(400, 0, 64, 64)]
    save(tmp_path / "tiles.gpkg", squares, fold=["train", "train", "val", "test"])
    tiles = {"from": "file", "path": "tiles.gpkg", "split": "fold"}
    dataset = {"chips": {"size_px": 32, "stride_px": 32}, "splits": {"by": "given"}}
    rows, _, statistics = build(config(archive, tmp_path, tiles, dataset=dataset))
    seen = np.zeros(LABEL.shape, bool)
    for row in rows:
        if row["split"] == "train":
            seen[part(row)] = True
    assert int(statistics.n) == seen.sum() < 2 * 64 * 64
    assert int(statistics.sum) == RED[seen].astype(np.int64).sum()


def test_a_changed_attribute_arrives_though_no_pixel_changed(archive, tmp_path):
    tiles = {"from": "file", "path": "tiles.gpkg", "id": "name", "split": "fold", "attributes": ["who"]}
    dataset = {"chips": {"size_px": 64, "stride_px": 64}, "splits": {"by": "given"}}
    region = config(archive, tmp_path, tiles, dataset=dataset)
    squares, names = [box(0, 0, 64, 64), box(100, 0, 64, 64), box(200, 0, 64, 64)], ["a", "b", "c"]
    found = []
    for who, fold in (("x", ["train", "val", "test"]), ("y", ["train", "test", "val"])):
        save(tmp_path / "tiles.gpkg", squares, name=names, fold=fold, who=[who] * 3)
        rows, _, _ = build(region)
        found.append([(row["source_id"], row["split"], row["attributes"]["who"]) for row in rows])
    assert found == [
        [("a", "train", "x"), ("b", "val", "x"), ("c", "test", "x")],
        [("a", "train", "y"), ("b", "test", "y"), ("c", "val", "y")],
    ]


@pytest.mark.parametrize("ready", [False, True])
def test_each_tile_is_composited_from_its_own_year_and_no_chip_mixes_two(archive, tmp_path, ready):
    save(tmp_path / "years.gpkg", [box(-100, -100, 300, 900), box(200, -100, 500, 900)], year=[2014, 2017])
    tiles = {"year": {"attribute": "year", "path": "years.gpkg", "available": [2014, 2016]}}
    source = {"composites": str(archive / "ready") + "/{year}/{band}.tif"}
    imagery = (
        {"imagery": [{"name": "s2", "source": source, "bands": {"red": "red", "nir": "nir"}}]}
        if ready
        else {}
    )
    dataset = {
        "chips": {"size_px": 64, "stride_px": 32, "max_nodata_fraction": 1.0},
        "splits": {"block_px": 128},
    }
    region = config(
        archive, tmp_path, tiles, dataset=dataset, time={"range": ("2013-01-01", "2018-01-01")},
        aoi={"bbox": list(iw.LATTICE.footprint(Window(AREA.col_off + 2, AREA.row_off + 2, 380, 250)).bounds)}, **imagery,
    )  # fmt: skip
    rows, samples, _ = build(region)
    assert {row["anchor"] for row in rows} == {"2014-01-01", "2016-01-01"}
    border = (AREA.col_off + 200 + 64) // 128 * 128
    assert {row["anchor"] for row in rows if row["state"] == "written"} == {"2014-01-01", "2016-01-01"}
    assert any(row["reason"] == "neighbour_year" for row in rows)
    for row in rows:
        crosses = row["col_off"] < border < row["col_off"] + 64
        assert (row["reason"] == "neighbour_year") == crosses
        if row["state"] == "written":
            place = Window(*(row[name] for name in ("col_off", "row_off", "width", "height")))
            if AREA.contains(place):
                assert_true(row, samples[row["chip_id"]], BY_YEAR[int(row["anchor"][:4])])
