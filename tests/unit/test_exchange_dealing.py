"""Splits of a folder that has none: chips that share ground are never torn apart, and the shares come near."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests import exchange_world as ew
from typer.testing import CliRunner

from chipmill import cli
from chipmill.core.errors import BadInputError
from chipmill.dataset.places import SPLITS
from chipmill.dataset.reader import open_dataset
from chipmill.exchange.chips import ImportOptions
from chipmill.exchange.dealing import deal_groups
from chipmill.exchange.esri import import_esri
from chipmill.exchange.folders import import_folders

SHARES = (0.6, 0.2, 0.2)
OPTIONS = ImportOptions(date="2019-01-01", classes={0: "other", 1: "water", 2: "tree"}, shares=SHARES)


def save(folder, name, col, row, crs="EPSG:32633"):
    """A pair of 16 px at a place of the lattice."""
    where = ew.Affine(10, 0, 500000 + 10 * col, 0, -10, 5100000 - 10 * row)
    rng = np.random.default_rng(col)
    ew.save(
        folder / "images" / f"{name}.tif",
        rng.integers(0, 9, (1, 16, 16), dtype=np.uint8),
        crs=crs,
        transform=where,
    )
    ew.save(folder / "labels" / f"{name}.tif", np.ones((1, 16, 16), np.uint8), crs=crs, transform=where)


def test_chips_that_share_ground_share_a_split_also_through_others(tmp_path):
    # ten rows of six: in a row each chip overlaps the next, rows only touch
    for row in range(10):
        for number in range(6):
            save(tmp_path / "in", f"r{row}-{number}", 8 * number, 16 * row)
    done = import_folders(tmp_path / "in", tmp_path / "out", OPTIONS)
    found = open_dataset(tmp_path / "out")
    split_of = {sample.chip_id: name for name in SPLITS for sample in found.split(name)}
    for row in range(10):
        assert len({split_of[f"r{row}-{number}"] for number in range(6)}) == 1
    assert found.manifest.counts.splits == {"train": 36, "val": 12, "test": 12}
    assert (found.manifest.certificate.kind, found.manifest.certificate.leak_px) == ("given", 0)
    assert done.notes == ("dealt 36 chips to train, 12 chips to val, 12 chips to test, in 10 groups",)


def test_the_deal_depends_on_names_and_seed_alone(tmp_path):
    for name, order in (("in", range(20)), ("other/in", reversed(range(20)))):
        for at in order:
            save(tmp_path / name, f"c{at}", 20 * at, 0)
    deals = []
    for source, seed in (("in", 8), ("other/in", 8), ("in", 9)):
        out = tmp_path / f"out{len(deals)}"
        import_folders(
            tmp_path / source,
            out,
            ImportOptions(date="2019-01-01", classes={1: "tree"}, shares=SHARES, seed=seed),
        )
        opened = open_dataset(out)
        deals.append({name: sorted(opened.split(name).chip_ids) for name in SPLITS})
    assert deals[0] == deals[1] != deals[2]


def test_places_on_several_lattices_and_without_any(tmp_path):
    for number, crs in enumerate(("EPSG:32633", "EPSG:32634")):
        for at in range(3):
            save(tmp_path / "in", f"z{number}-{at}", 8 * at, 0, crs)
    for at in range(4):
        ew.save(tmp_path / "in" / "images" / f"n{at}.tif", np.zeros((1, 16, 16), np.uint8), None)
        ew.save(tmp_path / "in" / "labels" / f"n{at}.tif", np.ones((1, 16, 16), np.uint8), None)
    done = import_folders(tmp_path / "in", tmp_path / "out", OPTIONS)
    assert done.notes[0].endswith("in 6 groups") and done.notes[1].startswith(
        "4 chips have no place on the map"
    )


def test_esri_chips_are_dealt_through_the_command_too(tmp_path):
    ew.esri(tmp_path / "in", 10)
    words = ["convert", "from-esri", tmp_path / "in", tmp_path / "out", "--date", "2019-01-01", "--json"]
    done = CliRunner().invoke(cli.app, [*map(str, words), "--shares", "8", "1", "1"])
    assert json.loads(done.stdout)["notes"] == [
        "dealt 8 chips to train, 1 chips to val, 1 chips to test, in 10 groups"
    ]
    assert open_dataset(tmp_path / "out").manifest.counts.splits == {"train": 8, "val": 1, "test": 1}


def test_what_is_divided_already_is_not_dealt(tmp_path):
    ew.esri(tmp_path / "in" / "train")
    with pytest.raises(BadInputError, match="is divided into train, val and test already"):
        import_esri(tmp_path / "in", tmp_path / "out", OPTIONS)
    for shares in ((0, 0, 0), (1, -1, 1), (float("nan"), 1, 1)):
        with pytest.raises(BadInputError, match="shares: expected three numbers"):
            ImportOptions(shares=shares)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=40), st.tuples(*[st.integers(0, 5)] * 3).filter(any))
def test_no_split_is_off_by_more_than_a_group(sizes, shares):
    groups = [[f"{at}-{number}" for number in range(size)] for at, size in enumerate(sizes)]
    dealt = deal_groups(groups, shares, 8)
    for split, share in zip(SPLITS, shares, strict=True):
        held = sum(len(group) for group, own in zip(groups, dealt, strict=True) if own == split)
        assert held <= share / sum(shares) * sum(sizes) + max(sizes)
        assert share or not held
