"""Secrets: refused as parameters, read where they are sent, and found nowhere in what is written, logged or said."""

import asyncio
import json
import logging
import subprocess
import sys

import jsonschema
import numpy as np
import pyarrow.parquet as pq
import pytest
import typer
from pydantic import ValidationError
from tests import imagery_world as iw
from tests.fault_archive import serve

from chipmill.cli.console import terminal
from chipmill.core import redact as redactor
from chipmill.core.errors import ChipmillError, RegionFileError
from chipmill.core.redact import RedactingFilter, holds_secret, redact
from chipmill.imagery import api, sources
from chipmill.imagery.hrefs import relative_href, source_root
from chipmill.region.config import Region
from chipmill.region.fields import Auth, Source
from chipmill.region.identity import config_fingerprint
from chipmill.region.load import dump_config, load_region

ENV, HEADER, QUERY, SIG, PASSWORD = (f"canary{number}x7f3a" for number in range(5))
CANARIES = (ENV, HEADER, QUERY, SIG, PASSWORD)


@pytest.fixture(autouse=True)
def secrets(monkeypatch):
    for name, value in {"ENV": ENV, "HEADER": HEADER, "QUERY": QUERY}.items():
        monkeypatch.setenv(f"CHIPMILL_SECRET_{name}", value)


@pytest.mark.parametrize(
    "auth",
    [
        {"kind": "header"},
        {"kind": "header", "name": "X-Key"},
        {"kind": "none", "name": "X-Key", "env": "CHIPMILL_SECRET_A"},
        {"kind": "header", "name": "X-Key", "env": "AWS_SECRET_ACCESS_KEY"},
        {"kind": "header", "name": "X-Key", "env": "CHIPMILL_SECRET_"},
        {"kind": "header", "name": "X-Key: y\r\nHost", "env": "CHIPMILL_SECRET_A"},
        {"kind": "query", "name": "k&x", "env": "CHIPMILL_SECRET_A"},
    ],
)
def test_auth_that_is_incomplete_or_names_another_variable_is_refused(auth):
    with pytest.raises(ValidationError):
        Auth.model_validate(auth)


LITERALS = [
    f"https://user:{PASSWORD}@example.org/stac",
    f"https://{PASSWORD}@example.org/stac",
    f"https://example.org/stac?sig={SIG}",
    f"https://example.org/stac?api_key={SIG}",
    f"https://example.org/stac?subscription-key={SIG}",
    f"https://example.org/stac?X-Amz-Signature={SIG}",
    f"https://user:{PASSWORD[:3]}/{PASSWORD}@example.org/stac",
    f"https://user:{PASSWORD[:3]}/{PASSWORD}@example.org:8000/stac?limit=5",
    f"https://example.org/stac?limit=5&access_token={SIG}",
]
BARE = [
    "https://a.example/stac?limit=5",
    "https://a.example:8000/users/@me/stac",
    "https://a.example/stac?monkey=5&keys=3",
    "s3://bucket/key",
    "aoi.gpkg",
    "a@b",
    "https://[::1",
    "https://[::1]:8000/stac",
    "x?key=5",
]


@pytest.mark.parametrize("url", LITERALS)
def test_a_literal_secret_in_a_region_is_refused_and_not_repeated(url, tmp_path):
    path = tmp_path / "r.yaml"
    source = json.dumps({"name": "s2", "source": {"stac": url}, "bands": {"red": "red"}})
    path.write_text(
        f"name: r\naoi: {{bbox: [14, 46, 15, 47]}}\ntime: {{range: [2019-01-01, 2020-01-01]}}\nimagery: [{source}]\n"
    )
    with pytest.raises(
        RegionFileError, match=r"imagery\.0\.source\.stac holds a URL with a password"
    ) as caught:
        load_region(path)
    assert "canary" not in str(caught.value)
    values = {"name": "r", "aoi": {"bbox": (14, 46, 15, 47)}, "time": {"range": ("2019-01-01", "2020-01-01")}}
    with pytest.raises(ValidationError) as raised:
        Region.model_validate(values | {"imagery": [json.loads(source)]})
    assert "canary" not in str(raised.value)


