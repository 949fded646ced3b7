"""Reading ahead: while one window is reduced and written, the next ones are read, those of the next slot too.

The file to change for how much is under way at once. What a window is, and how it is read, is in :mod:`.strips`.
"""

import contextlib
import itertools
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import rasterio

from chipmill.core.buffers import Buffers, lent_buffers
from chipmill.imagery.strips import Strip, StripSource
from chipmill.imagery.workers import PURPOSE
from chipmill.region.grid import Window

type Opening = Callable[[], contextlib.AbstractContextManager[StripSource]]
"""Opens a source when it is called."""


class Ahead(NamedTuple):
    """A strip of one of several sources that are read one after the other."""

    source: StripSource
    window: Window
    strip: Strip
    """Its arrays are used again once the caller has asked for the next one."""
    last: bool
    """Whether it is the last one of its source."""


class _Job(NamedTuple):
    files: contextlib.ExitStack
    source: StripSource
    window: Window
    last: bool


def read_ahead(openings: Sequence[Opening], ahead: int) -> Generator[Ahead]:
    """Yield all windows of the sources in order; the next ``ahead`` are read at once while the caller works on one.

    The next source is opened and read while the strips before it are still at work; its errors are raised when its own
    strips are due. A source is closed once its last strip has been used.
    """
    with (
        lent_buffers(PURPOSE, ahead + 1) as rooms,
        contextlib.ExitStack() as opened,
        ThreadPoolExecutor(ahead, "chipmill-ahead", rasterio.Env().__enter__) as pool,
    ):
        try:
            yield from _strips(_jobs(openings, opened, pool), pool, rooms)
        finally:
            pool.shutdown(cancel_futures=True)  # before a file is closed that is being read


def _jobs(
    openings: Sequence[Opening], opened: contextlib.ExitStack, pool: ThreadPoolExecutor
) -> Iterator[_Job]:
    """Yield what is to be read; each source is being opened while the one before it is read."""

    def enter(opening: Opening) -> tuple[contextlib.ExitStack, StripSource]:
        files = contextlib.ExitStack()
        source = files.enter_context(opening())
        opened.enter_context(files)
        return files, source

    entering = deque(pool.submit(enter, opening) for opening in openings[:1])
    for number in range(len(openings)):
        files, source = entering.popleft().result()
        entering.extend(pool.submit(enter, opening) for opening in openings[number + 1 : number + 2])
        windows = source.windows()
        for place, window in enumerate(windows, start=1):
            yield _Job(files, source, window, place == len(windows))


def _strips(jobs: Iterator[_Job], pool: ThreadPoolExecutor, rooms: Sequence[Buffers]) -> Iterator[Ahead]:
    """Yield what the jobs give, all but one of the rooms under way."""
    coming: deque[tuple[_Job, Future[Strip]]] = deque()
    turns = itertools.cycle(rooms)
    failed: Exception | None = None
    while True:
        while len(coming) < len(rooms) - 1 and failed is None:
            try:
                job = next(jobs, None)
            except Exception as error:  # noqa: BLE001 - raised when all before it has been used
                failed = error
                break
            if job is None:
                break
            coming.append((job, pool.submit(job.source.read, job.window, next(turns))))
        if not coming:
            break
        job, strip = coming.popleft()
        yield Ahead(job.source, job.window, strip.result(), job.last)
        if job.last:
            job.files.close()
    if failed is not None:
        raise failed
