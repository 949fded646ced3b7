"""The local STAC API over HTTP: pystac-client searches it, GDAL reads its files by ranges, wrong requests get 400."""

import asyncio
import json
import socket
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import httpx
import numpy as np
import psutil
import pystac_client
import pytest
import rasterio

from chipmill.core.errors import BadInputError, ServerError
from chipmill.demo.api import make_app, serve
from chipmill.demo.engine import load_archive

COLLECTION = "demo-s2-l2a"


@pytest.fixture(scope="module")
def client(stac_api):
    return pystac_client.Client.open(stac_api.url, timeout=30)


@pytest.fixture(scope="module")
def entries(small_world):
    return load_archive(small_world.catalog).entries


@pytest.fixture(scope="module")
def http(stac_api):
    with httpx.Client(base_url=stac_api.url, timeout=30) as session:
        yield session


def ids(search) -> list[str]:
    return [item.id for item in search.items()]


def parts(entries, *shares):
    """Small boxes in the middle of the region, at shares of its width from the west."""
    west, south, east, north = np.array([e.geometry.bounds for e in entries]).T
    middle = (south.min() + north.max()) / 2
    width = east.max() - west.min()
    return [
        [west.min() + part * width, middle, west.min() + (part + 0.03) * width, middle + 0.001]
        for part in shares
    ]


def of_zone(entries, code) -> set[str]:
    return {e.item_id for e in entries if e.item["properties"]["proj:code"] == code}


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_paging_returns_every_item_once_in_order(client, entries, method):
    search = client.search(method=method, collections=[COLLECTION], limit=3)
    assert search.matched() == 29
    pages = [[item.id for item in page] for page in search.pages()]
    assert [len(page) for page in pages] == [3] * 9 + [2]
    assert [name for page in pages for name in page] == [entry.item_id for entry in entries]


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_paging_keeps_the_other_conditions(client, method):
    search = client.search(method=method, datetime="2019-04-01/2019-06-30", bbox=[12.02, 45, 13, 47], limit=2)
    found = [item.datetime.date().isoformat() for item in search.items()]
    assert found == ["2019-06-16", "2019-06-16", "2019-05-27", "2019-05-02", "2019-04-07"]


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_bbox_finds_what_touches_it(client, entries, method):
    boxes = parts(entries, 0.95, 0.25, 0.02)
    east, border, west = (set(ids(client.search(method=method, bbox=bbox))) for bbox in boxes)
    partly = {"S2A_DEMO_20190616_0", "S2A_DEMO_20190323_0", "S2B_DEMO_20190706_0"}
    assert east == of_zone(entries, "EPSG:32633") - partly
    assert west == of_zone(entries, "EPSG:32632")
    assert border == {e.item_id for e in entries} - {"S2A_DEMO_20190616_1"}, "the zones overlap"
    assert ids(client.search(method=method, bbox=[0, 0, 1, 1])) == []


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_intersects_takes_a_geometry(client, entries, method):
    [(west, south, east, north)] = parts(entries, 0.95)
    triangle = {
        "type": "Polygon",
        "coordinates": [[[west, south], [east, south], [east, north], [west, south]]],
    }
    found = ids(client.search(method=method, intersects=triangle))
    assert len(found) == 12
    assert "S2A_DEMO_20190616_0" not in found


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    ("interval", "count"),
    [
        ("2019-06-16T10:10:31Z", 1),
        ("2019-06-16T10:10:31Z/2019-06-16T10:10:45Z", 2),
        ("2019-06-16T12:10:31+02:00/2019-06-16T10:10:44.5Z", 1),
        ("../2019-03-23T10:10:21Z", 5),
        ("2019-10-09T08:59:00Z/..", 6),
        ("2018-01-01T00:00:00Z/2018-12-31T00:00:00Z", 0),
    ],
)
def test_datetime_has_closed_and_open_ends(http, method, interval, count):
    fields = {"datetime": interval}
    sent = http.get("/search", params=fields) if method == "GET" else http.post("/search", json=fields)
    assert sent.json()["numberMatched"] == sent.json()["numberReturned"] == count


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_ids_and_collections(client, method):
    wanted = ["S2A_DEMO_20190616_1", "S2B_DEMO_20190706_0"]
    assert sorted(ids(client.search(method=method, ids=[*wanted, "none"]))) == wanted
    assert ids(client.search(method=method, ids=wanted, collections=["other"])) == []


def test_items_are_as_on_disk_but_for_links_and_hrefs(client, entries):
    item = next(client.search(ids=[entries[0].item_id]).items())
    assert item.properties == entries[0].item["properties"]
    assert set(item.assets) == {"blue", "green", "red", "nir", "swir16", "scl"}
    assert item.get_self_href().endswith(f"/collections/{COLLECTION}/items/{item.id}")
    assert client.get_collection(COLLECTION).get_item(item.id).to_dict()["assets"] == item.to_dict()["assets"]


