"""Checking a dataset against its manifest. Nothing is ever repaired here: a run remakes what is missing or bad."""

import collections
import dataclasses
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from chipmill.core.errors import BadInputError, DamagedFileError
from chipmill.core.paths import VersionDir
from chipmill.core.store import read_sidecar, sha256_file
from chipmill.core.tables import CHIPS, read_table
from chipmill.dataset.description import FileFacts, Manifest, ShardFacts
from chipmill.dataset.manifest import WRITTEN, load_manifest
from chipmill.dataset.reader import find_version
from chipmill.dataset.records import decode_example, iter_frames


@dataclasses.dataclass(frozen=True, slots=True)
class Report:
    """What was found."""

    problems: tuple[str, ...]
    """One sentence each; none = the dataset is good as far as it was checked."""
    checked: int
    """Number of files looked at."""
    hashed: int
    """Number of files of which every byte was read."""


def verify_dataset(path: Path | str, data: bool = False, subset: float | None = None) -> Report:
    """Check a dataset and return what is wrong with it.

    Args:
        path: a version, a cell, or an output with one cell.
        data: also hash every file and parse every record; without it names, sizes, sidecars and counts are compared.
        subset: per cent of the files that are hashed, drawn anew each time, so that calls add up; implies ``data``.

    Raises:
        VersionNotFoundError: there is no dataset. BadInputError: ``subset`` is not in (0, 100].
    """
    if subset is not None and not 0 < subset <= 100:
        raise BadInputError(
            f"the subset must be over 0 and at most 100 per cent, got {subset:g}: give for example 5"
        )
    root = find_version(Path(path))
    try:
        manifest = load_manifest(root)
        chips = _read_chips(root, manifest)
    except DamagedFileError as error:
        return Report((str(error),), 1, 0)
    named = manifest.named()
    problems = [*_check_self(root), *_check_counts(manifest, chips), *_check_extra(root, manifest)]
    chosen = set(_choose(manifest, data, subset))
    for file in named:
        found = list(_check_file(root, file, full=file.path in chosen))
        if isinstance(file, ShardFacts) and chips is not None:
            found += _check_places(file, chips)
            if file.path in chosen and (root / file.path).is_file():
                found += _check_records(root / file.path, file, chips, manifest.dtype)
        problems += found
    return Report(tuple(dict.fromkeys(problems)), len(named) + 1, len(chosen))


def _read_chips(root: Path, manifest: Manifest) -> pa.Table | None:
    return read_table(VersionDir(root).chips, CHIPS) if manifest.shards else None


def _choose(manifest: Manifest, data: bool, subset: float | None) -> list[str]:
    names = [file.path for file in manifest.named()]
    if subset is not None:
        return random.SystemRandom().sample(names, max(1, round(len(names) * subset / 100)))
    return names if data else []


def _check_self(root: Path) -> Iterator[str]:
    file = VersionDir(root).manifest
    sidecar = read_sidecar(file)
    if sidecar is None:
        yield f"{file}: its sidecar is missing"
    elif sidecar.sha256 != sha256_file(file):
        yield f"{file}: differs from what was committed"


def _check_file(root: Path, file: FileFacts, *, full: bool) -> Iterator[str]:
    path = Path(os.path.normpath(root / file.path))
    if not path.is_file():
        yield f"{path}: missing"
        return
    size = path.stat().st_size
    sidecar = read_sidecar(path)
    if size != file.bytes:
        yield f"{path}: expected {file.bytes} bytes, got {size}"
    elif full and (digest := sha256_file(path)) != file.sha256:
        yield f"{path}: expected sha256 {file.sha256}, got {digest}"
    if sidecar is None:
        yield f"{path}: its sidecar is missing"
    elif sidecar.sha256 != file.sha256:
        yield f"{path}: its sidecar names another content than the manifest"


def _check_counts(manifest: Manifest, chips: pa.Table | None) -> Iterator[str]:
    counts = manifest.counts
    total = counts.written + sum(counts.filtered.values()) + sum(counts.failed.values())
    if total != counts.planned:
        yield f"dataset.json: {counts.planned} windows were planned, its counts add up to {total}"
    if sum(shard.count for shard in manifest.shards) != counts.written:
        yield f"dataset.json: its shards do not hold the {counts.written} chips that were written"
    if chips is None:
        return
    states = collections.Counter(chips["state"].to_pylist())
    wanted = (counts.planned, counts.written)
    if (chips.num_rows, states[WRITTEN]) != wanted:
        yield f"chips.parquet: expected {wanted} rows and written rows, got {(chips.num_rows, states[WRITTEN])}"


def _check_extra(root: Path, manifest: Manifest) -> Iterator[str]:
    named = {root / shard.path for shard in manifest.shards}
    for path in sorted(VersionDir(root).shards.glob("*.tfrecord")):
        if path not in named:
            yield f"{path}: not named by the manifest"


def _rows_of(file: ShardFacts, chips: pa.Table) -> pa.Table:
    mask = pc.and_(pc.equal(chips["shard"], Path(file.path).stem), pc.equal(chips["state"], WRITTEN))
    return chips.filter(mask).sort_by("offset")


def _check_places(file: ShardFacts, chips: pa.Table) -> Iterator[str]:
    """Records must fill a shard from its first byte to its last: nothing between them, nothing after them."""
    rows = _rows_of(file, chips)
    at = 0
    for offset, length in zip(rows["offset"].to_pylist(), rows["length"].to_pylist(), strict=True):
        if offset != at:
            yield f"{file.path}: chips.parquet has a record at byte {offset}, expected {at}"
            return
        at += length
    if (rows.num_rows, at) != (file.count, file.bytes):
        yield (
            f"{file.path}: the manifest has {file.count} records in {file.bytes} bytes, chips.parquet {rows.num_rows} "
            f"in {at}"
        )


def _check_records(path: Path, file: ShardFacts, chips: pa.Table, dtype: str) -> Iterator[str]:
    """Every record parses, passes its checksums, and is the chip that chips.parquet says lies there."""
    wanted = _rows_of(file, chips).select(["chip_id", "offset", "length", "crc"]).to_pylist()
    found = 0
    try:
        for frame, row in zip(iter_frames(path), wanted, strict=False):
            sample = decode_example(frame.data, dtype, f"{path} at byte {frame.offset}")
            got = {
                "chip_id": sample.chip_id,
                "offset": frame.offset,
                "length": frame.length,
                "crc": frame.crc,
            }
            if got != row:
                yield f"{path} at byte {frame.offset}: expected {row}, got {got}"
            found += 1
    except DamagedFileError as error:
        yield str(error)
        return
    if found != file.count:
        yield f"{path}: expected {file.count} records, found {found}"
