"""Random quality expressions agree with Python's own integers, and no text makes the parser do anything but parse."""

import contextlib
import os

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from chipmill.core.errors import RegionFileError
from chipmill.imagery.masks import DROPPED, look_up_table
from chipmill.region.imagery import Mask
from chipmill.region.qa import PRODUCTS, parse_qa

EXAMPLES = 500 if os.environ.get("CHIPMILL_PROFILE") == "nightly" else 60
SIGNS = {"=": "==", "==": "==", "!=": "!=", "<": "<", "<=": "<=", ">": ">", ">=": ">="}


@st.composite
def comparisons(draw):
    """(our text, the same for Python's eval over the name v)."""
    offset = draw(st.integers(0, 15))
    width = draw(st.integers(1, min(4, 16 - offset)))
    field = f"(v >> {offset} & {(1 << width) - 1})"
    ours = f"bit({offset})" if width == 1 and draw(st.booleans()) else f"bits({offset}, {width})"
    numbers = draw(st.lists(st.integers(0, (1 << width) - 1), min_size=1, max_size=3))
    if draw(st.booleans()):
        return f"{ours} in {numbers}", f"({field} in {numbers})"
    sign = draw(st.sampled_from(sorted(SIGNS)))
    return f"{ours} {sign} {numbers[0]}", f"({field} {SIGNS[sign]} {numbers[0]})"


def joined(part):
    """Python's not, and, or bind as ours do, so that no bracket is needed where ours has none."""
    pairs = st.tuples(part, st.sampled_from(["and", "or"]), part)
    flat = pairs.map(lambda one: (f"{one[0][0]} {one[1]} {one[2][0]}", f"{one[0][1]} {one[1]} {one[2][1]}"))
    brackets = part.map(lambda one: (f"({one[0]})", f"({one[1]})"))
    negated = part.map(lambda one: (f"not ({one[0]})", f"not ({one[1]})"))
    return flat | brackets | negated


@given(st.recursive(comparisons(), joined, max_leaves=6))
@settings(max_examples=EXAMPLES)
def test_an_expression_means_what_python_says(pair):
    ours, python = pair
    function = eval(f"lambda v: {python}")
    found = look_up_table(Mask(asset="qa", qa=ours), "<u2")
    values = np.random.default_rng(0).integers(0, 1 << 16, 200)
    assert [int(found[value] == DROPPED) for value in values] == [int(bool(function(int(v)))) for v in values]


WORDS = [
    "bit",
    "bits",
    "(",
    ")",
    ",",
    "[",
    "]",
    "=",
    ">=",
    "and",
    "or",
    "not",
    "in",
    "3",
    "1.5",
    "cloud",
    ":",
    *PRODUCTS,
]


@given(st.text(max_size=60) | st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join))
@settings(max_examples=EXAMPLES * 2)
def test_any_text_is_a_rule_or_told_to_be_none(text):
    with contextlib.suppress(RegionFileError):
        assert parse_qa(text).drop is not None
