"""Earth Engine's records: a tf.train.Example per patch or point, one list of floats, integers or bytes per band.

The file to change for how lists become arrays and arrays lists. Lists run row by row, and nothing is transposed: what
reads them must give their height first.
"""

import contextlib
import gzip
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final, Literal, cast

import numpy as np
from numpy.typing import NDArray

from chipmill.core.errors import BadInputError, DamagedFileError
from chipmill.dataset.examples import Feature, Kind, example_parts, iter_features
from chipmill.dataset.framing import frame_record, iter_stream
from chipmill.exchange.sources import files_below

ENDINGS: Final = (".tfrecord", ".tfrecord.gz")
ListKind = Literal["float", "int64", "bytes"]
_GZIP: Final = b"\x1f\x8b"
_DIGITS: Final = 10
"""Most bytes of a varint."""
_DEFAULTS: Final = {1: "uint8"}
"""Type of the values in a list of bytes by their size; wider ones could be several."""


def record_files(folder: Path) -> list[Path]:
    """Return the TFRecords directly in a folder by name, which is the order of their patches."""
    files = files_below(folder)
    return [path for path in files if path.parent == folder and path.name.lower().endswith(ENDINGS)]


def iter_examples(files: Sequence[Path]) -> Iterator[tuple[str, dict[str, Feature]]]:
    """Yield (where, features by name) of each record of each file, gzip or not.

    Raises DamagedFileError where a record is cut or changed, or is no Example.
    """
    for path in files:
        with path.open("rb") as raw, _plain(raw) as stream:
            try:
                for number, frame in enumerate(iter_stream(stream, str(path))):
                    where = f"record {number} of {path}"
                    yield where, _features(frame.data, where)
            except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                raise DamagedFileError(f"{path} is not good gzip ({error}): fetch it again") from error


@contextlib.contextmanager
def _plain(raw: BinaryIO) -> Iterator[BinaryIO]:
    head = raw.read(2)
    raw.seek(0)
    if head != _GZIP:
        yield raw
        return
    with gzip.GzipFile(fileobj=raw) as stream:
        yield cast("BinaryIO", stream)


def _features(data: bytes, where: str) -> dict[str, Feature]:
    try:
        return dict(iter_features(data))
    except (KeyError, IndexError, ValueError) as error:
        raise DamagedFileError(f"{where} is no tf.train.Example ({error}): export it again") from error


def list_values(feature: Feature, dtype: str | None, count: int | None, where: str) -> NDArray[Any]:
    """Return the values of a band as a 1-D array: float32, int64, or what a list of bytes holds.

    Args:
        feature: the list.
        dtype: type of the values in a list of bytes, or None.
        count: number of the values where it is known; the size of a value follows from it.
        where: names the record and the band in errors.

    Raises BadInputError for bytes whose type is not known, DamagedFileError for a list that cannot be read.
    """
    try:
        if feature.kind == "float":
            return feature.floats
        if feature.kind == "int64":
            return unpack_varints(b"".join(feature.parts))
        raw = feature.raw
    except (ValueError, IndexError) as error:
        raise DamagedFileError(f"{where} cannot be read ({error}): export it again") from error
    size = len(raw) // count if count else np.dtype(dtype or "uint8").itemsize
    kind = dtype if dtype and np.dtype(dtype).itemsize == size else _DEFAULTS.get(size)
    if kind is None or (count and len(raw) != size * count):
        raise BadInputError(
            f"{where} holds {len(raw)} bytes{f' for {count} values' if count else ''}: say the type of the values"
        )
    return np.frombuffer(raw, np.dtype(kind).newbyteorder("<"))


def unpack_varints(data: bytes) -> NDArray[np.int64]:
    """Return the numbers of an Int64List from their bytes in base 128, the lowest digits first.

    Raises ValueError where the last number is cut or one is too long.
    """
    digits = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(digits < 0x80)
    if not digits.size:
        return np.empty(0, np.int64)
    if not ends.size or ends[-1] != digits.size - 1:
        raise ValueError("the last number is cut")
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > _DIGITS:
        raise ValueError(f"a number of {lengths.max()} bytes")
    values = np.zeros(len(ends), np.uint64)
    for place in range(int(lengths.max())):
        has = lengths > place
        values[has] |= (digits[starts[has] + place].astype(np.uint64) & np.uint64(0x7F)) << np.uint64(
            7 * place
        )
    return values.view(np.int64)


def pack_varints(values: NDArray[np.int64]) -> bytes:
    """Invert :func:`unpack_varints`; a negative number takes ten bytes, as in protobuf."""
    rest = np.ascontiguousarray(values, np.int64).view(np.uint64)
    digits = np.empty((rest.size, _DIGITS), np.uint8)
    lengths = np.ones(rest.size, np.int64)
    for place in range(_DIGITS):
        digits[:, place] = (rest & np.uint64(0x7F)).astype(np.uint8) | np.uint8(0x80)
        rest = rest >> np.uint64(7)
        lengths[rest > 0] = place + 2
    digits[np.arange(len(lengths)), lengths - 1] &= 0x7F
    return digits[np.arange(_DIGITS) < lengths[:, np.newaxis]].tobytes()


def list_content(values: NDArray[Any], kind: ListKind, where: str) -> tuple[Kind, Any]:
    """Return the list and its content of the values (y, x) of a band, row by row.

    Raises BadInputError, naming ``where``, for integers that float32 cannot hold exactly.
    """
    if kind == "int64":
        return "int64", pack_varints(values.astype(np.int64).ravel())
    if kind == "bytes":
        return "bytes", np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
    floats = np.ascontiguousarray(values, "<f4")
    if (
        values.dtype.kind in "iu"
        and values.dtype.itemsize > 2
        and (floats.astype(np.float64) != values).any()
    ):
        raise BadInputError(f"{where} holds integers that float32 cannot hold exactly: write lists of int64")
    return "float", floats


def write_example(stream: BinaryIO, bands: Mapping[str, tuple[Kind, Any]]) -> int:
    """Append a record with the lists of :func:`list_content` by band, and return its bytes with framing."""
    parts = example_parts([(name, kind, content) for name, (kind, content) in bands.items()])
    buffers, size, _ = frame_record(parts)
    stream.writelines(buffers)
    return size


@contextlib.contextmanager
def new_records(path: Path, *, compressed: bool) -> Iterator[BinaryIO]:
    """Give the stream of a new TFRecord, one gzip member without name and time where ``compressed``."""
    with path.open("wb") as raw:
        if not compressed:
            yield raw
            return
        with gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as stream:
            yield cast("BinaryIO", stream)
