"""Texts of strangers (ids, names, errors of servers) made harmless for where they are shown.

HTML is escaped where pages are made (:mod:`chipmill.report`). Here are the terminal, tables that a spreadsheet opens,
and markdown.
"""

import re
from typing import Final

# C0 and C1 controls, and what turns or hides text (bidirectional marks, zero width); line breaks are kept apart.
_CONTROL: Final = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\n")
# What means something anywhere in a line, and what does at its beginning: headings, lists, rules. No more, since some
# pages show the same text letter by letter.
_MARKDOWN: Final = re.compile(r"([\\`*_\[\]|~>$]|^[#+=-]|(?<=^\d)[.)]|(?<=^\d\d)[.)]|(?<=^\d{3})[.)])")


def plain(text: str) -> str:
    r"""Return a text with control characters, colour codes among them, shown as ``\x1b``; line breaks and tabs stay."""
    return _CONTROL.sub(lambda match: ascii(match[0])[1:-1], text)


def quoted(text: str, limit: int = 80) -> str:
    """Return a text in quotes for an error's sentence: in one line, at most ``limit`` characters, controls shown."""
    return ascii(text if len(text) <= limit else text[:limit] + "...")


def csv_cell(text: str) -> str:
    """Return a text that a spreadsheet takes for text: what begins like a formula gets a leading apostrophe."""
    shown = plain(text)
    return f"'{shown}" if shown.startswith(_FORMULA) else shown


def markdown(text: str) -> str:
    """Return a text that markdown, and the HTML inside it, shows letter by letter, in one line."""
    line = " ".join(plain(text).split())
    return _MARKDOWN.sub(r"\\\1", line.replace("&", "&amp;")).replace("<", "&lt;").replace("\\>", "&gt;")
