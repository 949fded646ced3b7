"""Records read straight into the arrays of a batch: pixels are moved once, from the file to their place.

The file to change for the speed of batches. It holds where records store arrays as they are, without gzip: those of one
length then have their pixels at one place, since our writer orders the features in one way. A record of another form,
as other programs write it, or a damaged one, is read like any single sample, which also says what is wrong with it.
"""

import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from chipmill.core.errors import DamagedFileError
from chipmill.dataset.framing import masked_crc
from chipmill.dataset.opening import OpenFiles, Part
from chipmill.dataset.records import NO_STATIC, NO_WEIGHT, Pixels, RecordSpec, Sample

_ARRAYS: Final = ("image", "static", "label", "weight")
_HEADER_BYTES: Final = 12  # of the framing: length and its checksum
_CRC: Final = struct.Struct("<I")
_ALIGNMENT: Final = 64

type Bytes = npt.NDArray[np.uint8]


class Batch(NamedTuple):
    """Some chips, stacked along a new first axis."""

    image: Pixels
    """(chip, y, x, band), or (chip, t, y, x, band) of a series, in the dataset's dtype."""
    label: npt.NDArray[np.uint8]
    """(chip, y, x): class 0..n-1, 255 = ignore."""
    chip_id: tuple[str, ...]
    weight: npt.NDArray[np.uint8]
    """(chip, y, x): confidence 0..254; (chip, 0, 0) where the dataset has none."""
    static: Pixels
    """(chip, y, x, k) of a series; (chip, 0, 0, 0) where there is none."""


class Layout(NamedTuple):
    """How records of one length lie in a file; only the tail and the pixels differ between them."""

    names: tuple[str, ...]
    """Arrays of a sample, in the order of the record."""
    sizes: tuple[int, ...]
    """Bytes of each."""
    gaps: tuple[bytes, ...]
    """What stands before each, the header of the framing first."""
    tail: int
    """Bytes after the last one, with the checksum of the framing."""
    chip_id: slice
    """Place of the id in the tail."""


def read_batch(chosen: Sequence[tuple[Part, int]], files: OpenFiles) -> Batch:
    """Return the records at some places as one batch.

    Raises DamagedFileError as :meth:`chipmill.dataset.opening.Part.fetch` does, and for a record of another shape.
    """
    arrays = {
        name: _aligned((len(chosen), *shape), np.dtype(dtype))
        for name, (shape, dtype) in forms(chosen[0][0].spec).items()
    }
    for place, (part, row) in enumerate(chosen):
        own = {name: array[place] for name, array in arrays.items()}
        if not _read_into(part, row, files, own):
            _copy(part.read(row, files), own)
    chip_ids = tuple(part.chip_ids[row].as_py() for part, row in chosen)
    return Batch(chip_id=chip_ids, **arrays)


def forms(spec: RecordSpec) -> dict[str, tuple[tuple[int, ...], npt.DTypeLike]]:
    """Return shape and type of the arrays of a sample, by name; (0, 0) and (0, 0, 0) for what the records lack."""
    side = (spec.size_px, spec.size_px)
    return {
        "image": (spec.image_shape, spec.dtype),
        "label": (side, np.uint8),
        "weight": (side if spec.weight else NO_WEIGHT.shape, np.uint8),
        "static": ((*side, spec.statics), spec.dtype) if spec.statics else (NO_STATIC.shape, NO_STATIC.dtype),
    }


def _aligned(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Pixels:
    """An array that TensorFlow takes over without a copy."""
    size = math.prod(shape) * dtype.itemsize
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    start = -_address(memory) % _ALIGNMENT
    return memory[start : start + size].view(dtype).reshape(shape)


def _copy(sample: Sample, target: Mapping[str, Pixels]) -> None:
    for name, array in target.items():
        values = getattr(sample, name)
        if (values.shape, values.dtype) != (array.shape, array.dtype):
            raise DamagedFileError(
                f"chip {sample.chip_id} has a {name} of {values.shape} {values.dtype}, expected {array.shape} "
                f"{array.dtype} as dataset.json says: run verify --data"
            )
        array[...] = values


def _read_into(part: Part, row: int, files: OpenFiles, target: Mapping[str, Pixels]) -> bool:
    """Read a record into the arrays that wait for it; False where it is not exactly what was expected."""
    layout = _layout(part, row, files)
    if layout is None or any(
        target[name].nbytes != size for name, size in zip(layout.names, layout.sizes, strict=True)
    ):
        return False
    gaps: list[Bytes] = [np.empty(len(gap), np.uint8) for gap in layout.gaps]
    tail = np.empty(layout.tail, np.uint8)
    pixels = [target[name] for name in layout.names]
    buffers = [buffer for pair in zip(gaps, pixels, strict=True) for buffer in pair]
    path, offset = part.place(row)
    if files.read_into(path, offset, [*buffers, tail]) != part.length[row]:
        return False
    if any(found.tobytes() != gap for found, gap in zip(gaps, layout.gaps, strict=True)):
        return False
    end = tail.tobytes()
    (crc,) = _CRC.unpack_from(end, layout.tail - _CRC.size)
    found = masked_crc(buffers[0][_HEADER_BYTES:], *buffers[1:], end[: -_CRC.size])
    named = end[layout.chip_id].decode(errors="replace")
    return found == int(crc) and named == str(part.chip_ids[row])


def _layout(part: Part, row: int, files: OpenFiles) -> Layout | None:
    """The layout of a record's length, learnt from the first record of that length; None where there is none."""
    if part.spec.encoding != "array" or part.spec.compression != "none":
        return None
    length = int(part.length[row])
    if length not in part.layouts:
        part.layouts[length] = _learn(*part.fetch(row, files))
    learnt: Layout | None = part.layouts[length]
    return learnt


def _learn(framed: Bytes, sample: Sample) -> Layout | None:
    """Find where the arrays of a sample, which are views of its record, lie in it."""
    arrays = {name: getattr(sample, name) for name in _ARRAYS}
    starts = {name: _address(array) - _address(framed) for name, array in arrays.items() if array.nbytes}
    names = tuple(sorted(starts, key=starts.__getitem__))
    gaps, end = [], 0
    for name in names:
        gaps.append(framed[end : starts[name]].tobytes())
        end = starts[name] + arrays[name].nbytes
    tail = framed[end:].tobytes()
    text = sample.chip_id.encode()
    start = tail.find(text, tail.find(b"chip_id") + len(b"chip_id"))
    if b"chip_id" not in tail or start < 0:
        return None
    sizes = tuple(arrays[name].nbytes for name in names)
    return Layout(names, sizes, tuple(gaps), len(tail), slice(start, start + len(text)))


def _address(array: npt.NDArray[Any]) -> int:
    return int(array.__array_interface__["data"][0])
