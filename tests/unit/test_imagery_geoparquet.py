"""stac-geoparquet as a source: the same raw items as from JSON, rows left out by their columns, odd files named."""

import datetime as dt
import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from tests import imagery_world as iw

from chipmill.core.errors import ItemSearchError
from chipmill.imagery import geoparquet
from chipmill.imagery.catalog import find_items
from chipmill.imagery.geoparquet import parquet_items, write_parquet_items
from chipmill.imagery.label_items import find_label_items
from chipmill.region.slots import TimeRange, midnight

YEAR = TimeRange(midnight(dt.date(2019, 1, 1)), midnight(dt.date(2020, 1, 1)))
HERE = (14.0, 46.0, 15.0, 47.0)


def item(name="a", when="2019-06-01T10:00:00Z", box=(14.2, 46.2, 14.4, 46.4), **more):
    """Return an item with what real ones have: nested lists, several types, an asset that others lack."""
    outline = shapely.box(*box)
    return {
        "type": "Feature", "stac_version": "1.0.0", "stac_extensions": [], "id": name, "collection": "c",
        "geometry": shapely.geometry.mapping(outline), "bbox": list(outline.bounds),
        "links": [{"rel": "self", "href": f"https://e.org/{name}"}],
        "assets": {"red": {"href": f"./{name}.tif", "roles": ["data"], "proj:shape": [4, 5],
                           "raster:bands": [{"scale": 1e-4, "offset": -0.1}]}},
        "properties": {"datetime": when, "eo:cloud_cover": 12.5, "platform": "p", "updated": "2020-02-03T04:05:06Z",
                       "proj:epsg": 32633, "s2:flag": True},
    } | more  # fmt: skip


def read(path, *, collection=None, time=YEAR, bounds=HERE):
    return list(parquet_items(path, "list", collection=collection, time=time, bounds=bounds))


def ids(*args, **more):
    return [one["id"] for one in read(*args, **more)]


@pytest.fixture
def listed(tmp_path):
    path = tmp_path / "items.parquet"

    def write(*items):
        write_parquet_items(path, list(items))
        return path

    return write


def test_an_item_comes_back_as_it_was(listed):
    one = item()
    one["assets"]["scl"] = {"href": "./scl.tif", "title": None}
    other = item("b")
    first, second = read(listed(one, other))
    del one["assets"]["scl"]["title"]  # null is left out
    assert json.loads(json.dumps([first, second])) == json.loads(json.dumps([one, other]))


REAL = ("cmr_stac_hls_items.json", "earthsearch_v1_sentinel-2-l2a_items.json", "site1-20200606-tall-strip-africa.geojson",
        "S2A_28QCH_20200714_0_L2A.json")  # fmt: skip


@pytest.mark.parametrize("name", REAL)
def test_real_items_come_back_as_they_were(listed, shared_data, name):
    page = json.loads((shared_data / "stac-json" / name).read_text())
    items = page if isinstance(page, list) else page.get("features") or [page]
    time = TimeRange(midnight(dt.date(1970, 1, 1)), midnight(dt.date(2100, 1, 1)))
    found = read(listed(*items), time=time, bounds=(-180, -90, 180, 90))
    assert len(found) == len(items)
    for one, other in zip(items, found, strict=True):
        assert plain(one) == plain(json.loads(json.dumps(other)))


def plain(value):
    """Return a JSON value without nulls, with times of one spelling."""
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items() if one is not None}
    if isinstance(value, list):
        return [plain(one) for one in value]
    if isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", value):
        return dt.datetime.fromisoformat(value)
    return value


def sources(tmp_path, items):
    """Return a region for the same items as JSON and as Parquet."""
    tmp_path.joinpath("items.json").write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    write_parquet_items(tmp_path / "items.parquet", items)
    return [iw.region(tmp_path, {"items": f"items.{kind}"}, imagery=MASKLESS) for kind in ("json", "parquet")]


MASKLESS = {"mask": None, "bands": {"red": "red"}, "scene_cloud_max_pct": 50}


