"""Schemas: exact sums merge exactly, and whatever would make a model misread its input is refused by name."""

from dataclasses import replace

import numpy as np
import pytest

from chipmill.core.errors import SchemaMismatchError
from chipmill.dataset.stack import StackBand
from chipmill.dataset.statistics import BandSums
from chipmill.dataset.union import InputSchema, ModelClass, check_input, merge_schemas, resolution_m
from chipmill.learning.schema import schema_from_json, schema_to_json
from chipmill.region.grid import Lattice, Window
from chipmill.region.tiles import Tile


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


def test_other_classes_and_the_rounding_of_a_resolution_are_no_matter_for_input():
    assert check_input(make(), make(resolution_m=10.009, classes=()), "model", "region") == ()


@pytest.mark.parametrize(("metres", "share"), [(12.5, "25.0 %"), (7.5, "25.0 %"), (10.02, "0.2 %")])
def test_another_resolution_within_a_quarter_is_told(metres, share):
    (note,) = check_input(make(), make(resolution_m=metres), "model crops@1", "region savinja")
    assert note.startswith(
        f"region savinja has pixels of {metres:g} m and model crops@1 of 10 m, {share} apart"
    )


@pytest.mark.parametrize(
    ("lattice", "window", "side"),
    [
        (Lattice(32631, 0, 0, 10, 10), Window(60_000, -560_000, 64, 64), 10.0),
        # Boadella at 42.35 degrees north: nearly twice as wide as high in degrees, square in metres
        (Lattice(4326, 2.792, 42.3646, 0.00012103616, 0.00009016628), Window(0, 0, 380, 377), 9.9944),
        # at 60 degrees a degree of longitude is half as long as at the equator
        (Lattice(4326, 10, 60, 0.0002, 0.0001), Window(0, 0, 1, 1), 11.1506),
        # US survey feet
        (Lattice(2263, 0, 0, 100, 100), Window(9000, -1000, 8, 8), 100 * 1200 / 3937),
    ],
)
def test_a_pixel_is_measured_in_metres_where_its_tile_is(lattice, window, side):
    tile = Tile("t", lattice, window, "t", "2020-01-01", None, True, None, None, False, b"")
    assert resolution_m(tile) == pytest.approx(side, rel=1e-5)


@pytest.mark.parametrize("changes", [{"classes": make().classes[::-1]}, {"chip_px": 128}])
def test_datasets_that_are_learnt_from_together_must_agree(changes):
    with pytest.raises(SchemaMismatchError, match=r"b has"):
        merge_schemas([("a", make()), ("b", make(**changes))])


def test_json_keeps_integers_exact():
    import json

    schema = make(sums=(sums_of([2**35 + 1, 2**34, 3]), BandSums(0, 0, 0)))
    assert schema_from_json(json.loads(json.dumps(schema_to_json(schema)))) == schema
