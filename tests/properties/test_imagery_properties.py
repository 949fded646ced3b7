"""Laws of the imagery room on inputs that nobody thought of."""

import datetime as dt

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from chipmill.imagery.evidence import Candidate
from chipmill.imagery.hrefs import relative_href, resolve_href
from chipmill.imagery.kernels import conversion, reduce_first, reduce_mean, reduce_median
from chipmill.imagery.masks import dilate
from chipmill.imagery.ranking import CHOSEN, clear_level, rank
from chipmill.region.imagery import Clear

RULE = conversion(1.0, 0.0, 1.0, "int16", -32768)
SHAPES = st.tuples(st.integers(1, 9), st.integers(1, 4), st.integers(1, 9))
STACKS = SHAPES.flatmap(
    lambda shape: st.tuples(
        hnp.arrays(np.uint16, shape, elements=st.integers(0, 30000)), hnp.arrays(np.bool_, shape)
    )
)


def reduced(reducer, values, valid):
    out = np.empty(values.shape[1:], np.int16)
    reducer(values, valid, RULE, out)
    return out


@given(STACKS, st.randoms(use_true_random=False))
def test_median_and_mean_do_not_depend_on_the_order_of_time(stack, random):
    values, valid = stack
    order = list(range(len(values)))
    random.shuffle(order)
    for reducer in (reduce_median, reduce_mean):
        np.testing.assert_array_equal(
            reduced(reducer, values, valid), reduced(reducer, values[order], valid[order])
        )


@given(STACKS)
def test_every_reduction_lies_between_the_valid_values(stack):
    values, valid = stack
    low = np.where(valid, values.astype(np.int64), 99999).min(axis=0)
    high = np.where(valid, values.astype(np.int64), -1).max(axis=0)
    some = valid.any(axis=0)
    for reducer in (reduce_median, reduce_mean, reduce_first):
        out = reduced(reducer, values, valid)
        assert (out[~some] == -32768).all()
        assert ((out >= low) & (out <= high))[some].all()


@given(STACKS, st.integers(0, 65535))
def test_what_is_masked_does_not_matter(stack, other):
    values, valid = stack
    for reducer in (reduce_median, reduce_mean, reduce_first):
        changed = np.where(valid, values, np.uint16(other))
        np.testing.assert_array_equal(reduced(reducer, values, valid), reduced(reducer, changed, valid))


FRACTIONS = st.one_of(st.none(), st.integers(0, 20).map(lambda twentieth: twentieth / 20))
CANDIDATES = st.lists(st.tuples(FRACTIONS, st.integers(0, 30), st.booleans()), max_size=12).map(
    lambda rows: [
        Candidate(
            f"c/p/{number}",
            dt.datetime(2020, 1, 1, tzinfo=dt.UTC) + dt.timedelta(days=day),
            (str(number),),
            fraction,
            1.0,
            None,
            "none" if fraction is None else "mask" if measured else "cloud_cover",
        )
        for number, (fraction, day, measured) in enumerate(rows)
    ]
)
CLEARS = st.builds(
    Clear,
    threshold=st.integers(0, 10).map(lambda tenth: tenth / 10),
    step=st.sampled_from([0.1, 0.3, 0.07, 1.0]),
    floor=st.integers(0, 10).map(lambda tenth: tenth / 10),
    min_count=st.integers(1, 5),
    n_best=st.one_of(st.none(), st.integers(1, 4)),
)


@given(CANDIDATES, CLEARS, st.randoms(use_true_random=False))
def test_ranking_loses_nobody_gives_reasons_and_does_not_depend_on_the_order(candidates, clear, random):
    found = rank(candidates, clear)
    assert sorted(one.acquisition_id for one, *_ in found) == sorted(one.acquisition_id for one in candidates)
    assert all((reason == CHOSEN) is yes and reason for _, yes, reason in found)
    assert sum(yes for _, yes, _ in found) <= (clear.n_best or len(candidates))
    shuffled = candidates[:]
    random.shuffle(shuffled)
    assert rank(shuffled, clear) == found


@given(CANDIDATES, CLEARS)
def test_no_chosen_acquisition_is_less_clear_than_one_of_its_kind_that_was_left_out(candidates, clear):
    found = rank(candidates, clear)
    for one, yes, _ in found:
        for other, other_yes, _ in found:
            if yes and not other_yes and one.evidence == other.evidence and one.clear_fraction is not None:
                assert one.clear_fraction >= (other.clear_fraction or 0)


@given(st.lists(st.floats(0, 1)), CLEARS)
def test_the_threshold_ends_and_stays_between_its_bounds(fractions, clear):
    level = clear_level(fractions, clear)
    assert min(clear.floor, clear.threshold) <= level <= clear.threshold
    assert (
        level in (clear.threshold, clear.floor) or sum(one >= level for one in fractions) >= clear.min_count
    )


@given(
    hnp.arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12))),
    st.integers(0, 4),
    st.integers(0, 3),
)
def test_dilation_grows_and_a_larger_radius_grows_more(pixels, radius, more):
    grown = dilate(pixels, radius)
    assert (grown >= pixels).all()
    assert (dilate(pixels, radius + more) >= grown).all()


NAMES = st.lists(
    st.text("abcXYZ019._-", min_size=1, max_size=8).filter(lambda name: name.strip(".")),
    min_size=1,
    max_size=4,
)


@given(NAMES, NAMES)
def test_hrefs_below_a_folder_survive_the_round_trip_and_nothing_else_gets_in(document, target):
    base, root = "/data/cat/" + "/".join(document), "/data/cat"
    path = "/data/cat/" + "/".join(target)
    stored = relative_href(root, base, path)
    assert not stored.startswith("/")
    assert resolve_href(root, stored) == path