def test_the_search_treats_both_kinds_of_lists_alike(tmp_path):
    """Order, doubles, clouds, an item beside the tile inside its box, hrefs that lead out: the same answer."""
    west, south, east, north = iw.LATTICE.footprint(iw.PLACE).bounds
    beside = shapely.geometry.mapping(
        shapely.Polygon([(west - 1, south - 1), (east + 1, south - 1), (west - 1, north)])
    )
    box = {"box": (west - 1, south - 1, east + 1, north + 1)}
    items = [
        item("late", "2019-09-01T10:00:00Z", **box),
        item("early", "2019-02-01T10:00:00Z", **box),
        item("doubled", "2019-03-01T10:00:00Z", **box),
        item("doubled", "2019-03-01T10:00:00Z", **box),
        item("cloudy", "2019-04-01T10:00:00Z", **box),
        item("beside", "2019-05-01T10:00:00Z", **box, geometry=beside),
        *(
            item(f"hostile{number}", f"2019-06-{number + 1:02}T10:00:00Z", **box)
            for number in range(len(HOSTILE))
        ),
    ]
    items[2]["properties"]["updated"] = "2021-01-01T00:00:00Z"
    items[4]["properties"]["eo:cloud_cover"] = 51
    for one, href in zip(items[6:], HOSTILE, strict=True):
        one["assets"]["red"]["href"] = href
    answers = [find_items(region, iw.plan(region).tiles()) for region in sources(tmp_path, items)]
    assert [one.item_id for one in answers[1].items][:3] == ["early", "doubled", "hostile0"]
    assert answers[1].items[1].updated == "2021-01-01T00:00:00Z"
    problems = [one.problem for one in answers[1].items if one.item_id.startswith("hostile")]
    assert all("the href" in problem for problem in problems)
    assert len(problems) == len(HOSTILE)
    assert answers[0] == answers[1]


HOSTILE = ("../../etc/passwd", "/etc/passwd", "file:///etc/passwd", "http://169.254.169.254/x.tif", "http://localhost/x.tif",
           "s3://bucket/x.tif", "/vsicurl/http://example.org/x.tif", "GTIFF_DIR:1:x.tif", "https://u:p@example.org/x.tif")  # fmt: skip


def test_times_keep_their_fraction_and_intervals_their_ends(listed):
    one = item(when="2019-06-01T10:00:00.123456Z")
    other = item("b")
    other["properties"] |= {
        "datetime": None,
        "start_datetime": "2019-02-01T00:00:00Z",
        "end_datetime": "2019-03-01T00:00:00Z",
    }
    first, second = read(listed(one, other))
    assert first["properties"]["datetime"] == "2019-06-01T10:00:00.123456Z"
    assert "datetime" not in second["properties"]
    assert second["properties"]["start_datetime"] == "2019-02-01T00:00:00Z"


def test_rows_of_another_time_place_or_collection_are_left_out(listed):
    path = listed(
        item("first", "2019-01-01T00:00:00Z"),
        item("last", "2019-12-31T23:59:59Z"),
        item("before", "2018-12-31T23:59:59Z"),
        item("after", "2020-01-01T00:00:00Z"),
        item("beside", box=(15.1, 46.2, 15.3, 46.4)),
        item("touching", box=(15.0, 46.2, 15.3, 46.4)),
        item("above", box=(14.2, 47.1, 14.4, 47.4)),
        item("around", box=(14.2, 46.2, 14.4, 46.4), bbox=[179.0, 46.0, -179.0, 47.0]),
        item("of another", collection="d"),
    )
    assert ids(path, collection="c") == ["first", "last", "touching", "around"]
    assert ids(path, collection="d") == ["of another"]
    assert len(ids(path)) == 5


def test_where_nothing_is_near_all_are_given_so_that_the_search_can_say_where_they_are(listed):
    path = listed(item("far", box=(1, 1, 2, 2)), item("old", "2001-01-01T00:00:00Z"))
    found = read(path)
    assert [one["id"] for one in found] == ["far", "old"]
    assert found[0]["bbox"] == [1, 1, 2, 2]
    assert found[1]["properties"]["datetime"] == "2001-01-01T00:00:00Z"
    assert [one["assets"] for one in found] == [{}, {}]


def test_only_the_row_groups_that_may_hold_something_are_read(listed, tmp_path, monkeypatch):
    path = listed(
        *(item(f"i{number:03}", f"2019-01-{number // 10 + 1:02}T10:00:00Z") for number in range(200))
    )
    grouped = tmp_path / "grouped.parquet"
    pq.write_table(pq.read_table(path), grouped, row_group_size=10)
    seen = []
    plain = geoparquet._plain
    monkeypatch.setattr(geoparquet, "_plain", lambda batch: seen.append(batch.num_rows) or plain(batch))
    time = TimeRange(midnight(dt.date(2019, 1, 5)), midnight(dt.date(2019, 1, 6)))
    assert ids(grouped, time=time) == [f"i{number:03}" for number in range(40, 50)]
    assert sum(seen) == 10


