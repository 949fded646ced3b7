"""What a report page is made of: frozen value objects that the template draws, none of them knows HTML but charts.

A page is a title, facts and sections; a section is a list of blocks, or one sentence that says why it has none.
Texts are plain: the template escapes them. Only `Chart.svg` is markup, and `charts` escapes what it puts inside.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from markupsafe import Markup


@dataclass(frozen=True, slots=True)
class Picture:
    """A raster picture inside the page."""

    uri: str
    """``data:image/png;base64,...``"""
    alt: str
    caption: str = ""
    width_px: int = 0
    """Of the picture itself; the page may enlarge it, in whole pixels where `crisp`."""
    height_px: int = 0
    crisp: bool = True
    enlarged: int = 1
    """How many page pixels one of its own takes; galleries have a size of their own."""
    kind: ClassVar[str] = "picture"


@dataclass(frozen=True, slots=True)
class Chart:
    """A vector drawing inside the page."""

    svg: Markup
    caption: str = ""
    kind: ClassVar[str] = "chart"


@dataclass(frozen=True, slots=True)
class Cell:
    """One table cell with more than a text."""

    text: str
    swatch: str = ""
    """CSS colour of a small square before the text."""
    shade: float | None = None
    """0 to 1: how strongly the cell is tinted, as in a confusion matrix."""
    tone: str = ""
    """``good`` or ``bad``: the colour of the text."""
    href: str = ""
    """Relative link of the text."""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under a head; a column is right-aligned where its head starts with ``>``."""

    head: tuple[str, ...]
    rows: tuple[tuple[str | Cell, ...], ...]
    caption: str = ""
    kind: ClassVar[str] = "table"


@dataclass(frozen=True, slots=True)
class Facts:
    """Names and values, as at the top of a page."""

    items: tuple[tuple[str, str], ...]
    large: bool = False
    kind: ClassVar[str] = "facts"


@dataclass(frozen=True, slots=True)
class Gallery:
    """Pictures side by side, all the same size; a group of several belongs together."""

    groups: tuple[tuple[Picture, ...], ...]
    title: str = ""
    size_px: int = 128
    """Width of one picture on the page, in CSS pixels."""
    kind: ClassVar[str] = "gallery"


@dataclass(frozen=True, slots=True)
class Legend:
    """Coloured squares with names."""

    entries: tuple[tuple[str, str], ...]
    """(name, CSS colour)"""
    kind: ClassVar[str] = "legend"


@dataclass(frozen=True, slots=True)
class Ramp:
    """A continuous colour scale from one value to another."""

    low: str
    high: str
    colors: tuple[str, ...]
    kind: ClassVar[str] = "ramp"


@dataclass(frozen=True, slots=True)
class Text:
    """A paragraph; ``tone`` is empty, ``good``, ``bad`` or ``code``."""

    text: str
    tone: str = ""
    kind: ClassVar[str] = "text"


@dataclass(frozen=True, slots=True)
class Folded:
    """A long text of which only the title shows until somebody opens it."""

    title: str
    text: str
    kind: ClassVar[str] = "folded"


@dataclass(frozen=True, slots=True)
class Pair:
    """Blocks that stand beside each other where the page is wide enough."""

    blocks: "tuple[Block, ...]"
    kind: ClassVar[str] = "pair"


type Block = Picture | Chart | Table | Facts | Gallery | Legend | Ramp | Text | Folded | Pair


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page with a heading."""

    anchor: str
    title: str
    lead: str
    """One sentence on what is shown and how to read it."""
    blocks: tuple[Block, ...]
    empty: str = ""
    """Why there are no blocks; one sentence."""

    def __post_init__(self) -> None:
        if not self.blocks and not self.empty:
            raise ValueError(f"section {self.anchor} is empty and does not say why")


@dataclass(frozen=True, slots=True)
class Page:
    """A whole report."""

    title: str
    subtitle: str
    status: tuple[str, str]
    """(text, tone) of the badge beside the title; tone ``good``, ``bad`` or empty."""
    facts: Facts
    sections: tuple[Section, ...]
    origin: str
    """Last line of the page: which product it describes."""


def table(head: Sequence[str], rows: Iterable[Sequence[str | Cell]], caption: str = "") -> Table:
    """Return a table from any sequences; raises ValueError where a row does not fit the head."""
    fixed = tuple(tuple(row) for row in rows)
    if any(len(row) != len(head) for row in fixed):
        raise ValueError(f"a row of the table {caption or tuple(head)} does not have {len(head)} cells")
    return Table(tuple(head), fixed, caption)


def section(anchor: str, title: str, lead: str, blocks: Sequence[Block | None], empty: str = "") -> Section:
    """Return a section of the blocks that are not None; ``empty`` is shown where none is left."""
    kept = tuple(block for block in blocks if block is not None)
    return Section(anchor, title, lead if kept else "", kept, "" if kept else empty)


def facts(items: Mapping[str, str], *, large: bool = False) -> Facts:
    """Return facts in the order of the mapping."""
    return Facts(tuple(items.items()), large)
