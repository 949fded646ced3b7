"""The table of spectral indices by name, and the language of their formulas.

The file to change for an index of our own. The others are those of spyndex (Montero et al., A standardized catalogue
of spectral indices to advance the use of remote sensing in Earth system research, 2023), with its constants, read from
the table that the package brings; a name is written in lower case. A formula knows numbers, names, ``+ - * / **`` and
brackets, as Python binds them. It is computed in :mod:`chipmill.imagery.indices`.
"""

import dataclasses
import functools
import importlib.util
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

from chipmill.core.errors import RegionFileError
from chipmill.region.expressions import Reader, tokens

Operator = Literal["+", "-", "*", "/", "**"]

BANDS: Final[Mapping[str, tuple[str, ...]]] = {
    "A": ("coastal",), "B": ("blue",), "G": ("green",), "G1": ("green05",), "Y": ("yellow",), "R": ("red",),
    "RE1": ("rededge1", "rededge071"), "RE2": ("rededge2", "rededge075"), "RE3": ("rededge3", "rededge078"),
    "N": ("nir", "nir08"), "N2": ("nir08",), "WV": ("nir09",), "S1": ("swir16",), "S2": ("swir22",),
    "T": ("lwir",), "T1": ("lwir11",), "T2": ("lwir12",),
    "VV": ("vv",), "VH": ("vh",), "HH": ("hh",), "HV": ("hv",),
}  # fmt: skip
"""A formula's letter -> our names of the band, the first that an imagery entry has is taken (common names of STAC)."""


@dataclasses.dataclass(frozen=True, slots=True)
class Number:
    """A number."""

    value: float


@dataclasses.dataclass(frozen=True, slots=True)
class Name:
    """A band, by its letter."""

    name: str


@dataclasses.dataclass(frozen=True, slots=True)
class Negated:
    """Minus its part."""

    part: "Term"


@dataclasses.dataclass(frozen=True, slots=True)
class Binary:
    """Two parts and what is done with them."""

    operator: Operator
    left: "Term"
    right: "Term"


Term = Number | Name | Negated | Binary


@dataclasses.dataclass(frozen=True, slots=True)
class Index:
    """A formula over bands; ``low`` and ``high`` are the range that its definition has, endless where unknown."""

    formula: Term
    letters: tuple[str, ...]
    """Of its bands, in the order of the formula."""
    low: float = -math.inf
    high: float = math.inf


def _own(text: str, low: float = -1.0, high: float = 1.0) -> Index:
    term = parse_formula(text)
    return Index(term, letters_of(term), low, high)


def parse_formula(text: str, constants: Mapping[str, float] | None = None) -> Term:
    """Return the formula of a text; names of constants become numbers.

    Raises:
        RegionFileError: says at which character the text goes wrong.
    """
    reader = Reader(tokens(text))
    term = _sum(reader, constants or {})
    reader.need_end("an operator")
    return term


def letters_of(term: Term) -> tuple[str, ...]:
    """Return the names in a formula, each once, in their order."""
    match term:
        case Name(name):
            return (name,)
        case Negated(part):
            return letters_of(part)
        case Binary(_, left, right):
            return tuple(dict.fromkeys((*letters_of(left), *letters_of(right))))
        case _:
            return ()


def _sum(reader: Reader, constants: Mapping[str, float]) -> Term:
    reader.deeper()
    term = _product(reader, constants)
    while sign := reader.skip("+", "-"):
        term = Binary("+" if sign == "+" else "-", term, _product(reader, constants))
    reader.shallower()
    return term


def _product(reader: Reader, constants: Mapping[str, float]) -> Term:
    term = _signed(reader, constants)
    while sign := reader.skip("*", "/"):
        term = Binary("*" if sign == "*" else "/", term, _signed(reader, constants))
    return term


