"""Which windows become chips, and why the others do not.

The file to change for another rule of selection. Rules that pick by class act on train alone: validation and test
describe the population as it is. Everything is decided before a chip is cut, for whole columns at once; in which shard
each chip goes is planned in :mod:`chipmill.dataset.shard_plan`.
"""

import collections
import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from chipmill.core.errors import CountError, SplitError
from chipmill.core.store import fingerprint
from chipmill.core.tables import CHIPS, WINDOWS, read_table, write_table
from chipmill.core.units import freeze_batches
from chipmill.dataset.classes import resolve_classes
from chipmill.dataset.filters import (
    Texts,
    class_code,
    class_matrix,
    column,
    is_given,
    key_fractions,
    quality_reasons,
    texts,
)
from chipmill.dataset.places import KEPT, NONE, SPLITS, Bools, Ints
from chipmill.dataset.shard_plan import SIZED_BY, ShardPlan, candidates, plan_shards
from chipmill.dataset.splits import SPLIT_TABLE, SplitsRef
from chipmill.region.dataset import Quota, Select
from chipmill.region.plan import Plan

STAGE_VERSION: Final = 2
NOT_TRAIN: Final = "not_train"
KEY_CLASS: Final = "key_class"
QUOTA: Final = "quota"
PLANNED: Final = "planned"
"""State of a chip between selection and writing."""
_STATES: Final = (PLANNED, "filtered", "failed")

_SHARD_BYTES_PER_S: Final = (
    60e6  # reading, gathering, writing and hashing on one core; only batches depend on it
)
_DRAWN_AT_ONCE: Final = 1 << 16
"""Ids that are hashed together: memory does not grow with the number of windows."""


@dataclasses.dataclass(frozen=True, slots=True)
class ChipsRef:
    """The chips to be written."""

    path: Path
    """Table CHIPS in the attempt: all windows, the kept ones with state "planned" and their shard."""
    fingerprint: str
    shards: int
    kept: int


def select_chips(plan: Plan, splits: SplitsRef) -> ChipsRef:
    """Give every window its reason, the first that holds, and plan the shards of those that are kept.

    In order: what the quality of a window gives (:func:`chipmill.dataset.filters.quality_reasons`), not_train for a
    dense window, what its place among the splits gives (buffer, straddles and their like), key_class, quota.
    Raises SplitError when no chip is left for training, CountError when two windows have one id.
    """
    windows = read_table(plan.version.windows, WINDOWS)
    dealt = read_table(splits.path, SPLIT_TABLE)
    reasons = choose_reasons(plan, windows, dealt)
    names = texts(dealt, "split")
    _refuse_odd(plan, windows, reasons, names)
    kept = np.flatnonzero(reasons == KEPT)
    target = plan.region.dataset.shards.target_mb * 1e6
    crs = {tile.tile_id: tile.crs for tile in plan.tiles()}
    codes = np.select([names[kept] == name for name in SPLITS], range(len(SPLITS)), default=NONE)
    planned = plan_shards(candidates(plan.region, windows.select(SIZED_BY).take(kept), codes, crs), target)
    table = _chips_table(windows, dealt, reasons, kept, planned)
    # where the splits come from is in theirs, without the places of files
    rules = plan.region.dataset.model_dump(mode="json", exclude={"splits": {"path", "like"}})
    digest = fingerprint(STAGE_VERSION, splits.fingerprint, rules)
    path = plan.version.root / "units" / "chips.parquet"
    write_table(path, table, CHIPS, digest)
    freeze_batches(plan.attempt, "write_shards", planned.stems, target / _SHARD_BYTES_PER_S, digest)
    return ChipsRef(path, digest, len(planned.stems), len(kept))


def choose_reasons(plan: Plan, windows: pa.Table, dealt: pa.Table) -> Texts:
    """Return "" for each window that is kept, else the first reason that holds."""
    imagery = [one.name for one in plan.region.imagery]
    reasons = quality_reasons(windows, plan.region.dataset.chips, imagery)
    train = texts(dealt, "split") == SPLITS[0]
    reasons[(reasons == KEPT) & column(windows, "dense", False) & ~train] = NOT_TRAIN
    reasons = np.where(reasons == KEPT, texts(dealt, "drop"), reasons)
    select = plan.region.dataset.select
    names = [info.name for info in resolve_classes(plan.region)]
    if select.key_class is not None:
        rows = np.flatnonzero(train & (reasons == KEPT))
        some = windows.select(["chip_id", "class_px"]).take(rows)
        poor = lacks_key(class_matrix(some, len(names)), class_code(plan.region, select.key_class), select)
        rows, ids = rows[poor], some["chip_id"].filter(pa.array(poor))
        reasons[rows[~kept_negatives(ids, select.keep_negatives)]] = KEY_CLASS
    if select.quotas:
        for name in select.quotas:
            class_code(plan.region, name)
        rows = np.flatnonzero(train & (reasons == KEPT))
        some = windows.select(["chip_id", "class_px"]).take(rows)
        reasons[rows[over_quota(class_matrix(some, len(names)), some["chip_id"], names, select.quotas)]] = (
            QUOTA
        )
    return reasons


def lacks_key(counts: npt.NDArray[np.int64], key: int, select: Select) -> Bools:
    """Tell of each row of (window, class) pixel counts whether class ``key`` is less than the rules ask for."""
    if select.min_key_px is not None:
        return np.asarray(counts[:, key] < select.min_key_px)
    return np.asarray(key_fractions(counts, key) < select.min_key_fraction)


