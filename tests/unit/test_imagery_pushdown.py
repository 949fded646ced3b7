"""Conditions on items: evaluated here, sent where a server says that it can, and the same items whatever it does."""

import copy
import subprocess
import sys

import numpy as np
import pytest
from tests import imagery_world as iw
from tests.fault_archive import landing, serve

from chipmill.core.errors import ItemSearchError
from chipmill.imagery.catalog import find_items
from chipmill.imagery.filtering import meets
from chipmill.imagery.pushdown import condition_of, either, pushed
from chipmill.region.filters import MAX_DEPTH, MAX_SIGNS, parse_filter
from chipmill.region.identity import config_fingerprint

V = "https://api.stacspec.org/{}/item-search#{}"
CQL2 = "http://www.opengis.net/spec/cql2/1.0/conf/"
FILTER = [V.format("v1.0.0", "filter"), CQL2 + "cql2-json", CQL2 + "basic-cql2"]
SEARCH = "https://api.stacspec.org/v1.0.0/item-search"
CONFORMANCE = {
    "nothing": [SEARCH],
    "query": [SEARCH, V.format("v1.1.0", "query")],
    "filter": [SEARCH, *FILTER],
    "all": [SEARCH, V.format("v1.0.0-rc.2", "query"), *FILTER, CQL2 + "advanced-comparison-operators"],
}
TEXT = "eo:cloud_cover <= 30 AND platform IN ('sat-1', 'sat-2') AND gsd >= 9 AND id <> 's2019-06-01'"


def item(**properties):
    return {"id": "a", "type": "Feature", "collection": "c", "assets": {"x": {"href": "x"}},
            "properties": {"datetime": "2022-12-06T00:00:00Z", **properties}}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("eo:cloud_cover < 20", True),  # "9" > "20" as text
        ("eo:cloud_cover > 20", False),
        ("eo:cloud_cover < '20'", None),
        ("missing < 3", None),
        ("NOT (missing < 3)", None),
        ("missing < 3 OR platform = 'y'", True),
        ("missing < 3 AND platform = 'n'", False),
        ("missing IS NULL", True),
        ("id NOT IN ('b', 'c') AND collection = 'c'", True),
        ("datetime > TIMESTAMP('2022-12-06T01:00:00+02:00')", True),
        ("datetime > TIMESTAMP('2022-12-06T00:00:00Z')", False),
        ("platform LIKE 'Y%' OR CASEI(platform) = CASEI('Y')", True),
    ],
)
def test_three_values_as_in_sql(text, expected):
    assert meets(text, item(**{"eo:cloud_cover": 9, "platform": "y"})) is expected


def test_what_an_item_should_not_hold_is_unknown_not_an_error():
    assert meets("x < 3", item(x={"y": 1})) is None
    assert meets("x < 3", item(x=float("nan"))) is None
    assert meets("x < 3", {"id": 3}) is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no CQL2 text"),
        ("eo:cloud_cover <", r"no CQL2 text at line:column 1:17"),
        ("a == 3", "no CQL2 text"),
        ("platform", "no condition"),
        ("1 + 2", "no condition"),
        ("eval(platform) = 1", "no function"),
        ("a = 1 AND s_nearby(geometry, 3)", "s_nearby"),
        ("(" * (MAX_DEPTH + 1) + "a = 1" + ")" * (MAX_DEPTH + 1), "brackets"),
        ("NOT " * (MAX_DEPTH + 2) + "a = 1", "within each other"),
        ("a = " + "-" * MAX_SIGNS + "1", "characters"),
        ('"\'"' + "(" * MAX_SIGNS + '"\'"', "characters"),  # quotes within quotes hide nothing
        ("a = '" + "x" * 20_000 + "'", "characters"),
    ],
)
def test_a_filter_is_refused_in_one_sentence_when_the_file_is_read(tmp_path, text, told):
    with pytest.raises(ValueError, match=told) as refused:
        iw.region(tmp_path, {"catalog": "c.json"}, imagery={"filter": text})
    assert "imagery.0.filter" in str(refused.value)


def test_a_long_list_of_ids_is_a_filter():
    ids = ", ".join(f"'S2A_MSIL2A_20200731T080611_N0212_R078_T35MNM_{number}'" for number in range(200))
    assert len(parse_filter(f"id NOT IN ({ids})")["args"][0]["args"][1]) == 200


