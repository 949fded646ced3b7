"""The split blocks of a region: how they are read, dealt and kept in ``blocks.parquet``.

The file to change for what sticks. It belongs to the region, not to a cell: the same place is in the same split in
every year, or a model would be tested on fields that it was trained on. The rules by which blocks were dealt stand in
the metadata of the table, and other rules never deal anew without being told.
"""

import contextlib
import dataclasses
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from chipmill.core.errors import DamagedFileError, LockedError, SplitError
from chipmill.core.store import canonical_json, fingerprint, is_good, lock, read_sidecar
from chipmill.core.tables import BLOCKS, read_table, write_table
from chipmill.dataset.dealing import FREE, deal
from chipmill.dataset.places import SPLITS, TEST, Block, Ints, Places
from chipmill.region.dataset import Splits

_VERSION: Final = 1
_LOCK_WAIT_S: Final = 120.0  # dealing takes seconds; another cell of the region may be at it
_RULES: Final = b"chipmill.rules"
_FOLDS: Final = b"chipmill.folds"


@dataclasses.dataclass(frozen=True, slots=True)
class Dealt:
    """The blocks of a region: split code of each, and its fold where folds are asked for."""

    splits: dict[Block, int]
    folds: dict[Block, int]


def rule_facts(rules: Splits) -> dict[str, Any]:
    """Return the rules that dealt blocks depend on; the buffer is not among them, it only drops windows."""
    if rules.folds is not None:
        names = ("block_px", "seed", "folds", "fold", "val")
    else:
        names = ("block_px", "seed", "train", "val", "test")
    return {name: getattr(rules, name) for name in names}


@contextlib.contextmanager
def patient_lock(path: Path, run: str) -> Iterator[None]:
    """Hold the region's lock, waiting for another cell of the region that deals at this moment."""
    deadline = time.monotonic() + _LOCK_WAIT_S
    with contextlib.ExitStack() as stack:
        while True:
            try:
                stack.enter_context(lock(path, run))
                break
            except LockedError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        yield


def read_blocks(path: Path, rules: Splits) -> Dealt:
    """Return the blocks dealt so far, none where the file is absent.

    Raises SplitError when they were dealt by other rules, DamagedFileError when the file is not what was committed.
    """
    if not path.exists():
        return Dealt({}, {})
    if read_sidecar(path) is not None and not is_good(path):
        raise DamagedFileError(
            f"{path} differs from what was committed: put it back from a backup, or remove it"
        )
    table = read_table(path)
    notes = table.schema.metadata or {}
    if _RULES not in notes or not set(BLOCKS.names) <= set(table.column_names):
        raise DamagedFileError(f"{path} is no table of split blocks: remove it and run again")
    _refuse_other_rules(path, json.loads(notes[_RULES]), rule_facts(rules))
    columns = table.select(["lattice", "bx", "by"]).to_pydict().values()
    blocks = list(zip(*columns, strict=True))
    splits = [SPLITS.index(name) for name in table["split"].to_pylist()]
    folds = json.loads(notes.get(_FOLDS, b"[]"))
    return Dealt(dict(zip(blocks, splits, strict=True)), dict(zip(blocks, folds, strict=False)))


