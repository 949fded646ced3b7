"""Tiles from points: a chip is centred on each, on lattice tiles that hold every neighbourhood."""

import numpy as np
import pyogrio.raw
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from chipmill.core.errors import AoiError, RegionFileError
from chipmill.imagery.planning import make_tiles, place_remarks, place_tiles
from chipmill.region.config import Region
from chipmill.region.grid import Window, lattice_of, reproject_shape
from chipmill.region.plan import load_tiles, write_tiles
from chipmill.region.points import point_windows
from chipmill.region.tiles import cover_mask
from chipmill.region.windows import iter_windows, tile_index

LATTICE = lattice_of(32633, 10.0)
PLACE = Window(50_048, -500_032, 256, 256)
IMAGERY = [{"name": "s2", "source": {"catalog": "c"}, "bands": {"red": "red"}}]
AOI = {"bbox": list(LATTICE.footprint(PLACE).bounds)}


def at(col: float, row: float):
    """A point in metres, in lattice pixels right and down of PLACE's corner."""
    x, y = LATTICE.transform(PLACE) @ (col, row)
    return shapely.Point(x, y)


def save(path, shapes, epsg=32633, **fields):
    columns = [np.array(values, dtype=object if None in values else None) for values in fields.values()]
    pyogrio.raw.write(
        path, np.array([shape.wkb for shape in shapes], dtype=object), columns, list(fields), crs=f"EPSG:{epsg}",
        geometry_type="Unknown",
    )  # fmt: skip
    return path


def region(folder, tiles=None, size_px=32, **changes):
    values = {
        "name": "r", "file": str(folder / "r.yaml"), "aoi": AOI, "imagery": IMAGERY,
        "time": {"range": ("2018-01-01", "2019-01-01")}, "grid": {"crs": "EPSG:32633", "tile_px": 64},
        "dataset": {"chips": {"size_px": size_px}},
        "tiles": {"from": "points", "path": "points.gpkg"} | (tiles or {}),
    }  # fmt: skip
    return Region.model_validate(values | changes)


def touched(window, tiles):
    """The tiles that share pixels with a window."""
    return [tile for tile in tiles if window.intersection(tile.window) is not None]


def laid(tiles, config):
    """All windows with their points."""
    index, size = tile_index(tiles), config.dataset.chips.size_px
    for tile in tiles:
        points = point_windows(tile, size)
        assert list(points) == list(iter_windows(tile, index, config.dataset.chips))
        for window, point in points.items():
            parts = [window.intersection(one.window) for one in touched(window, tiles)]
            assert sum(one.width * one.height for one in parts) == size**2, "the union of tiles holds it"
            yield tile, window, point


@pytest.mark.parametrize("size_px", [32, 33, 64, 257])
def test_the_point_is_the_centre_pixel_of_its_chip(tmp_path, size_px):
    save(tmp_path / "points.gpkg", [at(100.5, 80.5), at(140.01, 80.99)], name=["a", "b"])
    config = region(tmp_path, {"id": "name"}, size_px)
    found = {point.source_id: window for _, window, point in laid(make_tiles(config), config)}
    for name, col, row in (("a", 100, 80), ("b", 140, 80)):
        window, half = found[name], size_px // 2
        assert (window.width, window.height) == (size_px, size_px)
        assert (window.col_off + half, window.row_off + half) == (PLACE.col_off + col, PLACE.row_off + row)


