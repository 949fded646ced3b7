"""One chip as one ``tf.train.Example``, and the TFRecord framing around it, without TensorFlow or protobuf.

The file to change for what a record holds. The writer puts the features in one fixed order and nothing else, so the
same chip gives the same bytes; the reader takes the features in any order, as other writers order them otherwise.
Sources of the formats: tensorflow ``core/example/example.proto`` and ``feature.proto``, the protobuf wire format, and
``core/lib/io/record_writer.cc`` for the framing (length, masked CRC-32C of the length, data, masked CRC-32C).
"""

import dataclasses
import hashlib
import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

import google_crc32c
import numpy as np
import numpy.typing as npt

from chipmill.core.errors import DamagedFileError

Pixels = npt.NDArray[Any]
"""An array of the dataset's dtype."""

FEATURES: Final = ("image", "label", "shape", "chip_id", "anchor", "crs", "transform")
"""The features of a record in the order in which they are written."""
FRAMING_BYTES: Final = 16
"""What the framing adds to a record: 8 bytes of length, two checksums of 4 bytes."""

_HEADER: Final = struct.Struct("<QI")
_CRC: Final = struct.Struct("<I")
_TRANSFORM: Final = struct.Struct("<6d")
_MASK_DELTA: Final = 0xA282EAD8
_BYTES_LIST, _INT64_LIST = 1, 3  # field numbers of Feature.kind
_DELIMITED, _VARINT = 2, 0  # wire types


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One chip as a model sees it, with where and when it is from."""

    image: Pixels
    """(y, x, band) in the dataset's dtype; nodata is still nodata."""
    label: npt.NDArray[np.uint8]
    """(y, x): class 0..n-1, 255 = ignore."""
    chip_id: str
    anchor: str
    """Date of the sample, YYYY-MM-DD."""
    crs: str
    """``EPSG:<code>``."""
    transform: tuple[float, float, float, float, float, float]
    """Affine (a, b, c, d, e, f) from pixel (column, row) corners to CRS units."""


@dataclasses.dataclass(frozen=True, slots=True)
class Frame:
    """Where a record lies in its shard, and its data."""

    offset: int
    """Bytes from the start of the file to the record's framing."""
    length: int
    """Bytes with framing."""
    crc: int
    """Masked CRC-32C of the data, as it stands in the file."""
    data: bytes


def record_key(chip_id: str) -> str:
    """Return what orders the records of a shard: the sha256 of the chip id, so that neighbours are strewn."""
    return hashlib.sha256(chip_id.encode()).hexdigest()


