"""The version that an import writes: shards, places, exact statistics over any overlaps."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chipmill.core.errors import AssetMismatchError, BadInputError, GridError
from chipmill.dataset.reader import iter_records, open_dataset
from chipmill.dataset.records import Sample
from chipmill.dataset.verify import verify_dataset
from chipmill.exchange import imported
from chipmill.exchange.imported import write_dataset
from chipmill.exchange.imported_facts import ImportedBand, ImportedChip, ImportFacts
from chipmill.exchange.places import Ground, Lattices
from chipmill.region.grid import Window

SIDE = 8
FACTS = ImportFacts(
    "toy", "test", (ImportedBand("red", "int16", 0.01, nodata=-1), ImportedBand("dem", "int16", kind="static")),
    (("water", "#0000ff", ("1",)), ("tree", "#00ff00", ("2",))), (("a.tif", "0" * 64),),
)  # fmt: skip


def chip(name, split="train", *, at=(0, 0), crs="EPSG:32633", anchor="2019-01-01", **changes):
    rng = np.random.default_rng(sum(name.encode()))
    sample = Sample(
        rng.integers(-1, 5, (SIDE, SIDE, 2), dtype=np.int16),
        rng.choice(np.array([0, 1, 255], np.uint8), (SIDE, SIDE)),
        name,
        anchor,
        crs,
        (10.0, 0.0, 500000.0 + 10 * at[0], 0.0, -10.0, 5100000.0 - 10 * at[1]),
    )._replace(**changes)
    return ImportedChip(sample, split, f"somewhere/{name}", name)


def rows(folder):
    return pq.read_table(folder / "chips.parquet").to_pylist()


def test_shards_are_closed_when_they_are_full_and_named_when_their_number_is_known(tmp_path, monkeypatch):
    monkeypatch.setattr(imported, "_SHARD_BYTES", 700)
    chips = [
        *(chip(f"a{at}", at=(20 * at, 0)) for at in range(5)),
        *(chip(f"b{at}", "test", at=(20 * at, 40)) for at in range(2)),
    ]
    manifest = write_dataset(tmp_path / "1", iter(chips), FACTS)
    found = [(shard.stem, shard.count) for shard in manifest.shards]
    assert found == [("train-00000-of-00002", 3), ("train-00001-of-00002", 2), ("test-00000-of-00001", 2)]
    assert [one.chip_id for one in iter_records(tmp_path / "1")] == [one.sample.chip_id for one in chips]
    assert verify_dataset(tmp_path / "1", data=True).problems == ()
    opened = open_dataset(tmp_path / "1")
    for sample, one in zip(opened, chips, strict=True):
        np.testing.assert_array_equal(sample.image, one.sample.image)
        np.testing.assert_array_equal(sample.label, one.sample.label)
        assert sample[2:6] == one.sample[2:6]
    assert sorted(path.name for path in (tmp_path / "1").iterdir()) == [
        "chips.parquet", "chips.parquet.json", "dataset.json", "dataset.json.json", "shards",
    ]  # fmt: skip


def test_the_table_says_of_a_chip_what_that_of_a_built_dataset_says(tmp_path):
    one = chip("a", at=(3, 5))
    one.sample.image[:2] = [-1, -1]  # red is nodata there, dem never is
    write_dataset(tmp_path / "1", [one], FACTS)
    (row,) = rows(tmp_path / "1")
    label = one.sample.label
    assert row["class_px"] == [int((label == 0).sum()), int((label == 1).sum())]
    assert row["ignore_px"] == int((label == 255).sum()) and row["valid_fraction"] == 1.0
    assert (row["col_off"], row["row_off"], row["width"], row["height"]) == (50003, -509995, SIDE, SIDE)
    assert (row["state"], row["split"], row["source_id"], row["tile_id"]) == ("written", "train", "a", "a")
    assert row["transform"] == list(one.sample.transform) and row["crs"] == "EPSG:32633"
    facts = json.loads((tmp_path / "1" / "dataset.json").read_text())
    assert str(tmp_path) not in json.dumps(facts) and facts["inputs"]["origin"] == "test"


def test_chips_off_the_grid_share_a_lattice_of_their_own(tmp_path):
    chips = [
        chip("a"),
        chip("b", at=(20.5, 0)),
        chip("c", at=(60.5, 8)),
        chip("d", at=(0, 0), crs="EPSG:32634"),
    ]
    manifest = write_dataset(tmp_path / "1", chips, FACTS)
    found = [row["lattice"] for row in rows(tmp_path / "1")]
    assert found[1] == found[2] and len(set(found)) == len(manifest.grids) == 3
    shifted = {grid.lattice: grid.origin for grid in manifest.grids}[found[1]]
    assert shifted == (5.0, 0.0)  # half a pixel beside the grid with its origin at (0, 0)
    assert rows(tmp_path / "1")[2]["transform"][2::3] == [500605.0, 5099920.0]


def test_without_a_place_there_is_none_on_the_map_and_every_pixel_counts(tmp_path):
    chips = [chip("a"), chip("b", crs="")]
    manifest = write_dataset(tmp_path / "1", chips, FACTS)
    assert manifest.certificate is None and "geometry" not in rows(tmp_path / "1")[0]
    pixels = np.stack([one.sample.image for one in chips]).astype(np.int64)
    red = pixels[..., 0][pixels[..., 0] != -1]
    assert (manifest.bands[0].statistics.n, manifest.bands[0].statistics.sum) == (
        str(red.size),
        str(red.sum()),
    )
    assert manifest.bands[1].statistics.n == str(2 * SIDE * SIDE)  # no value of it is nodata
    assert manifest.bands[1].nodata == -32769


@pytest.mark.parametrize(
    ("chips", "error", "says"),
    [
        ([], BadInputError, "toy has no chips"),
        ([chip("a"), chip("a", "val")], BadInputError, "somewhere/a and somewhere/a would both be chip a"),
        ([chip("a"), chip("b", "val"), chip("c")], BadInputError, "somewhere/c comes after another split"),
        ([chip("a", transform=(10.0, 1.0, 0.0, 0.0, -10.0, 0.0))], GridError, "somewhere/a is not north-up"),
        ([chip("a", image=np.zeros((SIDE, SIDE, 3), np.int16))], BadInputError, "has 3 bands, expected the 2"),
        ([chip("a", image=np.zeros((SIDE, SIDE, 2), np.int64))], BadInputError, "holds int64: expected integers of at most 32"),
        ([chip("a"), chip("b", label=np.zeros((4, 4), np.uint8))], AssetMismatchError, r"somewhere/b .*label of \(4, 4\)"),
        ([chip("a"), chip("b", image=np.zeros((4, 4, 2), np.int16))], AssetMismatchError, r"\(4, 4, 2\) int16"),
    ],
)  # fmt: skip
def test_a_chip_that_does_not_fit_is_named(tmp_path, chips, error, says):
    with pytest.raises(error, match=says):
        write_dataset(tmp_path / "1", chips, FACTS)


def test_what_the_chips_raise_passes(tmp_path):
    def chips():
        yield chip("a")
        raise AssetMismatchError("the second one")

    with pytest.raises(AssetMismatchError, match="the second one"):
        write_dataset(tmp_path / "1", chips(), FACTS)


PLACES = st.lists(st.tuples(st.sampled_from("ab"), st.integers(-20, 20), st.integers(-20, 20)), max_size=25)


@given(PLACES)
def test_each_pixel_of_the_ground_counts_once_for_a_date(places):
    ground, counted = Ground(SIDE), {}
    for anchor, col, row in places:
        mask = ground.claim(("grid", Window(col, row, SIDE, SIDE)), anchor)
        for y, x in np.argwhere(mask).tolist():
            place = (anchor, row + y, col + x)
            counted[place] = counted.get(place, 0) + 1
    wanted = {
        (anchor, row + y, col + x) for anchor, col, row in places for y in range(SIDE) for x in range(SIDE)
    }
    assert counted.keys() == wanted and set(counted.values()) <= {1}


def test_float_noise_of_headers_makes_no_lattice_of_its_own():
    lattices = Lattices()
    for number in range(50):
        sample = chip("a", at=(number * SIDE + 1e-7 * number, 0)).sample
        name, window = lattices.place(sample.crs, sample.transform, sample.label.shape, "x")
        assert window.col_off == 50000 + number * SIDE
    assert list(lattices.known) == [name]
