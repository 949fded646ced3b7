"""Earth Engine's mixer.json: on which grid the patches of an image export lie. The file to change for its format.

Source: Earth Engine's guide on TFRecord and real exports. Patches run row by row over all files in the order of their
names; what does not fill a patch at the right and lower edge was dropped. A margin (``kernelSize``: the total, half of
it on each side) is not recorded, and is inferred from the number of values.
"""

import dataclasses
import json
import math
import re
from pathlib import Path
from typing import Any, Final

from affine import Affine

from chipmill.core.errors import BadInputError
from chipmill.exchange.origin import read_text

SUFFIX: Final = "mixer.json"
_MOST: Final = 1 << 31


@dataclasses.dataclass(frozen=True, slots=True)
class Mixer:
    """The grid of an export."""

    crs: str
    transform: tuple[float, float, float, float, float, float]
    """Affine (a, b, c, d, e, f) of the whole, from the corner of the first patch without its margin."""
    patch: tuple[int, int]
    """Width and height of a patch without margin, in pixels."""
    per_row: int
    """Patches in a row."""
    total: int
    """All patches."""

    @property
    def epsg(self) -> str:
        """``EPSG:<code>``, or "" for a CRS without a code."""
        return self.crs if re.fullmatch(r"EPSG:\d{4,6}", self.crs) else ""

    @property
    def rows(self) -> int:
        """Rows of patches."""
        return self.total // self.per_row

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the whole, in pixels."""
        return self.per_row * self.patch[0], self.rows * self.patch[1]

    def corner(self, number: int) -> tuple[int, int]:
        """Return (column, row) of the first pixel of a patch, without its margin."""
        return number % self.per_row * self.patch[0], number // self.per_row * self.patch[1]

    def patch_transform(self, number: int, margin: tuple[int, int] = (0, 0)) -> Affine:
        """Return the affine transform of a patch with a margin of so many columns and rows on its left and top."""
        a, b, c, d, e, f = self.transform
        col, row = self.corner(number)
        right, down = col - margin[0], row - margin[1]
        return Affine(a, b, c + a * right + b * down, d, e, f + d * right + e * down)

    def facts(self) -> dict[str, Any]:
        """Return it as Earth Engine writes it."""
        return {
            "projection": {"crs": self.crs, "affine": {"doubleMatrix": list(self.transform)}},
            "patchDimensions": list(self.patch),
            "patchesPerRow": self.per_row,
            "totalPatches": self.total,
        }


def read_mixer(path: Path) -> Mixer:
    """Return the mixer of an export; raises BadInputError for one that makes no sense."""
    try:
        facts = json.loads(read_text(path))
        a, b, c, d, e, f = map(float, facts["projection"]["affine"]["doubleMatrix"])
        width, height = (int(value) for value in facts["patchDimensions"])
        mixer = Mixer(
            str(facts["projection"]["crs"]), (a, b, c, d, e, f), (width, height), int(facts["patchesPerRow"]),
            int(facts["totalPatches"]),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise BadInputError(
            f"{path} is no mixer of Earth Engine ({error!r}): export the image again"
        ) from error
    numbers = (*mixer.patch, mixer.per_row, mixer.total)
    possible = all(map(math.isfinite, mixer.transform)) and all(0 < one < _MOST for one in numbers)
    if not possible or mixer.size[0] * mixer.patch[1] > _MOST:
        raise BadInputError(f"{path} holds numbers that make no grid: export the image again")
    if mixer.total % mixer.per_row:
        raise BadInputError(
            f"{path} names {mixer.total} patches in rows of {mixer.per_row}: expected whole rows; export the image again"
        )
    return mixer


def infer_margin(
    values: int, patch: tuple[int, int], given: tuple[int, int] | None, where: str
) -> tuple[int, int]:
    """Return the total margin (columns, rows) of patches that have ``values`` values of a band.

    Without one ``given``, margins that are equal in both directions are found; others cannot be told apart. Raises
    BadInputError, naming ``where``, where none fits.
    """
    width, height = patch
    if given is not None:
        if (width + given[0]) * (height + given[1]) != values:
            raise BadInputError(
                f"{where} has {values} values, expected ({width} + {given[0]}) x ({height} + {given[1]}): give the margin "
                "(kernelSize) of the export"
            )
        return given
    # (width + k)(height + k) = values
    both = width + height
    root = math.isqrt(both * both - 4 * (width * height - values)) if values >= width * height else -1
    margin = (root - both) // 2
    if root < 0 or (width + margin) * (height + margin) != values:
        raise BadInputError(
            f"{where} has {values} values, which is no patch of {width} x {height} with an equal margin: give the margin "
            "(kernelSize) of the export"
        )
    return margin, margin
