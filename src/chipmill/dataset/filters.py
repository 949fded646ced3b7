"""Why a window is not usable whatever its split: the file to change for another filter on quality.

The reasons have one order, and the first that holds is the one that is written down.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from chipmill.core.errors import BadInputError
from chipmill.dataset.classes import resolve_classes
from chipmill.region.config import Region
from chipmill.region.dataset import Chips

Texts = npt.NDArray[Any]
"""Array of str, dtype object."""

EMPTY_SLOT: Final = "empty_slot"
NODATA: Final = "nodata"
CLOUD: Final = "cloud"
STATIC_NODATA: Final = "static_nodata"
NO_LABEL: Final = "no_label"


def quality_reasons(windows: pa.Table, chips: Chips, imagery: Sequence[str] = ()) -> Texts:
    """Return for each window "" where it is usable, else the first reason that holds.

    In order: why a rule leaves it out, why it failed (its tile or a neighbour), an empty slot, a slot with more nodata
    than allowed, a slot with more cloud than allowed, static layers with more nodata than allowed, no pixel with a
    class. Where there are several ``imagery`` the reason nodata names that with the most of it: ``nodata:s1``.
    """
    reasons = np.full(windows.num_rows, "", dtype=object)
    # from the last to the first, so that the first one stands in the end
    reasons[row_totals(windows["class_px"]) == 0] = NO_LABEL
    reasons[column(windows, "static_nodata_fraction", 0.0) > chips.max_static_nodata_fraction] = STATIC_NODATA
    reasons[row_max(windows["cloud_fraction"]) > chips.max_cloud_fraction] = CLOUD
    poor = row_max(windows["nodata_fraction"]) > chips.max_nodata_fraction
    reasons[poor] = _nodata_reasons(windows, imagery)[poor]
    reasons[column(windows, "empty_slot", False)] = EMPTY_SLOT
    for name in ("failed_reason", "excluded_reason"):
        given = is_given(windows, name)
        reasons[given] = texts(windows, name)[given]
    return reasons


def _nodata_reasons(windows: pa.Table, imagery: Sequence[str]) -> Texts:
    """Return "nodata" for each window, with the imagery that lacks most in its worst slot where there are several."""
    reasons = np.full(windows.num_rows, NODATA, dtype=object)
    values, lengths = _flat(windows["imagery_nodata_fraction"])
    if len(imagery) > 1 and len(values):
        filled = lengths > 0
        worst = values.reshape(int(filled.sum()), -1, len(imagery)).max(axis=1).argmax(axis=1)
        reasons[filled] = np.array([f"{NODATA}:{name}" for name in imagery], dtype=object)[worst]
    return reasons


def column(table: pa.Table, name: str, null: object = None) -> npt.NDArray[Any]:
    """Return a column as an array, nulls replaced by ``null`` where it is given."""
    values = table[name] if null is None else table[name].fill_null(null)
    return np.asarray(values.to_numpy(zero_copy_only=False))


def texts(table: pa.Table, name: str) -> Texts:
    """Return a column of texts, None for null; equal texts are one object, however many rows there are."""
    values = table[name].combine_chunks().dictionary_encode()
    known = np.array([*values.dictionary.to_pylist(), None], dtype=object)
    codes: Texts = known[np.asarray(values.indices.fill_null(len(known) - 1))]
    return codes


def is_given(table: pa.Table, name: str) -> npt.NDArray[np.bool_]:
    """Tell of each row whether a column is not null."""
    return np.asarray(table[name].is_valid().to_numpy(zero_copy_only=False), dtype=np.bool_)


def class_matrix(windows: pa.Table, classes: int) -> npt.NDArray[np.int64]:
    """Return (window, class) pixels; zeros for a window without histogram."""
    values, lengths = _flat(windows["class_px"])
    matrix = np.zeros((windows.num_rows, classes), dtype=np.int64)
    if len(values):
        filled = lengths > 0
        matrix[filled] = values.reshape(int(filled.sum()), classes)
    return matrix


def row_totals(lists: pa.ChunkedArray) -> npt.NDArray[np.float64]:
    """Return the sum of each list, 0 for an empty one."""
    return _reduced(np.add, lists)


def row_max(lists: pa.ChunkedArray) -> npt.NDArray[np.float64]:
    """Return the largest value of each list of fractions, 0 for an empty one."""
    return _reduced(np.maximum, lists)


def _reduced(function: np.ufunc, lists: pa.ChunkedArray) -> npt.NDArray[np.float64]:
    values, lengths = _flat(lists)
    result = np.zeros(len(lengths))
    filled = lengths > 0
    if len(values):
        # an empty list between two others begins where the next one does, and must not be asked
        result[filled] = function.reduceat(values, (np.cumsum(lengths) - lengths)[filled])
    return result


def _flat(lists: pa.ChunkedArray) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
    """Values of all lists one after the other, and the length of each list (0 for null)."""
    whole = lists.combine_chunks()
    lengths = np.asarray(whole.value_lengths().fill_null(0), dtype=np.int64)
    return np.asarray(whole.flatten()), lengths


def class_code(region: Region, name: str) -> int:
    """Return the code of a class that ``dataset.select`` names; raises BadInputError where the labels have none so."""
    names = [info.name for info in resolve_classes(region)]
    try:
        region.dataset.select.refuse_unknown(names)
    except ValueError as error:
        raise BadInputError(str(error)) from error
    return names.index(name)


def key_fractions(counts: npt.NDArray[np.int64], key: int) -> npt.NDArray[np.float64]:
    """Return the share of class ``key`` among the labelled pixels of (window, class) counts, 0 where there is none."""
    return np.asarray(counts[:, key] / np.maximum(counts.sum(axis=1), 1))
