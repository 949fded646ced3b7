"""The open files of a composite, shared by the threads that read them."""

import contextlib
import threading
from collections.abc import Iterator
from typing import Self

from chipmill.imagery.items import Asset
from chipmill.imagery.reading import BandReader, Grid, open_band


class _Entry:
    """A place for one reader; it is opened by the first that uses it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.stack = contextlib.ExitStack()
        self.reader: BandReader | None = None
        self.users = 0


class ReaderPool:
    """Keeps the readers of a tile open from window to window, about ``limit`` of them: each holds memory for a block.

    Threads share it: one reader serves one of them at a time. Files are gone through in the same order for every
    window, so what is over the limit is closed newest first: the oldest is wanted next.
    """

    def __init__(self, limit: int = 64) -> None:
        self._limit = limit
        self._entries: dict[tuple[str, int, Grid, str], _Entry] = {}
        self._guard = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        with contextlib.ExitStack() as ending:
            for entry in self._entries.values():
                ending.push(entry.stack)
        self._entries.clear()

    @contextlib.contextmanager
    def use(self, asset: Asset, location: str, grid: Grid, resampling: str) -> Iterator[BandReader]:
        """Lend the reader of a band on a grid, opened when it is not yet; raises as :func:`open_band` does."""
        key = (location, asset.band, grid, resampling)
        with self._guard:
            entry = self._entries.pop(key, None) or _Entry()
            self._entries[key] = entry
            entry.users += 1
            idle = self._surplus()
        for one in idle:
            one.stack.close()
        try:
            with entry.lock:
                if entry.reader is None:
                    entry.reader = entry.stack.enter_context(open_band(asset, location, grid, resampling))
                yield entry.reader
        finally:
            with self._guard:
                entry.users -= 1

    def _surplus(self) -> list[_Entry]:
        """Take out the newest that nobody uses, as many as are over the limit."""
        over = len(self._entries) - self._limit
        if over <= 0:
            return []
        idle = [key for key, entry in reversed(self._entries.items()) if not entry.users][:over]
        return [self._entries.pop(key) for key in idle]
