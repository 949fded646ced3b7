"""Records: golden bytes, framing, and every damage that a reader must not swallow."""

import io
import struct

import numpy as np
import pytest

from chipmill.core.errors import DamagedFileError
from chipmill.dataset.framing import FRAMING_BYTES, iter_frames, masked_crc
from chipmill.dataset.records import (
    RecordSpec,
    Sample,
    decode_example,
    encode_example,
    record_bytes_bound,
    write_record,
)

TRANSFORM = (10.0, 0.0, 500_000.0, 0.0, -10.0, 5_100_000.0)
GOLDEN = bytes.fromhex(
    "0ae001"  # Example.features, 224 bytes
    "0a150a05696d616765120c0a0a0a080080e883d087b88b"  # image: -32768 -31768 -30768 -29768
    "0a0f0a056c6162656c12060a040a0200ff"  # label: 0 255
    "0a100a05736861706512071a050a03010202"  # shape: 1 2 2, packed
    "0a300a07636869705f696412250a230a2133323633332d30613162326333645f36345f2d3132385f323031392d30312d3031"
    "0a180a06616e63686f72120e0a0c0a0a323031392d30312d3031"
    "0a150a03637273120e0a0c0a0a455053473a3332363333"
    "0a410a097472616e73666f726d12340a320a30"
    "0000000000002440"
    "0000000000000000"
    "0000000080841e41"
    "0000000000000000"
    "00000000000024c0"
    "0000000078745341"
)


def sample(rows=1, cols=2, bands=2, chip_id="32633-0a1b2c3d_64_-128_2019-01-01", dtype="int16"):
    count = rows * cols * bands
    image = (np.arange(count) * 1000 - 32768 if dtype == "int16" else np.arange(count)).astype(dtype)
    label = (np.arange(rows * cols) % 3).astype(np.uint8)
    label[-1] = 255
    return Sample(
        image.reshape(rows, cols, bands),
        label.reshape(rows, cols),
        chip_id,
        "2019-01-01",
        "EPSG:32633",
        TRANSFORM,
    )


def same(one, other):
    return (
        np.array_equal(one.image, other.image)
        and one.image.dtype == other.image.dtype
        and np.array_equal(one.label, other.label)
        and (one.chip_id, one.anchor, one.crs, one.transform)
        == (other.chip_id, other.anchor, other.crs, other.transform)
    )


def write(path, samples):
    with path.open("wb") as stream:
        return [write_record(stream, one) for one in samples]


def test_the_bytes_of_a_record_are_golden():
    assert encode_example(sample()) == GOLDEN


def test_a_framed_record_is_golden():
    stream = io.BytesIO()
    length, crc = write_record(stream, sample())
    framed = stream.getvalue()
    assert (length, len(framed)) == (len(GOLDEN) + FRAMING_BYTES,) * 2
    assert framed[:8] == struct.pack("<Q", len(GOLDEN))
    assert framed[12:-4] == GOLDEN
    assert struct.unpack("<I", framed[-4:]) == (crc,)


def test_masked_crc_of_known_data():
    # CRC-32C of "123456789" is 0xe3069283 (RFC 3720, B.4); rotated by 15 and 0xa282ead8 added
    crc = 0xE3069283
    assert masked_crc(b"123456789") == (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF
    assert masked_crc(b"1234", b"56789") == masked_crc(b"123456789")


@pytest.mark.parametrize("dtype", ["int16", "uint16", "uint8"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (16, 16, 3), (64, 48, 11)])
def test_a_record_comes_back_as_it_was(dtype, shape):
    one = sample(*shape, dtype=dtype)
    assert same(decode_example(encode_example(one), dtype), one)


def test_big_endian_and_strided_pixels_give_the_same_bytes():
    one = sample(8, 8, 4)
    image = np.asfortranarray(one.image.astype(">i2"))
    other = Sample(image, np.asfortranarray(one.label), one.chip_id, one.anchor, one.crs, one.transform)
    assert encode_example(other) == encode_example(one)


@pytest.mark.parametrize("shape", [(1, 1, 1), (16, 16, 3), (32, 32, 40), (128, 128, 11)])
@pytest.mark.parametrize("chip_id", ["a", "32633-0a1b2c3d_-1234567_7654321_2019-01-01", "x" * 200])
def test_the_length_is_known_before_the_record_is(shape, chip_id):
    one = sample(*shape, chip_id=chip_id)
    spec = RecordSpec("int16", bands=("b",) * shape[2], size_px=shape[0])
    wanted = len(encode_example(one)) + FRAMING_BYTES
    assert record_bytes_bound(spec, chip_id, one.anchor, one.crs) == wanted


def test_features_are_read_in_any_order():
    body = GOLDEN[3:]
    entries, at = [], 0
    while at < len(body):
        end = at + 2 + body[at + 1]
        entries.append(body[at:end])
        at = end
    assert len(entries) == 7
    turned = GOLDEN[:3] + b"".join(reversed(entries))
    assert turned != GOLDEN
    assert same(decode_example(turned, "int16"), sample())


@pytest.mark.parametrize("cut", range(0, len(GOLDEN), 7))
def test_a_cut_example_is_an_error(cut):
    with pytest.raises(DamagedFileError, match="here is not a record"):
        decode_example(GOLDEN[:cut], "int16", "here")


def test_another_dtype_is_an_error():
    with pytest.raises(DamagedFileError):
        decode_example(GOLDEN, "int32")


def test_frames_lie_one_after_the_other(tmp_path):
    samples = [sample(8, 8, 3, chip_id=f"c{number}") for number in range(5)]
    written = write(tmp_path / "s", samples)
    frames = list(iter_frames(tmp_path / "s"))
    assert [(frame.length, frame.crc) for frame in frames] == written
    assert [frame.offset for frame in frames] == [sum(length for length, _ in written[:k]) for k in range(5)]
    assert all(same(decode_example(f.data, "int16"), s) for f, s in zip(frames, samples, strict=True))


def test_every_changed_byte_is_found(tmp_path):
    path = tmp_path / "s"
    write(path, [sample(), sample(chip_id="other")])
    good = path.read_bytes()
    for at in range(len(good)):
        path.write_bytes(good[:at] + bytes([good[at] ^ 4]) + good[at + 1 :])
        with pytest.raises(DamagedFileError, match="at byte"):
            list(iter_frames(path))


def test_a_shard_cut_inside_a_record_is_found_and_at_its_end_is_not(tmp_path):
    path = tmp_path / "s"
    (first, _), _ = write(path, [sample(), sample(chip_id="other")])
    good = path.read_bytes()
    for length in range(len(good)):
        path.write_bytes(good[:length])
        if length in (0, first):  # why the manifest names sizes and counts
            assert len(list(iter_frames(path))) == (length > 0)
            continue
        with pytest.raises(DamagedFileError):
            list(iter_frames(path))