def kept_negatives(ids: pa.ChunkedArray, probability: float) -> Bools:
    """Tell which train windows without enough of the key class stay: by their ids alone, so that reruns agree."""
    return np.asarray(draws(ids) / 2.0**64 < probability)


def draws(ids: pa.ChunkedArray) -> npt.NDArray[np.uint64]:
    """Return for each id the first eight bytes of its sha256 as a big-endian number: a draw that depends on it alone."""
    parts = [b""]
    for start in range(0, len(ids), _DRAWN_AT_ONCE):
        texts_ = ids.slice(start, _DRAWN_AT_ONCE).to_pylist()
        parts.append(b"".join(hashlib.sha256(text.encode()).digest()[:8] for text in texts_))
    return np.frombuffer(b"".join(parts), dtype=">u8").astype(np.uint64)


def over_quota(
    counts: npt.NDArray[np.int64], ids: pa.ChunkedArray, names: Sequence[str], quotas: Mapping[str, Quota]
) -> Bools:
    """Tell which chips are too many for the class that they count for.

    A chip counts for the class of which it holds the largest part of all pixels of these chips, so that a chip with
    the rare class is not lost to the quota of the common one beside it; of equal parts the first class takes it.
    Within a class those with the smallest sha256 of their id stay.

    Args:
        counts: (chip, class) pixels.
        ids: chip ids.
        names: of the classes.
        quotas: class -> its quota; classes without one lose nothing.
    """
    parts = counts / np.maximum(counts.sum(axis=0), 1)
    own = parts.argmax(axis=1) if len(counts) else np.zeros(0, dtype=np.int64)
    numbers = np.bincount(own, minlength=len(names))
    limits = np.array(quota_limits(numbers.tolist(), [quotas.get(name) for name in names]))
    over = np.zeros(len(counts), dtype=bool)
    for code in np.flatnonzero(limits < numbers):
        rows = np.flatnonzero(own == code)
        order = np.argsort(draws(ids.take(rows)), kind="stable")
        over[rows[order[limits[code] :]]] = True
    return over


def quota_limits(numbers: Sequence[int], quotas: Sequence[Quota | None]) -> list[int]:
    """Return how many chips of each class stay, as many as fulfil all quotas together.

    ``numbers`` has the chips that count for each class. A share is of all chips that stay, so the limits fall together
    until every share holds; shares are taken as the decimals they are written as.
    """
    limits = [
        number if quota is None or quota.max_chips is None else min(number, quota.max_chips)
        for number, quota in zip(numbers, quotas, strict=True)
    ]
    while True:
        total = sum(limits)
        shares = [
            limit
            if quota is None or quota.max_fraction is None
            else min(limit, _share(quota.max_fraction, total))
            for limit, quota in zip(limits, quotas, strict=True)
        ]
        if shares == limits:
            return limits
        limits = shares


def _share(fraction: float, total: int) -> int:
    return int(Fraction(repr(fraction)) * total)


def _refuse_odd(plan: Plan, windows: pa.Table, reasons: Texts, names: Texts) -> None:
    kept = reasons == KEPT
    if not (kept & (names == SPLITS[0])).any():
        funnel = collections.Counter(reasons[~kept].tolist())
        lost = ", ".join(f"{reason} {count}" for reason, count in funnel.most_common()) or "none was lost"
        raise SplitError(
            f"no chip is left for training in {plan.region.name}: {int(kept.sum())} of {len(reasons)} windows are kept, "
            f"all for validation or test ({lost}): loosen dataset.chips or dataset.select, or lower buffer_px or block_px"
        )
    if (kept & (names == None)).any():  # noqa: E711 - element by element
        raise CountError(
            f"windows of {plan.region.name} are kept without a split: look at dataset.splits, and report it"
        )
    if pc.count_distinct(windows["chip_id"]).as_py() < windows.num_rows:
        found = pc.value_counts(windows["chip_id"])
        worst = found[pc.index(found.field("counts"), pc.max(found.field("counts"))).as_py()].as_py()
        raise CountError(
            f"{worst['counts']} windows have the id {worst['values']}: two tiles of one day share ground: leave one out"
        )


def _chips_table(
    windows: pa.Table, dealt: pa.Table, reasons: Texts, kept: Ints, planned: ShardPlan
) -> pa.Table:
    states = np.where(is_given(windows, "failed_reason"), 2, 1)
    states[kept] = 0
    shards = np.full(len(reasons), -1)
    shards[kept] = planned.shard
    empty = pa.nulls(windows.num_rows)
    added: dict[str, Any] = {
        "split": dealt["split"], "state": _named(states, _STATES), "reason": pa.array(reasons, pa.string()),
        "shard": _named(shards, planned.stems), "offset": empty, "length": empty, "crc": empty,
    }  # fmt: skip
    for name, values in added.items():
        windows = windows.append_column(name, values)
    return windows


def _named(codes: Ints, names: Sequence[str]) -> pa.Array:
    """Texts of codes, null for a negative one."""
    indices = pa.array(codes, pa.int32(), mask=codes < 0)
    return pa.DictionaryArray.from_arrays(indices, pa.array(names, pa.string())).dictionary_decode()
