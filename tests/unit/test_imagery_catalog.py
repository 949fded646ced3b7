"""Search, filter, freeze and load: from static catalogs, files and a live API; what is left out is said."""

import contextlib
import datetime as dt
import json
import shutil

import numpy as np
import pytest
from tests import imagery_world as iw
from tests.fault_archive import serve

from chipmill.core.errors import BadInputError, ItemSearchError
from chipmill.core.store import sha256_file
from chipmill.imagery import sources
from chipmill.imagery.catalog import find_items, load_items, search_items
from chipmill.imagery.freeze import read_items, write_items
from chipmill.imagery.hrefs import relative_href, resolve_href, source_root
from chipmill.imagery.items import acquisitions
from chipmill.imagery.label_items import find_label_items
from chipmill.imagery.static import catalog_items
from chipmill.orchestration.jobs import Job, look, prepare
from chipmill.region.plan import cell_dir


def pixels():
    return {name: np.full((iw.SIDE, iw.SIDE), 500, np.uint16) for name in ("red", "nir")}


MASK = np.full((iw.SIDE, iw.SIDE), iw.CLEAR, np.uint8)


@pytest.fixture
def archive(tmp_path):
    made = iw.Archive(tmp_path / "archive")
    for when in ("2019-02-01", "2019-03-01", "2018-12-31", "2020-01-01"):
        made.scene(when, pixels(), MASK, **{"eo:cloud_cover": 10.0})
    return made


def search(tmp_path, archive, **more):
    region = iw.region(tmp_path, {"catalog": str(archive.write())}, **more)
    return find_items(region, iw.plan(region).tiles())


def ids(answer):
    return [item.item_id for item in answer.items]


def test_a_static_catalog_is_filtered_by_time_with_the_end_excluded(tmp_path, archive):
    assert ids(search(tmp_path, archive)) == ["s2019-02-01", "s2019-03-01"]


def test_an_item_elsewhere_is_not_taken(tmp_path, archive):
    archive.scene("2019-04-01", pixels(), MASK, place=iw.transform() @ sources.Affine.translation(500, 0))
    assert ids(search(tmp_path, archive)) == ["s2019-02-01", "s2019-03-01"]


def test_scene_cloud_max_is_applied_to_numbers_and_said(tmp_path, archive):
    archive.items[0]["properties"]["eo:cloud_cover"] = 9.0  # "9" > "10" as text
    archive.items[1]["properties"]["eo:cloud_cover"] = 50
    answer = search(tmp_path, archive, imagery={"scene_cloud_max_pct": 10})
    assert ids(answer) == ["s2019-02-01"]
    assert answer.notes == ("s2: 1 items above scene_cloud_max_pct 10",)


def test_the_newest_processing_of_a_doubled_item_is_used(tmp_path, archive):
    path = archive.write()
    old, new = archive.items[0], json.loads(json.dumps(archive.items[0]))
    old["properties"]["updated"], new["properties"]["updated"] = (
        "2021-01-01T00:00:00Z",
        "2022-01-01T00:00:00Z",
    )
    for item in (old, new):
        for asset in item["assets"].values():
            asset["href"] = f"s2019-02-01/{asset['href'][2:]}"
    listing = path.parent / "items.geojson"
    listing.write_text(json.dumps({"type": "FeatureCollection", "features": [new, old]}))
    region = iw.region(tmp_path, {"items": str(listing)})
    answer = find_items(region, iw.plan(region).tiles())
    assert [item.updated for item in answer.items] == ["2022-01-01T00:00:00Z"]
    assert "1 doubled items" in answer.notes[0]


def test_odd_items_are_left_out_and_named(tmp_path, archive):
    archive.items[0]["geometry"] = None
    answer = search(tmp_path, archive)
    assert ids(answer) == ["s2019-03-01"]
    assert "s2019-02-01 has no usable geometry" in answer.notes[0]


def test_a_dead_link_is_an_error(tmp_path, archive):
    path = archive.write()
    (archive.folder / "s2019-02-01" / "s2019-02-01.json").unlink()
    region = iw.region(tmp_path, {"catalog": str(path)})
    tiles = iw.plan(region).tiles()
    with pytest.raises(ItemSearchError, match=r"s2019-02-01\.json cannot be read"):
        find_items(region, tiles)


@pytest.mark.parametrize("href", ["../outside.json", "http://example.org/c.json", "/etc/passwd"])
def test_links_out_of_the_catalog_are_refused(tmp_path, archive, href):
    path = archive.write()
    node = json.loads(path.read_text())
    node["links"].append({"rel": "item", "href": href})
    path.write_text(json.dumps(node))
    region = iw.region(tmp_path, {"catalog": str(path)})
    tiles = iw.plan(region).tiles()
    with pytest.raises(ItemSearchError, match="not below"):
        find_items(region, tiles)