def masked_crc(*parts: Any) -> int:
    """Return TFRecord's masked CRC-32C of the parts' bytes one after the other (bytes or contiguous arrays)."""
    crc = 0
    for part in parts:
        crc = google_crc32c.extend(crc, part)
    return (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & 0xFFFFFFFF


def write_record(stream: BinaryIO, sample: Sample) -> tuple[int, int]:
    """Append one framed record; return its length in bytes with framing and its masked CRC-32C."""
    parts = _example_parts(sample)
    size = sum(memoryview(part).nbytes for part in parts)
    length = struct.pack("<Q", size)
    crc = masked_crc(*parts)
    stream.writelines([length, _CRC.pack(masked_crc(length)), *parts, _CRC.pack(crc)])
    return size + FRAMING_BYTES, crc


def encode_example(sample: Sample) -> bytes:
    """Return the serialised Example of a sample: the same bytes for the same sample, on every machine.

    ``image`` is stored as raw little-endian (y, x, band), ``label`` as raw uint8 (y, x), ``shape`` as the three
    numbers of the image, ``transform`` as six little-endian float64.
    """
    return b"".join(_example_parts(sample))


def record_length(shape: tuple[int, int, int], itemsize: int, chip_id: str, anchor: str, crs: str) -> int:
    """Return the exact bytes of a record with its framing, from sizes alone; shards are planned with it.

    ``shape`` is (y, x, band) of the image and ``itemsize`` the bytes of one of its values.
    """
    image_bytes = math.prod(shape) * itemsize
    heads = _heads(shape, image_bytes, (chip_id, anchor, crs), bytes(_TRANSFORM.size))
    return sum(map(len, heads)) + image_bytes + shape[0] * shape[1] + FRAMING_BYTES


def _example_parts(sample: Sample) -> list[Any]:
    """Buffers whose concatenation is the Example; pixels are not copied where they already lie as stored."""
    image = np.ascontiguousarray(sample.image, dtype=sample.image.dtype.newbyteorder("<"))
    label = np.ascontiguousarray(sample.label, dtype=np.uint8)
    ids = (sample.chip_id, sample.anchor, sample.crs)
    before_image, before_label, tail = _heads(
        image.shape, image.nbytes, ids, _TRANSFORM.pack(*sample.transform)
    )
    return [before_image, image, before_label, label, tail]


def _heads(
    shape: tuple[int, ...], image_bytes: int, ids: tuple[str, str, str], transform: bytes
) -> tuple[bytes, bytes, bytes]:
    """Bytes before the image, between image and label, and after the label."""
    label_bytes = shape[0] * shape[1]
    packed = b"".join(map(_varint, shape))
    ints = _field(_INT64_LIST, _field(1, packed))
    texts = b"".join(
        _entry_head(name, len(value)) + value
        for name, value in zip(FEATURES[3:], [*(text.encode() for text in ids), transform], strict=True)
    )
    tail = _field(1, _field(1, b"shape") + _field(2, ints)) + texts
    image_head, label_head = _entry_head("image", image_bytes), _entry_head("label", label_bytes)
    size = len(image_head) + image_bytes + len(label_head) + label_bytes + len(tail)
    return _key(1) + _varint(size) + image_head, label_head, tail


def _entry_head(name: str, size: int) -> bytes:
    """Bytes of a map entry up to its only value, ``size`` raw bytes: entry(name, Feature(BytesList(value)))."""
    value = _key(1) + _varint(size)
    listed = _key(_BYTES_LIST) + _varint(len(value) + size) + value
    feature = _key(2) + _varint(len(listed) + size) + listed
    body = _field(1, name.encode()) + feature
    return _key(1) + _varint(len(body) + size) + body


def _key(number: int) -> bytes:
    return bytes([number << 3 | _DELIMITED])


def _field(number: int, payload: bytes) -> bytes:
    return _key(number) + _varint(len(payload)) + payload


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def decode_example(data: bytes, dtype: npt.DTypeLike, where: str = "a record") -> Sample:
    """Return the sample of a serialised Example, its features in any order; arrays are read-only views of ``data``.

    Raises DamagedFileError, naming ``where``, when a feature is missing or the bytes are no Example of this kind.
    """
    try:
        found = dict(_entries(data))
        rows, cols, bands = _ints(found["shape"])
        chip_id, anchor, crs = (bytes(_raw(found[name])).decode() for name in FEATURES[3:6])
        return Sample(
            image=np.frombuffer(_raw(found["image"]), np.dtype(dtype).newbyteorder("<")).reshape(
                rows, cols, bands
            ),
            label=np.frombuffer(_raw(found["label"]), np.uint8).reshape(rows, cols),
            chip_id=chip_id,
            anchor=anchor,
            crs=crs,
            transform=_TRANSFORM.unpack(_raw(found["transform"])),
        )
    except (KeyError, IndexError, ValueError, struct.error) as error:
        raise DamagedFileError(
            f"{where} is not a record of this dataset ({type(error).__name__}: {error}): run verify --data on it"
        ) from error


def _entries(data: bytes) -> Iterator[tuple[str, memoryview]]:
    """Name and Feature bytes of each entry of the map inside an Example."""
    for _, features in _fields(memoryview(data)):
        for _, entry in _fields(features):
            parts = dict(_fields(entry))
            yield bytes(parts[1]).decode(), parts[2]


def _fields(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Number and payload of each length-delimited field of a message; a varint field has its bytes as payload."""
    at = 0
    while at < len(data):
        key, at = _read_varint(data, at)
        start = at
        value, at = _read_varint(data, at)
        if key & 7 == _DELIMITED:
            start, at = at, at + value
        elif key & 7 != _VARINT:
            raise ValueError(f"wire type {key & 7} in an Example")
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


def _raw(feature: memoryview) -> memoryview:
    """The single value of a BytesList feature."""
    ((_, listed),) = ((number, payload) for number, payload in _fields(feature) if number == _BYTES_LIST)
    ((_, value),) = _fields(listed)
    return value


def _ints(feature: memoryview) -> list[int]:
    """The values of an Int64List feature, packed or not."""
    ((_, listed),) = ((number, payload) for number, payload in _fields(feature) if number == _INT64_LIST)
    packed = b"".join(bytes(payload) for _, payload in _fields(listed))
    values, at = [], 0
    while at < len(packed):
        value, at = _read_varint(memoryview(packed), at)
        values.append(value)
    return values


def iter_frames(path: Path) -> Iterator[Frame]:
    """Yield the records of a shard in their order, each with both checksums verified.

    A shard cut exactly at a record's end cannot be told from a shorter one here: only the manifest knows its size.
    Raises DamagedFileError with the offset of the first record that is cut or changed.
    """
    with path.open("rb") as stream:
        offset = 0
        while header := stream.read(_HEADER.size):
            size = frame_size(header, f"{path} at byte {offset}")
            framed = header + stream.read(size + _CRC.size)
            data, crc = unframe(framed, f"{path} at byte {offset}")
            yield Frame(offset, len(framed), crc, data)
            offset += len(framed)


def frame_size(header: bytes, where: str) -> int:
    """Return the bytes of data that a framing header of 12 bytes announces; raises DamagedFileError."""
    if len(header) < _HEADER.size:
        raise DamagedFileError(
            f"{where}: the record is cut inside its header: remove the shard and run again"
        )
    size, crc = _HEADER.unpack_from(header)
    if crc != masked_crc(header[:8]):
        raise DamagedFileError(
            f"{where}: the record's length fails its checksum: remove the shard and run again"
        )
    return int(size)


def unframe(framed: bytes, where: str) -> tuple[bytes, int]:
    """Return the data of one framed record and its masked CRC-32C; raises DamagedFileError where a byte differs."""
    size = frame_size(framed[: _HEADER.size], where)
    if len(framed) != size + FRAMING_BYTES:
        raise DamagedFileError(
            f"{where}: expected a record of {size + FRAMING_BYTES} bytes, got {len(framed)}: remove the shard and run again"
        )
    data = framed[_HEADER.size : -_CRC.size]
    (crc,) = _CRC.unpack_from(framed, len(framed) - _CRC.size)
    if crc != masked_crc(data):
        raise DamagedFileError(f"{where}: the record fails its checksum: remove the shard and run again")
    return data, int(crc)