def test_a_secret_in_the_place_of_its_variable_is_not_repeated(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text(
        "name: r\naoi: {bbox: [14, 46, 15, 47]}\ntime: {range: [2019-01-01, 2020-01-01]}\n"
        "imagery: [{name: s2, source: {stac: 'https://a.example/'}, bands: {red: red}, "
        f"auth: {{kind: header, name: X-Key, env: {SIG}}}}}]\n"
    )
    with pytest.raises(RegionFileError, match=r"auth\.env") as caught:
        load_region(path)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("text", BARE)
def test_plain_urls_hold_no_secret(text):
    assert not holds_secret(text)


@pytest.mark.parametrize("text", [*LITERALS, *BARE])
@pytest.mark.parametrize(
    "place",
    [
        ("imagery", 0, "source", "stac"),
        ("imagery", 0, "bands", "red"),
        ("labels", "layers", 0, "path"),
        ("output",),
    ],
)
def test_a_server_refuses_a_literal_secret_before_it_stores_it(text, place):
    """The schema of a flow's parameters says what the validator says."""
    values = {
        "name": "r",
        "aoi": {"path": "a.gpkg"},
        "time": {"range": ["2019-01-01", "2020-01-01"]},
        "imagery": [{"name": "s2", "source": {"stac": "https://a.example/"}, "bands": {"red": "red"}}],
        "labels": {"layers": [{"path": "l.tif"}]},
        "output": "out",
    }
    block = values
    for step in place[:-1]:
        block = block[step]
    block[place[-1]] = text
    errors = list(jsonschema.Draft202012Validator(Region.model_json_schema()).iter_errors(values))
    assert bool(errors) == holds_secret(text) == (text in LITERALS)


def test_auth_and_hosts_are_no_part_of_the_fingerprint(tmp_path):
    bare = iw.region(tmp_path, {"stac": "https://a.example/"})
    auth = {"kind": "header", "name": "X-Key", "env": "CHIPMILL_SECRET_HEADER"}
    same = iw.region(tmp_path, {"stac": "https://b.example/"}, imagery={"auth": auth}, allow_hosts=("minio",))
    assert config_fingerprint(bare) == config_fingerprint(same)
    assert HEADER not in dump_config(same)


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """A search API with one good scene, one whose file is gone, and one whose href is a trap; hrefs are signed."""
    monkeypatch.setitem(sources.GDAL_OPTIONS, "GDAL_HTTP_MAX_RETRY", "0")
    monkeypatch.setattr(api, "RETRY", {**api.RETRY, "total": 0})
    made = iw.Archive(tmp_path / "archive")
    ones = np.ones((iw.SIDE, iw.SIDE), np.int16)
    for day in ("2019-03-01", "2019-05-01", "2019-07-01"):
        made.scene(day, {"red": ones, "nir": ones}, np.full(ones.shape, iw.CLEAR, np.uint8))
    made.write()
    (tmp_path / "archive" / "s2019-05-01" / "red.tif").unlink()
    with serve(tmp_path / "archive") as server:
        host = server.url.removeprefix("http://")
        for item in made.items:
            for asset in item["assets"].values():
                asset["href"] = f"{server.url}/{item['id']}/{asset['href'][2:]}?sig={SIG}&se=1"
        made.items[2]["assets"]["red"]["href"] = f"http://user:{PASSWORD}@{host}/a.tif"
        server.search = lambda body: {"type": "FeatureCollection", "features": made.items, "links": []}
        yield server


@pytest.mark.parametrize("kind", ["header", "query"])
def test_five_canaries_are_found_nowhere(archive, tmp_path, kind, caplog, capsys, monkeypatch):
    caplog.set_level(logging.DEBUG)
    caplog.handler.addFilter(RedactingFilter())
    auth = {"kind": kind, "name": "X-Key", "env": f"CHIPMILL_SECRET_{kind.upper()}"}
    config = iw.region(tmp_path, {"stac": f"{archive.url}/stac"}, imagery={"auth": auth, "reduce": "median"})
    plan, rows, _, failed = iw.run(config)
    assert failed, "the file that is gone fails the tile"
    assert "404" in failed[0].reason
    assert any("user or password" in str(row["reason"]) for row in rows), (
        "the trap is left out with its reason"
    )
    (tmp_path / "region.yaml").write_text(dump_config(config))
    for as_json in (True, False):
        with pytest.raises(typer.Exit), terminal(as_json):
            raise ChipmillError(f"{failed[0].reason} {archive.url}/x?sig={SIG} http://u:{PASSWORD}@h/ {ENV}")
    printed = capsys.readouterr()
    texts = [caplog.text, printed.out, printed.err, repr(failed), repr(rows)]
    texts += [_text(path) for path in sorted(tmp_path.rglob("*")) if _ours(path, tmp_path)]
    assert len(texts) > 10
    for canary in CANARIES:
        assert not [text[:200] for text in texts if canary in text], canary
    assert any(kind.upper() in text for text in texts) or plan, "the name of the variable may be shown"


def _ours(path, folder):
    return path.is_file() and not path.is_relative_to(folder / "archive")


def _text(path):
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        return str(table.to_pylist()) + str(table.schema.metadata)
    return path.read_bytes().decode(errors="replace")


def test_the_filter_redacts_message_arguments_exception_and_stack():
    record = logging.getLogger("x").makeRecord(
        "x", logging.ERROR, "f", 1, "at %s", (ENV,), None, sinfo=f"s {ENV}"
    )
    try:
        raise ValueError(f"https://h/a?sig={SIG} Bearer {ENV}abc")
    except ValueError:
        record.exc_info = sys.exc_info()
    assert RedactingFilter().filter(record)
    shown = logging.Formatter().format(record)
    assert "canary" not in shown
    assert "ValueError" in shown
    assert "CHIPMILL_SECRET_ENV" in shown


SCRIPT = """
import logging, threading, warnings
from chipmill.core.redact import install
install(); install()
logging.basicConfig(level=0)
late = logging.getLogger("made.later"); late.addHandler(logging.StreamHandler()); late.propagate = False
secret = __import__("os").environ["CHIPMILL_SECRET_ENV"]
late.error("late %s", secret)
warnings.warn("warned " + secret)
try:
    raise OSError("https://h/a?sig=" + secret)
except OSError:
    logging.exception("caught")
thread = threading.Thread(target=lambda: 1 / len([]) if secret is None else (_ for _ in ()).throw(KeyError(secret)))
thread.start(); thread.join()
raise RuntimeError("uncaught " + secret)
"""


def test_an_installed_redactor_covers_loggers_threads_and_the_end_of_a_process():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    for word in (
        "late <CHIPMILL_SECRET_ENV>",
        "warned <CHIPMILL_SECRET_ENV>",
        "caught",
        "KeyError",
        "uncaught <CHIPMILL_SECRET_ENV>",
    ):
        assert word in done.stderr, done.stderr
    assert "canary" not in done.stderr + done.stdout


async def _states(error):
    from prefect.states import exception_to_crashed_state, exception_to_failed_state

    return [
        await exception_to_failed_state(error, message="Task run encountered an exception"),
        await exception_to_crashed_state(error),
    ]


def test_the_message_of_a_failed_run_is_redacted():
    """Prefect makes it of any exception, stores it and shows it."""
    from prefect._internal.states import exception_to_crashed_state_sync, exception_to_failed_state_sync

    from chipmill.orchestration.secrecy import keep_secrets

    keep_secrets()
    keep_secrets()
    error = OSError(f"https://u:{PASSWORD}@h/a.tif?sig={SIG} {ENV}")
    found = [
        *asyncio.run(_states(error)),
        exception_to_failed_state_sync(error),
        exception_to_crashed_state_sync(error),
    ]
    for state in found:
        assert "canary" not in state.message
        assert "https://h/a.tif?... <CHIPMILL_SECRET_ENV>" in state.message


class Program:
    """What a stranger would put where a result is looked for."""

    def __init__(self, mark):
        self.mark = str(mark)

    def __reduce__(self):
        return open, (self.mark, "w")


def test_no_result_is_written_and_none_is_read(tmp_path):
    from prefect.exceptions import MissingResult
    from prefect.filesystems import LocalFileSystem
    from prefect.results import ResultStore
    from prefect.serializers import PickleSerializer

    from chipmill.orchestration.secrecy import keep_secrets

    store = ResultStore(
        result_storage=LocalFileSystem(basepath=tmp_path / "results"), serializer=PickleSerializer()
    )
    record = store.create_result_record(Program(tmp_path / "ran"), key="planted")
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "planted").write_bytes(record.serialize())
    keep_secrets()
    with pytest.raises(MissingResult):
        store.read("planted")
    with pytest.raises(MissingResult):
        asyncio.run(store.aread("planted"))
    assert not (tmp_path / "ran").exists()
    other = store.create_result_record(ValueError(ENV), key="other")
    store.persist_result_record(other)
    asyncio.run(store.apersist_result_record(other))
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["planted"]


