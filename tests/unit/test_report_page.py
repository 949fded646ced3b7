"""The page: everything is escaped, nothing is fetched, nothing is empty without saying why."""

import re

import pytest

from chipmill.report.blocks import Cell, Facts, Page, Section, Text, facts, section, table
from chipmill.report.page import render, write_page

EVIL = "<img src=x onerror=alert(1)>"


def page(*sections):
    return Page("demo", EVIL, ("complete", "good"), facts({EVIL: EVIL}, large=True), sections, EVIL)


def test_texts_are_escaped_wherever_they_stand():
    rows = [(EVIL, Cell(EVIL, swatch="#112233", shade=0.5, href=f"javascript:{EVIL}"))]
    shown = render(
        page(section("a", EVIL, EVIL, (table((EVIL, f">{EVIL}"), rows, EVIL), Text(EVIL, "code"))))
    )
    assert EVIL not in shown
    assert shown.count("&lt;img") >= 10


def test_a_page_fetches_nothing_and_has_no_script():
    shown = render(page(section("a", "A", "", (Text("b"),))))
    assert "default-src 'none'" in shown
    assert not re.search(r"<script|<link rel=\"stylesheet|@import|url\((?!data:)", shown)
    assert not re.search(r"(?:src|href)=\"(?!#|data:)", shown)


def test_a_section_without_blocks_says_why():
    shown = render(page(section("a", "A", "what is shown", (None,), "There is nothing, because of that.")))
    assert "There is nothing, because of that." in shown
    assert "what is shown" not in shown
    with pytest.raises(ValueError, match="empty and does not say why"):
        Section("a", "A", "", ())


def test_a_row_that_does_not_fit_the_head_is_a_defect():
    with pytest.raises(ValueError, match="does not have 2 cells"):
        table(("a", "b"), [("1",)])


def test_numbers_stand_on_the_right_and_shades_are_styles():
    shown = render(page(section("a", "A", "", (table(("name", ">n"), [("x", Cell("1", shade=0.25))]),))))
    assert '<th scope="col" class="n">n</th>' in shown
    assert re.search(r'<td class="n" style="--shade:0\.250" data-shade>1</td>', shown)


def test_the_file_is_replaced_whole(tmp_path):
    path = tmp_path / "report.html"
    path.write_text("old")
    assert write_page(path, page(section("a", "A", "", (Facts((("x", "1"),)),)))) == path
    assert path.read_text().startswith("<!doctype html>")
    assert [one.name for one in tmp_path.iterdir()] == ["report.html"]