@pytest.mark.parametrize(
    ("links", "told"),
    [
        (["x"], "has links that are none"),
        ({"rel": "item"}, "has links that are none"),
        (5, "has links that are none"),
        ([{"rel": "item", "href": "a\0b.json"}], "cannot be read as JSON"),
    ],
)
def test_links_that_are_none_are_one_sentence(tmp_path, links, told):
    path = tmp_path / "catalog.json"
    path.write_text(json.dumps({"type": "Catalog", "id": "root", "links": links}))
    with pytest.raises(ItemSearchError, match=told):
        list(catalog_items(path, None))


def test_a_catalog_that_links_in_a_circle_ends(tmp_path, archive):
    path = archive.write()
    node = json.loads((archive.folder / "collection.json").read_text())
    node["links"].append({"rel": "child", "href": "./catalog.json"})
    (archive.folder / "collection.json").write_text(json.dumps(node))
    region = iw.region(tmp_path, {"catalog": str(path)})
    tiles = iw.plan(region).tiles()
    with pytest.raises(ItemSearchError, match="linked twice"):
        find_items(region, tiles)


@pytest.mark.parametrize(
    "href", ["../../secret.tif", "/etc/passwd", "/vsicurl/http://x/y.tif", "s3://b/k.tif"]
)
def test_hrefs_out_of_the_archive_leave_the_item_out_with_the_reason(tmp_path, archive, href):
    archive.items[0]["assets"]["red"]["href"] = href
    item = search(tmp_path, archive).items[0]
    assert "leads outside" in item.problem or "is not read" in item.problem


def test_nothing_left_is_an_error_that_says_why(tmp_path, archive):
    with pytest.raises(ItemSearchError, match=r"no item of .* of 4 that the source gave \(s2: 2 items above"):
        search(tmp_path, archive, imagery={"scene_cloud_max_pct": 5})


def test_an_unknown_index_is_refused_before_the_search(tmp_path, archive):
    with pytest.raises(ValueError, match=r"indices\.0"):
        search(tmp_path, archive, indices=["ndxx"])
    with pytest.raises(BadInputError, match="needs the bands green, nir"):
        search(tmp_path, archive, indices=["ndwi"])


@pytest.mark.parametrize("check", ["warn", "exclude", "stop"])
def test_an_item_that_contradicts_itself_is_left_out_or_stops_the_search(tmp_path, archive, check):
    for item in archive.items:
        item["collection"] = "sentinel-2-l2a"
    archive.items[0]["properties"]["s2:processing_baseline"] = "02.14"
    archive.items[0]["assets"]["red"]["raster:bands"][0]["offset"] = -0.1
    listing = archive.write().parent / "items.geojson"
    for item in archive.items:
        for asset in item["assets"].values():
            asset["href"] = f"{item['id']}/{asset['href'][2:]}"
    listing.write_text(json.dumps({"type": "FeatureCollection", "features": archive.items}))
    region = iw.region(tmp_path, {"items": str(listing)}, imagery={"offset_check": check})
    tiles = iw.plan(region).tiles()
    if check == "stop":
        with pytest.raises(BadInputError, match="1 of 2 items that contradict themselves, and offset_check"):
            find_items(region, tiles)
        return
    answer = find_items(region, tiles)
    assert [item.offset_evidence for item in answer.items] == ["contradiction", "declared"]
    assert "1 of 2 items cannot be used" in answer.notes[0]


def test_frozen_items_come_back_as_they_were(tmp_path, archive):
    broken = archive.items[1]
    del broken["assets"]["nir"]
    answer = search(tmp_path, archive)
    write_items(tmp_path / "items.parquet", answer.items, answer.fingerprint)
    assert read_items(tmp_path / "items.parquet") == answer.items
    assert answer.items[1].problem


def test_freezing_nothing_is_a_table_too(tmp_path):
    write_items(tmp_path / "items.parquet", [], "f")
    assert read_items(tmp_path / "items.parquet") == ()


def test_other_programs_read_the_frozen_items(tmp_path, archive):
    import pyarrow.parquet as pq
    from stac_geoparquet.arrow import stac_table_to_items

    answer = search(tmp_path, archive)
    write_items(tmp_path / "items.parquet", answer.items, "f")
    items = list(stac_table_to_items(pq.read_table(tmp_path / "items.parquet")))
    assert [item["id"] for item in items] == ids(answer)
    assert items[0]["assets"]["red"]["href"] == "s2019-02-01/red.tif"


def test_another_folder_gives_the_same_bytes_and_the_same_fingerprint(tmp_path, archive):
    first = search(tmp_path, archive)
    write_items(tmp_path / "a.parquet", first.items, "f")
    shutil.move(archive.folder, tmp_path / "moved")
    archive.folder = tmp_path / "moved"
    second = search(tmp_path, archive)
    write_items(tmp_path / "b.parquet", second.items, "f")
    assert first.fingerprint == second.fingerprint
    assert sha256_file(tmp_path / "a.parquet") == sha256_file(tmp_path / "b.parquet")


