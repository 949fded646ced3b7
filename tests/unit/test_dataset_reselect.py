"""`chipmill select`: what is taken over, what is made anew, what is refused, and that the rest of a build is not run."""

import dataclasses
import json
import shutil

import pytest
from tests import select_world as sw
from typer.testing import CliRunner

from chipmill import cli
from chipmill.core.errors import (
    BadInputError,
    DamagedFileError,
    LockedError,
    SplitError,
    TilesFailedError,
    VersionNotFoundError,
)
from chipmill.core.store import lock
from chipmill.dataset import blocks, manifest, reselect, windows
from chipmill.dataset.manifest import current_dataset, load_manifest
from chipmill.dataset.reselect import select_dataset
from chipmill.dataset.verify import verify_dataset
from chipmill.imagery import catalog, composite, planning, ranking
from chipmill.region.load import dump_config
from chipmill.region.plan import cell_dir, region_dir


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder whose region is built by the first rules; nobody writes there."""
    folder = sw.make_inputs(tmp_path_factory.mktemp("select") / "made")
    sw.build(folder, sw.BASE)
    return folder


@pytest.fixture
def folder(made, tmp_path):
    """A copy of its own."""
    return shutil.copytree(made, tmp_path / "own")


@pytest.fixture
def no_imagery(monkeypatch):
    """Searching, ranking or compositing is a defect."""

    def refuse(*_args, **_kwargs):
        raise AssertionError("imagery was touched")

    for module, name in (
        (catalog, "find_items"), (catalog, "search_items"), (ranking, "rank_items"), (ranking, "close_ranking"),
        (composite, "composite_tiles"), (windows, "_index_tile"),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, refuse)


def assert_as_from_start(made, folder, tmp_path, dataset, blocks=True):
    """The version in force holds the bytes of a build by these rules from the start, sidecars among them."""
    other = sw.from_start(made, tmp_path / "start", blocks=blocks)
    right = sw.build(other, dataset)
    own = cell_dir(sw.region(folder, dataset)).versions
    assert sw.tree(own.current_path()) == sw.tree(right.path)
    mine, theirs = (region_dir(sw.region(one, dataset)).blocks for one in (folder, other))
    assert mine.read_bytes() == theirs.read_bytes()


KEY = sw.rules(select={"key_class": "tree", "min_key_fraction": 0.3})


def test_another_key_class_is_a_new_version_of_linked_files(made, folder, tmp_path, no_imagery):
    done = select_dataset(sw.region(folder, KEY))
    assert (done.changed, done.dataset.version) == (True, 2)
    before, after = (load_manifest(done.dataset.path.parent / name) for name in "12")
    assert after.counts.filtered["key_class"] > 0
    assert after.counts.written < before.counts.written
    same = [
        "items.parquet",
        "ranking.parquet",
        "windows.parquet",
        *sorted(one.path for one in after.files if ".vrt" in one.path),
    ]
    assert len(same) > 4
    for name in same:
        old, new = (done.dataset.path.parent / number / name for number in "12")
        assert old.stat().st_ino == new.stat().st_ino, name
    held = [one for one in after.shards if one in before.shards]
    assert len(held) == done.linked > 0
    for one in held:
        assert (done.dataset.path / one.path).stat().st_nlink > 1
    assert verify_dataset(done.dataset.path, data=True).problems == ()


@pytest.mark.parametrize(
    ("parts", "redeal"),
    [
        ({"select": {"key_class": "tree", "min_key_fraction": 0.3, "keep_negatives": 0.3}}, False),
        ({"splits": {"buffer_px": 4}}, False),
        ({"splits": {"block_px": 32}}, True),
        ({"splits": {"folds": 3, "fold": 1}}, True),
    ],
)
def test_it_equals_a_build_by_these_rules_from_the_start(
    made, folder, tmp_path, parts, redeal, no_imagery, monkeypatch
):
    dataset = sw.rules(**parts)
    done = select_dataset(sw.region(folder, dataset), redeal=redeal)
    assert done.changed
    monkeypatch.undo()
    assert_as_from_start(made, folder, tmp_path, dataset, blocks=not redeal)


@pytest.mark.parametrize("chips", [{"size_px": 24}, {"stride_px": 16}])
def test_windows_that_lie_elsewhere_are_counted_again_from_the_stacks(
    made, folder, tmp_path, chips, monkeypatch
):
    dataset = sw.rules(chips=chips)
    with monkeypatch.context() as patch:
        for module, name in (
            (catalog, "find_items"),
            (ranking, "rank_items"),
            (composite, "composite_tiles"),
        ):
            patch.delattr(module, name)
        assert select_dataset(sw.region(folder, dataset)).changed
    assert_as_from_start(made, folder, tmp_path, dataset)


def test_a_build_finds_nothing_to_do_afterwards(folder):
    region = sw.region(folder, KEY)
    done = select_dataset(region)
    tiles = planning.make_tiles(region)
    assert current_dataset(region, catalog.find_items(region, tiles), tiles) == done.dataset


def test_the_same_rules_are_nothing_to_do(folder, no_imagery):
    done = select_dataset(sw.region(folder, sw.BASE))
    assert (done.changed, done.dataset.version) == (False, 1)
    assert cell_dir(sw.region(folder, sw.BASE)).versions.attempts() == []


def test_a_damaged_shard_is_cut_again(folder):
    first = cell_dir(sw.region(folder, sw.BASE)).versions.current_path()
    shard = first / load_manifest(first).shards[0].path
    shard.unlink()
    done = select_dataset(sw.region(folder, sw.BASE))
    assert (done.changed, done.dataset.version) == (True, 2)
    assert verify_dataset(done.dataset.path, data=True).problems == ()


def test_there_and_back_ends_with_the_bytes_of_the_beginning(folder):
    select_dataset(sw.region(folder, KEY))
    done = select_dataset(sw.region(folder, sw.BASE))
    assert sw.tree(done.dataset.path) == sw.tree(done.dataset.path.parent / "1")


def test_blocks_dealt_by_other_rules_stick_until_they_are_dealt_anew(folder):
    region = sw.region(folder, sw.rules(splits={"seed": 9}))
    blocks = region_dir(region).blocks
    old = blocks.read_bytes()
    with pytest.raises(SplitError, match=r"dealt by other rules.*chipmill select --redeal"):
        select_dataset(region)
    assert cell_dir(region).versions.current() == 1
    assert blocks.read_bytes() == old
    assert select_dataset(region, redeal=True).changed
    kept = list(blocks.parent.glob("blocks-*.parquet"))
    assert [path.read_bytes() for path in kept] == [old]
    assert blocks.read_bytes() != old


def test_dealing_anew_by_the_same_rules_puts_nothing_aside(folder):
    region = sw.region(folder, sw.BASE)
    select_dataset(region, redeal=True)
    assert list(region_dir(region).root.glob("blocks-*")) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"labels": {"layers": [{"path": "label.tif"}], "classes": {"10": "tree", "20": "water"}}},
        {"time": {"range": ("2019-01-01", "2020-01-01"), "slots": {"n": 2}}},
        {"imagery": {"reduce": "mean"}},
    ],
)
def test_more_than_the_rules_changed_is_refused(folder, changes):
    region = sw.region(folder, KEY, **changes)
    with pytest.raises(BadInputError, match=r"more than dataset differs.*chipmill build"):
        select_dataset(region)
    assert cell_dir(region).versions.attempts() == []


def test_another_label_file_is_refused(folder):
    (folder / "label.tif").write_bytes((folder / "label.tif").read_bytes() + b" ")
    with pytest.raises(BadInputError, match="more than dataset differs"):
        select_dataset(sw.region(folder, KEY))


def test_a_version_of_other_stages_is_refused(folder, monkeypatch):
    monkeypatch.setattr(composite, "STAGE_VERSION", composite.STAGE_VERSION + 1)
    with pytest.raises(BadInputError, match="another version of chipmill"):
        select_dataset(sw.region(folder, KEY))


def test_what_lacks_a_dataset_or_labels_is_refused(tmp_path):
    with pytest.raises(VersionNotFoundError, match="run it first"):
        select_dataset(sw.region(sw.make_inputs(tmp_path), KEY))
    with pytest.raises(BadInputError, match="no labels"):
        select_dataset(sw.region(tmp_path, sw.BASE, labels=None))


@pytest.mark.parametrize("name", ["windows.parquet", "composite"])
def test_a_damaged_version_is_to_be_mended_first(folder, name):
    region = sw.region(folder, KEY)
    path = cell_dir(region).versions.current_path() / name
    if name == "composite":
        path = next((region_dir(region).root / "composites").rglob("*.tif"))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DamagedFileError, match=r"missing or bad.*chipmill build"):
        select_dataset(region)


def test_a_cell_that_is_worked_on_is_left_alone(folder):
    region = sw.region(folder, KEY)
    with lock(cell_dir(region).lock, "another"), pytest.raises(LockedError, match="another"):
        select_dataset(region)


def test_an_attempt_of_another_search_is_given_up(folder):
    """A build by the new rules that was interrupted after another answer of the search."""
    region = sw.region(folder, KEY)
    plan = planning.tile_aoi(region)
    answer = catalog.find_items(region, plan.tiles())
    catalog.freeze_items(plan, dataclasses.replace(answer, items=answer.items[:1], fingerprint="other"))
    done = select_dataset(region)
    assert load_manifest(done.dataset.path).inputs.items == 2


def test_failed_tiles_stay_failed_with_their_reason(made, tmp_path):
    """A dataset that was committed without a tile is re-selected without it."""
    folder = shutil.copytree(made, tmp_path / "own")
    shutil.rmtree(cell_dir(sw.region(folder, sw.BASE)).root)
    region = sw.region(folder, sw.BASE, on_failed="commit")
    _build_without_a_tile(region)
    done = select_dataset(sw.region(folder, KEY, on_failed="commit"))
    before, after = (load_manifest(done.dataset.path.parent / name) for name in "12")
    assert before.failures == after.failures != ()
    assert before.counts.failed == after.counts.failed
    assert done.dataset.failed == 1
    with pytest.raises(TilesFailedError, match=r"1 of \d+ units failed in composite_tiles.*no light"):
        select_dataset(sw.region(folder, sw.BASE, on_failed="stop"))
    assert cell_dir(region).versions.current() == done.dataset.version


def _build_without_a_tile(region):
    from benchmarks import chain

    real = composite.composite_tiles

    def fail(plan, ranked, batch):
        result = real(plan, ranked, batch)
        if batch.number == 0:
            from chipmill.core.units import record_failure

            record_failure(plan.attempt, "composite_tiles", batch.units[0], "no light")
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(composite, "composite_tiles", fail)
        assert chain.build(region).failed == 1


def test_the_report_is_drawn_before_the_version_counts(folder):
    seen = []

    def draw(path):
        seen.append((path.name, manifest.load_manifest(path).counts.written))
        (path / "report.html").write_text("page")

    done = select_dataset(sw.region(folder, KEY), draw=draw)
    assert seen == [(".2", done.dataset.chips)]
    assert (done.dataset.path / "report.html").read_text() == "page"


def test_threads_are_told_of_and_change_nothing(folder, tmp_path, made):
    other = shutil.copytree(made, tmp_path / "other")
    told = []
    one = select_dataset(sw.region(folder, KEY), threads=1, tell=lambda *step: told.append(step))
    four = select_dataset(sw.region(other, KEY), threads=4)
    assert sw.tree(one.dataset.path) == sw.tree(four.dataset.path)
    assert told[-1] == ("write_shards", one.dataset.shards, one.dataset.shards)


def call(*words):
    return CliRunner().invoke(cli.app, [str(word) for word in words])


def write_region(folder, dataset):
    path = folder / "toy.yaml"
    path.write_text(dump_config(sw.region(folder, dataset)))
    return path


def test_the_command_says_what_came_of_it_and_draws_the_page(folder):
    path = write_region(folder, KEY)
    done = call("select", path, "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    version = cell_dir(sw.region(folder, KEY)).versions.current_path()
    assert (told["ok"], told["changed"], told["path"]) == (True, True, str(version))
    assert told["chips"] == load_manifest(version).counts.written
    assert "too little of the key class" in (version / "report.html").read_text()
    again = call("select", path)
    assert again.exit_code == 0
    assert "nothing to do" in again.stdout


def test_the_command_says_how_to_deal_anew(folder):
    path = write_region(folder, sw.rules(splits={"seed": 9}))
    done = call("select", path)
    assert (done.exit_code, "--redeal" in done.output) == (2, True)
    assert call("select", path, "--redeal").exit_code == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"labels": {"layers": [{"path": "label.tif"}], "classes": {"20": "tree", "10": "water"}}},
        {"imagery": {"bands": {"nir": "nir", "red": "red"}}},
    ],
)
def test_another_order_of_classes_or_bands_is_another_stack(folder, changes):
    """Codes and bands go by their order in the file: old pixels under new names would be a silent fault."""
    region = sw.region(folder, KEY, **changes)
    with pytest.raises(BadInputError, match="more than dataset differs"):
        select_dataset(region)
    tiles = planning.make_tiles(region)
    base = sw.region(folder, sw.BASE, **changes)
    assert current_dataset(base, catalog.find_items(base, tiles), tiles) is None


@pytest.mark.parametrize("stage", ["blocks", "shards", "seal"])
def test_dealing_anew_that_breaks_off_is_done_by_the_next_call(made, folder, tmp_path, stage, monkeypatch):
    """Wherever it ends: the version in force stays, and the next call ends with the bytes of one that went through."""
    region = sw.region(folder, sw.rules(splits={"seed": 9}))
    place = {
        "blocks": (blocks, "write_table"),
        "shards": (reselect, "_work"),
        "seal": (manifest, "publish_dataset"),
    }

    def fail(*_args, **_kwargs):
        raise OSError("the disk is gone")

    with monkeypatch.context() as patch:
        patch.setattr(*place[stage], fail)
        with pytest.raises(OSError, match="disk is gone"):
            select_dataset(region, redeal=True)
    assert cell_dir(region).versions.current() == 1
    done = select_dataset(region, redeal=True)
    other = shutil.copytree(made, tmp_path / "other")
    whole = select_dataset(sw.region(other, sw.rules(splits={"seed": 9})), redeal=True)
    assert sw.tree(done.dataset.path) == sw.tree(whole.dataset.path)
    assert len(list(region_dir(region).root.glob("blocks-*.parquet"))) == 1
