"""Writing records: against writing the same bytes to a plain file, without TensorFlow in the process.

Chips of 128 x 128 px, 11 bands of int16 and a label, framed as TFRecords with both checksums. Both write the same bytes
chip by chip to a new file, which is synced to the disk at the end, as every shard is.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.figure import Figure
from benchmarks.kernel import interleaved
from chipmill.dataset.framing import iter_frames
from chipmill.dataset.records import RecordSpec, Sample, record_key, write_records

SHAPE: Final = (128, 128, 11)
OF_PLAIN: Final = 0.9
_SPEC: Final = RecordSpec("int16", bands=tuple(f"b{number}" for number in range(SHAPE[2])), size_px=SHAPE[0])
_TRANSFORM: Final = (10.0, 0.0, 512_000.0, 0.0, -10.0, 5_099_520.0)


def run(quick: bool) -> list[Figure]:
    """Return the figures; ``quick`` writes fewer records, fewer times."""
    samples = _samples(64 if quick else 512)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = _written(folder / "all", samples)
        calls: dict[str, Callable[[], object]] = {
            "plain": lambda: _plain(folder / "plain", data),
            "chipmill": lambda: _ours(folder / "ours", samples),
        }
        seconds = interleaved(calls, 3 if quick else 40)
        if (folder / "plain").read_bytes() != (folder / "ours").read_bytes():
            raise RuntimeError("the two files differ: the comparison means nothing")
    size = sum(map(len, data))
    share = seconds["plain"] / seconds["chipmill"]
    absent = not any(one.split(".")[0] in ("tensorflow", "google.protobuf") for one in sys.modules)
    context: dict[str, object] = {
        "records": len(samples),
        "mb": round(size / 1e6, 1),
        "mb_per_s": {name: round(size / 1e6 / value, 1) for name, value in seconds.items()},
    }
    return [
        Figure("records written", len(samples) / seconds["chipmill"], "records/s", context=context),
        Figure("records / plain file", share, "x", f">= {OF_PLAIN}", share >= OF_PLAIN, context),
        Figure("records: TensorFlow not imported", float(absent), "yes", "1", absent, context),
    ]


def _samples(count: int) -> list[Sample]:
    rng = np.random.default_rng(8)
    images = rng.integers(0, 6000, (count, *SHAPE), np.int16)
    labels = rng.integers(0, 3, (count, *SHAPE[:2]), np.uint8)
    made = [
        Sample(image, label, f"t_0001_0002-20190702-{number:06d}", "2019-07-02", "EPSG:32633", _TRANSFORM)
        for number, (image, label) in enumerate(zip(images, labels, strict=True))
    ]
    return sorted(made, key=lambda sample: record_key(sample.chip_id))


def _ours(path: Path, samples: list[Sample]) -> None:
    write_records(path, samples, _SPEC)
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def _plain(path: Path, data: list[bytes]) -> None:
    with path.open("wb") as stream:
        for one in data:
            stream.write(one)
        stream.flush()
        os.fsync(stream.fileno())


def _written(path: Path, samples: list[Sample]) -> list[bytes]:
    """Return the bytes of each record with its framing."""
    _ours(path, samples)
    whole = path.read_bytes()
    return [whole[frame.offset : frame.offset + frame.length] for frame in iter_frames(path)]
