"""What the local STAC API is asked beyond place and time: query, CQL2, sortby and fields, in process."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.test_demo_engine import catalog, found, item

from chipmill.core.errors import BadInputError
from chipmill.demo.arranging import parse_fields, parse_sort
from chipmill.demo.conditions import MAX_TEXT, parse_filter, parse_properties
from chipmill.demo.engine import load_archive, search
from chipmill.demo.query import EXTENSIONS, parse_query, parse_text

ITEM = {
    **item("a", eo=1, **{"eo:cloud_cover": 9.5, "platform": "sentinel-2a", "none": None, "on": True}),
    "bbox": [14.5, 46.0, 14.5, 46.0],
    "stac_version": "1.0.0",
}
ITEM["properties"] |= {"tags": ["x", "y"], "made": "2019-06-01T10:00:00.5Z", "orbit": 22, "version": "100"}

FITS = [
    {"eo:cloud_cover": {"lt": 10}},  # as text 9.5 is more than 10
    {"eo:cloud_cover": {"gte": 9.5, "lte": 9.5}},
    {"properties.eo:cloud_cover": {"gt": 9}},
    {"orbit": {"eq": 22.0}},
    {"orbit": {"in": [1, 22]}},
    {"platform": {"eq": "sentinel-2a", "neq": "sentinel-2b"}},
    {"platform": {"startsWith": "sent", "endsWith": "2a", "contains": "-"}},
    {"platform": {"in": ["sentinel-2a"]}},
    {"tags": {"contains": "x"}},
    {"made": {"gt": "2019-06-01T10:00:00Z"}},  # as text .5Z sorts before Z
    {"datetime": {"eq": "2019-06-01T12:00:00+02:00"}},
    {"on": {"eq": True}},
    {"id": {"eq": "a"}, "collection": {"neq": "d"}},
    {},
]
FAILS = [
    {"eo:cloud_cover": {"lt": 9.5}},
    {"eo:cloud_cover": {"gt": 5, "lt": 6}},
    {"eo:cloud_cover": {"lt": "10"}},  # a number is not compared with a text
    {"version": {"gt": 99}},
    {"platform": {"eq": "sentinel-2A"}},
    {"platform": {"in": []}},
    {"tags": {"contains": "z"}},
    {"orbit": {"startsWith": "2"}},
    {"on": {"eq": 1}},
    {"none": {"neq": 3}},  # as in SQL, what is not known meets nothing
    {"absent": {"neq": 3}},
    {"absent": {"in": ["x"]}},
    {"absent": {"contains": "x"}},
    {"platform": {"neq": "sentinel-2b"}, "orbit": {"eq": 23}},
]


@pytest.mark.parametrize(
    ("query", "fits"), [(q, True) for q in FITS] + [(q, False) for q in FAILS], ids=json.dumps
)
def test_query_compares_values_as_what_they_are(query, fits):
    for asked in (query, json.dumps(query)):
        assert all(condition.holds(ITEM) for condition in parse_properties(asked)) == fits


@pytest.mark.parametrize(
    "query",
    [
        [],
        "{",
        "[1]",
        {"platform": "sentinel-2a"},
        {"platform": {"like": "s%"}},
        {"platform": {"startsWith": 2}},
        {"platform": {"in": "sentinel"}},
        {"platform": {"in": [None]}},
        {"orbit": {"lt": [1]}},
        {"orbit": {"eq": None}},
    ],
    ids=json.dumps,
)
def test_a_wrong_query_is_refused(query):
    with pytest.raises(BadInputError, match=r"^search: query"):
        parse_properties(query)


@given(st.floats(-1e6, 1e6) | st.integers(-100, 100), st.floats(-1e6, 1e6) | st.integers(-100, 100))
def test_query_and_cql2_agree_on_numbers(held, wanted):
    content = item("a", value=held)
    for name, sign in {"eq": "=", "neq": "<>", "lt": "<", "lte": "<=", "gt": ">", "gte": ">="}.items():
        tree = {"op": sign, "args": [{"property": "value"}, wanted]}
        [condition] = parse_properties({"value": {name: wanted}})
        assert condition.holds(content) == parse_filter(tree).holds(content)


TRUE = [
    "eo:cloud_cover < 10",
    "\"eo:cloud_cover\" < 10 AND platform = 'sentinel-2a'",
    "properties.eo:cloud_cover BETWEEN 9 AND 10",
    "platform LIKE 'sentinel-2_' AND NOT platform LIKE 'landsat%'",
    "platform IN ('sentinel-2a', 'sentinel-2b')",
    "CASEI(platform) = CASEI('Sentinel-2A')",
    "none IS NULL AND absent IS NULL",
    "absent = 1 OR orbit = 22",
    "orbit * 2 + 1 = 45",
    "eo:cloud_cover < orbit",
    "datetime >= TIMESTAMP('2019-06-01T12:00:00+02:00')",
    "T_BEFORE(datetime, TIMESTAMP('2019-06-01T10:00:01Z'))",
    "T_DURING(datetime, INTERVAL('2019-01-01T00:00:00Z', '2020-01-01T00:00:00Z'))",
    "S_INTERSECTS(geometry, BBOX(14, 45, 15, 47))",
    "S_INTERSECTS(geometry, POLYGON((14 45, 15 45, 15 47, 14 45)))",
    "S_INTERSECTS(geometry, POINT(14.5 46))",
    "id = 'a' AND collection = 'c'",
    "on = TRUE",
]
FALSE = [
    "eo:cloud_cover < 9.5",
    "eo:cloud_cover < '10'",
    "absent = 1",
    "NOT absent = 1",
    "absent <> 1",
    "absent IN ('x')",
    "none LIKE '%'",
    "platform = 'sentinel-2A'",
    "platform > TIMESTAMP('2019-06-01T10:00:00Z')",
    "orbit LIKE 'x'",
    "tags = 'x'",
    "T_AFTER(datetime, TIMESTAMP('2019-06-01T10:00:00Z'))",
    "S_INTERSECTS(geometry, BBOX(0, 0, 1, 1))",
    "FALSE",
]


@pytest.mark.parametrize("text", [*TRUE, *FALSE])
def test_cql2_text_and_json_mean_the_same(text):
    import cql2

    tree = cql2.parse_text(text).to_json()
    forms = [parse_filter(text), parse_filter(text, "cql2-text"), parse_filter(tree)]
    if isinstance(tree, dict):
        forms.append(parse_filter(json.dumps(tree), "cql2-json"))
    assert [form.holds(ITEM) for form in forms] == [text in TRUE] * len(forms)


def test_an_item_without_a_place_is_in_no_filter_of_places():
    inside = parse_filter("S_INTERSECTS(geometry, BBOX(14, 45, 15, 47))")
    assert inside.holds(ITEM)
    assert not inside.holds({**ITEM, "geometry": None})


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (("eo:cloud_cover <",), "not CQL2"),
        (("",), "not CQL2"),
        (({"op": "=", "args": [{"property": "a"}], "x": 1},), "1 arguments"),
        (({"op": "and", "args": []},), "0 arguments"),
        (({"op": "not", "args": [True, True]},), "2 arguments"),
        (("{", "cql2-json"), "not JSON"),
        (([1],), "not true or false"),
        ((3,), "not true or false"),
        (("orbit + 1",), "not true or false"),
        (("orbit",), "not true or false"),
        (("soundex(platform) = 'x'",), "'soundex'"),
        (("s_near(geometry, POINT(1 2))",), "'s_near'"),
        (({"op": "not", "args": [{"op": "nand", "args": [True, True]}]},), "'nand'"),
        (("a = 1", "cql-text"), "filter-lang"),
        (({"op": "isNull", "args": [{"property": "a"}]}, "cql2-text"), "filter-lang"),
        (("a = 1", None, "EPSG:3857"), "filter-crs"),
        (("(" * MAX_TEXT + "a = 1" + ")" * MAX_TEXT,), "at most"),
    ],
    ids=repr,
)
def test_a_wrong_filter_is_refused(wrong, reason):
    with pytest.raises(BadInputError, match=f"^search: .*({reason})"):
        parse_filter(*wrong)


def chain(text: str, sign: str) -> str:
    """Return `text` with `sign` before it as often as a filter may be long."""
    return sign * ((MAX_TEXT - len(text)) // len(sign)) + text


@pytest.mark.parametrize("text", [chain("a = 1", "NOT "), chain("1 = a", "-"), chain("1 = a", "1 + ")])
def test_the_longest_chains_do_not_end_the_process(text):
    assert parse_filter(text).holds(item("x", a=1)) in (True, False)


def test_the_deepest_json_is_refused_not_followed():
    deep = '{"op": "not", "args": [' * 5000 + "true" + "]}" * 5000
    with pytest.raises(BadInputError, match=r"^search: filter is not"):
        parse_filter(deep, "cql2-json")


@pytest.fixture
def archive(tmp_path):
    rows = {"a": 30, "b": 4.5, "c": 30, "d": None, "e": 100}
    items = [
        item(name, f"2019-06-0{day}T00:00:00Z", cloud=value)
        for day, (name, value) in enumerate(rows.items(), 1)
    ]
    items[4]["properties"].pop("cloud")
    items += [
        item("m", None, start_datetime="2019-06-03T12:00:00Z", end_datetime="2019-06-09T00:00:00Z", cloud=7)
    ]
    return load_archive(catalog(tmp_path / "r", *items))


@pytest.mark.parametrize(
    ("sortby", "order"),
    [
        ("cloud", "bmcaed"),  # of what is alike, and of what has none, the newest first
        ("-cloud", "cambed"),
        ("-properties.cloud,id", "acmbde"),
        ([{"field": "cloud", "direction": "desc"}, {"field": "id", "direction": "desc"}], "cambed"),
        (" datetime", "abcmde"),  # a plus of a URL
        ("+datetime", "abcmde"),
        ([{"field": "properties.datetime"}], "abcmde"),
        ("-id", "medcba"),
        ("collection,-id", "medcba"),
    ],
)
def test_sortby(archive, sortby, order):
    assert "".join(found(archive, sortby=sortby)) == order


def test_pages_follow_the_order_and_the_conditions(archive):
    asked = {"sortby": "-cloud", "filter": "cloud >= 5", "query": {"id": {"neq": "a"}}, "limit": 1}
    pages = [search(archive.entries, parse_query(asked | {"token": token})) for token in (0, 1)]
    assert [(page.entries[0].item_id, page.matched, page.next_token) for page in pages] == [
        ("c", 2, "1"),
        ("m", 2, None),
    ]


@pytest.mark.parametrize(
    "sortby", ["", "-", [], {}, 3, [{"direction": "asc"}], [{"field": "id", "direction": "up"}]]
)
def test_a_wrong_order_is_refused(sortby):
    with pytest.raises(BadInputError, match=r"^search: sortby"):
        parse_sort(sortby)


@pytest.mark.parametrize("name", ["clouds", "geometry", "assets"])
def test_what_nothing_can_be_sorted_by_is_refused(archive, name):
    with pytest.raises(BadInputError, match=f"sorted by '{name}'"):
        found(archive, sortby=name)


VALID = {"type", "stac_version", "id", "collection", "geometry", "bbox", "links", "assets"}


@pytest.mark.parametrize(
    ("fields", "top", "properties"),
    [
        ("", VALID, {"datetime"}),
        ({}, VALID, {"datetime"}),
        ({"include": None, "exclude": []}, VALID, {"datetime"}),
        ("id,orbit", VALID, {"datetime", "orbit"}),
        (" properties.eo:cloud_cover,+absent", VALID, {"datetime", "eo:cloud_cover"}),
        (
            {"include": ["properties"], "exclude": ["properties.orbit"]},
            VALID,
            set(ITEM["properties"]) - {"orbit"},
        ),
        ({"exclude": ["links", "geometry", "bbox"]}, VALID - {"links", "geometry", "bbox"}, {"datetime"}),
        ("-assets,-properties.datetime", VALID - {"assets"}, set()),
    ],
    ids=range(8),
)
def test_fields(fields, top, properties):
    before = json.dumps(ITEM)
    cut = parse_fields(fields).cut(ITEM)
    assert {name for name in cut if name != "properties"} == top
    assert set(cut["properties"]) == properties
    assert all(ITEM["properties"][name] == value for name, value in cut["properties"].items())
    assert json.dumps(ITEM) == before


def test_fields_reach_into_assets_and_drop_all_properties():
    cut = parse_fields({"include": ["assets.a.href"], "exclude": ["assets.a", "properties", "bbox.x"]}).cut(
        ITEM
    )
    assert cut["assets"] == {}
    assert "properties" not in cut
    assert cut["bbox"] == ITEM["bbox"]


@pytest.mark.parametrize(
    "fields", [3, ["id"], {"includes": ["id"]}, {"include": "id"}, {"include": [1]}, {"exclude": [""]}]
)
def test_wrong_fields_are_refused(fields):
    with pytest.raises(BadInputError, match=r"^search: fields"):
        parse_fields(fields)


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_an_extension_that_is_not_served_is_refused(extension):
    asked = {"query": "{}", "filter": "TRUE", "sort": "id", "fields": "id"}[extension]
    name = EXTENSIONS[extension][0]
    others = [one for one in EXTENSIONS if one != extension]
    assert parse_text({name: asked}, [extension]) == parse_text({name: asked})
    with pytest.raises(BadInputError, match=f"'{name}' is not supported"):
        parse_text({name: asked}, others)
