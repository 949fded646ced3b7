"""What the commands have in common: one sentence for an error, JSON for machines, tables and bars for people.

People read stderr for errors and progress, stdout for results; with ``--json`` stdout holds one JSON object.
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from chipmill.core.errors import ChipmillError
from chipmill.core.plain import plain
from chipmill.core.redact import redact

Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object for machines instead of text for people.")
]

_INTERRUPTED: Final = 130


@dataclass(slots=True)
class Terminal:
    """Where a command writes to."""

    as_json: bool
    out: Console = field(default_factory=lambda: Console(highlight=False, soft_wrap=True))
    err: Console = field(default_factory=lambda: Console(stderr=True, highlight=False, soft_wrap=True))

    def say(self, text: str, style: str = "") -> None:
        """Tell a person something while the work goes on; text is never read as markup."""
        (self.err if self.as_json else self.out).print(escape(plain(text)), style=style or None)

    def note(self, text: str) -> None:
        """Tell on stderr how far the work is."""
        self.err.print(escape(plain(text)), style="dim")

    def result(self, facts: Mapping[str, Any]) -> None:
        """Print the result for machines; does nothing without ``--json``."""
        if self.as_json:
            sys.stdout.write(json.dumps(facts, indent=1, default=str, allow_nan=False) + "\n")

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> None:
        """Print rows under a head; a column is right-aligned where its head starts with ``>``."""
        if self.as_json:
            return
        view = Table(
            title=escape(plain(title)) or None,
            title_justify="left",
            box=None,
            pad_edge=False,
            padding=(0, 3, 0, 0),
        )
        for name in head:
            view.add_column(
                escape(plain(name.removeprefix(">"))), justify="right" if name.startswith(">") else "left"
            )
        for row in rows:
            view.add_row(*(escape(plain(cell)) for cell in row))
        self.out.print(view)


@contextmanager
def terminal(as_json: bool) -> Iterator[Terminal]:
    """Give a command its terminal and turn our errors into one red sentence and their exit code.

    Errors that are not ours keep their traceback: they are defects, and whoever mends them needs it.
    """
    view = Terminal(as_json)
    try:
        yield view
    except ChipmillError as error:
        sentence = redact(" ".join(str(error).split()))
        view.err.print(escape(plain(sentence)), style="red")
        view.result({"ok": False, "error": sentence, "exit_code": error.exit_code})
        raise typer.Exit(error.exit_code) from error
    except KeyboardInterrupt as error:
        view.err.print("stopped; the same command goes on where it was left", style="yellow")
        raise typer.Exit(_INTERRUPTED) from error
