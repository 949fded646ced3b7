"""The one rule by which bands of several types share an array: exact widening, never a cast that loses a value.

What is physical (elevation in metres with decimals, slope in degrees) becomes whole numbers before that, by the scale
of its ``out`` in the region file: scale, then integer, and the scale stands in the manifest.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np

from chipmill.core.errors import BadInputError


def common_dtype(dtypes: Iterable[str]) -> np.dtype[Any]:
    """Return the smallest integer type that holds every value of all types: int16 and uint16 need int32.

    Raises BadInputError where there is none: for a type of floats, for 64 bits with and without sign, for no type.
    """
    types = [np.dtype(one) for one in dtypes]
    common = np.result_type(*types) if types else np.dtype(np.float64)
    if common.kind not in "iu":
        names = ", ".join(sorted({one.name for one in types})) or "no band"
        raise BadInputError(
            f"bands of {names} share no integer type without loss: store them by out.dtype and out.scale as int16, "
            "uint16 or uint8"
        )
    return common
