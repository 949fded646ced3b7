"""Which windows become chips, why the others do not, and in which shard each chip goes.

The file to change for another rule of selection. Rules that pick by class act on train alone: validation and test
describe the population as it is. Everything is decided before a chip is cut, so that shards are planned exactly.
"""

import collections
import dataclasses
import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from chipmill.core.errors import CountError, SplitError
from chipmill.core.paths import VersionDir
from chipmill.core.store import fingerprint
from chipmill.core.tables import CHIPS, WINDOWS, read_table, write_table
from chipmill.core.units import freeze_batches
from chipmill.dataset.classes import resolve_classes
from chipmill.dataset.cutting import record_dtype
from chipmill.dataset.filters import class_matrix, quality_reasons
from chipmill.dataset.places import KEPT, SPLITS
from chipmill.dataset.records import record_length
from chipmill.dataset.splits import SPLIT_TABLE, SplitsRef
from chipmill.dataset.stack import stack_layers
from chipmill.region.dataset import Select
from chipmill.region.plan import Plan

STAGE_VERSION: Final = 1
KEY_CLASS: Final = "key_class"
PLANNED: Final = "planned"
"""State of a chip between selection and writing."""

_SHARD_BYTES_PER_S: Final = (
    60e6  # reading, gathering, writing and hashing on one core; only batches depend on it
)


@dataclasses.dataclass(frozen=True, slots=True)
class ChipsRef:
    """The chips to be written."""

    path: Path
    """Table CHIPS in the attempt: all windows, the kept ones with state "planned" and their shard."""
    fingerprint: str
    shards: int
    kept: int


@dataclasses.dataclass(frozen=True, slots=True)
class Candidate:
    """A kept window as far as shards are planned from it."""

    tile_id: str
    split: str
    row_off: int
    size_bytes: int
    """Of its record with framing."""


def select_chips(plan: Plan, splits: SplitsRef) -> ChipsRef:
    """Give every window its reason, the first that holds, and plan the shards of those that are kept.

    In order: failed, empty_slot, nodata, cloud, no_label, buffer, straddles, key_class.
    Raises SplitError when no chip is left for training.
    """
    windows = read_table(plan.version.windows, WINDOWS)
    dealt = read_table(splits.path, SPLIT_TABLE)
    reasons = choose_reasons(plan, windows, dealt)
    failed = np.array(windows["failed_reason"].to_pylist(), dtype=object) != None  # noqa: E711 - element by element
    kept = reasons == KEPT
    names = np.array(dealt["split"].to_pylist(), dtype=object)
    _refuse_odd(plan, windows, reasons, names)
    shards = np.full(windows.num_rows, None, dtype=object)
    shards[kept] = plan_shards(
        _candidates(plan, windows, names, np.flatnonzero(kept)), plan.region.dataset.shards.target_mb * 1e6
    )
    states = np.where(kept, PLANNED, np.where(failed, "failed", "filtered"))
    table = _chips_table(windows, names, states, reasons, shards)
    digest = fingerprint(STAGE_VERSION, splits.fingerprint, plan.region.dataset)
    path = plan.version.root / "units" / "chips.parquet"
    write_table(path, table, CHIPS, digest)
    units = sorted(set(shards[kept].tolist()), key=_shard_order)
    seconds = plan.region.dataset.shards.target_mb * 1e6 / _SHARD_BYTES_PER_S
    freeze_batches(plan.attempt, "write_shards", units, seconds, digest)
    return ChipsRef(path, digest, len(units), int(kept.sum()))


def choose_reasons(plan: Plan, windows: pa.Table, dealt: pa.Table) -> npt.NDArray[Any]:
    """Return "" for each window that is kept, else the first reason that holds."""
    reasons = quality_reasons(windows, plan.region.dataset.chips)
    drops = np.array(dealt["drop"].to_pylist(), dtype=object)
    reasons = np.where(reasons == KEPT, drops, reasons)
    select = plan.region.dataset.select
    if select.key_class is None:
        return reasons
    classes = [info.name for info in resolve_classes(plan.region)]
    train = np.array(dealt["split"].to_pylist(), dtype=object) == SPLITS[0]
    counts = class_matrix(windows, len(classes))
    poor = key_fractions(counts, classes.index(select.key_class)) < select.min_key_fraction
    for row in np.flatnonzero(train & poor & (reasons == KEPT)):
        if not is_kept_negative(windows["chip_id"][int(row)].as_py(), select):
            reasons[row] = KEY_CLASS
    return reasons


def key_fractions(counts: npt.NDArray[np.int64], key: int) -> npt.NDArray[np.float64]:
    """Return the share of class ``key`` among the labelled pixels of (window, class) counts, 0 where there is none."""
    return np.asarray(counts[:, key] / np.maximum(counts.sum(axis=1), 1))


