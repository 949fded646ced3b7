"""Reads over HTTP and from disk that go wrong: an error of the right kind, never zeros, and a second try that works."""

import numpy as np
import pytest
import rasterio
from tests import imagery_world as iw
from tests.fault_archive import serve

from chipmill.core.errors import AssetMismatchError, AssetReadError, TransientReadError
from chipmill.imagery import sources
from chipmill.imagery.reading import Grid, open_band
from chipmill.imagery.sources import open_asset

BIG = 1100  # 1.21 million pixels: GDAL 3.10 read those as zeros


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setitem(sources.GDAL_OPTIONS, "GDAL_HTTP_RETRY_DELAY", "0.01")
    with serve(tmp_path) as running:
        yield running


def image(path, side=iw.SIDE):
    pixels = np.random.default_rng(5).integers(1, 9000, (side, side)).astype(np.uint16)
    iw.save(path, pixels, nodata=0, block=256 if side > 256 else 16)
    return pixels


def read(location, side=iw.SIDE, **shift):
    grid = Grid(
        "EPSG:32633", iw.transform() @ sources.Affine.translation(*shift.get("by", (0, 0))), side, side
    )
    with open_band(iw.asset(), str(location), grid) as reader:
        return reader.read(0, side)


def test_one_503_is_retried_inside_the_read(server, tmp_path):
    pixels = image(tmp_path / "a.tif")
    server.faults["/a.tif"] = [503]
    np.testing.assert_array_equal(read(f"{server.url}/a.tif")[0], pixels)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_lasting_fault_is_transient_and_the_next_try_sends_requests_again(
    server, tmp_path, monkeypatch, status
):
    monkeypatch.setitem(sources.GDAL_OPTIONS, "GDAL_HTTP_MAX_RETRY", "0")
    pixels = image(tmp_path / "a.tif")
    server.faults["/a.tif"] = [status]
    with pytest.raises(TransientReadError, match=r"a\.tif could not be read now"):
        read(f"{server.url}/a.tif")
    before = len(server.requests)
    np.testing.assert_array_equal(read(f"{server.url}/a.tif")[0], pixels)
    assert len(server.requests) > before


def test_a_cut_body_is_an_error_and_the_next_try_works(server, tmp_path, monkeypatch):
    monkeypatch.setitem(sources.GDAL_OPTIONS, "GDAL_HTTP_MAX_RETRY", "0")
    pixels = image(tmp_path / "a.tif")
    server.faults["/a.tif"] = ["cut", "cut", "cut"]
    with pytest.raises(TransientReadError):
        read(f"{server.url}/a.tif")
    server.faults.clear()
    np.testing.assert_array_equal(read(f"{server.url}/a.tif")[0], pixels)


def test_html_instead_of_an_image_is_an_error(server, tmp_path):
    image(tmp_path / "a.tif")
    server.faults["/a.tif"] = ["html"] * 20
    with pytest.raises(AssetReadError):
        read(f"{server.url}/a.tif")


@pytest.mark.parametrize("status", [403, 404, 410])
def test_a_refusal_is_permanent(server, status):
    server.faults["/a.tif"] = [status] * 20
    with pytest.raises(AssetReadError) as caught:
        read(f"{server.url}/a.tif")
    assert not caught.value.transient


def test_no_signature_in_the_text_of_an_error(server):
    with pytest.raises(AssetReadError) as caught:
        read(f"{server.url}/a.tif?sig=VERYSECRET")
    assert "VERYSECRET" not in str(caught.value)


