"""Secrets that are easy to find again, a region whose two archives ask for them, and the search for them in all that a run leaves."""

import base64
import json
import sqlite3
from collections.abc import Iterable
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

import numpy as np
import pyarrow.parquet as pq
import yaml
from tests import imagery_world as iw
from tests.fault_archive import serve

from chipmill.region.grid import Window

STEMS = tuple(f"canary{number}x7f3a" for number in range(7))
CANARIES = ENV, HEADER, QUERY, SIGNED, PASSWORD, TOKEN, WRONG = tuple(f"{stem}/+b=9" for stem in STEMS)
"""Of the environment, a header, a query, a signed URL, a URL with a password, an item's own token, and a refused one.

The end of each is written otherwise in a URL; the stem stays what it is but in base64.
"""
SECRETS = {"CHIPMILL_SECRET_ENV": ENV, "CHIPMILL_SECRET_HEADER": HEADER, "CHIPMILL_SECRET_QUERY": QUERY}
EAST = Window(iw.PLACE.col_off + iw.SIDE + 16, iw.PLACE.row_off, iw.SIDE, iw.SIDE)
"""Of its scenes: so far from the western tile that their outlines in degrees do not touch it."""
BOTH = Window(iw.PLACE.col_off + 2, iw.PLACE.row_off + 2, 2 * iw.SIDE - 4, iw.SIDE - 4)
DAYS = ("2019-03-01", "2019-05-01")
HOSTILE = "</script><img src=x onerror=alert(1)> \x1b[31m\x1b]0;t\x07 [red]r[/red] [a](javascript:1) =cmd()"
"""What the archive says for the satellite's name, and for the id of an item."""


def make_archive(folder: Path) -> iw.Archive:
    """Two scenes over each of two tiles, labels over both; one file of the eastern tile is gone."""
    made = iw.Archive(folder)
    ones = np.ones((iw.SIDE, iw.SIDE), np.int16)
    clear = np.full(ones.shape, iw.CLEAR, np.uint8)
    for day in DAYS:
        made.scene(day, {"red": 500 * ones, "nir": 900 * ones}, clear, name=f"west-{day}")
        place = iw.LATTICE.transform(EAST)
        made.scene(day, {"red": 500 * ones, "nir": 900 * ones}, clear, name=f"east-{day}", place=place)
    made.scene("2019-07-01", {"red": ones, "nir": ones}, clear, name="trap")
    for item in made.items:
        item["properties"]["platform"] = HOSTILE
    (folder / f"east-{DAYS[0]}" / "red.tif").unlink()
    label = np.ones((iw.SIDE, 2 * iw.SIDE), np.uint8)
    label[:, ::2] = 2
    iw.save(folder.parent / "label.tif", label)
    return made


def _signed(item: dict, url: str) -> dict:
    copy = json.loads(json.dumps(item))
    for asset in copy["assets"].values():
        asset["href"] = (
            f"{url}/{item['id']}/{asset['href'][2:]}?sig={quote(SIGNED, safe='')}&se=1&token={TOKEN}"
        )
        asset["title"] = f"https://user:{PASSWORD}@example.org/"
    if item["id"] == "trap":
        host = url.removeprefix("http://")
        copy["id"] = HOSTILE
        copy["assets"]["red"]["href"] = f"http://user:{PASSWORD}@{host}/red.tif?api_key={TOKEN}"
    copy["links"] = [{"rel": "self", "href": f"{url}/stac/{item['id']}?sig={SIGNED}"}]
    copy["properties"]["license"] = f"https://user:{PASSWORD}@example.org/?access_token={TOKEN}"
    return copy


@contextmanager
def archives(folder: Path):
    """Serve one archive twice: the first server asks for the header, the second for the parameter of the query."""
    made = make_archive(folder / "archive")
    with serve(folder / "archive") as first, serve(folder / "archive") as second:
        first.allows = lambda path, headers: headers.get("X-Key") == HEADER and "key=" not in path
        second.allows = lambda path, headers: (
            parse_qs(urlsplit(path).query).get("key") == [QUERY] and "X-Key" not in headers
        )
        for server in (first, second):
            items = [_signed(item, server.url) for item in made.items]
            server.search = lambda body, items=items: {
                "type": "FeatureCollection",
                "features": items,
                "links": [],
            }
        yield first, second


def region_values(first: str, second: str, **changes) -> dict:
    """Return the values of a region file over both archives: red by the header, nir by the query."""

    def imagery(name: str, band: str, url: str, auth: dict) -> dict:
        return {"name": name, "source": {"stac": f"{url}/stac"}, "bands": {band: band}, "mask": {"asset": "scl"},
                "auth": auth, "clear": {"min_count": 2}}  # fmt: skip

    asks = [
        {"kind": kind, "name": name, "env": f"CHIPMILL_SECRET_{kind.upper()}"}
        for kind, name in (("header", "X-Key"), ("query", "key"))
    ]
    values = {
        "name": "toy",
        "aoi": {"bbox": [*iw.LATTICE.footprint(BOTH).bounds], "rule": "centre"},
        "time": {"range": ["2019-01-01", "2020-01-01"]},
        "grid": {"crs": "EPSG:32633", "resolution": 10, "tile_px": iw.SIDE},
        "imagery": [imagery("s2", "red", first, asks[0]), imagery("s3", "nir", second, asks[1])],
        "labels": {"layers": [{"path": "label.tif"}], "classes": {"1": "water", "2": "crop"}},
        "dataset": {"chips": {"size_px": 16, "stride_px": 16}, "splits": {"block_px": 16, "buffer_px": 0}},
        "on_failed": "commit",
    }
    return values | changes


def write_region(path: Path, values: dict) -> Path:
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return path


def forms(stem: str) -> set[bytes]:
    """The ways in which a stem may stand in a file: as it is, in hexadecimal digits, or inside base64."""
    plain = stem.encode()
    # three bytes make four letters: another text by where it begins, and what a neighbour may change is cut off
    inner = {base64.b64encode(b"\0" * at + plain)[(0, 2, 3)[at] :].rstrip(b"=")[:-1] for at in range(3)}
    return {plain, plain.hex().encode(), *inner}


def found(paths: Iterable[Path], texts: dict[str, str]) -> list[str]:
    """Return 'where: which canary' for each file and named text that holds one; compressed columns are unpacked."""
    places = {str(path): _bytes(path) for path in paths} | {
        name: text.encode() for name, text in texts.items()
    }
    hunted = {stem: forms(stem) for stem in STEMS}
    return [
        f"{name}: {stem}"
        for name, data in places.items()
        for stem, ways in hunted.items()
        if any(way in data for way in ways)
    ]


def _bytes(path: Path) -> bytes:
    data = path.read_bytes()
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        data += repr((table.to_pylist(), table.schema.metadata)).encode(errors="replace")
    if data.startswith(b"SQLite format 3\0"):
        # a long text is cut over pages, so that the bytes of the file alone would not show it
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as database:
            data += "\n".join(database.iterdump()).encode(errors="replace")
    return data


def files_below(*folders: Path) -> list[Path]:
    return [path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()]