def _signed(reader: Reader, constants: Mapping[str, float]) -> Term:
    """A power binds closer than the minus before it, and looser than the one behind it: -2 ** -1 is -0.5."""
    reader.deeper()
    term: Term
    if reader.skip("-"):
        term = Negated(_signed(reader, constants))
    elif reader.skip("+"):
        term = _signed(reader, constants)
    else:
        term = _single(reader, constants)
        if reader.skip("**"):
            term = Binary("**", term, _signed(reader, constants))
    reader.shallower()
    return term


def _single(reader: Reader, constants: Mapping[str, float]) -> Term:
    token = reader.next
    if reader.skip("("):
        term = _sum(reader, constants)
        reader.need(")", "that closes the bracket")
        return term
    if token.kind == "number":
        return Number(float(reader.take().text))
    if token.kind != "word":
        reader.refuse("expected a number, a name or a bracket")
    reader.take()
    if token.text in constants:
        return Number(float(constants[token.text]))
    if token.text not in BANDS:
        reader.refuse(f"no band has that name: known here are {', '.join(BANDS)}", token)
    return Name(token.text)


_OWN: Final[Mapping[str, Index]] = {
    "ndvi": _own("(N - R) / (N + R)"),  # Rouse et al. 1974
    "gndvi": _own("(N - G) / (N + G)"),  # Gitelson et al. 1996
    "ndwi": _own("(G - N) / (G + N)"),  # McFeeters 1996: open water > 0
    "mndwi": _own("(G - S1) / (G + S1)"),  # Xu 2006
    "ndmi": _own("(N - S1) / (N + S1)"),  # Gao 1996: water in leaves
    "ndbi": _own("(S1 - N) / (S1 + N)"),  # Zha et al. 2003
    "nbr": _own("(N - S2) / (N + S2)"),  # Key and Benson 1999
    "ndsi": _own("(G - S1) / (G + S1)"),  # Hall et al. 1995: snow
    "bsi": _own("((S1 + R) - (N + B)) / ((S1 + R) + (N + B))"),  # Rikimaru et al. 2002
    "evi": _own("2.5 * (N - R) / (N + 6.0 * R - 7.5 * B + 1.0)", -3.0, 3.0),  # Huete et al. 2002
    "evi2": _own("2.5 * (N - R) / (N + 2.4 * R + 1.0)", -3.0, 3.0),  # Jiang et al. 2008
    "savi": _own("1.5 * (N - R) / (N + R + 0.5)", -1.5, 1.5),  # Huete 1988, L = 0.5
}
"""Our own definitions; they stand before those of the same name in the table."""


def find_index(name: str) -> Index | None:
    """Return the index of that name in lower case, or None."""
    return _OWN.get(name) or _listed().get(name)


def index_names() -> tuple[str, ...]:
    """Return all names that :func:`find_index` knows, our own first, then in the order of the alphabet."""
    return (*_OWN, *sorted(_listed().keys() - _OWN.keys()))


@functools.cache
def _listed() -> Mapping[str, Index]:
    """Return the indices of spyndex whose every name is a band or a constant with a value."""
    table = _read("spectral-indices-dict.json")["SpectralIndices"]
    constants = {
        name: float(one["default"])
        for name, one in _read("constants.json").items()
        if one.get("default") is not None and name not in BANDS
    }
    found: dict[str, Index] = {}
    # Of two names that differ in case alone the one in capitals counts: BAI is the burned area, BaI bare ground.
    for name in sorted(table, reverse=True):
        # Wavelengths, kernels and light are no bands: what needs them is not computed here.
        if set(table[name]["bands"]) <= {*BANDS, *constants}:
            term = parse_formula(table[name]["formula"], constants)
            found[name.lower()] = Index(term, letters_of(term))
    return found


def _read(name: str) -> dict[str, Any]:
    """Read a table of spyndex without importing the package, which would read megabytes of spectra."""
    spec = importlib.util.find_spec("spyndex")
    if spec is None or spec.origin is None:
        raise RegionFileError(
            "indices other than our own are those of the package spyndex, which is not installed: install it"
        )
    values: dict[str, Any] = json.loads(
        (Path(spec.origin).parent / "data" / name).read_text(encoding="utf-8")
    )
    return values
