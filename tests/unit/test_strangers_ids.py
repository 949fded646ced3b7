"""Ids as a hostile item, label or region file would write them: a safe name, or one sentence; nothing lies outside."""

import datetime as dt
import re

import pytest
from affine import Affine
from tests import imagery_world as iw

from chipmill.core.errors import ChipmillError, GridError, ItemSearchError, RegionFileError
from chipmill.core.paths import OutputDir
from chipmill.imagery.freeze import read_items, write_items
from chipmill.imagery.stac import parse_item
from chipmill.region.aoi import read_aoi
from chipmill.region.fields import ID_PATTERN
from chipmill.region.label_tiles import LabelItem, label_item_tiles
from chipmill.region.load import load_region
from chipmill.region.tiles import tile_name

IDS = [
    "../../etc/passwd",
    "..",
    ".",
    "/etc/passwd",
    "/",
    "a/../../b",
    "..\\..\\windows",
    "C:\\windows\\system32",
    "~root/.ssh/authorized_keys",
    "$HOME",
    "`id`",
    "$(id)",
    "a;rm -rf /",
    "a\0b",
    "\0",
    "a\nb",
    "\x1b[31mred\x1b[0m",
    "\x1b]0;title\x07",
    "[red]a[/red]",
    "{a.__class__}",
    "%s%n",
    "<script>alert(1)</script>",
    "=cmd()",
    "CON",
    "nul.tif",
    ".hidden",
    "-rf",
    "--output=/etc",
    "a" * 5000,
    "\u202egnp.exe",
    "\u043d\u0438\u0432\u0430",
    "\U0001f600",
    "\ud800",
    " ",
    "",
    "CURRENT",
    "a.failed",
    "blocks.parquet",
]


def test_there_are_thirty_and_more():
    assert len(set(IDS)) >= 30


@pytest.mark.parametrize("text", IDS)
def test_a_label_items_id_becomes_a_safe_name_or_one_sentence(text, tmp_path):
    try:
        name = tile_name(text)
    except GridError as error:
        _one_sentence(error)
        return
    assert re.fullmatch(ID_PATTERN, name)
    cell = OutputDir(tmp_path).region("r").cell("2019-01-01", "2020-01-01")
    attempt = type(cell.versions.attempt_path(1))(cell.versions.attempt_path(1))
    for path in (OutputDir(tmp_path).region("r").label(name, "f" * 64), attempt / f"{name}.vrt"):
        assert path.resolve().is_relative_to(tmp_path.resolve())


@pytest.mark.parametrize("text", IDS)
def test_tiles_of_label_items_have_safe_names(text, tmp_path):
    region = iw.region(tmp_path, {"catalog": "c.json"})
    item = LabelItem(
        text,
        dt.datetime(2019, 6, 1, tzinfo=dt.UTC),
        "a.tif",
        32633,
        Affine(*iw.transform()[:6]),
        iw.SIDE,
        iw.SIDE,
    )
    try:
        (tile,) = label_item_tiles(region, [item], read_aoi(region))
    except ChipmillError as error:
        _one_sentence(error)
        return
    assert re.fullmatch(ID_PATTERN, tile.tile_id)
    assert tile.source_id == text


@pytest.mark.parametrize("text", IDS)
def test_an_items_id_is_kept_as_data_or_refused_in_one_sentence(text, tmp_path):
    region = iw.region(tmp_path, {"catalog": "c.json"}, imagery={"mask": None, "bands": {"red": "red"}})
    raw = {
        "id": text,
        "collection": text,
        "geometry": {"type": "Point", "coordinates": [15.0, 46.0]},
        "properties": {"datetime": "2019-06-01T00:00:00Z", "platform": text},
        "assets": {text or "x": {"href": "a.tif", "eo:bands": [{"common_name": "red"}]}},
    }
    try:
        item = parse_item(region.imagery[0], raw, str(tmp_path), str(tmp_path / "c.json"))
    except ItemSearchError as error:
        _one_sentence(error)
        return
    before = set(tmp_path.rglob("*"))
    write_items(tmp_path / "items.parquet", [item], "f")
    made = {path.name for path in set(tmp_path.rglob("*")) - before}
    assert made == {"items.parquet", "items.parquet.json"}
    (again,) = read_items(tmp_path / "items.parquet")
    assert (again.item_id, again.assets["red"].href) == (text, "a.tif")


@pytest.mark.parametrize("text", [text for text in IDS if not re.fullmatch(ID_PATTERN, text)])
@pytest.mark.parametrize("field", ["name", "band", "class", "imagery"])
def test_a_region_file_with_such_a_name_is_refused(text, field, tmp_path):
    import json

    try:
        shown = json.dumps(text, ensure_ascii=True)
        json.loads(shown).encode()
    except UnicodeEncodeError:
        pytest.skip("YAML has no such text")
    names = {"name": '"r"', "band": '"red"', "class": '"crop"', "imagery": '"s2"'} | {field: shown}
    path = tmp_path / "r.yaml"
    path.write_text(
        f"name: {names['name']}\naoi: {{bbox: [14, 46, 15, 47]}}\ntime: {{range: [2019-01-01, 2020-01-01]}}\n"
        f"imagery: [{{name: {names['imagery']}, source: {{catalog: c.json}}, bands: {{{names['band']}: red}}}}]\n"
        f'labels: {{layers: [{{path: l.tif}}], classes: {{"1": {names["class"]}}}}}\n'
    )
    with pytest.raises(RegionFileError) as caught:
        load_region(path)
    _one_sentence(caught.value, limit=700)


def test_two_ids_of_one_name_are_an_error(tmp_path):
    region = iw.region(tmp_path, {"catalog": "c.json"})
    items = [
        LabelItem(
            name, dt.datetime(2019, 6, 1, tzinfo=dt.UTC), "a.tif", 32633, Affine(*iw.transform()[:6]), 64, 64
        )
        for name in ("a/b", "a\\b")
    ]
    with pytest.raises(GridError, match="both become 'a-b'"):
        label_item_tiles(region, items, read_aoi(region))


def _one_sentence(error, limit=400):
    text = str(error)
    assert "\n" not in text
    assert text.isprintable(), ascii(text)
    assert len(text) < limit, len(text)
