"""Quality bits: the language of ``mask.qa``, and the bit tables of Landsat and HLS.

The file to change for another product's bits. An expression says which pixels are dropped::

    landsat-c2                                          the usual choice of a product
    landsat-c2: cloud or cloud_shadow and not water     its fields by name
    bit(3) or bits(8, 2) >= 2 or bits(6, 2) in [1, 3]   any product's fields by offset and width

``not`` binds closer than ``and``, ``and`` closer than ``or``; capitals do not matter. Bits count from 0, the least
significant one. How pixels are looked up is in :mod:`chipmill.imagery.masks`.
"""

import dataclasses
import functools
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal

from chipmill.core.errors import RegionFileError
from chipmill.region.expressions import Reader, Token, did_you_mean, tokens

MAX_BITS: Final = 32
Comparison = Literal["=", "!=", "<", "<=", ">", ">=", "in"]
_SIGNS: Final[Mapping[str, Comparison]] = {
    "=": "=", "==": "=", "!=": "!=", "<": "<", "<=": "<=", ">": ">", ">=": ">=",
}  # fmt: skip
_LEVELS: Final[Mapping[str, int]] = MappingProxyType({"none": 0, "low": 1, "medium": 2, "high": 3})
_AEROSOL: Final[Mapping[str, int]] = MappingProxyType({"climatology": 0, "low": 1, "moderate": 2, "high": 3})
_NO_NAMES: Final[Mapping[str, int]] = MappingProxyType({})


@dataclasses.dataclass(frozen=True, slots=True)
class Bits:
    """A field of a pixel's number: ``width`` bits from bit ``offset`` on."""

    offset: int
    width: int = 1
    levels: Mapping[str, int] = dataclasses.field(default=_NO_NAMES, hash=False, compare=False, repr=False)
    """Names of its values."""

    @property
    def top(self) -> int:
        """Its largest value."""
        return (1 << self.width) - 1


@dataclasses.dataclass(frozen=True, slots=True)
class Compare:
    """True where the field compares so with a number, or is one of the numbers (``in``)."""

    bits: Bits
    comparison: Comparison
    numbers: tuple[int, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Not:
    """True where its part is not."""

    part: "Node"


@dataclasses.dataclass(frozen=True, slots=True)
class Joined:
    """``and``: all parts are true; ``or``: one is."""

    word: Literal["and", "or"]
    parts: tuple["Node", ...]


Node = Compare | Not | Joined


@dataclasses.dataclass(frozen=True, slots=True)
class Product:
    """What a product's bits mean."""

    fields: Mapping[str, Bits]
    drop: str
    """The expression that its name alone stands for."""
    fill: Compare
    """Pixels that were not observed."""


PRODUCTS: Final[Mapping[str, Product]] = {
    # Landsat Collection 1 Level-2 pixel_qa: LaSRC and LEDAPS product guides, "Pixel Quality Assessment Band"
    "landsat-c1": Product(
        {
            "fill": Bits(0), "clear": Bits(1), "water": Bits(2), "cloud_shadow": Bits(3), "snow": Bits(4),
            "cloud": Bits(5), "cloud_confidence": Bits(6, 2, _LEVELS), "cirrus_confidence": Bits(8, 2, _LEVELS),
            "terrain_occlusion": Bits(10),
        },
        "cloud or cloud_shadow or cirrus_confidence = high",
        Compare(Bits(0), "=", (1,)),
    ),
    # Landsat Collection 2 QA_PIXEL: Landsat 8-9 C2 Level-2 Science Product Guide (LSDS-1619), table of QA_PIXEL bits
    "landsat-c2": Product(
        {
            "fill": Bits(0), "dilated_cloud": Bits(1), "cirrus": Bits(2), "cloud": Bits(3), "cloud_shadow": Bits(4),
            "snow": Bits(5), "clear": Bits(6), "water": Bits(7), "cloud_confidence": Bits(8, 2, _LEVELS),
            "cloud_shadow_confidence": Bits(10, 2, _LEVELS), "snow_confidence": Bits(12, 2, _LEVELS),
            "cirrus_confidence": Bits(14, 2, _LEVELS),
        },
        "dilated_cloud or cirrus or cloud or cloud_shadow",
        Compare(Bits(0), "=", (1,)),
    ),
    # HLS v2.0 Fmask: HLS Product User Guide, table "Description of the bits in the one-byte QA layer"; 255 is fill
    "hls-fmask": Product(
        {
            "cirrus": Bits(0), "cloud": Bits(1), "adjacent": Bits(2), "cloud_shadow": Bits(3), "snow": Bits(4),
            "water": Bits(5), "aerosol": Bits(6, 2, _AEROSOL),
        },
        "cloud or adjacent or cloud_shadow",
        Compare(Bits(0, 8), "=", (255,)),
    ),
}  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True)
class QaRule:
    """A parsed expression."""

    drop: Node
    """Pixels that are not clear."""
    fill: Compare | None
    """Pixels that were not observed; None where no product is named."""
    width: int
    """Bits that a pixel's number must have: those that are asked for, or all of the product that is named."""


