"""The fault matrix: every fault of a server at every kind of request ends in the same bytes or in a named error.

Never in other pixels or items, and never later than twice the timeout budget. What is over is forgotten: the next try
asks again and gets the same bytes.
"""

import itertools
import json
import os
import time

import numpy as np
import pytest
from tests import imagery_world as iw
from tests.fault_archive import ALWAYS, KINDS, serve

from chipmill.core.errors import AssetReadError, ItemSearchError
from chipmill.imagery import patience, sources
from chipmill.imagery.api import search_api
from chipmill.imagery.reading import Grid, open_band

SIDE = 256
SPAN = "2019-01-01T00:00:00Z/2020-01-01T00:00:00Z"
PAGES = {None: ([1, 2], "b"), "b": ([3, 4], "c"), "c": ([5], None)}
ITEMS = ["i1", "i2", "i3", "i4", "i5"]
_number = itertools.count()
"""Files have a name of their own: GDAL remembers URLs, and a port may come again."""
SEEDS = range(1, 31 if os.environ.get("CHIPMILL_PROFILE") == "nightly" else 2)
SAME_AFTER_ONE = {
    "search": {"429", "500", "502", "503", "cut", "stall"},
    "header": {"429", "500", "502", "503", "cut", "stall", "loop", "duplicate"},
    "block": {"429", "500", "502", "503", "403", "short", "html", "loop", "duplicate"},
}
"""Faults that are over after one answer and are not even seen: somebody asked again."""


@pytest.fixture(scope="module", autouse=True)
def warm(tmp_path_factory):
    """One search and one read without faults: what they import and set up is not on the clock of a test."""
    folder = tmp_path_factory.mktemp("warm")
    iw.save(folder / "warm.tif", np.ones((64, 64), np.uint16), nodata=0, block=64)
    with serve(folder) as server:
        server.search = lambda body: {"type": "FeatureCollection", "features": [], "links": []}
        search_api(f"{server.url}/stac", collection="c", datetime=SPAN, bbox=[0, 0, 1, 1])
        with open_band(
            iw.asset(), f"{server.url}/warm.tif", Grid("EPSG:32633", iw.transform(), 64, 64)
        ) as reader:
            reader.read(0, 64)


@pytest.fixture(autouse=True)
def world(archive, short_waits, tmp_path, monkeypatch):
    """Three pages of items, and a file that needs a request for its header and one for its blocks.

    The pixels are not compressed: nothing in the file itself can tell that they are wrong.
    """
    pixels = np.random.default_rng(5).integers(1, 9000, (SIDE, SIDE)).astype(np.uint16)
    archive.path = f"/a{next(_number)}.tif"
    iw.save(tmp_path / archive.path[1:], pixels, nodata=0, block=64, compress=None)
    archive.pixels = pixels
    archive.search = lambda body: page(archive, *PAGES[body.get("token")])


def page(archive, numbers, following):
    features = [{"type": "Feature", "id": f"i{number}", "collection": "c"} for number in numbers]
    link = {"rel": "next", "href": f"{archive.url}/stac/search", "method": "POST", "body": {"token": following},
            "merge": True}  # fmt: skip
    return {"type": "FeatureCollection", "features": features, "links": [link] if following else [],
            "numberMatched": len(ITEMS)}  # fmt: skip


def outcome(archive, where):
    """Return the items or pixels and what they should be."""
    if where == "search":
        found = search_api(f"{archive.url}/stac", collection="c", datetime=SPAN, bbox=[0, 0, 1, 1])
        return json.dumps([one["id"] for one in found]).encode(), json.dumps(ITEMS).encode()
    grid = Grid("EPSG:32633", iw.transform(), SIDE, SIDE)
    with open_band(iw.asset(), archive.url + archive.path, grid) as reader:
        values, valid = reader.read(0, SIDE)
    assert valid.all()
    return values.tobytes(), archive.pixels.tobytes()


def budget_s(where):
    """What the settings in force give one answer with all its tries."""
    if where == "search":
        return patience.BUDGET_S
    options = sources.GDAL_OPTIONS
    return float(options["GDAL_HTTP_TIMEOUT"]) * (1 + int(options["GDAL_HTTP_MAX_RETRY"]))


