"""The chips of one split over several datasets as one sequence, read by record and a few batches ahead.

Any order is possible, so an epoch can be an exact permutation of all chips of all datasets: a function of seed and
epoch alone, whatever the shards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chipmill.core.errors import SchemaMismatchError
from chipmill.dataset.feeding import read_ahead
from chipmill.dataset.manifest import DatasetRef
from chipmill.dataset.reader import open_dataset

type Batch = tuple[NDArray[Any], NDArray[np.uint8]]
"""Images `(n, y, x, band)` in the dataset's dtype and labels `(n, y, x)`."""


class Feed:
    """Chips of `split` ("train", "val", "test") of all datasets, in the order of the datasets and their shards.

    Raises SplitMismatchError where one dataset trains on ground that another one holds back, and SchemaMismatchError
    for a series, whose images have an axis of time that our networks do not take.
    """

    def __init__(self, datasets: Sequence[DatasetRef], split: str) -> None:
        chips = open_dataset([one.path for one in datasets])
        for part in chips.parts:
            if part.spec.slots:
                raise SchemaMismatchError(
                    f"{part.root} has dataset.layout series, which a model cannot learn from yet: run its region with "
                    "layout stack, or read the series by chipmill.open_dataset"
                )
        self._chips = chips.split(split)

    def __len__(self) -> int:
        return len(self._chips)

    def read(self, places: Iterable[int]) -> Batch:
        """Return the chips at `places` as one batch; raises DamagedFileError where a record is not what it should be."""
        batch = self._chips.batch(places)
        return batch.image, batch.label

    def batches(
        self, groups: Sequence[NDArray[np.int64]], change: Callable[[int, Batch], Batch] | None = None
    ) -> Iterator[Batch]:
        """Yield one batch per group of places, in order; `change(step, batch)` is applied in the reading thread."""

        def make(step: int) -> Batch:
            batch = self.read(groups[step])
            return batch if change is None else change(step, batch)

        return read_ahead(make, len(groups))
