"""The seal: counts that add up, the certificate, a manifest that comes back, and whether there is anything to do."""

import dataclasses
import json
from pathlib import Path

import pytest
from tests import dataset_world as dw

from chipmill.core.errors import CountError, DamagedFileError, TilesFailedError, VersionNotFoundError
from chipmill.core.store import read_sidecar, seal_file, sidecar_path, write_json
from chipmill.core.tables import CHIPS, TILES, read_table
from chipmill.core.units import record_failure
from chipmill.dataset import manifest, shards
from chipmill.dataset.description import Manifest, Statistics
from chipmill.dataset.statistics import BandSums
from chipmill.imagery.items import ItemsRef


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    made = dw.planned(tmp_path_factory.mktemp("manifest"))
    made.write_shards()
    return made


@pytest.fixture(scope="module")
def sealed(chain):
    return chain.seal()


@pytest.fixture
def ref(tmp_path_factory, tmp_path):
    return dw.committed(tmp_path_factory.getbasetemp() / "dataset", tmp_path)


@pytest.fixture
def current(ref, monkeypatch):
    """A function that asks whether the copied dataset is current."""
    monkeypatch.setattr(manifest, "config_fingerprint", lambda region: "f")
    chain_region = dw.stack_world.region

    def ask(answer=dw.ANSWER, **changes):
        folder = ref.path.parents[5]
        region = chain_region(folder, dw.stack_world.place(4, 4), **({"dataset": dw.DATASET} | changes))
        tiles = manifest.planning.lattice_tiles(region, manifest.planning.read_aoi(region))
        return manifest.current_dataset(region, answer, tiles)

    return ask


def test_counts_add_up_and_the_tables_agree(chain, sealed):
    found = manifest.load_manifest(sealed.path)
    counts = found.counts
    rows = read_table(chain.plan.version.chips, CHIPS).to_pylist()
    assert counts.planned == len(rows) == sum(len(chain.plan.windows(tile)) for tile in chain.plan.tiles())
    assert counts.written + sum(counts.filtered.values()) == counts.planned
    assert counts.failed == {}
    assert counts.written == sealed.chips == sum(shard.count for shard in found.shards)
    for split, count in counts.splits.items():
        assert count == sum(shard.count for shard in found.shards_of(split)) > 0
    assert {row["state"] for row in rows} == {"written", "filtered"}
    assert all((row["offset"] is None) == (row["state"] != "written") for row in rows)


def test_the_manifest_comes_back_and_is_canonical(sealed):
    text = (sealed.path / "dataset.json").read_text()
    found = manifest.load_manifest(sealed.path)
    assert Manifest.model_validate_json(found.model_dump_json()) == found
    assert json.dumps(json.loads(text), sort_keys=True, indent=1, ensure_ascii=False) + "\n" == text
    assert found.fingerprint == sealed.fingerprint == read_sidecar(sealed.path / "dataset.json").fingerprint
    with pytest.raises(ValueError, match="frozen"):
        found.region = "other"


def test_what_each_axis_is(sealed):
    found = manifest.load_manifest(sealed.path)
    assert [band.name for band in found.bands] == [
        f"p{k}_{name}" for k in (1, 2) for name in ("red", "nir", "ndvi")
    ]
    assert [one.name for one in found.classes] == ["water", "tree", "crop"]
    assert found.features[0].shape == (32, 32, 6)
    assert (found.dtype, found.ignore, found.layout) == ("int16", 255, "stack")
    assert found.slots[1].intervals == (("2019-07-03T00:00:00+00:00", "2020-01-01T00:00:00+00:00"),)


def test_the_certificate_says_what_the_chips_are(chain, sealed):
    proof = manifest.load_manifest(sealed.path).certificate
    rows = [
        row for row in read_table(chain.plan.version.chips, CHIPS).to_pylist() if row["state"] == "written"
    ]
    assert proof.shared_px == 0
    assert proof.nearest_px >= dw.DATASET["splits"]["buffer_px"]
    for split, px in proof.class_px.items():
        assert list(px) == [
            sum(row["class_px"][code] for row in rows if row["split"] == split) for code in range(3)
        ]
        assert sum(proof.class_shares[split]) == pytest.approx(1)
    assert proof.blocks_sha256 == read_sidecar(chain.plan.region_dir.blocks).sha256