def test_collections_and_their_items(client, http):
    assert [c.id for c in client.get_collections()] == [COLLECTION]
    assert client.get_collection(COLLECTION).extent.temporal.intervals[0][0] == datetime(
        2019, 1, 17, 10, 13, 51, tzinfo=UTC
    )
    page = http.get(
        f"/collections/{COLLECTION}/items", params={"limit": 11, "datetime": "2019-07-01T00:00:00Z/.."}
    ).json()
    assert (page["numberMatched"], page["numberReturned"]) == (14, 11)
    following = next(link["href"] for link in page["links"] if link["rel"] == "next")
    rest = http.get(following).json()
    assert [f["id"] for f in rest["features"]] == [
        "S2A_DEMO_20190726_0",
        "S2B_DEMO_20190706_1",
        "S2B_DEMO_20190706_0",
    ]
    assert "next" not in [link["rel"] for link in rest["links"]]


def test_landing_page_claims_what_answers(http, client):
    landing = http.get("/").json()
    assert landing["conformsTo"] == http.get("/conformance").json()["conformsTo"]
    assert all(client.conforms_to(name) for name in ("query", "filter", "sort", "fields"))
    for link in landing["links"]:
        assert http.request(link.get("method", "GET"), link["href"]).status_code == 200, link


CLEAR = "eo:cloud_cover < 10 AND datetime >= TIMESTAMP('2019-04-01T00:00:00Z')"


def clouds(entries) -> dict[str, float]:
    return {entry.item_id: entry.item["properties"]["eo:cloud_cover"] for entry in entries}


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_query_and_cql2_find_what_a_loop_finds(client, entries, method):
    wanted = [e.item_id for e in entries if clouds([e])[e.item_id] < 10 and e.start.month >= 4]
    assert 0 < len(wanted) < 29
    by_query = {"eo:cloud_cover": {"lt": 10}, "datetime": {"gte": "2019-04-01T00:00:00Z"}}
    assert ids(client.search(method=method, query=by_query, limit=2)) == wanted
    search = client.search(method=method, filter=CLEAR, limit=2)
    assert (ids(search), search.matched()) == (wanted, len(wanted))
    both = client.search(
        method=method, filter="platform = 'sentinel-2a'", query=by_query, bbox=[11, 45, 13, 47]
    )
    assert ids(both) == [name for name in wanted if name.startswith("S2A")]
    nowhere = client.search(method=method, filter="eo:cloud_cover < 10", bbox=[0, 0, 1, 1])
    assert ids(nowhere) == []


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_sortby_orders_over_all_pages(client, entries, method):
    share = clouds(entries)
    search = client.search(method=method, sortby="-properties.eo:cloud_cover,+id", limit=4)
    assert ids(search) == sorted(share, key=lambda name: (-share[name], name))
    assert ids(client.search(method=method, sortby="+datetime")) == [e.item_id for e in reversed(entries)]


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_fields_make_items_small(client, method):
    search = client.search(method=method, fields=["+properties.platform", "-assets", "-links"], limit=7)
    found = list(search.items_as_dicts())
    assert len(found) == 29
    assert {tuple(sorted(one["properties"])) for one in found} == {("datetime", "platform")}
    assert not any(one.keys() & {"assets", "links"} for one in found)
    whole = next(client.search(method=method, fields="id", limit=1).items())  # a valid item by itself
    assert set(whole.assets) == {"blue", "green", "red", "nir", "swir16", "scl"}


def test_items_of_a_collection_are_filtered_and_sorted_too(http, entries):
    asked = {"filter": CLEAR, "sortby": "eo:cloud_cover", "fields": "eo:cloud_cover", "limit": 2}
    page = http.get(f"/collections/{COLLECTION}/items", params=asked).json()
    seen = [one["properties"]["eo:cloud_cover"] for one in page["features"]]
    rest = http.get(next(link["href"] for link in page["links"] if link["rel"] == "next")).json()
    seen += [one["properties"]["eo:cloud_cover"] for one in rest["features"]]
    assert (
        seen
        == sorted(
            clouds(entries)[e.item_id] for e in entries if clouds([e])[e.item_id] < 10 and e.start.month >= 4
        )[:4]
    )
    assert set(rest["features"][0]["properties"]) == {"datetime", "eo:cloud_cover"}


def test_queryables_name_the_properties(client, entries):
    for schema in (client.get_queryables(), client.get_collection(COLLECTION).get_queryables()):
        assert schema["properties"].keys() >= entries[0].item["properties"].keys() | {"id", "geometry"}
        assert schema["properties"]["eo:cloud_cover"] == {"type": "number"}


