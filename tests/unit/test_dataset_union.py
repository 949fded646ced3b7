"""Several datasets as one: what does not fit is refused by name, statistics are those of all, nothing leaks between."""

import pickle
import shutil

import numpy as np
import pytest
from tests import dataset_world as dw
from tests import stack_world

from chipmill.core.errors import SchemaMismatchError, SplitMismatchError
from chipmill.dataset.leaks import Ground, check_leaks
from chipmill.dataset.places import Places
from chipmill.dataset.reader import open_dataset
from chipmill.region.grid import Lattice, lattice_of, projector

FAR = (stack_world.ORIGIN[0] + 4096, stack_world.ORIGIN[1])
LATER = {"time": {"range": ("2020-01-01", "2021-01-01"), "slots": {"n": 2}}}


def build(folder, origin=stack_world.ORIGIN, blocks=None, **changes):
    """Return the directory of a sealed dataset of 3 x 3 tiles whose corner is at ``origin``."""
    folder.mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stack_world, "ORIGIN", origin)
        if blocks is not None:
            target = folder / "out" / "regions" / "toy"
            target.mkdir(parents=True)
            for name in ("blocks.parquet", "blocks.parquet.json"):
                shutil.copyfile(blocks / name, target / name)
        chain = dw.planned(folder, 3, 3, **changes)
        chain.write_shards()
        chain.seal()
        return chain.plan.attempt


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    return build(tmp_path_factory.mktemp("here") / "a")


@pytest.fixture(scope="module")
def there(tmp_path_factory):
    return build(tmp_path_factory.mktemp("there") / "b", FAR, seed=9)


@pytest.fixture(scope="module")
def both(here, there):
    return open_dataset([here, there])


def test_the_chips_of_one_follow_those_of_the_other(both, here, there):
    parts = [open_dataset(here), open_dataset(there)]
    assert both.chip_ids == parts[0].chip_ids + parts[1].chip_ids
    border = len(parts[0])
    for place, sample in ((border - 1, parts[0][-1]), (border, parts[1][0]), (-1, parts[1][-1])):
        assert both[place].chip_id == sample.chip_id
        np.testing.assert_array_equal(both[place].image, sample.image)
    assert both[border - 2 : border + 2].chip_ids == (*parts[0].chip_ids[-2:], *parts[1].chip_ids[:2])
    held = both.split("val")
    assert held.chip_ids == parts[0].split("val").chip_ids + parts[1].split("val").chip_ids
    mixed = [chip_id for batch in held.batches(4, shuffle_seed=1) for chip_id in batch.chip_id]
    assert sorted(mixed) == sorted(held.chip_ids)
    assert pickle.loads(pickle.dumps(held)).chip_ids == held.chip_ids


def test_statistics_are_those_of_all_chips_together(both, here, there):
    own = [open_dataset(path).manifest.bands for path in (here, there)]
    for band, one, other in zip(both.bands, *own, strict=True):
        assert band.name == one.name
        found = band.statistics
        assert int(found.n) == int(one.statistics.n) + int(other.statistics.n)
        assert int(found.squares) == int(one.statistics.squares) + int(other.statistics.squares)
        assert found.mean == pytest.approx(int(found.sum) / int(found.n))
    assert [one.name for one in both.classes] == ["water", "tree", "crop"]


def test_a_manifest_is_one_datasets(both):
    assert len(both.parts) == 2
    with pytest.raises(ValueError, match="has 2 manifests"):
        both.manifest  # noqa: B018


def test_bands_that_differ_are_refused(here, tmp_path):
    other = build(tmp_path / "c", FAR, indices=[])
    with pytest.raises(SchemaMismatchError, match="bands differs"):
        open_dataset([here, other])


def test_a_chip_is_in_one_dataset_only(here, there):
    with pytest.raises(SplitMismatchError, match=r"chip 32633-\S+ and \d+ others are in"):
        open_dataset([here, there, here])


def test_the_same_ground_in_other_years_must_be_dealt_alike(here, tmp_path):
    rules = {"dataset": dw.DATASET | {"splits": {"block_px": 64, "buffer_px": 8, "seed": 5}}}
    dealt_anew = build(tmp_path / "d", seed=10, **LATER, **rules)
    with pytest.raises(SplitMismatchError, match=r"trains on [\d,]+ px of ground that \S+ holds back"):
        open_dataset([here, dealt_anew])
    shared = build(tmp_path / "e", blocks=here.parents[2], seed=10, **LATER)
    assert len(open_dataset([here, shared])) == len(open_dataset(here)) + len(open_dataset(shared))


