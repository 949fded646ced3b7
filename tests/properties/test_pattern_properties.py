"""Patterns read back what names were made of, and never anything from another name."""

import datetime as dt
import os

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from chipmill.core.errors import RegionFileError
from chipmill.region.patterns import parse_pattern

EXAMPLES = 500 if os.environ.get("CHIPMILL_PROFILE") == "nightly" else 60
WORDS = st.text(
    st.characters(codec="utf-8", exclude_characters="/", exclude_categories=("C", "Z")),
    min_size=1,
    max_size=6,
)
PLAIN = st.sampled_from(["_", "-", ".", "__", "x", "/", "/a/", "(", "*"])
DATES = st.dates(dt.date(1000, 1, 1), dt.date(9999, 12, 30))
FORMS = ["%Y%m%d", "%Y-%m-%d", "%Y%j", "%Y%m", "%Y"]


@given(day=DATES, form=st.sampled_from(FORMS), words=st.lists(st.tuples(PLAIN, WORDS), max_size=3))
@settings(max_examples=EXAMPLES, deadline=None)
def test_a_name_that_was_made_of_fields_gives_them_back(day, form, words):
    pattern = (
        "{date:"
        + form
        + "}"
        + "".join(f"{text}{{f{number}}}" for number, (text, _) in enumerate(words))
        + ".tif"
    )
    path = day.strftime(form) + "".join(text + word for text, word in words) + ".tif"
    try:
        found = parse_pattern(pattern).read(path)
    except RegionFileError as error:
        assert "two ways" in str(error)  # noqa: PT017 - it may be ambiguous, and is then said
        return
    assume(found is not None or not any(word in {".", ".."} for _, word in words))
    assert found is not None
    assert [text for name, text in found.fields.items() if name[0] == "f"] == [word for _, word in words]
    assert found.start.date() <= day < found.end.date()
    assert found.start.strftime(form) == day.strftime(form)


@given(text=st.text(max_size=30), path=st.text(max_size=30))
@settings(max_examples=EXAMPLES, deadline=None)
def test_any_text_is_a_pattern_or_refused_and_any_path_is_read_or_not(text, path):
    for pattern in (text, "{year}" + text, "{date:" + text + "}"):
        try:
            parse_pattern(pattern).read(path)
        except RegionFileError as error:
            assert len(str(error)) < 700  # noqa: PT017 - one sentence
