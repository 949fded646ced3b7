"""Hrefs as a hostile catalog would write them: refused by name before anything is opened, or by address when it is."""

import pickle
import socket
import struct
import threading

import pytest

from chipmill.core.errors import ItemSearchError
from chipmill.imagery.gate import Gate
from chipmill.imagery.hrefs import relative_href, resolve_href, source_root
from chipmill.imagery.reach import ForbiddenHostError, Location, Reach, Root, public_address, reach_of
from chipmill.region.fields import Auth, Source

API = "https://catalog.example.org/api"
FOLDER = "/data/catalog"
FROM_API = [
    "file:///etc/passwd",
    "FILE:///etc/passwd",
    "file://localhost/etc/passwd",
    "zip:///etc/x.zip!a.tif",
    "s3://bucket/key.tif",
    "gs://bucket/key.tif",
    "ftp://example.org/a.tif",
    "gopher://example.org/a",
    "vsicurl://example.org/a.tif",
    "data:image/tiff;base64,SUkq",
    "javascript:alert(1)",
    "http://127.0.0.1/a.tif",
    "http://127.1/a.tif",
    "http://0x7f.0.0.1/a.tif",
    "http://0177.0.0.1/a.tif",
    "http://2130706433/a.tif",
    "http://0/a.tif",
    "http://localhost/a.tif",
    "http://LOCALHOST./a.tif",
    "http://x.localhost/a.tif",
    "http://10.0.0.8/a.tif",
    "http://192.168.1.1:8080/a.tif",
    "http://100.64.0.1/a.tif",
    "http://169.254.169.254/latest/meta-data",
    "http://metadata.google.internal/computeMetadata/v1/",
    "http://[::1]/a.tif",
    "http://[::ffff:127.0.0.1]/a.tif",
    "http://[64:ff9b::a00:1]/a.tif",
    "http://[fe80::1%25eth0]/a.tif",
    "http://printer/a.tif",
    "https://catalog.example.org@127.0.0.1/a.tif",
    "https://user:pw@example.org/a.tif",
    "https://catalog.example.org\\@127.0.0.1/a.tif",
    "https://%31%32%37.0.0.1/a.tif",
    "http://\uff11\uff12\uff17.0.0.1/a.tif",
    "http://l\u043ecalhost.example/a.tif",
    "https://example.org/a.tif\r\nX-Evil: 1",
    "https://example.org:99999/a.tif",
    "https://[::1/a.tif",
    "https://example.org/" + "a" * 9000,
]
FROM_FOLDER = [
    "/etc/passwd",
    "../../etc/passwd",
    "./a/../../../etc/passwd",
    "../catalog-of-others/a.tif",
    "file:///etc/passwd",
    "file://server/share/a.tif",
    "//server/share/a.tif",
    "/vsicurl/http://127.0.0.1/a.tif",
    "/vsicurl?url=http%3A%2F%2F127.0.0.1%2Fa.tif",
    "/vsizip//data/catalog/a.zip/a.tif",
    "/vsistdin/",
    "/vsimem/a.tif",
    "zip://a.zip!a.tif",
    "GTIFF_DIR:1:/etc/passwd",
    "GTIFF_DIR:1:/data/catalog/a.tif",
    "MEM:::DATAPOINTER=1,PIXELS=1,LINES=1",
    "NETCDF:/etc/passwd:x",
    "C:\\windows\\a.tif",
    "\\\\server\\share\\a.tif",
    "a.tif\0.txt",
    "http://127.0.0.1:8000/a.tif",
]


def test_there_are_forty_and_more():
    assert len(set(FROM_API)) >= 40
    assert len({*FROM_API, *FROM_FOLDER}) >= 60


@pytest.mark.parametrize("href", FROM_API)
def test_an_api_does_not_lead_there(href):
    for base in (f"{API}/items/i", "file:///etc/", "https://other.example.net/"):
        with pytest.raises(ItemSearchError, match=r"^the href"):
            relative_href(API, base, href)
    with pytest.raises(ItemSearchError, match=r"^the href"):
        resolve_href(API, href)


