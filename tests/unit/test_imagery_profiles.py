"""What the numbers of known products mean: on recorded answers of their servers, and down to the composite's pixels."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import yaml
from tests import imagery_world as iw
from tests.fault_archive import serve

from chipmill.imagery.api import search_api
from chipmill.imagery.catalog import find_items
from chipmill.imagery.stac import parse_item
from chipmill.region.imagery import Imagery

ROOT = "https://example.org/api"
BASE = "https://example.org/api/search"
SPAN = "2024-01-01T00:00:00Z/2024-02-01T00:00:00Z"
BY_HAND = Path(__file__).resolve().parents[1] / "data" / "cdse_search.json"


def entry(**more):
    return Imagery.model_validate({"name": "x", "source": {"stac": ROOT}, "bands": {"red": "red"}} | more)


def parsed(raw, **more):
    return parse_item(entry(**more), raw, ROOT, BASE)


def meaning(item):
    return {name: (one.scale, one.offset, one.nodata) for name, one in item.assets.items()}


@pytest.fixture
def recorded(shared_data):
    return lambda name: json.loads((shared_data / "stac-json" / name).read_text())


def test_landsat_of_usgs_names_no_scale_and_means_reflectance_and_kelvin(recorded):
    raw = recorded("LC08_L2SP_028030_20200114_20200824_02_T1_SR.json")
    assert not any("raster:bands" in asset for asset in raw["assets"].values())
    names = ("coastal", "blue", "green", "red", "nir08", "swir16", "swir22")
    item = parsed(raw, bands={name: name for name in names}, mask={"asset": "qa_pixel"})
    assert item.problem == ""
    found = meaning(item)
    assert {found[name] for name in names} == {(2.75e-5, -0.2, 0.0)}
    assert found["mask"][:2] == (None, 0.0)
    assert (item.scale_evidence, item.offset_evidence) == ("landsat-c2-l2", "landsat-c2-l2")
    assert (item.platform, item.assets["red"].epsg) == ("LANDSAT_8", 32615)
    assert item.assets["red"].href.startswith("https://landsatlook.usgs.gov/data/")
    # by common name too, and by the name of the file where the key is another
    assert parsed(raw, bands={"n": "nir08"}).assets["n"].key == "nir08"
    raw["assets"]["st"] = {"href": "https://landsatlook.usgs.gov/data/LC08_02_T1_ST_B10.TIF"}
    raw["assets"]["what"] = {"href": "https://landsatlook.usgs.gov/data/LC08_02_T1_QA_RADSAT.TIF"}
    found = meaning(parsed(raw, bands={"t": "st", "q": "what"}))
    assert found == {"t": (0.00341802, 149.0, 0.0), "q": (None, 0.0, None)}


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({"landsat:collection_number": "02", "landsat:correction": "L2SP"}, 2.75e-5),
        ({"landsat:collection_number": "02", "landsat:correction": "L1TP"}, None),  # top of atmosphere
        ({"landsat:collection_number": "01", "landsat:correction": "L2SP"}, None),
        ({}, 2.75e-5),
    ],
)
def test_only_landsat_collection_2_level_2_has_its_scale(recorded, told, expected):
    raw = recorded("LC08_L2SP_028030_20200114_20200824_02_T1_SR.json")
    for key in ("landsat:collection_number", "landsat:correction"):
        raw["properties"].pop(key)
    raw["properties"] |= told
    assert parsed(raw).assets["red"].scale == expected


@pytest.mark.parametrize("name", ["cmr_stac_hls_items.json", "cmr_stac_hls_search_response.json"])
def test_hls_of_cmr_names_neither_scale_nor_platform_nor_grid(recorded, name):
    page = recorded(name)
    items = page if isinstance(page, list) else page["features"]
    bands = {"red": "B04", "swir": "B11", "cirrus": "B10", "zenith": "SZA"}
    for raw in items:
        item = parsed(raw, bands=bands, mask={"asset": "Fmask"})
        assert item.problem == ""
        found = meaning(item)
        assert {found[name] for name in ("red", "swir", "cirrus")} == {(1e-4, 0.0, -9999.0)}
        assert (found["zenith"], found["mask"][:2]) == ((1e-2, 0.0, 40000.0), (None, 0.0))
        assert (item.platform, item.scale_evidence, item.assets["red"].epsg) == ("sentinel-2", "hls", None)
        assert item.assets["red"].href.startswith("https://data.lpdaac.")
        thermal = parsed({**raw, "collection": "HLSL30_2.0"}, bands=bands)
        assert meaning(thermal)["cirrus"] == (1e-2, 0.0, -9999.0)
        assert thermal.platform == "landsat"


@pytest.mark.parametrize(
    "name", ["site1-20200606-tall-strip-africa.geojson", "site2-2020_jun_jul-35MNM.geojson"]
)
def test_sentinel2_of_planetary_computer_declares_nothing_and_has_an_old_baseline(recorded, name):
    raws = recorded(name)["features"]
    assert len(raws) >= 9
    for raw in raws:
        item = parsed(raw, bands={"red": "B04", "green": "green"}, mask={"asset": "SCL"})
        assert item.problem == ""
        assert meaning(item)["red"] == meaning(item)["green"] == (1e-4, 0.0, 0.0)
        assert (item.scale_evidence, item.offset_evidence) == ("sentinel-2", "none")
        assert (item.assets["red"].epsg, item.assets["red"].shape) == (32735, (10980, 10980))
        assert item.assets["mask"].shape == (5490, 5490)
        assert item.assets["red"].href.startswith("https://sentinel2l2a01.blob.core.windows.net/")
        raw["properties"]["s2:processing_baseline"] = "05.09"
        assert parsed(raw, bands={"red": "B04"}).assets["red"].offset == -0.1


def test_naip_of_planetary_computer_has_its_bands_in_one_file_and_no_scale(shared_data):
    cassette = yaml.safe_load(
        (shared_data / "stac-json" / "pystac_client_cassette_intersects.yaml").read_text()
    )
    raws = [
        raw
        for one in cassette["interactions"]
        for raw in json.loads(one["response"]["body"]["string"])["features"]
    ]
    assert len(raws) > 10
    for raw in raws:
        item = parsed(raw, bands={"red": "red", "nir": "nir"})
        assert [one.band for one in item.assets.values()] == [1, 4]
        assert (item.problem, item.scale_evidence, item.assets["nir"].scale) == ("", "none", None)


def test_cdse_as_written_by_hand():
    page = json.loads(BY_HAND.read_text())
    assert "by hand" in page["made_by_hand"]
    (raw,) = page["features"]
    item = parsed(raw, bands={"red": "B04_10m", "red20": "B04_20m"}, mask={"asset": "SCL_20m"})
    assert item.problem == ""
    assert meaning(item) == {"red": (1e-4, -0.1, 0), "red20": (1e-4, -0.1, 0), "mask": (None, 0.0, 0)}
    red = item.assets["red"]
    assert (red.epsg, red.shape, red.transform[:3]) == (32633, (10980, 10980), (10.0, 0.0, 399960.0))
    assert red.href.startswith("https://download.example.org/")  # the href itself is of a store
    assert "several assets for red" in parsed(raw).problem


def test_an_asset_that_lies_in_a_store_alone_says_so():
    (raw,) = json.loads(BY_HAND.read_text())["features"]
    for asset in raw["assets"].values():
        asset.pop("alternate", None)
    assert "s3://eodata" in parsed(raw, bands={"red": "B04_10m"}).problem


def landsat(**asset):
    return {"id": "i", "collection": "landsat-c2-l2", "bbox": [1, 2, 3, 4],
            "geometry": {"type": "Polygon", "coordinates": [[[1, 2], [3, 2], [3, 4], [1, 4], [1, 2]]]},
            "properties": {"datetime": "2020-05-01T10:00:00Z"},
            "assets": {"red": {"href": "https://example.org/x/red.tif", **asset}}}  # fmt: skip


@pytest.mark.parametrize(
    ("declared", "changes", "expected"),
    [
        ({}, {}, (2.75e-5, -0.2, "landsat-c2-l2", "landsat-c2-l2")),
        ({"scale": 2.75e-5, "offset": -0.2}, {}, (2.75e-5, -0.2, "declared", "declared")),
        ({"scale": 2.75e-5}, {}, (2.75e-5, -0.2, "declared", "landsat-c2-l2")),
        ({"scale": 1e-4}, {}, (1e-4, 0.0, "declared", "none")),  # rescaled: the producer's offset is not its
        ({"scale": 1e-4}, {"scale_override": 0.5}, (0.5, 0.0, "override", "none")),
        ({}, {"scale_override": 0.5, "offset_override": 3}, (0.5, 3.0, "override", "override")),
        ({}, {"offset": "none"}, (2.75e-5, 0.0, "landsat-c2-l2", "none")),
    ],
)
def test_override_then_item_then_profile(declared, changes, expected):
    item = parsed(landsat(**({"raster:bands": [declared]} if declared else {})), **changes)
    asset = item.assets["red"]
    assert (asset.scale, asset.offset, item.scale_evidence, item.offset_evidence) == expected


def unscaled(archive, **properties):
    """A scene of DN 20000 whose item names no scale."""
    pixels = np.full((iw.SIDE, iw.SIDE), 20000, np.uint16)
    item = archive.scene("2019-02-01", {"red": pixels, "nir": pixels}, **properties)
    for asset in item["assets"].values():
        del asset["raster:bands"]
    return item


def test_landsat_without_a_scale_is_stored_as_reflectance(tmp_path):
    archive = iw.Archive(tmp_path / "archive")
    unscaled(archive, **{"landsat:collection_number": "02", "landsat:correction": "L2SP"})
    one_band = {"bands": {"red": "red"}, "mask": None}
    region = iw.region(tmp_path, {"catalog": str(archive.write())}, imagery=one_band)
    assert find_items(region, iw.plan(region).tiles()).notes == ()
    _, _, path, failed = iw.run(region)
    assert not failed
    made = iw.read(path)
    assert {int(one) for one in np.unique(made["red"])} == {round((20000 * 2.75e-5 - 0.2) / 1e-4)}


def test_a_scale_that_nobody_names_is_said_and_can_be_given(tmp_path):
    archive = iw.Archive(tmp_path / "archive")
    unscaled(archive)
    source = {"catalog": str(archive.write())}
    region = iw.region(tmp_path, source, imagery={"mask": None})
    (note,) = find_items(region, iw.plan(region).tiles()).notes
    assert "name no scale for red, nir" in note
    assert "set scale_override" in note
    given = iw.region(tmp_path, source, imagery={"mask": None, "scale_override": 2e-5})
    assert find_items(given, iw.plan(given).tiles()).notes == ()
    _, _, path, _ = iw.run(given)
    assert set(np.unique(iw.read(path)["nir"])) == {math.floor(20000 * 2e-5 / 1e-4)}


def test_pages_by_links_with_a_body_as_cdse_gives_them(tmp_path):
    page = json.loads(BY_HAND.read_text())
    (link,) = page["links"]
    with serve(tmp_path) as server:
        asked = []

        def answer(body):
            asked.append(body)
            last = {**page, "features": [{**page["features"][0], "id": "another"}], "links": []}
            return (
                last
                if "token" in body
                else {**page, "links": [{**link, "href": f"{server.url}/stac/search"}]}
            )

        server.search = answer
        found = search_api(
            f"{server.url}/stac", collection="sentinel-2-l2a", datetime=SPAN, bbox=[0, 0, 1, 1]
        )
        assert [one["id"] for one in found] == [page["features"][0]["id"], "another"]
        assert asked[1] == {**asked[0], "token": "next:sentinel-2-l2a:1"}  # merged, as the link says


def test_pages_by_get_links_as_cmr_gives_them(recorded, tmp_path):
    """The recorded page, its next link with a query led to a server of ours: nothing of the first search is added."""
    page = recorded("cmr_stac_hls_search_response.json")
    (link,) = [one for one in page["links"] if one["rel"] == "next"]
    assert "method" not in link
    query = link["href"].split("?", 1)[1]
    with serve(tmp_path) as server:
        asked = []

        def answer(body):
            asked.append(body)
            first = "cursor" not in body
            links = [{**link, "href": f"{server.url}/stac/search?{query}"}] if first else []
            features = page["features"][:12] if first else page["features"][12:]
            return {**page, "features": features, "links": links, "context": {"matched": 20}}

        server.search = answer
        found = search_api(f"{server.url}/stac", collection="HLSS30_2.0", datetime=SPAN, bbox=[0, 0, 1, 1])
        assert [one["id"] for one in found] == [one["id"] for one in page["features"]]
        assert server.requests[-1] == f"GET /stac/search?{query}"
        assert len(asked) == 2