def test_statistics_are_those_of_the_shards(chain, sealed):
    found = manifest.load_manifest(sealed.path)
    units = [unit for unit in dw.by_shard(chain) if unit.startswith("train")]
    for band, sums in zip(
        found.bands,
        shards.merge([shards.shard_sums(chain.plan, chain.chips, unit, ()) for unit in units], 6),
        strict=True,
    ):
        assert band.statistics.sums == sums
        assert band.statistics == Statistics.of_sums(sums)
        assert band.statistics.n.isdigit() > 0 and int(band.statistics.n) == sums.n


def test_paths_stay_below_and_only_sources_climb(chain, sealed):
    found = manifest.load_manifest(sealed.path)
    assert not any(
        ".." in file.path or Path(file.path).is_absolute() for file in (*found.files, *found.shards)
    )
    assert len(found.sources) == 16 * 3  # two composites and a label for each of 16 tiles
    root = chain.plan.region_dir.root.resolve()
    for file in found.named():
        path = (sealed.path / file.path).resolve()
        assert path.is_relative_to(root)
        assert path.stat().st_size == file.bytes
        assert read_sidecar(path).sha256 == file.sha256


def test_tiles_say_that_they_are_done(chain, sealed):
    assert set(read_table(chain.plan.version.tiles, TILES)["state"].to_pylist()) == {"done"}


def test_sealing_again_gives_the_same_bytes(chain, sealed):
    first = (sealed.path / "dataset.json").read_bytes()
    assert chain.seal() == sealed
    assert (sealed.path / "dataset.json").read_bytes() == first


def test_two_attempts_give_the_same_manifest(sealed, tmp_path):
    other = dw.planned(tmp_path)
    other.write_shards(order=-1)
    ref = other.seal()
    for name in ("dataset.json", "chips.parquet"):
        assert (ref.path / name).read_bytes() == (sealed.path / name).read_bytes()


def test_windows_that_are_lost_on_the_way_stop_the_commit(chain, sealed):
    plan = chain.plan.version.plan
    good = plan.read_bytes()
    try:
        write_json(plan, {"windows": json.loads(good)["windows"] + 1})
        with pytest.raises(CountError, match=r"\d+ windows were planned, but .* nothing is committed"):
            chain.seal()
    finally:
        plan.write_bytes(good)


def test_a_chip_that_no_shard_holds_stops_the_commit(tmp_path):
    chain = dw.planned(tmp_path)
    chain.write_shards()
    unit = min(dw.by_shard(chain))
    chain.plan.version.unit(shards.STAGE, unit).unlink()
    with pytest.raises(CountError, match="was planned for"):
        chain.seal()


def test_a_failed_shard_stops_or_is_listed(tmp_path):
    chain = dw.planned(tmp_path)
    chain.write_shards()
    unit = sorted(one for one in dw.by_shard(chain) if "train" in one)[1]
    record_failure(chain.plan.attempt, shards.STAGE, unit, "out of memory")
    (chain.plan.version.shards / f"{unit}.tfrecord").unlink()
    with pytest.raises(
        TilesFailedError, match=f"1 of {chain.chips.shards} units failed.*{unit}: out of memory"
    ):
        chain.seal()
    region = chain.plan.region.model_copy(update={"on_failed": "commit"})
    world = dataclasses.replace(chain.world, plan=dataclasses.replace(chain.plan, region=region))
    chain = dataclasses.replace(chain, world=world)
    ref = chain.seal()
    found = manifest.load_manifest(ref.path)
    lost = len(dw.by_shard(chain)[unit])
    assert ref.failed == 1
    assert found.counts.failed == {"write_shards": lost}
    assert found.counts.written == chain.chips.kept - lost
    assert [one.unit for one in found.failures] == [unit]
    assert unit not in {shard.path for shard in found.shards}
    kept = {
        row["chip_id"]
        for row in read_table(chain.plan.version.chips, CHIPS).to_pylist()
        if row["state"] == "written"
    }
    ground = sum_of_ground(chain, kept)
    assert [band.statistics.sums for band in found.bands] == list(ground)