@pytest.mark.parametrize("href", FROM_FOLDER)
def test_a_catalog_on_disk_does_not_lead_there(href):
    with pytest.raises(ItemSearchError, match=r"^the href"):
        relative_href(FOLDER, f"{FOLDER}/c.json", href)
    with pytest.raises(ItemSearchError, match=r"^the href"):
        resolve_href(FOLDER, href)


@pytest.mark.parametrize(
    "href",
    ["/vsicurl?url=file:///etc/passwd", "/vsizip/x", "/etc/passwd", "../../../etc/passwd", "GTIFF_DIR:1"],
)
def test_what_means_a_file_to_gdal_is_a_path_on_the_host_of_an_api(href):
    try:
        found = resolve_href(API, relative_href(API, f"{API}/items/i", href))
    except ItemSearchError:
        return
    assert found.startswith("https://catalog.example.org/")


def test_a_local_item_with_a_url_as_its_own_link_leads_to_no_file():
    assert (
        relative_href(FOLDER, "https://example.org/i.json", "/etc/passwd") == "https://example.org/etc/passwd"
    )


def test_an_error_shows_no_secret_of_the_href():
    with pytest.raises(ItemSearchError) as caught:
        relative_href(API, API, "https://user:canary-pw@example.org/a.tif?sig=canary-sig")
    assert "canary" not in str(caught.value)


def test_a_private_catalog_leads_to_its_own_host_and_where_the_region_allows():
    root = Root("http://10.0.0.8/api", Reach("10.0.0.8", ("10.0.0.9", "minio")), Auth())
    for href in ("http://10.0.0.8:9000/a.tif", "http://10.0.0.9/a.tif", "http://minio:9000/a.tif"):
        assert relative_href(root, "http://10.0.0.8/api/i", href) == href
    with pytest.raises(ItemSearchError, match="allow_hosts"):
        relative_href(root, "http://10.0.0.8/api/i", "http://10.0.0.10/a.tif")


def test_the_reach_travels_with_the_root_to_another_process_and_to_the_location(tmp_path):
    class Region:
        allow_hosts = ("minio",)

    auth = Auth(kind="header", name="X-Key", env="CHIPMILL_SECRET_A")
    root = pickle.loads(pickle.dumps(source_root(Region(), Source(stac=API), auth)))
    assert root == API
    location = pickle.loads(pickle.dumps(resolve_href(root, "x/red.tif")))
    assert isinstance(location, Location)
    assert (location.reach, location.auth) == (root.reach, auth)
    assert location.reach.only == ("catalog.example.org", 443)
    assert reach_of("https://plain.example/a.tif") == Reach("plain.example")


@pytest.fixture
def resolver(monkeypatch):
    """Names of a resolver that a stranger feeds."""
    names = {"catalog.example.org": ["127.0.0.1"], "rebind.example": ["169.254.169.254", "127.0.0.1"]}
    real = socket.getaddrinfo

    def answer(host, port, *args, **more):
        found = names.get(host, [host])
        return [one for address in found for one in real(address, port, type=socket.SOCK_STREAM)]

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    return names