@pytest.mark.parametrize("served", [(), ("query",), ("filter", "fields")])
def test_a_server_that_knows_less_says_so_and_refuses(small_world, served):
    asked = {
        "query": {"query": {"eo:cloud_cover": {"lt": 10}}},
        "filter": {"filter": "eo:cloud_cover < 10"},
        "sort": {"sortby": [{"field": "datetime"}]},
        "fields": {"fields": {"include": ["id"]}},
    }

    async def ask() -> tuple[list[str], dict[str, int], int]:
        transport = httpx.ASGITransport(make_app([small_world.catalog], served))
        async with httpx.AsyncClient(transport=transport, base_url="http://api") as http:
            claims = (await http.get("/")).json()["conformsTo"]
            codes = {n: (await http.post("/search", json=body)).status_code for n, body in asked.items()}
            return claims, codes, (await http.get("/queryables")).status_code

    claims, codes, queryables = asyncio.run(ask())
    assert {name for name in asked if any(c.endswith(f"item-search#{name}") for c in claims)} == set(served)
    assert codes == {name: 200 if name in served else 400 for name in asked}
    assert queryables == (200 if "filter" in served else 404)


def test_the_server_process_takes_the_extensions(small_world):
    with serve([small_world.catalog], extensions=["sort"]) as server:
        claims = httpx.get(server.url).json()["conformsTo"]
        assert [c for c in claims if "#" in c] == [
            f"https://api.stacspec.org/v1.0.0/{part}#sort" for part in ("item-search", "ogcapi-features")
        ]
    with (
        pytest.raises(BadInputError, match="no extension 'cql'"),
        serve([small_world.catalog], extensions=["cql"]),
    ):
        pytest.fail("served what there is not")


def test_rasterio_reads_an_asset_by_ranges(client, entries):
    asset = next(client.search(ids=[entries[-1].item_id]).items()).assets["red"]
    with rasterio.open(entries[-1].item["assets"]["red"]["href"]) as local:
        expected = local.read(1, window=((40, 60), (100, 130)))
    options = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR", "CPL_VSIL_CURL_NON_CACHED": "/vsicurl/"}
    with rasterio.Env(**options), rasterio.open(f"/vsicurl/{asset.href}") as remote:
        assert np.array_equal(remote.read(1, window=((40, 60), (100, 130))), expected)


def test_a_range_is_answered_with_those_bytes(http, entries):
    item = http.get("/search", params={"ids": entries[0].item_id}).json()["features"][0]
    content = Path(entries[0].item["assets"]["scl"]["href"]).read_bytes()
    answer = http.get(item["assets"]["scl"]["href"], headers={"Range": "bytes=100-199"})
    assert (answer.status_code, answer.content) == (206, content[100:200])
    assert answer.headers["content-range"] == f"bytes 100-199/{len(content)}"
    head = http.head(item["assets"]["scl"]["href"])
    assert (head.status_code, head.headers["content-length"], head.content) == (200, str(len(content)), b"")


@pytest.mark.parametrize(
    "path",
    [
        "/data/0/catalog.json",
        "/data/0/../aoi.geojson",
        "/data/0/..%2faoi.geojson",
        "/data/0/%2e%2e/aoi.geojson",
        "/data/0//etc/passwd",
        "/data/0/%2fetc%2fpasswd",
        "/data/0/demo-s2-l2a/%00",
        "/data/1/catalog.json",
        "/data/-1/catalog.json",
        "/data/0/",
    ],
)
def test_nothing_but_assets_is_served(stac_api, path):
    host, port = stac_api.url.removeprefix("http://").split(":")
    with socket.create_connection(
        (host, int(port)), timeout=30
    ) as wire:  # a client library would tidy the path
        wire.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: wire.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 404"), answer[:200]


WRONG = [
    {"bbox": [1, 2, 3]},
    {"bbox": [1, 9, 2, 3]},
    {"bbox": [1, 2, 3, "x"]},
    {"bbox": "1,2,3,x"},
    {"bbox": [0, 0, 1, 1], "intersects": {"type": "Point", "coordinates": [0, 0]}},
    {"intersects": {"type": "Ball"}},
    {"intersects": {"type": "Polygon", "coordinates": []}},
    {"datetime": "2019-01-01"},
    {"datetime": "2019-02-30T00:00:00Z"},
    {"datetime": "../.."},
    {"datetime": "2019-05-01T00:00:00Z/2019-01-01T00:00:00Z"},
    {"datetime": "2019-05-01T00:00:00Z/2019-06-01T00:00:00Z/.."},
    {"datetime": 2019},
    {"limit": 0},
    {"limit": "many"},
    {"limit": True},
    {"token": "-1"},
    {"ids": [1]},
    {"collections": {"a": 1}},
    {"filter": "eo:cloud_cover <"},
    {"filter": {"op": "nand", "args": []}},
    {"filter": "eo:cloud_cover < 10", "filter-lang": "ecql"},
    {"filter": "eo:cloud_cover < 10", "filter-crs": "EPSG:3857"},
    {"query": {"eo:cloud_cover": 10}},
    {"query": {"eo:cloud_cover": {"under": 10}}},
    {"sortby": "no_such_property"},
    {"sortby": [{"field": "id", "direction": "up"}]},
    {"fields": ["id"]},
    {"q": "cloud"},
]


