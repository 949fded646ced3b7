"""What stands on the pages is what stands in the tables and manifests."""

import html
import json
import re

import pyarrow.compute as pc
import pytest
from tests import report_world

from chipmill.cli.checks import draw_report
from chipmill.core.errors import BadInputError
from chipmill.core.paths import VersionDir
from chipmill.core.tables import CHIPS, RANKING, read_table
from chipmill.dataset.manifest import load_manifest
from chipmill.learning.card import model_card
from chipmill.report import acquisitions
from chipmill.report.dataset import REASONS, dataset_page
from chipmill.report.gallery import pick_chips, read_chips, shown_px
from chipmill.report.model import model_page
from chipmill.report.numbers import count


def text(path):
    """The page without tags, entities resolved."""
    return html.unescape(re.sub(r"<[^>]+>", " ", path.read_text()))


def test_the_funnel_shows_every_reason_and_adds_up(pages, dataset):
    counts, shown = load_manifest(dataset).counts, text(pages["dataset"])
    filtered = sum(counts.filtered.values())
    assert counts.filtered, "the fixture filters some windows"
    assert (
        f"{count(counts.planned)} planned; {count(counts.written)} written + {count(filtered)} filtered + 0 failed"
        in shown
    )
    for reason, number in counts.filtered.items():
        assert f"{REASONS[reason]}: {count(number)}" in shown


def test_the_page_of_a_dataset_names_its_classes_bands_shards_and_proofs(pages, dataset):
    manifest, shown = load_manifest(dataset), text(pages["dataset"])
    for one in (*manifest.classes, *manifest.bands, *manifest.slots):
        assert one.name in shown
    assert all(shard.sha256[:16] in shown for shard in manifest.shards)
    assert manifest.fingerprint in shown
    assert "No pixel of a train chip lies in a val or test chip." in shown


def test_the_chips_that_are_shown_are_records_of_different_blocks(dataset):
    manifest = load_manifest(dataset)
    chips = read_table(VersionDir(dataset).chips, CHIPS)
    rows = pick_chips(chips, "train", 4)
    assert len({row["block"] for row in rows}) == 4
    samples = read_chips(dataset, rows, manifest.record_spec())
    assert [sample.chip_id for sample in samples] == [row["chip_id"] for row in rows]
    own = chips.filter(pc.equal(chips["chip_id"], rows[0]["chip_id"])).to_pylist()[0]
    assert [(samples[0].label == code).sum() for code in range(6)] == own["class_px"]


@pytest.mark.parametrize(("chip", "shown"), [(64, 128), (128, 128), (100, 100), (256, 128), (16, 128)])
def test_small_chips_are_enlarged_in_whole_steps(chip, shown):
    assert shown_px(chip) == shown


def test_every_used_acquisition_of_the_first_tiles_is_shown_with_its_date(pages, dataset):
    rows = read_table(VersionDir(dataset).ranking, RANKING).to_pylist()
    shown = re.findall(r"(\d{4}-\d\d-\d\d), rank \d+, [^;]+; (used|not used)", text(pages["dataset"]))
    first = min(row["tile_id"] for row in rows)
    used = sorted(f"{row['datetime']:%Y-%m-%d}" for row in rows if row["chosen"] and row["tile_id"] == first)
    assert used
    assert set(used) <= {day for day, fate in shown if fate == "used"}
    assert {fate for _, fate in shown} == {"used", "not used"}
    assert pages["dataset"].read_text().count("and its mask") == len(shown)


class View:
    """A terminal that keeps nothing."""

    def say(self, *_):
        pass

    result = say


@pytest.mark.parametrize(("named", "shown"), [("region.yaml", True), ("version", False)])
def test_the_archive_is_read_for_who_names_the_region_file_and_for_nobody_else(
    dataset, tmp_path, named, shown
):
    """A version may come from a stranger: its copy of the region must not make this machine read or ask anything."""
    path = dataset if named == "version" else dataset.parents[5] / "region.yaml"
    draw_report(View(), path, tmp_path / "page.html", ())
    page = text(tmp_path / "page.html")
    assert ("The archive is read only where the region file is at hand" not in page) == shown
    assert bool(re.search(r"rank 1, [^;]+; used", page)) == shown


def test_the_page_is_the_same_on_every_run_and_leaves_the_version_alone(
    pages, dataset, archive, tmp_path, monkeypatch
):
    monkeypatch.setattr(acquisitions, "find_items", lambda *_: pytest.fail("nothing moved, and it searched"))
    before = sorted((path.name, path.stat().st_mtime_ns) for path in dataset.rglob("*"))
    again = dataset_page(dataset, tmp_path / "again.html", archive=archive)
    assert again.read_bytes() == pages["dataset"].read_bytes()
    assert sorted((path.name, path.stat().st_mtime_ns) for path in dataset.rglob("*")) == before


def test_the_page_of_a_model_has_figures_with_intervals_and_row_percentages(pages):
    shown = text(pages["model"])
    assert re.search(r"mIoU\s+0\.\d{3}\s+0\.\d{3} to 0\.\d{3}", shown)
    assert "best 2" in shown
    rows = re.findall(r"<tr>\s*<td>(?:water|crop)</td>(.*?)</tr>", pages["model"].read_text(), re.DOTALL)
    assert rows
    for row in rows:
        assert sum(map(float, re.findall(r"([\d.]+) %", row))) == pytest.approx(100, abs=0.4)


def test_a_model_without_its_dataset_says_why_there_are_no_predictions(pages):
    assert "No held-out chip is at hand: name the dataset with --dataset" in text(pages["model"])


def test_the_page_of_a_map_names_areas_and_what_failed(pages):
    shown = text(pages["map"])
    assert "32633-7" in shown
    assert "with failures" in shown
    assert re.search(r"water\s+1,200\s+12\.00\s+16\.67 %", shown)


def test_the_page_of_a_run_tells_how_to_redo_what_failed(pages):
    shown = text(pages["run"])
    assert "chipmill run meadows.yaml" in shown
    assert "out of <memory>" in shown
    assert "1 min 15 s" in shown
    assert 'href="map.html"' in pages["run"].read_text()


def test_an_imported_dataset_has_no_page_and_says_so(dataset, tmp_path):
    facts = json.loads((dataset / "dataset.json").read_text())
    facts["inputs"]["origin"] = "esri"
    (tmp_path / "dataset.json").write_text(json.dumps(facts))
    with pytest.raises(BadInputError, match=r"was imported from esri.*open_dataset"):
        dataset_page(tmp_path, tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_the_page_and_card_of_a_model_tell_what_its_splits_leak(dataset, tmp_path):
    model = report_world.make_model(dataset, tmp_path / "model")
    figures = json.loads((model / "metrics.json").read_text())
    (model / "metrics.json").write_text(json.dumps(figures | {"remarks": ["meadows has splits by random"]}))
    shown = text(model_page(model, [], tmp_path / "model.html"))
    assert "meadows has splits by random." in shown
    assert "Whole test blocks" not in shown
    about = json.loads((model / "model.json").read_text())
    assert "Mind: meadows has splits by random." in model_card(
        about, figures | {"remarks": ["meadows has splits by random"]}
    )
