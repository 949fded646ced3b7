"""The frame of every export of chips: a folder for each split, and beside its chips what came from where.

The file to change for how the splits of an exported dataset lie in its folder.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

from chipmill.core.errors import BadInputError
from chipmill.dataset.places import SPLITS
from chipmill.dataset.reader import Dataset
from chipmill.exchange.chips import Converted, left_out
from chipmill.exchange.origin import Origin, OriginChip, write_origin
from chipmill.exchange.staging import new_folder


def export_splits(
    opened: Dataset, out: Path, origin: Origin, write: Callable[[Dataset, Path], Iterator[OriginChip]]
) -> Converted:
    """Write the splits that have chips to ``out/<split>``.

    ``write`` gets the chips of a split and its folder, writes them, and yields what chips.csv says of each. Raises
    BadInputError where there is no chip at all, and what ``write`` and :func:`new_folder` raise.
    """
    count = 0
    with new_folder(out) as staging:
        for split in SPLITS:
            chips = opened.split(split)
            if not len(chips):
                continue
            (staging / split).mkdir()
            count += write_origin(staging / split, origin, write(chips, staging / split))
        if not count:
            raise BadInputError(f"{opened.parts[0].root} holds no chips: there is nothing to export")
    return Converted(out, count, left_out(opened.manifest))
