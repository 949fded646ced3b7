"""The same by https, where the gate sees nothing of what passes: reads, turns, budgets, and who gets a login."""

import datetime as dt
import ipaddress
import json
import socket
import ssl
import time

import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from tests import imagery_world as iw
from tests.fault_archive import _Handler, serve

from chipmill.core.errors import AssetReadError, ItemSearchError, TransientReadError
from chipmill.imagery import patience, sources
from chipmill.imagery.api import search_api
from chipmill.imagery.hosts import Turn
from chipmill.imagery.hrefs import resolve_href, source_root
from chipmill.imagery.sources import open_asset
from chipmill.region.fields import Auth, Source

NASA, STORE = "data.toy.earthdatacloud.nasa.gov", "cache.toy.example"


class Region:
    """What a root needs of a region."""

    allow_hosts = (NASA, STORE)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """The path of a certificate with its key, for the names of this module alone."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "toy")])
    names = [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), *map(x509.DNSName, (NASA, STORE))]
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return path


@pytest.fixture
def server(certificate, short_waits, tmp_path, monkeypatch):
    """The fault server by https, under two names of others as well; ``seen`` gets (host, path, headers)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    monkeypatch.setitem(sources.GDAL_OPTIONS, "GDAL_CURL_CA_BUNDLE", str(certificate))
    monkeypatch.setitem(sources.GDAL_OPTIONS, "GDAL_HTTP_TIMEOUT", "2")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    real, answer = socket.getaddrinfo, _Handler._answer
    seen = []

    def look_up(host, *args, **more):
        return real("127.0.0.1" if host in (NASA, STORE) else host, *args, **more)

    def note(self, body):
        seen.append((self.headers["Host"].partition(":")[0], self.path, dict(self.headers)))
        if self.path == "/moved.tif":
            port = self.headers["Host"].partition(":")[2]
            self._send(302, b"", {"Location": f"https://{STORE}:{port}/a.tif"})
        else:
            answer(self, body)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr(_Handler, "_answer", note)
    pixels = np.random.default_rng(5).integers(1, 9000, (256, 256)).astype(np.uint16)
    iw.save(tmp_path / "a.tif", pixels, nodata=0, block=64)
    with serve(tmp_path, context) as running:
        running.pixels, running.seen = pixels, seen
        running.search = lambda body: {"type": "FeatureCollection", "features": [], "links": []}
        yield running


def located(server, name, host="127.0.0.1", **auth):
    port = server.url.rpartition(":")[2]
    root = source_root(Region(), Source(stac=f"{server.url}/stac"), Auth(**auth))
    return resolve_href(root, f"https://{host}:{port}/{name}")


def pixels_of(location):
    with open_asset(location) as dataset:
        return dataset.read(1)


def ask(server):
    return search_api(
        f"{server.url}/stac", collection="c", datetime="2019-01-01/2020-01-01", bbox=[0, 0, 1, 1]
    )


def test_a_file_is_read_and_a_catalog_is_asked(server):
    np.testing.assert_array_equal(pixels_of(located(server, "a.tif")), server.pixels)
    assert ask(server) == []


def test_a_certificate_of_nobody_is_refused(server, monkeypatch):
    monkeypatch.delitem(sources.GDAL_OPTIONS, "GDAL_CURL_CA_BUNDLE")
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    with pytest.raises(AssetReadError):
        pixels_of(located(server, "a.tif"))
    with pytest.raises(ItemSearchError, match="did not answer"):
        ask(server)
    assert server.seen == []


def test_a_read_waits_for_its_turn(server, monkeypatch):
    monkeypatch.setenv("CHIPMILL_HOST_REQUESTS", "1")
    monkeypatch.setitem(sources.GDAL_OPTIONS, "GDAL_HTTP_TIMEOUT", "0.5")
    monkeypatch.setitem(sources.GDAL_OPTIONS, "GDAL_HTTP_MAX_RETRY", "0")
    with Turn("127.0.0.1", int(server.url.rpartition(":")[2])) as turn:
        turn.take(1.0)
        with pytest.raises(TransientReadError, match=r"others keep 127\.0\.0\.1 busy"):
            pixels_of(located(server, "a.tif"))
        assert server.seen == []
    monkeypatch.setitem(sources.GDAL_OPTIONS, "GDAL_HTTP_TIMEOUT", "2")
    np.testing.assert_array_equal(pixels_of(located(server, "a.tif")), server.pixels)


def test_an_answer_that_drips_is_cut(server):
    server.plan("/stac/search", "search", "drip")
    begun = time.monotonic()
    with pytest.raises(ItemSearchError, match=r"no whole answer within 1\.5 s"):
        ask(server)
    assert time.monotonic() - begun < 2 * patience.BUDGET_S


def test_a_bearer_token_goes_to_its_host_and_not_where_that_leads(server, monkeypatch):
    monkeypatch.setenv("CHIPMILL_SECRET_EDL", "canary-token")
    location = located(server, "moved.tif", NASA, kind="earthdata", env="CHIPMILL_SECRET_EDL")
    np.testing.assert_array_equal(pixels_of(location), server.pixels)
    assert {host for host, _, _ in server.seen} == {NASA, STORE}
    for host, _, headers in server.seen:
        assert (headers.get("Authorization") == "Bearer canary-token") is (host == NASA)
        assert ("canary" in json.dumps(headers)) is (host == NASA)