def test_what_is_let_through_does_not_end_the_process():
    """The longest chains that pass, parsed in threads with the stack that threads have."""
    program = f"""
import threading
from chipmill.region.filters import parse_filter
def parse():
    for text in ("a = " + "-" * {MAX_SIGNS - 6} + "1", "a = 1" + "+1" * {MAX_SIGNS // 2 - 4},
                 "a=" * {MAX_SIGNS // 2 - 1} + "1", "NOT " * {MAX_SIGNS // 4 - 2} + "a = 1"):
        try:
            parse_filter(text)
        except ValueError:
            pass
    print("alive")
one = threading.Thread(target=parse); one.start(); one.join()
"""
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "alive\n"


def test_a_default_leaves_the_fingerprint_and_a_filter_changes_it(tmp_path):
    (tmp_path / "c.json").write_text("{}")
    source = {"catalog": "c.json"}
    plain = config_fingerprint(iw.region(tmp_path, source))
    assert config_fingerprint(iw.region(tmp_path, {**source, "pushdown": "none"})) == plain
    assert config_fingerprint(iw.region(tmp_path, source, imagery={"filter": "gsd > 3"})) != plain


def sent(text, classes, mode="auto"):
    return pushed(parse_filter(text), classes, mode).body


def test_only_what_conformance_names_is_sent():
    assert sent(TEXT, []) == {}
    query = sent(TEXT, CONFORMANCE["query"])["query"]
    assert query == {"eo:cloud_cover": {"lte": 30}, "platform": {"in": ["sat-1", "sat-2"]}, "gsd": {"gte": 9}}
    assert not isinstance(query["gsd"]["gte"], str)
    basic = sent(TEXT, CONFORMANCE["filter"])
    assert basic["filter-lang"] == "cql2-json"
    assert [one["op"] for one in basic["filter"]["args"]] == ["<=", ">=", "<>"]  # IN is of another class
    assert len(sent(TEXT, CONFORMANCE["all"])["filter"]["args"]) == 4
    assert sent(TEXT, CONFORMANCE["all"][:3]) == sent(TEXT, CONFORMANCE["query"])  # filter, but not in JSON


@pytest.mark.parametrize(
    "text",
    [
        "S_INTERSECTS(geometry, POINT(1 2))",
        "CASEI(platform) = 'x'",
        "properties.platform = 'x'",
        "gsd < 1e999",
        "missing < 3 OR S_WITHIN(geometry, POINT(1 2))",
    ],
)
def test_what_servers_read_in_their_own_ways_stays_here(text):
    assert sent(text, CONFORMANCE["all"]) == {}
    assert sent(text, [], "filter") == {}


def test_the_query_extension_is_sent_nothing_that_it_leaves_open():
    classes = CONFORMANCE["query"]
    assert sent("gsd <> 3", classes) == sent("id = 'a'", classes) == sent("gsd IS NULL", classes) == {}
    assert sent("30 > eo:cloud_cover", classes) == {"query": {"eo:cloud_cover": {"lt": 30}}}
    both = sent("gsd > 3 AND gsd < 9 AND gsd > 4", classes)
    assert both == {"query": {"gsd": {"gt": 3, "lt": 9}}}


def test_an_override_counts_more_than_conformance():
    assert sent(TEXT, CONFORMANCE["all"], "none") == {}
    assert "query" in sent(TEXT, CONFORMANCE["all"], "query")
    assert "filter" in sent(TEXT, [], "filter")


def test_entries_that_share_a_source_are_asked_for_together(tmp_path):
    one, two = parse_filter("gsd > 3"), parse_filter("gsd < 2")
    assert either([one, one]) == one
    assert either([one, two]) == {"op": "or", "args": [one, two]}
    assert either([one, None]) is either([None]) is None
    (imagery,) = iw.region(tmp_path, {"catalog": "c"}, imagery={"scene_cloud_max_pct": 30}).imagery
    assert (
        pushed(condition_of(imagery), CONFORMANCE["query"], "auto").body == {}
    )  # an item may name no cloud cover


def value_of(node, raw):
    if isinstance(node, dict) and "property" in node:
        name = node["property"]
        return raw[name] if name in ("id", "collection") else raw["properties"].get(name)
    return node.get("timestamp") if isinstance(node, dict) else node


