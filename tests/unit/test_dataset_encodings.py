"""Every encoding, compression and layout of a record comes back as it was, and what cannot be held is refused."""

import contextlib
import dataclasses
import errno
import gzip
import io
import os
import zlib

import numpy as np
import pytest

from chipmill.core.errors import BadInputError, DamagedFileError
from chipmill.dataset import framing
from chipmill.dataset.encodings import check_encoding, decode_picture, encode_picture
from chipmill.dataset.examples import iter_features
from chipmill.dataset.framing import iter_frames, unframe
from chipmill.dataset.records import (
    NO_STATIC,
    NO_WEIGHT,
    RecordSpec,
    Sample,
    decode_example,
    encode_example,
    record_bytes_bound,
    write_record,
    write_records,
)

SIDE = 24


def spec(dtype="int16", bands=3, **changes):
    names = tuple(f"b{number}" for number in range(bands))
    return RecordSpec(dtype, bands=names, size_px=SIDE, **changes)


def sample(how, number=0):
    """A chip of noise that fits a spec."""
    rng = np.random.default_rng(number)
    info = np.iinfo(how.dtype)

    def noise(shape, dtype=how.dtype):
        return rng.integers(info.min, info.max, shape, dtype=dtype, endpoint=True)

    return Sample(
        noise(how.image_shape),
        rng.integers(0, 256, (SIDE, SIDE), dtype=np.uint8),
        f"32633-0a1b2c3d_{64 * number}_-128_2019-01-01",
        "2019-01-01",
        "EPSG:32633",
        (10.0, 0.0, 5e5 + number, 0.0, -10.0, 5.1e6),
        rng.integers(0, 255, (SIDE, SIDE), dtype=np.uint8) if how.weight else NO_WEIGHT,
        noise((SIDE, SIDE, how.statics)) if how.statics else NO_STATIC,
    )


def assert_same(one, other):
    for name, value in one._asdict().items():
        got = getattr(other, name)
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(got, value, err_msg=name)
            assert (got.dtype, got.shape) == (value.dtype, value.shape), name
        else:
            assert got == value


LOSSLESS = [
    spec(),
    spec("uint16", 4),
    spec("int32", 2),
    spec("uint8", 1, weight=True),
    spec("uint8", 1, encoding="png"),
    spec("uint8", 3, encoding="png", weight=True),
    spec("uint16", 2, encoding="png"),
    spec("uint16", 4, encoding="png"),
    spec("int16", 6, encoding="geotiff"),
    spec("uint8", 1, encoding="geotiff", weight=True),
    spec("int16", 3, encoding="float"),
    spec("uint16", 2, encoding="float", weight=True),
    spec("int16", 6, slots=3),
    spec("uint16", 7, slots=2, statics=1, weight=True),
    spec("int16", 8, slots=3, statics=2, encoding="float"),
]


@pytest.mark.parametrize("compression", ["none", "gzip"])
@pytest.mark.parametrize(
    "how", LOSSLESS, ids=lambda one: f"{one.encoding}-{one.dtype}-{len(one.bands)}-{one.slots}"
)
def test_a_record_comes_back_as_it_was(how, compression, tmp_path):
    how = dataclasses.replace(how, compression=compression)
    samples = [sample(how, number) for number in range(3)]
    path = tmp_path / "s"
    with path.open("wb") as stream:
        written = [write_record(stream, one, how) for one in samples]
    frames = list(iter_frames(path, compression))
    assert [(frame.length, frame.crc) for frame in frames] == written
    data = path.read_bytes()
    for one, frame in zip(samples, frames, strict=True):
        assert_same(one, decode_example(frame.data, how))
        framed = data[frame.offset : frame.offset + frame.length]
        assert unframe(framed, "here", compression) == (frame.data, frame.crc)


@pytest.mark.parametrize("compression", ["none", "gzip"])
@pytest.mark.parametrize("how", [*LOSSLESS, spec("uint8", 3, encoding="jpeg", quality=100)])
def test_no_record_is_larger_than_planned(how, compression):
    how = dataclasses.replace(how, compression=compression)
    one, stream = sample(how), io.BytesIO()
    length, _ = write_record(stream, one, how)
    bound = record_bytes_bound(how, one.chip_id, one.anchor, one.crs)
    assert length <= bound
    if compression == "none" and how.encoding in ("array", "float"):
        assert length == bound