def is_kept_negative(chip_id: str, select: Select) -> bool:
    """Tell whether a train window without enough of the key class stays: by its id alone, so that reruns agree."""
    draw = int.from_bytes(hashlib.sha256(chip_id.encode()).digest()[:8]) / 2**64
    return draw < select.keep_negatives


def _refuse_odd(plan: Plan, windows: pa.Table, reasons: npt.NDArray[Any], names: npt.NDArray[Any]) -> None:
    kept = reasons == KEPT
    if not (kept & (names == SPLITS[0])).any():
        funnel = collections.Counter(str(reason) for reason in reasons if reason != KEPT)
        lost = ", ".join(f"{reason} {count}" for reason, count in funnel.most_common()) or "none was lost"
        raise SplitError(
            f"no chip is left for training in {plan.region.name}: {int(kept.sum())} of {len(reasons)} windows are kept, "
            f"all for validation or test ({lost}): loosen dataset.chips or dataset.select, or lower buffer_px or block_px"
        )
    ids = collections.Counter(windows["chip_id"].to_pylist())
    chip_id, count = ids.most_common(1)[0]
    if count > 1:
        raise CountError(
            f"{count} windows have the id {chip_id}: two tiles of one day share ground: leave one out"
        )


def _candidates(
    plan: Plan, windows: pa.Table, names: npt.NDArray[Any], rows: npt.NDArray[np.int64]
) -> list[Candidate]:
    layers = [layer for layer in stack_layers(plan.region) if layer.kind != "label"]
    itemsize = record_dtype(layers).itemsize
    crs = {tile.tile_id: tile.crs for tile in plan.tiles()}
    some = windows.take(pa.array(rows)).select(["chip_id", "tile_id", "anchor", "row_off", "width", "height"])
    found = []
    for split, (chip_id, tile_id, anchor, row_off, width, height) in zip(
        names[rows], zip(*some.to_pydict().values(), strict=True), strict=True
    ):
        size = record_length((height, width, len(layers)), itemsize, chip_id, anchor, crs[tile_id])
        found.append(Candidate(tile_id, split, row_off, size))
    return found


def plan_shards(candidates: Sequence[Candidate], target_bytes: float) -> list[str]:
    """Return the stem of the shard of each candidate.

    The (tile, split) pairs go in order of sha256(tile_id) and fill shards of one split up to ``target_bytes``; a pair
    that is larger is cut between window rows, and a row is never cut.
    """
    numbers = np.zeros(len(candidates), dtype=np.int64)
    totals: dict[str, int] = {}
    for split in SPLITS:
        rows = [row for row, one in enumerate(candidates) if one.split == split]
        rows.sort(key=lambda row: (tile_key(candidates[row].tile_id), candidates[row].row_off))
        totals[split] = _fill(candidates, rows, target_bytes, numbers)
    files = VersionDir(Path())
    return [
        files.shard(one.split, int(number), totals[one.split]).stem
        for one, number in zip(candidates, numbers, strict=True)
    ]


def _fill(
    candidates: Sequence[Candidate], rows: list[int], target_bytes: float, numbers: npt.NDArray[np.int64]
) -> int:
    """Number the shards of one split; ``rows`` are in order. Returns how many there are."""
    number, filled = -1, 0.0
    for pair in _grouped(rows, lambda row: candidates[row].tile_id):
        size = sum(candidates[row].size_bytes for row in pair)
        pieces = [pair] if size <= target_bytes else _grouped(pair, lambda row: candidates[row].row_off)
        for piece in pieces:
            own = sum(candidates[row].size_bytes for row in piece)
            if number < 0 or filled + own > target_bytes:
                number, filled = number + 1, 0.0
            numbers[piece] = number
            filled += own
    return number + 1


def _grouped(rows: Iterable[int], key: Any) -> list[list[int]]:
    groups: dict[Any, list[int]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return list(groups.values())


def tile_key(tile_id: str) -> str:
    """Return what orders the tiles in the shards: sha256 of the id, so that a shard mixes places."""
    return hashlib.sha256(tile_id.encode()).hexdigest()


def _shard_order(stem: str) -> tuple[int, str]:
    return SPLITS.index(stem.partition("-")[0]), stem


def _chips_table(
    windows: pa.Table, names: npt.NDArray[Any], states: npt.NDArray[Any], reasons: npt.NDArray[Any],
    shards: npt.NDArray[Any],
) -> pa.Table:  # fmt: skip
    empty = pa.nulls(windows.num_rows)
    added = {
        "split": pa.array(names, pa.string()), "state": pa.array(states.tolist(), pa.string()),
        "reason": pa.array(reasons, pa.string()), "shard": pa.array(shards, pa.string()),
        "offset": empty, "length": empty, "crc": empty,
    }  # fmt: skip
    for name, values in added.items():
        windows = windows.append_column(name, values)
    return windows
