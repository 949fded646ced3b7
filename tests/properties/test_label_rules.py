"""Rules of label layers against a pixel-by-pixel reading of what the fields of the region file say."""

import os
import types
from itertools import pairwise

import numpy as np
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from chipmill.dataset.features import Features, burn
from chipmill.dataset.rules import NOTHING, combine

RULES = ("paint", "intersect", "difference", "first", "max", "mode")
COUNT = 2_000 if os.environ.get("CHIPMILL_PROFILE") == "nightly" else 150
CODES = st.sampled_from([NOTHING, NOTHING, 0, 1, 2, 255])


def _voted(voices):
    """The class with most votes, the first listed of equals; ignore where nobody votes but somebody is unsure."""
    votes = [voice for _, voice in voices if voice not in (NOTHING, 255)]
    if votes:
        best = max(votes, key=lambda code: (votes.count(code), -votes.index(code)))
        return next(pair for pair in voices if pair[1] == best)
    spoken = [pair for pair in voices if pair[1] != NOTHING]
    return spoken[0] if spoken else voices[0]


def _one_pixel(layers):
    origin, label, number = NOTHING, NOTHING, 0
    while number < len(layers):
        rule, value = layers[number]
        if rule == "mode":
            end = number
            while end < len(layers) and layers[end][0] == "mode":
                end += 1
            run = [(place, layers[place][1]) for place in range(number, end)]
            origin, label = _voted([(origin, label), *run])
            number = end
            continue
        has, free = value != NOTHING, label == NOTHING
        take = {
            "paint": has,
            "first": has and free,
            "max": has and (free or (value != 255 and (label == 255 or value > label))),
        }
        if take.get(rule):
            origin, label = number, value
        elif (rule == "intersect" and not has) or (rule == "difference" and has):
            origin, label = NOTHING, NOTHING
        number += 1
    return label, origin


@settings(max_examples=COUNT, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(RULES), hnp.arrays(np.int16, (2, 3), elements=CODES)), max_size=5))
def test_rules_say_of_each_pixel_what_their_fields_promise(layers):
    before = [layer.copy() for _, layer in layers]
    made = combine(iter(layers), (2, 3))
    for place in np.ndindex(2, 3):
        label, origin = _one_pixel([(rule, int(layer[place])) for rule, layer in layers])
        assert (made.label[place], made.origin[place]) == (label, origin)
    # what was handed in is not written to
    assert all(np.array_equal(layer, old) for (_, layer), old in zip(layers, before, strict=True))


SIDE = 12
TILE = types.SimpleNamespace(shape=(SIDE, SIDE), transform=Affine(1, 0, 0, 0, -1, SIDE))
"""All that burning asks of a tile: pixels of one unit."""


@st.composite
def _parcels(draw):
    """A land cut into parcels anywhere but at pixel edges and centres, some of them fallow; each with a class."""
    cuts = [
        sorted(draw(st.sets(st.integers(1, SIDE * 8 - 2).filter(lambda n: n % 4), max_size=5)))
        for _ in range(2)
    ]
    xs, ys = ([0, *cut, SIDE * 8] for cut in cuts)
    cells = [(a / 8, b / 8, c / 8, d / 8) for a, c in pairwise(xs) for b, d in pairwise(ys)]
    codes = draw(st.lists(st.sampled_from([None, 0, 1, 2, 255]), min_size=len(cells), max_size=len(cells)))
    return [(shapely.box(*cell), code) for cell, code in zip(cells, codes, strict=True) if code is not None]


def _burned(parcels, levels):
    shapes = np.empty(len(parcels), dtype=object)
    shapes[:] = [shape for shape, _ in parcels]
    codes = np.array([code for _, code in parcels], dtype=np.int16)
    features = Features(shapes, codes.astype(object), np.array(levels, dtype=np.int64))
    return burn(features, codes, TILE, NOTHING, all_touched=True)


@settings(max_examples=COUNT, deadline=None)
@given(_parcels(), st.randoms(use_true_random=False))
def test_parcels_that_meet_are_burned_alike_in_any_order_of_the_file(parcels, random):
    burned = _burned(parcels, [0] * len(parcels))
    shuffled = list(parcels)
    random.shuffle(shuffled)
    np.testing.assert_array_equal(_burned(shuffled, [0] * len(parcels)), burned)
    for row, column in np.ndindex(SIDE, SIDE):
        pixel = shapely.box(column, SIDE - row - 1, column + 1, SIDE - row)
        centre = [code for shape, code in parcels if shape.contains(pixel.centroid)]
        touching = [code for shape, code in parcels if shape.intersection(pixel).area > 0]
        assert burned[row, column] == (centre or [max(touching, default=NOTHING)])[0]


@settings(max_examples=COUNT // 2, deadline=None)
@given(_parcels(), st.data())
def test_what_lies_on_a_higher_level_is_on_top_with_all_that_it_touches(parcels, data):
    levels = sorted(data.draw(st.integers(0, 3)) for _ in parcels)
    burned = _burned(parcels, levels)
    for row, column in np.ndindex(SIDE, SIDE):
        pixel = shapely.box(column, SIDE - row - 1, column + 1, SIDE - row)
        met = [
            (level, shape.contains(pixel.centroid), code)
            for (shape, code), level in zip(parcels, levels, strict=True)
            if shape.intersection(pixel).area > 0
        ]
        assert burned[row, column] == max(met, default=(0, False, NOTHING))[2]
