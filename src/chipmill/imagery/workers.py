"""The threads beside the one that works on a unit: those that read blocks, and one that writes what is finished."""

import functools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Executor, Future, ThreadPoolExecutor, wait
from typing import Self

import rasterio


def readers(count: int) -> Executor:
    """Return ``count`` threads that are kept while the process lives: each new one would load PROJ's database again.

    A dataset is opened by one of them and closed by another, so each has an environment of rasterio's for good.
    """
    return _readers(os.getpid(), count)


@functools.cache
def _readers(_process: int, count: int) -> Executor:
    return ThreadPoolExecutor(count, "chipmill-read", rasterio.Env().__enter__)


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
