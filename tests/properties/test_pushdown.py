"""What a server is sent of a condition loses no item that meets it, whatever the condition and whatever is missing."""

from hypothesis import given
from hypothesis import strategies as st
from tests.unit.test_imagery_pushdown import CONFORMANCE, honest

from chipmill.imagery.filtering import meets
from chipmill.imagery.pushdown import pushed
from chipmill.region.filters import parse_filter

NAMES = ("gsd", "eo:cloud_cover", "platform", "missing")
numbers = st.sampled_from(["3", "9", "10", "30", "30.5", "100"])
texts = st.sampled_from(["'a'", "'b'", "'9'"])
names = st.sampled_from(NAMES)
comparisons = st.builds(
    "{} {} {}".format, names, st.sampled_from(["=", "<>", "<", "<=", ">", ">="]), st.one_of(numbers, texts)
)
turned = st.builds("{} {} {}".format, numbers, st.sampled_from(["<", ">=", "="]), names)
nulls = st.builds("{} IS {}NULL".format, names, st.sampled_from(["", "NOT "]))
lists = st.builds("{} IN ({}, {})".format, names, numbers, numbers)
conditions = st.recursive(
    st.one_of(comparisons, turned, nulls, lists),
    lambda inner: st.one_of(
        st.builds("({} AND {})".format, inner, inner),
        st.builds("({} OR {})".format, inner, inner),
        st.builds("NOT ({})".format, inner),
    ),
    max_leaves=6,
)
values = st.one_of(st.none(), st.sampled_from([3, 9, 10.0, 30, 99.5]))
items = st.fixed_dictionaries(
    {"gsd": values, "eo:cloud_cover": values, "platform": st.sampled_from([None, "a", "b", "9"])}
)


@given(conditions, st.lists(items, min_size=1, max_size=4))
def test_no_item_that_meets_a_condition_is_lost(text, properties):
    raws = [{"id": str(number), "properties": one} for number, one in enumerate(properties)]
    kept = [raw["id"] for raw in raws if meets(text, raw)]
    for classes in CONFORMANCE.values():
        body = pushed(parse_filter(text), classes, "auto").body
        assert set(kept) <= {raw["id"] for raw in honest(body, raws)}
