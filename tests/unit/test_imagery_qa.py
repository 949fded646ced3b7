"""Quality bits and cloud probabilities: published values of Landsat and HLS, wrong expressions, what a mask may hold.

The values are those that the USGS product guides list for pixel_qa of Collection 1 and QA_PIXEL of Collection 2, each
under what the guide calls it.
"""

import re

import numpy as np
import pytest
from pydantic import ValidationError

from chipmill.core.errors import AssetMismatchError, RegionFileError
from chipmill.imagery.masks import CLEAR, DROPPED, UNOBSERVED, classify, look_up_table
from chipmill.region.imagery import Mask
from chipmill.region.load import load_region
from chipmill.region.qa import PRODUCTS, parse_qa

C2 = {  # OLI/TIRS, then TM/ETM+
    "clear": (21824, 5440),
    "dilated cloud": (21826, 5442),
    "water": (21888, 5504),
    "dilated cloud over water": (21890, 5506),
    "mid confidence cloud": (22080, 5696),
    "mid confidence cloud over water": (22144, 5760),
    "high confidence cloud": (22280, 5896),
    "cloud shadow": (23888, 7440),
    "water with cloud shadow": (23952, 7568),
    "mid confidence cloud with shadow": (24088, 7696),
    "mid confidence cloud with shadow over water": (24216, 7824),
    "high confidence cloud with shadow": (24344, 7960),
    "high confidence cloud with shadow over water": (24472, 8088),
    "snow": (30048, 13664),
    "high confidence cirrus": (54596,),
    "cirrus, mid cloud": (54852,),
    "cirrus, high cloud": (55052,),
}
C1 = {
    "clear": (322, 386, 834, 898, 1346, 66, 130),
    "water": (324, 388, 836, 900, 1348, 68, 132),
    "cloud_shadow": (328, 392, 840, 904, 72, 136),
    "snow": (336, 368, 400, 432, 848, 880, 912, 944, 80, 112, 144, 176),
    "cloud": (352, 368, 416, 432, 480, 864, 880, 928, 944, 992, 96, 112, 160, 176, 224),
    "cloud_confidence = low": (322, 324, 328, 336, 352, 368, 834, 836, 840, 848, 864, 880, 66, 68, 72, 80, 96, 112),
    "cloud_confidence = medium": (386, 388, 392, 400, 416, 432, 898, 900, 904, 912, 928, 944, 130, 132, 136, 144),
    "cloud_confidence = high": (480, 992, 224),
    "cirrus_confidence = low": (322, 324, 328, 336, 352, 368, 386, 388, 392, 400, 416, 432, 480),
    "cirrus_confidence = high": (834, 836, 840, 848, 864, 880, 898, 900, 904, 912, 928, 944, 992),
    "terrain_occlusion": (1346, 1348),
    "fill": (1,),
}  # fmt: skip


def table(qa, dtype="<u2", **more):
    return look_up_table(Mask(asset="qa", qa=qa, **more), dtype)


def said(qa, *values, dtype=np.uint16, **more):
    """What a mask says of some values: c(lear), d(ropped), u(nobserved)."""
    pixels = np.array([values], dtype)
    clear, dropped = classify(pixels, np.ones(pixels.shape, bool), Mask(asset="qa", qa=qa, **more))
    return "".join("c" if c else "d" if d else "u" for c, d in zip(clear[0], dropped[0], strict=True))


def test_collection_2_values_that_are_published():
    whole = table("landsat-c2")
    kept = {"clear", "water", "mid confidence cloud", "mid confidence cloud over water", "snow"}
    for name, values in C2.items():
        for value in values:
            assert whole[value] == (CLEAR if name in kept else DROPPED), (name, value)
    assert whole[1] == UNOBSERVED
    high = table("landsat-c2: cloud_confidence = high")
    assert {value for name in C2 for value in C2[name] if high[value]} == {
        *C2["high confidence cloud"], *C2["high confidence cloud with shadow"],
        *C2["high confidence cloud with shadow over water"], *C2["cirrus, high cloud"],
    }  # fmt: skip
    cirrus = table("landsat-c2: cirrus_confidence = high")
    assert [value for name in C2 for value in C2[name] if cirrus[value]] == [54596, 54852, 55052]
    snow = table("landsat-c2: snow_confidence = high")
    assert [value for name in C2 for value in C2[name] if snow[value]] == [30048, 13664]


