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

import pyarrow as pa

from chipmill.core.errors import DamagedFileError, LockedError, SplitError
from chipmill.core.paths import RegionDir
from chipmill.core.store import (
    canonical_json,
    fingerprint,
    is_good,
    link_file,
    lock,
    read_sidecar,
    sha256_file,
)
from chipmill.core.tables import BLOCKS, read_table, write_table
from chipmill.dataset.places import SPLITS, Block
from chipmill.region.dataset import Splits
from chipmill.region.windows import block_name

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
    names = ["block_px", "seed", *(("folds", "fold", "val") if rules.folds is not None else SPLITS)]
    if rules.by == "group":
        names = [*names[1:], "by", "attribute"]
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
    own, dealt = _read(path)
    _refuse_other_rules(path, own, rule_facts(rules))
    return dealt


def _read(path: Path) -> tuple[dict[str, Any], Dealt]:
    """Return the rules that blocks were dealt by, and the blocks."""
    if read_sidecar(path) is not None and not is_good(path):
        raise DamagedFileError(
            f"{path} differs from what was committed: put it back from a backup, or remove it"
        )
    table = read_table(path)
    notes = table.schema.metadata or {}
    if _RULES not in notes or not set(BLOCKS.names) <= set(table.column_names):
        raise DamagedFileError(f"{path} is no table of split blocks: remove it and run again")
    columns = table.select(["lattice", "bx", "by"]).to_pydict().values()
    blocks = list(zip(*columns, strict=True))
    splits = [SPLITS.index(name) for name in table["split"].to_pylist()]
    folds = json.loads(notes.get(_FOLDS, b"[]"))
    dealt = Dealt(dict(zip(blocks, splits, strict=True)), dict(zip(blocks, folds, strict=False)))
    return json.loads(notes[_RULES]), dealt


def with_like(region: RegionDir, rules: Splits, own: Dealt) -> Dealt:
    """Return blocks together with those of the regions that ``rules.like`` names, as far as they are dealt.

    Raises SplitError where they have blocks of another side or other folds, or a block in another split.
    """
    whole = own
    for name in rules.like:
        path = region.sibling(name).blocks
        if not path.exists():
            continue
        theirs, dealt = _read(path)
        for key, mine in (
            ("block_px", rules.block_px),
            ("folds", rules.folds),
            ("fold", rules.folds and rules.fold),
        ):
            if theirs.get(key) != mine:
                raise SplitError(
                    f"dataset.splits.like names {name}, whose blocks were dealt with {key} {theirs.get(key, 'unset')}, here "
                    f"it is {mine if mine is not None else 'unset'}: give both the same"
                )
        other = [block for block, split in dealt.splits.items() if whole.splits.get(block, split) != split]
        if other:
            raise SplitError(
                f"{len(other)} blocks have another split in {name}, which dataset.splits.like names, the first is "
                f"{block_name(*min(other))}: deal them anew with chipmill select --redeal"
            )
        whole = Dealt(whole.splits | dealt.splits, whole.folds | dealt.folds)
    return whole


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
        "deal anew with chipmill select --redeal (where no version is in force yet: remove that file), after which places "
        "that a model was trained on may become its test"
    )


def write_blocks(path: Path, dealt: Dealt, rules: Splits, *, changed: bool) -> None:
    """Commit the blocks with their rules; does nothing where the file is good and nothing was dealt."""
    if not dealt.splits or (not changed and is_good(path)):
        return
    blocks = sorted(dealt.splits)
    rows = [
        {
            "block": block_name(lattice, bx, by),
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


def replace_blocks(region: RegionDir, dealt: Dealt, rules: Splits) -> None:
    """Commit blocks that were dealt anew, whatever they were before; other ones stay beside them under another name."""
    path = region.blocks
    try:
        same = read_blocks(path, rules) == dealt
    except (SplitError, DamagedFileError):
        same = False
    if not same and path.exists():
        link_file(path, region.old_blocks(sha256_file(path)))
    write_blocks(path, dealt, rules, changed=not same)
