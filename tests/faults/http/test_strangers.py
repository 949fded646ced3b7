"""Servers that mean harm: redirects, disguised files, secrets led astray; nothing outside is read or told."""

import contextlib
import json
import secrets

import numpy as np
import pytest
import rasterio
from rasterio.errors import RasterioError
from tests import imagery_world as iw
from tests.fault_archive import FaultServer, _Handler, serve

from chipmill.core.errors import AssetReadError, ChipmillError, ItemSearchError
from chipmill.imagery import api, sources
from chipmill.imagery.api import search_api
from chipmill.imagery.hrefs import resolve_href, source_root
from chipmill.imagery.sources import open_asset
from chipmill.region.fields import Auth, Source

CANARY = "canary-7f3a,with comma"
SPAN = "2019-01-01T00:00:00Z/2020-01-01T00:00:00Z"


class Region:
    """What a root needs of a region."""

    def __init__(self, *allow_hosts: str) -> None:
        self.allow_hosts = allow_hosts


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setitem(sources.GDAL_OPTIONS, "GDAL_HTTP_MAX_RETRY", "0")
    monkeypatch.setattr(api, "RETRY", {**api.RETRY, "total": 0})
    monkeypatch.setenv("CHIPMILL_SECRET_CANARY", CANARY)


@pytest.fixture
def folder(tmp_path):
    iw.save(tmp_path / "a.tif", np.arange(iw.SIDE * iw.SIDE, dtype=np.int16).reshape(iw.SIDE, -1))
    return tmp_path


@pytest.fixture
def server(folder, headers):
    with serve(folder) as running:
        yield running


@pytest.fixture
def unknown(folder, headers):
    """A server at an address that no other process, no earlier test and no cache has heard of."""
    with serve(folder, address=f"127.{'.'.join(map(str, secrets.token_bytes(2)))}.77") as running:
        yield running


@pytest.fixture
def headers(monkeypatch):
    """Every request to any server of this test: (path, headers); paths below /to/ are redirected."""
    seen = []
    real = _Handler._answer

    def answer(self, body):
        seen.append((self.path, dict(self.headers)))
        target = self.shared.redirects.get(self.path.partition("?")[0])
        if target:
            self.shared.requests.append(f"{self.command} {self.path}")
            self._send(302, b"", {"Location": target})
        else:
            real(self, body)

    monkeypatch.setattr(_Handler, "_answer", answer)
    monkeypatch.setattr(FaultServer, "redirects", {}, raising=False)
    return seen


def located(server, path, *allow_hosts, auth=None):
    return resolve_href(source_root(Region(*allow_hosts), Source(stac=server.url), auth), path)


def first_pixels(location):
    with open_asset(location) as dataset:
        return dataset.read(1, window=((0, 1), (0, 3)))[0].tolist()


def test_a_file_of_the_source_is_read_through_the_gate(server):
    assert first_pixels(located(server, "a.tif")) == [0, 1, 2]


REDIRECTS = [
    "http://localhost:{port}/a.tif",
    "http://169.254.169.254/a.tif",
    "http://[::ffff:127.0.0.1]:{port}/a.tif",
]


@pytest.mark.parametrize("target", REDIRECTS)
def test_a_redirect_to_a_private_host_is_not_followed(server, target):
    port = server.url.rpartition(":")[2]
    server.redirects["/b.tif"] = target.format(port=port)
    with pytest.raises(
        AssetReadError, match=r"leads to a host that its catalog may not name.*allow_hosts"
    ) as caught:
        first_pixels(located(server, "b.tif"))
    assert not caught.value.transient
    assert not [one for one in server.requests if one.endswith("a.tif")]


def test_a_redirect_within_the_reach_is_followed(server):
    server.redirects["/b.tif"] = server.url.replace("127.0.0.1", "localhost") + "/a.tif"
    assert first_pixels(located(server, "b.tif", "localhost")) == [0, 1, 2]


def test_no_proxy_of_the_environment_does_not_lead_around_the_gate(server, monkeypatch):
    from chipmill.imagery.gate import close_gate

    close_gate()
    monkeypatch.setenv("no_proxy", "localhost,127.0.0.1")
    server.redirects["/b.tif"] = server.url.replace("127.0.0.1", "localhost") + "/a.tif"
    with pytest.raises(AssetReadError, match="may not name"):
        first_pixels(located(server, "b.tif"))


@pytest.mark.parametrize("kind", ["header", "query"])
def test_a_secret_is_sent_to_its_origin(unknown, headers, kind):
    auth = Auth(kind=kind, name="X-Key", env="CHIPMILL_SECRET_CANARY")
    assert first_pixels(located(unknown, "a.tif", auth=auth)) == [0, 1, 2]
    assert headers
    for path, sent in headers:
        assert (sent.get("X-Key") == CANARY) is (kind == "header")
        assert ("X-Key=canary-7f3a%2Cwith%20comma" in path) is (kind == "query")


