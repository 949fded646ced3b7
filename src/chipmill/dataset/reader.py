"""Reading a dataset: any chip by its place, all of a split in order, or as a ``tf.data.Dataset``.

Only :meth:`Dataset.to_tf` needs TensorFlow. Names, types and shapes come from dataset.json, places from chips.parquet;
every record's checksum is verified wherever it is read.
"""

import dataclasses
import hashlib
import os
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, overload

import pyarrow.compute as pc

from chipmill.core.errors import BadInputError, DamagedFileError, VersionNotFoundError
from chipmill.core.paths import CellDir, VersionDir
from chipmill.core.tables import CHIPS, read_table
from chipmill.dataset.description import Manifest
from chipmill.dataset.manifest import WRITTEN, load_manifest
from chipmill.dataset.places import SPLITS
from chipmill.dataset.records import Sample, decode_example, iter_frames, unframe

if TYPE_CHECKING:
    import tensorflow as tf

_SHUFFLE_BYTES: Final = 256_000_000
"""Records that wait in memory to be mixed; shards are ordered by hash already, so a part of them is enough."""
_MIXED_SHARDS: Final = 8


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """Where a record lies."""

    chip_id: str
    split: str
    shard: str
    """Stem of its file."""
    offset: int
    length: int
    """Bytes with framing."""


