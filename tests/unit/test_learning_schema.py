"""Schemas: exact sums merge exactly, and whatever would make a model misread its input is refused by name."""

from dataclasses import replace

import numpy as np
import pytest

from chipmill.core.errors import SchemaMismatchError
from chipmill.dataset.stack import StackBand
from chipmill.dataset.statistics import BandSums
from chipmill.learning.schema import (
    InputSchema,
    ModelClass,
    check_input,
    merge_schemas,
    schema_from_json,
    schema_to_json,
)


def make(**changes):
    red = StackBand("p1_red", "band", "s2", "p1", "int16", 1e-4, -32768)
    bands = (red, StackBand("elevation", "static", "elevation", "", "int16", 1.0, -32768))
    sums = (BandSums(4, 10, 30), BandSums(2, 3, 5))
    classes = (ModelClass("water", "#0000ff"), ModelClass("land", "#00ff00"))
    return replace(InputSchema("stack", "int16", bands, sums, classes, 64, 10.0), **changes)


def sums_of(values):
    return BandSums(len(values), sum(values), sum(value * value for value in values))


def test_merging_two_datasets_gives_the_statistics_of_their_union():
    one, other = [1, 5, 9], [1001, 1004]
    merged = merge_schemas(
        [("a", make(sums=(sums_of(one), sums_of(one)))), ("b", make(sums=(sums_of(other), sums_of(other))))]
    )
    assert merged.sums[0] == sums_of(one + other)
    assert merged.sums[0].std == pytest.approx(np.std(one + other))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"bands": make().bands[::-1]}, "bands"),
        ({"bands": make().bands[:1]}, "bands"),
        ({"bands": (replace(make().bands[0], scale=1e-3), make().bands[1])}, "scale of band p1_red"),
        ({"bands": (replace(make().bands[0], nodata=0), make().bands[1])}, "nodata of band p1_red"),
        ({"dtype": "uint16"}, "dtype"),
        ({"layout": "single"}, "layout"),
        ({"resolution_m": 20.0}, "25 %"),
        ({"resolution_m": 7.4}, "25 %"),
    ],
)
def test_input_that_means_something_else_is_refused(changes, named):
    with pytest.raises(SchemaMismatchError, match=named):
        check_input(make(), make(**changes), "model crops@1", "region savinja")


def test_a_slightly_other_resolution_and_other_classes_are_no_matter_for_input():
    check_input(make(), make(resolution_m=12.0, classes=()), "model", "region")


@pytest.mark.parametrize("changes", [{"classes": make().classes[::-1]}, {"chip_px": 128}])
def test_datasets_that_are_learnt_from_together_must_agree(changes):
    with pytest.raises(SchemaMismatchError, match=r"b has"):
        merge_schemas([("a", make()), ("b", make(**changes))])


def test_json_keeps_integers_exact():
    import json

    schema = make(sums=(sums_of([2**35 + 1, 2**34, 3]), BandSums(0, 0, 0)))
    assert schema_from_json(json.loads(json.dumps(schema_to_json(schema)))) == schema
