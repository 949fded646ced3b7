"""Chips as pictures in a notebook: image and label side by side, with the colours and names of the classes.

The file to change for what ``Dataset.plot`` draws. Only here is matplotlib imported (the extra ``notebook``).
"""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from chipmill.core.errors import BadInputError
from chipmill.dataset.classes import IGNORE
from chipmill.dataset.description import Manifest
from chipmill.dataset.records import Sample
from chipmill.dataset.views import Chip, planes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLORS: Final = (("red", "green", "blue"), ("nir", "red", "green"), ("swir16", "nir", "red"))
"""Bands to show, the first three that there are."""
_STRETCH: Final = (2, 98)
"""Percentiles of the valid pixels that become black and white."""
_COLUMNS: Final = 4
_INCHES: Final = 2.2
"""Side of a picture."""


def plot(chips: Sequence[Chip], bands: Sequence[str] | None) -> "Figure":
    """Return the figure of some chips; see :meth:`chipmill.dataset.reader.Dataset.plot`."""
    if not chips:
        raise BadInputError(
            "there is no chip to show: the dataset, or the part of it that was chosen, is empty"
        )
    manifest = chips[0][0].manifest
    shown = _shown(manifest, bands)
    columns = min(_COLUMNS, len(chips))
    figure = _figure(2 * columns * _INCHES, (-(-len(chips) // columns)) * _INCHES * 1.15 + 0.6)
    axes = figure.subplots(-(-len(chips) // columns), 2 * columns, squeeze=False).ravel()
    for axis in axes:
        axis.set_axis_off()
    for number, (_, sample) in enumerate(chips):
        image, label = axes[2 * number : 2 * number + 2]
        image.imshow(_picture(manifest, sample, shown), interpolation="nearest")
        image.set_title(sample.chip_id, fontsize=6, loc="left")
        label.imshow(_paint(manifest, sample.label), interpolation="nearest")
    _legend(figure, manifest)
    figure.suptitle(f"{manifest.region}: {', '.join(shown)}", fontsize=9)
    return figure


def _figure(width: float, height: float) -> "Figure":
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise BadInputError(
            f"matplotlib cannot be imported here ({error}): install chipmill[notebook], or use to_xarray"
        ) from error

    class Shown(Figure):
        """A figure that a notebook shows without pyplot, which would keep it in memory for good."""

        def _repr_png_(self) -> bytes:
            stream = io.BytesIO()
            self.savefig(stream, format="png", bbox_inches="tight")
            return stream.getvalue()

    return Shown(figsize=(width, height), layout="constrained")


def _shown(manifest: Manifest, wanted: Sequence[str] | None) -> tuple[str, ...]:
    """One or three band names: those that are wanted, else colours of the first slot."""
    names = [one.name for one in manifest.bands]
    if wanted is not None:
        missing = [name for name in wanted if name not in names]
        if missing or len(wanted) not in (1, 3):
            raise BadInputError(
                f"plot shows one band or three of {', '.join(names)}, got {', '.join(wanted)}"
            )
        return tuple(wanted)
    slot = manifest.bands[0].slot
    short = {one.name.removeprefix(f"{slot}_"): one.name for one in manifest.bands if one.slot == slot}
    for colors in _COLORS:
        if all(name in short for name in colors):
            return tuple(short[name] for name in colors)
    return tuple(names[:3] if len(names) > 2 else names[:1])


def _picture(manifest: Manifest, sample: Sample, shown: Sequence[str]) -> npt.NDArray[np.float64]:
    """(y, x, 4) from 0 to 1, each band stretched between two percentiles; what is nodata is transparent."""
    places = [[one.name for one in manifest.bands].index(name) for name in shown]
    values = planes(sample)[places].astype(np.float64)
    nodata = np.array([manifest.bands[place].nodata for place in places])[:, None, None]
    valid = (values != nodata).all(axis=0)
    picture = np.zeros((*sample.label.shape, 4))
    if valid.any():
        low, high = np.percentile(values[:, valid], _STRETCH, axis=1)[:, :, None, None]
        picture[..., :3] = np.moveaxis(np.clip((values - low) / np.maximum(high - low, 1e-9), 0, 1), 0, -1)
    picture[..., 3] = valid
    return picture


def _paint(manifest: Manifest, label: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """(y, x, 4): the colour of each class, ignore transparent."""
    colors = np.zeros((IGNORE + 1, 4), np.uint8)
    for one in manifest.classes:
        colors[one.code] = (*bytes.fromhex(one.color.removeprefix("#")), 255)
    return colors[label]


def _legend(figure: Any, manifest: Manifest) -> None:
    from matplotlib.patches import Patch

    handles = [Patch(color=one.color, label=one.name) for one in manifest.classes]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(8, len(handles)), fontsize=7)
