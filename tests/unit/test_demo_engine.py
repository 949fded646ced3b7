"""The search engine in process: reading static catalogs, links that lead astray, order and conditions."""

import json
from datetime import UTC, datetime

import pytest
from shapely.geometry import Point, box

from chipmill.core.errors import BadInputError
from chipmill.demo.engine import load_archive, search
from chipmill.demo.query import Query, parse_bbox, parse_datetime, parse_query, parse_text


def item(name: str, when: str | None = "2019-06-01T10:00:00Z", href: str = "./a.tif", **properties) -> dict:
    return {
        "type": "Feature",
        "id": name,
        "collection": "c",
        "geometry": {"type": "Point", "coordinates": [14.5, 46.0]},
        "properties": {"datetime": when, **properties},
        "assets": {"a": {"href": href}},
        "links": [],
    }


def catalog(folder, *items: dict, links: tuple[dict, ...] = ()):
    """Write a catalog with one collection `c` that holds `items`."""
    (folder / "c").mkdir(parents=True)
    for number, content in enumerate(items):
        (folder / "c" / f"{number}.json").write_text(json.dumps(content))
    own = [{"rel": "item", "href": f"./{number}.json"} for number in range(len(items))]
    back = {"rel": "parent", "href": "../catalog.json"}
    collection = {"type": "Collection", "id": "c", "links": [back, *own, *links]}
    (folder / "c" / "collection.json").write_text(json.dumps(collection))
    root = {"type": "Catalog", "id": "r", "links": [{"rel": "child", "href": "./c/collection.json"}]}
    (folder / "catalog.json").write_text(json.dumps(root))
    return folder


def found(archive, **fields) -> list[str]:
    return [entry.item_id for entry in search(archive.entries, parse_query(fields)).entries]


def test_newest_first_then_by_id(tmp_path):
    days = {"b": "2019-06-01T10:00:00Z", "a": "2019-06-01T12:00:00+02:00", "z": "2019-07-01T00:00:00Z"}
    archive = load_archive(catalog(tmp_path / "r", *(item(name, when) for name, when in days.items())))
    assert found(archive) == ["z", "a", "b"]


def test_pages_cover_the_answer_once(tmp_path):
    archive = load_archive(catalog(tmp_path / "r", *(item(f"i{n}") for n in range(7))))
    token, seen = "0", []
    while token is not None:
        page = search(archive.entries, parse_query({"limit": 3, "token": token}))
        assert page.matched == 7
        seen.append([entry.item_id for entry in page.entries])
        token = page.next_token
    assert seen == [["i0", "i1", "i2"], ["i3", "i4", "i5"], ["i6"]]
    assert search(archive.entries, Query(offset=99)).entries == ()


def test_local_hrefs_become_paths_and_urls_stay(tmp_path):
    urls = ["https://example.org/a.tif", "s3://bucket/a.tif"]
    items = [item("l", href="../c/some%20file.tif"), *(item(f"u{n}", href=url) for n, url in enumerate(urls))]
    root = catalog(tmp_path / "r", *items)
    hrefs = {entry.item_id: entry.item["assets"]["a"]["href"] for entry in load_archive(root).entries}
    assert hrefs == {"l": str(root / "c" / "some file.tif"), "u0": urls[0], "u1": urls[1]}
    assert load_archive(root).files == {root / "c" / "some file.tif"}


@pytest.mark.parametrize(
    "href", ["../../secret.tif", "/etc/passwd", "file:///etc/passwd", "..%2f..%2fsecret.tif", "l/x"]
)
def test_assets_outside_the_folder_are_refused(tmp_path, href):
    root = catalog(tmp_path / "r", item("a", href=href))
    (root / "c" / "l").symlink_to(tmp_path)
    with pytest.raises(BadInputError, match="leads out of"):
        load_archive(root)


@pytest.mark.parametrize(
    "href", ["../../other/catalog.json", "http://example.org/catalog.json", "/etc/hostname"]
)
def test_links_outside_the_folder_are_never_followed(tmp_path, href):
    catalog(tmp_path / "other")
    root = catalog(tmp_path / "r", links=({"rel": "child", "href": href},))
    with pytest.raises(BadInputError, match="leads out of"):
        load_archive(root)