@pytest.mark.parametrize("name", C1)
def test_collection_1_values_that_are_published(name):
    found = table(f"landsat-c1: {name}")
    assert [value for value in C1[name] if found[value] != (UNOBSERVED if name == "fill" else DROPPED)] == []
    known = {value for values in C1.values() for value in values} - {1}
    if name in ("clear", "water", "cloud_shadow", "snow", "cloud"):  # the guide lists them in full
        assert {value for value in known if found[value] == DROPPED} - {1346, 1348} == set(C1[name]) - {
            1346,
            1348,
        }


@pytest.mark.parametrize(
    ("product", "bits", "dropped", "fill"),
    [
        ("landsat-c1", 16, lambda v: v >> 3 & 1 or v >> 5 & 1 or v >> 8 & 3 == 3, lambda v: v & 1),
        ("landsat-c2", 16, lambda v: v & 0b11110, lambda v: v & 1),
        ("hls-fmask", 8, lambda v: v & 0b1110, lambda v: v == 255),
    ],
)
def test_every_value_of_a_product(product, bits, dropped, fill):
    expected = [UNOBSERVED if fill(v) else DROPPED if dropped(v) else CLEAR for v in range(1 << bits)]
    assert table(product, f"u{bits // 8}").tolist() == expected


@pytest.mark.parametrize("product", PRODUCTS)
def test_the_fields_of_a_product_share_no_bit_and_leave_none_out_between(product):
    places = [
        bit
        for field in PRODUCTS[product].fields.values()
        for bit in range(field.offset, field.offset + field.width)
    ]
    assert places == list(range(len(places)))


def test_the_order_of_and_or_not():
    assert said("bit(0) or bit(1) and bit(2)", 0b001, 0b010, 0b110) == "dcd"
    assert said("(bit(0) or bit(1)) and bit(2)", 0b001, 0b110, 0b101) == "cdd"
    assert said("not bit(0) and bit(1)", 0b10, 0b11, 0b00) == "dcc"
    assert said("not (bit(0) and bit(1))", 0b10, 0b11) == "dc"
    assert said("bits(2, 3) in [1, 6]", 4, 24, 8, 28) == "ddcc"
    assert said("bits(2, 3) != 5", 20, 16) == "cd"
    assert said("bits(8,2)>=2", 0x100, 0x200, 0x300) == "cdd"
    assert said("Landsat-C2: Cloud_Shadow_Confidence = HIGH OR NOT clear", 0x0C40, 0x0440, 0) == "dcd"


def test_types_of_files():
    # Bit 15 of a signed file is its sign; wider ones are computed, not looked up.
    assert said("bits(14, 2) = 3", -1, 0x4000, dtype=np.int16) == "dc"
    assert said("bit(31)", 1 << 31, 1, dtype=np.uint32) == "dc"
    assert said("bit(31)", -1, 1, dtype=np.int32) == "dc"
    assert said("hls-fmask", 255, 0, 2, dtype=np.uint8) == "ucd"
    assert said("bit(3)", 8, 9999, 0, dtype=np.uint16, nodata=9999) == "duc"
    with pytest.raises(AssetMismatchError, match=r"the mask qa has 8 bits, and mask.qa asks for bit 9"):
        said("bits(8, 2) = 3", 1, dtype=np.uint8)
    # Naming a product means its files: the aerosol band beside Landsat's QA_PIXEL has eight bits.
    with pytest.raises(AssetMismatchError, match=r"has 8 bits, and mask.qa asks for bit 15"):
        said("landsat-c2: cloud", 1, dtype=np.uint8)
    with pytest.raises(AssetMismatchError, match="float32 values, no bits"):
        said("bit(3)", 1, dtype=np.float32)


def test_invalid_pixels_are_neither_clear_nor_dropped():
    pixels = np.array([[8, 0]], np.uint16)
    clear, dropped = classify(pixels, np.zeros((1, 2), bool), Mask(asset="qa", qa="bit(3)"))
    assert not clear.any() and not dropped.any()


