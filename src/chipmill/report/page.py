"""Blocks to one HTML file: one inline stylesheet, pictures as data URIs, no script, no request leaves the page.

Every text goes through Jinja2's autoescape; undefined names in a template are errors. The file is written atomically.
To change how pages look, edit templates/style.css; to change how a block is drawn, templates/page.html.j2.
"""

from functools import cache
from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from chipmill.core.plain import plain
from chipmill.core.store import write_text
from chipmill.report.blocks import Page

_TEMPLATES: Final = Path(__file__).parent / "templates"


@cache
def _environment() -> Environment:
    # autoescape is off by default, and Jinja2's own switch by file name does not know .j2
    return Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )


def render(page: Page) -> str:
    """Return a page as HTML."""
    # Autoescape leaves control characters and marks that turn text around as they are.
    return plain(_environment().get_template("page.html.j2").render(page=page))


def write_page(path: Path, page: Page) -> Path:
    """Write a page to ``path`` atomically and return the path."""
    write_text(path, render(page))
    return path
