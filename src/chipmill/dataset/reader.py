"""Reading datasets: any chip by its place, all of a split in order, in batches, or as a ``tf.data.Dataset``.

Only :meth:`Dataset.to_tf` needs TensorFlow. Names, types and shapes come from dataset.json, places from chips.parquet;
every record's checksum is verified wherever it is read.
"""

import operator
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from chipmill.core.errors import BadInputError, DamagedFileError
from chipmill.dataset import feeding, union
from chipmill.dataset.batching import Batch, read_batch
from chipmill.dataset.description import BandFacts, ClassFacts, Manifest
from chipmill.dataset.framing import iter_frames
from chipmill.dataset.manifest import load_manifest
from chipmill.dataset.opening import OpenFiles, Part, find_version, open_part
from chipmill.dataset.places import Ints
from chipmill.dataset.records import Sample, decode_example

if TYPE_CHECKING:
    import tensorflow as tf
    import xarray as xr
    from matplotlib.figure import Figure

type Where = Path | str | Sequence[Path | str]
"""One dataset, or several that are read as one."""


class Dataset(Sequence[Sample]):
    """The written chips of one version or of several; indexing reads one record and nothing else.

    The order is that of the datasets, then train, val, test, then the shards. Threads may share it, forked processes
    may go on with it, and pickling stores paths and places alone, so that a spawned process opens the files itself.
    A torch ``DataLoader`` takes it as it is.
    """

    def __init__(
        self, parts: Sequence[Part], rows: Ints | None = None, files: OpenFiles | None = None
    ) -> None:
        """Use :func:`open_dataset`."""
        self.parts = tuple(parts)
        self._ends = np.cumsum([len(part.shard) for part in self.parts])
        self._rows = np.arange(self._ends[-1]) if rows is None else rows
        self._files = files or OpenFiles()

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> "Dataset": ...
    def __getitem__(self, index: int | slice) -> "Sample | Dataset":
        if isinstance(index, slice):
            return self._of(self._rows[index])
        return self._read(int(self._rows[operator.index(index)]))

    def __iter__(self) -> Iterator[Sample]:
        return map(self._read, self._rows.tolist())

    def __reduce__(self) -> tuple[Any, ...]:
        whole = len(self) == self._ends[-1] and bool((self._rows == np.arange(len(self))).all())
        marks = tuple((part.root, part.manifest.fingerprint) for part in self.parts)
        return _reopen, (marks, None if whole else self._rows)

    def __repr__(self) -> str:
        roots = ", ".join(str(part.root) for part in self.parts)
        return f"<Dataset of {len(self)} chips in {roots}>"

    def _of(self, rows: Ints) -> "Dataset":
        return Dataset(self.parts, rows, self._files)

    def _part(self, row: int) -> tuple[Part, int]:
        number = int(np.searchsorted(self._ends, row, side="right"))
        part = self.parts[number]
        return part, row - int(self._ends[number]) + len(part.shard)

    def _read(self, row: int) -> Sample:
        part, own = self._part(row)
        return part.read(own, self._files)

    @property
    def manifest(self) -> Manifest:
        """What dataset.json says; raises BadInputError for several datasets, which have one each in ``parts``."""
        if len(self.parts) > 1:
            raise BadInputError(f"{self!r} has {len(self.parts)} manifests: take them from its parts")
        return self.parts[0].manifest

    @property
    def bands(self) -> tuple[BandFacts, ...]:
        """The bands in the order of the image's last axis; statistics are those of the whole datasets together."""
        return union.united_bands([part.manifest for part in self.parts])

    @property
    def classes(self) -> tuple[ClassFacts, ...]:
        """The classes in the order of their codes."""
        return self.parts[0].manifest.classes

    @property
    def chip_ids(self) -> tuple[str, ...]:
        """Ids in the order of the samples."""
        known = np.concatenate([part.chip_ids.to_numpy(zero_copy_only=False) for part in self.parts])
        return tuple(known[self._rows].tolist())

    def split(self, name: str) -> "Dataset":
        """Return the chips of train, val or test."""
        splits = np.concatenate([part.splits for part in self.parts])
        return self._of(self._rows[splits[self._rows] == name])

    def batch(self, places: Iterable[int] | Ints) -> Batch:
        """Return the samples at some places, one at least, as one batch in that order; raises as indexing does."""
        return read_batch([self._part(int(self._rows[place])) for place in places], self._files)

    def batches(
        self, size: int, *, shuffle_seed: int | None = None, epoch: int = 0, drop_remainder: bool = False,
        threads: int = 2,
    ) -> Iterator[Batch]:  # fmt: skip
        """Yield each chip once, ``size`` at a time, read ahead by ``threads`` threads; TensorFlow is not needed.

        The order depends on ``shuffle_seed`` and ``epoch`` alone; without a seed it is that of the dataset. The last
        batch may be smaller, unless ``drop_remainder`` leaves it out. Raises DamagedFileError as indexing does.
        """
        cut = self.groups(size, shuffle_seed=shuffle_seed, epoch=epoch, drop_remainder=drop_remainder)
        return feeding.read_ahead(lambda step: self.batch(cut[step]), len(cut), threads)

    def groups(
        self, size: int, *, shuffle_seed: int | None = None, epoch: int = 0, drop_remainder: bool = False
    ) -> list[Ints]:
        """Return the places of the chips of each batch of an epoch, a function of ``shuffle_seed`` and ``epoch``."""
        order = np.arange(len(self))
        if shuffle_seed is not None:
            order = feeding.mixed_order(*self._shards(), shuffle_seed, epoch)
        return feeding.groups(order, size, drop_remainder=drop_remainder)

    def _shards(self) -> tuple[Ints, list[str]]:
        """Number of each chip's shard among those of all parts, and the name of each shard."""
        counts = [len(part.files) for part in self.parts]
        starts = np.cumsum([0, *counts[:-1]])
        numbers = np.concatenate([part.shard + start for part, start in zip(self.parts, starts, strict=True)])
        names = [f"{number}/{path.name}" for number, part in enumerate(self.parts) for path in part.files]
        return numbers[self._rows], names

    def to_tf(
        self, split: str, batch_size: int, *, shuffle_seed: int | None = None, epoch: int = 0,
        drop_remainder: bool = False,
    ) -> "tf.data.Dataset":  # fmt: skip
        """Return batches ``(image, label)`` of one epoch of a split, ``(image, label, weight)`` where there are weights.

        ``image`` is (batch, y, x, band), or (batch, t, y, x, band) of a series, in the dataset's dtype; a series with
        bands that have no time gives ``{"image": ..., "static": (batch, y, x, k)}`` instead. ``label`` is (batch, y, x)
        uint8 with 255 = ignore, ``weight`` (batch, y, x) float32 from 0 to 1. The batches are those of :meth:`batches`,
        in the same order: records are not parsed one by one, but read into the arrays of a batch.
        """
        from chipmill.dataset import tensors

        chosen = self.split(split)
        groups = chosen.groups(
            batch_size, shuffle_seed=shuffle_seed, epoch=epoch, drop_remainder=drop_remainder
        )
        return tensors.feed(chosen.batch, groups, self.parts[0].spec)

    def to_xarray(self, index: int | slice = slice(None), *, scaled: bool = False) -> "xr.Dataset":
        """Return one chip, or several (all by default) along a first dimension ``chip``, read into memory.

        ``image`` is (time, band, y, x) in stored values, ``label`` (y, x); ``static_image`` (static, y, x) holds bands
        that have no time and ``weight`` (y, x) the confidence, where there are any. Coordinates: ``time`` is the start of
        each slot in UTC (the anchor where there are no slots), ``time_end`` and ``slot`` its end and name; ``band`` with
        ``scale``, ``offset`` and ``nodata``; ``x`` and ``y`` pixel centres in CRS units, and ``spatial_ref`` the CRS
        after the CF conventions and GDAL. Several chips have ``x_centre`` (chip, x) and ``y_centre`` (chip, y), and,
        where their times differ, ``time_start`` (chip, time). With ``scaled`` image and static are float32 in physical
        values, NaN for nodata. Raises BadInputError where there is no chip.
        """
        from chipmill.dataset import views

        stacked = isinstance(index, slice)
        rows = self._rows[index if isinstance(index, slice) else [operator.index(index)]]
        return views.to_xarray(self._chips(rows), scaled=scaled, stacked=stacked)

    def plot(self, n: int = 4, bands: Sequence[str] | None = None) -> "Figure":
        """Return a figure of ``n`` chips, evenly spread over the dataset: each image, and its label beside it.

        ``bands`` names one band or three; by default it is true colour of the first slot, false colour, or what there
        is, each stretched between its 2nd and 98th percentile. Pixels without data, or with ignore in the label, are
        blank. Raises BadInputError for other bands, where there is no chip, and where matplotlib is not installed.
        """
        from chipmill.dataset import plotting

        places = np.linspace(0, len(self) - 1, min(n, len(self))).round().astype(np.int64)
        return plotting.plot(self._chips(self._rows[places]), bands)

    def _chips(self, rows: Ints) -> list[tuple[Part, Sample]]:
        return [(self._part(row)[0], self._read(row)) for row in rows.tolist()]