@pytest.fixture
def listener():
    """A server of the private network, and how often it was connected to."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10)
        yield server


@pytest.mark.parametrize("home", ["catalog.example.org", "other.example", ""])
def test_a_public_name_with_a_private_address_is_not_connected_to(resolver, listener, home):
    port = listener.getsockname()[1]
    with pytest.raises(ForbiddenHostError, match=r"private address 127\.0\.0\.1: name it in allow_hosts"):
        Reach(home).connect("catalog.example.org", port, 2)
    listener.setblocking(False)
    with pytest.raises(BlockingIOError):
        listener.accept()


def test_a_host_that_is_allowed_is_connected_to(resolver, listener):
    with Reach("", ("catalog.example.org",)).connect("Catalog.Example.org.", listener.getsockname()[1], 2):
        listener.accept()[0].close()


def test_a_secret_goes_to_its_host_and_port_alone(listener):
    port = listener.getsockname()[1]
    reach = Reach("127.0.0.1", ("localhost",), ("127.0.0.1", port))
    with reach.connect("127.0.0.1", port, 2):
        listener.accept()[0].close()
    for host, other in (("localhost", port), ("127.0.0.1", port + 1)):
        with pytest.raises(ForbiddenHostError, match="alone may see"):
            reach.connect(host, other, 2)


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("224.0.0.1", False),
        ("0.0.0.0", False),
        ("2606:4700::1111", True),
        ("2002:7f00:1::", False),
        ("::ffff:10.0.0.1", False),
        ("fd00::1", False),
        ("::", False),
    ],
)
def test_public_addresses(address, public):
    import ipaddress

    assert public_address(ipaddress.ip_address(address)) is public


@pytest.fixture
def gate():
    made = Gate()
    yield made
    made.close()


def _ask(gate, user, password, host, port):
    """Speak SOCKS5 as curl does; return what the gate answers to the login and to the wish."""
    with socket.create_connection(("127.0.0.1", gate._listener.getsockname()[1]), 5) as client:
        client.sendall(b"\x05\x01\x02")
        assert client.recv(2) == b"\x05\x02"
        client.sendall(bytes((1, len(user))) + user + bytes((len(password),)) + password)
        login = client.recv(2)
        if login != b"\x01\x00":
            return login, client.recv(1)
        name = host.encode()
        client.sendall(b"\x05\x01\x00\x03" + bytes((len(name),)) + name + struct.pack("!H", port))
        return login, client.recv(10)[1:2]


def test_the_gate_serves_nobody_without_its_password(listener, gate):
    name, _, password = gate.options(Reach("127.0.0.1"))["GDAL_HTTP_PROXYUSERPWD"].partition(":")
    port = listener.getsockname()[1]
    assert _ask(gate, name.encode(), b"guess", "127.0.0.1", port) == (b"\x01\x01", b"")
    assert _ask(gate, b"r99", password.encode(), "127.0.0.1", port) == (b"\x01\x01", b"")
    assert _ask(gate, name.encode(), password.encode(), "127.0.0.1", port) == (b"\x01\x00", b"\x00")
    assert gate._listener.getsockname()[0] == "127.0.0.1"


def test_the_gate_refuses_what_the_reach_does_and_says_why(gate):
    reach = Reach("catalog.example.org")
    name, _, password = gate.options(reach)["GDAL_HTTP_PROXYUSERPWD"].partition(":")
    assert _ask(gate, name.encode(), password.encode(), "169.254.169.254", 80) == (b"\x01\x00", b"\x02")
    assert "169.254.169.254 is a private host" in gate.refusal(reach)
    assert gate.refusal(reach) == ""


def test_the_gate_passes_bytes_both_ways_and_the_end(listener, gate):
    name, _, password = gate.options(Reach("127.0.0.1"))["GDAL_HTTP_PROXYUSERPWD"].partition(":")
    sent = bytes(range(256)) * 8192

    def echo():
        connection, _ = listener.accept()
        with connection:
            received = b""
            while part := connection.recv(1 << 16):
                received += part
            connection.sendall(received[::-1])

    thread = threading.Thread(target=echo)
    thread.start()
    port = gate._listener.getsockname()[1]
    with socket.create_connection(("127.0.0.1", port), 10) as client:
        client.sendall(b"\x05\x01\x02")
        client.recv(2)
        user, word = name.encode(), password.encode()
        client.sendall(bytes((1, len(user))) + user + bytes((len(word),)) + word)
        client.recv(2)
        client.sendall(b"\x05\x01\x00\x01\x7f\x00\x00\x01" + struct.pack("!H", listener.getsockname()[1]))
        client.recv(10)
        client.sendall(sent)
        client.shutdown(socket.SHUT_WR)
        back = b""
        while part := client.recv(1 << 16):
            back += part
    thread.join(10)
    assert back == sent[::-1]
