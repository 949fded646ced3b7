"""Readers at work: batches in an order of seed and epoch alone, threads, processes, few open files, several datasets."""

import multiprocessing
import operator
import pickle
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from tests import dataset_world as dw

import chipmill
from chipmill.core.errors import BadInputError, DamagedFileError
from chipmill.dataset import feeding
from chipmill.dataset.opening import OpenFiles
from chipmill.dataset.reader import iter_records, open_dataset


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A committed dataset."""
    return dw.committed(tmp_path_factory.getbasetemp() / "dataset", tmp_path_factory.mktemp("feeding")).path


@pytest.fixture(scope="module")
def dataset(root):
    return open_dataset(root)


def ids(batches):
    return [chip_id for batch in batches for chip_id in batch.chip_id]


def test_the_top_of_the_package_opens_datasets_and_imports_nothing_before(root):
    assert chipmill.open_dataset is open_dataset
    with pytest.raises(AttributeError, match="no attribute 'open_datasets'"):
        chipmill.open_datasets  # noqa: B018
    code = "import sys, chipmill; print(sorted(n for n in sys.modules if n.startswith('chipmill')))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "['chipmill']"


def test_reading_loads_nothing_heavy(root):
    code = f"""
import sys, chipmill
dataset = chipmill.open_dataset({str(root)!r})
assert sum(len(batch.label) for batch in dataset.batches(8, shuffle_seed=1)) == len(dataset)
heavy = {{"tensorflow", "keras", "torch", "prefect", "distributed", "matplotlib", "xarray"}}
print(sorted(heavy & sys.modules.keys()))
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


def test_batches_hold_each_chip_once_in_the_order_of_the_dataset(dataset):
    batches = list(dataset.batches(5))
    assert ids(batches) == list(dataset.chip_ids)
    assert [len(batch.label) for batch in batches[:-1]] == [5] * (len(batches) - 1)
    for batch, first in zip(batches, range(0, len(dataset), 5), strict=True):
        for own, sample in enumerate(dataset[first : first + 5]):
            np.testing.assert_array_equal(batch.image[own], sample.image)
            np.testing.assert_array_equal(batch.label[own], sample.label)
    whole = len(dataset) // 5
    assert len(list(dataset.batches(5, drop_remainder=True))) == whole
    assert whole * 5 < len(dataset)


def test_the_order_depends_on_seed_and_epoch_alone(dataset):
    def order(**options):
        return ids(dataset.batches(7, **options))

    first = order(shuffle_seed=8, epoch=3, threads=1)
    assert first == order(shuffle_seed=8, epoch=3, threads=4)
    others = [order(), order(shuffle_seed=8, epoch=4), order(shuffle_seed=9, epoch=3)]
    assert all(other != first and sorted(other) == sorted(first) for other in others)


def test_shards_are_drawn_and_records_of_eight_shards_are_mixed():
    shard_of = np.repeat(np.arange(20), 6)
    order = feeding.mixed_order(shard_of, [f"s{number}" for number in range(20)], 1, 2)
    assert sorted(order) == list(range(120))
    turns = [set(shard_of[order[first : first + 48]].tolist()) for first in (0, 48, 96)]
    assert [len(turn) for turn in turns] == [8, 8, 4]
    assert not turns[0] & turns[1] and not turns[1] & turns[2]
    assert sorted(turns[0]) != list(range(8)), "the shards are drawn"
    assert (np.diff(shard_of[order[:48]]) != 0).sum() > 20, "their records are mixed"


def test_the_arrays_are_the_callers_own(dataset):
    sample = dataset[0]
    before = sample.image.copy()
    sample.image[:], sample.label[:] = 1, 1
    assert before.any()
    np.testing.assert_array_equal(dataset[0].image, before)


