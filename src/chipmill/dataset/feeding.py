"""Chips in batches: in which order an epoch goes, reading ahead on threads, and the same for TensorFlow.

The file to change for how readers shuffle. An order depends on seed and epoch alone, never on threads or time: the
shards are drawn, and the records of eight at a time are mixed, so that a disk reads near places together.
"""

import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

import numpy as np

from chipmill.dataset.places import Ints

_MIXED_SHARDS: Final = 8
_AHEAD: Final = 2
"""Batches that wait for who takes them, beside those that are being read."""


def draw(seed: int, epoch: int, name: str) -> str:
    """Return 64 hex digits that put a name into the order of an epoch."""
    return hashlib.sha256(f"{seed}/{epoch}/{name}".encode()).hexdigest()


def mixed_order(shard_of: Ints, names: Sequence[str], seed: int, epoch: int) -> Ints:
    """Return a permutation of the records, a function of ``seed`` and ``epoch`` alone.

    Args:
        shard_of: number of each record's shard.
        names: what tells the shards from each other, by number.
        seed: any number.
        epoch: counted from anywhere.
    """
    drawn = sorted(range(len(names)), key=lambda number: draw(seed, epoch, names[number]))
    turn = np.empty(len(names), np.int64)
    turn[drawn] = np.arange(len(names)) // _MIXED_SHARDS
    mixed = np.random.default_rng([seed, epoch]).permutation(len(shard_of))
    return mixed[np.argsort(turn[shard_of[mixed]], kind="stable")]


def groups(order: Ints, size: int, *, drop_remainder: bool) -> list[Ints]:
    """Return an order cut into batches of ``size``; the last may be smaller, or is left out."""
    end = len(order) - len(order) % size if drop_remainder else len(order)
    return [order[first : first + size] for first in range(0, end, size)]


def read_ahead[T](make: Callable[[int], T], count: int, threads: int = 1) -> Iterator[T]:
    """Yield ``make(0)`` to ``make(count - 1)`` in order, some ahead of who takes them, made by ``threads`` threads."""
    waiting: deque[Future[T]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="feed") as pool:
        try:
            for step in range(count):
                waiting.append(pool.submit(make, step))
                if len(waiting) > _AHEAD + threads - 1:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:  # who stops in the middle waits for nothing that is not begun
            for future in waiting:
                future.cancel()
