"""A disk that is really full: a tmpfs of 4 MB, on which pyarrow's and GDAL's own writes fail too."""

import shutil

import numpy as np
import pytest
from rasterio.io import MemoryFile
from tests.faults.disk import PAGE, SIZE, empty, fill, refused_path
from tests.faults.store import cell
from tests.faults.store.conftest import NIGHTLY
from tests.faults.store.verbs import converted
from tests.imagery_world import LATTICE, PLACE, SIDE, read

from chipmill.core import store, tiff
from chipmill.core.errors import DiskFullError
from chipmill.core.store import atomic_path, is_good
from chipmill.dataset.rasters import write_layer
from chipmill.dataset.verify import verify_dataset
from chipmill.region.grid import Window

STEP = PAGE * (1 if NIGHTLY else 17)
OTHER = {"dataset": cell.SECOND, "imagery": cell.REDUCED}
"""A second build that makes every composite anew."""
SELECT = {"dataset": cell.SECOND, "verb": "select"}


@pytest.mark.timeout(3600 if NIGHTLY else 120)
@pytest.mark.parametrize("run", [OTHER, SELECT], ids=["build", "select"])
def test_a_full_disk_is_named_with_its_place_and_the_version_in_force_stays(run, built, forges, small_disk):
    """From no space at all up to where the run fits: whatever is being written then, the answer is the same."""
    whole, _ = built({"dataset": cell.FIRST}, run)
    start, _ = built({"dataset": cell.FIRST})
    reached = set()
    for leave in range(0, SIZE, STEP):
        folder = cell.copy_cell(start, small_disk / "cell")
        fill(small_disk, leave)
        told = forges[0].run(folder, **run)
        if told["error"] is None:
            break
        reached.add(refused_path(told, folder, leave).rpartition(".")[2])
        versions = cell.cell_of(folder).versions
        assert versions.current() == 1
        assert verify_dataset(cell.cell_of(folder).root, data=True).problems == ()
        assert list((folder / "out").rglob(".tmp-*")) == []
        empty(small_disk)
        forges[0].done(folder, **run)
        cell.assert_finished(folder, whole, 1)
        shutil.rmtree(folder)
    else:
        pytest.fail("the run never fitted")
    assert {"parquet", "json"} <= reached


@pytest.mark.timeout(3600 if NIGHTLY else 120)
def test_a_conversion_on_a_full_disk_leaves_nothing_and_says_where(conversion, pairs, forges, small_disk):
    verb, made, _ = conversion
    refused = 0
    for leave in range(0, SIZE, PAGE * (1 if NIGHTLY else 3)):  # what it makes is small
        folder = cell.copy_cell(pairs, small_disk / "cell")
        fill(small_disk, leave)
        told = forges[0].run(folder, verb=verb)
        if told["error"] is None:
            break
        refused_path(told, folder, leave)
        assert not converted(folder).exists()
        empty(small_disk)
        forges[0].done(folder, verb=verb)
        assert cell.tree(converted(folder)) == made
        shutil.rmtree(folder)
        refused += 1
    else:
        pytest.fail("the conversion never fitted")
    assert refused > 3


@pytest.mark.parametrize("in_memory", [tiff.IN_MEMORY_BYTES, 0], ids=["small", "large"])
def test_a_raster_that_gdal_loses_at_its_close_is_not_committed(small_disk, monkeypatch, in_memory):
    """GDAL writes the blocks of a small raster when it closes it, and its close raises nothing on a full disk.

    Somebody may free space right after it, so what the disk says later is taken out of the test.
    """
    monkeypatch.setattr(tiff, "IN_MEMORY_BYTES", in_memory)
    monkeypatch.setattr(store, "refuse_full", lambda path: None)
    pixels = np.random.default_rng(8).integers(0, 9000, (2, SIDE, SIDE)).astype(np.int16)
    path = small_disk / "layer.tif"
    refused = 0
    for leave in range(0, SIZE, PAGE):
        fill(small_disk, leave)
        try:
            write_layer(path, "f", pixels, (LATTICE, PLACE), nodata=-1, names=["a", "b"])
            lost = False
        except OSError:
            lost = True
        empty(small_disk)
        if not lost:
            assert np.array_equal(np.stack(list(read(path).values())), pixels)
            break
        assert not is_good(path)
        path.unlink(missing_ok=True)
        refused += 1
    assert refused > 3


@pytest.mark.parametrize("in_memory", [tiff.IN_MEMORY_BYTES, 0], ids=["small", "large"])
def test_a_map_is_whole_or_refused_with_the_place(small_disk, tmp_path, monkeypatch, in_memory):
    """The same for a COG, whose driver removes what it could not write: the disk looks free afterwards."""
    codes = np.random.default_rng(8).integers(0, 200, (1, 700, 700)).astype(np.uint8)
    write_layer(
        tmp_path / "strip.tif", "f", codes, (LATTICE, Window(0, 0, 700, 700)), nodata=255, names=["class"]
    )
    mosaic = (tmp_path / "strip.tif").read_bytes()
    path, whole = small_disk / "map.tif", tmp_path / "whole.tif"
    options = {"driver": "COG", "compress": "deflate", "overview_resampling": "mode"}
    with MemoryFile(mosaic) as memory, memory.open() as source:
        tiff.copy_tiff(source, whole, options, codes.nbytes)
        monkeypatch.setattr(tiff, "IN_MEMORY_BYTES", in_memory)
        said = []
        for leave in range(0, SIZE, 9 * PAGE):
            fill(small_disk, leave)
            try:
                with atomic_path(path) as temp:
                    tiff.copy_tiff(source, temp, options, codes.nbytes)
            except DiskFullError as error:
                said.append(str(error))
            empty(small_disk)
            if path.exists():
                break
        assert len(said) > 3
        assert all(str(path) in sentence for sentence in said)
        assert path.read_bytes() == whole.read_bytes()
