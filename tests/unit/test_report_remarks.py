"""What composites note of themselves reaches the page: cut values by band, doubted offsets with their worst share."""

from chipmill.core.store import commit_file
from chipmill.report.remarks import composite_remarks


def composite(folder, name, **extra):
    with commit_file(folder / name, "f", extra=extra) as temp:
        temp.write_bytes(b"pixels")


def test_remarks_are_summed_over_composites_and_named(tmp_path):
    composite(tmp_path, "a.tif", saturated_px={"red": 3, "nir": 0}, offset_doubtful={"s2/day": 0.4})
    composite(tmp_path, "b.tif", saturated_px={"red": 1200, "nir": 0}, offset_doubtful={"s2/day": 0.61})
    composite(tmp_path, "c.tif", saturated_px={"red": 0})
    composite(tmp_path, "static.tif", saturated_px=7)
    (tmp_path / "v").mkdir()
    offset, cut = composite_remarks(
        tmp_path / "v", ["../a.tif", "../b.tif", "../b.tif", "../c.tif", "../static.tif", "../gone.tif"]
    )
    assert offset.text.startswith("The offset of s2/day is doubted: after it up to 61.0 % of its pixels")
    assert "cut there: red 1,203 px." in cut.text
    assert {offset.tone, cut.tone} == {"bad"}


def test_good_composites_bear_no_remark(tmp_path):
    composite(tmp_path, "a.tif", saturated_px={"red": 0})
    assert composite_remarks(tmp_path, ["a.tif"]) == ()
