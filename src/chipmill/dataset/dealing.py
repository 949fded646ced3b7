"""How split blocks are dealt so that classes are shared out evenly: the file to change for another split rule.

Pure numbers: blocks with weights in, one part (train, val, test, or a fold) per block out. First the rarest feature's
blocks go where they are needed most (iterative stratification: Sechidis, Tsoumakas, Vlahavas 2011, "On the
Stratification of Multi-label Data"), then single moves and swaps are made as long as the deal gets better.
"""

import hashlib
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

FREE: Final = -1
"""Part of a block that is not dealt yet."""

_MISSING_COST: Final = 10.0  # more than any deviation of shares can cost: a class that is absent weighs first
_MAX_SWEEPS: Final = 20
_MAX_SWAP_BLOCKS: Final = 400  # beyond it the greedy deal is close to its targets and pairs are too many


def deal(weights: Floats, shares: Sequence[float], names: Sequence[str], seed: int, fixed: Ints) -> Ints:
    """Return the part 0..len(shares)-1 of each block.

    Args:
        weights: (block, feature), not negative: what a block would bring, for example pixels of each class.
        shares: wanted share of every feature for each part; parts with share 0 get nothing.
        names: name of each block; ties go by the sha256 of seed and name, so the order of the rows does not matter.
        seed: of the ties.
        fixed: part that a block has already and keeps, else FREE.
    """
    totals = weights.sum(axis=0)
    scaled = weights[:, totals > 0] / totals[totals > 0]
    order = sorted(range(len(names)), key=lambda block: _tie(seed, names[block]))
    parts = np.flatnonzero(np.asarray(shares) > 0)
    dealt = fixed.copy()
    free = [block for block in order if fixed[block] == FREE]
    _deal_greedily(scaled, shares, parts, free, dealt)
    # a block that would bring nothing is of use only where its neighbours are most likely to be: in the largest part
    dealt[dealt == FREE] = int(np.argmax(shares))
    _improve(scaled, shares, parts, [block for block in free if scaled[block].any()], dealt)
    return dealt


def _tie(seed: int, name: str) -> str:
    return hashlib.sha256(f"{seed}/{name}".encode()).hexdigest()


def _held(scaled: Floats, dealt: Ints, count: int) -> Floats:
    """(part, feature): the share of each feature that each part holds."""
    return np.stack([scaled[dealt == part].sum(axis=0) for part in range(count)])


def _deal_greedily(
    scaled: Floats, shares: Sequence[float], parts: Ints, free: list[int], dealt: Ints
) -> None:
    held, wanted = _held(scaled, dealt, len(shares)), np.asarray(shares)[:, None]
    left = [block for block in free if scaled[block].any()]
    while left:
        present = scaled[left] > 0
        rarity = np.where(present.any(axis=0), present.sum(axis=0), len(left) + 1)
        feature = int(np.argmin(rarity))
        # stable: blocks of one weight stay in the order of their hash
        for block in sorted((b for b in left if scaled[b, feature] > 0), key=lambda b: -scaled[b, feature]):
            lack = (wanted - held) / np.maximum(wanted, 1e-12)
            part = max(parts, key=lambda p: (round(lack[p, feature], 12), round(lack[p].sum(), 12), -p))
            dealt[block] = part
            held[part] += scaled[block]
        left = [block for block in left if dealt[block] == FREE]


def _row_cost(rows: Floats, share: float) -> Floats:
    """Cost of what one part holds, (.., feature) -> (..): deviation from its share, and features it lacks (train most)."""
    return ((rows - share) ** 2 / share + _MISSING_COST * (1 + share) * (rows <= 1e-12)).sum(axis=-1)


def _improve(scaled: Floats, shares: Sequence[float], parts: Ints, free: list[int], dealt: Ints) -> None:
    for _ in range(_MAX_SWEEPS):
        changed = [block for block in free if _improve_block(scaled, shares, parts, free, dealt, block)]
        if not changed:
            return


def _improve_block(
    scaled: Floats, shares: Sequence[float], parts: Ints, free: list[int], dealt: Ints, block: int
) -> bool:
    """Move a block, or swap it with another one, where that costs less; tell whether it did."""
    held = _held(scaled, dealt, len(shares))
    here, own = int(dealt[block]), scaled[block]
    best, best_gain = None, 1e-9
    for part in (int(p) for p in parts if p != here):
        others = [b for b in free if dealt[b] == part] if len(free) <= _MAX_SWAP_BLOCKS else []
        back = np.vstack([np.zeros_like(own), scaled[others]])  # the first row is a move without return
        before = _row_cost(held[here], shares[here]) + _row_cost(held[part], shares[part])
        after = _row_cost(held[here] - own + back, shares[here]) + _row_cost(
            held[part] + own - back, shares[part]
        )
        choice = int(np.argmin(after))
        if before - after[choice] > best_gain:
            best, best_gain = (part, others[choice - 1] if choice else None), before - after[choice]
    if best is None:
        return False
    part, partner = best
    dealt[block] = part
    if partner is not None:
        dealt[partner] = here
    return True
