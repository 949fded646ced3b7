"""verify: a good dataset is good, and each kind of damage is found by the check that promises it."""

import os
import random
import shutil

import pytest
from tests import dataset_world as dw

from chipmill.core.errors import BadInputError, VersionNotFoundError
from chipmill.core.store import canonical_json, link_file, read_json, read_sidecar, seal_file, sidecar_path
from chipmill.core.tables import CHIPS, read_table, write_table
from chipmill.dataset.description import digest_of
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
    problems = verify_dataset(version).problems
    assert problems[0] == f"{path}: differs from what was committed"
    assert "its digest is" in problems[1]
    path.write_text(text[:-10])
    assert len(verify_dataset(version).problems) == 1
    assert "is not a manifest" in verify_dataset(version).problems[0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"state": "filtered"}, "chips.parquet: written is"),
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


# every planted defect is found


NIGHTLY = os.environ.get("CHIPMILL_PROFILE") == "nightly"


def boundaries(version, shard):
    rows = read_table(version / "chips.parquet").to_pylist()
    return [row["offset"] + row["length"] for row in rows if row["shard"] == shard.stem and row["length"]]


def test_a_cut_near_any_records_end_is_found(version):
    draw = random.Random(8)
    for shard in load_manifest(version).shards:
        path = version / shard.path
        good = path.read_bytes()
        for end in boundaries(version, shard):
            near = [by for by in range(-12, 13) if 0 <= end + by < len(good)]
            for by in near if NIGHTLY else draw.sample(near, 1):
                os.truncate(path, end + by)
                found = [one for one in verify_dataset(version).problems if str(path) in one]
                assert found == [f"{path}: expected {len(good)} bytes, got {end + by}"]
                path.write_bytes(good)
    assert verify_dataset(version, data=True).problems == ()


def test_a_cut_is_found_by_the_records_too_where_sidecar_and_manifest_agree_with_it(version):
    shard = load_manifest(version).shards[0]
    path, draw = version / shard.path, random.Random(8)
    good = path.read_bytes()
    for end in draw.sample(boundaries(version, shard), 3):
        for by in (-12, -1, 0, 1, 12):
            cut = good[: end + by]
            if cut == good:
                continue
            path.write_bytes(cut)
            seal_file(path, "f", records=shard.count)
            change_manifest(version, lambda facts: facts["shards"][0].update(size_and_hash(path)))
            assert [one for one in verify_dataset(version, data=True).problems if shard.path in one]


def size_and_hash(path):
    sidecar = read_sidecar(path)
    return {"bytes": sidecar.bytes, "sha256": sidecar.sha256}


def change_manifest(version, change):
    """Change dataset.json as somebody would who knows all its seals."""
    path = version / "dataset.json"
    facts = read_json(path)
    change(facts)
    facts["digest"] = digest_of(facts)
    path.write_text(canonical_json(facts, indent=1) + "\n")
    seal_file(path, read_sidecar(path).fingerprint, records=facts["counts"]["written"])


@pytest.mark.parametrize("seed", range(20 if NIGHTLY else 3))
def test_a_flipped_bit_in_any_named_file_is_found(version, seed):
    draw = random.Random(seed)
    files = [(version / one.path).resolve() for one in load_manifest(version).named()]
    assert len(files) > 50
    for path in files:
        data = bytearray(path.read_bytes())
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        path.unlink()  # a hard link or a copy: others keep theirs
        path.write_bytes(bytes(data))
    problems = verify_dataset(version, data=True).problems
    if len(problems) == 1:  # the table of the chips itself is not readable any more
        assert "chips.parquet is not the table" in problems[0]
        return
    for path in files:
        assert [one for one in problems if one.startswith(f"{path}: expected sha256")], path


@pytest.mark.parametrize("seed", range(300 if NIGHTLY else 30))
def test_a_flipped_bit_in_the_manifest_is_found_even_where_its_sidecar_is_made_anew(version, seed):
    path, draw = version / "dataset.json", random.Random(seed)
    data = bytearray(path.read_bytes())
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    path.write_bytes(bytes(data))
    seal_file(path, read_sidecar(path).fingerprint, records=read_sidecar(path).records)
    assert verify_dataset(version).problems


