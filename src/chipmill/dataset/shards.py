"""The stage write_shards: a shard is one unit of work, gathered in memory and written once.

Its tiles are read in strips of whole source blocks through their stacks, so each block is decoded about once however
many windows overlap it; the chips are put in the order of sha256(chip_id). Nothing is staged or shuffled, and the
bytes do not depend on who writes which shard when.
"""

import dataclasses
import functools
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from chipmill.core.errors import CountError
from chipmill.core.store import commit_file, fingerprint, is_good, read_sidecar, sha256_file
from chipmill.core.tables import CHIPS, read_table
from chipmill.core.units import Batch, BatchResult, UnitResult, work_batch
from chipmill.dataset.cutting import Cut, cut_windows, hull
from chipmill.dataset.places import SPLITS, TRAIN
from chipmill.dataset.records import Sample, iter_frames, record_key, write_record
from chipmill.dataset.selection import PLANNED, ChipsRef, tile_key
from chipmill.dataset.stack import StackBand, stack_layers
from chipmill.dataset.statistics import BandSums, merge
from chipmill.region.grid import Window
from chipmill.region.plan import Plan
from chipmill.region.tiles import Tile

STAGE: Final = "write_shards"
STAGE_VERSION: Final = 1
OFFSETS: Final = pa.schema(
    [("chip_id", pa.string()), ("offset", pa.int64()), ("length", pa.int64()), ("crc", pa.uint32())]
)
"""Result of a unit: where each of its records lies, with framing, and the masked CRC-32C of its data."""


@dataclasses.dataclass(frozen=True, slots=True)
class Chip:
    """One chip to be cut."""

    chip_id: str
    tile_id: str
    window: Window
    """In lattice pixels."""
    shard: str
    """Stem of its shard."""


def write_shards(plan: Plan, chips: ChipsRef, batch: Batch) -> BatchResult:
    """Write the shards of a batch; each unit is the stem of one.

    A shard that stands already with its fingerprint (linked from an older version) is not written again: its offsets
    are read from its framing.
    """
    return work_batch(
        plan.attempt,
        plan.run,
        batch,
        work=lambda unit: _shard_unit(plan, chips, unit),
        fingerprint=lambda unit: shard_fingerprint(plan, chips, unit),
    )


def planned_chips(chips: ChipsRef) -> dict[str, tuple[Chip, ...]]:
    """Return the chips of each shard, in the order of windows.parquet."""
    return _planned(chips.path, chips.fingerprint)


@functools.lru_cache(maxsize=2)
def _planned(path: Path, _fingerprint: str) -> dict[str, tuple[Chip, ...]]:
    table = read_table(path, CHIPS)
    names = ["chip_id", "tile_id", "shard", "col_off", "row_off", "width", "height"]
    rows = table.filter(pc.equal(table["state"], PLANNED)).select(names).to_pydict()
    shards: dict[str, list[Chip]] = {}
    for chip_id, tile_id, shard, *place in zip(*rows.values(), strict=True):
        shards.setdefault(shard, []).append(Chip(chip_id, tile_id, Window(*place), shard))
    return {shard: tuple(found) for shard, found in shards.items()}


def shard_fingerprint(plan: Plan, chips: ChipsRef, unit: str) -> str:
    """Return what a shard's bytes and statistics depend on: its windows, the stacks of its tiles, the claimed ground.

    The stacks name their sources by content, so their text stands for the pixels.
    """
    own = planned_chips(chips)[unit]
    tiles = sorted({chip.tile_id for chip in own})
    stacks = [[tile_id, sha256_file(plan.version.stack(tile_id))] for tile_id in tiles]
    before = (
        [[tile_id, claimed_before(plan, chips, unit, tile_id)] for tile_id in tiles]
        if _is_train(unit)
        else []
    )
    layers = stack_layers(plan.region)
    return fingerprint(
        STAGE, STAGE_VERSION, unit, [dataclasses.asdict(chip) for chip in own], stacks, layers, before
    )


def _is_train(unit: str) -> bool:
    return unit.startswith(f"{SPLITS[TRAIN]}-")


