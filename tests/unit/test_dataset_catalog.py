"""catalog/ and the tables on the map, judged by pystac, JSON schemas and geopandas."""

import hashlib
import json
import os
from pathlib import Path

import geopandas
import jsonschema
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pystac
import pytest
import shapely
from pystac.validation.stac_validator import JsonSchemaSTACValidator
from tests import dataset_world as dw

from chipmill.core.geo import geo_schema
from chipmill.core.paths import VersionDir, layer_of
from chipmill.core.tables import CHIPS, read_table
from chipmill.dataset.manifest import load_manifest
from chipmill.dataset.verify import verify_dataset

SCHEMAS = Path(__file__).parents[1] / "schemas"


@pytest.fixture(scope="module")
def version(tmp_path_factory):
    chain = dw.planned(tmp_path_factory.mktemp("catalog"))
    chain.write_shards()
    return VersionDir(chain.seal().path)


@pytest.fixture(scope="module")
def judge():
    """pystac's validator with the schemas of the tree for extensions; nothing is asked for over the network."""
    validator = JsonSchemaSTACValidator()
    for path in SCHEMAS.glob("*.json"):
        schema = json.loads(path.read_text())
        if "$id" in schema:
            validator.schema_cache[schema["$id"]] = schema
    return validator


def pages(version):
    return [path for path in sorted(version.catalog.rglob("*.json")) if not path.name.endswith(".json.json")]


def check(judge, page):
    kind = {"Feature": "Item"}.get(page["type"], page["type"])
    judge.validate_core(page, pystac.STACObjectType(page["type"]), page["stac_version"])
    known = set(judge.schema_cache)
    for uri in page.get("stac_extensions", []):
        assert uri in known, f"{kind} names {uri}, of which the tree has no schema"
        judge.validate_extension(page, pystac.STACObjectType(page["type"]), page["stac_version"], uri)


def test_every_page_is_valid(version, judge):
    found = pages(version)
    tiles = read_table(version.tiles)
    assert len(found) == 2 + tiles.num_rows + len(load_manifest(version.root).shards)
    for path in found:
        check(judge, json.loads(path.read_text()))


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("properties", "label:type"), "pixels"),
        (("properties", "label:classes"), [{"classes": ["a"]}]),
        (("properties", "proj:shape"), [1]),
        (("properties", "proj:other"), 1),
        (("assets", "labels", "file:size"), -1),
        (("assets", "labels", "classification:classes", 0, "color_hint"), "#abcdef"),
        (("geometry",), "a box"),
    ],
)
def test_the_schemas_see_what_is_wrong(version, judge, where, value):
    page = json.loads(version.catalog_item(read_table(version.tiles)["tile_id"][0].as_py()).read_text())
    check(judge, page)
    part = page
    for name in where[:-1]:
        part = part[name]
    part[where[-1]] = value
    with pytest.raises(pystac.errors.STACValidationError):
        check(judge, page)


def test_pystac_walks_it_and_every_link_and_asset_is_there(version):
    catalog = pystac.Catalog.from_file(str(version.catalog / "catalog.json"))
    items = list(catalog.get_items(recursive=True))
    assert {item.id for item in items} >= set(read_table(version.tiles)["tile_id"].to_pylist())
    for item in items:
        folder = version.catalog / "items"
        for asset in item.assets.values():
            path = Path(os.path.normpath(folder / asset.href))
            assert path.stat().st_size == asset.extra_fields["file:size"]
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            assert asset.extra_fields["file:checksum"] == f"1220{digest}"
    for path in pages(version):
        page = json.loads(path.read_text())
        for link in page["links"]:
            assert not Path(link["href"]).is_absolute()
            assert (path.parent / link["href"]).is_file(), link


def test_items_say_what_the_tables_say(version):
    manifest = load_manifest(version.root)
    tiles = read_table(version.tiles).to_pylist()
    for tile in tiles:
        item = json.loads(version.catalog_item(tile["tile_id"]).read_text())
        assert item["properties"]["proj:code"] == f"EPSG:{tile['epsg']}"
        assert item["properties"]["proj:transform"] == tile["transform"]
        assert item["properties"]["proj:shape"] == [tile["height"], tile["width"]]
        assert shapely.geometry.shape(item["geometry"]).equals(shapely.from_wkb(tile["geometry"]))
        assert {"labels", "stack"} <= set(item["assets"])
        (classes,) = [one["classes"] for one in item["properties"]["label:classes"]]
        assert classes == [one.name for one in manifest.classes]
    for shard in manifest.shards:
        item = json.loads(version.catalog_item(Path(shard.path).stem).read_text())
        assert item["properties"]["chipmill:records"] == shard.count
        assert item["properties"]["chipmill:split"] == shard.split


