"""A ``tf.train.Example`` as bytes and back, without TensorFlow or protobuf: names, lists and numbers, nothing of chips.

The file to change for the wire format. Sources: tensorflow ``core/example/example.proto`` and ``feature.proto``, and the
protobuf wire format. The writer keeps the order that it is given; the reader takes features in any order, lists packed
or not, and skips features that hold no list.
"""

import functools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

Kind = Literal["bytes", "float", "int64"]
"""Which list of an Example holds a feature."""

_LISTS: Final[dict[Kind, int]] = {"bytes": 1, "float": 2, "int64": 3}  # field numbers of Feature.kind
_KINDS: Final = {number: kind for kind, number in _LISTS.items()}
_SMALL_BYTES: Final = 4096
"""Contents below are joined: a buffer of its own costs more than a copy."""
_DELIMITED, _VARINT, _FIXED64, _FIXED32 = 2, 0, 1, 5  # wire types


class Feature(NamedTuple):
    """One feature of an Example as it was read."""

    kind: Kind
    parts: list[memoryview]
    """The values of a BytesList; of the other lists, pieces of their packed numbers."""

    @property
    def raw(self) -> memoryview:
        """The one value of a BytesList; raises ValueError for anything else."""
        if self.kind != "bytes" or len(self.parts) != 1:
            raise ValueError(
                f"a {self.kind} list of {len(self.parts)} parts where one value of bytes was expected"
            )
        return self.parts[0]

    @property
    def floats(self) -> npt.NDArray[np.float32]:
        """The values of a FloatList; raises ValueError for anything else."""
        self._check("float")
        return np.frombuffer(self._packed, "<f4")

    @property
    def ints(self) -> list[int]:
        """The values of an Int64List; raises ValueError for anything else."""
        self._check("int64")
        packed, values, at = self._packed, [], 0
        while at < len(packed):
            value, at = _read_varint(packed, at)
            values.append(value - (1 << 64) if value >> 63 else value)
        return values

    @property
    def _packed(self) -> memoryview:
        return self.parts[0] if len(self.parts) == 1 else memoryview(b"".join(self.parts))

    def _check(self, kind: Kind) -> None:
        if self.kind != kind:
            raise ValueError(f"a {self.kind} list where a {kind} list was expected")


def example_parts(features: Sequence[tuple[str, Kind, Any]]) -> list[Any]:
    """Return buffers whose concatenation is the Example of features (name, list, content) in this order.

    The content is the one value of a BytesList, little-endian float32, or packed varints: bytes or a contiguous array,
    which is not copied.
    """
    sizes = [(name, kind, memoryview(content).nbytes) for name, kind, content in features]
    heads = [_entry_head(*one) for one in sizes]
    total = sum(map(len, heads)) + sum(size for _, _, size in sizes)
    parts: list[Any] = []
    small = _key(1) + varint(total)
    for head, (_, _, size), (_, _, content) in zip(heads, sizes, features, strict=True):
        small += head
        if size < _SMALL_BYTES:
            small += bytes(content)
        else:
            parts += [small, content]
            small = b""
    return [*parts, small]


def example_bytes(sizes: Iterable[tuple[str, Kind, int]]) -> int:
    """Return the length of an Example whose features (name, list) have contents of so many bytes."""
    total = sum(len(_entry_head(*one)) + one[2] for one in sizes)
    return 1 + len(varint(total)) + total


@functools.lru_cache(maxsize=1024)
def _entry_head(name: str, kind: Kind, size: int) -> bytes:
    """Bytes of a map entry up to its content of ``size`` bytes: entry(name, Feature(list(content))).

    The one value of a BytesList and the packed numbers of the other lists have the same form: field 1, delimited.
    """
    value = _key(1) + varint(size)
    listed = _key(_LISTS[kind]) + varint(len(value) + size) + value
    feature = _key(2) + varint(len(listed) + size) + listed
    body = _field(1, name.encode()) + feature
    return _key(1) + varint(len(body) + size) + body


def _key(number: int) -> bytes:
    return bytes([number << 3 | _DELIMITED])


def _field(number: int, payload: bytes) -> bytes:
    return _key(number) + varint(len(payload)) + payload


def varint(value: int) -> bytes:
    """Return a number that is not negative in base 128, the lowest digits first."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def iter_features(data: Any) -> Iterator[tuple[str, Feature]]:
    """Yield name and content of each feature of an Example; raises ValueError or IndexError for bytes that are none."""
    for _, features in _fields(memoryview(data)):
        for _, entry in _fields(features):
            parts = dict(_fields(entry))
            for number, listed in _fields(parts.get(2, memoryview(b""))):
                values = [payload for _, payload in _fields(listed)]
                yield bytes(parts[1]).decode(), Feature(_KINDS[number], values)


def _fields(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Number and payload of each field of a message; fields that are not delimited have their bytes as payload."""
    at = 0
    while at < len(data):
        key, at = _read_varint(data, at)
        start, kind = at, key & 7
        if kind in (_FIXED32, _FIXED64):
            at += 4 if kind == _FIXED32 else 8
        elif kind in (_DELIMITED, _VARINT):
            value, at = _read_varint(data, at)
            if kind == _DELIMITED:
                start, at = at, at + value
        else:
            raise ValueError(f"wire type {kind} in an Example")
        if at > len(data):
            raise ValueError("a field reaches beyond its message")
        yield key >> 3, data[start:at]


def _read_varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
        shift += 7