def test_a_shard_doubled_in_place_of_another_is_found(version):
    first, second = [version / one.path for one in load_manifest(version).shards][:2]
    for path in (second, sidecar_path(second)):
        path.unlink()
    link_file(first, second)
    problems = [one for one in verify_dataset(version).problems if str(second) in one]
    assert any("another content than the manifest" in one for one in problems)


def test_a_shard_that_is_named_twice_is_found(version):
    change_manifest(version, lambda facts: facts["shards"].append(facts["shards"][0]))
    problems = verify_dataset(version).problems
    assert any("names shards/" in one and one.endswith("2 times") for one in problems)
    assert any("do not hold the" in one for one in problems)


def test_a_shard_that_nobody_names_any_more_is_found(version):
    change_manifest(version, lambda facts: facts["shards"].pop())
    problems = verify_dataset(version).problems
    assert any(one.endswith("not named by the manifest") for one in problems)
    (version / "shards" / "train-00007-of-00008.tfrecord.gz").write_bytes(b"")
    assert len(verify_dataset(version).problems) == len(problems) + 1


@pytest.mark.parametrize("number", range(3))
def test_a_missing_shard_is_found(version, number):
    path = version / load_manifest(version).shards[number].path
    path.unlink()
    assert f"{path}: missing" in verify_dataset(version).problems
    assert f"{path}: missing" in verify_dataset(version, data=True).problems


def more(value):
    return str(int(value) + 1) if isinstance(value, str) else value + 1


FORGED = {
    "planned": lambda facts: facts["counts"].update(planned=more(facts["counts"]["planned"])),
    "filtered": lambda facts: facts["counts"]["filtered"].update(cloud=1),
    "splits": lambda facts: facts["counts"]["splits"].update(val=0, test=0),
    "shared_px": lambda facts: facts["certificate"].update(shared_px=1),
    "nearest_px": lambda facts: facts["certificate"].update(nearest_px=1e6),
    "class_px": lambda facts: facts["certificate"]["class_px"].update(test=[1, 2, 3]),
    "mean": lambda facts: facts["bands"][2]["statistics"].update(mean=0.5),
    "n, sum": lambda facts: facts["bands"][1]["statistics"].update(sum=more(facts["bands"][1]["statistics"]["sum"])),
    "records in": lambda facts: facts["shards"][0].update(count=more(facts["shards"][0]["count"])),
}  # fmt: skip


@pytest.mark.parametrize("said", FORGED)
def test_a_manifest_that_does_not_fit_its_table_is_found_even_where_all_seals_fit(version, said):
    change_manifest(version, FORGED[said])
    assert any(said in one for one in verify_dataset(version).problems)


def test_statistics_are_counted_again_from_the_records(version):
    manifest = load_manifest(version)
    wrong = {"n": "1", "sum": "5", "squares": "25", "mean": 5.0, "std": 0.0}
    change_manifest(version, lambda facts: facts["bands"][0]["statistics"].update(wrong))
    for shard in manifest.shards_of("train"):  # as if they had been counted wrongly from the start
        path = version / shard.path
        extra = {"statistics": None}
        seal_file(path, read_sidecar(path).fingerprint, records=shard.count, extra=extra)
    assert verify_dataset(version).problems == ()
    (problem,) = verify_dataset(version, data=True).problems
    assert "n, sum and sum of squares of p1_red are 1, 5, 25, its records give" in problem


def test_a_label_of_other_classes_than_the_table_says_is_found(version):
    path = version / "chips.parquet"
    rows = read_table(path, CHIPS).to_pylist()
    row = next(row for row in rows if row["shard"] == first_shard(version).stem)
    row["class_px"] = row["class_px"][::-1]
    table = type(read_table(path)).from_pylist(rows, schema=CHIPS)
    write_table(path, table, CHIPS, read_sidecar(path).fingerprint)
    problems = verify_dataset(version, data=True).problems
    assert any("pixels of each class, chips.parquet says" in one for one in problems)
