"""Where the chips of a dataset version lie: found by a path, read from its tables, and fetched from files kept open.

The file to change for which directories count as a dataset, and for how the bytes of a record reach memory.
"""

import dataclasses
import os
from collections.abc import Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from chipmill.core.errors import BadInputError, DamagedFileError, VersionNotFoundError
from chipmill.core.paths import CellDir, VersionDir
from chipmill.core.tables import CHIPS, read_table
from chipmill.dataset.description import Manifest
from chipmill.dataset.framing import unframe
from chipmill.dataset.manifest import WRITTEN, load_manifest
from chipmill.dataset.places import Ints
from chipmill.dataset.records import RecordSpec, Sample, decode_example

_RECORDS: Final = pa.schema([CHIPS.field(name) for name in ("chip_id", "shard", "offset", "length")])
_GROUND: Final = pa.schema(
    [CHIPS.field(name) for name in ("lattice", "col_off", "row_off", "width", "height", "split", "anchor")]
)
_OPEN_FILES: Final = 64
"""Shards that stay open at most: a process may hold 256 files on some systems."""


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


@dataclasses.dataclass(frozen=True, eq=False)
class Part:
    """One version of a dataset, opened: what it says of itself, and the place of each record in reading order.

    The records are in the order in which the manifest lists the shards, and in a shard in that of the file.
    """

    root: Path
    manifest: Manifest
    spec: RecordSpec
    chip_ids: pa.StringArray
    shard: Ints
    """Number of the record's shard in ``manifest.shards``."""
    offset: Ints
    length: Ints
    """Bytes in the file."""

    @cached_property
    def files(self) -> tuple[Path, ...]:
        """The shards."""
        return tuple(self.root / one.path for one in self.manifest.shards)

    @cached_property
    def splits(self) -> npt.NDArray[Any]:
        """Split of each record."""
        names = np.array([one.split for one in self.manifest.shards], dtype=object)
        return names[self.shard]

    @cached_property
    def layouts(self) -> dict[int, Any]:
        """What :mod:`chipmill.dataset.batching` learnt of the records, by their length."""
        return {}

    def place(self, row: int) -> tuple[Path, int]:
        """Return file and offset of a record by its place in reading order."""
        return self.files[self.shard[row]], int(self.offset[row])

    def read(self, row: int, files: "OpenFiles") -> Sample:
        """Return a record; its arrays are the caller's own. Raises as :meth:`fetch`."""
        return self.fetch(row, files)[1]

    def fetch(self, row: int, files: "OpenFiles") -> tuple[npt.NDArray[np.uint8], Sample]:
        """Return the bytes of a record, and what they hold: arrays that are stored as they are, are views of them.

        Raises DamagedFileError where the shard is gone or the bytes are not that record.
        """
        path, offset = self.place(row)
        chip_id = self.chip_ids[row].as_py()
        where = f"chip {chip_id} in {path} at byte {offset}"
        framed: Any = np.empty(int(self.length[row]), np.uint8)  # as good as bytes, and can be written to
        try:
            framed = framed[: files.read_into(path, offset, [framed])]
        except FileNotFoundError as error:
            raise DamagedFileError(
                f"{where}: the shard is gone: run the region again, it remakes what is missing"
            ) from error
        sample = decode_example(unframe(framed, where, self.spec.compression)[0], self.spec, where)
        if sample.chip_id != chip_id:
            raise DamagedFileError(f"{where}: found chip {sample.chip_id}: run verify --data")
        return framed, sample


def read_ground(root: Path) -> pa.Table:
    """Return lattice, window, split and anchor of each written chip of a version, in the order of chips.parquet."""
    return read_table(VersionDir(root).chips, _GROUND, pc.field("state") == WRITTEN)


def open_part(path: Path) -> Part:
    """Open the version that ``path`` means.

    Raises VersionNotFoundError, BadInputError, or DamagedFileError where its manifest or table is unreadable.
    """
    root = find_version(path)
    version = VersionDir(root)
    changed = [one.stat().st_mtime_ns if one.is_file() else 0 for one in (version.manifest, version.chips)]
    return _read_part(root, *changed)


@lru_cache(maxsize=32)
def _read_part(root: Path, *_changed: int) -> Part:
    manifest, path = load_manifest(root), VersionDir(root).chips
    if not manifest.shards:
        none = np.empty(0, np.int64)
        return Part(root, manifest, manifest.record_spec(), pa.array([], pa.string()), none, none, none)
    if not path.is_file():
        raise DamagedFileError(f"{path} is gone: run the region again, it remakes what is missing")
    rows = read_table(path, _RECORDS, pc.field("state") == WRITTEN).combine_chunks()
    stems = pa.array([one.stem for one in manifest.shards])
    shard = pc.index_in(rows["shard"], stems)
    if shard.null_count:
        lost = rows["shard"].filter(pc.is_null(shard))[0]
        raise DamagedFileError(f"{path} names the shard {lost}, dataset.json does not: run verify on {root}")
    numbers, offsets, lengths = (
        one.to_numpy().astype(np.int64) for one in (shard, rows["offset"], rows["length"])
    )
    order = np.lexsort((offsets, numbers))
    chip_ids = rows["chip_id"].take(pa.array(order)).combine_chunks()
    return Part(
        root, manifest, manifest.record_spec(), chip_ids, numbers[order], offsets[order], lengths[order]
    )


class OpenFiles:
    """Shards kept open for reading at any place: by threads at once, and across a fork, since no position is shared."""

    def __init__(self, limit: int = _OPEN_FILES) -> None:
        # what is dropped for another closes when the last reader lets go of it
        self._open = lru_cache(maxsize=limit)(_OpenFile)

    def read_into(self, path: Path, offset: int, buffers: Sequence[npt.NDArray[Any]]) -> int:
        """Fill contiguous arrays one after the other with the bytes from ``offset`` on.

        Returns the number of bytes, fewer than there is room for at the end of the file; raises FileNotFoundError.
        """
        file = self._open(path)  # held until the read is over: another thread may push it out
        return os.preadv(file.number, buffers, offset)


class _OpenFile:
    """A file descriptor that closes with its last reference."""

    __slots__ = ("number",)

    def __init__(self, path: Path) -> None:
        self.number = -1  # what __del__ finds where the file cannot be opened
        self.number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        if self.number >= 0:
            os.close(self.number)