@pytest.mark.parametrize(
    ("query", "stored"),
    [
        ("?sig=x&se=1&v=2", "?v=2"),
        ("?token=x", ""),
        ("?X-Amz-Security-Token=x&Key-Pair-Id=y&part=3", "?part=3"),
        ("?api_key=x", ""),
        ("?key=images/a.tif", "?key=images%2Fa.tif"),
        ("?own=x&part=3", "?part=3"),
    ],
)
def test_hrefs_are_stored_without_what_signs_them(query, stored):
    class Hosts:
        allow_hosts = ()

    auth = Auth(kind="query", name="own", env="CHIPMILL_SECRET_QUERY")
    root = source_root(Hosts(), Source(stac="https://a.example/stac"), auth)
    assert relative_href(root, "https://a.example/stac/i", f"https://a.example/stac/a.tif{query}") == (
        f"a.tif{stored}" if "images" not in query else f"a.tif{query}"
    )


def test_redact_knows_the_forms_that_a_secret_takes(monkeypatch):
    monkeypatch.setenv("CHIPMILL_SECRET_ODD", "a b&c'd/e")
    for text in ("a b&c'd/e", "a%20b%26c%27d%2Fe", "a+b%26c%27d%2Fe"):
        assert redact(f"x {text} y") == "x <CHIPMILL_SECRET_ODD> y"
    assert "canary" not in redact(f"HTTPS://u:{PASSWORD}@h?sig={SIG}")
    assert redact(f"at http://u:a/{PASSWORD}@h:80/a.tif, and") == "at http://h:80/a.tif, and"
    assert redact("http://h:80/users/@me") == "http://h:80/users/@me"
    assert "abcdef123" not in redact("Authorization: Basic abcdef123")
    assert redactor.SECRET_PREFIX == "CHIPMILL_SECRET_"
