"""Records of 256 x 256 px, 4 bands of uint16 and a label, read in batches of 16: per second of processor time.

Five readers of the same chips, in turn, each at its best of several rounds, files in the page cache:
`tf.data` that parses example by example; `.to_tf()`; our reader without TensorFlow; Earth Engine's export (lists of
floats, the whole file gzipped) as its guide reads it; and plain reading of the shards, which nobody can beat. What they
hand out is compared before the clock starts. Processor time is that of all threads of the process.
"""

from __future__ import annotations

import gzip
import struct
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from time import process_time
from typing import Any, Final

import numpy as np

from benchmarks.figure import Figure
from chipmill.dataset.framing import masked_crc
from chipmill.dataset.reader import Dataset, open_dataset
from chipmill.dataset.records import RecordSpec, Sample, encode_example
from chipmill.exchange.imported import write_dataset
from chipmill.exchange.imported_facts import ImportedBand, ImportedChip, ImportFacts

SIDE: Final = 256
BANDS: Final = ("blue", "green", "red", "nir")
BATCH: Final = 16
GOALS: Final = {("to_tf", "tf.data"): 1.4, ("to_tf", "Earth Engine gzip"): 9.0, ("chipmill", "tf.data"): 3.0}
"""(reader, against) -> least ratio of chips per second of processor time."""
_LEVEL: Final = 6
"""What Earth Engine's exports are compressed by, and gzip by default."""

type Read = Callable[[], Iterable[Any]]


def run(quick: bool) -> list[Figure]:
    """Return the figures; ``quick`` reads fewer chips fewer times."""
    chips, foreign, rounds = (32, 16, 2) if quick else (192, 32, 7)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_dataset(folder / "version", scene(chips), _facts())
        dataset = open_dataset(folder / "version")
        exported = folder / "export.tfrecord.gz"
        size = export(exported, dataset[:foreign])
        readers = _readers(dataset, exported)
        check(readers, foreign)
        counts = dict.fromkeys(readers, chips) | {"Earth Engine gzip": foreign}
        rates = {name: counts[name] / best for name, best in _least(readers, rounds).items()}
        context = {
            "chips": chips, "batch": BATCH, "record_bytes": int(dataset.parts[0].length[0]),
            "export_bytes_per_chip": size // foreign, "rounds": rounds, "tensorflow": _tensorflow(),
            "chips_per_cpu_s": {name: round(rate, 1) for name, rate in rates.items()},
        }  # fmt: skip
    return list(_figures(rates, context))


def _figures(rates: dict[str, float], context: dict[str, object]) -> Iterator[Figure]:
    for name, rate in rates.items():
        yield Figure(f"reading {name}", rate, "chips/CPU-s", context=context)
    for (name, against), goal in GOALS.items():
        ratio = rates[name] / rates[against]
        yield Figure(f"reading {name} / {against}", ratio, "x", f">= {goal:g}", ratio >= goal, context)


def scene(chips: int) -> Iterator[ImportedChip]:
    """Yield chips of smooth ground with noise, as compressible as reflectance is."""
    rng = np.random.default_rng(3)
    rows, cols = np.mgrid[:SIDE, :SIDE] / SIDE
    for number in range(chips):
        waves = np.stack(
            [np.sin(6 * rows + number + band) * np.cos(5 * cols - band) for band in range(4)], -1
        )
        image = (2500 + 1500 * waves + rng.normal(0, 60, waves.shape)).astype(np.uint16)
        label = (waves[..., 0] > 0).astype(np.uint8) + (waves[..., 3] > 0.5)
        place = (10.0, 0.0, 500_000.0 + 2560 * number, 0.0, -10.0, 5_000_000.0)
        sample = Sample(
            image, label.astype(np.uint8), f"chip-{number:04d}", "2020-06-01", "EPSG:32633", place
        )
        yield ImportedChip(sample, "train", sample.chip_id, sample.chip_id)