def sum_of_ground(chain, kept):
    from tests.unit.test_dataset_shards import planned_windows, true_sums

    windows = planned_windows(chain)
    units = dw.by_shard(chain).items()
    train = [chip.chip_id for unit, chips in units if "train" in unit for chip in chips]
    return true_sums(chain, [windows[chip_id] for chip_id in train if chip_id in kept])


def test_files_of_an_older_plan_are_dropped(tmp_path):
    chain = dw.planned(tmp_path)
    chain.write_shards()
    old = chain.plan.version.shards / "train-00000-of-00099.tfrecord"
    old.write_bytes(b"old")
    seal_file(old, "f")
    chain.seal()
    assert not old.exists()
    assert not sidecar_path(old).exists()


def test_a_region_without_labels_is_committed_without_chips(tmp_path):
    world = dw.stack_world.world(tmp_path, 2, 2, labels=None)
    stack = world.stack()
    write_json(world.plan.version.plan, {"windows": 0})
    items = ItemsRef(world.plan.version.items, "i", 0)
    ref = manifest.seal_dataset(world.plan, items, world.ranking, stack, None)
    found = manifest.load_manifest(ref.path)
    assert (ref.chips, ref.shards, found.counts.planned, found.certificate) == (0, 0, 0, None)
    assert [band.statistics for band in found.bands] == [None] * 6
    assert len(found.sources) == 2 * 4
    assert not (ref.path / "chips.parquet").exists()


def test_a_committed_dataset_lies_where_the_pointer_says(ref):
    assert ref.path.name == "1"
    assert (ref.path.parents[1] / "CURRENT").read_text() == "1\n"
    assert not (ref.path / "units").exists()
    assert manifest.dataset_ref(ref.path) == ref


# is there anything to do?


def test_nothing_to_do(current, ref):
    assert current() == ref


def test_new_items_are_work(current):
    assert current(dataclasses.replace(dw.ANSWER, fingerprint="other")) is None


@pytest.mark.parametrize(
    "victim", ["dataset.json", "chips.parquet", "shards/*.tfrecord", "stack/*.vrt", "../../../composites/*/*/*.tif", "../../../blocks.parquet"]
)  # fmt: skip
def test_a_file_that_is_gone_or_cut_is_work(current, ref, victim):
    path = min(ref.path.glob(victim))
    path.write_bytes(path.read_bytes()[:-1])
    assert current() is None
    path.unlink()
    assert current() is None


def test_blocks_that_were_dealt_anew_are_work(current, ref):
    blocks = ref.path.parents[2] / "blocks.parquet"
    blocks.write_bytes(blocks.read_bytes() + b" ")
    seal_file(blocks, "f")
    assert current() is None


def test_another_content_with_a_good_sidecar_is_work(current, ref):
    shard = min((ref.path / "shards").glob("*.tfrecord"))
    data = bytearray(shard.read_bytes())
    data[100] ^= 1
    shard.write_bytes(bytes(data))
    seal_file(shard, read_sidecar(shard).fingerprint)
    assert current() is None


def test_no_version_is_work(current, ref):
    (ref.path.parents[1] / "CURRENT").unlink()
    assert current() is None


def test_a_place_without_manifest_is_named(tmp_path):
    with pytest.raises(VersionNotFoundError, match=r"holds no dataset\.json"):
        manifest.load_manifest(tmp_path)
    (tmp_path / "dataset.json").write_text('{"schema_version": 1}')
    with pytest.raises(DamagedFileError, match="is not a manifest"):
        manifest.load_manifest(tmp_path)


def test_statistics_merge_without_rounding():
    one = Statistics.of_sums(BandSums(2**53 + 1, 2**70, 2**90))
    assert one.sums + one.sums == BandSums(2**54 + 2, 2**71, 2**91)
