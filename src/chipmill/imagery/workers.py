"""The threads beside the one that works on a unit: those that read blocks, and one that writes what is finished."""

import contextlib
import dataclasses
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Executor, Future, ThreadPoolExecutor, wait
from typing import Final, Self

import rasterio


@contextlib.contextmanager
def lent_readers(count: int) -> Iterator[Executor]:
    """Lend ``count`` threads to all who read in this process now; they end with the last who does.

    A dataset is opened by one of them and closed by another, so each has an environment of rasterio's for good. They do
    not outlive their work: GDAL keeps memory in each thread for the files that it read, also when these are closed.
    """
    with _guard:
        if count not in _lent:
            _lent[count] = _Lent(ThreadPoolExecutor(count, "chipmill-read", rasterio.Env().__enter__))
        lent = _lent[count]
        lent.users += 1
    try:
        yield lent.pool
    finally:
        with _guard:
            lent.users -= 1
            last = not lent.users
            if last:
                del _lent[count]
        if last:
            lent.pool.shutdown()


@dataclasses.dataclass(slots=True)
class _Lent:
    pool: Executor
    users: int = 0


_lent: Final[dict[int, _Lent]] = {}
_guard: Final = threading.Lock()


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
