"""The stage write_shards: a shard is one unit of work, gathered in memory and written once.

Its tiles are read in strips of whole source blocks through their stacks, so each block is decoded about once however
many windows overlap it; the chips are put in the order of sha256(chip_id). Nothing is staged or shuffled, and the
bytes do not depend on who writes which shard when.
"""

import functools
from collections.abc import Collection, Sequence
from itertools import islice
from pathlib import Path
from typing import Final

import pyarrow as pa

from chipmill.core.buffers import lent_buffers
from chipmill.core.errors import CountError
from chipmill.core.store import commit_file, fingerprint, is_good, read_sidecar, sha256_file
from chipmill.core.units import Batch, BatchResult, UnitResult, work_batch
from chipmill.dataset import cutting
from chipmill.dataset.cutting import record_spec
from chipmill.dataset.framing import iter_frames
from chipmill.dataset.planned import Chip, is_train, planned_chips
from chipmill.dataset.records import RecordSpec, Sample, record_key, write_records
from chipmill.dataset.selection import ChipsRef
from chipmill.dataset.shard_plan import tile_key
from chipmill.dataset.stack import stack_layers
from chipmill.dataset.statistics import BandSums, merge
from chipmill.region.grid import Window
from chipmill.region.plan import Plan
from chipmill.region.tiles import Tile

STAGE: Final = "write_shards"
STAGE_VERSION: Final = 2
OFFSETS: Final = pa.schema(
    [("chip_id", pa.string()), ("offset", pa.int64()), ("length", pa.int64()), ("crc", pa.uint32())]
)
"""Result of a unit: where each of its records lies, with framing, and the masked CRC-32C of its data."""


def write_shards(plan: Plan, chips: ChipsRef, batch: Batch) -> BatchResult:
    """Write the shards of a batch; each unit is the stem of one.

    A shard that stands already with its fingerprint (linked from an older version) is not written again: its offsets
    are read from its framing.
    """
    digest = functools.cache(lambda unit: shard_fingerprint(plan, chips, unit))
    return work_batch(
        plan.attempt,
        plan.run,
        batch,
        work=lambda unit: _shard_unit(plan, chips, unit, digest(unit)),
        fingerprint=digest,
    )


def shard_fingerprint(plan: Plan, chips: ChipsRef, unit: str) -> str:
    """Return what a shard's bytes and statistics depend on: its windows, the stacks of its tiles, the claimed ground.

    The stacks name their sources by content, so their text stands for the pixels.
    """
    planned = planned_chips(chips)
    own = planned.chips(unit)
    tiles = sorted({chip.tile_id for chip in own})
    stacks = [[tile_id, _stack_hash(plan.version.stack(tile_id))] for tile_id in tiles]
    before = [[tile_id, planned.counted_before(unit, tile_id)] for tile_id in tiles] if is_train(unit) else []
    how = [stack_layers(plan.region), record_spec(plan.region)]
    return fingerprint(STAGE, STAGE_VERSION, unit, own, stacks, how, before)


def _stack_hash(path: Path) -> str:
    """Hash of a stack's text; a tile has chips in several shards."""
    stat = path.stat()
    return _hash_once(path, stat.st_ino, stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=1024)
def _hash_once(path: Path, *_changed: int) -> str:
    return sha256_file(path)


def _shard_unit(plan: Plan, chips: ChipsRef, unit: str, digest: str) -> UnitResult:
    spec = record_spec(plan.region)
    path = plan.version.shard_file(unit, spec.compression)
    order = sorted((chip.chip_id for chip in planned_chips(chips).chips(unit)), key=record_key)
    if is_good(path, digest):
        places = [(frame.offset, frame.length, frame.crc) for frame in iter_frames(path, spec.compression)]
    else:
        places = _write_shard(plan, chips, unit, path, digest)
    if len(places) != len(order):
        raise CountError(
            f"{path} holds {len(places)} records, {len(order)} were planned: remove it and run again"
        )
    columns = zip(*places, strict=True)
    return UnitResult(pa.table([order, *columns], schema=OFFSETS), (path,))


def _write_shard(
    plan: Plan, chips: ChipsRef, unit: str, path: Path, digest: str
) -> list[tuple[int, int, int]]:
    """Cut and write all chips of a shard; the sidecar gets their statistics. Returns (offset, length, crc) of each."""
    planned, spec = planned_chips(chips), record_spec(plan.region)
    groups, layers = _by_tile(plan, planned.chips(unit)), stack_layers(plan.region)
    samples: list[Sample] = []
    sums: list[tuple[BandSums, ...]] = []
    with lent_buffers("shards", 1) as (buffers,):
        free = iter(cutting.empty_chips([chip.window for _, own in groups for chip in own], layers, buffers))
        for tile, own in groups:
            before = planned.counted_before(unit, tile.tile_id) if is_train(unit) else None
            cut, windows = list(islice(free, len(own))), [chip.window for chip in own]
            stack = plan.version.stack(tile.tile_id)
            sums.append(cutting.fill_chips(stack, tile, windows, cut, before, layers, buffers))
            samples += [_sample(tile, chip, pixels, spec) for chip, pixels in zip(own, cut, strict=True)]
        samples.sort(key=lambda sample: record_key(sample.chip_id))
        extra = (
            {"statistics": [one.texts() for one in merge(sums, len(spec.bands))]} if is_train(unit) else {}
        )
        with commit_file(path, digest, records=len(samples), extra=extra) as temp:
            return write_records(temp, samples, spec)


def _sample(tile: Tile, chip: Chip, pixels: cutting.Chip, spec: RecordSpec) -> Sample:
    image, static = pixels.arrays(spec)
    transform = tuple(tile.lattice.transform(chip.window))[:6]
    return Sample(image, pixels.label, chip.chip_id, tile.anchor, tile.crs, transform, pixels.weight, static)


def _cut(plan: Plan, tile: Tile, chips: Sequence[Chip], before: Collection[Window] | None) -> cutting.Cut:
    windows = [chip.window for chip in chips]
    stack = plan.version.stack(tile.tile_id)
    return cutting.cut_windows(stack, tile, windows, before, stack_layers(plan.region))


def _by_tile(plan: Plan, chips: Collection[Chip]) -> list[tuple[Tile, list[Chip]]]:
    groups: dict[str, list[Chip]] = {}
    for chip in chips:
        groups.setdefault(chip.tile_id, []).append(chip)
    return [(plan.tile(tile_id), groups[tile_id]) for tile_id in sorted(groups, key=tile_key)]


def shard_sums(plan: Plan, chips: ChipsRef, unit: str, lost: Collection[str]) -> tuple[BandSums, ...]:
    """Return the exact sums of the ground that a written train shard counts; ``lost`` shards count nothing.

    They stand in the shard's sidecar; they are counted anew only where a lost shard would have counted ground of this
    one.
    """
    planned, spec = planned_chips(chips), record_spec(plan.region)
    sidecar = read_sidecar(plan.version.shard_file(unit, spec.compression))
    tiles = _by_tile(plan, planned.chips(unit)) if lost or sidecar is None else []
    claims = {tile.tile_id: planned.counted_before(unit, tile.tile_id, lost) for tile, _ in tiles}
    same = all(planned.counted_before(unit, tile_id) == own for tile_id, own in claims.items())
    if same and sidecar is not None:
        return tuple(BandSums.of_texts(texts) for texts in sidecar.extra["statistics"])
    parts = [_cut(plan, tile, own, claims[tile.tile_id]).sums for tile, own in tiles]
    return merge(parts, len(spec.bands))