class Dataset(Sequence[Sample]):
    """The written chips of a version, in the order of the shards; indexing reads one record."""

    def __init__(self, root: Path, manifest: Manifest, places: Sequence[Place]) -> None:
        """Use :func:`open_dataset`."""
        self.root = root
        self.manifest = manifest
        self._places = tuple(places)

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> "Dataset": ...
    def __getitem__(self, index: int | slice) -> "Sample | Dataset":
        if isinstance(index, slice):
            return Dataset(self.root, self.manifest, self._places[index])
        return self._read(self._places[index])

    def __iter__(self) -> Iterator[Sample]:
        return map(self._read, self._places)

    def split(self, name: str) -> "Dataset":
        """Return the chips of train, val or test."""
        return Dataset(self.root, self.manifest, [place for place in self._places if place.split == name])

    @property
    def chip_ids(self) -> tuple[str, ...]:
        """Ids in the order of the samples."""
        return tuple(place.chip_id for place in self._places)

    def _read(self, place: Place) -> Sample:
        path = VersionDir(self.root).shards / f"{place.shard}.tfrecord"
        where = f"chip {place.chip_id} in {path} at byte {place.offset}"
        try:
            with path.open("rb", buffering=0) as stream:
                framed = os.pread(stream.fileno(), place.length, place.offset)
        except FileNotFoundError as error:
            raise DamagedFileError(
                f"{where}: the shard is gone: run the region again, it remakes what is missing"
            ) from error
        sample = decode_example(unframe(framed, where)[0], self.manifest.dtype, where)
        if sample.chip_id != place.chip_id:
            raise DamagedFileError(f"{where}: found chip {sample.chip_id}: run verify --data")
        return sample

    def to_tf(
        self, split: str, batch_size: int, *, shuffle_seed: int | None = None, epoch: int = 0,
        drop_remainder: bool = False,
    ) -> "tf.data.Dataset":  # fmt: skip
        """Return batches ``(image, label)`` of one epoch of a split.

        ``image`` is (batch, y, x, band) in the dataset's dtype, ``label`` (batch, y, x) uint8 with 255 = ignore. The
        order depends on ``shuffle_seed`` and ``epoch`` alone; without a seed it is that of the shards. Serialised
        records are batched before they are parsed, which reads half as fast again as one by one.
        """
        import tensorflow as tf

        shards = self.manifest.shards_of(split)
        names = [str(self.root / shard.path) for shard in shards]
        count = sum(shard.count for shard in shards)
        if shuffle_seed is None:
            records = tf.data.TFRecordDataset(names)
        else:
            names.sort(key=lambda name: _draw(shuffle_seed, epoch, Path(name).name))
            records = tf.data.Dataset.from_tensor_slices(names).interleave(
                tf.data.TFRecordDataset,
                cycle_length=_MIXED_SHARDS,
                block_length=1,
                num_parallel_calls=tf.data.AUTOTUNE,
                deterministic=True,
            )
            largest = max((shard.bytes // max(shard.count, 1) for shard in shards), default=1)
            waiting = max(1, min(count, _SHUFFLE_BYTES // largest))
            seed = int(_draw(shuffle_seed, epoch, "records")[:8], 16)
            records = records.shuffle(waiting, seed=seed, reshuffle_each_iteration=False)
        records = records.apply(tf.data.experimental.assert_cardinality(count))
        parsed = records.batch(batch_size, drop_remainder=drop_remainder).map(
            _parser(self.manifest), num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
        )
        return parsed.prefetch(tf.data.AUTOTUNE)


def _draw(seed: int, epoch: int, name: str) -> str:
    return hashlib.sha256(f"{seed}/{epoch}/{name}".encode()).hexdigest()


def _parser(manifest: Manifest) -> Any:
    """Return the function from a batch of serialised records to (image, label)."""
    import tensorflow as tf

    shapes = {one.name: one.shape for one in manifest.features}
    dtype = tf.as_dtype(manifest.dtype)
    features = {name: tf.io.FixedLenFeature([], tf.string) for name in ("image", "label")}

    def parse(serialized: Any) -> tuple[Any, Any]:
        found = tf.io.parse_example(serialized, features)
        image = tf.reshape(tf.io.decode_raw(found["image"], dtype), (-1, *shapes["image"]))
        label = tf.reshape(tf.io.decode_raw(found["label"], tf.uint8), (-1, *shapes["label"]))
        return image, label

    return parse


def find_version(path: Path) -> Path:
    """Return the version directory that ``path`` means: a version, a cell, or an output with a single cell.

    Raises VersionNotFoundError where nothing is committed, BadInputError where several cells could be meant.
    """
    if VersionDir(path).manifest.is_file():
        return path
    if CellDir(path).versions.pointer.is_file():
        return CellDir(path).versions.current_path()
    cells = sorted(pointer.parent for pointer in path.glob("regions/*/*/CURRENT"))
    cells += sorted(
        pointer.parent for pointer in path.glob("*/CURRENT") if (pointer.parent / "versions").is_dir()
    )
    if len(cells) > 1:
        names = ", ".join(str(cell.relative_to(path)) for cell in cells[:5])
        raise BadInputError(f"{path} holds {len(cells)} datasets ({names}, ...): give the directory of one")
    if not cells:
        raise VersionNotFoundError(
            f"{path} is no dataset: give a version or cell directory, or run the region first"
        )
    return CellDir(cells[0]).versions.current_path()


@lru_cache(maxsize=4)
def _places(chips: Path, _changed: int) -> tuple[Place, ...]:
    table = read_table(chips, CHIPS)
    rows = table.filter(pc.equal(table["state"], WRITTEN))
    columns = rows.select(["chip_id", "split", "shard", "offset", "length"]).to_pydict().values()
    places = [Place(*row) for row in zip(*columns, strict=True)]
    # as the manifest lists the shards: train, val, test
    return tuple(sorted(places, key=lambda place: (SPLITS.index(place.split), place.shard, place.offset)))


def open_dataset(path: Path | str) -> Dataset:
    """Open a dataset by the directory of a version, of a cell (its version in force), or of an output with one cell.

    Raises VersionNotFoundError, BadInputError, or DamagedFileError where its manifest or table is unreadable.
    """
    root = find_version(Path(path))
    manifest = load_manifest(root)
    if not manifest.shards:
        return Dataset(root, manifest, ())
    chips = VersionDir(root).chips
    if not chips.is_file():
        raise DamagedFileError(f"{chips} is gone: run the region again, it remakes what is missing")
    return Dataset(root, manifest, _places(chips, chips.stat().st_mtime_ns))


def iter_records(path: Path | str, split: str | None = None) -> Iterator[Sample]:
    """Yield the samples of a dataset shard by shard, reading each file once from its start; TensorFlow is not needed.

    Raises DamagedFileError where a record is cut or changed, or a shard holds another number than the manifest says.
    """
    root = find_version(Path(path))
    manifest = load_manifest(root)
    for shard in manifest.shards_of(split):
        file, count = root / shard.path, 0
        for frame in iter_frames(file):
            count += 1
            yield decode_example(frame.data, manifest.dtype, f"{file} at byte {frame.offset}")
        if count != shard.count:
            raise DamagedFileError(
                f"{file} holds {count} records, expected {shard.count}: run the region again"
            )
