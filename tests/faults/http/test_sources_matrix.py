"""The source matrix: a file that is not whole, on every way from a file to pixels, below and above a million pixels.

GDAL 3.10 read such sources as zeros, without an error, from a million pixels on; so each cell plants pixels that are
never zero, sees them come through, spoils the file, and demands an error.
"""

import itertools
import json

import numpy as np
import pytest
import rasterio
import shapely
from tests import imagery_world as iw

from chipmill.core.errors import AssetReadError
from chipmill.dataset.pixels import read_stack
from chipmill.dataset.rasters import open_raster, read_header
from chipmill.dataset.vrt import Band, Source, vrt_xml
from chipmill.imagery.reading import Grid, open_band
from chipmill.region.grid import Window

DAMAGES = ("deleted", "empty", "cut", "corrupt", "403", "404")
SIDES = {"below 1 Mpx": 256, "from 1 Mpx on": 2048}
"""At 2,048 px a strip of 512 rows, which a composite reads at once, has a million pixels too."""
_number = itertools.count()


def place(side):
    return Window(side * (50_048 // side), -side * (500_032 // side), side, side)


@pytest.fixture(params=SIDES.values(), ids=SIDES)
def side(request):
    return request.param


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """The bytes of a good file of each side, compressed as archives are, and its pixels."""
    made = {}
    for side in SIDES.values():
        block = np.random.default_rng(side).integers(1, 9000, (256, 256)).astype(np.uint16)
        pixels = np.tile(block, (side // 256, side // 256))
        where = iw.LATTICE.transform(place(side))
        path = iw.save(tmp_path_factory.mktemp("good") / "a.tif", pixels, nodata=0, block=256, place=where)
        made[side] = (path.read_bytes(), pixels)
    return made


@pytest.fixture
def spoiled(archive, short_waits, images, side, tmp_path):
    """A function that gives a location with its damage, and one that lets the damage happen."""
    folder = tmp_path / f"n{next(_number)}"
    folder.mkdir()
    path = folder / "red.tif"
    path.write_bytes(images[side][0])

    def spoil(damage):
        data = images[side][0]
        if damage in ("deleted", "404"):
            path.unlink()
        elif damage == "403":
            archive.plan(f"/{folder.name}/red.tif", "header", "403")
            archive.plan(f"/{folder.name}/red.tif", "block", "403")
        else:
            middle = len(data) // 2
            rot = data[:middle] + b"\xa5" * 4096 + data[middle + 4096 :]
            path.write_bytes({"empty": b"", "cut": data[:middle], "corrupt": rot}[damage])

    archive.spoil, archive.file = spoil, path
    return archive


def located(server, damage):
    """The URL where the damage is one of servers, else the path."""
    return f"{server.url}/{server.file.parent.name}/red.tif" if damage.isdigit() else str(server.file)


def grid(side, shift_px=0.0):
    return Grid(
        "EPSG:32633", iw.LATTICE.transform(place(side)) @ rasterio.Affine.translation(shift_px, shift_px), side, side
    )  # fmt: skip


@pytest.mark.parametrize("shift_px", [0.0, 0.4], ids=["direct", "warp"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_spoiled_file_is_not_read(spoiled, images, side, damage, shift_px):
    with open_band(iw.asset(), str(spoiled.file), grid(side, shift_px)) as reader:
        good, valid = reader.read(0, side)
    assert good[valid].all()
    assert valid.mean() > 0.98
    if not shift_px:
        np.testing.assert_array_equal(good, images[side][1])
    spoiled.spoil(damage)
    with (
        pytest.raises(AssetReadError, match=r"red\.tif"),
        open_band(iw.asset(), located(spoiled, damage), grid(side, shift_px)) as reader,
    ):
        reader.read(0, side)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_spoiled_source_of_a_mosaic_is_not_read(spoiled, images, side, damage):
    header = read_header(spoiled.file)
    window = place(side)
    xml = vrt_xml(iw.LATTICE, window, [Band("red", "uint16", 0, (Source(header, 1),))])
    if damage.isdigit():  # our mosaics name files only; GDAL takes whatever stands there
        xml = xml.replace(str(spoiled.file), f"/vsicurl/{located(spoiled, damage)}")
    whole = Window(0, 0, side, side)
    with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR", GDAL_HTTP_MAX_RETRY="0"):
        if not damage.isdigit():
            np.testing.assert_array_equal(read_stack(xml, whole)[0], images[side][1])
        spoiled.spoil(damage)
        with pytest.raises(AssetReadError, match="cannot be read"):
            read_stack(xml, whole)
        with pytest.raises(AssetReadError, match="cannot be read"), open_raster(xml, driver="VRT") as dataset:
            dataset.read(1, out_shape=(side // 2, side // 2))


def region(server, folder, side, *, served):
    """A region of one tile over two dates, of which the file that will be spoiled is the later one."""
    good = server.file.with_name("good.tif")
    good.write_bytes(server.file.read_bytes())
    window = place(side)
    outline = iw.LATTICE.footprint(Window(window.col_off + 2, window.row_off + 2, side - 4, side - 4))
    items = [
        {"type": "Feature", "stac_version": "1.0.0", "id": path.stem, "collection": "toy", "links": [],
         "geometry": shapely.geometry.mapping(iw.LATTICE.footprint(window)), "bbox": list(outline.bounds),
         "assets": {"red": {"href": f"{server.url}/{path.parent.name}/{path.name}" if served else path.name,
                            "raster:bands": [{"scale": 1e-4, "offset": 0.0}]}},
         "properties": {"datetime": f"2019-0{month}-01T10:00:00Z", "platform": "sat-1"}}
        for month, path in ((3, good), (5, server.file))
    ]  # fmt: skip
    page = {"type": "FeatureCollection", "features": items, "links": []}
    server.search = lambda body: page
    (server.file.parent / "items.json").write_text(json.dumps(page))
    return iw.region(
        folder,
        {"stac": f"{server.url}/stac"} if served else {"items": str(server.file.parent / "items.json")},
        aoi={"bbox": list(outline.bounds), "rule": "centre"},
        grid={"crs": "EPSG:32633", "resolution": 10, "tile_px": side},
        imagery={"bands": {"red": "red"}, "mask": None, "reduce": "mean"},
    )


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_composite_of_a_spoiled_file_is_not_made(spoiled, images, side, damage, tmp_path):
    config = region(spoiled, tmp_path, side, served=damage.isdigit())
    spoiled.spoil(damage)
    _, _, path, failed = iw.run(config)
    assert [("red.tif" in one.reason, one.transient) for one in failed] == [(True, False)]
    assert not path.exists()
    spoiled.mend()
    spoiled.file.write_bytes(images[side][0])
    _, _, path, failed = iw.run(config)
    assert failed == []
    bands = iw.read(path)
    np.testing.assert_array_equal(bands["red"], images[side][1])
    assert (bands["valid_count"] == 2).all()


@pytest.mark.parametrize("kind", ["503", "cut", "stall"])
@pytest.mark.parametrize("side", [256], indirect=True)
def test_a_fault_that_passes_is_made_good_in_the_next_round(spoiled, images, side, kind, tmp_path):
    config = region(spoiled, tmp_path, side, served=True)
    spoiled.plan(f"/{spoiled.file.parent.name}/red.tif", "block", kind)
    _, _, path, failed = iw.run(config)
    assert [("red.tif" in one.reason, one.transient) for one in failed] == [(True, True)]
    assert not path.exists()
    spoiled.mend()
    _, _, path, failed = iw.run(config)
    assert failed == []
    np.testing.assert_array_equal(iw.read(path)["red"], images[side][1])