def judge(node, raw):
    """A server's own reading of CQL2 JSON, with two values only: what is unknown is false, and its opposite true."""
    op, args = node["op"], node["args"]
    if op in ("and", "or"):
        return (all if op == "and" else any)(judge(one, raw) for one in args)
    if op == "not":
        return not judge(args[0], raw)
    a = value_of(args[0], raw)
    if op == "isNull":
        return a is None
    if op == "in":
        return a in args[1]
    b = value_of(args[1], raw)
    if isinstance(a, str) != isinstance(b, str) or None in (a, b):
        return False  # as a database of JSON: texts are compared letter by letter, and with texts alone
    return {"=": a == b, "<>": a != b, "<": a < b, "<=": a <= b, ">": a > b, ">=": a >= b}[op]


NAMES = {"eq": "=", "lt": "<", "lte": "<=", "gt": ">", "gte": ">=", "in": "in"}


def honest(body, features):
    whole = [{"op": NAMES[op], "args": [{"property": name}, value]}
             for name, tests in body.get("query", {}).items() for op, value in tests.items()]  # fmt: skip
    whole += [body["filter"]] if "filter" in body else []
    return [raw for raw in features if judge({"op": "and", "args": whole}, raw)]


def lying(body, features):
    return features


def silent(body, features):
    return [] if {"query", "filter"} & set(body) else features


SERVERS = {"honest": honest, "lying": lying, "silent": silent}


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    made = iw.Archive(tmp_path_factory.mktemp("pushdown") / "archive")
    pixels = {name: np.full((iw.SIDE, iw.SIDE), 500, np.uint16) for name in ("red", "nir")}
    mask = np.full((iw.SIDE, iw.SIDE), iw.CLEAR, np.uint8)
    clouds = {"02": 5, "03": 9.5, "04": 30, "05": 31, "06": 1, "07": None, "08": 100, "09": 20}
    for month, cover in clouds.items():
        made.scene(f"2019-{month}-01", pixels, mask, gsd=10, **{"eo:cloud_cover": cover})
    made.items[-1]["properties"]["platform"] = "other"
    made.write()
    return made


def through_api(server, archive, reads):
    """Let a server give the archive's items by its own reading of conditions."""
    features = copy.deepcopy(archive.items)
    for raw in features:
        for asset in raw["assets"].values():
            path = f"{raw['id']}/{asset['href'][2:]}"
            asset["href"], asset["file:size"] = f"{server.url}/{path}", (archive.folder / path).stat().st_size
    bodies = []

    def answer(body):
        bodies.append(body)
        found = reads(body, features)
        return {"type": "FeatureCollection", "features": found, "links": [], "numberMatched": len(found)}

    server.search = answer
    return bodies


def search(tmp_path, source, **imagery):
    region = iw.region(tmp_path, source, imagery=imagery)
    return find_items(region, iw.plan(region).tiles())


@pytest.mark.parametrize("reads", SERVERS)
@pytest.mark.parametrize("classes", CONFORMANCE)
@pytest.mark.parametrize("wish", [{"filter": TEXT}, {"scene_cloud_max_pct": 30}], ids=["filter", "clouds"])
def test_the_items_are_the_same_whatever_a_server_claims_and_does(tmp_path, archive, classes, reads, wish):
    here = search(tmp_path, {"catalog": str(archive.folder / "catalog.json")}, **wish)
    kept = {"filter": ["02", "03", "04"], "scene_cloud_max_pct": ["02", "03", "04", "06", "07", "09"]}
    assert [one.item_id[6:8] for one in here.items] == kept[next(iter(wish))]
    with serve(archive.folder) as server:
        server.landing = lambda url: {**landing(url), "conformsTo": CONFORMANCE[classes]}
        bodies = through_api(server, archive, SERVERS[reads])
        there = search(tmp_path, {"stac": f"{server.url}/stac"}, **wish)
        assert there.fingerprint == here.fingerprint
        pushes = [bool({"query", "filter"} & set(body)) for body in bodies]
        by_query = classes == "query" and "scene_cloud_max_pct" in wish
        expected = [False] if classes == "nothing" or by_query else [True]
        assert pushes == expected + ([False] if expected == [True] and reads == "silent" else [])
        assert len(server.requests) == 1 + len(pushes)  # the landing page tells what it conforms to
        told = [note for note in there.notes if "sent to the server" in note]
        assert len(told) == (expected == [True])


def test_a_server_that_refuses_a_condition_is_asked_without(tmp_path, archive):
    with serve(archive.folder) as server:
        server.landing = lambda url: {**landing(url), "conformsTo": CONFORMANCE["all"]}
        bodies = through_api(server, archive, lying)
        server.faults["/stac/search"] = [400]
        there = search(tmp_path, {"stac": f"{server.url}/stac"}, filter=TEXT)
        assert [one.item_id[6:8] for one in there.items] == ["02", "03", "04"]
        assert ["filter" in body for body in bodies] == [False]
        assert "refused the conditions" in there.notes[0]
        server.faults["/stac/search"] = [403]  # says nothing of the condition
        with pytest.raises(ItemSearchError):
            search(tmp_path, {"stac": f"{server.url}/stac"}, filter=TEXT)