def test_loops_end_and_doubles_are_refused(tmp_path):
    loop = {"rel": "child", "href": "../catalog.json"}
    assert len(load_archive(catalog(tmp_path / "a", item("x"), links=(loop,))).entries) == 1
    with pytest.raises(BadInputError, match="'x' occurs twice"):
        load_archive(catalog(tmp_path / "b", item("x"), item("x")))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "cannot be read"),
        ("[]", "expected a JSON object, got list"),
        (json.dumps(item("a", None)), "both ends"),
        (json.dumps(item("a", "yesterday")), "yesterday"),
        (json.dumps({**item("a"), "geometry": {"type": "Ball"}}), "item file"),
    ],
)
def test_broken_files_are_named(tmp_path, content, reason):
    root = catalog(tmp_path / "r", item("a"))
    (root / "c" / "0.json").write_text(content)
    with pytest.raises(BadInputError, match=reason) as caught:
        load_archive(root)
    assert "0.json" in str(caught.value)


def test_a_folder_without_a_catalog(tmp_path):
    with pytest.raises(BadInputError, match=r"catalog\.json cannot be read"):
        load_archive(tmp_path)


def test_items_with_an_interval_match_by_overlap(tmp_path):
    month = item("m", None, start_datetime="2019-06-01T00:00:00Z", end_datetime="2019-06-30T00:00:00Z")
    archive = load_archive(catalog(tmp_path / "r", month))
    for text, hit in (
        ("2019-06-30T00:00:00Z/..", True),
        ("../2019-05-31T23:59:59Z", False),
        ("2019-06-10T00:00:00Z", True),
        ("2019-06-30T00:00:00.001Z/2020-01-01T00:00:00Z", False),
    ):
        assert bool(found(archive, datetime=text)) == hit, text


def test_an_item_without_a_place_is_in_no_area(tmp_path):
    archive = load_archive(catalog(tmp_path / "r", {**item("n"), "geometry": None}, item("p")))
    assert found(archive, bbox=[14, 45, 15, 47]) == ["p"]
    assert found(archive) == ["n", "p"]


def test_borders_touch(tmp_path):
    archive = load_archive(catalog(tmp_path / "r", item("p")))
    assert found(archive, bbox=[14.5, 46.0, 15, 47]) == ["p"]
    assert found(archive, bbox=[14.5000001, 46.0, 15, 47]) == []


def test_bbox_forms():
    assert parse_bbox([1, 2, 3, 4]).equals(box(1, 2, 3, 4))
    assert parse_bbox([1, 2, -50, 3, 4, 9000]).equals(box(1, 2, 3, 4))
    dateline = parse_bbox([170, -10, -170, 10])
    assert dateline.contains(Point(175, 0))
    assert dateline.contains(Point(-175, 0))
    assert not dateline.intersects(Point(0, 0))
    with pytest.raises(BadInputError, match="bbox"):
        parse_bbox([float("nan")] * 4)


def test_get_and_post_mean_the_same():
    body = {"collections": ["a", "b"], "ids": ["x"], "bbox": [1, 2, 3, 4], "limit": 5, "token": "10"}
    text = {"collections": "a,b", "ids": "x", "bbox": "1,2,3,4", "limit": "5", "token": "10"}
    assert parse_query(body) == parse_text(text)
    assert parse_query({"collections": "a"}).collections == frozenset({"a"})
    assert parse_query({"limit": 99_999_999}).limit == 10_000


def test_datetimes_are_compared_in_utc():
    start, end = parse_datetime("2019-06-01T02:00:00+02:00/2019-06-01t00:00:00.5z")
    assert start == datetime(2019, 6, 1, tzinfo=UTC)
    assert end == datetime(2019, 6, 1, 0, 0, 0, 500_000, tzinfo=UTC)
    assert parse_datetime("/2019-06-01T00:00:00Z") == (None, start)


@pytest.mark.real
def test_the_real_catalog_is_read_whole(shared_data):
    archive = load_archive(shared_data / "catalog")
    listed = json.loads((shared_data / "catalog" / "items.geojson").read_text())["features"]
    assert {(e.collection, e.item_id) for e in archive.entries} == {
        (i["collection"], i["id"]) for i in listed
    }
    assert all(file.exists() for file in archive.files)