def test_threads_read_one_dataset_at_once(dataset):
    """One file stays open at most, so that threads take them from each other all the time."""
    own = chipmill.open_dataset(dataset.parts[0].root)
    own._files = OpenFiles(1)
    wrong, expected = [], [(sample.chip_id, sample.image.tobytes()) for sample in dataset]

    def read(seed):
        for place in np.random.default_rng(seed).permutation(len(own)):
            sample = own[int(place)]
            if (sample.chip_id, sample.image.tobytes()) != expected[place]:
                wrong.append(sample.chip_id)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_few_files_stay_open_and_none_when_the_dataset_is_gone(root, tmp_path):
    own = Path("/proc/self/fd")

    def opened():
        return [link for link in own.iterdir() if link.exists() and tmp_path in link.readlink().parents]

    if not own.is_dir():
        pytest.skip("no /proc on this system")
    paths = [tmp_path / f"{number}" for number in range(5)]
    for path in paths:
        path.write_bytes(b"0123456789")
    files = OpenFiles(2)
    first, second = np.empty(3, np.uint8), np.empty(2, np.uint8)
    for path in paths:
        assert files.read_into(path, 3, [first, second]) == 5
        assert (first.tobytes(), second.tobytes()) == (b"345", b"67")
    assert files.read_into(paths[0], 8, [first]) == 2
    assert len(opened()) == 2
    with pytest.raises(FileNotFoundError):
        files.read_into(tmp_path / "none", 0, [first])
    del files
    assert opened() == []


def test_pickling_carries_paths_and_places(dataset, root):
    val = dataset.split("val")[1:]
    stored = pickle.dumps(val)
    assert len(stored) < 2000
    again = pickle.loads(stored)
    assert again.chip_ids == val.chip_ids
    np.testing.assert_array_equal(again[0].image, val[0].image)
    assert len(pickle.dumps(dataset)) < 500


def test_a_pickled_dataset_does_not_open_another_one(root, tmp_path):
    shutil.copytree(root.parents[5], tmp_path, dirs_exist_ok=True)
    copy = tmp_path / root.relative_to(root.parents[5])
    stored = pickle.dumps(open_dataset(copy))
    manifest = copy / "dataset.json"
    text = manifest.read_text()
    mark = open_dataset(root).manifest.fingerprint
    manifest.write_text(text.replace(mark, mark[::-1]))
    with pytest.raises(DamagedFileError, match="another dataset than the one that was handed over"):
        pickle.loads(stored)


def test_a_spawned_process_reads_it(dataset):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        sample = pool.apply(operator.getitem, (dataset.split("val"), 1))
    assert sample.chip_id == dataset.split("val").chip_ids[1]
    np.testing.assert_array_equal(sample.image, dataset.split("val")[1].image)


def test_a_forked_process_goes_on_with_files_that_are_open(root):
    code = f"""
import os, chipmill
dataset = chipmill.open_dataset({str(root)!r})
first = [sample.image.sum() for sample in dataset]
child = os.fork()
again = [sample.image.sum() for sample in dataset]
if not child:
    os._exit(0 if again == first else 1)
assert again == first
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_reading_ahead_keeps_the_order_hands_on_errors_and_stops():
    made = []

    def make(step):
        made.append(step)
        if step == 7:
            raise DamagedFileError("step 7")
        return step

    steps = feeding.read_ahead(make, 20, threads=3)
    assert [next(steps) for _ in range(7)] == list(range(7))
    with pytest.raises(DamagedFileError, match="step 7"):
        next(steps)
    assert max(made) < 15
    steps = feeding.read_ahead(lambda step: step, 1000, threads=2)
    assert next(steps) == 0
    steps.close()
    assert not [one for one in threading.enumerate() if one.name.startswith("feed")]


def test_a_damaged_record_stops_the_batches(root, tmp_path):
    shutil.copytree(root.parents[5], tmp_path, dirs_exist_ok=True)
    copy = open_dataset(tmp_path / root.relative_to(root.parents[5]))
    shard = copy.parts[0].files[0]
    data = bytearray(shard.read_bytes())
    data[300] ^= 4
    shard.write_bytes(bytes(data))
    with pytest.raises(DamagedFileError, match=f"chip {copy.chip_ids[0]} .* fails its checksum"):
        list(copy.batches(4, shuffle_seed=1))


def test_no_path_and_no_chip_are_said(root, tmp_path):
    with pytest.raises(BadInputError, match="no dataset was given"):
        open_dataset([])
    empty = open_dataset(root)[:0]
    assert (list(empty.batches(4)), list(empty), empty.chip_ids) == ([], [], ())
    assert next(iter_records(root, "val")).chip_id == open_dataset(root).split("val").chip_ids[0]
