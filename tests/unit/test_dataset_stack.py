import itertools
import shutil

import numpy as np
import pytest
import rasterio
from tests import stack_world as sw

from chipmill.core.errors import AssetMismatchError, AssetReadError, DiskFullError, TilesFailedError
from chipmill.core.units import record_failure
from chipmill.dataset.pixels import any_slot_valid, open_stack, read_stack, read_window
from chipmill.dataset.stack import stack_layers
from chipmill.region.grid import Window

NAMES = ("p1_red", "p1_nir", "p1_ndvi", "p2_red", "p2_nir", "p2_ndvi", "label")


def _truth(world, window):
    """Bands of the stack over a window, from the arrays that the composites were written from."""
    left, top = window.col_off - world.area.col_off, window.row_off - world.area.row_off
    return world.data.reshape(-1, *world.data.shape[2:])[
        :, top : top + window.height, left : left + window.width
    ]


def test_bands_are_in_the_order_of_the_design_and_say_what_they_are(tmp_path):
    world = sw.world(tmp_path)
    stack = world.stack()
    assert stack.bands == NAMES and stack.bands[:-1] == tuple(layer.name for layer in stack.predictors)
    assert [layer.kind for layer in stack.layers] == ["band", "band", "index"] * 2 + ["label"]
    for tile_id in stack.tiles:
        with rasterio.open(world.plan.version.stack(tile_id)) as dataset:
            assert dataset.descriptions == NAMES
            assert dataset.dtypes == ("int16",) * 6 + ("uint8",)
            assert dataset.nodatavals == (-32768,) * 6 + (255,)


def test_a_stack_shows_its_tile_and_one_chip_of_its_neighbours(tmp_path):
    world = sw.world(tmp_path)
    stack = world.stack()
    tile = world.plan.tiles()[0]
    whole = read_stack(world.plan.version.stack(tile.tile_id), Window(0, 0, 96, 96), range(1, 7))
    assert whole.dtype == np.int16
    reach = Window(tile.window.col_off, tile.window.row_off, 96, 96)
    np.testing.assert_array_equal(whole, _truth(world, reach))
    # the last tile has no neighbour: what it reaches beyond its edge is nodata
    last = world.plan.tiles()[-1]
    pixels = read_stack(world.plan.version.stack(last.tile_id), Window(0, 0, 96, 96))
    assert (pixels[:6, 64:] == -32768).all() and (pixels[:6, :, 64:] == -32768).all()
    assert (pixels[6, 64:] == 255).all() and len(stack.tiles) == 4


def test_windows_are_equal_from_every_stack_and_mosaic_that_holds_them(tmp_path):
    world = sw.world(tmp_path)
    world.stack()
    for tile, (row, col) in itertools.product(world.plan.tiles()[:1], [(0, 0), (40, 50), (63, 63), (17, 33)]):
        own = read_stack(world.plan.version.stack(tile.tile_id), Window(col, row, 32, 32))
        mosaic = read_stack(world.plan.version.mosaic(32633), Window(col, row, 32, 32))
        np.testing.assert_array_equal(own, mosaic)


def test_a_failed_neighbour_is_nodata_in_the_stack_and_has_none_itself(tmp_path):
    world = sw.world(tmp_path, on_failed="commit")
    tiles = world.plan.tiles()
    record_failure(world.plan.attempt, "composite_tiles", tiles[1].tile_id, "broken asset")
    stack = world.stack()
    assert tiles[1].tile_id not in stack.tiles and len(stack.tiles) == 3
    assert not world.plan.version.stack(tiles[1].tile_id).exists()
    pixels = read_stack(world.plan.version.stack(tiles[0].tile_id), Window(0, 0, 96, 64))
    assert (pixels[:6, :, 64:] == -32768).all() and (pixels[6, :, 64:] == 255).all()


def test_a_failed_tile_stops_the_run_when_the_region_says_so(tmp_path):
    world = sw.world(tmp_path)
    record_failure(world.plan.attempt, "grid_layers", world.plan.tiles()[2].tile_id, "undeclared value 7")
    with pytest.raises(TilesFailedError, match="undeclared value 7"):
        world.stack()


@pytest.mark.parametrize("side", [16, 96])
def test_a_deleted_composite_is_an_error_in_small_reads(tmp_path, side):
    world = sw.world(tmp_path)
    world.stack()
    tile = world.plan.tiles()[0]
    path = world.plan.version.stack(tile.tile_id)
    sw.composite_of(world, tile, 1).unlink()
    with pytest.raises(AssetReadError, match="run the same command again"):
        read_stack(path, Window(0, 0, side, side))
    # the other slot is whole
    assert read_stack(path, Window(0, 0, side, side), [1, 2, 3]).shape == (3, side, side)


