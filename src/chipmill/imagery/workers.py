"""The threads that read blocks: one set per process, and how their results are waited for."""

import functools
import os
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, Executor, Future, ThreadPoolExecutor, wait

import rasterio


def readers(count: int) -> Executor:
    """Return ``count`` threads that are kept while the process lives: each new one would load PROJ's database again.

    A dataset is opened by one of them and closed by another, so each has an environment of rasterio's for good.
    """
    return _readers(os.getpid(), count)


@functools.cache
def _readers(_process: int, count: int) -> Executor:
    return ThreadPoolExecutor(count, "chipmill-read", rasterio.Env().__enter__)


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
