"""Item lists in an object store: who is asked and by which login, and that no fault of a store is silent."""

import datetime as dt
import json
import os

import numpy as np
import pytest
from pydantic import ValidationError
from tests import imagery_world as iw
from tests import store_world
from tests.store_world import serve_store
from tests.unit.test_imagery_geoparquet import HERE, YEAR, item

from chipmill.core.errors import AssetReadError, BadInputError, ItemSearchError
from chipmill.imagery import objects, stores
from chipmill.imagery.geoparquet import write_parquet_items
from chipmill.imagery.hrefs import resolve_href, source_path, source_root
from chipmill.imagery.listing import listed_items
from chipmill.imagery.objects import read_object
from chipmill.imagery.reach import Location, Reach, Root, origin
from chipmill.imagery.signing import sign, signed
from chipmill.imagery.sources import open_asset
from chipmill.imagery.stores import folder_url, object_url
from chipmill.region.fields import S3_LOGIN, Auth

KINDS = ("json", "parquet")
LOGIN = "AKIDEXAMPLE", "very/secret+value"


@pytest.fixture
def store(tmp_path, monkeypatch):
    for name in (*stores._ENDPOINTS, *stores._REGIONS, S3_LOGIN[0], S3_LOGIN[1]):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(
        objects, "RETRY", {**objects.RETRY, "total": 2, "backoff_factor": 0, "backoff_jitter": 0}
    )
    folder = tmp_path / "store" / "bucket" / "lists"
    folder.mkdir(parents=True)
    items = [item("a"), item("b")]
    (folder / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    write_parquet_items(folder / "items.parquet", items)
    with serve_store(tmp_path / "store") as served:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", served.url)
        yield served


def folder(place):
    """Return the root of a source whose list is ``place``."""
    url = folder_url(place)
    return Root(url, Reach(origin(url)[1]), Auth())


def listed(tmp_path, kind, name="items", auth="none"):
    imagery = {"auth": {"kind": auth}}
    region = iw.region(tmp_path, {"items": f"s3://bucket/lists/{name}.{kind}"}, imagery=imagery)
    entry = region.imagery[0]
    return list(listed_items(region, entry.source, YEAR, HERE, entry.auth))


@pytest.mark.parametrize("kind", KINDS)
def test_a_list_is_read_and_its_hrefs_begin_at_its_own_url(tmp_path, store, kind):
    found = listed(tmp_path, kind)
    assert [raw["id"] for raw, _ in found] == ["a", "b"]
    assert {base for _, base in found} == {f"{store.url}/bucket/lists/items.{kind}"}
    region = iw.region(tmp_path, {"items": f"s3://bucket/lists/items.{kind}"})
    root = source_root(region, region.imagery[0].source)
    assert root == f"{store.url}/bucket/lists/"
    assert resolve_href(root, "a.tif") == f"{store.url}/bucket/lists/a.tif"


@pytest.mark.parametrize("kind", KINDS)
def test_hrefs_of_objects_are_their_urls_in_the_same_store(tmp_path, store, kind):
    lists = store.folder / "bucket" / "lists"
    one = item(
        "a",
        assets={
            "red": {"href": "s3://scenes/x/red.tif"},
            "odd": {"href": "s3://../x"},
            "none": {"title": "x"},
        },
    )
    (lists / "far.json").write_text(json.dumps({"type": "FeatureCollection", "features": [one]}))
    write_parquet_items(lists / "far.parquet", [one])
    assets = listed(tmp_path, kind, "far")[0][0]["assets"]
    assert assets["red"]["href"] == f"{store.url}/scenes/x/red.tif"
    assert assets["odd"]["href"] == "s3://../x"  # for the gate to refuse


@pytest.mark.parametrize("kind", KINDS)
def test_a_login_is_used_only_where_the_source_says_so(tmp_path, store, kind, monkeypatch):
    """Neither ours nor that of the machine is lent to a region file that does not ask for it."""
    for name, value in zip((*S3_LOGIN, "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), LOGIN * 2, strict=True):
        monkeypatch.setenv(name, value)
    listed(tmp_path, kind)
    assert {login for *_, login in store.requests} == {""}
    store.requests.clear()
    listed(tmp_path, kind, auth="s3")
    assert all("X-Amz-Signature=" in login for *_, login in store.requests)


@pytest.mark.parametrize("kind", KINDS)
def test_a_private_bucket_is_read_by_the_login_in_the_environment(tmp_path, store, kind, monkeypatch):
    store.login = LOGIN[0]
    with pytest.raises(
        ItemSearchError, match=r"HTTP 403\): .*auth of kind s3 with CHIPMILL_SECRET_S3_ACCESS_KEY"
    ):
        listed(tmp_path, kind)
    monkeypatch.setenv(S3_LOGIN[0], LOGIN[0])
    with pytest.raises(BadInputError, match="CHIPMILL_SECRET_S3_SECRET_KEY is not set"):
        listed(tmp_path, kind, auth="s3")
    monkeypatch.setenv(S3_LOGIN[1], LOGIN[1])
    assert len(listed(tmp_path, kind, auth="s3")) == 2
    assert all(LOGIN[1] not in "".join(map(str, request)) for request in store.requests)
    monkeypatch.setenv(S3_LOGIN[0], "AKIDANOTHER")
    with pytest.raises(ItemSearchError, match=r"s3://bucket/lists/items\.") as told:
        listed(tmp_path, kind, auth="s3")
    assert LOGIN[1] not in str(told.value)
    assert "Signature" not in str(told.value)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_there_is_named(tmp_path, store, kind):
    with pytest.raises(
        ItemSearchError, match=rf"^s3://bucket/lists/gone\.{kind} cannot be read from {store.url}"
    ):
        listed(tmp_path, kind, "gone")


@pytest.mark.parametrize("kind", KINDS)
def test_a_busy_store_is_asked_again(tmp_path, store, kind):
    store.broken = 1
    assert len(listed(tmp_path, kind)) == 2
    assert len(store.requests) == 2  # and a small list is one request


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fault", ["503", "cut", "short", "other", "stall", "html"])
def test_no_fault_of_a_store_is_silent(tmp_path, store, kind, fault, monkeypatch):
    """A reader of Parquet that is given half of what it asked for has taken what lay in its memory for the rest."""
    monkeypatch.setattr(objects, "TIMEOUT_S", (5.0, 0.2))
    monkeypatch.setattr(objects, "_TAIL", 20_000)
    assert len(listed(tmp_path, kind)) == 2
    store.broken, store.half = (1000, "") if fault == "503" else (0, fault)
    with pytest.raises(ItemSearchError, match=rf"^s3://bucket/lists/items\.{kind} "):
        listed(tmp_path, kind)


@pytest.mark.parametrize("fault", ["cut", "short", "other", "stall", "html"])
def test_no_fault_in_the_middle_of_an_object_is_silent(store, fault, monkeypatch):
    monkeypatch.setattr(objects, "TIMEOUT_S", (5.0, 0.2))
    monkeypatch.setattr(objects, "_TAIL", 100)
    data = (store.folder / "bucket" / "lists" / "items.parquet").read_bytes()
    place = "s3://bucket/lists/items.parquet"
    with objects.open_object(place, folder(place)) as stream:
        stream.seek(-2000, os.SEEK_END)
        assert (stream.read(50), stream.tell()) == (data[-2000:-1950], len(data) - 1950)
        assert stream.read() == data[-1950:]
        assert stream.read(1) == b""
        store.half = fault
        stream.seek(1000)
        with pytest.raises(ItemSearchError, match=r"^s3://bucket/lists/items\.parquet cannot be read"):
            stream.read(500)


def test_an_object_that_changes_while_it_is_read_is_an_error(store, monkeypatch):
    monkeypatch.setattr(objects, "_TAIL", 100)
    place = "s3://bucket/lists/items.parquet"
    path = store.folder / "bucket" / "lists" / "items.parquet"
    with objects.open_object(place, folder(place)) as stream:
        assert len(stream.read(10)) == 10
        path.write_bytes(path.read_bytes()[:-1] + b"x")
        with pytest.raises(ItemSearchError, match="not those that were asked for"):
            stream.read(10)


def test_a_store_that_knows_no_ranges_is_read_whole(store, tmp_path, monkeypatch):
    monkeypatch.setattr(store_world.Handler, "_part", lambda self, data: self._send(200, data))
    assert [len(listed(tmp_path, kind)) for kind in KINDS] == [2, 2]


def test_a_list_that_is_no_object_or_too_large_is_refused(tmp_path, store):
    (store.folder / "bucket" / "lists" / "list.json").write_text("[]")
    with pytest.raises(ItemSearchError, match="holds a JSON list, expected an object"):
        listed(tmp_path, "json", "list")
    with pytest.raises(ItemSearchError, match="larger than 10 bytes"):
        read_object("s3://bucket/lists/items.json", folder("s3://bucket/lists/items.json"), 10)


@pytest.mark.parametrize("endpoint", ["ftp://h", "https://user:pw@h", "https://", "h:9000", "https://h?x=1"])
def test_an_endpoint_that_is_none_is_refused_by_its_variable(store, monkeypatch, endpoint):
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
    with pytest.raises(BadInputError, match="AWS_ENDPOINT_URL_S3 is no") as told:
        object_url("s3://bucket/a")
    assert "pw" not in str(told.value)


def test_without_an_endpoint_the_store_is_that_of_the_region(monkeypatch, store):
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3")
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    assert folder_url("s3://bucket/a b/c.json".replace(" ", "+")) == (
        "https://s3.eu-central-1.amazonaws.com/bucket/a%2Bb/"
    )
    monkeypatch.setenv("AWS_REGION", "evil.example.org/x")
    with pytest.raises(BadInputError, match="AWS_REGION is no name"):
        object_url("s3://bucket/a")


def test_a_path_is_one_of_this_machine(tmp_path):
    region = iw.region(tmp_path, {"items": "lists/x.parquet"})
    assert source_path(region, region.imagery[0].source) == tmp_path / "lists" / "x.parquet"
    assert str(source_root(region, region.imagery[0].source)) == str(tmp_path / "lists")


def test_a_signature_is_that_of_the_published_example(monkeypatch):
    """Amazon S3 API reference, "Authenticating Requests: Using Query Parameters", with its validity of a day."""
    monkeypatch.setenv(S3_LOGIN[0], "AKIAIOSFODNN7EXAMPLE")
    monkeypatch.setenv(S3_LOGIN[1], "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
    for name in stores._REGIONS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(stores, "_VALID_S", 86400)
    made = stores.presigned(
        "https://examplebucket.s3.amazonaws.com/test.txt", dt.datetime(2013, 5, 24, tzinfo=dt.UTC)
    )
    assert made == (
        "https://examplebucket.s3.amazonaws.com/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256&"
        "X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Date=20130524T000000Z&"
        "X-Amz-Expires=86400&X-Amz-SignedHeaders=host&"
        "X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
    )


def test_only_what_lies_in_the_store_is_signed_and_keeps_its_url_for_a_while(store, monkeypatch):
    inside = f"{store.url}/bucket/a.tif"
    ours, others = Auth(kind="s3"), Auth()
    assert signed(located(inside, ours))
    assert not signed(located(inside, others))
    assert not signed(located("https://example.org/bucket/a.tif", ours))
    assert not signed(located(f"{store.url.replace('0.0.1', '0.0.1.example.org')}/bucket/a.tif", ours))
    with pytest.raises(BadInputError, match="needs a login"):
        sign(located(inside, ours))
    for name, value in zip(S3_LOGIN, LOGIN, strict=True):
        monkeypatch.setenv(name, value)
    assert sign(located(inside, others)) == inside
    assert sign(located(inside, ours)).startswith(f"{inside}?X-Amz-Algorithm=")
    times = [dt.datetime(2020, 1, 1, 10, minute, 59, tzinfo=dt.UTC) for minute in (30, 39, 40)]
    first, same, later = (stores.presigned(inside, when) for when in times)
    assert first == same != later


def test_a_query_that_an_object_has_is_signed_along(store, monkeypatch):
    for name, value in zip(S3_LOGIN, LOGIN, strict=True):
        monkeypatch.setenv(name, value)
    made = stores.presigned(f"{store.url}/bucket/a b.tif?versionId=x/1&a=".replace(" ", "%20"))
    assert f"{store.url}/bucket/a%20b.tif?X-Amz-Algorithm=" in made
    assert "&a=&versionId=x%2F1&X-Amz-Signature=" in made


def test_an_asset_of_a_private_bucket_is_read(tmp_path, store, monkeypatch):
    path = iw.save(store.folder / "bucket" / "a.tif", np.full((16, 16), 7, np.uint16))
    store.login = LOGIN[0]
    with (
        pytest.raises(AssetReadError, match=r"HTTP (response code:|error code :) 403"),
        open_asset(located(f"{store.url}/bucket/a.tif", Auth())),
    ):
        pass
    for name, value in zip(S3_LOGIN, LOGIN, strict=True):
        monkeypatch.setenv(name, value)
    with open_asset(located(f"{store.url}/bucket/a.tif", Auth(kind="s3"))) as dataset:
        assert dataset.read(1).tolist() == np.full((16, 16), 7).tolist()
    assert path.is_file()


def located(url, auth):
    return Location(url, Reach(origin(url)[1]), auth)


def test_the_login_of_the_store_is_never_in_a_region_file():
    assert Auth(kind="s3").at_assets
    for more in ({"env": "CHIPMILL_SECRET_X"}, {"name": "X"}):
        with pytest.raises(ValidationError, match="its login is in CHIPMILL_SECRET_S3_ACCESS_KEY and"):
            Auth(kind="s3", **more)