@pytest.mark.parametrize("body", WRONG, ids=json.dumps)
def test_a_wrong_search_is_refused_with_a_reason(http, body):
    answer = http.post("/search", json=body)
    assert answer.status_code == 400
    assert answer.json()["description"].startswith("search: ")


@pytest.mark.parametrize(
    "query",
    ["bbox=1,2,3", "datetime=x", "limit=0", "limit=-1", "intersects=%7B", "filter=1", "query=x", "q=x"],
)
def test_a_wrong_get_is_refused_too(http, query):
    for path in ("/search", f"/collections/{COLLECTION}/items"):
        answer = http.get(f"{path}?{query}")
        assert (answer.status_code, answer.headers["content-type"]) == (400, "application/json")


def test_broken_bodies_and_unknown_places(http):
    assert http.post("/search", content=b"{").status_code == 400
    assert http.post("/search", content=b"[" * 100_000).status_code == 400
    assert http.post("/search", content=b"[]").status_code == 400
    for path in (
        "/collections/none",
        "/collections/none/items",
        f"/collections/{COLLECTION}/items/none",
        "/nowhere",
    ):
        answer = http.get(path)
        assert (answer.status_code, answer.json()["code"]) == (404, "404")


def test_a_plain_open_in_this_process_does_not_block(client, entries):
    # without options GDAL looks for files beside the asset, in part while it holds Python's lock
    href = next(client.search(ids=[entries[-1].item_id]).items()).assets["nir"].href
    with rasterio.open(href) as source:
        assert source.shape == (512, 461)
        assert source.read(1, window=((0, 8), (0, 8))).all()


def test_the_server_ends_with_its_parent_even_when_that_is_killed(small_world):
    code = "import sys; from pathlib import Path; from chipmill.demo.api import serve\n"
    code += "with serve([Path(sys.argv[1])]) as s: print(s.url, flush=True); sys.stdin.read()"
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(small_world.catalog)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with parent:
        url = parent.stdout.readline().strip()
        assert httpx.get(url).status_code == 200
        servers = psutil.Process(parent.pid).children()
        parent.kill()
    assert psutil.wait_procs(servers, timeout=15)[1] == []
    with pytest.raises(httpx.ConnectError):
        httpx.get(url)


def test_a_broken_catalog_is_told_to_the_caller(tmp_path):
    with pytest.raises(BadInputError, match=r"catalog\.json cannot be read"), serve([tmp_path]):
        pytest.fail("served nothing")


def test_the_server_ends_and_frees_its_port(small_world):
    with serve([small_world.catalog]) as first:
        port = int(first.url.rsplit(":", 1)[1])
        with pytest.raises(ServerError, match="use port 0"), serve([small_world.catalog], port=port):
            pytest.fail("two servers on one port")
    with serve([small_world.catalog], port=port) as again:
        assert again.url == first.url
        assert httpx.get(again.url).status_code == 200
    with pytest.raises(httpx.ConnectError):
        httpx.get(first.url)


def test_only_loopback(small_world):
    with pytest.raises(BadInputError, match="use 127"), serve([small_world.catalog], host="0.0.0.0"):
        pytest.fail("listens to the world")


@pytest.mark.real
def test_real_catalog_beside_the_simulated_one(small_world, shared_data):
    with serve([small_world.catalog, shared_data / "catalog"]) as server:
        client = pystac_client.Client.open(server.url, timeout=30)
        assert len(list(client.get_collections())) == 5
        found = list(client.search(collections=["boadella-s2-l2a"], datetime="2020", limit=5).items())
        assert [item.datetime.date().isoformat() for item in found][:2] == ["2020-09-14", "2020-06-21"]
        with rasterio.open(found[0].assets["nir"].href) as source:
            assert source.shape == (377, 380)


@pytest.mark.real
def test_the_same_collection_twice_is_refused(shared_data):
    with (
        pytest.raises(BadInputError, match="rename one"),
        serve([shared_data / "catalog", shared_data / "catalog"]),
    ):
        pytest.fail("ambiguous")
