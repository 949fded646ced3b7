import datetime as dt

import numpy as np
import pyogrio.raw
import pytest
import shapely
from affine import Affine

from chipmill.core.errors import AoiError, GridError
from chipmill.region.aoi import read_aoi
from chipmill.region.config import Region
from chipmill.region.fields import OutType
from chipmill.region.grid import Lattice, Window, lattice_of, reproject_shape
from chipmill.region.label_tiles import LabelItem, label_item_tiles
from chipmill.region.plan import estimate, load_tiles, write_tiles
from chipmill.region.tiles import cover_mask, lattice_tiles, tile_name

LIKE = Affine(0.00012, 0, 2.79, 0, -9e-05, 42.36)


def _region(aoi, grid=None, time=("2018-01-01", "2019-01-01")):
    imagery = [{"name": "s2", "source": {"catalog": "c"}, "bands": {"red": "red"}}]
    values = {"name": "r", "aoi": aoi, "time": {"range": time}, "imagery": imagery, "grid": grid or {}}
    return Region.model_validate(values)


def _tiles(aoi, grid=None):
    region = _region(aoi, grid)
    return lattice_tiles(region, read_aoi(region))


def _save(path, shape, crs="EPSG:4326"):
    pyogrio.raw.write(
        path, geometry=np.array([shape.wkb]), field_data=[], fields=[], geometry_type=shape.geom_type, crs=crs
    )


def test_tiles_of_two_overlapping_aois_share_their_grid():
    first = {tile.tile_id: tile for tile in _tiles({"bbox": [14.5, 46.0, 14.7, 46.1]})}
    second = {tile.tile_id: tile for tile in _tiles({"bbox": [14.6, 46.05, 14.8, 46.2]})}
    common = first.keys() & second.keys()
    assert common and all(first[name].window == second[name].window for name in common)


def test_tiles_cover_the_aoi_and_nothing_far_from_it():
    box = [14.5, 46.0, 14.7, 46.1]
    tiles = _tiles({"bbox": box}, {"tile_px": 256})
    aoi = reproject_shape(shapely.segmentize(shapely.box(*box), 0.01), 4326, 32633)
    union = shapely.union_all([shapely.box(*tile.bounds) for tile in tiles])
    assert union.buffer(20).contains(aoi)
    assert all(shapely.box(*tile.bounds).intersects(aoi) for tile in tiles)
    assert {tile.crs for tile in tiles} == {"EPSG:32633"} and all(tile.shape == (256, 256) for tile in tiles)


def test_an_aoi_over_two_zones_gets_tiles_in_both_and_each_place_once():
    tiles = _tiles({"bbox": [17.9, 46.0, 18.1, 46.1]}, {"tile_px": 512})
    assert {tile.lattice.epsg for tile in tiles} == {32633, 32634}
    total = sum(
        shapely.from_wkb(tile.cover).intersection(tile.lattice.footprint(tile.window)).area for tile in tiles
    )
    assert total == pytest.approx(0.2 * 0.1, rel=1e-3)


def test_rules_take_fewer_tiles_the_stricter_they_are():
    counts = [
        len(_tiles({"bbox": [14.5, 46.0, 14.7, 46.1], "rule": rule}, {"tile_px": 256}))
        for rule in ("intersects", "min_fraction", "centre", "within")
    ]
    assert counts[0] > counts[1] >= counts[3] and counts[0] > counts[2] > counts[3] > 0


def test_tile_ids_spell_minus_as_n_and_ids_are_file_safe():
    (tile,) = _tiles({"bbox": [14.5, 46.0, 14.501, 46.001]})
    assert tile.tile_id == f"{tile.lattice.lattice_id}-45-n498"
    assert tile_name("T33/UWQ_2018 ä") == "t33-uwq_2018"
    with pytest.raises(GridError, match="cannot be turned"):
        tile_name("///")


def test_a_planet_is_refused_before_any_work():
    with pytest.raises(AoiError, match="limit is 1,000,000"):
        _tiles({"bbox": [-179, -60, 179, 60]}, {"crs": "EPSG:4326", "resolution": 0.0001, "tile_px": 64})


def test_a_bow_tie_is_mended_and_a_line_refused(tmp_path):
    bow_tie = shapely.Polygon([(14.5, 46), (14.6, 46.1), (14.6, 46), (14.5, 46.1)])
    _save(tmp_path / "a.geojson", bow_tie)
    assert read_aoi(_region({"path": str(tmp_path / "a.geojson")})).area == pytest.approx(0.005)
    _save(tmp_path / "l.geojson", shapely.LineString([(0, 0), (1, 1)]))
    with pytest.raises(AoiError, match="no polygon with an area"):
        read_aoi(_region({"path": str(tmp_path / "l.geojson")}))
    with pytest.raises(AoiError, match="does not exist"):
        read_aoi(_region({"path": str(tmp_path / "none.gpkg")}))


def test_an_aoi_in_another_crs_lands_at_the_same_place(tmp_path):
    box = shapely.box(14.5, 46.0, 14.6, 46.1)
    _save(tmp_path / "utm.gpkg", reproject_shape(box, 4326, 32633), "EPSG:32633")
    read = read_aoi(_region({"path": str(tmp_path / "utm.gpkg")}))
    assert read.bounds == pytest.approx(box.bounds, abs=1e-6)
    wider = read_aoi(_region({"path": str(tmp_path / "utm.gpkg"), "buffer_m": 1000}))
    assert (wider.bounds[3] - read.bounds[3]) * 111_000 == pytest.approx(1000, rel=0.05)


