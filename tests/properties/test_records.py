"""Records of any size, type, layout and encoding come back as they were; bytes that are none are an error of ours."""

import contextlib
import dataclasses
import io

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from chipmill.core.errors import DamagedFileError
from chipmill.dataset.framing import iter_stream, unframe
from chipmill.dataset.records import (
    NO_STATIC,
    NO_WEIGHT,
    RecordSpec,
    Sample,
    decode_example,
    encode_example,
    record_bytes_bound,
    write_record,
)


@st.composite
def specs(draw):
    encoding = draw(st.sampled_from(["array", "float", "geotiff", "png"]))
    series = encoding in ("array", "float") and draw(st.booleans())
    if series:
        slots, statics = draw(st.integers(1, 4)), draw(st.integers(0, 3))
        bands = slots * draw(st.integers(1, 3)) + statics
    else:
        slots = statics = 0
        bands = draw(st.sampled_from([1, 3, 4])) if encoding == "png" else draw(st.integers(1, 6))
    types = {"png": ["uint8", "uint16"], "float": ["uint8", "int16", "uint16"]}
    return RecordSpec(
        draw(st.sampled_from(types.get(encoding, ["uint8", "int16", "uint16", "int32"]))),
        encoding,
        draw(st.sampled_from(["none", "gzip"])),
        bands=tuple(f"b{number}" for number in range(bands)),
        slots=slots,
        statics=statics,
        weight=draw(st.booleans()),
        size_px=draw(st.integers(1, 40)),
    )


@st.composite
def chips(draw):
    how, seed = draw(specs()), draw(st.integers(0, 2**32 - 1))
    rng, info = np.random.default_rng(seed), np.iinfo(how.dtype)
    side = (how.size_px, how.size_px)

    def noise(shape):
        return rng.integers(info.min, info.max, shape, dtype=how.dtype, endpoint=True)

    mask = rng.integers(0, 256, (2, *side), dtype=np.uint8)
    return how, Sample(
        noise(how.image_shape),
        mask[0],
        draw(st.text(min_size=1, max_size=300)),
        "2019-01-01",
        draw(st.sampled_from(["EPSG:32633", ""])),
        (2.0, 0.0, 7.5, 0.0, -2.0, 1e6),
        mask[1] if how.weight else NO_WEIGHT,
        noise((*side, how.statics)) if how.statics else NO_STATIC,
    )


@given(chips())
def test_a_record_comes_back_as_it_was_and_is_no_larger_than_planned(chip):
    how, one = chip
    stream = io.BytesIO()
    length, crc = write_record(stream, one, how)
    framed = stream.getvalue()
    assert length == len(framed) <= record_bytes_bound(how, one.chip_id, one.anchor, one.crs)
    data, found = unframe(framed, "here", how.compression)
    assert found == crc
    back = decode_example(data, how)
    for name, value in one._asdict().items():
        np.testing.assert_array_equal(getattr(back, name), value, err_msg=name)
    assert back.image.dtype == one.image.dtype


@given(chips(), st.data())
def test_bytes_that_are_no_record_are_an_error_of_ours(chip, data):
    how, one = chip
    good = bytearray(encode_example(one, dataclasses.replace(how, compression="none")))
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, min(len(good), 400) - 1))  # where names, sizes and kinds are
        good[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(good)))
    for bad in (bytes(good), bytes(good[:cut])):
        with contextlib.suppress(DamagedFileError):
            assert isinstance(decode_example(bad, how, "here"), Sample)


@given(st.binary(max_size=200))
def test_any_bytes_are_records_or_an_error_of_ours(data):
    with contextlib.suppress(DamagedFileError):
        assert sum(frame.length for frame in iter_stream(io.BytesIO(data), "here")) == len(data)
    with contextlib.suppress(DamagedFileError):
        unframe(data, "here", "gzip")
