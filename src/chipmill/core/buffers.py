"""Arrays that are kept from use to use, because fresh memory costs as much as filling it."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray


class Buffers:
    """Arrays by name, each kept at the largest size that was asked for; for one user at a time."""

    def __init__(self) -> None:
        self._kept: dict[str, NDArray[np.uint8]] = {}

    def array(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return an array that holds anything, good until the next call with that name."""
        size = int(np.prod(shape)) * dtype.itemsize
        if name not in self._kept or self._kept[name].size < size:
            self._kept.pop(name, None)  # before a larger one is made
            self._kept[name] = np.empty(size, np.uint8)
        return self._kept[name][:size].view(dtype).reshape(shape)


class _Local(threading.local):
    def __init__(self) -> None:
        self.buffers = Buffers()


_local: Final = _Local()
_spare: Final[dict[str, list[Buffers]]] = {}
_ends: Final[dict[str, set[Callable[[], None]]]] = {}
_guard: Final = threading.Lock()


def scratch() -> Buffers:
    """Return the arrays of this thread, for what is used up within a function."""
    return _local.buffers


@contextlib.contextmanager
def lent_buffers(purpose: str, count: int) -> Iterator[list[Buffers]]:
    """Lend some buffers; the next who asks for the same purpose gets them again.

    What is kept for other purposes is let go: a process works on one stage after the other.
    """
    with _guard:
        ends = [end for other in [*_ends] if other != purpose for end in _ends.pop(other)]
        for other in [name for name in _spare if name != purpose]:
            del _spare[other]
        spare = _spare.setdefault(purpose, [])
        taken = [spare.pop() if spare else Buffers() for _ in range(count)]
    for end in ends:
        end()
    yield taken
    with _guard:
        spare.extend(taken)


def end_with(purpose: str, end: Callable[[], None]) -> None:
    """Have ``end`` called once, when buffers are lent for another purpose; to say so again changes nothing."""
    with _guard:
        _ends.setdefault(purpose, set()).add(end)