def test_the_catalog_is_part_of_the_dataset(version):
    named = {one.path for one in load_manifest(version.root).files}
    assert {path.relative_to(version.root).as_posix() for path in pages(version)} <= named
    item = pages(version)[-1]
    good = item.read_bytes()
    item.write_bytes(good.replace(b"Feature", b"FEATURE", 1))
    try:
        found = verify_dataset(version.root, data=True)
        assert [one for one in found.problems if item.name in str(one)]
    finally:
        item.write_bytes(good)


def test_chips_are_a_map(version):
    chips = geopandas.read_parquet(version.chips)
    table = read_table(version.chips, CHIPS)
    assert chips.crs == "OGC:CRS84"
    assert len(chips) == table.num_rows
    for row in chips.itertuples():
        # back on its own grid the outline is the window to a thousandth of a pixel
        own = geopandas.GeoSeries([row.geometry], crs=4326).to_crs(row.crs)[0]
        pixel, _, left, _, _, top = row.transform
        box = shapely.box(left, top - pixel * row.height, left + pixel * row.width, top)
        assert own.hausdorff_distance(box) < pixel / 1000
    near = geopandas.read_parquet(version.chips, bbox=chips.geometry.iloc[0].bounds)
    assert 0 < len(near) < len(chips), "the column of boxes serves to read a part"


def test_tiles_are_a_map(version):
    tiles = geopandas.read_parquet(version.tiles)
    assert tiles.geometry.name == "geometry"
    assert (tiles.crs, tiles["cover"].crs) == ("OGC:CRS84", "OGC:CRS84")
    for row in tiles.itertuples():
        own = geopandas.GeoSeries([row.geometry], crs=4326).to_crs(row.epsg)[0]
        left, top = row.transform[2], row.transform[5]
        box = shapely.box(left, top - row.res_y * row.height, left + row.res_x * row.width, top)
        assert own.hausdorff_distance(box) < row.res_x / 1000


@pytest.mark.parametrize("name", ["tiles", "chips", "items"])
def test_metadata_of_tables_is_geoparquet(version, name):
    path = getattr(version, name)
    if not path.exists():
        pytest.skip("this world has no items")
    check_geo(json.loads(pq.read_schema(path).metadata[b"geo"]))


def check_geo(geo):
    schema = json.loads((SCHEMAS / "geoparquet.json").read_text())
    jsonschema.Draft7Validator(schema).validate(geo)


def test_geo_metadata_of_nothing_and_of_many_kinds():
    empty = pa.table({"g": pa.array([], pa.binary())})
    assert json.loads(geo_schema(empty.schema, empty, "g").metadata[b"geo"])["columns"]["g"] == {
        "encoding": "WKB",
        "geometry_types": [],
    }
    shapes = [shapely.Point(1, 2), shapely.box(3, 4, 5, 6), None, shapely.MultiPoint([(0, 9)])]
    table = pa.table({"g": pa.array([None if one is None else one.wkb for one in shapes], pa.binary())})
    geo = json.loads(geo_schema(table.schema.with_metadata({"k": "v"}), table, "g").metadata[b"geo"])
    check_geo(geo)
    assert geo["columns"]["g"]["geometry_types"] == ["MultiPoint", "Point", "Polygon"]
    assert np.allclose(geo["columns"]["g"]["bbox"], (0, 2, 5, 9))
    assert geo_schema(table.schema.with_metadata({"k": "v"}), table, "g").metadata[b"k"] == b"v"


@pytest.mark.parametrize(
    ("path", "said"),
    [
        (
            "../../../composites/s2/2019-01-01--2020-01-01/t1-0a1b2c3d.tif",
            ("s2-2019-01-01--2020-01-01", "t1"),
        ),
        ("../../../static/dem/t-1-0a1b2c3d.tif", ("dem", "t-1")),
        ("../../../labels/r0001-c0002-0a1b2c3d.tif", ("labels", "r0001-c0002")),
    ],
)
def test_layers_by_their_path(path, said):
    assert layer_of(path) == said
