"""Checking a dataset against its manifest. Nothing is ever repaired here: a run remakes what is missing or bad."""

import collections
import dataclasses
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from chipmill.core.errors import BadInputError, ChipmillError, DamagedFileError
from chipmill.core.paths import VersionDir
from chipmill.core.store import read_sidecar, sha256_file
from chipmill.core.tables import CHIPS, read_table
from chipmill.dataset.description import FileFacts, Manifest, ShardFacts
from chipmill.dataset.framing import iter_frames
from chipmill.dataset.manifest import WRITTEN, load_manifest
from chipmill.dataset.opening import find_version
from chipmill.dataset.places import SPLITS, TRAIN
from chipmill.dataset.records import RecordSpec, decode_example
from chipmill.dataset.recount import Ground, check_classes, check_statistics, check_table, check_text
from chipmill.region.plan import load_tiles


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
    problems = [*_check_self(root, manifest), *_check_counts(manifest), *_check_names(root, manifest)]
    chosen = set(_choose(manifest, data, subset))
    for file in named:
        problems += _check_file(root, file, full=file.path in chosen)
    if chips is not None:
        problems += _follow(check_table(manifest, chips), "chips.parquet")
        problems += check_statistics(root, manifest)
        problems += _follow(_check_shards(root, manifest, chips, chosen), "chips.parquet or tiles.parquet")
    return Report(tuple(dict.fromkeys(problems)), len(named) + 1, len(chosen))


def _follow(problems: Iterator[str], what: str) -> Iterator[str]:
    """Pass on what is found; a table that is damaged and can be read all the same may hold anything."""
    try:
        yield from problems
    except (ChipmillError, ValueError, TypeError, LookupError, OverflowError) as error:
        yield f"{what}: holds what cannot be ({type(error).__name__}: {error})"


def _check_shards(root: Path, manifest: Manifest, chips: pa.Table, chosen: set[str]) -> Iterator[str]:
    """Check places of all shards, and the records of those that are read."""
    tiles = VersionDir(root).tiles
    ground, whole = Ground(manifest, load_tiles(tiles) if tiles.is_file() else ()), True
    for shard in manifest.shards:
        rows = _rows_of(shard, chips)
        yield from _check_places(shard, rows)
        if shard.path not in chosen or not (root / shard.path).is_file():
            whole = whole and shard.split != SPLITS[TRAIN]
            continue
        bad = list(_check_records(root / shard.path, shard, rows, manifest.record_spec(), ground))
        whole = whole and not bad
        yield from bad
    # what a lossy encoding gives back is not what was counted
    if whole and manifest.quality is None:
        yield from ground.check()


def _read_chips(root: Path, manifest: Manifest) -> pa.Table | None:
    return read_table(VersionDir(root).chips, CHIPS) if manifest.shards else None


def _choose(manifest: Manifest, data: bool, subset: float | None) -> list[str]:
    names = [file.path for file in manifest.named()]
    if subset is not None:
        return random.SystemRandom().sample(names, max(1, round(len(names) * subset / 100)))
    return names if data else []


def _check_self(root: Path, manifest: Manifest) -> Iterator[str]:
    file = VersionDir(root).manifest
    sidecar = read_sidecar(file)
    if sidecar is None:
        yield f"{file}: its sidecar is missing"
    elif (sidecar.sha256, sidecar.bytes) != (sha256_file(file), file.stat().st_size):
        yield f"{file}: differs from what was committed"
    elif (sidecar.fingerprint, sidecar.records) != (manifest.fingerprint, manifest.counts.written):
        yield f"{file}: its sidecar names another fingerprint or number of records than it does itself"
    yield from check_text(file)


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
    elif (sidecar.sha256, sidecar.bytes) != (file.sha256, file.bytes):
        yield f"{path}: its sidecar names another content than the manifest"
    elif isinstance(file, ShardFacts) and sidecar.records != file.count:
        yield f"{path}: its sidecar names {sidecar.records} records, the manifest {file.count}"


def _check_counts(manifest: Manifest) -> Iterator[str]:
    counts = manifest.counts
    total = counts.written + sum(counts.filtered.values()) + sum(counts.failed.values())
    if total != counts.planned:
        yield f"dataset.json: {counts.planned} windows were planned, its counts add up to {total}"
    if sum(shard.count for shard in manifest.shards) != counts.written:
        yield f"dataset.json: its shards do not hold the {counts.written} chips that were written"


def _check_names(root: Path, manifest: Manifest) -> Iterator[str]:
    """Each file is named once, and nobody reads a shard that is not named."""
    paths = collections.Counter(file.path for file in manifest.named())
    yield from (f"dataset.json: names {path} {count} times" for path, count in paths.items() if count > 1)
    named = {root / shard.path for shard in manifest.shards}
    for path in sorted(VersionDir(root).shards.glob("*.tfrecord*")):
        if path not in named and path.suffix != ".json":
            yield f"{path}: not named by the manifest"


def _rows_of(file: ShardFacts, chips: pa.Table) -> pa.Table:
    mask = pc.and_(pc.equal(chips["shard"], file.stem), pc.equal(chips["state"], WRITTEN))
    return chips.filter(mask).sort_by("offset")


def _check_places(file: ShardFacts, rows: pa.Table) -> Iterator[str]:
    """Records must fill a shard from its first byte to its last: nothing between them, nothing after them."""
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


def _check_records(
    path: Path, file: ShardFacts, rows: pa.Table, spec: RecordSpec, ground: Ground
) -> Iterator[str]:
    """Every record parses, passes its checksums, and is the chip that chips.parquet says lies there."""
    found = 0
    try:
        for frame, row in zip(iter_frames(path, spec.compression), rows.to_pylist(), strict=False):
            where = f"{path} at byte {frame.offset}"
            sample = decode_example(frame.data, spec, where)
            got = {
                "chip_id": sample.chip_id,
                "offset": frame.offset,
                "length": frame.length,
                "crc": frame.crc,
            }
            if got != (said := {name: row[name] for name in got}):
                yield f"{where}: expected {said}, got {got}"
            yield from check_classes(sample, row, where)
            if file.split == SPLITS[TRAIN]:
                ground.add(sample, row)
            found += 1
    except DamagedFileError as error:
        yield str(error)
        return
    if found != file.count:
        yield f"{path}: expected {file.count} records, found {found}"