@pytest.mark.parametrize(
    ("dtype", "rule", "values", "expected"),
    [
        (np.uint8, {}, (0, 40, 41, 100), "ccdd"),
        (np.uint8, {"above": 0.29}, (29, 30), "cd"),  # 0.29 / 0.01 is 28.999... in floats
        (np.uint8, {"above": 0.5, "nodata": 255}, (50, 51, 255), "cdu"),
        (np.int16, {"above": 0.35, "scale": 0.0001}, (3500, 3501, -1), "cdc"),
        (np.float32, {"above": 0.5, "scale": 1.0}, (0.5, 0.51, np.nan), "cdu"),
        (np.uint16, {"above": 1.0, "scale": 0.001}, (1000, 1001), "cd"),
    ],
)
def test_a_pixel_is_cloud_above_the_probability(dtype, rule, values, expected):
    nodata = rule.pop("nodata", None)
    mask = Mask(asset="cld", probability=rule, nodata=nodata)
    pixels = np.array([values], dtype)
    clear, dropped = classify(pixels, np.ones(pixels.shape, bool), mask)
    assert (
        "".join("c" if c else "d" if d else "u" for c, d in zip(clear[0], dropped[0], strict=True))
        == expected
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("landsat-c2: clowd or snow", "character 13, at 'clowd': no field of landsat-c2: did you mean cloud"),
        ("lansat-c2", "character 1, at 'lansat-c2': no product has that name: did you mean landsat-c2"),
        ("cloud or snow", "character 1, at 'cloud': no field: bits have names after a product's, e.g. landsat-c2: cloud"),
        ("bits(8, 2)", "character 11, at the end: bits has 2 bits: compare it with a value, e.g. >= 3"),
        ("bits(8, 2) = 4", "character 14, at '4': a field of 2 bits holds 0 to 3"),
        ("landsat-c2: cloud_confidence = hgh", "at 'hgh': expected a value from 0 to 3 or one of none, low, medium"),
        ("bit(3", "character 6, at the end: expected ')' that closes bit"),
        ("(bit(3) or bit(4)", "at the end: expected ')' that closes the bracket"),
        ("bit(3) xor bit(4)", "character 8, at 'xor': expected 'and', 'or' or the end"),
        ("bit(3) and", "character 11, at the end: expected a field"),
        ("bit(30.5)", "character 5, at '30.5': expected the offset of the first bit, a whole number"),
        ("bits(30, 3) = 1", "character 1, at 'bits': its bits must lie in 0 to 31"),
        ("bits(3, 0) = 0", "there must be one at least"),
        ("bits(3, 2) in 1", "character 15, at '1': expected '[' that opens the list of values"),
        ("bits(3, 2) in [1 2]", "character 18, at '2': expected ']' that closes the list of values"),
        ("bit(3) & bit(4)", "character 8: '&' belongs to no expression"),
        ("__import__('os')", "character 1: '_' belongs to no expression"),
        ("()", "character 2, at ')': expected a field"),
        ("", "the expression is empty: name a product (landsat-c1, landsat-c2, hls-fmask)"),
        ("(" * 60 + "bit(1)" + ")" * 60, "nests deeper than 50 levels"),
        ("not " * 60 + "bit(1)", "nests deeper than 50 levels"),
        ("bit(1) or " * 200, "has 2000 characters: write it with at most 1000"),
    ],
)  # fmt: skip
def test_a_wrong_expression_is_told_with_its_place(text, says):
    with pytest.raises(RegionFileError, match=re.escape(says)):
        parse_qa(text)


def test_the_region_file_names_the_field_and_the_place(tmp_path):
    path = tmp_path / "toy.yaml"
    path.write_text(
        "name: toy\naoi: {bbox: [1, 2, 3, 4]}\ntime: {range: [2019-01-01, 2020-01-01]}\n"
        "imagery:\n  - {name: l8, source: {catalog: c.json}, bands: {red: red},\n"
        '     mask: {asset: qa_pixel, qa: "landsat-c2: cloud or shadow"}}\n'
    )
    with pytest.raises(
        RegionFileError, match=r"toy\.yaml: imagery\.0\.mask\.qa: character 22, at 'shadow': no field"
    ):
        load_region(path)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"qa": "bit(3)", "drop": [1]}, "exactly one of drop, qa, probability; got drop, qa"),
        ({"qa": "bit(3)", "probability": {}}, "got qa, probability"),
        ({"qa": "bit(3)", "nodata": 0}, "nodata 0 would be every pixel without a flag"),
        ({"probability": {"above": 1.5}}, "less than or equal to 1"),
        ({"probability": {"scale": 0}}, "greater than 0"),
    ],
)
def test_a_mask_has_one_rule(values, says):
    with pytest.raises(ValidationError, match=re.escape(says)):
        Mask(asset="qa", **values)


def test_what_is_left_out_has_the_default_of_its_kind():
    scl = Mask(asset="scl")
    assert (scl.drop, scl.nodata) == ((0, 1, 3, 8, 9, 10), 0)
    assert (Mask(asset="qa", qa="bit(3)").drop, Mask(asset="qa", qa="bit(3)").nodata) == (None, None)
    assert Mask(asset="scl", nodata=None).nodata is None
    assert scl.model_dump() == {
        "asset": "scl",
        "drop": scl.drop,
        "nodata": 0,
        "dilation_px": 0,
    }  # as it was: names stay
    for mask in (scl, Mask(asset="qa", qa="landsat-c2"), Mask(asset="cld", probability={}, use="rank")):
        assert Mask.model_validate(mask.model_dump()) == mask
