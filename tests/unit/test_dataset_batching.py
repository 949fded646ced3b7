"""Batches hold what single samples hold, whatever the records' form; damage and other orders are never read as data."""

import numpy as np
import pyarrow as pa
import pytest

from chipmill.core.errors import DamagedFileError
from chipmill.dataset.batching import read_batch
from chipmill.dataset.examples import example_parts, iter_features
from chipmill.dataset.framing import frame_record
from chipmill.dataset.opening import OpenFiles, Part
from chipmill.dataset.records import NO_STATIC, NO_WEIGHT, RecordSpec, Sample, encode_example

SIDE, COUNT = 20, 12
BANDS = ("a", "b", "c", "d")
SPECS = [
    RecordSpec("uint16", bands=BANDS, size_px=SIDE),
    RecordSpec("int16", bands=BANDS, size_px=SIDE, weight=True),
    RecordSpec("int16", bands=(*BANDS, "e"), slots=2, statics=1, size_px=SIDE, weight=True),
    RecordSpec("int16", bands=BANDS, size_px=SIDE, compression="gzip"),
    RecordSpec("uint16", bands=BANDS, size_px=SIDE, encoding="png"),
    RecordSpec("int32", bands=BANDS, size_px=SIDE, encoding="geotiff", weight=True),
    RecordSpec("int16", bands=(*BANDS, "e"), slots=2, statics=1, size_px=SIDE, encoding="float"),
]
PLAIN = [one for one in SPECS if one.encoding == "array" and one.compression == "none"]


def sample(spec, number):
    rng = np.random.default_rng(number)

    def noise(shape, dtype, most):
        return rng.integers(0, most, shape).astype(dtype)

    return Sample(
        noise(spec.image_shape, spec.dtype, 30_000),
        noise((SIDE, SIDE), np.uint8, 256),
        f"32633-0a1b2c3d_{10 ** (number % 3)}_{number}_2019-01-01",  # of several lengths
        "2019-01-01",
        "EPSG:32633",
        (10.0, 0.0, number, 0.0, -10.0, 0.0),
        noise((SIDE, SIDE), np.uint8, 255) if spec.weight else NO_WEIGHT,
        noise((SIDE, SIDE, spec.statics), spec.dtype, 30_000) if spec.statics else NO_STATIC,
    )


def part_of(folder, spec, samples, encode=encode_example):
    """Samples in a file, and their index as a part of a dataset."""
    path, lengths = folder / "train-00000-of-00001.tfrecord", []
    with path.open("wb") as stream:
        for one in samples:
            buffers, length, _ = frame_record([encode(one, spec)], spec.compression)
            stream.writelines(buffers)
            lengths.append(length)
    ids = pa.array([one.chip_id for one in samples])
    ends = np.cumsum(lengths)
    part = Part(folder, None, spec, ids, np.zeros(len(samples), int), ends - lengths, np.array(lengths))
    vars(part)["files"] = (path,)
    return part


def read(part, places):
    return read_batch([(part, place) for place in places], OpenFiles())


def backwards(one, spec):
    """The same Example with its features in another order, as other programs write them."""
    features = [
        (name, feature.kind, b"".join(feature.parts))
        for name, feature in iter_features(encode_example(one, spec))
    ]
    return b"".join(map(bytes, example_parts(features[::-1])))


@pytest.mark.parametrize("encode", [encode_example, backwards])
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.encoding} {spec.compression} {spec.slots}")
def test_a_batch_is_the_stack_of_its_samples(tmp_path, spec, encode):
    samples = [sample(spec, number) for number in range(COUNT)]
    part = part_of(tmp_path, spec, samples, encode)
    places = [7, 3, 3, *range(COUNT)]
    for batch in (read(part, places), read(part, places)):  # with forms of records learnt, and known
        for name in ("image", "label", "weight", "static"):
            expected = np.stack([getattr(samples[place], name) for place in places])
            found = getattr(batch, name)
            np.testing.assert_array_equal(found, expected)
            assert (found.dtype, found.flags.writeable) == (expected.dtype, True)
        assert batch.chip_id == tuple(samples[place].chip_id for place in places)


@pytest.mark.parametrize("spec", PLAIN, ids=lambda spec: f"{spec.slots} {spec.weight}")
def test_plain_records_are_decoded_once_for_each_length(tmp_path, spec, monkeypatch):
    part = part_of(tmp_path, spec, [sample(spec, number) for number in range(COUNT)])
    decoded = []
    fetch = Part.fetch

    def counted(self, row, files):
        decoded.append(row)
        return fetch(self, row, files)

    monkeypatch.setattr(Part, "fetch", counted)
    read(part, range(COUNT))
    assert len(decoded) == len(set(part.length.tolist())) > 1
    read(part, range(COUNT))
    assert len(decoded) == len(set(part.length.tolist()))


@pytest.mark.parametrize("spec", PLAIN, ids=lambda spec: f"{spec.slots} {spec.weight}")
def test_one_changed_byte_anywhere_is_found(tmp_path, spec):
    part = part_of(tmp_path, spec, [sample(spec, number) for number in range(COUNT)])
    read(part, range(COUNT))
    good, start, length = part.files[0].read_bytes(), int(part.offset[7]), int(part.length[7])
    rng = np.random.default_rng(1)
    for at in {*range(60), *range(length - 300, length), *rng.integers(0, length, 40).tolist()}:
        bad = bytearray(good)
        bad[start + at] ^= 1 << int(rng.integers(8))
        part.files[0].write_bytes(bad)
        with pytest.raises(DamagedFileError, match=r"checksum|length"):
            read(part, [6, 7, 8])
    part.files[0].write_bytes(good[: start + length - 3])
    with pytest.raises(DamagedFileError, match="expected a record of"):
        read(part, [6, 7])


def test_a_record_at_the_place_of_another_is_found(tmp_path):
    spec = SPECS[0]
    part = part_of(tmp_path, spec, [sample(spec, number) for number in range(COUNT)])
    read(part, range(COUNT))
    assert part.length[0] == part.length[3]
    part.offset[0], part.offset[3] = part.offset[3], part.offset[0]
    with pytest.raises(DamagedFileError, match="found chip 32633-0a1b2c3d_1_3_2019-01-01"):
        read(part, [0])


def test_a_chip_of_another_size_is_refused(tmp_path):
    spec = SPECS[0]
    odd = sample(spec, 5)._replace(image=np.ones((SIDE, SIDE + 1, 4), np.uint16), label=np.ones((SIDE, SIDE + 1), np.uint8))  # fmt: skip
    part = part_of(tmp_path, spec, [sample(spec, 4), odd])
    with pytest.raises(
        DamagedFileError, match=r"has a image of \(20, 21, 4\) uint16, expected \(20, 20, 4\)"
    ):
        read(part, [0, 1])
