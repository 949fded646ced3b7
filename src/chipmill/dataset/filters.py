"""Why a window is not usable whatever its split: the file to change for another filter on quality.

The reasons have one order, and the first that holds is the one that is written down.
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from chipmill.region.dataset import Chips

Texts = npt.NDArray[Any]
"""Array of str, dtype object."""

EMPTY_SLOT: Final = "empty_slot"
NODATA: Final = "nodata"
CLOUD: Final = "cloud"
NO_LABEL: Final = "no_label"


def quality_reasons(windows: pa.Table, chips: Chips) -> Texts:
    """Return for each window "" where it is usable, else the first reason that holds.

    In order: why it failed (its tile or a neighbour), an empty slot, a slot with more nodata than allowed, a slot with
    more cloud than allowed, no pixel with a class.
    """
    reasons = np.full(windows.num_rows, "", dtype=object)
    # from the last to the first, so that the first one stands in the end
    reasons[row_totals(windows["class_px"]) == 0] = NO_LABEL
    reasons[row_max(windows["cloud_fraction"]) > chips.max_cloud_fraction] = CLOUD
    reasons[row_max(windows["nodata_fraction"]) > chips.max_nodata_fraction] = NODATA
    reasons[column(windows, "empty_slot", False)] = EMPTY_SLOT
    failed = np.array(windows["failed_reason"].to_pylist(), dtype=object)
    return np.where(failed == None, reasons, failed)  # noqa: E711 - element by element


def column(table: pa.Table, name: str, null: object = None) -> npt.NDArray[Any]:
    """Return a column as an array, nulls replaced by ``null`` where it is given."""
    values = table[name] if null is None else table[name].fill_null(null)
    return np.asarray(values.to_numpy(zero_copy_only=False))


def class_matrix(windows: pa.Table, classes: int) -> npt.NDArray[np.int64]:
    """Return (window, class) pixels; zeros for a window without histogram."""
    _, values, lengths = _flat(windows["class_px"])
    matrix = np.zeros((windows.num_rows, classes), dtype=np.int64)
    if len(values):
        filled = lengths > 0
        matrix[filled] = values.reshape(int(filled.sum()), classes)
    return matrix


def row_totals(lists: pa.ChunkedArray) -> npt.NDArray[np.float64]:
    """Return the sum of each list, 0 for an empty one."""
    rows, values, lengths = _flat(lists)
    return np.bincount(rows, weights=values, minlength=len(lengths))


def row_max(lists: pa.ChunkedArray) -> npt.NDArray[np.float64]:
    """Return the largest value of each list of fractions, 0 for an empty one."""
    rows, values, lengths = _flat(lists)
    largest = np.zeros(len(lengths))
    np.maximum.at(largest, rows, values)
    return largest


def _flat(lists: pa.ChunkedArray) -> tuple[npt.NDArray[np.int64], npt.NDArray[Any], npt.NDArray[np.int64]]:
    """Row of each value, the values, and the length of each list (0 for null)."""
    lengths = np.asarray(lists.combine_chunks().value_lengths().fill_null(0), dtype=np.int64)
    values = np.concatenate([np.asarray(chunk.flatten()) for chunk in lists.chunks] or [np.zeros(0)])
    return np.repeat(np.arange(len(lengths)), lengths), values, lengths
