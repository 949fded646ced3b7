"""A disk that is really full: a tmpfs of 4 MB, on which pyarrow's and GDAL's own writes fail too."""

import re
import shutil
import subprocess

import numpy as np
import pytest
from tests.faults.store import cell
from tests.faults.store.conftest import NIGHTLY
from tests.imagery_world import LATTICE, PLACE, SIDE, read

from chipmill.core.errors import DiskFullError
from chipmill.core.store import is_good
from chipmill.dataset.rasters import write_layer
from chipmill.dataset.verify import verify_dataset

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


def test_a_raster_that_gdal_loses_at_its_close_is_not_committed(small_disk):
    """GDAL writes the blocks of a small raster when it closes it, and its close raises nothing on a full disk."""
    pixels = np.random.default_rng(8).integers(0, 9000, (2, SIDE, SIDE)).astype(np.int16)
    path = small_disk / "layer.tif"
    refused = 0
    for leave in range(0, SIZE, PAGE):
        fill(small_disk, leave)
        try:
            write_layer(path, "f", pixels, (LATTICE, PLACE), nodata=-1, names=["a", "b"])
            said = ""
        except DiskFullError as error:
            said = str(error)
        (small_disk / "filler").unlink()
        if not said:
            assert np.array_equal(np.stack(list(read(path).values())), pixels)
            break
        assert str(path) in said
        assert not is_good(path)
        path.unlink(missing_ok=True)
        refused += 1
    assert refused > 3
