"""One chip as one ``tf.train.Example``, without TensorFlow or protobuf.

The file to change for what a record holds. The writer puts the features in one fixed order and nothing else, so the
same chip gives the same bytes; the reader takes them in any order. The wire format is in
:mod:`chipmill.dataset.examples`, pictures in :mod:`chipmill.dataset.encodings`, the frames around records in
:mod:`chipmill.dataset.framing`.
"""

import dataclasses
import hashlib
import math
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from chipmill.core.errors import DamagedFileError
from chipmill.dataset.encodings import PICTURES, Encoding, decode_picture, encode_picture, picture_bound
from chipmill.dataset.examples import Feature, Kind, example_bytes, example_parts, iter_features, varint
from chipmill.dataset.framing import FRAMING_BYTES, Compression, frame_record, write_buffers

Pixels = npt.NDArray[Any]
"""An array of the dataset's dtype."""

NO_WEIGHT: Final[npt.NDArray[np.uint8]] = np.empty((0, 0), np.uint8)
"""``Sample.weight`` of a dataset without confidences: an array, since a DataLoader takes no None."""
NO_STATIC: Final[Pixels] = np.empty((0, 0, 0), np.uint8)
"""``Sample.static`` where there is none."""
RESERVED: Final = ("image", "static", "label", "weight", "shape", "chip_id", "anchor", "crs", "transform")
"""The features of a record in the order in which they are written; ``static`` and ``weight`` only where there are."""

_TRANSFORM: Final = struct.Struct("<6d")


class Sample(NamedTuple):
    """One chip as a model sees it, with where and when it is from; a torch DataLoader collates it as it is.

    Compare samples field by field: ``==`` of two samples asks for the truth of whole arrays.
    """

    image: Pixels
    """(y, x, band), or (t, y, x, band) of a series, in the dataset's dtype; nodata is still nodata."""
    label: npt.NDArray[np.uint8]
    """(y, x): class 0..n-1, 255 = ignore."""
    chip_id: str
    anchor: str
    """Date of the sample, YYYY-MM-DD."""
    crs: str
    """``EPSG:<code>``."""
    transform: tuple[float, float, float, float, float, float]
    """Affine (a, b, c, d, e, f) from pixel (column, row) corners to CRS units."""
    weight: npt.NDArray[np.uint8] = NO_WEIGHT
    """(y, x): confidence in the label 0..254; (0, 0) where the dataset has none."""
    static: Pixels = NO_STATIC
    """(y, x, k): bands without time of a series; (0, 0, 0) where there are none, and in every other layout."""


