"""Our own reader of stacks against GDAL's of the same file: the same pixels, whatever window and bands are asked for."""

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from rasterio.windows import Window as FileWindow
from tests import stack_world as sw

from chipmill.core.errors import AssetReadError
from chipmill.dataset import stack_file
from chipmill.dataset.pixels import open_stack
from chipmill.dataset.rasters import read_header, write_layer
from chipmill.dataset.vrt import Band, Source, write_vrt
from chipmill.region.grid import Window

SIDE = 90
PLACES = (Window(0, 0, 40, 40), Window(40, 0, 60, 40), Window(0, 40, 40, 50), Window(30, 30, 50, 30))
"""Of the files, the last over all others; right of 80 and below 60 a part is covered by none."""
EDGES = st.integers(0, SIDE - 1)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A stack of five bands of two types, from files of several bands."""
    folder = tmp_path_factory.mktemp("stack")
    rng = np.random.default_rng(3)
    wide, narrow = [], []
    for number, place in enumerate(PLACES):
        names = [f"w{number}.tif", f"n{number}.tif"]
        shape = (3, *place.shape)
        lying = (sw.LATTICE, place)
        write_layer(folder / names[0], "f", rng.integers(-9000, 9000, shape).astype(np.int16), lying, nodata=-32768, names="abc")  # fmt: skip
        write_layer(folder / names[1], "f", rng.integers(0, 9, shape[1:]).astype(np.uint8)[None], lying, nodata=255, names="l")  # fmt: skip
        wide.append(read_header(folder / names[0]))
        narrow.append(read_header(folder / names[1]))
    bands = [
        Band("c", "int16", -32768, tuple(Source(one, 3) for one in wide)),
        Band("a", "int16", -32768, tuple(Source(one, 1) for one in wide)),
        Band("b", "int16", -32768, tuple(Source(one, 2) for one in wide[:2])),
        Band("none", "int16", -1, ()),
        Band("label", "uint8", 255, tuple(Source(one, 1) for one in narrow)),
    ]
    write_vrt(folder / "stack.vrt", sw.LATTICE, Window(0, 0, SIDE, SIDE), bands, folder)
    return folder / "stack.vrt"


@given(
    EDGES,
    EDGES,
    st.integers(1, SIDE),
    st.integers(1, SIDE),
    st.lists(st.integers(1, 5), min_size=1, max_size=6),
)
def test_pixels_are_those_that_gdal_reads(path, left, top, width, height, bands):
    window = Window(left, top, min(width, SIDE - left), min(height, SIDE - top))
    expected = np.empty((len(bands), *window.shape), np.int16)
    with rasterio.open(path) as dataset:
        for band, out in zip(bands, expected, strict=True):
            part = FileWindow(window.col_off, window.row_off, window.width, window.height)
            out[:] = dataset.read(band, window=part)
    found = np.full_like(expected, 77)
    with open_stack(path) as stack:
        stack.read(bands, window, found)
    np.testing.assert_array_equal(found, expected)


def test_the_head_is_what_gdal_reads(path):
    with rasterio.open(path) as dataset, open_stack(path) as stack:
        assert (stack.width, stack.height, stack.dtypes) == (dataset.width, dataset.height, dataset.dtypes)
        assert (stack.transform, stack.descriptions) == (dataset.transform, dataset.descriptions)


def test_few_files_are_open_at_once(path, monkeypatch):
    monkeypatch.setattr(stack_file, "_OPEN", 2)
    window = Window(0, 0, SIDE, SIDE)
    small, large = np.empty((2, 5, SIDE, SIDE), np.int16)
    with open_stack(path) as stack:
        stack.read([1, 2, 3, 4, 5], window, small)
        assert len(stack._files) == 2
    monkeypatch.undo()
    with open_stack(path) as stack:
        stack.read([1, 2, 3, 4, 5], window, large)
    np.testing.assert_array_equal(small, large)


@pytest.mark.parametrize(
    ("ours", "others"),
    [("SimpleSource", "ComplexSource"), ('xSize="40" ySize="40"/>', 'xSize="20" ySize="40"/>')],
)
def test_what_gdal_would_read_otherwise_is_refused(path, tmp_path, ours, others):
    text = path.read_text()
    assert ours in text
    (tmp_path / "a.vrt").write_text(text.replace(ours, others, 1 if "Size" in ours else -1))
    with (
        pytest.raises(AssetReadError, match="no VRT of ours: ValueError"),
        open_stack(tmp_path / "a.vrt"),
    ):
        pass


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no xml",
        "<VRTDataset",
        "<VRTDataset><VRTRasterBand/></VRTDataset>",
        '<VRTDataset rasterXSize="3" rasterYSize="many"/>',
        (
            '<VRTDataset rasterXSize="3" rasterYSize="3"><VRTRasterBand dataType="Int16"><NoDataValue>0</NoDataValue>'
            '<SimpleSource><SourceFilename relativeToVRT="1">a.tif</SourceFilename></SimpleSource>'
            "</VRTRasterBand></VRTDataset>"
        ),
    ],
)
def test_what_is_no_stack_of_ours_is_an_error(tmp_path, text):
    (tmp_path / "a.vrt").write_text(text)
    with (
        pytest.raises(AssetReadError, match=r"a\.vrt cannot be read \(it is no VRT of ours"),
        open_stack(tmp_path / "a.vrt"),
    ):
        pass