def test_columns_of_other_writers_are_understood(tmp_path):
    """Naive times, properties kept together, no bbox, no collection, a list as bbox."""
    outline = shapely.to_wkb(shapely.box(14.2, 46.2, 14.4, 46.4))
    table = pa.table(
        {
            "id": ["a", "b"],
            "geometry": [outline, b"no geometry"],
            "datetime": pa.array([1_559_347_200 * 10**9, None], pa.timestamp("ns")),
            "bbox": [[14.2, 46.2, 14.4, 46.4], None],
            "assets": [{"red": {"href": "./a.tif"}}, None],
            "properties": [{"eo:cloud_cover": 3.0, "s2:blob": b"\x01"}, None],
        }
    )
    path = tmp_path / "other.parquet"
    pq.write_table(table, path)
    first, second = read(path)
    assert first["properties"] == {"datetime": "2019-06-01T00:00:00Z", "eo:cloud_cover": 3.0, "s2:blob": "01"}
    assert first["bbox"] == [14.2, 46.2, 14.4, 46.4]
    assert first["geometry"]["type"] == "Polygon"
    assert (second["geometry"], second["assets"], second["properties"]) == (None, {}, {})
    assert read(path, collection="c") == []


def test_a_file_that_is_none_is_named(tmp_path, listed):
    path = tmp_path / "x.parquet"
    with pytest.raises(ItemSearchError, match=r"^list cannot be read as stac-geoparquet"):
        read(path)
    path.write_bytes(b"PAR1 is not enough")
    with pytest.raises(ItemSearchError, match=r"^list cannot be read as stac-geoparquet"):
        read(path)
    pq.write_table(pa.table({"id": ["a"], "x": [1]}), path)
    with pytest.raises(ItemSearchError, match=r"no column geometry and no assets: make it with"):
        read(path)
    whole = listed(*(item(f"i{number}") for number in range(50))).read_bytes()
    path.write_bytes(whole[:200] + b"\0" * 600 + whole[800:])
    with pytest.raises(ItemSearchError, match=r"^list cannot be read as stac-geoparquet"):
        read(path)


def test_a_list_that_is_too_long_for_a_file_is_refused(listed, monkeypatch):
    monkeypatch.setattr(geoparquet, "_MAX_ITEMS", 2)
    with pytest.raises(ItemSearchError, match="more than 2 items: serve it by a STAC API"):
        read(listed(item("a"), item("b"), item("c")))


def test_the_same_items_give_the_same_bytes(tmp_path, listed):
    first = listed(item(), item("b")).read_bytes()
    assert listed(item(), item("b")).read_bytes() == first


def test_label_items_may_come_as_parquet_or_as_files_by_their_names(tmp_path):
    """With the classes, the dates and the grids that the same items have as JSON."""
    labels = iw.save(tmp_path / "2019-06-01_l1.tif", np.ones((iw.SIDE, iw.SIDE), np.uint8), nodata=255)
    classes = [{"value": 1, "name": "Crop"}, {"value": 2, "name": "Tree"}]
    box = {"box": iw.LATTICE.footprint(iw.PLACE).bounds}
    one = item("2019-06-01_l1", "2019-06-01T12:00:00Z", **box)
    one["assets"] = {"data": {"href": f"./{labels.name}", "classification:classes": classes}}
    (tmp_path / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": [one]}))
    write_parquet_items(tmp_path / "items.parquet", [one])

    def found(**source):
        tiles = {"from": "label-items", "source": source, "asset": "data"}
        return find_label_items(iw.region(tmp_path, {"items": "items.json"}, tiles=tiles), box["box"])

    wanted = found(items="items.json")
    assert [(one.item_id, one.width, one.classes) for one in wanted] == [
        ("2019-06-01_l1", iw.SIDE, (("1", "crop"), ("2", "tree")))
    ]
    assert found(items="items.parquet") == wanted
    (named,) = found(files="{date:%Y-%m-%d}_{tile}.tif")
    assert (named.item_id, named.time, named.transform) == (
        "20190601_l1",
        wanted[0].time,
        wanted[0].transform,
    )
