"""Assets that are read by a signature: taken when they are read, renewed when it ends or is refused, stored nowhere."""

import datetime as dt
import json
import socket

import numpy as np
import pytest
from pydantic import ValidationError
from tests import imagery_world as iw

from chipmill.core.errors import AssetReadError, TransientReadError
from chipmill.imagery import signing, sources
from chipmill.imagery.hrefs import relative_href, resolve_href, source_root
from chipmill.imagery.sources import open_asset
from chipmill.region.fields import Auth, Source

HOST = "toyaccount.blob.core.windows.net"


class Region:
    """What a root needs of a region."""

    allow_hosts = (HOST,)


class Service:
    """The service of tokens and the store of the fault server, which takes the newest token alone."""

    def __init__(self, server):
        self.given = 0
        self.minutes = 45.0
        self.valid = None
        server.documents["/sas/toyaccount/box"] = self.token
        server.signed = lambda path: (
            "/box/" not in path or f"sig=canary{self.valid}" in path or "/sas/" in path
        )
        self.server = server

    def token(self):
        self.given += 1
        self.valid = self.given
        ends = dt.datetime.now(dt.UTC) + dt.timedelta(minutes=self.minutes)
        return {"token": f"se=2030&sig=canary{self.given}%3D", "msft:expiry": ends.isoformat()}


@pytest.fixture
def service(archive, short_waits, tmp_path, monkeypatch):
    """A store that answers signed requests only, under the name of a public one."""
    real = socket.getaddrinfo

    def look_up(host, *args, **more):
        return real("127.0.0.1" if host == HOST else host, *args, **more)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setenv("PC_SDK_SAS_URL", f"{archive.url}/sas")
    monkeypatch.setattr(signing, "_tokens", {})
    pixels = np.random.default_rng(5).integers(1, 9000, (256, 256)).astype(np.uint16)
    iw.save(tmp_path / "box" / "a.tif", pixels, nodata=0, block=64)
    made = Service(archive)
    made.pixels = pixels
    return made


def located(service, name="box/a.tif", **auth):
    port = service.server.url.rpartition(":")[2]
    root = source_root(
        Region(), Source(stac=f"http://{HOST}:{port}/"), Auth(kind="planetary-computer", **auth)
    )
    return resolve_href(root, name)


def pixels_of(location):
    with open_asset(location) as dataset:
        return dataset.read(1)


def test_a_container_is_signed_once_and_its_items_stay_bare(service):
    first, second = located(service), located(service)
    np.testing.assert_array_equal(pixels_of(first), service.pixels)
    np.testing.assert_array_equal(pixels_of(second), service.pixels)
    assert service.given == 1
    assert "sig=" not in first
    asked = [one for one in service.server.requests if "/box/a.tif" in one]
    assert asked
    assert all("sig=canary1%3D" in one for one in asked)
    root = source_root(Region(), Source(stac=f"http://{HOST}/"), Auth(kind="planetary-computer"))
    assert relative_href(root, f"http://{HOST}/i.json", "/box/a.tif?se=1&sig=x") == "box/a.tif"


def test_a_token_is_renewed_a_minute_before_it_ends(service):
    service.minutes = 0.9
    pixels_of(located(service))
    pixels_of(located(service))
    assert service.given == 2


@pytest.mark.parametrize("where", ["header", "block"])
def test_a_signature_that_is_refused_is_transient_and_the_next_read_has_a_fresh_one(service, where):
    location = located(service)
    if where == "header":
        signing.sign(location)
        service.valid = "another"
        with pytest.raises(TransientReadError, match=r"a\.tif could not be read now"):
            pixels_of(location)
    else:
        with open_asset(location) as dataset:
            service.valid = "another"
            with pytest.raises(TransientReadError), sources.reading(location):
                dataset.read(1)
    assert service.given == 1
    np.testing.assert_array_equal(pixels_of(location), service.pixels)
    assert service.given == 2


def test_a_refusal_without_a_signature_stays_permanent(service):
    service.server.plan("/other/a.tif", "header", "403")
    root = source_root(Region(), Source(stac=service.server.url), Auth())
    with pytest.raises(AssetReadError) as caught:
        pixels_of(resolve_href(root, "other/a.tif"))
    assert not caught.value.transient


def test_a_missing_file_with_a_good_signature_is_permanent_and_no_reason_for_another(service):
    with pytest.raises(AssetReadError) as caught:
        pixels_of(located(service, "box/none.tif"))
    assert not caught.value.transient
    assert "canary" not in str(caught.value)
    signing.sign(located(service))
    assert service.given == 1


def test_a_service_that_fails_now_is_transient_and_one_that_knows_nothing_is_not(service):
    service.server.faults["/sas/toyaccount/box"] = [503] * 9
    with pytest.raises(TransientReadError, match=r"token of toyaccount/box from http.*/sas did not come"):
        pixels_of(located(service))
    service.server.faults["/sas/toyaccount/box"] = [404]
    with pytest.raises(AssetReadError, match="HTTP 404") as caught:
        pixels_of(located(service))
    assert not caught.value.transient


@pytest.mark.parametrize(
    "answer", [{}, {"token": "a b\r\n", "msft:expiry": "2030-01-01T00:00:00Z"}, {"token": "a", "msft:expiry": "soon"},
               {"token": "a", "msft:expiry": "2030-01-01T00:00:00"}],
)  # fmt: skip
def test_an_answer_that_is_no_token_is_not_sent_on(service, answer):
    service.server.documents["/sas/toyaccount/box"] = lambda: answer
    with pytest.raises(AssetReadError, match="is no token with an expiry"):
        pixels_of(located(service))
    assert not [one for one in service.server.requests if "/box/a.tif" in one]


