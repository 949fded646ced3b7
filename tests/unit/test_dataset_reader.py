"""Reading a dataset: any chip, all chips, by every path that means it; damage is never read as data."""

import shutil
import sys

import numpy as np
import pytest
from tests import dataset_world as dw

from chipmill.core.errors import BadInputError, DamagedFileError, VersionNotFoundError
from chipmill.core.tables import CHIPS, read_table
from chipmill.dataset.manifest import load_manifest
from chipmill.dataset.opening import find_version
from chipmill.dataset.reader import iter_records, open_dataset


@pytest.fixture(scope="module")
def ref(tmp_path_factory):
    """A committed dataset; tests that change it take a copy."""
    return dw.committed(tmp_path_factory.getbasetemp() / "dataset", tmp_path_factory.mktemp("reader"))


@pytest.fixture
def copy(ref, tmp_path):
    shutil.copytree(ref.path.parents[5], tmp_path, dirs_exist_ok=True)
    return tmp_path / ref.path.relative_to(ref.path.parents[5])


def test_every_written_chip_is_there_once(ref):
    dataset = open_dataset(ref.path)
    rows = [
        row for row in read_table(ref.path / "chips.parquet", CHIPS).to_pylist() if row["state"] == "written"
    ]
    assert len(dataset) == ref.chips == len(rows)
    assert sorted(dataset.chip_ids) == sorted(row["chip_id"] for row in rows)
    found = dataset[7]
    assert found.chip_id == dataset.chip_ids[7]
    assert (found.image.shape, found.image.dtype, found.label.shape) == (
        (32, 32, 6),
        np.dtype("<i2"),
        (32, 32),
    )


def test_random_access_and_reading_in_order_agree(ref):
    dataset = open_dataset(ref.path)
    by_id = {sample.chip_id: sample for sample in iter_records(ref.path)}
    assert by_id.keys() == set(dataset.chip_ids)
    for sample in dataset:
        np.testing.assert_array_equal(sample.image, by_id[sample.chip_id].image)
        np.testing.assert_array_equal(sample.label, by_id[sample.chip_id].label)


def test_splits_and_slices_are_datasets(ref):
    dataset = open_dataset(ref.path)
    counts = load_manifest(ref.path).counts.splits
    assert {name: len(dataset.split(name)) for name in counts} == counts
    assert dataset[2:5].chip_ids == dataset.chip_ids[2:5]
    assert dataset[-1].chip_id == dataset.chip_ids[-1]
    with pytest.raises(IndexError):
        dataset[len(dataset)]
    assert {sample.chip_id for sample in iter_records(ref.path, "val")} == set(dataset.split("val").chip_ids)


def test_reading_needs_no_tensorflow(ref):
    if "tensorflow" in sys.modules:
        pytest.skip("another test of this process imported it")
    assert sum(1 for _ in iter_records(ref.path)) == ref.chips
    assert "tensorflow" not in sys.modules


def test_every_path_that_means_it(ref):
    cell, output = ref.path.parents[1], ref.path.parents[4]
    assert (
        find_version(ref.path)
        == find_version(cell)
        == find_version(cell.parent)
        == find_version(output)
        == ref.path
    )


def test_two_cells_are_not_guessed_at(copy):
    cell = copy.parents[1]
    shutil.copytree(cell, cell.with_name("2020-01-01--2021-01-01"))
    with pytest.raises(BadInputError, match="holds 2 datasets"):
        open_dataset(cell.parents[2])
    assert len(open_dataset(cell)) > 0


def test_no_dataset_is_named(tmp_path):
    with pytest.raises(VersionNotFoundError, match="is no dataset"):
        open_dataset(tmp_path)


def test_a_dataset_can_be_moved(copy, ref):
    moved = copy.parents[5] / "elsewhere"
    copy.parents[4].rename(moved)
    assert open_dataset(moved).chip_ids == open_dataset(ref.path).chip_ids
    assert open_dataset(moved)[0].chip_id == open_dataset(ref.path)[0].chip_id


def test_a_changed_byte_is_an_error_that_names_the_chip(copy):
    dataset = open_dataset(copy)
    shard = copy / dataset.manifest.shards[0].path
    data = bytearray(shard.read_bytes())
    data[500] ^= 1
    shard.write_bytes(bytes(data))
    with pytest.raises(
        DamagedFileError, match=f"chip {dataset.chip_ids[0]} in .* at byte 0: the record fails its checksum"
    ):
        dataset[0]
    with pytest.raises(DamagedFileError):
        list(iter_records(copy))


def test_a_shard_cut_between_records_is_an_error(copy):
    dataset = open_dataset(copy)
    shard = copy / dataset.manifest.shards[0].path
    rows = [row for row in read_table(copy / "chips.parquet").to_pylist() if row["shard"] == shard.stem]
    shard.write_bytes(shard.read_bytes()[: max(row["offset"] for row in rows)])
    with pytest.raises(DamagedFileError, match=f"holds {len(rows) - 1} records, expected {len(rows)}"):
        list(iter_records(copy))
    with pytest.raises(DamagedFileError):
        list(dataset[: len(rows)])


def test_a_missing_shard_is_an_error(copy):
    dataset = open_dataset(copy)
    (copy / dataset.manifest.shards[0].path).unlink()
    with pytest.raises(DamagedFileError, match="the shard is gone"):
        dataset[0]


def test_a_missing_table_is_an_error(copy):
    (copy / "chips.parquet").unlink()
    with pytest.raises(DamagedFileError, match="is gone"):
        open_dataset(copy)
