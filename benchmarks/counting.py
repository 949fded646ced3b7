"""How often each block of a file is decoded, seen from outside: every read of an open file is written down.

For tests and benchmarks; works for whatever opens its files by a function of the shape of `sources.open_asset`.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

type Block = tuple[str, int | None, int, int, int]
"""File, overview level (None: the file itself), band, row and column of the block."""


@dataclass(slots=True)
class Decodes:
    """What was opened and which blocks were read."""

    blocks: Counter[Block] = field(default_factory=Counter)
    opened: list[tuple[str, int | None]] = field(default_factory=list)

    def watch(self, opener: Callable[..., Any]) -> Callable[..., Any]:
        """Return `opener` such that the reads of what it opens are counted; warped views of a file are not."""

        @contextlib.contextmanager
        def watched(location: str, *rest: Any, **more: Any) -> Iterator[Any]:
            level = more.get("overview")
            self.opened.append((str(location), level))
            with opener(location, *rest, **more) as dataset:
                yield _Watched(dataset, self.blocks, (str(location), level))

        return watched


class _Watched:
    """A dataset whose reads are counted; all else is the dataset's own."""

    def __init__(self, dataset: Any, blocks: Counter[Block], name: tuple[str, int | None]) -> None:
        self._dataset, self._blocks, self._name = dataset, blocks, name

    def __getattr__(self, name: str) -> Any:
        return getattr(self._dataset, name)

    def read(self, band: int, *, window: Any, **more: Any) -> Any:
        rows, columns = self._dataset.block_shapes[band - 1]
        top, left = int(window.row_off), int(window.col_off)
        for row in range(top // rows, -(-(top + int(window.height)) // rows)):
            for column in range(left // columns, -(-(left + int(window.width)) // columns)):
                self._blocks[(*self._name, band, row, column)] += 1
        return self._dataset.read(band, window=window, **more)
