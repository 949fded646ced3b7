"""Label items as the frozen list of a tile's imagery: the scenes that their `source` links name, and no others."""

import json

import numpy as np
import pytest
import shapely
from tests import imagery_world as iw
from tests.fault_archive import serve

from chipmill.core.errors import ItemSearchError
from chipmill.core.tables import RANKING, read_table
from chipmill.core.units import load_batches
from chipmill.imagery.catalog import find_items, load_items, search_items
from chipmill.imagery.freeze import read_items
from chipmill.imagery.label_items import find_label_items
from chipmill.imagery.planning import make_tiles, tile_aoi
from chipmill.imagery.ranking import close_ranking, rank_items

SOURCES = {"l1": ["s2019-02-01"], "l2": ["s2019-02-01", "s2019-03-01"], "l3": []}
"""Label -> the scenes that it was drawn from."""


def add_label(archive, name, when, sources, **changes):
    """Add a label item of the tile's place by hand; its links are relative to its own file."""
    iw.save(archive.folder / name / "label.tif", np.ones((iw.SIDE, iw.SIDE), np.uint8), nodata=255)
    outline = shapely.box(*iw._degrees(iw.transform(), (iw.SIDE, iw.SIDE), "EPSG:32633"))
    links = [{"rel": "source", "href": href} for href in sources]
    links.append({"rel": "via", "href": "../s2019-04-01/s2019-04-01.json"})
    item = {"type": "Feature", "stac_version": "1.0.0", "id": name, "collection": "toy-labels", "links": links,
            "geometry": shapely.geometry.mapping(outline), "bbox": list(outline.bounds),
            "properties": {"datetime": f"{when}T00:00:00Z"}, "assets": {"label": {"href": "./label.tif"}},
            **changes}  # fmt: skip
    archive.items.append(item)
    return item


class Archive(iw.Archive):
    """With its labels in a collection of their own."""

    def write(self):
        path = super().write()
        for kind in ("toy", "toy-labels"):
            names = [item["id"] for item in self.items if item["collection"] == kind]
            links = [{"rel": "item", "href": f"./{name}/{name}.json"} for name in names]
            node = {"type": "Collection", "id": kind, "links": links}
            (self.folder / f"{kind}.json").write_text(json.dumps(node))
        children = [{"rel": "child", "href": "./toy.json"}, {"rel": "child", "href": "./toy-labels.json"}]
        path.write_text(json.dumps({"type": "Catalog", "id": "root", "links": children}))
        return path


@pytest.fixture
def archive(tmp_path):
    made = Archive(tmp_path / "archive")
    pixels = {name: np.full((iw.SIDE, iw.SIDE), 500, np.uint16) for name in ("red", "nir")}
    mask = np.full((iw.SIDE, iw.SIDE), iw.CLEAR, np.uint8)
    for month in ("02", "03", "04"):
        made.scene(f"2019-{month}-01", pixels, mask)
    for number, (name, sources) in enumerate(SOURCES.items(), 5):
        add_label(made, name, f"2019-0{number}-01", [f"../{one}/{one}.json" for one in sources])
    return made


def region(folder, source, labels=None, **changes):
    tiles = {"from": "label-items", "source": labels or source, "collection": "toy-labels", "asset": "label",
             "source_links": True}  # fmt: skip
    around = {"around_label": {"before_days": 300, "after_days": 0}}
    time = {"range": ("2019-01-01", "2020-01-01"), "slots": around}
    values = {"tiles": tiles | changes.pop("tiles", {}), "time": time, "grid": {}}
    return iw.region(folder, {**source, "collection": "toy"}, **values, **changes)


def found(config):
    return find_items(config, make_tiles(config))


def test_each_tile_has_the_scenes_that_its_own_label_names(tmp_path, archive):
    config = region(tmp_path, {"catalog": str(archive.write())})
    plan = tile_aoi(config)
    items = search_items(plan)
    assert [(one.item_id, one.tiles) for one in load_items(items)] == [
        ("s2019-02-01", ("l1", "l2")),
        ("s2019-03-01", ("l2",)),
    ]
    for batch in load_batches(plan.attempt, "rank_items"):
        assert not rank_items(plan, items, batch).failed
    rows = read_table(close_ranking(plan, items).path, RANKING).to_pylist()
    assert sorted((row["tile_id"], *row["item_ids"]) for row in rows) == [
        ("l1", "s2019-02-01"), ("l2", "s2019-02-01"), ("l2", "s2019-03-01"),
    ]  # fmt: skip
    assert read_items(plan.version.items, ["s2019-03-01"]) == load_items(items)[1:]
    assert read_items(plan.version.items, []) == ()


def test_a_label_without_links_is_said_and_others_links_are_not_followed(tmp_path, archive):
    answer = found(region(tmp_path, {"catalog": str(archive.write())}))
    assert answer.notes == (
        "s2: 1 of 3 label items link to no item of its source: their tiles have none of it",
    )
    archive.items[3]["links"].append({"rel": "source", "href": "https://elsewhere.example.org/item.json"})
    archive.items[4]["links"].append({"rel": "source", "href": "../../../outside.json"})
    again = found(region(tmp_path, {"catalog": str(archive.write())}))
    assert again.fingerprint == answer.fingerprint


