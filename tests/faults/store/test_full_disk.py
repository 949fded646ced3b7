"""A disk that is really full: a tmpfs of 4 MB, on which pyarrow's and GDAL's own writes fail too."""

import re
import shutil
import subprocess

import numpy as np
import pytest
from rasterio.io import MemoryFile
from tests.faults.store import cell
from tests.faults.store.conftest import NIGHTLY
from tests.imagery_world import LATTICE, PLACE, SIDE, read

from chipmill.core import store, tiff
from chipmill.core.errors import DiskFullError
from chipmill.core.store import atomic_path, is_good
from chipmill.dataset.rasters import write_layer
from chipmill.dataset.verify import verify_dataset
from chipmill.region.grid import Window

SIZE = 4 << 20
PAGE = 4096
STEP = PAGE * (1 if NIGHTLY else 17)
SENTENCE = re.compile(
    r"no space is left to write (\S+) \(([\d,]+) bytes free\): free some and run the same command"
)


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a file system of 4 MB of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if shutil.which("mount") is None:
        pytest.skip("no tmpfs can be mounted here: there is no mount")
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", folder]
    mounted = subprocess.run(command, check=False, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def fill(folder, leave):
    """Take all space but ``leave`` bytes."""
    with (folder / "filler").open("wb") as stream:
        stream.write(bytes(shutil.disk_usage(folder).free - leave))


@pytest.mark.timeout(3600 if NIGHTLY else 120)
def test_a_full_disk_is_named_with_its_place_and_the_version_in_force_stays(built, forges, small_disk):
    """From no space at all up to where the run fits: whatever is being written then, the answer is the same."""
    other = {"dataset": cell.SECOND, "imagery": cell.REDUCED}
    whole, _ = built({"dataset": cell.FIRST}, other)
    start, _ = built({"dataset": cell.FIRST})
    reached = set()
    for leave in range(0, SIZE, STEP):
        folder = cell.copy_cell(start, small_disk / "cell")
        fill(small_disk, leave)
        told = forges[0].run(folder, **other)
        told_of = SENTENCE.search(told["message"])
        if told["error"] is None:
            break
        assert told_of, told
        assert told_of[1].startswith(str(folder / "out"))
        assert int(told_of[2].replace(",", "")) <= leave
        reached.add(told_of[1].rpartition(".")[2])
        versions = cell.cell_of(folder).versions
        assert versions.current() == 1
        assert verify_dataset(cell.cell_of(folder).root, data=True).problems == ()
        assert list((folder / "out").rglob(".tmp-*")) == []
        (small_disk / "filler").unlink()
        forges[0].done(folder, **other)
        cell.assert_finished(folder, whole, 1)
        shutil.rmtree(folder)
    else:
        pytest.fail("the run never fitted")
    assert {"parquet", "json"} <= reached


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
        (small_disk / "filler").unlink()
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
            (small_disk / "filler").unlink()
            if path.exists():
                break
        assert len(said) > 3
        assert all(str(path) in sentence for sentence in said)
        assert path.read_bytes() == whole.read_bytes()