@pytest.mark.parametrize("times", [1, ALWAYS], ids=["once", "lasting"])
@pytest.mark.parametrize("where", ["search", "header", "block"])
@pytest.mark.parametrize("kind", KINDS)
def test_same_bytes_or_a_named_error_within_twice_the_budget(archive, kind, where, times):
    path = "/stac/search" if where == "search" else archive.path
    archive.plan(path, where, kind, times, after=1 if where == "search" and kind != "403" else 0)
    begun = time.monotonic()
    try:
        got, wanted = outcome(archive, where)
    except (AssetReadError, ItemSearchError) as error:
        text = str(error)
        assert ("/stac" if where == "search" else archive.path) in text
        assert times == ALWAYS or kind not in SAME_AFTER_ONE[where]
    else:
        assert got == wanted
        assert times == 1, "a fault that lasts cannot end well"
    assert time.monotonic() - begun < 2 * budget_s(where)
    assert archive.count(path, where) >= 1
    before = len(archive.asked)
    archive.mend()
    got, wanted = outcome(archive, where)
    assert got == wanted
    if times == ALWAYS:
        assert len(archive.asked) > before


@pytest.mark.parametrize("kind", ["503", "403", "cut", "short", "stall", "html"])
def test_a_landing_page_that_goes_wrong_is_no_catalog_without_items(archive, kind):
    archive.plan("/stac", "header", kind)
    begun = time.monotonic()
    with pytest.raises(ItemSearchError, match="/stac did not answer a search"):
        outcome(archive, "search")
    assert time.monotonic() - begun < 2 * budget_s("search")


@pytest.mark.parametrize("kind", ["503", "cut", "stall"])
def test_a_landing_page_that_went_wrong_once_is_asked_for_again(archive, kind):
    archive.plan("/stac", "header", kind, times=1)
    got, wanted = outcome(archive, "search")
    assert got == wanted


@pytest.mark.parametrize("where", ["search", "header", "block"])
def test_an_answer_that_drips_ends_with_the_budget(archive, where):
    path = "/stac/search" if where == "search" else archive.path
    archive.plan(path, where, "drip")
    begun = time.monotonic()
    with pytest.raises((AssetReadError, ItemSearchError)) as caught:
        outcome(archive, where)
    assert time.monotonic() - begun < 2 * budget_s(where)
    if where == "search":
        assert "no whole answer within 1.5 s" in str(caught.value)


def test_a_search_waits_as_long_as_the_server_asks(archive):
    archive.retry_after_s = 1
    archive.plan("/stac/search", "search", "429", times=1)
    got, wanted = outcome(archive, "search")
    assert got == wanted
    first, second = [one.at for one in archive.asked if one.where == "search"][:2]
    assert second - first >= 1.0


def test_a_wait_that_goes_beyond_the_budget_is_not_begun(archive):
    archive.retry_after_s = 100
    archive.plan("/stac/search", "search", "503", times=1)
    begun = time.monotonic()
    with pytest.raises(ItemSearchError, match=r"the next try would begin after more than the 1\.5 s"):
        outcome(archive, "search")
    assert time.monotonic() - begun < budget_s("search")


def test_a_page_without_end_is_not_taken_into_memory(archive, monkeypatch):
    monkeypatch.setattr(patience, "_MAX_BYTES", 1000)
    archive.search = lambda body: page(archive, range(200), None)
    with pytest.raises(ItemSearchError, match="longer than 1,000 bytes"):
        outcome(archive, "search")


def test_a_page_that_breaks_off_every_time_is_tried_as_often_as_any_fault(archive):
    archive.plan("/stac/search", "search", "cut")
    with pytest.raises(ItemSearchError):
        outcome(archive, "search")
    assert archive.count("/stac/search", "search") == 4


@pytest.mark.parametrize("seed", SEEDS)
def test_faults_that_come_together_end_no_worse(archive, seed):
    """Several faults at once, each after a few right answers and for a few requests, at all three places."""
    dice = np.random.default_rng(seed)
    for path, where in (("/stac/search", "search"), (archive.path, "header"), (archive.path, "block")):
        for kind in dice.permutation([one for one in KINDS if one != "stall"])[:3]:
            archive.plan(
                path, where, str(kind), times=int(dice.integers(1, 4)), after=int(dice.integers(0, 3))
            )
    for where in ("search", "block", "search", "block"):
        begun = time.monotonic()
        try:
            got, wanted = outcome(archive, where)
        except (AssetReadError, ItemSearchError):
            pass
        else:
            assert got == wanted
        assert time.monotonic() - begun < 2 * 3 * budget_s(where)  # an opening and its blocks, or three pages
    archive.mend()
    for where in ("search", "block"):
        got, wanted = outcome(archive, where)
        assert got == wanted
