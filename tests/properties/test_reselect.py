"""Whatever the rules before and after: re-selecting gives the bytes of a build with the later rules from the start."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests import select_world as sw

from chipmill.core.errors import ChipmillError
from chipmill.dataset.reselect import select_dataset
from chipmill.region.plan import cell_dir, region_dir

EXAMPLES = 60 if os.environ.get("CHIPMILL_PROFILE") == "nightly" else 6

CHIPS = st.fixed_dictionaries(
    {
        "size_px": st.sampled_from([16, 24]),
        "stride_px": st.sampled_from([8, 16]),
        "max_nodata_fraction": st.sampled_from([0.1, 1.0]),
        "max_cloud_fraction": st.sampled_from([0.02, 1.0]),
        "dense": st.sampled_from([None, {"stride_px": 4, "between": [0.2, 0.8]}]),
    }
)
SELECT = st.fixed_dictionaries(
    {
        "key_class": st.sampled_from([None, "water", "tree"]),
        "min_key_fraction": st.sampled_from([0.1, 0.4]),
        "keep_negatives": st.sampled_from([0.0, 0.3]),
    }
)
SHARES = st.sampled_from(
    [
        {"train": 0.7, "val": 0.15, "test": 0.15},
        {"train": 0.5, "val": 0.0, "test": 0.5},
        {"folds": 3, "fold": 2},
    ]
)
BLOCKS = st.builds(
    lambda shares, seed, block_px, buffer_px: shares | {"seed": seed, "block_px": block_px, "buffer_px": buffer_px},
    SHARES, st.integers(8, 9), st.sampled_from([16, 24]), st.sampled_from([0, 4]),
)  # fmt: skip
CHANCE = st.builds(lambda seed: {"by": "random", "block_px": 16, "seed": seed}, st.integers(0, 9))


def with_key(rules):
    """Dense windows are those where a key class mixes with others."""
    if rules["select"]["key_class"] is None:
        rules["chips"] |= {"dense": None}
    return rules


RULES = st.fixed_dictionaries(
    {
        "chips": CHIPS,
        "select": SELECT,
        "splits": st.one_of(BLOCKS, BLOCKS, CHANCE),
        "shards": st.fixed_dictionaries({"target_mb": st.sampled_from([0.008, 1.0])}),
    }
).map(with_key)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = sw.make_inputs(tmp_path_factory.mktemp("properties") / "made")
    sw.build(folder, sw.BASE)
    return folder


def outcome(work):
    """Return what a call gives, or the class of the error of ours that it raises."""
    try:
        return work()
    except ChipmillError as error:
        return type(error)


@settings(max_examples=EXAMPLES)
@given(rules=RULES)
def test_reselecting_equals_running_with_those_rules_from_the_start(made, rules):
    with tempfile.TemporaryDirectory() as place:
        own = shutil.copytree(made, Path(place) / "own")
        start = sw.from_start(made, Path(place) / "start", blocks=False)
        right = outcome(lambda: sw.build(start, rules).path)
        done = outcome(lambda: select_dataset(sw.region(own, rules), redeal=True).dataset.path)
        versions = cell_dir(sw.region(own, rules)).versions
        if isinstance(right, type):
            assert done is right
            assert versions.current() == 1
            return
        assert sw.tree(done) == sw.tree(right)
        assert versions.current_path() == done
        if "by" not in rules["splits"]:  # chance deals no blocks, and leaves those of before alone
            blocks = [region_dir(sw.region(folder, rules)).blocks.read_bytes() for folder in (own, start)]
            assert blocks[0] == blocks[1]
