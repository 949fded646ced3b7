"""Searches that go wrong: throttled, cut short, repeated, empty in between; and what comes of them."""

import pytest
from tests.fault_archive import serve

from chipmill.core.errors import ItemSearchError
from chipmill.imagery import api
from chipmill.imagery.api import search_api

SPAN = "2019-01-01T00:00:00Z/2020-01-01T00:00:00Z"


def item(number):
    return {"type": "Feature", "id": f"i{number}", "collection": "c"}


def page(server, numbers, following=None, **more):
    links = []
    if following is not None:
        links = [{"rel": "next", "href": f"{server.url}/stac/search", "method": "POST", "body": {"token": following},
                  "merge": True}]  # fmt: skip
    return {
        "type": "FeatureCollection",
        "features": [item(number) for number in numbers],
        "links": links,
        **more,
    }


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setattr(api, "RETRY", {**api.RETRY, "backoff_factor": 0, "backoff_jitter": 0})
    monkeypatch.setattr(api, "TIMEOUT_S", (2.0, 2.0))
    with serve(tmp_path) as running:
        yield running


def ask(server):
    found = search_api(f"{server.url}/stac", collection="c", datetime=SPAN, bbox=[0, 0, 1, 1])
    return [one["id"] for one in found]


def test_all_pages_are_taken_with_one_request_each(server):
    server.search = lambda body: page(server, {None: [1, 2], "b": [3, 4], "c": [5]}[body.get("token")],
                                      {None: "b", "b": "c"}.get(body.get("token")), numberMatched=5)  # fmt: skip
    assert ask(server) == ["i1", "i2", "i3", "i4", "i5"]
    assert len(server.requests) == 4  # the landing page and three pages


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_throttled_page_is_asked_again(server, status):
    server.search = lambda body: page(
        server, [1] if "token" not in body else [2], None if "token" in body else "b"
    )
    server.faults["/stac/search"] = [status, status]
    assert ask(server) == ["i1", "i2"]


def test_an_empty_page_is_not_the_end(server):
    server.search = lambda body: page(server, {None: [1], "b": [], "c": [2]}[body.get("token")],
                                      {None: "b", "b": "c"}.get(body.get("token")))  # fmt: skip
    assert ask(server) == ["i1", "i2"]


def test_a_page_that_repeats_stops(server):
    server.search = lambda body: page(server, [1, 2], "again")
    with pytest.raises(ItemSearchError, match="repeats page 2"):
        ask(server)
    assert len(server.requests) == 3


def test_empty_pages_for_ever_stop(server):
    server.search = lambda body: page(server, [], "again")
    with pytest.raises(ItemSearchError, match="repeats page"):
        ask(server)


def test_fewer_than_announced_is_an_error(server):
    server.search = lambda body: page(server, [1, 2], numberMatched=30)
    with pytest.raises(ItemSearchError, match="said that 30 items match and gave 2"):
        ask(server)


def test_none_although_some_are_announced_is_an_error(server):
    server.search = lambda body: page(server, [], context={"matched": 7})
    with pytest.raises(ItemSearchError, match="7 items"):
        ask(server)


def test_a_next_link_to_another_host_is_not_followed(server):
    def answer(body):
        made = page(server, [1], "b")
        made["links"][0]["href"] = "http://192.0.2.1/stac/search"
        return made

    server.search = answer
    with pytest.raises(ItemSearchError, match="another host"):
        ask(server)


@pytest.mark.parametrize("fault", ["html", 400, 404])
def test_no_answer_that_can_be_used_names_the_url(server, fault):
    server.search = lambda body: page(server, [1])
    server.faults["/stac/search"] = [fault]
    with pytest.raises(ItemSearchError, match=r"127\.0\.0\.1.*did not answer a search"):
        ask(server)


def test_nobody_there_is_one_sentence(server, monkeypatch):
    monkeypatch.setattr(api, "RETRY", {**api.RETRY, "total": 1, "backoff_factor": 0, "backoff_jitter": 0})
    with pytest.raises(ItemSearchError, match="did not answer"):
        search_api("http://127.0.0.1:9/stac", collection=None, datetime=SPAN, bbox=[0, 0, 1, 1])


def test_an_error_with_status_200_is_an_error(server):
    server.search = lambda body: {"code": "Internal", "description": "oops"}
    with pytest.raises(ItemSearchError, match="without features"):
        ask(server)


@pytest.mark.parametrize("answer", [[], 5, ["features"]])
def test_an_answer_that_is_no_object_is_an_error(server, answer):
    server.search = lambda body: answer
    with pytest.raises(ItemSearchError, match="without features"):
        ask(server)


@pytest.mark.parametrize("links", [["next"], {"rel": "next"}, 5])
def test_links_of_a_page_that_are_none_are_an_error_not_the_end(server, links):
    server.search = lambda body: page(server, [1]) | {"links": links}
    with pytest.raises(ItemSearchError, match="has links that are none"):
        ask(server)
