"""Which chips a page shows, read from the shards as a model reads them, and how they become pictures."""

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from chipmill.core.paths import VersionDir
from chipmill.dataset.framing import unframe
from chipmill.dataset.records import RecordSpec, Sample, decode_example, planes
from chipmill.report.blocks import Picture
from chipmill.report.images import color_bands, limits, paint_classes, picture, stretch


def pick_chips(chips: pa.Table, split: str, number: int) -> list[dict[str, Any]]:
    """Return the rows of some written chips of a split: of each block the one with the most even classes.

    Blocks come in the order of their hash, so that the choice is spread over the region and the same on every run.
    """
    written = chips.filter(pc.and_(pc.equal(chips["state"], "written"), pc.equal(chips["split"], split)))
    rows = written.select(["chip_id", "block", "class_px", "shard", "offset", "length"]).to_pylist()
    rows.sort(key=lambda row: (-_entropy(row["class_px"]), row["chip_id"]))
    rounds: dict[str, int] = {}
    ranked = []
    for row in rows:
        turn = rounds[row["block"]] = rounds.get(row["block"], -1) + 1
        ranked.append((turn, hashlib.sha256(row["block"].encode()).hexdigest(), row))
    return [row for _, _, row in sorted(ranked, key=lambda one: one[:2])[:number]]


def _entropy(counts: Sequence[int]) -> float:
    total = sum(counts)
    return -sum(count / total * math.log(count / total) for count in counts if count)


def read_chips(version: Path, rows: Sequence[dict[str, Any]], spec: RecordSpec) -> list[Sample]:
    """Return the records of rows of chips.parquet; raises DamagedFileError where one fails its checksum."""
    samples = []
    for row in rows:
        path = VersionDir(version).shard_file(row["shard"], spec.compression)
        with path.open("rb") as stream:
            stream.seek(row["offset"])
            data, _ = unframe(stream.read(row["length"]), str(path), spec.compression)
        samples.append(decode_example(data, spec, str(path)))
    return samples


def chip_pictures(
    samples: Sequence[Sample], bands: Sequence[str], nodata: Sequence[float], slot: str
) -> list[Picture]:
    """Return the image of each sample, in the colours of one slot, all stretched alike."""
    own = [name for name in bands if name.startswith(f"{slot}_")] or list(bands)
    indexes = [list(bands).index(name) for name in color_bands(own)]
    images = [np.stack([one[index] for index in indexes]) for one in map(planes, samples)]
    fill = np.array([nodata[index] for index in indexes])[:, None, None]
    valid = [np.all(image != fill, axis=0) for image in images]
    ranges = limits(
        np.concatenate([image.reshape(len(indexes), 1, -1) for image in images], axis=2),
        np.concatenate([mask.reshape(1, -1) for mask in valid], axis=1),
    )
    return [
        picture(stretch(image, mask, ranges), f"Image of chip {sample.chip_id}", "image")
        for image, mask, sample in zip(images, valid, samples, strict=True)
    ]


def shown_px(chip_px: int, most: int = 128) -> int:
    """Return the width of a chip on the page: a whole multiple of its pixels where it is smaller than ``most``."""
    return chip_px * (most // chip_px) if chip_px <= most else most


def label_picture(sample: Sample, colors: Sequence[str]) -> Picture:
    """Return the label of a sample in the colours of the classes; ignored pixels are transparent."""
    return picture(paint_classes(sample.label, colors), f"Label of chip {sample.chip_id}", "label")
