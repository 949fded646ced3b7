"""Charts: numbers land where they belong, gaps stay gaps, texts are escaped, the SVG is well formed."""

import datetime as dt
import re
import xml.etree.ElementTree as ET

import pytest

from chipmill.report import charts, grids
from chipmill.report.svg import clip, ink_on

EVIL = '<script>alert("&")</script>'
SPACE = "{http://www.w3.org/2000/svg}"


def parse(svg):
    """The chart as a tree; raises where the markup is not well formed."""
    return ET.fromstring(str(svg).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1))


def texts(tree):
    return ["".join(node.itertext()) for node in tree.iter(f"{SPACE}text")]


def every_chart():
    year = dt.datetime(2019, 1, 1, tzinfo=dt.UTC), dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    yield charts.line_chart([charts.Series(EVIL, [1.0, 2.0], "#112233")], EVIL, EVIL)
    yield charts.bar_chart([charts.Bar(EVIL, 3, "#112233", EVIL)], EVIL)
    yield charts.share_bars({EVIL: [1, 2]}, [EVIL, "b"], ["#112233", "#445566"], EVIL)
    yield charts.interval_chart([charts.Estimate(EVIL, 0.5, 0.4, 0.6)], EVIL)
    yield charts.reliability_chart([(0.5, 0.4, 10)], EVIL)
    yield grids.heat_map([EVIL], [EVIL], [[0.5]], EVIL)
    yield grids.calendar_chart([grids.Pass(EVIL, year[0], 0.5, True, EVIL)], *year, EVIL)
    yield grids.split_chart(
        "data:image/png;base64,AA==", (4, 4), [grids.Square(0, 0, 2, 2, EVIL, EVIL)], EVIL
    )


@pytest.mark.parametrize("svg", list(every_chart()), ids=range(8))
def test_every_chart_is_well_formed_and_runs_nothing_that_a_name_holds(svg):
    tree = parse(svg)
    assert not list(tree.iter(f"{SPACE}script"))
    assert tree.get("aria-label") == EVIL
    assert not re.search(r"(href|src)=\"(?!data:)", str(svg))


def test_a_line_chart_leaves_gaps_and_names_lines_apart():
    lines = [
        charts.Series("a", [1, None, 1, 1], "#112233"),
        charts.Series("b", [1, float("nan"), 1, 1], "#445566"),
    ]
    tree = parse(charts.line_chart(lines, "x", "epoch"))
    runs = list(tree.iter(f"{SPACE}polyline"))
    assert [len(run.get("points").split()) for run in runs] == [2, 2]
    assert len(list(tree.iter(f"{SPACE}circle"))) == 2, "the value before the gap stands alone"
    heights = [float(node.get("y")) for node in tree.iter(f"{SPACE}text") if node.text in ("a", "b")]
    assert abs(heights[0] - heights[1]) >= 15


def test_an_empty_line_chart_is_drawn_all_the_same():
    assert "1" in texts(parse(charts.line_chart([], "x", "epoch")))


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0, 1, (0, 0.2, 0.4, 0.6, 0.8, 1.0)),
        (1, 30, (0, 10, 20, 30)),
        (2.2, 2.9, (2.2, 2.4, 2.6, 2.8, 3.0)),
        (5, 5, (5, 6)),
    ],
)
def test_ticks_are_round_and_cover_the_range(low, high, ticks):
    assert charts.nice_ticks(low, high) == pytest.approx(ticks)


def test_bars_are_in_proportion():
    tree = parse(
        charts.bar_chart([charts.Bar("a", 100, "#111111", "100"), charts.Bar("b", 25, "#111111", "25")], "x")
    )
    widths = [float(node.get("width")) for node in tree.iter(f"{SPACE}rect")]
    assert widths[1] / widths[0] == pytest.approx(0.25)


def test_shares_fill_the_bar_and_a_row_of_zeros_draws_nothing():
    tree = parse(charts.share_bars({"train": [1, 3], "val": [0, 0]}, ["a", "b"], ["#111111", "#eeeeee"], "x"))
    widths = [float(node.get("width")) for node in tree.iter(f"{SPACE}rect")]
    assert widths[1] / widths[0] == pytest.approx(3, rel=1e-3)
    assert widths[2:] == [0, 0]
    assert {"25 %", "75 %"} <= set(texts(tree))


def test_an_interval_without_bounds_is_a_dot_and_one_without_a_value_nothing():
    rows = [charts.Estimate("a", 0.5), charts.Estimate("b", None), charts.Estimate("c", 0.5, 0.25, 0.75)]
    tree = parse(charts.interval_chart(rows, "x"))
    assert len(list(tree.iter(f"{SPACE}circle"))) == 2
    (line,) = tree.iter(f"{SPACE}polyline")
    left, right = (float(point.split(",")[0]) for point in line.get("points").split())
    centre = float(list(tree.iter(f"{SPACE}circle"))[1].get("cx"))
    assert centre == pytest.approx((left + right) / 2, abs=0.1)


def test_a_heat_map_writes_percentages_and_marks_what_is_missing():
    tree = parse(grids.heat_map(["t1", "t2"], ["p1", "p2"], [[0.25, None], [1.0, 0.0]], "x"))
    assert {"25 %", "100 %", "0 %"} <= set(texts(tree))
    assert "t1, p2: nothing" in [node.text for node in tree.iter(f"{SPACE}title")]


def test_the_calendar_places_passes_in_time_and_raises_those_that_were_used():
    start, end = dt.datetime(2019, 1, 1, tzinfo=dt.UTC), dt.datetime(2019, 3, 1, tzinfo=dt.UTC)
    passes = [
        grids.Pass("t", start, 0.5, False, "early"),
        grids.Pass("t", start + (end - start) / 2, None, True, "late"),
    ]
    tree = parse(grids.calendar_chart(passes, start, end, "x", width=1000))
    early, late = tree.iter(f"{SPACE}rect")
    assert float(early.get("x")) < float(late.get("x"))
    assert float(early.get("height")) < float(late.get("height"))
    assert {"Jan 2019", "Feb"} <= set(texts(tree))
    assert [node.text for node in tree.iter(f"{SPACE}title")] == [
        "early: 50.0 % clear, not used",
        "late: – clear, used",
    ]


def test_a_split_block_lies_over_its_pixels():
    tree = parse(
        grids.split_chart("data:,", (10, 20), [grids.Square(10, 5, 10, 5, "val", "b")], "x", width=400)
    )
    (block,) = tree.iter(f"{SPACE}rect")
    assert [float(block.get(name)) for name in ("x", "y", "width", "height")] == [201, 101, 198, 98]


def test_ink_is_readable_and_long_names_are_cut():
    assert (ink_on("#ffffff"), ink_on("#101010"), ink_on("#fbf3a8")) == ("#000000", "#ffffff", "#000000")
    assert clip("abcdef", 4) == "abc…"
    assert clip("abcd", 4) == "abcd"
