"""verify: a good dataset is good, and each kind of damage is found by the check that promises it."""

import shutil

import pytest
from tests import dataset_world as dw

from chipmill.core.errors import BadInputError, VersionNotFoundError
from chipmill.core.store import read_sidecar, seal_file, sidecar_path
from chipmill.core.tables import CHIPS, read_table, write_table
from chipmill.dataset.manifest import load_manifest
from chipmill.dataset.verify import verify_dataset


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return dw.committed(tmp_path_factory.getbasetemp() / "dataset", tmp_path_factory.mktemp("verify")).path


@pytest.fixture
def version(good, tmp_path):
    shutil.copytree(good.parents[5], tmp_path, dirs_exist_ok=True)
    return tmp_path / good.relative_to(good.parents[5])


def first_shard(version):
    return version / load_manifest(version).shards[0].path


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("data", [False, True])
def test_a_good_dataset_has_no_problem(good, data):
    report = verify_dataset(good, data=data)
    named = len(load_manifest(good).named())
    assert report.problems == ()
    assert (report.checked, report.hashed) == (named + 1, named if data else 0)


def test_a_cell_means_its_version_in_force(good):
    assert verify_dataset(good.parents[1]).problems == ()


def test_what_is_no_dataset_is_not_called_bad(tmp_path):
    with pytest.raises(VersionNotFoundError):
        verify_dataset(tmp_path)


def test_a_shard_cut_at_a_records_end_is_found_by_the_quick_check(version):
    shard = first_shard(version)
    rows = [row for row in read_table(version / "chips.parquet").to_pylist() if row["shard"] == shard.stem]
    last = max(row["offset"] for row in rows)
    shard.write_bytes(shard.read_bytes()[:last])
    (problem,) = verify_dataset(version).problems
    assert problem == f"{shard}: expected {load_manifest(version).shards[0].bytes} bytes, got {last}"
    assert any(
        f"expected {len(rows)} records, found {len(rows) - 1}" in one
        for one in verify_dataset(version, data=True).problems
    )


def test_one_changed_byte_is_found_by_the_full_check_alone(version):
    shard = first_shard(version)
    flip(shard, 1000)
    assert verify_dataset(version).problems == ()
    problems = verify_dataset(version, data=True).problems
    assert [one for one in problems if "expected sha256" in one and str(shard) in one]
    assert [one for one in problems if "at byte 0: the record fails its checksum" in one]


@pytest.mark.parametrize(
    "victim", ["windows.parquet", "stack/*.vrt", "../../../composites/*/*/*.tif", "../../../labels/*.tif"]
)
def test_every_named_file_is_checked(version, victim):
    path = min(version.glob(victim)).resolve()
    flip(path, path.stat().st_size // 2)
    assert verify_dataset(version).problems == ()
    (problem,) = verify_dataset(version, data=True).problems
    assert problem.startswith(f"{path}: expected sha256")
    path.unlink()
    assert f"{path}: missing" in verify_dataset(version).problems


def test_a_part_of_the_files_is_drawn(version):
    named = len(load_manifest(version).named())
    for shard in load_manifest(version).shards:
        flip(version / shard.path, 50)
    assert verify_dataset(version, subset=10).hashed == round(named / 10)
    assert len(verify_dataset(version, subset=100).problems) >= 2 * len(load_manifest(version).shards)


@pytest.mark.parametrize("subset", [0, -1, 101])
def test_a_share_that_is_none_is_refused(good, subset):
    with pytest.raises(BadInputError, match="the subset must be"):
        verify_dataset(good, subset=subset)


def test_a_shard_swapped_for_another_good_one_is_found(version):
    shards = [version / one.path for one in load_manifest(version).shards][:2]
    first = shards[0].read_bytes()
    shards[0].write_bytes(shards[1].read_bytes())
    shards[1].write_bytes(first)
    for shard in shards:
        seal_file(shard, "f")
    problems = verify_dataset(version).problems
    assert [one for one in problems if "another content than the manifest" in one]


def test_a_file_that_nobody_named_is_found(version):
    shutil.copy(first_shard(version), version / "shards" / "train-00007-of-00008.tfrecord")
    (problem,) = verify_dataset(version).problems
    assert problem.endswith("not named by the manifest")


def test_a_missing_sidecar_is_found(version):
    sidecar_path(first_shard(version)).unlink()
    sidecar_path(version / "dataset.json").unlink()
    assert len(verify_dataset(version).problems) == 2


def test_a_changed_manifest_is_found(version):
    path = version / "dataset.json"
    text = path.read_text()
    path.write_text(text.replace('"layout": "stack"', '"layout": "single"'))
    assert verify_dataset(version).problems == (f"{path}: differs from what was committed",)
    path.write_text(text[:-10])
    assert len(verify_dataset(version).problems) == 1
    assert "is not a manifest" in verify_dataset(version).problems[0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"state": "filtered"}, "rows and written rows"),
        ({"offset": 3}, "has a record at byte 3, expected 0"),
        ({"length": 5}, "has a record at byte"),
    ],
)
def test_a_table_that_does_not_fit_the_shards_is_found(version, change, said):
    path = version / "chips.parquet"
    rows = read_table(path, CHIPS).to_pylist()
    next(row for row in rows if row["offset"] == 0).update(change)
    write_table(
        path, type(read_table(path)).from_pylist(rows, schema=CHIPS), CHIPS, read_sidecar(path).fingerprint
    )
    assert any(said in problem for problem in verify_dataset(version).problems)


def test_places_of_two_records_swapped_are_found_by_the_full_check(version):
    path = version / "chips.parquet"
    rows = read_table(path, CHIPS).to_pylist()
    one, other = [
        row for row in rows if row["shard"] == first_shard(version).stem and row["offset"] is not None
    ][:2]
    one["crc"], other["crc"] = other["crc"], one["crc"]
    write_table(
        path, type(read_table(path)).from_pylist(rows, schema=CHIPS), CHIPS, read_sidecar(path).fingerprint
    )
    assert (
        len([one for one in verify_dataset(version, data=True).problems if "expected {'chip_id'" in one]) == 2
    )