def test_cover_mask_is_true_inside_the_cover_only():
    tiles = _tiles({"bbox": [14.5, 46.0, 14.7, 46.1]}, {"tile_px": 256})
    masks = [cover_mask(tile) for tile in tiles]
    assert any(mask.all() for mask in masks) and any(0 < mask.mean() < 1 for mask in masks)
    area = sum(mask.sum() for mask in masks) * 100
    aoi = reproject_shape(shapely.segmentize(shapely.box(14.5, 46.0, 14.7, 46.1), 0.001), 4326, 32633)
    assert area == pytest.approx(aoi.area, rel=1e-3)


def _item(name, day, transform=LIKE, size=(380, 377)):
    time = dt.datetime.fromisoformat(day).replace(tzinfo=dt.UTC)
    return LabelItem(name, time, f"{name}.tif", 4326, transform, *size)


def test_label_items_of_one_place_share_a_lattice_and_keep_their_dates():
    region = _region({"bbox": [2.7, 42.3, 2.9, 42.4]})
    items = [_item("B", "2018-06-21"), _item("A", "2018-02-02"), _item("C", "2021-01-01")]
    tiles = label_item_tiles(region, items, read_aoi(region))
    assert [tile.tile_id for tile in tiles] == ["a", "b"]
    assert tiles[0].lattice == tiles[1].lattice and tiles[0].window == Window(0, 0, 380, 377)
    assert [tile.anchor for tile in tiles] == ["2018-02-02", "2018-06-21"]
    assert not tiles[0].lattice_tile and tiles[0].label_href == "A.tif"


def test_label_items_that_clash_or_miss_the_aoi_are_refused():
    region = _region({"bbox": [2.7, 42.3, 2.9, 42.4]})
    with pytest.raises(GridError, match="both become"):
        label_item_tiles(region, [_item("A", "2018-02-02"), _item("a", "2018-03-02")], read_aoi(region))
    with pytest.raises(AoiError, match="none of 1 label items"):
        label_item_tiles(
            _region({"bbox": [9, 9, 10, 10]}), [_item("A", "2018-02-02")], shapely.box(9, 9, 10, 10)
        )


def test_tiles_round_trip_through_their_table(tmp_path):
    region = _region({"bbox": [2.7, 42.3, 2.9, 42.4]})
    tiles = label_item_tiles(region, [_item("A", "2018-02-02")], read_aoi(region))
    write_tiles(tmp_path / "tiles.parquet", tiles, "f")
    assert load_tiles(tmp_path / "tiles.parquet") == tiles


def test_a_grid_off_by_a_part_of_a_pixel_is_refused():
    lattice = lattice_of(32633, 10)
    place = lattice.aligned_window(Affine(10, 0, 500000, 0, -10, 5100000), 100, 50, "x")
    assert place == Window(50000, -510000, 100, 50)
    for transform in (Affine(10, 0, 500005, 0, -10, 5100000), Affine(20, 0, 500000, 0, -20, 5100000)):
        with pytest.raises(GridError, match=r"x lies on another pixel grid.*set resampling"):
            lattice.aligned_window(transform, 100, 50, "x")


def test_windows_and_bounds_are_inverse_to_each_other():
    lattice = Lattice(32633, 5.0, -3.0, 10.0, 20.0)
    window = Window(-7, 12, 30, 40)
    assert lattice.window(lattice.bounds(window)) == window
    assert lattice.geobox(window).shape == (40, 30)


def _bill(dtype="int16", static=(), **changes):
    region = _region({"bbox": [14.5, 46.0, 14.55, 46.05]}, {"tile_px": 256})
    imagery = region.imagery[0].model_copy(update={"out": OutType(dtype=dtype, nodata=0)})
    layers = {"name": "dem", "path": "d.tif", "out": {"dtype": "int16"}}
    values = region.model_dump(by_alias=True) | {
        "imagery": [imagery.model_dump(exclude_none=True)], "static": [layers] if static else [],
        "labels": {"layers": [{"path": "l.tif"}], "classes": {"1": "crop"}} | changes.pop("labels", {}),
        "dataset": {"chips": {"size_px": 128, "stride_px": 128}, "shards": changes},
    }  # fmt: skip
    whole = Region.model_validate(values)
    return estimate(whole, lattice_tiles(whole, read_aoi(whole)), 0, 0)


def test_the_bill_takes_the_bytes_of_a_record_by_its_types_weight_and_encoding():
    sure = {"confidence": {"band": 2, "min": 50, "weight": True}}
    plain, pixels = _bill(), _bill().windows * 128**2
    assert pixels > 0
    assert plain.write_bytes - _bill("uint16").write_bytes == 0, "one type: two bytes a band"
    one, mixed = _bill("int16", static=("dem",)), _bill("uint16", static=("dem",))
    assert mixed.write_bytes - one.write_bytes == pixels * 2 * 2, "int16 beside uint16 is int32 in the record"
    tiles_px = plain.tiles * 256**2
    assert _bill(labels=sure).write_bytes - plain.write_bytes == pixels + tiles_px
    assert _bill(encoding="float").write_bytes - plain.write_bytes == pixels * (4 + 4 - 2 - 1)
