"""Names and messages of strangers are shown as text: in HTML, in the terminal, in tables, in markdown."""

import csv
import io
import re

import numpy as np
import pytest
from rich.console import Console

from chipmill.cli.console import Terminal
from chipmill.core.plain import csv_cell, markdown, plain, quoted
from chipmill.mapping.areas import areas_table
from chipmill.report.blocks import Cell, Facts, Page, Section, Table
from chipmill.report.charts import Bar, bar_chart
from chipmill.report.page import render

TEXTS = [
    "</script><img src=x onerror=alert(1)>",
    "\x1b[31mred\x1b[0m \x1b]0;title\x07 \x9b2J",
    "[red]a[/red] [link=file:///etc/passwd]b[/link] [/]",
    "=cmd()",
    "+1+cmd|' /C calc'!A0",
    "@SUM(1)",
    "-2+3",
    "\u202egnp.exe",
    "a\rb",
]


@pytest.mark.parametrize("text", TEXTS)
def test_the_terminal_shows_them_letter_by_letter(text):
    out, err = io.StringIO(), io.StringIO()
    consoles = [
        Console(file=one, highlight=False, soft_wrap=True, force_terminal=True, width=200)
        for one in (out, err)
    ]
    view = Terminal(as_json=False, out=consoles[0], err=consoles[1])
    view.say(text)
    view.note(text)
    view.table([text, f">{text}"], [[text, text]], title=text)
    for shown in (out.getvalue(), err.getvalue()):
        bare = re.sub(r"\x1b\[[0-9;]*m", "", shown)  # the styles of our own
        assert plain(text) in bare
        assert "\x1b" not in bare
        assert "\x9b" not in bare
        assert "\x07" not in bare
    assert "\x1b[31m" not in out.getvalue()


@pytest.mark.parametrize("text", TEXTS)
def test_a_spreadsheet_takes_them_for_text(text):
    table = areas_table([text], np.array([1]), np.array([1.0]))
    rows = list(csv.reader(io.StringIO(table)))
    assert rows[1][0].removeprefix("'") == plain(text)
    assert not rows[1][0].startswith(("=", "+", "-", "@", "\t", "\r"))
    assert csv_cell("crop-1") == "crop-1"


@pytest.mark.parametrize("text", TEXTS)
def test_a_page_and_a_chart_show_them(text):
    drawn = str(bar_chart([Bar(text, 1.0, "#123456", text)], text))
    table = Table((text,), ((text,), (Cell(text, swatch=text),)), text)
    shown = render(
        Page(text, text, (text, ""), Facts(((text, text),)), (Section("s", text, text, (table,)),), text)
    )
    for one in (drawn, shown):
        assert "<img src=x" not in one
        assert "</script>" not in one


@pytest.mark.parametrize("text", TEXTS)
def test_markdown_shows_them(text):
    shown = markdown(text)
    assert not re.search(r"(?<!\\)[\[\]`*_|#]", shown)
    assert "<" not in shown
    assert ">" not in shown
    assert "\n" not in shown
    assert plain(shown) == shown


def test_plain_keeps_what_people_write():
    for text in ("Ljubljana \u010d\u0161\u017e", "two\nlines\tand a tab", "\u6771\u4eac", "\U0001f600"):
        assert plain(text) == text
    assert plain("\x1b[0m\ud800") == "\\x1b[0m\\ud800"
    assert quoted("x" * 500) == repr("x" * 80 + "...")
    assert quoted("a\0\u202e\n") == "'a\\x00\\u202e\\n'"