def _refuse_other_rules(path: Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    if old == new:
        return
    changes = [
        f"{name} was {old.get(name, 'unset')} and is now {new.get(name, 'unset')}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]
    raise SplitError(
        f"{path} was dealt by other rules ({'; '.join(changes)}): put dataset.splits back, choose another output, or "
        "remove that file to deal anew, after which places that a model was trained on may become its test"
    )


def write_blocks(path: Path, dealt: Dealt, rules: Splits, *, changed: bool) -> None:
    """Commit the blocks with their rules; does nothing where the file is good and nothing was dealt."""
    if not dealt.splits or (not changed and is_good(path)):
        return
    blocks = sorted(dealt.splits)
    rows = [
        {
            "block": f"{lattice}_{bx}_{by}",
            "lattice": lattice,
            "bx": bx,
            "by": by,
            "split": SPLITS[dealt.splits[block]],
        }
        for block in blocks
        for lattice, bx, by in [block]
    ]
    notes = {
        _RULES: canonical_json(rule_facts(rules)),
        _FOLDS: canonical_json([dealt.folds[b] for b in blocks if dealt.folds]),
    }
    table = pa.Table.from_pylist(rows, schema=BLOCKS)
    write_table(path, table, BLOCKS.with_metadata(notes), fingerprint(_VERSION, rows, notes[_FOLDS]))


def deal_blocks(places: Places, weights: npt.NDArray[np.float64], rules: Splits, known: Dealt) -> Dealt:
    """Return the known blocks and those of the windows' centres that are new, dealt.

    Args:
        places: the windows.
        weights: (window, feature): 1 for its place, 1 when it is usable, its pixels of each class when it is usable;
            only windows that lie wholly in their block count for it, since others are lost at its edge.
        rules: shares, folds, side of a block, seed.
        known: blocks that keep their part.

    Raises:
        SplitError: no deal gives every split a usable window; says which block_px would.
    """
    blocks, sums = _block_sums(places, weights, rules.block_px)
    if set(blocks) <= set(known.splits):
        return known
    names = [f"{lattice}_{bx}_{by}" for lattice, bx, by in blocks]
    if rules.folds is None:
        parts = deal(sums, wanted_shares(rules), names, rules.seed, _fixed(blocks, known.splits))
        _refuse_few(places, weights, rules, known, sums, parts)
        return Dealt(known.splits | dict(zip(blocks, parts.tolist(), strict=True)), {})
    folds = deal(sums, [1 / rules.folds] * rules.folds, names, rules.seed, _fixed(blocks, known.folds))
    rest = np.flatnonzero(folds != rules.fold)
    splits = np.full(len(blocks), TEST)
    fixed = _fixed([blocks[row] for row in rest], known.splits)
    splits[rest] = deal(
        sums[rest], (1 - rules.val, rules.val), [names[row] for row in rest], rules.seed, fixed
    )
    _refuse_few(places, weights, rules, known, sums, splits)
    own = dict(zip(blocks, folds.tolist(), strict=True))
    return Dealt(known.splits | dict(zip(blocks, splits.tolist(), strict=True)), known.folds | own)


def wanted_shares(rules: Splits) -> tuple[float, float, float]:
    """Return the share of all blocks that train, val and test should get."""
    if rules.folds is None:
        return rules.train, rules.val, rules.test
    rest = 1 - 1 / rules.folds
    return rest * (1 - rules.val), rest * rules.val, 1 / rules.folds


def _fixed(blocks: list[Block], known: dict[Block, int]) -> Ints:
    return np.array([known.get(block, FREE) for block in blocks], dtype=np.int64)


def _block_sums(
    places: Places, weights: npt.NDArray[np.float64], block_px: int
) -> tuple[list[Block], npt.NDArray[np.float64]]:
    """Blocks of the windows' centres in order, and what the windows wholly inside each bring."""
    bx, by = places.blocks(block_px)
    keys = list(zip(places.lattice.tolist(), bx.tolist(), by.tolist(), strict=True))
    blocks = sorted(set(keys))
    at = {block: row for row, block in enumerate(blocks)}
    sums = np.zeros((len(blocks), weights.shape[1]))
    np.add.at(sums, [at[key] for key in keys], weights * places.interior(block_px)[:, None])
    return blocks, sums


def _refuse_few(
    places: Places, weights: npt.NDArray[np.float64], rules: Splits, known: Dealt,
    sums: npt.NDArray[np.float64], parts: Ints,
) -> None:  # fmt: skip
    """Raise SplitError when a first deal leaves a split without a usable window."""
    shares = wanted_shares(rules)
    empty = [SPLITS[k] for k in range(3) if shares[k] > 0 and not sums[parts == k, 1].any()]
    if (
        not empty or known.splits
    ):  # blocks that stand are not dealt again because one year had fewer usable windows
        return
    needed = _needed(rules)
    usable = int(np.count_nonzero(sums[:, 1]))
    raise SplitError(
        f"{', '.join(empty)} would get no usable window: {needed} blocks of {rules.block_px} px that hold one are "
        f"needed, {usable} are there: {_block_px_advice(places, weights, rules.block_px, needed)}"
    )


def check_places(places: Places, rules: Splits) -> None:
    """Refuse rules that even the best windows cannot fulfil, before a pixel is read: every window counts as usable.

    Raises SplitError where fewer blocks hold a window than splits or folds are asked for; says which block_px would.
    """
    weights = np.ones((len(places.col), 2))
    _, sums = _block_sums(places, weights, rules.block_px)
    needed = _needed(rules)
    there = int(np.count_nonzero(sums[:, 1]))
    if there < needed:
        raise SplitError(
            f"{needed} blocks of {rules.block_px} px that hold a whole window are needed for the splits, {there} are "
            f"there ({len(places.col)} windows): {_block_px_advice(places, weights, rules.block_px, needed)}"
        )


def _needed(rules: Splits) -> int:
    """Return the least number of blocks that give every split one."""
    return max(rules.folds or 0, sum(share > 0 for share in wanted_shares(rules)))


def _block_px_advice(places: Places, weights: npt.NDArray[np.float64], block_px: int, needed: int) -> str:
    smallest = int(places.width.max(initial=16))
    for size in sorted({max(smallest, block_px // cut) for cut in range(2, 65)}, reverse=True):
        _, sums = _block_sums(places, weights, size)
        if np.count_nonzero(sums[:, 1]) >= needed:
            return f"set dataset.splits.block_px to {size}"
    return "take a larger area, smaller chips, or a share of 0 for a split that is not needed"
