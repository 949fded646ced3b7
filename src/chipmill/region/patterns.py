"""File patterns such as ``{date:%Y}/{tile}_{band}.tif``: what the names of an archive's files say.

The file to change for what a pattern may hold. A pattern is taken apart here and matched by our own reader: no regular
expression and no format string of a user is ever run. A field stands for at least one character and never for a slash;
a name that can be read in two ways is an error, since the wrong one would be silent.
"""

import dataclasses
import datetime as dt
import posixpath
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

from chipmill.core.errors import RegionFileError
from chipmill.core.plain import quoted

if TYPE_CHECKING:
    from chipmill.region.fields import Source

BAND: Final = "band"
"""The field that tells an item's files apart."""
STORE_PATTERN: Final = r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/(?!(.*/)?\.\.?(/|$))[^\s?#*{}\\]{1,900}"
"""An object of a store: its bucket and its key."""
_DATE: Final = {"Y": 4, "m": 2, "d": 2, "j": 3, "H": 2, "M": 2, "S": 2}
"""Letters of a date's format, and the digits that each stands for."""
_MAX_CHARS: Final = 1024
_MAX_FIELDS: Final = 16
_MAX_STEPS: Final = 20_000
"""Of the matching of one name: many fields in a name of many separators could be tried for hours."""
_FIELD: Final = re.compile(r"\{([a-z][a-z0-9_]{0,31})(?::([^{}]{1,64}))?\}")
_HELP: Final = "expected text with fields such as {date:%Y%m%d}, {year}, {tile}, {tile:6} and {band}"


@dataclasses.dataclass(frozen=True, slots=True)
class Part:
    """A piece of a pattern: plain text, or a field."""

    text: str = ""
    """What stands there, where it is no field."""
    name: str = ""
    """Name of the field; ``%Y`` and the like for a part of the date."""
    width: int | None = None
    """Number of characters; None = one or more."""


@dataclasses.dataclass(frozen=True, slots=True)
class Reading:
    """What a file's name says."""

    fields: Mapping[str, str]
    """Field -> text, in the order of the pattern; the date's parts as ``%Y`` and so on."""
    start: dt.datetime
    """UTC: the first instant of what the name means."""
    end: dt.datetime
    """UTC: the first instant after it: a year, a month, a day or a second later."""

    @property
    def day(self) -> dt.datetime:
        """The time for an item: noon of the first day where the name tells no hour, a day's date at any longitude."""
        return self.start if "%H" in self.fields else self.start + dt.timedelta(hours=12)

    @property
    def item_id(self) -> str:
        """The fields but the band, joined by ``_``, the parts of the date together."""
        date = "".join(text for name, text in self.fields.items() if name.startswith("%"))
        parts = {
            "date" if name.startswith("%") else name: date if name.startswith("%") else text
            for name, text in self.fields.items()
            if name != BAND
        }
        return "_".join(parts.values())


@dataclasses.dataclass(frozen=True, slots=True)
class Pattern:
    """A pattern, taken apart. Make it by :func:`parse_pattern`."""

    text: str
    folder: str
    """The folder before the first field, as the user wrote it; ``.`` where there is none."""
    levels: tuple[tuple[Part, ...], ...]
    """The parts of each folder below it, and of the file's name."""

    def may_hold(self, path: str) -> bool:
        """Tell whether a folder's path below ``folder`` can be the beginning of a file's."""
        names = path.split("/")
        return len(names) < len(self.levels) and any(_solutions(self.levels[: len(names)], path))

    def read(self, path: str) -> Reading | None:
        """Return what a file's path below ``folder`` says, or None where it does not fit the pattern.

        Raises RegionFileError where it can be read in two ways.
        """
        if path.count("/") != len(self.levels) - 1:
            return None
        found: list[Reading] = []
        for fields in _solutions(self.levels, path):
            span = _span(fields)
            if span is not None:
                found.append(Reading(fields, *span))
            if len(found) > 1:
                raise RegionFileError(
                    f"{quoted(path)} fits the pattern {self.text} in two ways, {_shown(found[0])} and "
                    f"{_shown(found[1])}: give a field its width, as in {{tile:6}}"
                )
        return found[0] if found else None


def parse_pattern(text: str) -> Pattern:
    """Return a pattern taken apart; raises RegionFileError where it is none, or tells no date."""
    if not 0 < len(text) <= _MAX_CHARS or not text.isprintable() or "\\" in text or "://" in text:
        raise _refused(text, f"is no pattern of a path: {_HELP}")
    cut = text.partition("{")[0].rfind("/") + 1
    folder, rest = text[:cut].rstrip("/") or ("/" if cut else "."), text[cut:]
    levels = tuple(tuple(_parts(text, level)) for level in rest.split("/"))
    names = [part.name for level in levels for part in level if part.name]
    if not names or len(names) > _MAX_FIELDS:
        raise _refused(text, f"has {len(names)} fields, expected 1 to {_MAX_FIELDS}: {_HELP}")
    if any(level in ("", ".", "..") for level in rest.split("/")):
        raise _refused(text, "has an empty folder, . or .. behind its first field: write the path out")
    _check_date(text, set(names))
    return Pattern(text, folder, levels)


def _refused(text: str, why: str) -> RegionFileError:
    return RegionFileError(f"the pattern {quoted(text)} {why}")


def _parts(text: str, level: str) -> Iterator[Part]:
    at = 0
    free = False
    for match in _FIELD.finditer(level):
        if plain := level[at : match.start()]:
            yield _plain(text, plain)
            free = False
        for part in _field(text, match[1], match[2]):
            if free and part.name and part.width is None:
                raise _refused(
                    text, "has two fields without text between them: give the first its width, as in {tile:6}"
                )
            free = bool(part.name) and part.width is None
            yield part
        at = match.end()
    if plain := level[at:]:
        yield _plain(text, plain)


def _plain(text: str, plain: str) -> Part:
    if "{" in plain or "}" in plain:
        raise _refused(text, f"has a brace that is no field: {_HELP}")
    return Part(text=plain)


def _field(text: str, name: str, form: str | None) -> Iterator[Part]:
    if name == "year" and form is None:
        name, form = "date", "%Y"
    if name == "date":
        yield from _date(text, form or "")
    elif form is None or (form.isascii() and form.isdigit() and 0 < int(form) < 256):
        yield Part(name=name, width=None if form is None else int(form))
    else:
        raise _refused(text, f"has {{{name}:{form}}}, expected a number of characters, as in {{{name}:6}}")


def _date(text: str, form: str) -> Iterator[Part]:
    pieces = re.split(r"%(.)", form)
    if len(pieces) < 3 or not all(letter in _DATE for letter in pieces[1::2]) or "%" in "".join(pieces[::2]):
        raise _refused(
            text, f"has a date that is not written as {{date:%Y%m%d}}: its letters are %{' %'.join(_DATE)}"
        )
    for number, piece in enumerate(pieces):
        if number % 2:
            yield Part(name=f"%{piece}", width=_DATE[piece])
        elif piece:
            yield Part(text=piece)


def _check_date(text: str, names: set[str]) -> None:
    """Refuse a date with a hole in it: a month without its year, a day without its month."""
    needs = {"%m": "%Y", "%j": "%Y", "%d": "%m", "%M": "%H", "%S": "%M"}
    missing = {need for name, need in needs.items() if name in names and need not in names}
    if "%H" in names and not names & {"%d", "%j"}:
        missing.add("%d")
    if "%Y" not in names:
        missing.add("%Y")
    if missing:
        raise _refused(
            text, f"tells no date: {', '.join(sorted(missing))} is missing: use {{year}} or {{date:%Y%m%d}}"
        )
    if {"%j", "%m"} <= names:
        raise _refused(text, "tells a date by day of the year and by month: use one of them")


def _solutions(levels: tuple[tuple[Part, ...], ...], path: str) -> Iterator[dict[str, str]]:
    """Yield every way to read ``path`` (as many levels as ``levels``): field -> text."""
    parts: list[Part] = []
    for number, level in enumerate(levels):
        parts += [Part(text="/")] * bool(number) + list(level)
    steps = 0
    todo: list[tuple[int, int, tuple[tuple[str, str], ...]]] = [(0, 0, ())]
    while todo:
        steps += 1
        if steps > _MAX_STEPS:
            raise RegionFileError(
                f"{quoted(path)} can be matched in too many ways: give the fields of the pattern widths, as in {{tile:6}}"
            )
        place, at, known = todo.pop()
        if place == len(parts):
            if at == len(path):
                yield dict(known)
            continue
        part = parts[place]
        todo += [(place + 1, end, more) for end, more in _taken(part, path, at, known)]


def _taken(
    part: Part, path: str, at: int, known: tuple[tuple[str, str], ...]
) -> Iterator[tuple[int, tuple[tuple[str, str], ...]]]:
    """Yield where ``part`` may end when it begins at ``at``, with what is known then."""
    if part.text:
        if path.startswith(part.text, at):
            yield at + len(part.text), known
        return
    before = dict(known).get(part.name)
    if before is not None:  # a field that is named twice says the same twice
        if path.startswith(before, at) and part.width in (None, len(before)):
            yield at + len(before), known
        return
    slash = path.find("/", at)
    last = len(path) if slash < 0 else slash
    widths = range(1, last - at + 1) if part.width is None else [part.width]
    for width in widths:
        text = path[at : at + width]
        fits = at + width <= last and (part.name[0] != "%" or (text.isascii() and text.isdigit()))
        if fits:
            yield at + width, (*known, (part.name, text))


def _span(fields: Mapping[str, str]) -> tuple[dt.datetime, dt.datetime] | None:
    """Return the period that the date's parts mean, or None where there is no such date."""
    number = {name[1]: int(text) for name, text in fields.items() if name[0] == "%"}
    try:
        start = dt.datetime(number["Y"], number.get("m", 1), number.get("d", 1), tzinfo=dt.UTC)
        if "j" in number:
            start += dt.timedelta(days=number["j"] - 1)
            if not 1 <= number["j"] <= 366 or start.year != number["Y"]:
                return None
        start = start.replace(hour=number.get("H", 0), minute=number.get("M", 0), second=number.get("S", 0))
        return start, _end(start, number)
    except (ValueError, OverflowError):
        return None


def _end(start: dt.datetime, number: Mapping[str, int]) -> dt.datetime:
    if "H" in number:
        step = {"seconds": 1} if "S" in number else {"minutes": 1} if "M" in number else {"hours": 1}
        return start + dt.timedelta(**step)
    if "d" in number or "j" in number:
        return start + dt.timedelta(days=1)
    if "m" in number:
        return start.replace(year=start.year + start.month // 12, month=start.month % 12 + 1)
    return start.replace(year=start.year + 1)


def _shown(reading: Reading) -> str:
    named = {name: text for name, text in reading.fields.items() if name[0] != "%"}
    return ", ".join(f"{name} {quoted(text)}" for name, text in named.items())


def source_file(source: "Source") -> str:
    """Return the path or object, as the user wrote it, in whose folder a source's relative hrefs begin; "" for an API.

    For a pattern it is a name that no file needs to have, in the folder before the first field.
    """
    pattern = source.files or source.composites
    if pattern is not None:
        return posixpath.join(parse_pattern(pattern).folder, "files")
    return source.catalog or source.items or ""