def test_a_jpeg_is_near_and_its_label_is_exact():
    how = spec("uint8", 3, encoding="jpeg", quality=95)
    smooth = np.linspace(0, 255, SIDE * SIDE * 3).reshape(SIDE, SIDE, 3).astype(np.uint8)
    one = sample(how)._replace(image=smooth)
    found = decode_example(encode_example(one, how), how)
    assert int(np.abs(found.image.astype(int) - one.image).max()) < 20
    np.testing.assert_array_equal(found.label, one.label)
    poor = dataclasses.replace(how, quality=10)
    assert len(encode_example(one, poor)) < len(encode_example(one, how))


@pytest.mark.parametrize("how", LOSSLESS)
def test_the_same_sample_gives_the_same_bytes(how):
    assert encode_example(sample(how), how) == encode_example(sample(how), how)


def test_a_geotiff_knows_its_place_and_bands(tmp_path):
    import rasterio

    how = spec("int16", 3, encoding="geotiff")
    one = sample(how)
    features = dict(iter_features(encode_example(one, how)))
    (tmp_path / "chip.tif").write_bytes(features["image"].raw)
    with rasterio.open(tmp_path / "chip.tif") as source:
        assert source.crs.to_epsg() == 32633
        assert tuple(source.transform)[:6] == one.transform
        assert source.descriptions == how.bands
        np.testing.assert_array_equal(np.moveaxis(source.read(), 0, -1), one.image)


def test_gzip_has_neither_time_nor_name_and_is_one_stream(tmp_path):
    how = spec(compression="gzip")
    path = tmp_path / "s.gz"
    with path.open("wb") as stream:
        for number in range(3):
            write_record(stream, sample(how, number), how)
    plain = io.BytesIO()
    for number in range(3):
        write_record(plain, sample(how, number))
    assert gzip.decompress(path.read_bytes()) == plain.getvalue()
    for frame in iter_frames(path, "gzip"):
        header = path.read_bytes()[frame.offset : frame.offset + 10]
        assert header[:3] == b"\x1f\x8b\x08"
        assert header[3] == 0  # no name, no comment
        assert header[4:8] == bytes(4)  # no time


def test_damage_in_gzip_is_found(tmp_path):
    how = spec("uint8", 1, compression="gzip")
    path = tmp_path / "s.gz"
    with path.open("wb") as stream:
        first, _ = write_record(stream, sample(how), how)
        write_record(stream, sample(how, 1), how)
    good, whole = path.read_bytes(), [frame.data for frame in iter_frames(path, "gzip")]
    harmless = 0
    for at in range(10, len(good), 37):
        if first <= at < first + 10:  # the header of a member: only the hash of the file knows
            continue
        path.write_bytes(good[:at] + bytes([good[at] ^ 16]) + good[at + 1 :])
        # a bit between two blocks of deflate means nothing
        with contextlib.suppress(DamagedFileError):
            assert [frame.data for frame in iter_frames(path, "gzip")] == whole
            harmless += 1
    assert harmless < 3
    for length in (5, first - 1, first + 3, len(good) - 1):
        path.write_bytes(good[:length])
        with pytest.raises(DamagedFileError, match="at byte"):
            list(iter_frames(path, "gzip"))
    path.write_bytes(good)
    with pytest.raises(DamagedFileError, match="found its end elsewhere"):
        unframe(good, "here", "gzip")
    with pytest.raises(DamagedFileError, match="cut inside its header"):
        unframe(zlib.compress(b"few", wbits=31), "here", "gzip")


