"""Reading the small languages of the region file: words, numbers and signs, each with its place in the text.

Grammars stand on this: :mod:`chipmill.region.qa` for quality bits, :mod:`chipmill.region.formulas` for spectral
indices. Nothing is ever evaluated by Python itself, and every error says at which character the text goes wrong.
"""

import dataclasses
import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Literal, NoReturn

from chipmill.core.errors import RegionFileError

Kind = Literal["word", "number", "sign", "end"]
MAX_CHARACTERS: Final = 1000
_MAX_NESTING: Final = 50
_END: Final = "the end"
_SPACE, _NUMBER = (
    r"(?P<space>[ \t\r\n]+)",
    r"(?P<number>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)",
)
_WORD, _HYPHENS = r"[A-Za-z][A-Za-z0-9_]*", r"(?:-[A-Za-z][A-Za-z0-9_]*)*"
_SIGN = r"(?P<sign>\*\*|==|!=|<=|>=|[-+*/()\[\],:=<>])"
_PARTS: Final = re.compile(f"{_SPACE}|{_NUMBER}|(?P<word>{_WORD})|{_SIGN}")
_HYPHENED_PARTS: Final = re.compile(f"{_SPACE}|{_NUMBER}|(?P<word>{_WORD}{_HYPHENS})|{_SIGN}")
_KINDS: Final[Mapping[str, Kind]] = {"word": "word", "number": "number", "sign": "sign"}


@dataclasses.dataclass(frozen=True, slots=True)
class Token:
    """A piece of an expression."""

    kind: Kind
    text: str
    place: int
    """Its first character, counted from 1."""


def tokens(text: str, *, hyphens: bool = False) -> list[Token]:
    """Cut a text into words, numbers and signs, an end token last.

    Args:
        text: the expression, at most ``MAX_CHARACTERS`` long.
        hyphens: a hyphen between letters belongs to a word (landsat-c2); else it is a minus.

    Raises:
        RegionFileError: the text is too long, or holds a character that belongs to no expression.
    """
    if len(text) > MAX_CHARACTERS:
        raise RegionFileError(
            f"the expression has {len(text)} characters: write it with at most {MAX_CHARACTERS}"
        )
    found: list[Token] = []
    place = 0
    while place < len(text):
        part = (_HYPHENED_PARTS if hyphens else _PARTS).match(text, place)
        if part is None:
            raise RegionFileError(
                f"character {place + 1}: {text[place]!r} belongs to no expression: remove it"
            )
        if (kind := _KINDS.get(part.lastgroup or "")) is not None:
            found.append(Token(kind, part[0], place + 1))
        place = part.end()
    return [*found, Token("end", "", len(text) + 1)]


class Reader:
    """Walks over the tokens of one expression; grammars ask it for what comes next."""

    def __init__(self, parts: Sequence[Token]) -> None:
        self._parts, self._at, self._depth = parts, 0, 0

    @property
    def next(self) -> Token:
        """The token that comes next; the end token at the end."""
        return self._parts[self._at]

    def take(self) -> Token:
        """Return the next token and step over it; the end is never stepped over."""
        token = self.next
        self._at += token.kind != "end"
        return token

    def skip(self, *texts: str) -> str | None:
        """Step over the next token where it is one of these words or signs, and return it; else None."""
        return self.take().text if self.next.kind in ("word", "sign") and self.next.text in texts else None

    def need(self, text: str, why: str) -> None:
        """Step over a sign; raises RegionFileError where something else stands there."""
        if self.skip(text) is None:
            self.refuse(f"expected {text!r} {why}")

    def need_integer(self, what: str) -> int:
        """Step over a whole number and return it; raises RegionFileError that says what was expected."""
        token = self.next
        if token.kind != "number" or not token.text.isdigit() or len(token.text) > 9:
            self.refuse(f"expected {what}, a whole number")
        return int(self.take().text)

    def need_end(self, expected: str) -> None:
        """Raise RegionFileError unless everything was read."""
        if self.next.kind != "end":
            self.refuse(f"expected {expected} or {_END}")

    def deeper(self) -> None:
        """Note that a bracket or sign opens one level more; raises RegionFileError where there are too many."""
        self._depth += 1
        if self._depth > _MAX_NESTING:
            self.refuse(f"nests deeper than {_MAX_NESTING} levels: write it with fewer brackets")

    def shallower(self) -> None:
        """Note that a level is closed."""
        self._depth -= 1

    def refuse(self, why: str, token: Token | None = None) -> NoReturn:
        """Raise RegionFileError with the place of a token, by default the next one."""
        wrong = token or self.next
        shown = f"at {wrong.text!r}" if wrong.kind != "end" else f"at {_END}"
        raise RegionFileError(f"character {wrong.place}, {shown}: {why}")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a way out for an unknown word: the nearest known one, or all of them."""
    names = list(known)
    near = difflib.get_close_matches(word.lower(), names, n=1)
    return f"did you mean {near[0]}" if near else f"known here are {', '.join(names) or 'none'}"