@pytest.mark.parametrize("kind", ["header", "query"])
def test_a_secret_does_not_follow_a_redirect_nor_a_href_to_another_host(server, headers, kind, tmp_path):
    auth = Auth(kind=kind, name="X-Key", env="CHIPMILL_SECRET_CANARY")
    with serve(tmp_path) as other:
        there = other.url.replace("127.0.0.1", "localhost")
        server.redirects["/b.tif"] = f"{there}/a.tif"
        with pytest.raises(AssetReadError, match="alone may see the source's secret"):
            first_pixels(located(server, "b.tif", "localhost", auth=auth))
        assert other.requests == []
        headers.clear()
        assert first_pixels(located(server, f"{there}/a.tif", "localhost", auth=auth)) == [0, 1, 2]
        assert headers
        assert "canary" not in json.dumps(headers)


def test_a_secret_that_is_not_set_is_one_sentence(server, monkeypatch):
    monkeypatch.delenv("CHIPMILL_SECRET_CANARY")
    auth = Auth(kind="header", name="X-Key", env="CHIPMILL_SECRET_CANARY")
    with pytest.raises(ChipmillError, match="variable CHIPMILL_SECRET_CANARY is not set"):
        first_pixels(located(server, "a.tif", auth=auth))


def ask(server, *allow_hosts, auth=None):
    root = source_root(Region(*allow_hosts), Source(stac=f"{server.url}/stac"), auth)
    return search_api(root, collection="c", datetime=SPAN, bbox=[0, 0, 1, 1])


@pytest.mark.parametrize("kind", ["header", "query"])
def test_a_search_sends_the_secret_with_every_page(server, headers, kind):
    server.search = lambda body: {"type": "FeatureCollection", "features": [], "links": []}
    assert ask(server, auth=Auth(kind=kind, name="X-Key", env="CHIPMILL_SECRET_CANARY")) == []
    assert len(headers) == 2
    for path, sent in headers:
        assert (sent.get("X-Key") == CANARY) is (kind == "header")
        assert ("X-Key=canary" in path) is (kind == "query")


@pytest.mark.parametrize("kind", ["none", "header", "query"])
@pytest.mark.parametrize("path", ["/stac", "/stac/search"])
def test_a_search_does_not_follow_a_redirect_to_another_host(server, headers, tmp_path, kind, path):
    auth = Auth() if kind == "none" else Auth(kind=kind, name="X-Key", env="CHIPMILL_SECRET_CANARY")
    server.search = lambda body: {"type": "FeatureCollection", "features": [], "links": []}
    with serve(tmp_path) as other:
        server.redirects[path] = other.url.replace("127.0.0.1", "localhost") + path
        with pytest.raises(ItemSearchError, match="another host is not followed"):
            ask(server, "localhost", auth=auth)
        assert other.requests == []


def test_a_search_takes_no_login_from_netrc(server, headers, tmp_path, monkeypatch):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password canary-netrc\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    server.search = lambda body: {"type": "FeatureCollection", "features": [], "links": []}
    ask(server)
    assert not [sent for _, sent in headers if "Authorization" in sent]


def _vrt(path):
    return (
        f'<VRTDataset rasterXSize="64" rasterYSize="64"><SRS>EPSG:32633</SRS>'
        f"<GeoTransform>0,10,0,0,0,-10</GeoTransform>"
        f'<VRTRasterBand dataType="Int16" band="1"><SimpleSource><SourceFilename>{path}</SourceFilename>'
        f"<SourceBand>1</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>"
    ).encode()


DISGUISES = {
    "vrt.tif": _vrt,
    "vrt.jp2": _vrt,
    "wms.tif": lambda path: (
        b"<GDAL_WMS><Service name='TMS'><ServerUrl>http://127.0.0.1/</ServerUrl></Service></GDAL_WMS>"
    ),
    "ascii.tif": lambda path: b"ncols 2\nnrows 2\nxllcorner 0\nyllcorner 0\ncellsize 1\n1 2\n3 4\n",
    "png.tif": lambda path: b"\x89PNG\r\n\x1a\n" + bytes(64),
    "sti.tif": lambda path: json.dumps({"type": "FeatureCollection", "features": []}).encode(),
    "derived.vrt": _vrt,
}


@pytest.mark.parametrize("name", DISGUISES)
@pytest.mark.parametrize("served", [True, False])
def test_a_disguised_file_is_not_read(server, tmp_path, name, served):
    (tmp_path / name).write_bytes(DISGUISES[name](tmp_path / "a.tif"))
    location = located(server, name) if served else str(tmp_path / name)
    with pytest.raises(AssetReadError):
        first_pixels(location)


def test_a_disguise_would_work_without_the_allowlist(tmp_path, server):
    """Else the test above could not fail."""
    (tmp_path / "vrt.tif").write_bytes(_vrt(tmp_path / "a.tif"))
    with rasterio.open(tmp_path / "vrt.tif") as dataset:
        assert dataset.read(1)[0, :3].tolist() == [0, 1, 2]
    with contextlib.suppress(RasterioError), rasterio.open(tmp_path / "vrt.tif", driver="GTiff"):
        raise AssertionError("the allowlist let it in")