def test_a_landing_page_that_spells_its_root_otherwise_is_asked_once(tmp_path, archive):
    with serve(archive.folder) as server:

        def slashed(url):
            page = landing(url)
            return {**page, "links": [{**link, "href": f"{url}/stac/"} if link["rel"] == "root" else link for link in page["links"]]}  # fmt: skip

        server.landing = slashed
        through_api(server, archive, lying)
        assert search(tmp_path, {"stac": f"{server.url}/stac"}).items
        assert server.requests == ["GET /stac", "POST /stac/search"]


def test_a_server_that_claims_no_search_is_one_sentence(tmp_path, archive):
    with serve(archive.folder) as server:
        server.landing = lambda url: {**landing(url), "conformsTo": []}
        with pytest.raises(ItemSearchError, match="did not answer a search"):
            search(tmp_path, {"stac": f"{server.url}/stac"})


def test_two_entries_of_one_source_cost_one_search(tmp_path, archive):
    with serve(archive.folder) as server:
        server.landing = lambda url: {**landing(url), "conformsTo": CONFORMANCE["all"]}
        bodies = through_api(server, archive, honest)
        source = {"stac": f"{server.url}/stac"}
        first = {"name": "a", "source": source, "bands": {"red": "red"}, "filter": "eo:cloud_cover < 6"}
        second = {**first, "name": "b", "bands": {"nir": "nir"}, "filter": "eo:cloud_cover > 30"}
        region = iw.region(tmp_path, source)
        region = type(region).model_validate({**region.model_dump(by_alias=True), "imagery": [first, second]})
        found = find_items(region, iw.plan(region).tiles()).items
        assert [(one.imagery, one.item_id[6:8]) for one in found] == [
            ("a", "02"), ("a", "06"), ("b", "05"), ("b", "08"),
        ]  # fmt: skip
        assert [body["filter"]["op"] for body in bodies] == ["or"]


def test_items_that_lack_what_is_compared_are_counted(tmp_path, archive):
    there = search(
        tmp_path, {"catalog": str(archive.folder / "catalog.json")}, filter="eo:cloud_cover <= 100"
    )
    assert len(there.items) == 7
    assert "1 items lack what the filter compares" in there.notes[0]


def test_the_demo_api_reads_a_filter_as_we_do(small_world, tmp_path):
    from chipmill.demo.api import serve as serve_demo
    from chipmill.demo.engine import load_archive

    raws = [one.item for one in load_archive(small_world.catalog).entries]
    scenes = {raw["id"]: raw["properties"] for raw in raws if raw["collection"] == "demo-s2-l2a"}
    wanted = {
        name
        for name, told in scenes.items()
        if told["eo:cloud_cover"] < 60 and told["datetime"] >= "2019-04-01T00:00:00Z"
    }
    assert 0 < len(wanted) < len(scenes)
    text = "eo:cloud_cover < 60 AND datetime >= TIMESTAMP('2019-04-01T00:00:00Z') AND platform <> 'x'"
    answers = []
    source = {"collection": "demo-s2-l2a"}
    wish = {"bands": {"red": "red"}, "mask": None, "filter": text}
    for extensions in (("query",), ("query", "filter")):
        with serve_demo([small_world.catalog], extensions=extensions) as api:
            region = iw.region(tmp_path, {**source, "stac": api.url}, imagery=wish)
            region = over_all(region, raws)
            answers.append(find_items(region, iw.plan(region).tiles()))
    assert [{one.item_id for one in answer.items} for answer in answers] == [wanted, wanted]
    assert [sum("sent to the server" in note for note in answer.notes) for answer in answers] == [1, 1]


def over_all(region, raws):
    boxes = np.array([raw["bbox"] for raw in raws])
    west, south, east, north = (*boxes[:, :2].min(axis=0), *boxes[:, 2:].max(axis=0))
    aoi = {"bbox": [west, south, east, north], "rule": "intersects"}
    values = region.model_dump(by_alias=True) | {"aoi": aoi, "time": {"range": ("2000-01-01", "2100-01-01")},
                                                 "grid": {"tile_px": 1024}}  # fmt: skip
    return type(region).model_validate(values)
