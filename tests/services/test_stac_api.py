"""The local STAC API over HTTP: pystac-client searches it, GDAL reads its files by ranges, wrong requests get 400."""

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
from chipmill.demo.api import serve
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


def east_and_west(entries):
    """Boxes inside the parts that only one granule, or every granule, covers."""
    west, south, east, north = np.array([e.geometry.bounds for e in entries]).T
    middle = (south.min() + north.max()) / 2
    width = east.max() - west.min()
    return [
        [west.min() + part * width, middle, west.min() + (part + 0.03) * width, middle + 0.001]
        for part in (0.95, 0.02)
    ]


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_paging_returns_every_item_once_in_order(client, entries, method):
    search = client.search(method=method, collections=[COLLECTION], limit=3)
    assert search.matched() == 15
    pages = [[item.id for item in page] for page in search.pages()]
    assert [len(page) for page in pages] == [3] * 5
    assert [name for page in pages for name in page] == [entry.item_id for entry in entries]


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_paging_keeps_the_other_conditions(client, method):
    search = client.search(method=method, datetime="2019-04-01/2019-06-30", bbox=[14, 45, 15, 47], limit=2)
    found = [item.datetime.date().isoformat() for item in search.items()]
    assert found == ["2019-06-16", "2019-06-16", "2019-05-27", "2019-05-02", "2019-04-07"]


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_bbox_finds_what_touches_it(client, entries, method):
    east, west = (ids(client.search(method=method, bbox=bbox)) for bbox in east_and_west(entries))
    assert set(west) - set(east) == {"S2A_DEMO_20190616_0", "S2A_DEMO_20190323_0", "S2B_DEMO_20190706_0"}
    assert set(east) - set(west) == {"S2A_DEMO_20190616_1"}
    assert ids(client.search(method=method, bbox=[0, 0, 1, 1])) == []


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_intersects_takes_a_geometry(client, entries, method):
    (west, south, east, north), _ = east_and_west(entries)
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
        ("../2019-03-23T10:10:21Z", 3),
        ("2019-10-09T08:59:00Z/..", 3),
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
        f"/collections/{COLLECTION}/items", params={"limit": 4, "datetime": "2019-07-01T00:00:00Z/.."}
    ).json()
    assert (page["numberMatched"], page["numberReturned"]) == (7, 4)
    following = next(link["href"] for link in page["links"] if link["rel"] == "next")
    rest = http.get(following).json()
    assert [f["id"] for f in rest["features"]] == [
        "S2B_DEMO_20190820_0",
        "S2A_DEMO_20190726_0",
        "S2B_DEMO_20190706_0",
    ]
    assert "next" not in [link["rel"] for link in rest["links"]]


def test_landing_page_claims_only_what_answers(http):
    landing = http.get("/").json()
    assert landing["conformsTo"] == http.get("/conformance").json()["conformsTo"]
    assert not [
        c for c in landing["conformsTo"] if "filter" in c or "sort" in c or "query" in c or "fields" in c
    ]
    for link in landing["links"]:
        assert http.request(link.get("method", "GET"), link["href"]).status_code == 200, link


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
    {"filter": "eo:cloud_cover < 10"},
    {"sortby": "datetime"},
]


@pytest.mark.parametrize("body", WRONG, ids=json.dumps)
def test_a_wrong_search_is_refused_with_a_reason(http, body):
    answer = http.post("/search", json=body)
    assert answer.status_code == 400
    assert answer.json()["description"].startswith("search: ")


@pytest.mark.parametrize(
    "query", ["bbox=1,2,3", "datetime=x", "limit=0", "limit=-1", "intersects=%7B", "fields=id"]
)
def test_a_wrong_get_is_refused_too(http, query):
    for path in ("/search", f"/collections/{COLLECTION}/items"):
        answer = http.get(f"{path}?{query}")
        assert (answer.status_code, answer.headers["content-type"]) == (400, "application/json")


def test_broken_bodies_and_unknown_places(http):
    assert http.post("/search", content=b"{").status_code == 400
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
    href = next(client.search(ids=[entries[0].item_id]).items()).assets["nir"].href
    with rasterio.open(href) as source:
        assert source.shape == (512, 512)
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