def _facts() -> ImportFacts:
    bands = tuple(ImportedBand(name, "uint16", 1e-4) for name in BANDS)
    classes = tuple(
        (name, color, ()) for name, color in (("a", "#112233"), ("b", "#445566"), ("c", "#778899"))
    )
    return ImportFacts("reading", "benchmark", bands, classes, ())


def export(path: Path, samples: Iterable[Sample]) -> int:
    """Write records with a list of floats per band into one gzip stream; return the bytes of the file."""
    spec = RecordSpec("uint16", encoding="float", bands=BANDS, size_px=SIDE)
    with gzip.open(path, "wb", compresslevel=_LEVEL) as stream:
        for sample in samples:
            data = encode_example(sample, spec)
            length = struct.pack("<Q", len(data))
            stream.write(
                length + struct.pack("<I", masked_crc(length)) + data + struct.pack("<I", masked_crc(data))
            )
    return path.stat().st_size


def _readers(dataset: Dataset, exported: Path) -> dict[str, Read]:
    import tensorflow as tf

    shards = [str(path) for path in dataset.parts[0].files]
    texts = {name: tf.io.FixedLenFeature([], tf.string) for name in ("image", "label")}
    lists = {name: tf.io.FixedLenFeature([SIDE, SIDE], tf.float32) for name in (*BANDS, "label")}

    def one(record: Any) -> tuple[Any, Any]:
        found = tf.io.parse_single_example(record, texts)
        image = tf.reshape(tf.io.decode_raw(found["image"], tf.uint16), (SIDE, SIDE, len(BANDS)))
        return image, tf.reshape(tf.io.decode_raw(found["label"], tf.uint8), (SIDE, SIDE))

    def listed(record: Any) -> tuple[Any, Any]:
        found = tf.io.parse_single_example(record, lists)
        return tf.stack([found[name] for name in BANDS], axis=-1), found["label"]

    def parsed(files: Any, compression: str, parse: Callable[[Any], Any]) -> Any:
        records = tf.data.TFRecordDataset(files, compression_type=compression)
        batches = records.map(parse, num_parallel_calls=tf.data.AUTOTUNE).batch(BATCH)
        return batches.prefetch(tf.data.AUTOTUNE)

    fed = dataset.to_tf("train", BATCH)
    plain, foreign = parsed(shards, "", one), parsed([str(exported)], "GZIP", listed)
    return {
        "tf.data": lambda: plain,
        "to_tf": lambda: fed,
        "chipmill": lambda: dataset.batches(BATCH, threads=1),
        "Earth Engine gzip": lambda: foreign,
        "bytes alone": lambda: _bytes(dataset),
    }


def _tensorflow() -> str:
    import tensorflow as tf

    return str(tf.__version__)


def _bytes(dataset: Dataset) -> Iterator[bytes]:
    for shard in dataset.manifest.shards:
        with (dataset.parts[0].root / shard.path).open("rb", buffering=0) as stream:
            while data := stream.read(1 << 20):
                yield data


def check(readers: dict[str, Read], foreign: int) -> None:
    """Compare what the readers hand out, chip by chip; the first round also wakes everything up."""
    sums: dict[str, list[tuple[int, int]]] = {}
    for name, read in readers.items():
        if name != "bytes alone":
            pairs = [(np.asarray(batch[0]), np.asarray(batch[1])) for batch in read()]
            sums[name] = [
                (int(image.sum(dtype=np.float64)), int(label.sum(dtype=np.float64)))
                for images, labels in pairs
                for image, label in zip(images, labels, strict=True)
            ]
    expected = sums["chipmill"]
    assert sums["tf.data"] == expected, "tf.data reads other chips"
    assert sums["to_tf"] == expected, "to_tf reads other chips"
    assert sums["Earth Engine gzip"] == expected[:foreign], "the export holds other chips"


def _least(readers: dict[str, Read], rounds: int) -> dict[str, float]:
    """Fewest seconds of processor time of each reader for all its chips."""
    best = dict.fromkeys(readers, float("inf"))
    for _ in range(rounds):
        for name, read in readers.items():
            start = process_time()
            for _batch in read():
                pass
            best[name] = min(best[name], process_time() - start)
    return best