def open_dataset(path: Where) -> Dataset:
    """Open a dataset by the directory of a version, of a cell (its version in force), or of an output with one cell.

    Several paths are read as one dataset: several regions, or several years.

    Raises VersionNotFoundError, BadInputError, or DamagedFileError where a manifest or table is unreadable; for several,
    SchemaMismatchError where bands, scales or classes differ, and SplitMismatchError where a chip is in two of them or
    one trains on ground that another one holds back.
    """
    if not isinstance(path, str | Path) and not path:
        raise BadInputError("no dataset was given: name at least one directory")
    parts = tuple(open_part(Path(one)) for one in ([path] if isinstance(path, str | Path) else path))
    if len(parts) > 1:
        union.check_parts(parts)
    return Dataset(parts)


def _reopen(marks: Sequence[tuple[Path, str]], rows: Ints | None) -> Dataset:
    """Open what was pickled; raises DamagedFileError where another dataset lies there now."""
    parts = [open_part(root) for root, _ in marks]
    for part, (root, fingerprint) in zip(parts, marks, strict=True):
        if part.manifest.fingerprint != fingerprint:
            raise DamagedFileError(
                f"{root} is another dataset than the one that was handed over: open it again"
            )
    return Dataset(parts, rows)


def iter_records(path: Path | str, split: str | None = None) -> Iterator[Sample]:
    """Yield samples shard by shard, reading each file once from its start; neither TensorFlow nor an index is needed.

    Raises DamagedFileError where a record is cut or changed, or a shard holds another number than the manifest says.
    """
    root = find_version(Path(path))
    manifest = load_manifest(root)
    spec = manifest.record_spec()
    for shard in manifest.shards_of(split):
        file, count = root / shard.path, 0
        for frame in iter_frames(file, spec.compression):
            count += 1
            yield decode_example(frame.data, spec, f"{file} at byte {frame.offset}")
        if count != shard.count:
            raise DamagedFileError(
                f"{file} holds {count} records, expected {shard.count}: run the region again"
            )