@functools.lru_cache(maxsize=64)
def parse_qa(text: str) -> QaRule:
    """Return the rule of an expression of ``mask.qa``.

    Raises:
        RegionFileError: says at which character the text goes wrong, what was expected there, and the way out.
    """
    parts = tokens(text.lower(), hyphens=True)
    if len(parts) == 1:
        raise RegionFileError(
            f"the expression is empty: name a product ({', '.join(PRODUCTS)}) or write bits, e.g. bit(3)"
        )
    named = parts[0].kind == "word" and (len(parts) == 2 or parts[1].text == ":")
    if not named:
        drop = _whole(Reader(parts), {}, "")
        return QaRule(drop, None, _width(drop))
    name = parts[0].text
    if name not in PRODUCTS:
        Reader(parts).refuse(f"no product has that name: {did_you_mean(name, PRODUCTS)}")
    product = PRODUCTS[name]
    # The name alone stands for the product's own expression.
    own = parts[2:] if len(parts) > 2 else tokens(product.drop)
    width = max(field.offset + field.width for field in product.fields.values())
    return QaRule(_whole(Reader(own), product.fields, name), product.fill, width)


def _width(node: Node) -> int:
    if isinstance(node, Compare):
        return node.bits.offset + node.bits.width
    return _width(node.part) if isinstance(node, Not) else max(_width(part) for part in node.parts)


def _whole(reader: Reader, fields: Mapping[str, Bits], product: str) -> Node:
    node = _joined(reader, fields, product)
    reader.need_end("'and', 'or'")
    return node


def _joined(
    reader: Reader, fields: Mapping[str, Bits], product: str, word: Literal["or", "and"] = "or"
) -> Node:
    reader.deeper()
    parts: list[Node] = []
    while not parts or reader.skip(word):
        parts.append(
            _joined(reader, fields, product, "and") if word == "or" else _single(reader, fields, product)
        )
    reader.shallower()
    return parts[0] if len(parts) == 1 else Joined(word, tuple(parts))


def _single(reader: Reader, fields: Mapping[str, Bits], product: str) -> Node:
    if reader.skip("not"):
        reader.deeper()
        node: Node = Not(_single(reader, fields, product))
        reader.shallower()
        return node
    if reader.skip("("):
        node = _joined(reader, fields, product)
        reader.need(")", "that closes the bracket")
        return node
    return _test(reader, fields, product)


def _test(reader: Reader, fields: Mapping[str, Bits], product: str) -> Compare:
    start = reader.next
    bits = _field(reader, fields, product)
    if reader.next.text in _SIGNS:
        comparison = _SIGNS[reader.take().text]
        return Compare(bits, comparison, (_number(reader, bits),))
    if reader.skip("in"):
        reader.need("[", "that opens the list of values")
        numbers = [_number(reader, bits)]
        while reader.skip(","):
            numbers.append(_number(reader, bits))
        reader.need("]", "that closes the list of values")
        return Compare(bits, "in", tuple(numbers))
    if bits.width > 1:
        reader.refuse(f"{start.text} has {bits.width} bits: compare it with a value, e.g. >= {bits.top}")
    return Compare(bits, "=", (1,))


def _field(reader: Reader, fields: Mapping[str, Bits], product: str) -> Bits:
    token = reader.next
    if token.kind != "word" or token.text in ("and", "or", "in"):
        reader.refuse("expected a field: bit(offset), bits(offset, width)" + (" or a name" * bool(fields)))
    reader.take()
    if token.text in ("bit", "bits"):
        return _numbered(reader, token)
    name = token.text
    if name not in fields:
        where = f"no field of {product}" if product else "no field: bits have names after a product's, e.g."
        way = did_you_mean(name, fields) if product else f"landsat-c2: {name}, else write bit(offset)"
        reader.refuse(f"{where}{':' if product else ''} {way}", token)
    return fields[name]


def _numbered(reader: Reader, token: Token) -> Bits:
    reader.need("(", f"after {token.text}")
    offset = reader.need_integer("the offset of the first bit")
    width = 1
    if token.text == "bits":
        reader.need(",", "and the number of bits")
        width = reader.need_integer("the number of bits")
    reader.need(")", f"that closes {token.text}")
    if width < 1 or offset + width > MAX_BITS:
        reader.refuse(f"its bits must lie in 0 to {MAX_BITS - 1}, and there must be one at least", token)
    return Bits(offset, width)


def _number(reader: Reader, bits: Bits) -> int:
    token = reader.next
    if token.kind == "word" and token.text in bits.levels:
        reader.take()
        return bits.levels[token.text]
    names = f" or one of {', '.join(bits.levels)}" if bits.levels else ""
    number = reader.need_integer(f"a value from 0 to {bits.top}{names}")
    if number > bits.top:
        reader.refuse(f"a field of {bits.width} bits holds 0 to {bits.top}", token)
    return number
