"""The few SVG shapes that the charts of the report are drawn with; every text is escaped here.

Colours that differ between light and dark pages are CSS variables of the page's stylesheet. Sizes are CSS pixels.
"""

from collections.abc import Sequence

from markupsafe import Markup, escape

from chipmill.report.images import rgb


def drawing(width: float, height: float, label: str, body: Sequence[str]) -> Markup:
    """Return shapes as one SVG; ``label`` says to those who do not see it what it shows."""
    size = f'viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}"'
    head = f'<svg {size} role="img" aria-label="{escape(label)}">'
    return Markup(head + "".join(body) + "</svg>")  # noqa: S704 - what the shapes hold went through escape


def words(x: float, y: float, text: str, *, anchor: str = "start", style: str = "", fill: str = "") -> str:
    """Return a text at a point; ``anchor`` is start, middle or end, ``style`` a class of the stylesheet."""
    look = (f' class="{style}"' if style else "") + (f' style="fill:{escape(fill)}"' if fill else "")
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{look}>{escape(text)}</text>'


def rect(x: float, y: float, width: float, height: float, fill: str, title: str = "", extra: str = "") -> str:
    """Return a filled rectangle; ``title`` shows when the pointer rests on it."""
    shape = f'x="{x:.1f}" y="{y:.1f}" width="{max(width, 0):.1f}" height="{height:.1f}"'
    return f'<rect {shape} style="fill:{escape(fill)}" {extra}>{_title(title)}</rect>'


def dot(x: float, y: float, radius: float, fill: str, title: str = "") -> str:
    """Return a filled circle; ``title`` shows when the pointer rests on it."""
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" style="fill:{escape(fill)}">{_title(title)}</circle>'


def rule(x1: float, y1: float, x2: float, y2: float) -> str:
    """Return a thin line of the background, such as a grid line."""
    return f'<line class="axis" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def path(points: Sequence[tuple[float, float]], stroke: str, *, dashed: bool = False) -> str:
    """Return a line through points, in a colour."""
    dash = ' stroke-dasharray="5 4"' if dashed else ""
    places = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline class="line" style="stroke:{escape(stroke)}"{dash} points="{places}"/>'


def _title(text: str) -> str:
    return f"<title>{escape(text)}</title>" if text else ""


def clip(text: str, letters: int) -> str:
    """Return at most so many letters; a cut text ends with an ellipsis."""
    return text if len(text) <= letters else text[: max(letters - 1, 0)] + "…"


def name_width(names: Sequence[str], most: float = 230) -> float:
    """Return the room for right-aligned names of this many letters, 7.6 px each at most, and a gap."""
    return min(max((len(name) for name in names), default=0) * 7.6, most) + 14


def ink_on(color: str) -> str:
    """Return black or white, whichever reads better on ``#rrggbb`` (WCAG luminance, split at equal contrast)."""
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
        for part in (value / 255 for value in rgb(color))
    ]
    return "#000000" if 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] > 0.179 else "#ffffff"