def test_a_signed_request_is_led_to_no_other_host(service, monkeypatch):
    from tests.fault_archive import _Handler

    port = service.server.url.rpartition(":")[2]
    real = _Handler._file

    def away(self, path, fault):
        if path.name == "a.tif":
            self._send(302, b"", {"Location": f"http://localhost:{port}/stolen.tif"})
        else:
            real(self, path, fault)

    monkeypatch.setattr(_Handler, "_file", away)
    with pytest.raises(AssetReadError, match="alone may see the source's secret"):
        pixels_of(located(service))
    assert not [one for one in service.server.requests if "stolen" in one]


def test_a_subscription_key_goes_to_the_service_alone(service, monkeypatch):
    from tests.fault_archive import _Handler

    monkeypatch.setenv("CHIPMILL_SECRET_PC", "canary-key")
    seen = []
    real = _Handler._answer
    monkeypatch.setattr(
        _Handler,
        "_answer",
        lambda self, body: (seen.append((self.path, dict(self.headers))), real(self, body)),
    )
    pixels_of(located(service, env="CHIPMILL_SECRET_PC"))
    told = [path for path, headers in seen if "canary-key" in json.dumps(headers) + path]
    assert told == ["/sas/toyaccount/box"]


def test_items_from_a_file_are_signed_too(service, tmp_path):
    class Disk(Region):
        def resolve(self, path):
            return tmp_path / path

    root = source_root(Disk(), Source(items="items.json"), Auth(kind="planetary-computer"))
    port = service.server.url.rpartition(":")[2]
    np.testing.assert_array_equal(
        pixels_of(resolve_href(root, f"http://{HOST}:{port}/box/a.tif")), service.pixels
    )


@pytest.mark.parametrize(
    "url",
    ["http://elsewhere.example/box/a.tif", f"http://{HOST}.evil.example/box/a.tif", f"http://a.b.{HOST}/box/a.tif",
     f"http://{HOST}/../a.tif", "http://ai4edatasetspublicassets.blob.core.windows.net/box/a.png"],
)  # fmt: skip
def test_other_places_get_no_signature(service, url):
    root = source_root(Region(), Source(stac=f"http://{HOST}/"), Auth(kind="planetary-computer"))
    location = type(located(service))(url, root.reach, root.auth)
    assert signing.sign(location) == url
    assert service.given == 0


@pytest.mark.parametrize(
    ("url", "sent"),
    [
        ("https://data.lpdaac.earthdatacloud.nasa.gov/a.tif", True),
        ("https://cmr.earthdata.nasa.gov/a.tif", True),
        ("http://data.lpdaac.earthdatacloud.nasa.gov/a.tif", False),
        ("https://earthdatacloud.nasa.gov.evil.example/a.tif", False),
        ("https://xearthdata.nasa.gov/a.tif", False),
        ("https://d1.cloudfront.net/a.tif", False),
    ],
)
def test_a_bearer_token_is_sent_to_its_own_hosts_by_https_alone(monkeypatch, url, sent):
    monkeypatch.setenv("CHIPMILL_SECRET_EDL", "canary-token")
    auth = Auth(kind="earthdata", env="CHIPMILL_SECRET_EDL")
    location = resolve_href(
        source_root(Region(), Source(stac="https://cmr.earthdata.nasa.gov/stac"), auth), url
    )
    name, options = sources._request(location)
    assert name == f"/vsicurl/{url}"
    assert ("GDAL_HTTP_HEADERS" in options) is sent
    if sent:
        assert options["GDAL_HTTP_HEADERS"] == "Authorization: Bearer canary-token\r\n"


@pytest.mark.parametrize(
    "auth",
    [
        {"kind": "planetary-computer", "name": "X-Key"},
        {"kind": "earthdata"},
        {"kind": "earthdata", "name": "X-Key", "env": "CHIPMILL_SECRET_A"},
        {"kind": "header", "env": "CHIPMILL_SECRET_A"},
    ],
)
def test_auth_that_cannot_be_meant_is_refused(auth):
    with pytest.raises(ValidationError, match="auth"):
        Auth.model_validate(auth)


def test_a_tile_whose_signature_was_refused_is_made_in_the_next_round(service, tmp_path):
    url = located(service, "box/tile.tif")
    pixels = np.full((iw.SIDE, iw.SIDE), 1234, np.uint16)
    iw.save(tmp_path / "box" / "tile.tif", pixels, nodata=0)
    items = iw.Archive(tmp_path / "archive")
    item = items.scene("2019-03-01", {"red": pixels})
    item["assets"]["red"]["href"] = str(url)
    (tmp_path / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": [item]}))
    config = iw.region(
        tmp_path,
        {"items": "items.json"},
        imagery={"bands": {"red": "red"}, "mask": None, "auth": {"kind": "planetary-computer"}},
        allow_hosts=(HOST,),
    )
    signing.sign(url)
    service.valid = "another"
    _, _, path, failed = iw.run(config)
    assert [one.transient for one in failed] == [True]
    _, _, path, failed = iw.run(config)
    assert failed == []
    assert (iw.read(path)["red"] == 1234).all()
    assert service.given == 2
    for file in tmp_path.rglob("*.parquet"):
        assert b"canary" not in file.read_bytes()