@pytest.mark.parametrize("change", ["size", "updated", "offset"])
def test_the_fingerprint_changes_with_the_content(tmp_path, archive, change):
    before = search(tmp_path, archive).fingerprint
    if change == "size":
        path = archive.folder / "s2019-02-01" / "red.tif"
        path.write_bytes(path.read_bytes() + b"\0")
    elif change == "updated":
        archive.items[0]["properties"]["updated"] = "2024-05-05T00:00:00Z"
    else:
        archive.items[0]["assets"]["red"]["raster:bands"][0]["offset"] = 0.5
    assert search(tmp_path, archive).fingerprint != before


def test_the_frozen_list_stays_when_the_archive_moves_on(tmp_path, archive):
    region = iw.region(tmp_path, {"catalog": str(archive.write())})
    plan = iw.plan(region)
    first = search_items(plan)
    archive.scene("2019-06-01", pixels(), MASK)
    archive.write()
    assert search_items(plan) == first
    assert len(load_items(first)) == first.count == 2


def test_a_catalog_that_changed_is_reported_by_count_and_never_mixed_in(tmp_path, archive):
    region = iw.region(tmp_path, {"catalog": str(archive.write())}, labels=None)
    job = Job("build", region)
    with contextlib.ExitStack() as held:
        assert prepare(job, look(job), held) == ""
    path = cell_dir(region).versions.attempt_path(1) / "items.parquet"
    frozen = sha256_file(path)
    with contextlib.ExitStack() as held:
        assert prepare(job, look(job), held) == ""  # the same answer
    archive.scene("2019-06-01", pixels(), MASK)
    archive.scene("2019-07-01", pixels(), MASK)
    archive.items[0]["properties"]["updated"] = "2024-05-05T00:00:00Z"
    del archive.items[1]  # s2019-03-01
    archive.write()
    with contextlib.ExitStack() as held:
        told = prepare(job, look(job), held)
    assert told == (
        "the catalog answers differently by now (2 items new, 1 gone, 1 changed), the open attempt kept its 2 items "
        "(--new takes the new ones)"
    )
    assert sha256_file(path) == frozen
    with contextlib.ExitStack() as held:
        assert prepare(job, look(job), held, new=True) == ""
    (attempt,) = cell_dir(region).versions.attempts()
    taken = read_items(cell_dir(region).versions.attempt_path(attempt) / "items.parquet")
    assert [one.item_id for one in taken] == ["s2019-02-01", "s2019-06-01", "s2019-07-01"]


def test_an_api_gives_what_the_static_catalog_gives(tmp_path, archive):
    static = search(tmp_path, archive)
    ports = []
    for name in ("one", "two"):
        with serve(archive.folder) as server:
            ports.append(server.url)
            features = json.loads(json.dumps(archive.items))
            for item in features:
                for asset in item["assets"].values():
                    asset["href"] = f"{server.url}/{item['id']}/{asset['href'][2:]}"
                    asset["file:size"] = (
                        (archive.folder / asset["href"].removeprefix(f"{server.url}/")).stat().st_size
                    )
            server.search = lambda body, features=features: {
                "type": "FeatureCollection", "features": features, "links": [], "numberMatched": len(features),
                "seen": body,
            }  # fmt: skip
            region = iw.region(tmp_path, {"stac": f"{server.url}/stac", "collection": "toy"})
            tiles = iw.plan(region).tiles()
            answer = find_items(region, tiles)
            assert answer.fingerprint == static.fingerprint
            assert len(server.requests) == 2  # landing page and one page
            write_items(tmp_path / f"{name}.parquet", answer.items, "f")
            href = answer.items[0].assets["red"].href
            assert href == "/s2019-02-01/red.tif"
            assert resolve_href(source_root(region, region.imagery[0].source), href) == f"{server.url}{href}"
    assert ports[0] != ports[1]
    assert sha256_file(tmp_path / "one.parquet") == sha256_file(tmp_path / "two.parquet")


def test_the_demo_is_searched_through_its_api(small_world, stac_api, tmp_path):
    values = {
        "bands": {"red": "red", "nir": "nir"},
        "source": {"stac": stac_api.url, "collection": "demo-s2-l2a"},
    }
    through_file = {
        **values,
        "source": {"catalog": str(small_world.catalog / "catalog.json"), "collection": "demo-s2-l2a"},
    }
    answers = []
    for imagery in (values, through_file):
        region = iw.region(tmp_path, imagery["source"], imagery=imagery)
        west, south, east, north = _demo_bounds(small_world)
        region = region.model_copy(update={"aoi": region.aoi.model_copy(update={"bbox": (west, south, east, north), "rule": "intersects"}),
                                           "time": region.time.model_copy(update={"range": (dt.date(2000, 1, 1), dt.date(2100, 1, 1))}),
                                           "grid": region.grid.model_copy(update={"crs": "auto", "tile_px": 1024})})  # fmt: skip
        answers.append(find_items(region, iw.plan(region).tiles()))
    assert ids(answers[0]) == ids(answers[1])
    assert len(answers[0].items) >= 12
    assert not any(item.problem for item in answers[0].items)