def test_a_label_that_the_source_no_longer_has_is_counted_as_one_without_links(tmp_path, archive):
    config = region(tmp_path, {"catalog": str(archive.write())})
    tiles = make_tiles(config)
    archive.items = [one for one in archive.items if one["id"] != "l1"]
    archive.write()
    answer = find_items(config, tiles)
    assert answer.notes[0].startswith("s2: 2 of 3 label items link to no item of its source")
    assert {one.tiles for one in answer.items} == {("l2",)}


def test_other_links_are_another_answer_and_without_the_option_nothing_changes(tmp_path, archive):
    first = found(region(tmp_path, {"catalog": str(archive.write())}))
    searched = found(region(tmp_path, {"catalog": str(archive.write())}, tiles={"source_links": False}))
    assert [one.item_id[6:8] for one in searched.items] == ["02", "03", "04"]
    assert not any(one.tiles for one in searched.items)
    archive.items[3]["links"].append({"rel": "source", "href": "../s2019-03-01/s2019-03-01.json"})
    assert found(region(tmp_path, {"catalog": str(archive.write())})).fingerprint != first.fingerprint


def test_a_dead_link_is_an_error_that_names_it(tmp_path, archive):
    archive.items[3]["links"][0]["href"] = "../s2019-09-09/s2019-09-09.json"
    config = region(tmp_path, {"catalog": str(archive.write())})
    with pytest.raises(ItemSearchError, match=r"s2019-09-09\.json cannot be read"):
        found(config)


def test_links_over_http_are_asked_once_each(tmp_path, archive):
    here = found(region(tmp_path, {"catalog": str(archive.write())}))
    with serve(archive.folder) as server:
        listed = []
        for item in archive.items:
            for asset in item["assets"].values():
                path = f"{item['id']}/{asset['href'][2:]}"
                asset["file:size"] = (archive.folder / path).stat().st_size
                asset["href"] = f"{server.url}/{path}"
            for link in item["links"]:
                link["href"] = f"{server.url}/{link['href'][3:]}"
            item["links"].append({"rel": "self", "href": f"{server.url}/{item['id']}/{item['id']}.json"})
            listed.append(item)
        archive.write()
        labels = [item for item in listed if item["collection"] == "toy-labels"]
        server.search = lambda body: {"type": "FeatureCollection", "features": labels, "links": []}
        config = region(tmp_path, {"stac": f"{server.url}/stac"})
        tiles = make_tiles(config)
        server.requests.clear()
        twice = [config.imagery[0], config.imagery[0].model_copy(update={"name": "again"})]
        both = find_items(config.model_copy(update={"imagery": twice}), tiles)
        assert [one.imagery for one in both.items] == ["s2", "s2", "again", "again"]
        assert sum("POST" in request for request in server.requests) == 1  # one search for the labels of both
        assert [(one.item_id, one.tiles) for one in both.items[:2]] == [
            (one.item_id, one.tiles) for one in here.items
        ]
        assert sorted(request for request in server.requests if ".json" in request) == [
            f"GET /{name}/{name}.json" for name in ("s2019-02-01", "s2019-03-01")
        ]
        server.faults["/s2019-03-01/s2019-03-01.json"] = ["html"]
        with pytest.raises(ItemSearchError, match=r"s2019-03-01\.json cannot be read"):
            find_items(config, tiles)
        server.faults["/s2019-03-01/s2019-03-01.json"] = [404]
        with pytest.raises(ItemSearchError, match=r"s2019-03-01\.json cannot be read"):
            find_items(config, tiles)


def test_source_links_are_those_of_label_items(tmp_path):
    with pytest.raises(ValueError, match="source_links are those of label items"):
        iw.region(tmp_path, {"catalog": "c.json"}, tiles={"source_links": True})


@pytest.mark.parametrize("geometry", [None, {}, {"type": "Polygon", "coordinates": []}])
def test_a_label_item_without_place_is_one_sentence(tmp_path, archive, geometry):
    archive.items[3]["geometry"] = geometry
    config = region(tmp_path, {"catalog": str(archive.write())})
    with pytest.raises(ItemSearchError, match="item l1 has no usable geometry"):
        make_tiles(config)


def test_a_label_source_knows_who_asks(tmp_path, archive, monkeypatch):
    monkeypatch.setenv("CHIPMILL_SECRET_LABELS", "s3cret")
    archive.write()
    auth = {"kind": "header", "name": "X-Key", "env": "CHIPMILL_SECRET_LABELS"}
    with serve(archive.folder) as server:
        server.allows = lambda path, headers: headers.get("X-Key") == "s3cret"
        (label,) = [json.loads(json.dumps(item)) for item in archive.items if item["id"] == "l1"]
        label["assets"]["label"]["href"] = f"{server.url}/l1/label.tif"
        server.search = lambda body: {"type": "FeatureCollection", "features": [label], "links": []}
        labels = {"stac": f"{server.url}/stac"}
        here = {"catalog": str(archive.folder / "catalog.json")}
        config = region(tmp_path, here, labels, tiles={"auth": auth})
        area = config.aoi.bbox
        assert [one.item_id for one in find_label_items(config, area)] == ["l1"]
        with pytest.raises(ItemSearchError, match="did not answer a search"):
            find_label_items(region(tmp_path, here, labels), area)
