"""The threads beside the one that works on a unit: those that read blocks, and one that writes what is finished."""

import contextlib
import dataclasses
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Executor, Future, ThreadPoolExecutor, wait
from typing import Final, Self

import rasterio

from chipmill.core.buffers import end_with

PURPOSE: Final = "strips"
"""Of buffers and threads: reading the strips of composites."""


_LENDS: Final = 32
"""Composites that are read by the same threads: what these hold then is the same for a hundred tiles and for thousands."""


@dataclasses.dataclass(slots=True, eq=False)
class _Readers:
    pool: Executor
    users: int = 0
    lent: int = 0
    leaving: bool = False
    """Nobody new gets them."""


_readers: Final[dict[tuple[int, int], _Readers]] = {}
"""By process, since one that was forked has none of these threads, and number."""
_guard: Final = threading.Lock()


@contextlib.contextmanager
def lent_readers(count: int) -> Iterator[Executor]:
    """Lend ``count`` threads, the same to all who read in this process at the time, and to some after them.

    A dataset is opened by one of them and closed by another, so each has an environment of rasterio's for good. GDAL
    keeps memory in each thread for the files that it read, also when these are closed: so they end after some
    composites, and when the process turns to another purpose.
    """
    key = (os.getpid(), count)
    with _guard:
        worn = key in _readers and not _readers[key].users and _readers[key].lent >= _LENDS
    if worn:
        _leave(key)
    with _guard:
        if key not in _readers:
            _readers[key] = _Readers(ThreadPoolExecutor(count, "chipmill-read", rasterio.Env().__enter__))
            end_with(PURPOSE, _leave_all)
        readers = _readers[key]
        readers.users += 1
        readers.lent += 1
    try:
        yield readers.pool
    finally:
        with _guard:
            readers.users -= 1
            last = readers.leaving and not readers.users
        if last:
            readers.pool.shutdown()


def _leave_all() -> None:
    for key in [*_readers]:
        _leave(key)


def _leave(key: tuple[int, int]) -> None:
    """End the threads, or have their last user do so."""
    with _guard:
        readers = _readers.pop(key, None)
        if readers is None:
            return  # another thread was here at the same moment
        readers.leaving = True
        idle = not readers.users and key[0] == os.getpid()
    if idle:
        readers.pool.shutdown()


class Behind:
    """Does one thing at a time in a thread of its own, while the one who asked goes on.

    What it raises reaches whoever asks for the next thing or leaves the block, also by an error of his own.
    """

    def __enter__(self) -> Self:
        self._pool = ThreadPoolExecutor(1, "chipmill-behind", rasterio.Env().__enter__)
        self._last: Future[None] | None = None
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None or issubclass(kind, Exception):
                self._wait()
        finally:
            self._pool.shutdown()

    def do(self, work: Callable[[], None]) -> None:
        """Begin something, once what was begun before is done."""
        self._wait()
        self._last = self._pool.submit(work)

    def _wait(self) -> None:
        last, self._last = self._last, None
        if last is not None:
            last.result()


def results[T](futures: Sequence[Future[T]]) -> list[T]:
    """Return the results in order, or raise the first error after all have ended: then no file is in use any more."""
    _, rest = wait(futures, return_when=FIRST_EXCEPTION)
    for future in rest:
        future.cancel()
    wait(futures)
    failed = next((error for one in futures if not one.cancelled() and (error := one.exception())), None)
    if failed is not None:
        raise failed
    return [future.result() for future in futures]