@given(
    st.lists(st.tuples(st.integers(0, 255), st.integers(0, 255)), min_size=1, max_size=30, unique=True),
    st.integers(16, 150),
)
def test_each_pixel_with_a_point_has_one_chip_that_belongs_to_the_tile_of_its_corner(
    tmp_path_factory, pixels, size
):
    folder = tmp_path_factory.mktemp("points")
    save(folder / "points.gpkg", [at(col + 0.5, row + 0.5) for col, row in pixels])
    config = region(folder, size_px=size, aoi={"bbox": list(LATTICE.footprint(PLACE.padded(2)).bounds)})
    tiles = make_tiles(config)
    windows = [window for _, window, _ in laid(tiles, config)]
    centres = {
        (one.col_off + size // 2 - PLACE.col_off, one.row_off + size // 2 - PLACE.row_off) for one in windows
    }
    assert centres == set(pixels) and len(windows) == len(pixels)
    for tile, window, _ in laid(tiles, config):
        assert tile.window.contains(Window(window.col_off, window.row_off, 1, 1))
    needed = {one.tile_id for window in windows for one in touched(window, tiles)}
    assert needed == {tile.tile_id for tile in tiles}, "no tile is made that no chip needs"


def test_the_label_counts_in_all_neighbourhoods_and_nowhere_else(tmp_path):
    save(tmp_path / "points.gpkg", [at(2.5, 2.5), at(100.5, 40.5)])
    config = region(tmp_path)
    wanted = np.zeros((256 + 64, 256 + 64), bool)  # one tile more to the left and above
    for col, row in ((2, 2), (100, 40)):
        wanted[row + 48 : row + 80, col + 48 : col + 80] = True
    seen = np.zeros_like(wanted)
    for tile in make_tiles(config):
        top, left = tile.window.row_off - PLACE.row_off + 64, tile.window.col_off - PLACE.col_off + 64
        seen[top : top + 64, left : left + 64] = cover_mask(tile)
    np.testing.assert_array_equal(seen, wanted)


def test_what_the_file_says_of_each_point_comes_back_from_the_table(tmp_path):
    save(
        tmp_path / "points.gpkg", [at(10.5, 10.5), at(60.5, 10.5), at(110.5, 10.5)], name=["A", "B", "C"],
        fold=["train", "dev", None], kind=[10, 20, 30], plot=["p1", None, "p1"],
    )  # fmt: skip
    config = region(tmp_path, {"id": "name", "split": "fold", "class": "kind", "attributes": ["plot"]})
    tiles = make_tiles(config)
    write_tiles(tmp_path / "tiles.parquet", tiles, "f")
    assert load_tiles(tmp_path / "tiles.parquet") == tiles
    found = {point.source_id: point for _, _, point in laid(tiles, config)}
    assert [(found[name].split, found[name].attributes) for name in "ABC"] == [
        ("train", {"plot": "p1", "kind": "10"}), ("val", {"kind": "20"}), (None, {"plot": "p1", "kind": "30"}),
    ]  # fmt: skip
    assert all(tile.split is None and tile.lattice_tile for tile in tiles)


def test_what_makes_no_chip_is_counted_with_its_reason(tmp_path):
    shapes = [
        at(10.2, 10.2),
        at(10.8, 10.4),
        at(500, 500),
        shapely.LineString([at(1, 1), at(2, 2)]),
        at(90, 90),
    ]
    save(tmp_path / "points.gpkg", shapes, kind=[10, 20, 10, 10, None])
    config = region(tmp_path, {"class": "kind"})
    ((_, _, point),) = laid(make_tiles(config), config)
    assert point.attributes == {"kind": "20"}, "the last on a pixel, as it is painted on top"
    assert sorted(place_remarks(config)) == [
        "points.gpkg: 1 features make no chip: no point",
        "points.gpkg: 1 features make no chip: nothing in 'kind'",
        "points.gpkg: 1 features make no chip: on the pixel of a later point",
        "points.gpkg: 1 features make no chip: outside the AOI",
    ]
    save(tmp_path / "points.gpkg", shapes[2:3], kind=[10])
    with pytest.raises(AoiError, match=r"no feature of points\.gpkg makes a chip of r \(1 outside the AOI\)"):
        make_tiles(config)
    save(tmp_path / "points.gpkg", shapes[:1], kind=[10], fold=["both"])
    with pytest.raises(RegionFileError, match="'both' is no split"):
        make_tiles(region(tmp_path, {"split": "fold"}))


def test_points_near_a_zone_go_to_their_own_zone(tmp_path):
    save(
        tmp_path / "points.geojson", [shapely.Point(17.9995, 46.05), shapely.Point(18.0005, 46.05)], epsg=4326
    )
    config = region(
        tmp_path, {"path": "points.geojson"}, aoi={"bbox": [17.9, 46.0, 18.1, 46.1]}, grid={"tile_px": 64}
    )
    tiles = make_tiles(config)
    assert {tile.crs for tile in tiles if tile.points} == {"EPSG:32633", "EPSG:32634"}
    for tile in tiles:
        for point in tile.points:
            assert (tile.lattice.epsg == 32634) == (point.source_id == "1")


def test_the_class_of_the_points_is_their_label_where_no_layer_is_named(tmp_path):
    save(tmp_path / "points.gpkg", [at(10.5, 10.5)], kind=[10])
    labels = {"classes": {"10": "crop", "20": "other"}}
    resolved, _ = place_tiles(region(tmp_path, {"class": "kind"}, labels=labels))
    (layer,) = resolved.labels.layers
    assert (layer.path, layer.attribute) == ("points.gpkg", "kind")
    given = region(tmp_path, {"class": "kind"}, labels=labels | {"layers": [{"path": "label.tif"}]})
    assert place_tiles(given)[0] == given
    bare = region(tmp_path, labels=labels)
    assert place_tiles(bare)[0] == bare


def test_a_point_in_degrees_falls_on_the_same_pixel(tmp_path):
    save(tmp_path / "points.geojson", [reproject_shape(at(100.5, 80.5), 32633, 4326)], epsg=4326)
    config = region(tmp_path, {"path": "points.geojson"})
    ((_, _, point),) = laid(make_tiles(config), config)
    assert (point.col, point.row) == (PLACE.col_off + 100, PLACE.row_off + 80)