def _demo_bounds(world):
    from chipmill.demo.engine import load_archive

    boxes = [
        entry.item["bbox"]
        for entry in load_archive(world.catalog).entries
        if entry.item["collection"] == "demo-s2-l2a"
    ]
    return (
        min(b[0] for b in boxes),
        min(b[1] for b in boxes),
        max(b[2] for b in boxes),
        max(b[3] for b in boxes),
    )


@pytest.mark.parametrize(
    ("root", "base", "href", "stored"),
    [
        ("https://a.org/api", "https://a.org/api/items/i", "https://a.org/api/x/red.tif", "x/red.tif"),
        ("https://a.org/api", "https://a.org/api/items/i", "https://a.org/files/red.tif", "/files/red.tif"),
        ("https://a.org/api", "https://a.org/api/items/i", "red.tif", "items/red.tif"),
        (
            "https://a.org/api",
            "https://a.org/api/",
            "https://b.org/red.tif?sig=abc&se=1&v=2",
            "https://b.org/red.tif?v=2",
        ),
        ("/data/cat", "/data/cat/c/i/i.json", "./red.tif", "c/i/red.tif"),
        ("/data/cat", "/data/cat/c/i/i.json", "file:///data/cat/x.tif", "x.tif"),
    ],
)
def test_hrefs_are_stored_unsigned_and_relative_and_come_back(root, base, href, stored):
    assert relative_href(root, base, href) == stored
    assert resolve_href(root, stored).endswith(stored.lstrip("/"))


@pytest.mark.parametrize(
    "href",
    [
        "http://127.0.0.1/x.tif",
        "http://localhost/x.tif",
        "http://10.0.0.8/x.tif",
        "http://169.254.169.254/latest",
    ],
)
def test_a_public_catalog_does_not_lead_to_private_hosts(href):
    with pytest.raises(ItemSearchError, match="private host"):
        relative_href("https://a.org/api", "https://a.org/api/", href)


def test_an_api_does_not_lead_to_local_files():
    with pytest.raises(ItemSearchError):
        resolve_href("https://a.org/api", "file:///etc/passwd")


@pytest.mark.real
def test_boadella_by_catalog_and_by_list(shared_data, tmp_path):
    found = []
    for kind, name in (("catalog", "catalog.json"), ("items", "items.geojson")):
        region = boadella(
            tmp_path, {kind: str(shared_data / "catalog" / name), "collection": "boadella-s2-l2a"}
        )
        found.append(find_items(region, iw.plan(region).tiles()))
    assert found[0].items == found[1].items
    assert len(found[0].items) == 12
    assert len(acquisitions(found[0].items)) == 12
    assert {item.offset_evidence for item in found[0].items} == {"declared"}


@pytest.mark.real
def test_boadella_label_items(shared_data, tmp_path):
    source = {"catalog": str(shared_data / "catalog" / "catalog.json")}
    tiles = {"from": "label-items", "source": source, "collection": "boadella-labels", "asset": "labels"}
    region = boadella(tmp_path, {**source, "collection": "boadella-s2-l2a"}, tiles=tiles)
    items = find_label_items(region, (2.7, 42.3, 2.9, 42.4))
    assert [item.time.date().isoformat() for item in items] == [
        "2020-02-02",
        "2020-06-21",
        "2020-09-14",
        "2021-07-16",
    ]
    assert {(item.epsg, item.width, item.height) for item in items} == {(4326, 380, 377)}
    assert items[0].href == "boadella-labels/LABEL_BOADELLA_20200202/labels.tif"
    with pytest.raises(ItemSearchError, match="no label item"):
        find_label_items(region, (0.0, 0.0, 1.0, 1.0))


def boadella(folder, source, **more):
    bands = {"bands": {"red": "red", "nir": "nir"}, "mask": {"asset": "scl"}}
    region = iw.region(folder, source, imagery=bands, **more)
    return region.model_copy(
        update={
            "aoi": region.aoi.model_copy(update={"bbox": (2.80, 42.34, 2.83, 42.36), "rule": "intersects"}),
            "grid": region.grid.model_copy(update={"crs": "EPSG:32631", "tile_px": 512}),
            "time": region.time.model_copy(update={"range": (dt.date(2015, 1, 1), dt.date(2030, 1, 1))}),
        }
    )