UTM33, UTM32 = lattice_of(32633, 10.0), lattice_of(32632, 10.0)
DEGREES = Lattice(4326, 0.0, 0.0, 1e-4, 1e-4)


def ground(name, lattice, windows, split, kind="blocks", anchors=("2019-01-01",)):
    """One or several chips (col, row, side) of one split."""
    corners = np.array(windows, dtype=np.int64)
    names = np.array([lattice.lattice_id] * len(corners), dtype=object)
    places = Places(names, corners[:, 0], corners[:, 1], corners[:, 2], corners[:, 2])
    days = np.resize(np.array(anchors, dtype=object), len(corners))
    return Ground(
        name, kind, {lattice.lattice_id: lattice}, places, np.array([split == "train"] * len(corners)), days
    )


def at(lattice, longitude, latitude, side=128):
    """The chip of a lattice whose centre lies at a place."""
    x, y = projector(4326, lattice.epsg).transform(longitude, latitude)
    col, row = round((x - lattice.origin_x) / lattice.res_x), round((lattice.origin_y - y) / lattice.res_y)
    return col - side // 2, row - side // 2, side


@pytest.mark.parametrize(
    ("train", "held", "px"),
    [
        ([(0, 0, 64)], [(32, 32, 64)], 1024),
        ([(0, 0, 64), (16, 0, 64)], [(40, 0, 64)], 40 * 64),  # overlapping chips count a pixel once
        ([(0, 0, 64)], [(64, 0, 64)], 0),
        ([(0, 0, 64)], [(63, -63, 64)], 1),
    ],
)
def test_on_one_lattice_common_pixels_are_counted(train, held, px):
    grounds = [ground("a", UTM33, train, "train"), ground("b", UTM33, held, "val")]
    for order in (grounds, grounds[::-1]):
        if px:
            with pytest.raises(
                SplitMismatchError, match=f"a trains on {px:,} px of ground that b holds back"
            ):
                check_leaks(order)
        else:
            check_leaks(order)
    check_leaks([grounds[0], ground("c", UTM33, train, "train")])


@pytest.mark.parametrize(
    ("lattice", "other", "longitude"),
    [
        (UTM33, UTM32, 12.0),
        (UTM32, DEGREES, 11.9),
        (DEGREES, UTM32, 11.9),
        (UTM33, Lattice(32633, 3.0, 4.0, 20.0, 20.0), 15.0),
        (lattice_of(32601, 10.0), lattice_of(32660, 10.0), 180.0),  # across the date line
    ],
)
def test_across_lattices_places_are_compared_on_the_ground(lattice, other, longitude):
    held = ground("b", other, [at(other, longitude, 46.0)], "test")
    with pytest.raises(SplitMismatchError, match="holds back") as told:
        check_leaks([ground("a", lattice, [at(lattice, longitude, 46.0)], "train"), held])
    assert int(str(told.value).split(" px")[0].split()[-1].replace(",", "")) > 1000
    away = longitude - 0.2 if longitude < 180 else longitude - 0.4
    check_leaks([ground("a", lattice, [at(lattice, away, 46.0)], "train"), held])


def test_neighbours_in_two_zones_that_only_touch_share_nothing():
    """The left edge of a chip in zone 33 projected into 32: chips of zone 32 that end before it."""
    col, row, side = at(UTM33, 12.0, 46.0)
    left, bottom, _, top = UTM33.bounds(stack_world.Window(col, row, side, side))
    x, _ = projector(32633, 32632).transform([left] * 65, np.linspace(bottom, top, 65))
    edge = int(np.floor(min(x) / 10))
    lower = at(UTM32, 12.0, 46.0)[1]
    train = ground("a", UTM33, [(col, row, side)], "train")
    check_leaks([train, ground("b", UTM32, [(edge - side, lower, side)], "val")])
    with pytest.raises(SplitMismatchError):
        check_leaks([train, ground("b", UTM32, [(edge - side + 6, lower, side)], "val")])


def test_splits_by_time_may_share_ground_on_other_days():
    def pair(kind, day):
        chip = [(0, 0, 64)]
        return [
            ground("a", UTM33, chip, "train", kind, ("2019-05-01",)),
            ground("b", UTM33, chip, "val", "time", (day,)),
        ]

    check_leaks(pair("time", "2020-05-01"))
    for kind, day in (("time", "2019-05-01"), ("blocks", "2020-05-01")):
        with pytest.raises(SplitMismatchError, match="4,096 px"):
            check_leaks(pair(kind, day))