@pytest.mark.parametrize("side", [512, 1100])
def test_a_deleted_or_cut_source_is_an_error_below_and_above_a_million_pixels(tmp_path, side):
    lattice, window = sw.LATTICE, Window(0, 0, 1200, 1200)
    from chipmill.dataset.rasters import read_header, write_layer
    from chipmill.dataset.vrt import Band, Source, vrt_xml

    tif = tmp_path / "big.tif"
    pixels = np.random.default_rng(1).integers(1, 9000, (1, 1200, 1200)).astype(np.int16)
    write_layer(tif, "f", pixels, (lattice, window), nodata=-32768, names=["red"])
    xml = vrt_xml(lattice, window, [Band("red", "int16", -32768, (Source(read_header(tif), 1),))])
    np.testing.assert_array_equal(read_stack(xml, Window(0, 0, side, side)), pixels[:, :side, :side])
    whole = tif.read_bytes()
    tif.write_bytes(whole[: len(whole) // 8])
    with pytest.raises(AssetReadError):
        read_stack(xml, Window(0, 0, side, side))
    tif.unlink()
    with pytest.raises(AssetReadError):
        read_stack(xml, Window(0, 0, side, side))


def test_a_window_beyond_the_stack_is_refused_not_cut(tmp_path):
    world = sw.world(tmp_path)
    world.stack()
    path = world.plan.version.stack(world.plan.tiles()[0].tile_id)
    for window in (Window(90, 0, 32, 32), Window(-1, 0, 8, 8), Window(0, 90, 8, 8)):
        with pytest.raises(AssetMismatchError, match="reaches beyond"):
            read_stack(path, window)


def test_an_error_of_ours_passes_through_an_open_stack_as_it_is(tmp_path):
    world = sw.world(tmp_path)
    world.stack()
    path = world.plan.version.stack(world.plan.tiles()[0].tile_id)
    with pytest.raises(DiskFullError, match="no space"), open_stack(path):
        raise DiskFullError("no space")
    with pytest.raises(AssetReadError, match="gone"), open_stack(path):
        raise OSError("gone")


def test_bands_come_in_the_order_asked_for(tmp_path):
    world = sw.world(tmp_path)
    world.stack()
    path, window = world.plan.version.stack(world.plan.tiles()[0].tile_id), Window(5, 6, 20, 30)
    whole = read_stack(path, window)
    with open_stack(path) as dataset:
        for bands in ([7], [7, 1], [3, 7, 2], [6, 5]):
            np.testing.assert_array_equal(read_window(dataset, window, bands), whole[[b - 1 for b in bands]])
        assert read_window(dataset, window, [7]).dtype == np.uint8


def test_the_tree_of_a_region_can_be_moved(tmp_path):
    (tmp_path / "here").mkdir()
    world = sw.world(tmp_path / "here")
    world.stack()
    path = world.plan.version.stack(world.plan.tiles()[0].tile_id)
    before = read_stack(path, Window(0, 0, 96, 96))
    assert str(tmp_path) not in path.read_text()
    shutil.move(tmp_path / "here", tmp_path / "there")
    moved = tmp_path / "there" / path.relative_to(tmp_path / "here")
    np.testing.assert_array_equal(read_stack(moved, Window(0, 0, 96, 96)), before)


def test_the_same_world_gives_the_same_text_and_fingerprint(tmp_path):
    texts = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        world = sw.world(tmp_path / name)
        stack = world.stack()
        texts.append((stack.fingerprint, world.plan.version.mosaic(32633).read_text()))
    assert texts[0] == texts[1]


def test_a_region_without_labels_has_no_label_band(tmp_path):
    world = sw.world(tmp_path, labels=None)
    stack = world.stack()
    assert stack.bands == NAMES[:-1] and stack.predictors == stack.layers


def test_a_composite_on_another_grid_is_refused(tmp_path):
    world = sw.world(tmp_path)
    tile = world.plan.tiles()[0]
    path = sw.composite_of(world, tile, 0)
    with rasterio.open(path, "r+") as dataset:
        dataset.transform = dataset.transform @ rasterio.Affine.translation(0.5, 0)
    with pytest.raises(AssetMismatchError, match="p1_red"):
        world.stack()


def test_a_pixel_is_valid_where_one_slot_has_all_its_bands(tmp_path):
    layers = stack_layers(sw.region(tmp_path, sw.place(1, 1)))
    pixels = np.ones((7, 1, 4), dtype=np.int16)
    pixels[0, 0, 1:] = -32768  # p1 lacks red from the second pixel on
    pixels[2] = -32768  # an index says nothing
    pixels[4, 0, 2:] = -32768  # p2 lacks nir from the third on
    assert any_slot_valid(pixels, layers).tolist() == [[True, True, False, False]]
