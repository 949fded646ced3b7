"""Names and messages of strangers are shown as text: in HTML, in the terminal, in tables, in markdown."""

import csv
import io
import logging
import re
import sys

import numpy as np
import pytest
import typer
from prefect._internal.states import exception_to_failed_state_sync
from rich.console import Console
from typer.testing import CliRunner

from chipmill import cli
from chipmill.cli.console import Terminal, terminal
from chipmill.core.errors import ChipmillError
from chipmill.core.plain import csv_cell, markdown, plain, quoted
from chipmill.core.redact import RedactingFilter
from chipmill.core.units import UnitFailure
from chipmill.dataset.description import Counts
from chipmill.mapping.areas import areas_table
from chipmill.orchestration.funnel import funnel_rows, show_failures
from chipmill.orchestration.secrecy import keep_secrets
from chipmill.report.blocks import Cell, Facts, Page, Section, Table
from chipmill.report.charts import Bar, bar_chart
from chipmill.report.page import render
from chipmill.report.run import Made, RunFacts, StageTime, run_page

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
    assert not re.search(r"(?<!\\)[\[\]`*_|]|^[#=+-]", shown)
    assert "<" not in shown
    assert ">" not in shown
    assert "\n" not in shown
    assert plain(shown) == shown


@pytest.mark.parametrize(
    "text", ["# head", "1. list", "12) list", "- list", "+ list", "---", "===", "> quote", "| a |"]
)
def test_markdown_begins_nothing(text):
    """Headings, lists, rules, quotes and tables are made by what a line begins with."""
    assert re.match(r"\\|\d+\\|&gt;", markdown(text))


@pytest.mark.parametrize("text", TEXTS)
def test_a_log_line_an_error_and_a_state_show_them(text, capsys):
    record = logging.makeLogRecord({"msg": "item %s", "args": (text,)})
    try:
        raise ValueError(text)
    except ValueError as error:
        caught = error
        record.exc_info = sys.exc_info()
    RedactingFilter().filter(record)
    keep_secrets()
    shown = [logging.Formatter().format(record), exception_to_failed_state_sync(caught).message]
    with pytest.raises(typer.Exit), terminal(as_json=False):
        raise ChipmillError(text)
    shown.append(capsys.readouterr().err)
    for one in shown:
        assert plain(one) == one
        assert plain(text) in one or plain(" ".join(text.split())) in one


@pytest.mark.parametrize("text", TEXTS)
def test_tables_on_the_screen_show_them(text, monkeypatch):
    made = []
    monkeypatch.setattr(
        "prefect.artifacts.create_table_artifact", lambda rows, **more: made.append((rows, more))
    )
    show_failures(f"stage {text}", [UnitFailure("s", text, text, False)])
    ((rows, more),) = made
    assert rows == [{"unit": markdown(text), "reason": markdown(text)}]
    assert re.fullmatch(r"[a-z0-9-]+", more["key"])
    assert markdown(f"x {text}")[2:] in more["description"]

    class Told:
        counts = Counts(planned=2, written=0, filtered={text: 1}, failed={text: 1}, splits={})
        failures = ()

    assert [row["reason"] for row in funnel_rows(Told)] == ["", "", markdown(text), markdown(text)]


@pytest.mark.parametrize("text", TEXTS)
def test_the_page_of_a_run_shows_them(text, tmp_path):
    failure = UnitFailure(text, text, text, False)
    stage = StageTime(text, 1.0, 1, 1)
    run = RunFacts(
        text,
        text,
        text,
        text,
        1.0,
        (stage,),
        (Made(text, text, tmp_path),),
        (failure,),
        text,
        ((text, text),),
    )
    shown = run_page(run, tmp_path / "run.html").read_text()
    assert "<img src=x" not in shown
    assert "</script>" not in shown
    assert not re.search("[\x1b\x07\x9b]", shown)


@pytest.mark.parametrize("text", [one for one in TEXTS if "/" not in one])
def test_the_status_of_a_strange_output_shows_them(text, tmp_path):
    """The names of folders and the holder of a lock are texts of whoever made them."""
    cell = tmp_path / "out" / "regions" / text / f"{text}--b"
    cell.mkdir(parents=True)
    (cell / ".lock").write_text(f"{text} on other-host (pid 1) since {text}")
    done = CliRunner().invoke(cli.app, ["status", str(tmp_path / "out")], env={"COLUMNS": "400"})
    assert done.exit_code == 0, done.output
    assert plain(text) in done.output
    assert not re.search("[\x1b\x07\x9b\r]", done.output)


def test_plain_keeps_what_people_write():
    for text in ("Ljubljana \u010d\u0161\u017e", "two\nlines\tand a tab", "\u6771\u4eac", "\U0001f600"):
        assert plain(text) == text
    assert plain("\x1b[0m\ud800") == "\\x1b[0m\\ud800"
    assert quoted("x" * 500) == repr("x" * 80 + "...")
    assert quoted("a\0\u202e\n") == "'a\\x00\\u202e\\n'"
