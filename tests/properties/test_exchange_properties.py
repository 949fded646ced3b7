"""Round trips: whatever a dataset holds, every format gives it back to the bit, with its ids, places and statistics."""

import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chipmill.dataset.reader import open_dataset
from chipmill.dataset.records import Sample
from chipmill.dataset.verify import verify_dataset
from chipmill.exchange.chips import ImportOptions
from chipmill.exchange.earthengine import RecordOptions, import_earthengine
from chipmill.exchange.earthengine_out import export_chips
from chipmill.exchange.esri import export_esri, import_esri
from chipmill.exchange.folders import export_folders, import_folders
from chipmill.exchange.imported import write_dataset
from chipmill.exchange.imported_facts import ImportedBand, ImportedChip, ImportFacts

EXAMPLES = 200 if os.environ.get("CHIPMILL_PROFILE") == "nightly" else 8
KINDS = {"floats": "float", "integers": "int64", "bytes": "bytes"}


@st.composite
def datasets(draw):
    """Facts and chips of a small dataset of any type, depth, number of classes and splits."""
    dtype = draw(st.sampled_from(["uint8", "int16", "uint16", "int32"]))
    info = np.iinfo(dtype)
    depth, side, count = (
        draw(st.integers(1, 4)),
        draw(st.integers(1, 9)),
        draw(st.sampled_from([1, 2, 5, 255])),
    )
    nodata = draw(st.one_of(st.none(), st.integers(info.min, info.max).map(float)))
    bands = tuple(
        ImportedBand(
            f"b.{number}", dtype, draw(st.sampled_from([1.0, 0.0001])), nodata=nodata, slot=f"p{number}"
        )
        for number in range(depth)
    )
    classes = tuple((f"class-{code}", f"#{code:06x}", (str(code),)) for code in range(count))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    crs, size = (
        draw(st.sampled_from(["EPSG:32633", "EPSG:4326", ""])),
        draw(st.sampled_from([10.0, 1 / 3, 0.0001])),
    )
    chips = []
    for split in ("train", "val", "test"):
        for number in range(draw(st.integers(1 if split == "train" else 0, 3))):
            high = min(info.max, 16777216)  # what a list of floats holds
            corner = (13.0 + size * number * side, 45.0 - size * 1000 * ("train", "val", "test").index(split))
            sample = Sample(
                rng.integers(max(info.min, -high), high, (side, side, depth), dtype, endpoint=True),
                rng.choice(np.array([*range(min(count, 255)), 255], np.uint8), (side, side)),
                f"{split}_{number}",
                f"2019-01-{1 + number:02d}",
                crs,
                (size, 0.0, corner[0], 0.0, -size, corner[1]) if crs else (1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
            )
            chips.append(ImportedChip(sample, split, sample.chip_id, sample.chip_id))
    return ImportFacts("toy", "test", bands, classes, ()), chips


def way(kind, source, out):
    """Export a dataset and import what came of it."""
    if kind in KINDS:
        export_chips(source, out / "there", KINDS[kind])
        import_earthengine(out / "there", out / "back", ImportOptions(), RecordOptions())
    else:
        export, back = {"esri": (export_esri, import_esri), "folders": (export_folders, import_folders)}[kind]
        export(source, out / "there")
        back(out / "there", out / "back", ImportOptions())


@pytest.mark.parametrize("kind", ["esri", "folders", "floats", "integers", "bytes"])
@settings(max_examples=EXAMPLES)
@given(datasets())
def test_a_dataset_goes_out_and_comes_back(kind, made):
    facts, chips = made
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        write_dataset(out / "1", chips, facts)
        way(kind, out / "1", out)
        before, after = open_dataset(out / "1"), open_dataset(out / "back")
        assert verify_dataset(out / "back", data=True).problems == ()
        for split in ("train", "val", "test"):
            mine, theirs = ({s.chip_id: s for s in one.split(split)} for one in (before, after))
            assert mine.keys() == theirs.keys()
            for chip_id, sample in mine.items():
                np.testing.assert_array_equal(sample.image, theirs[chip_id].image)
                np.testing.assert_array_equal(sample.label, theirs[chip_id].label)
                assert sample[2:6] == theirs[chip_id][2:6]
        one, other = before.manifest, after.manifest
        assert (one.bands, one.classes, one.slots, one.dtype) == (
            other.bands,
            other.classes,
            other.slots,
            other.dtype,
        )
        assert (one.cell, one.counts, one.grids) == (other.cell, other.counts, other.grids)