@dataclasses.dataclass(frozen=True, slots=True)
class RecordSpec:
    """How the chips of a dataset are stored: all that writer, reader and planner of its records must agree on."""

    dtype: str
    """Of the image, and of the static bands of a series."""
    encoding: Encoding = "array"
    compression: Compression = "none"
    quality: int | None = None
    """Of JPEG, 1 to 100."""
    bands: tuple[str, ...] = ()
    """Names in the order of the image's last axis; those of a series slot by slot, then the static ones."""
    slots: int = 0
    """Length of the axis of time of a series; 0 in every other layout."""
    statics: int = 0
    """How many of the last bands of a series have no time."""
    weight: bool = False
    """Whether there is a confidence for each pixel of the label."""
    size_px: int = 0
    """Side of a chip in pixels."""

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(y, x, band), or (t, y, x, band) of a series."""
        side = (self.size_px, self.size_px)
        if not self.slots:
            return *side, len(self.bands)
        return self.slots, *side, (len(self.bands) - self.statics) // self.slots


def plain_spec(dtype: npt.DTypeLike) -> RecordSpec:
    """Return the spec of arrays of a type that are stored as they are."""
    return RecordSpec(np.dtype(dtype).newbyteorder("=").name)


def record_key(chip_id: str) -> str:
    """Return what orders the records of a shard: the sha256 of the chip id, so that neighbours are strewn."""
    return hashlib.sha256(chip_id.encode()).hexdigest()


def write_record(stream: BinaryIO, sample: Sample, spec: RecordSpec | None = None) -> tuple[int, int]:
    """Append one framed record; return its length in the file and the masked CRC-32C of its data.

    Without ``spec`` the arrays are stored as they are.
    """
    spec = spec or plain_spec(sample.image.dtype)
    buffers, length, crc = frame_record(_example_parts(sample, spec), spec.compression)
    stream.writelines(buffers)
    return length, crc


def write_records(path: Path, samples: Iterable[Sample], spec: RecordSpec) -> list[tuple[int, int, int]]:
    """Write a file of records; return (offset, length, masked CRC-32C) of each, as chips.parquet holds them."""
    places: list[tuple[int, int, int]] = []

    def framed() -> Iterator[list[Any]]:
        offset = 0
        for sample in samples:
            buffers, length, crc = frame_record(_example_parts(sample, spec), spec.compression)
            places.append((offset, length, crc))
            offset += length
            yield buffers

    with path.open("wb", buffering=0) as stream:
        write_buffers(stream, framed())
    return places


def encode_example(sample: Sample, spec: RecordSpec | None = None) -> bytes:
    """Return the serialised Example of a sample: the same bytes for the same sample, on every machine.

    With encoding ``array``, ``image`` is stored as raw little-endian numbers, ``label`` as raw uint8 (y, x), ``shape``
    as the numbers of the image's shape, ``transform`` as six little-endian float64. With ``float`` each band, the label
    and the weight are lists of float32 under their own names, row by row, as Earth Engine exports them.
    """
    return b"".join(_example_parts(sample, spec or plain_spec(sample.image.dtype)))


def record_bytes_bound(spec: RecordSpec, chip_id: str, anchor: str, crs: str) -> int:
    """Return the most bytes that a record takes in its file, from sizes alone; shards are planned with it.

    Exact where nothing is compressed: for the encodings array and float without gzip. Of the texts only the lengths
    matter.
    """
    shape, itemsize = spec.image_shape, np.dtype(spec.dtype).itemsize
    pixels = spec.size_px**2
    sizes: list[tuple[str, Kind, int]]
    if spec.encoding == "float":
        masks = ("label", "weight") if spec.weight else ("label",)
        sizes = [(name, "float", 4 * pixels) for name in (*spec.bands, *masks)]
    else:
        raw = math.prod(shape) * itemsize
        image = picture_bound(raw, shape[0]) if spec.encoding in PICTURES else raw
        sizes = [("image", "bytes", image), ("label", "bytes", pixels)]
        sizes += [("static", "bytes", pixels * spec.statics * itemsize)] if spec.statics else []
        sizes += [("weight", "bytes", pixels)] if spec.weight else []
    texts = zip(RESERVED[5:8], (chip_id, anchor, crs), strict=True)
    sizes += [(name, "bytes", len(text.encode())) for name, text in texts]
    sizes += [("shape", "int64", len(b"".join(map(varint, shape)))), ("transform", "bytes", _TRANSFORM.size)]
    length = example_bytes(sizes) + FRAMING_BYTES
    return length + length // 1000 + 64 if spec.compression == "gzip" else length


def _example_parts(sample: Sample, spec: RecordSpec) -> list[Any]:
    """Buffers whose concatenation is the Example; pixels are not copied where they already lie as stored."""
    texts = (sample.chip_id, sample.anchor, sample.crs)
    return example_parts(
        [
            *_pixel_features(sample, spec),
            ("shape", "int64", b"".join(map(varint, sample.image.shape))),
            *((name, "bytes", text.encode()) for name, text in zip(RESERVED[5:8], texts, strict=True)),
            ("transform", "bytes", _TRANSFORM.pack(*sample.transform)),
        ]
    )


def _pixel_features(sample: Sample, spec: RecordSpec) -> list[tuple[str, Kind, Any]]:
    """Name, list and content of the features that hold pixels."""
    label = np.ascontiguousarray(sample.label, np.uint8)
    masks = [("label", label)]
    if sample.weight.size:
        masks.append(("weight", np.ascontiguousarray(sample.weight, np.uint8)))
    if spec.encoding == "float":
        bands = zip(spec.bands, planes(sample), strict=True)
        return [(name, "float", np.ascontiguousarray(one, "<f4")) for name, one in (*bands, *masks)]
    found: list[tuple[str, Kind, Any]] = [("image", "bytes", _image_bytes(sample, spec))]
    if sample.static.size:
        found.append(("static", "bytes", _little(sample.static)))
    return [*found, *((name, "bytes", mask) for name, mask in masks)]


def _image_bytes(sample: Sample, spec: RecordSpec) -> Any:
    if spec.encoding not in PICTURES:
        return _little(sample.image)
    return encode_picture(
        sample.image,
        spec.encoding,
        crs=sample.crs,
        transform=sample.transform,
        quality=spec.quality,
        names=spec.bands,
    )


def _little(pixels: Pixels) -> Pixels:
    return np.ascontiguousarray(pixels, dtype=pixels.dtype.newbyteorder("<"))


def planes(sample: Sample) -> list[Pixels]:
    """Return all bands of a sample as views (y, x), in the order of the manifest: slot by slot, then the static ones."""
    slots = sample.image if sample.image.ndim == 4 else sample.image[np.newaxis]
    return [
        *(band for slot in slots for band in np.moveaxis(slot, -1, 0)),
        *np.moveaxis(sample.static, -1, 0),
    ]


def decode_example(data: bytes, how: RecordSpec | npt.DTypeLike, where: str = "a record") -> Sample:
    """Return the sample of a serialised Example, its features in any order.

    Arrays that were stored as they are, are read-only views of ``data``. ``how`` is the spec of the dataset; a type
    alone stands for arrays of it. Raises DamagedFileError, naming ``where``, when a feature is missing or the bytes
    are no Example of this kind.
    """
    spec = how if isinstance(how, RecordSpec) else plain_spec(how)
    try:
        found = dict(iter_features(data))
        shape = found["shape"].ints
        if len(shape) not in (3, 4) or min(shape) < 1:
            raise ValueError(f"shape {shape}")
        chip_id, anchor, crs = (bytes(found[name].raw).decode() for name in RESERVED[5:8])
        image, static = _images(found, spec, shape, where)
        return Sample(
            image=image,
            label=_mask(found["label"], shape),
            chip_id=chip_id,
            anchor=anchor,
            crs=crs,
            transform=_TRANSFORM.unpack(found["transform"].raw),
            weight=_mask(found["weight"], shape) if "weight" in found else NO_WEIGHT,
            static=static,
        )
    except (KeyError, IndexError, ValueError, struct.error) as error:
        raise DamagedFileError(
            f"{where} is not a record of this dataset ({type(error).__name__}: {error}): run verify --data on it"
        ) from error


def _images(
    found: dict[str, Feature], spec: RecordSpec, shape: list[int], where: str
) -> tuple[Pixels, Pixels]:
    """The image and the static bands of a record's features."""
    side, dtype = tuple(shape[-3:-1]), np.dtype(spec.dtype).newbyteorder("<")
    if spec.encoding == "float":
        bands = [_whole(found[name].floats, dtype).reshape(side) for name in spec.bands]
        own = len(bands) - spec.statics
        times = shape[0] if len(shape) == 4 else 1
        image = np.stack(bands[:own], axis=-1).reshape(*side, times, -1).transpose(2, 0, 1, 3)
        static = np.stack(bands[own:], axis=-1) if spec.statics else NO_STATIC
        return np.ascontiguousarray(image).reshape(shape), static
    raw = found["image"].raw
    if spec.encoding in PICTURES:
        image = decode_picture(raw, spec.encoding, where)
        if (list(image.shape), image.dtype) != (shape, np.dtype(spec.dtype)):
            raise ValueError(f"a picture of {image.shape} {image.dtype}, expected {shape} {spec.dtype}")
        return image, NO_STATIC
    static = NO_STATIC
    if "static" in found:
        static = np.frombuffer(found["static"].raw, dtype).reshape(*side, -1)
    return np.frombuffer(raw, dtype).reshape(shape), static


def _mask(feature: Feature, shape: list[int]) -> npt.NDArray[np.uint8]:
    """A label or weight (y, x), as raw bytes or as a list of floats."""
    values = (
        np.frombuffer(feature.raw, np.uint8)
        if feature.kind == "bytes"
        else _whole(feature.floats, np.dtype(np.uint8))
    )
    return values.reshape(shape[-3:-1])


def _whole(values: npt.NDArray[np.float32], dtype: np.dtype[Any]) -> Pixels:
    """Floats as the integers that they were written from; raises ValueError where one is none of this type."""
    with np.errstate(invalid="ignore"):
        numbers = values.astype(dtype)
    if (numbers != values).any():
        raise ValueError(f"a list holds numbers that are no {dtype}")
    return numbers
