"""How the blocks or groups of a cell's windows are parted into splits or folds: what each brings, and what is refused.

The file to change for what counts when blocks are dealt. How parts are chosen is in :mod:`chipmill.dataset.dealing`,
how the outcome is kept in :mod:`chipmill.dataset.blocks`.
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from chipmill.core.errors import SplitError
from chipmill.core.plain import quoted
from chipmill.dataset.blocks import Dealt
from chipmill.dataset.dealing import FREE, deal
from chipmill.dataset.places import SPLITS, TEST, Block, Ints, Places
from chipmill.region.dataset import Splits
from chipmill.region.windows import block_name


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

    def refuse(parts: Ints) -> None:
        _refuse_few(places, weights, rules, sums, parts)

    return _deal(blocks, sums, rules, known, refuse)


def deal_groups(
    groups: Sequence[str], weights: npt.NDArray[np.float64], rules: Splits, known: Dealt
) -> Dealt:
    """Return the known groups and those that are new, each dealt as a whole; arguments as in :func:`deal_blocks`.

    ``groups`` names that of each window. Raises SplitError when no deal gives every split a usable window.
    """
    keys = [group_block(group) for group in groups]
    blocks = sorted(set(keys))
    sums = _sums(keys, blocks, weights)

    def refuse(parts: Ints) -> None:
        if empty := _empty(rules, sums, parts):
            raise SplitError(
                f"{', '.join(empty)} would get no usable window: {_needed(rules)} groups of "
                f"{quoted(str(rules.attribute))} that hold one are needed, {np.count_nonzero(sums[:, 1])} are there: name "
                "another attribute, or a share of 0 for a split that is not needed"
            )

    return _deal(blocks, sums, rules, known, refuse)


def group_block(group: str) -> Block:
    """Return the key by which a group is filed among the blocks; no lattice has such an id."""
    return f"group:{group}", 0, 0


def _deal(
    blocks: list[Block],
    sums: npt.NDArray[np.float64],
    rules: Splits,
    known: Dealt,
    refuse: Callable[[Ints], None],
) -> Dealt:
    """Deal what is new; ``refuse`` is asked about a first deal alone.

    Blocks that stand are not dealt again because one year had fewer usable windows.
    """
    if set(blocks) <= set(known.splits):
        return known
    names = [block_name(*block) for block in blocks]
    if rules.folds is None:
        parts = deal(sums, wanted_shares(rules), names, rules.seed, _fixed(blocks, known.splits))
        own: dict[Block, int] = {}
    else:
        folds = deal(sums, [1 / rules.folds] * rules.folds, names, rules.seed, _fixed(blocks, known.folds))
        own = dict(zip(blocks, folds.tolist(), strict=True))
        rest = np.flatnonzero(folds != rules.fold)
        parts = np.full(len(blocks), TEST)
        fixed = _fixed([blocks[row] for row in rest], known.splits)
        parts[rest] = deal(
            sums[rest], (1 - rules.val, rules.val), [names[row] for row in rest], rules.seed, fixed
        )
    if not known.splits:
        refuse(parts)
    return Dealt(known.splits | dict(zip(blocks, parts.tolist(), strict=True)), known.folds | own)


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
    return blocks, _sums(keys, blocks, weights * places.interior(block_px)[:, None])


def _sums(
    keys: Sequence[Block], blocks: Sequence[Block], weights: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """(block, feature): the sum of the weights of the windows of each block."""
    at = {block: row for row, block in enumerate(blocks)}
    sums = np.zeros((len(blocks), weights.shape[1]))
    np.add.at(sums, [at[key] for key in keys], weights)
    return sums


def _empty(rules: Splits, sums: npt.NDArray[np.float64], parts: Ints) -> list[str]:
    """Return the splits that want a share and got no usable window."""
    shares = wanted_shares(rules)
    return [SPLITS[k] for k in range(3) if shares[k] > 0 and not sums[parts == k, 1].any()]


def _refuse_few(
    places: Places,
    weights: npt.NDArray[np.float64],
    rules: Splits,
    sums: npt.NDArray[np.float64],
    parts: Ints,
) -> None:
    """Raise SplitError when a first deal leaves a split without a usable window."""
    empty = _empty(rules, sums, parts)
    if not empty:
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
