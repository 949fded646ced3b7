"""The chips of one split over several datasets as one sequence, read by record and a few batches ahead.

Any order is possible, so an epoch can be an exact permutation of all chips of all datasets: a function of seed and
epoch alone, whatever the shards.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from chipmill.dataset.manifest import DatasetRef
from chipmill.dataset.reader import open_dataset

_AHEAD: Final = 2  # batches read while the network works on one

type Batch = tuple[NDArray[Any], NDArray[np.uint8]]
"""Images `(n, y, x, band)` in the dataset's dtype and labels `(n, y, x)`."""


class Feed:
    """Chips of `split` ("train", "val", "test") of all datasets, in the order of the datasets and their shards."""

    def __init__(self, datasets: Sequence[DatasetRef], split: str) -> None:
        self._parts = [open_dataset(one.path).split(split) for one in datasets]
        self._ends = np.cumsum([len(part) for part in self._parts])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def read(self, places: Iterable[int]) -> Batch:
        """Return the chips at `places` as one batch; raises DamagedFileError where a record is not what it should be."""
        samples = [self._sample(int(place)) for place in places]
        return np.stack([one.image for one in samples]), np.stack([one.label for one in samples])

    def _sample(self, place: int) -> Any:
        part = int(np.searchsorted(self._ends, place, side="right"))
        return self._parts[part][place - int(self._ends[part]) + len(self._parts[part])]

    def batches(
        self, groups: Sequence[NDArray[np.int64]], change: Callable[[int, Batch], Batch] | None = None
    ) -> Iterator[Batch]:
        """Yield one batch per group of places, in order; `change(step, batch)` is applied in the reading thread."""

        def make(step: int) -> Batch:
            batch = self.read(groups[step])
            return batch if change is None else change(step, batch)

        waiting: deque[Future[Batch]] = deque()
        with ThreadPoolExecutor(1, thread_name_prefix="feed") as reader:
            for step in range(len(groups)):
                waiting.append(reader.submit(make, step))
                if len(waiting) > _AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