@pytest.mark.parametrize(
    ("encoding", "dtype", "bands", "series", "said"),
    [
        ("png", "int16", 3, False, "1, 3 or 4 bands of uint8 or uint16"),
        ("png", "uint8", 2, False, "1, 3 or 4 bands"),
        ("png", "uint8", 5, False, "region r has 5 bands of uint8"),
        ("jpeg", "uint16", 3, False, "1 or 3 bands of uint8"),
        ("jpeg", "uint8", 4, False, "1 or 3 bands of uint8"),
        ("geotiff", "int16", 3, True, "no axis of time"),
        ("float", "int32", 2, False, "at most 16 bits"),
    ],
)
def test_what_an_encoding_cannot_hold_is_refused(encoding, dtype, bands, series, said):
    with pytest.raises(BadInputError, match=said):
        check_encoding(encoding, dtype, bands, series=series, where="region r")


def test_another_picture_than_the_manifest_says_is_an_error():
    how = spec("uint8", 3, encoding="png")
    data = encode_example(sample(how), how)
    for other in (dataclasses.replace(how, dtype="uint16"), dataclasses.replace(how, encoding="jpeg")):
        with pytest.raises(DamagedFileError, match="here"):
            decode_example(data, other, "here")


@pytest.mark.parametrize(
    ("encoding", "dtype"), [("png", "uint8"), ("png", "uint16"), ("jpeg", "uint8"), ("geotiff", "int16")]
)
def test_a_picture_that_is_cut_is_an_error_and_never_what_lay_in_memory(encoding, dtype):
    picture = encode_picture(sample(spec(dtype, 3)).image, encoding)
    for length in (10, 100, len(picture) // 2, len(picture) - 40):
        with pytest.raises(DamagedFileError, match=f"here holds no readable {encoding}"):
            decode_picture(picture[:length], encoding, "here")


def test_a_list_where_bytes_are_expected_is_an_error():
    how = spec("int16", 2, encoding="float")
    data = encode_example(sample(how), how)
    with pytest.raises(DamagedFileError, match="KeyError"):
        decode_example(data, dataclasses.replace(how, encoding="array"))
    array = spec("int16", 2)
    with pytest.raises(DamagedFileError, match="a float list was expected"):
        decode_example(encode_example(sample(array), array), dataclasses.replace(how, bands=("label",)))


# whole files


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_a_file_holds_what_the_records_are_one_by_one(compression, tmp_path, monkeypatch):
    monkeypatch.setattr(framing, "_PIECE_BYTES", 3000)  # several pieces
    how = spec(compression=compression, weight=True)
    samples = [sample(how, number) for number in range(7)]
    stream = io.BytesIO()
    lengths = [write_record(stream, one, how) for one in samples]
    places = write_records(tmp_path / "s", iter(samples), how)
    assert (tmp_path / "s").read_bytes() == stream.getvalue()
    assert [place[1:] for place in places] == lengths
    assert [place[0] for place in places] == [sum(length for length, _ in lengths[:at]) for at in range(7)]
    assert write_records(tmp_path / "empty", [], how) == []
    assert (tmp_path / "empty").read_bytes() == b""


@pytest.mark.parametrize("most", [1, 7, 4096])
def test_a_system_that_takes_a_part_is_given_the_rest(most, tmp_path, monkeypatch):
    real = os.writev

    def writev(handle, buffers):
        return real(handle, [memoryview(buffers[0])[:most]])

    how = spec("uint8", 1)
    whole = write_records(tmp_path / "whole", [sample(how)], how)
    monkeypatch.setattr(framing.os, "writev", writev)
    assert write_records(tmp_path / "parts", [sample(how)], how) == whole
    assert (tmp_path / "parts").read_bytes() == (tmp_path / "whole").read_bytes()


def test_a_full_disk_is_not_swallowed(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(framing.os, "writev", full)
    with pytest.raises(OSError, match="full"):
        write_records(tmp_path / "s", [sample(spec())], spec())


@pytest.mark.parametrize("value", [0.5, -1.0, 256.0, np.nan, np.inf])
def test_a_list_of_other_numbers_than_the_type_has_is_an_error_and_not_cast(value):
    how = spec("uint8", 1, encoding="float")
    one = sample(how)
    good = encode_example(one, how)
    wrong = good.replace(np.float32(one.label[:1]).tobytes(), np.full((1, SIDE), value, "<f4").tobytes())
    assert wrong != good
    with pytest.raises(DamagedFileError, match="numbers that are no uint8"):
        decode_example(wrong, how)
