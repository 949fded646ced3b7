"""Build a cell in another world: `python -m tests.faults.store.elsewhere FOLDER SEED YEAR`, PYTHONHASHSEED and TZ set.

The clock goes in another year, and the units of every stage are worked on in another order.
"""

import datetime as dt
import random
import sys
from pathlib import Path

import time_machine
from benchmarks import chain
from tests.faults.store import cell

from chipmill.core.units import Batch


def build(folder: Path, seed: int, year: int) -> None:
    """Build the dataset of a cell folder."""
    rng, planned = random.Random(seed), chain.load_batches

    def shuffled(attempt: Path, stage: str) -> list[Batch]:
        units = [unit for batch in planned(attempt, stage) for unit in batch.units]
        rng.shuffle(units)
        return [Batch(stage, number, (unit,)) for number, unit in enumerate(units)]

    chain.load_batches = shuffled
    with time_machine.travel(dt.datetime(year, 2, 28, 23, 59, 58, tzinfo=dt.UTC), tick=True):
        chain.build(cell.region(folder, cell.SECOND))


if __name__ == "__main__":
    build(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
