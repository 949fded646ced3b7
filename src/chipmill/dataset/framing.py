"""The TFRecord framing around a record, and gzip around the framing, without TensorFlow.

The file to change for how records lie in a file. Source of the format: tensorflow ``core/lib/io/record_writer.cc``
(length, masked CRC-32C of the length, data, masked CRC-32C of the data). With gzip each record is a member of its own
(RFC 1952 allows several in a row, and tf.data reads them as one stream), so that a record can still be read by its
place; the header of a member holds neither time nor name, or the bytes would depend on the clock.
"""

import dataclasses
import os
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal

import google_crc32c

from chipmill.core.errors import DamagedFileError

Compression = Literal["none", "gzip"]
FRAMING_BYTES: Final = 16
"""What the framing adds to a record: 8 bytes of length, two checksums of 4 bytes."""

_HEADER: Final = struct.Struct("<QI")
_CRC: Final = struct.Struct("<I")
_MASK_DELTA: Final = 0xA282EAD8
_GZIP: Final = 31
"""zlib's window bits for a gzip header with the largest window."""
_LEVEL: Final = 1
"""Reflectance is near to noise: higher levels gain little and cost much."""
_CHUNK: Final = 1 << 20
_PIECE_BYTES: Final = 8 << 20
"""Written at a time."""
_PIECES: Final = 512
"""Buffers written at a time; systems take at least 1,024 (IOV_MAX)."""


@dataclasses.dataclass(frozen=True, slots=True)
class Frame:
    """Where a record lies in its shard, and its data."""

    offset: int
    """Bytes from the start of the file to the record's framing, or to its gzip member."""
    length: int
    """Bytes with framing, or of the gzip member."""
    crc: int
    """Masked CRC-32C of the data, as it stands in the file."""
    data: bytes


def masked_crc(*parts: Any) -> int:
    """Return TFRecord's masked CRC-32C of the parts' bytes one after the other (bytes or contiguous arrays)."""
    crc = 0
    for part in parts:
        crc = google_crc32c.extend(crc, part)
    return (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & 0xFFFFFFFF


def frame_record(parts: Sequence[Any], compression: Compression = "none") -> tuple[list[Any], int, int]:
    """Return the parts (bytes or contiguous arrays) of a record with its framing, compressed where that is asked for.

    Beside the buffers, the bytes that they take in the file and the masked CRC-32C of the record's data.
    """
    size = sum(memoryview(part).nbytes for part in parts)
    length = struct.pack("<Q", size)
    crc = masked_crc(*parts)
    framed = [length + _CRC.pack(masked_crc(length)), *parts, _CRC.pack(crc)]
    if compression == "none":
        return framed, size + FRAMING_BYTES, crc
    deflate = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP)
    member = b"".join([*map(deflate.compress, framed), deflate.flush()])
    return [member], len(member), crc


def write_buffers(stream: BinaryIO, buffers: Iterable[Sequence[Any]]) -> None:
    """Append buffers (bytes or contiguous arrays) to a file that is open without a buffer of its own.

    Several MB go to the system at a time, as they lie: larger writes cost less for each byte, and nothing is copied.
    """
    waiting: list[Any] = []
    size = 0
    for some in buffers:
        waiting += some
        size += sum(memoryview(one).nbytes for one in some)
        if size >= _PIECE_BYTES or len(waiting) >= _PIECES:
            _write_all(stream.fileno(), waiting)
            waiting, size = [], 0
    _write_all(stream.fileno(), waiting)


def _write_all(handle: int, buffers: Sequence[Any]) -> None:
    """As writev, but to the end: on a disk that is nearly full the system takes a part first and fails then."""
    left = [memoryview(one).cast("B") for one in buffers if memoryview(one).nbytes]
    while left:
        taken = os.writev(handle, left[:_PIECES])
        left = list(_after(left, taken))


def _after(views: Sequence[memoryview], taken: int) -> Iterator[memoryview]:
    """What is left of the views when the first ``taken`` bytes are gone."""
    for view in views:
        if taken < len(view):
            yield view[taken:]
        taken = max(0, taken - len(view))


def iter_frames(path: Path, compression: Compression = "none") -> Iterator[Frame]:
    """Yield the records of a shard in their order, each with both checksums verified.

    A shard cut exactly at a record's end cannot be told from a shorter one here: only the manifest knows its size.
    Raises DamagedFileError with the offset of the first record that is cut or changed.
    """
    with path.open("rb") as stream:
        yield from _members(stream, str(path)) if compression == "gzip" else iter_stream(stream, str(path))


def iter_stream(stream: BinaryIO, where: str) -> Iterator[Frame]:
    """Yield the records of a stream of plain frames from where it stands; as :func:`iter_frames`."""
    offset = 0
    while header := stream.read(_HEADER.size):
        place = f"{where} at byte {offset}"
        size = frame_size(header, place)
        # read apart: to cut the data out of the whole frame would copy it
        data, tail = stream.read(size), stream.read(_CRC.size)
        length = len(header) + len(data) + len(tail)
        yield Frame(offset, length, _checked(size, data, tail, place), data)
        offset += length


def _members(stream: BinaryIO, where: str) -> Iterator[Frame]:
    """Yield the records of a stream that holds a gzip member for each."""
    offset, pending = 0, stream.read(_CHUNK)
    while pending:
        place, framed, length = f"{where} at byte {offset}", b"", 0
        inflate = zlib.decompressobj(_GZIP)
        while pending and not inflate.eof:
            framed += _inflate(inflate, pending, place)
            length += len(pending) - len(inflate.unused_data)
            pending = inflate.unused_data or stream.read(_CHUNK)
        if not inflate.eof:
            raise DamagedFileError(
                f"{place}: the record is cut inside its gzip member: remove the shard and run again"
            )
        data, crc = unframe(framed, place)
        yield Frame(offset, length, crc, data)
        offset += length


def _inflate(inflate: Any, data: bytes, where: str) -> bytes:
    try:
        return bytes(inflate.decompress(data))
    except zlib.error as error:
        raise DamagedFileError(
            f"{where}: the record is not good gzip ({error}): remove the shard and run again"
        ) from error


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


def unframe(framed: bytes, where: str, compression: Compression = "none") -> tuple[bytes, int]:
    """Return the data of one framed record and its masked CRC-32C; raises DamagedFileError where a byte differs."""
    if compression == "gzip":
        inflate = zlib.decompressobj(_GZIP)
        member, framed = framed, _inflate(inflate, framed, where)
        if not inflate.eof or inflate.unused_data:
            raise DamagedFileError(
                f"{where}: expected one gzip member of {len(member)} bytes, found its end elsewhere: remove the shard "
                "and run again"
            )
    size = frame_size(framed[: _HEADER.size], where)
    data, tail = framed[_HEADER.size : -_CRC.size], framed[-_CRC.size :]
    return data, _checked(size, data, tail, where)


def _checked(size: int, data: bytes, tail: bytes, where: str) -> int:
    """Return the checksum of a record of ``size`` bytes of data, which ends with ``tail``."""
    if (len(data), len(tail)) != (size, _CRC.size):
        got = _HEADER.size + len(data) + len(tail)
        raise DamagedFileError(
            f"{where}: expected a record of {size + FRAMING_BYTES} bytes, got {got}: remove the shard and run again"
        )
    (crc,) = _CRC.unpack(tail)
    if crc != masked_crc(data):
        raise DamagedFileError(f"{where}: the record fails its checksum: remove the shard and run again")
    return int(crc)