@pytest.mark.parametrize("side", [iw.SIDE, BIG], ids=["below 1 Mpx", "above 1 Mpx"])
@pytest.mark.parametrize("by", [(0, 0), (0.4, 0.4)], ids=["plain", "warped"])
@pytest.mark.parametrize("damage", ["deleted", "empty", "truncated", "half"])
def test_nothing_reads_as_zeros(tmp_path, side, by, damage):
    path = tmp_path / "a.tif"
    image(path, side)
    good, valid = read(path, side, by=by)
    assert good[valid].all()
    data = path.read_bytes()
    if damage == "deleted":
        path.unlink()
    else:
        path.write_bytes({"empty": b"", "truncated": data[:300], "half": data[: len(data) // 2]}[damage])
    with pytest.raises(AssetReadError) as caught:
        read(path, side, by=by)
    assert not caught.value.transient
    assert "a.tif" in str(caught.value)


@pytest.mark.parametrize("tiled", [True, False], ids=["tiled", "stripes"])
@pytest.mark.parametrize("compress", ["none", "deflate", "zstd", "lzw", "lerc_zstd"])
def test_a_file_that_is_cut_anywhere_is_an_error(tmp_path, compress, tiled):
    path, side = tmp_path / "a.tif", 300
    pixels = np.random.default_rng(5).integers(1, 9000, (side, side)).astype(np.uint16)
    layout = {"tiled": True, "blockxsize": 128, "blockysize": 128} if tiled else {}
    place = {"crs": "EPSG:32633", "transform": iw.transform(), "width": side, "height": side}
    with rasterio.open(
        path, "w", driver="GTiff", count=1, dtype="uint16", compress=compress, **place, **layout
    ) as target:
        target.write(pixels, 1)
    np.testing.assert_array_equal(read(path, side)[0], pixels)
    whole = path.read_bytes()
    for length in [*np.random.default_rng(6).integers(8, len(whole), 20).tolist(), len(whole) - 1]:
        path.write_bytes(whole[:length])
        try:
            found, _ = read(path, side)
        except AssetReadError:
            continue
        np.testing.assert_array_equal(found, pixels, err_msg=f"cut at {length} of {len(whole)}")


def test_a_local_tiff_is_read_by_the_faster_driver_and_a_rare_one_all_the_same(server, tmp_path):
    image(tmp_path / "a.tif")
    place = {"crs": "EPSG:32633", "transform": iw.transform(), "width": 64, "height": 64, "count": 1}
    fax = {"driver": "GTiff", "dtype": "uint8", "nbits": 1, "compress": "ccittfax4"}
    bits = np.eye(64, dtype=np.uint8)
    with rasterio.open(tmp_path / "fax.tif", "w", **fax, **place) as target:
        target.write(bits, 1)
    with open_asset(str(tmp_path / "a.tif")) as local, open_asset(f"{server.url}/a.tif") as remote:
        assert (local.driver, remote.driver) == ("LIBERTIFF", "GTiff")
    with open_asset(str(tmp_path / "fax.tif")) as rare:
        assert rare.driver == "GTiff"
        np.testing.assert_array_equal(rare.read(1), bits)


def test_a_vrt_in_disguise_is_not_opened(tmp_path):
    image(tmp_path / "real.tif")
    evil = tmp_path / "evil.tif"
    evil.write_text(
        '<VRTDataset rasterXSize="64" rasterYSize="64"><VRTRasterBand dataType="UInt16" band="1"><SimpleSource>'
        f"<SourceFilename>{tmp_path}/real.tif</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>"
    )
    with pytest.raises(AssetReadError), open_asset(str(evil)):
        pass


def test_another_format_than_the_allowed_is_refused(tmp_path):
    path = image(tmp_path / "a.tif") is not None and tmp_path / "a.jp2"
    path.write_bytes((tmp_path / "a.tif").read_bytes())
    with pytest.raises(AssetReadError, match="other formats are not read"), open_asset(str(path), ("GTiff",)):
        pass


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({"epsg": 32632}, "EPSG 32632 against 32633"),
        ({"shape": (64, 63)}, "shape"),
        ({"transform": tuple(iw.transform() @ sources.Affine.translation(1, 0))[:6]}, "transform"),
        ({"transform": tuple(iw.transform())[:6], "shape": (65, 64)}, "shape"),
    ],
)
def test_an_item_that_lies_about_its_grid_is_an_error(tmp_path, told, expected):
    image(tmp_path / "a.tif")
    grid = Grid("EPSG:32633", iw.transform(), iw.SIDE, iw.SIDE)
    with (
        pytest.raises(AssetMismatchError, match=expected),
        open_band(iw.asset(**told), str(tmp_path / "a.tif"), grid),
    ):
        pass


def test_an_item_may_give_one_grid_for_assets_of_two_resolutions(tmp_path):
    image(tmp_path / "a.tif")
    finer = tuple(iw.transform() @ sources.Affine.scale(0.5))[:6]
    told = {"epsg": 32633, "shape": (128, 128), "transform": finer}
    grid = Grid("EPSG:32633", iw.transform(), iw.SIDE, iw.SIDE)
    with open_band(iw.asset(**told), str(tmp_path / "a.tif"), grid) as reader:
        assert reader.read(0, 1)[0].any()
