"""Which blocks of the sources a composite reads: each needed one once, none that is masked out; and always the same bytes."""

import dataclasses
import threading

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.enums import Resampling
from rasterio.warp import reproject
from tests import imagery_world as iw

from chipmill.core.errors import AssetReadError
from chipmill.core.store import sha256_file
from chipmill.core.tables import RANKING, read_table
from chipmill.imagery import composite, strips
from chipmill.imagery.blocks import Counts
from chipmill.imagery.orders import Orders
from chipmill.imagery.reader_pool import ReaderPool
from chipmill.imagery.reading import BandReader

SHAPE = (iw.SIDE, iw.SIDE)
BLOCKS = (iw.SIDE // 16) ** 2
"""Of 16 px in a file of the tile's size."""


def archive_of(tmp_path, scenes, **more):
    """Write (date, bands, mask) with a catalog."""
    archive = iw.Archive(tmp_path / "archive")
    for when, bands, mask in scenes:
        archive.scene(when, bands, mask, **more)
    archive.path = archive.write()
    return archive


def config(tmp_path, archive, **imagery):
    clear = {"threshold": 0.0, "floor": 0.0}
    return iw.region(tmp_path, {"catalog": str(archive.path)}, imagery={"clear": clear} | imagery)


def order_of(made):
    """Return the order of the first composite of a plan."""
    tile = made.tiles()[0]
    orders = Orders(made, read_table(made.version.ranking, RANKING))
    return orders.order(tile, made.region.imagery[0], made.slots(tile)[0])


def composed(order):
    """Return the image of an order (band, y, x) and what was read for it."""
    image, counts = np.empty((len(order.names), *SHAPE), np.int16), Counts()
    composite.compose(order, image, counts)
    return image, counts


def pixels(seed):
    rng = np.random.default_rng(seed)
    return {name: rng.integers(1, 6000, SHAPE).astype(np.uint16) for name in ("red", "nir")}


def clouded(*places):
    mask = np.full(SHAPE, iw.CLEAR, np.uint8)
    for place in places:
        mask[place] = iw.CLOUD
    return mask


@pytest.fixture
def half_clouded(tmp_path):
    """Two dates; of the second one the left half, eight blocks, and one pixel of the right half are under cloud."""
    masks = clouded(), clouded(np.s_[:, :32], np.s_[40, 40])
    scenes = [
        (f"2019-0{number}-01", pixels(number), mask) for number, mask in zip((2, 3), masks, strict=True)
    ]
    return archive_of(tmp_path, scenes)


def test_every_needed_block_is_read_once_and_masked_ones_are_not(tmp_path, half_clouded):
    made, *_ = iw.run(config(tmp_path, half_clouded))
    _, counts = composed(order_of(made))
    assert (counts.decoded, counts.skipped) == (2 * (BLOCKS + BLOCKS // 2), 2 * BLOCKS // 2)


def test_a_block_under_cloud_may_be_rotten_and_a_clear_one_may_not(tmp_path, half_clouded):
    """Not the counter but the file says that it is not decoded: its bytes cannot be."""
    made, _, path, _ = iw.run(config(tmp_path, half_clouded))
    digest = sha256_file(path)
    order = order_of(made)
    file = half_clouded.folder / "s2019-03-01" / "nir.tif"
    spoil(file, 0, 1)
    path.unlink()
    composite.write_composite(path, order)
    assert sha256_file(path) == digest
    spoil(file, 3, 2)
    path.unlink()
    with pytest.raises(AssetReadError, match=r"nir\.tif cannot be read"):
        composite.write_composite(path, order)
    assert not path.exists()


def spoil(file, column, row):
    """Overwrite the compressed bytes of a block."""
    with rasterio.open(file) as source:
        start = int(source.get_tag_item(f"BLOCK_OFFSET_{column}_{row}", "TIFF", bidx=1))
        size = int(source.get_tag_item(f"BLOCK_SIZE_{column}_{row}", "TIFF", bidx=1))
    with file.open("r+b") as handle:
        handle.seek(start)
        handle.write(b"\xff" * size)


def test_small_windows_change_neither_pixels_nor_what_is_read(tmp_path, half_clouded, monkeypatch):
    made, *_ = iw.run(config(tmp_path, half_clouded))
    order = order_of(made)
    image, counts = composed(order)
    times, bands, held = 2, 2, strips.AHEAD + 1
    monkeypatch.setattr(strips, "BUDGET_BYTES", held * 16 * 16 * times * (2 + 2 * bands))  # one block each
    again, more = composed(order)
    np.testing.assert_array_equal(again, image)
    assert (more.decoded, more.skipped) == (counts.decoded, counts.skipped)


@pytest.mark.parametrize("threads", [1, 3])
def test_the_number_of_threads_changes_nothing(tmp_path, half_clouded, monkeypatch, threads):
    made, *_ = iw.run(config(tmp_path, half_clouded, mask={"asset": "scl", "dilation_px": 3}))
    order = order_of(made)
    image, _ = composed(order)
    monkeypatch.setenv("CHIPMILL_THREADS", str(threads))
    np.testing.assert_array_equal(composed(order)[0], image)


def test_of_two_granules_the_second_is_read_where_the_first_has_nothing(tmp_path):
    first, second = pixels(1), pixels(2)
    for band in first.values():
        band[:, 40:] = 0
    archive = iw.Archive(tmp_path / "archive")
    archive.scene("2019-02-01T10:00:00Z", first, clouded(), name="a")
    archive.scene("2019-02-01T10:00:20Z", second, clouded(np.s_[:20, 44]), name="b")
    archive.path = archive.write()
    made, *_ = iw.run(config(tmp_path, archive))
    image, counts = composed(order_of(made))
    expected = np.where(np.arange(iw.SIDE) < 40, first["red"], second["red"]).astype(np.int16)
    expected[:20, 44] = -32768
    np.testing.assert_array_equal(image[0], expected)
    assert (image[-2] == (expected != -32768)).all()
    assert (image[-1] == 1).all()
    assert (counts.decoded, counts.skipped) == (2 * (BLOCKS + BLOCKS // 2), 2 * BLOCKS // 2)


@pytest.mark.parametrize("shift_px", [(0, 0), (-16, -16), (-17, 5)])
def test_a_mask_of_20_m_is_the_same_as_one_that_was_enlarged(tmp_path, shift_px):
    """By whole pixels of the mask and by halves of them, inside and beyond its edge; against rasterio's own."""
    rng = np.random.default_rng(5)
    coarse = rng.choice([iw.CLEAR, iw.CLOUD, iw.EMPTY], (32, 32)).astype(np.uint8)
    place = iw.transform() @ Affine.translation(*shift_px) @ Affine.scale(2)
    bands = pixels(1)
    archive = archive_of(tmp_path, [("2019-02-01", bands, clouded())])
    iw.save(archive.folder / "s2019-02-01" / "scl.tif", coarse, nodata=iw.EMPTY, place=place)
    made, *_ = iw.run(config(tmp_path, archive))
    image, _ = composed(order_of(made))
    fine = np.zeros(SHAPE, np.uint8)
    reproject(coarse, fine, src_transform=place, src_crs="EPSG:32633", dst_transform=iw.transform(),
              dst_crs="EPSG:32633", resampling=Resampling.nearest)  # fmt: skip
    np.testing.assert_array_equal(image[0], np.where(fine == iw.CLEAR, bands["red"].astype(np.int16), -32768))
    np.testing.assert_array_equal(image[-1], fine != iw.EMPTY)


@pytest.mark.parametrize("crs", ["EPSG:32633", "EPSG:32632"])
def test_warped_sources_are_the_same_in_windows_of_any_size(tmp_path, monkeypatch, crs):
    place = iw.transform() @ Affine.translation(-20.3, -15.7) @ Affine.scale(1.3)
    if crs != "EPSG:32633":
        corner = rasterio.warp.transform("EPSG:32633", crs, [place.c], [place.f])
        place = Affine(12, 0, corner[0][0] - 300, 0, -12, corner[1][0] + 300)
    rng = np.random.default_rng(3)
    bands = {name: rng.integers(1, 6000, (150, 150)).astype(np.uint16) for name in ("red", "nir")}
    mask = rng.choice([iw.CLEAR, iw.CLEAR, iw.CLOUD], (150, 150)).astype(np.uint8)
    archive = archive_of(tmp_path, [("2019-02-01", bands, mask)], place=place, crs=crs)
    made, *_ = iw.run(config(tmp_path, archive, mask={"asset": "scl", "dilation_px": 1}))
    order = order_of(made)
    image, _ = composed(order)
    assert 0.1 < (image[0] != -32768).mean() < 1
    monkeypatch.setattr(strips, "BUDGET_BYTES", 2 * 6 * 64 * 11)
    np.testing.assert_array_equal(composed(order)[0], image)


def test_what_a_file_says_of_its_scale_counts_where_its_item_says_nothing(tmp_path):
    """Tags first; then floats are physical and integers are in the composite's units."""
    bands = {"red": np.full(SHAPE, 7000, np.uint16), "nir": np.full(SHAPE, 0.05, np.float32)}
    archive = archive_of(tmp_path, [("2019-02-01", bands, None)])
    for band in ("red", "nir"):
        del archive.items[0]["assets"][band]["raster:bands"]
    archive.write()
    made, *_ = iw.run(config(tmp_path, archive, mask=None))
    order = order_of(made)
    image, _ = composed(order)
    assert (image[0] == 7000).all()
    assert (image[1] == 500).all()
    with rasterio.open(archive.folder / "s2019-02-01" / "red.tif", "r+") as target:
        target.scales, target.offsets = (2.75e-5,), (-0.2,)
    image, _ = composed(order)
    assert (image[0] == -75).all()
    plain = order.imagery.model_copy(update={"offset": "none"})
    image, _ = composed(dataclasses.replace(order, imagery=plain))
    assert (image[0] == 1925).all()


def test_a_tile_without_any_acquisition_is_nodata(tmp_path, half_clouded):
    made, *_ = iw.run(config(tmp_path, half_clouded))
    image, counts = composed(dataclasses.replace(order_of(made), acquisitions=()))
    assert (image[:2] == -32768).all()
    assert not image[2:].any()
    assert (counts.decoded, counts.skipped) == (0, 0)


def test_no_file_is_closed_while_another_thread_reads_it(tmp_path, half_clouded, monkeypatch):
    """The first band that fails ends the composite; the others must have left their files by then."""
    made, *_ = iw.run(config(tmp_path, half_clouded))
    order = order_of(made)
    spoil(half_clouded.folder / "s2019-02-01" / "red.tif", 0, 0)
    monkeypatch.setenv("CHIPMILL_THREADS", "2")
    inside, closing, late = threading.Event(), threading.Event(), []
    real, end = BandReader.read_into, ReaderPool.__exit__

    def slow(self, *more):
        if "nir" in self._location:
            inside.set()
            late.append(closing.wait(0.3))  # as long as a large block may take
        elif "red" in self._location and "02-01" in self._location:
            assert inside.wait(10)
        real(self, *more)

    def ended(self, *exception):
        closing.set()
        end(self, *exception)

    monkeypatch.setattr(BandReader, "read_into", slow)
    monkeypatch.setattr(ReaderPool, "__exit__", ended)
    with pytest.raises(AssetReadError, match=r"red\.tif cannot be read"):
        composed(order)
    assert late
    assert not any(late)