def _shard_unit(plan: Plan, chips: ChipsRef, unit: str) -> UnitResult:
    path = plan.version.shards / f"{unit}.tfrecord"
    digest = shard_fingerprint(plan, chips, unit)
    own = planned_chips(chips)[unit]
    order = sorted((chip.chip_id for chip in own), key=record_key)
    if is_good(path, digest):
        places = [(frame.offset, frame.length, frame.crc) for frame in iter_frames(path)]
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
    samples: list[Sample] = []
    sums: list[tuple[BandSums, ...]] = []
    for tile, own in _by_tile(plan, planned_chips(chips)[unit]):
        before = claimed_before(plan, chips, unit, tile.tile_id) if _is_train(unit) else []
        cut = _cut(plan, tile, own, before)
        samples += [
            Sample(
                image,
                label,
                chip.chip_id,
                tile.anchor,
                tile.crs,
                tuple(tile.lattice.transform(chip.window))[:6],
            )
            for chip, image, label in zip(own, cut.images, cut.labels, strict=True)
        ]
        sums.append(cut.sums)
    samples.sort(key=lambda sample: record_key(sample.chip_id))
    extra = (
        {"statistics": [one.texts() for one in merge(sums, samples[0].image.shape[2])]}
        if _is_train(unit)
        else {}
    )
    places, offset = [], 0
    with commit_file(path, digest, records=len(samples), extra=extra) as temp, temp.open("wb") as stream:
        for sample in samples:
            length, crc = write_record(stream, sample)
            places.append((offset, length, crc))
            offset += length
    return places


def _cut(plan: Plan, tile: Tile, chips: Sequence[Chip], before: Collection[Window]) -> Cut:
    windows = [chip.window for chip in chips]
    return cut_windows(plan.version.stack(tile.tile_id), tile, windows, before, _predictors(plan))


def _predictors(plan: Plan) -> list[StackBand]:
    return [layer for layer in stack_layers(plan.region) if layer.kind != "label"]


def _by_tile(plan: Plan, chips: Collection[Chip]) -> list[tuple[Tile, list[Chip]]]:
    groups: dict[str, list[Chip]] = {}
    for chip in chips:
        groups.setdefault(chip.tile_id, []).append(chip)
    return [(plan.tile(tile_id), groups[tile_id]) for tile_id in sorted(groups, key=tile_key)]


def claimed_before(
    plan: Plan, chips: ChipsRef, unit: str, tile_id: str, lost: Collection[str] = ()
) -> list[Window]:
    """Return the train windows that count ground of a tile's windows before this shard does.

    The order is that in which shards are filled: by sha256(tile_id), then by shard. Tiles without neighbours share no
    ground with others. ``lost`` are shards that were not written and therefore count nothing.
    """
    tile = plan.tile(tile_id)
    shards = planned_chips(chips)
    place = hull([chip.window for chip in shards[unit] if chip.tile_id == tile_id])
    key = (tile_key(tile_id), unit)
    return [
        other.window
        for other in _train_near(plan, chips, tile)
        if other.shard not in lost
        and (tile_key(other.tile_id), other.shard) < key
        and place.intersection(other.window) is not None
    ]


def _train_near(plan: Plan, chips: ChipsRef, tile: Tile) -> Iterator[Chip]:
    """Train chips of all tiles that can share ground with the windows of a tile."""
    by_tile = _train_by_tile(chips.path, chips.fingerprint)
    near = [tile.tile_id]
    if tile.lattice_tile:
        side, index = tile.window.width, plan.index()
        ix, iy = tile.window.col_off // side, tile.window.row_off // side
        steps = -(-plan.region.dataset.chips.size_px // side)
        around = [(ix + dx, iy + dy) for dx in range(-steps, steps + 1) for dy in range(-steps, steps + 1)]
        near = [one.tile_id for x, y in around if (one := index.get((tile.lattice, x, y))) is not None]
    for tile_id in near:
        yield from by_tile.get(tile_id, ())


@functools.lru_cache(maxsize=2)
def _train_by_tile(path: Path, fingerprint: str) -> dict[str, list[Chip]]:
    groups: dict[str, list[Chip]] = {}
    for unit, chips in _planned(path, fingerprint).items():
        if _is_train(unit):
            for chip in chips:
                groups.setdefault(chip.tile_id, []).append(chip)
    return groups


def shard_sums(plan: Plan, chips: ChipsRef, unit: str, lost: Collection[str]) -> tuple[BandSums, ...]:
    """Return the exact sums of the ground that a written train shard counts; ``lost`` shards count nothing.

    They stand in the shard's sidecar; they are counted anew only where a lost shard would have counted ground of this
    one.
    """
    tiles = _by_tile(plan, planned_chips(chips)[unit])
    claims = {tile.tile_id: claimed_before(plan, chips, unit, tile.tile_id, lost) for tile, _ in tiles}
    full = (
        {tile.tile_id: claimed_before(plan, chips, unit, tile.tile_id) for tile, _ in tiles}
        if lost
        else claims
    )
    sidecar = read_sidecar(plan.version.shards / f"{unit}.tfrecord")
    if claims == full and sidecar is not None:
        return tuple(BandSums.of_texts(texts) for texts in sidecar.extra["statistics"])
    parts = [_cut(plan, tile, own, claims[tile.tile_id]).sums for tile, own in tiles]
    return merge(parts, len(_predictors(plan)))
