"""Chips as xarray, with time, band, y, x and CRS: for notebooks and GIS, not for training.

The file to change for what the axes and coordinates of a chip are called.
"""

import dataclasses
import datetime as dt
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from chipmill.core.errors import BadInputError
from chipmill.core.paths import VersionDir
from chipmill.core.tables import CHIPS, RANKING, read_table
from chipmill.dataset.classes import IGNORE
from chipmill.dataset.description import BandFacts, Manifest
from chipmill.dataset.opening import Part
from chipmill.dataset.records import Pixels, Sample

if TYPE_CHECKING:
    import xarray as xr

_TILE: Final = pa.schema([CHIPS.field("tile_id")])
_SPANS: Final = pa.schema([RANKING.field(name) for name in ("slot", "slot_start", "slot_end")])

type Chip = tuple[Part, Sample]
type _Variables = dict[Hashable, tuple[Any, ...]]


@dataclasses.dataclass(frozen=True, slots=True)
class _Axes:
    """The bands of a manifest as time and band: which flat band stands where."""

    slots: tuple[str, ...]
    """"" alone where no band has a slot."""
    bands: tuple[str, ...]
    """Without the name of the slot before them."""
    facts: tuple[BandFacts, ...]
    """One for each of ``bands``, of the first slot that has it."""
    flat: npt.NDArray[np.int64]
    """(slot, band): place in the manifest's list, -1 where a slot lacks the band."""
    static: tuple[int, ...]
    """Places of the bands without time."""

    @classmethod
    def of(cls, manifest: Manifest) -> "_Axes":
        """Sort the bands of a manifest."""
        slots = tuple(dict.fromkeys(one.slot for one in manifest.bands if one.slot))
        static = tuple(place for place, one in enumerate(manifest.bands) if slots and not one.slot)
        found: dict[str, dict[str, int]] = {}
        for place, one in enumerate(manifest.bands):
            if place not in static:
                found.setdefault(one.name.removeprefix(f"{one.slot}_"), {})[one.slot] = place
        flat = np.array([[places.get(slot, -1) for places in found.values()] for slot in slots or ("",)])
        facts = tuple(manifest.bands[min(places.values())] for places in found.values())
        return cls(slots or ("",), tuple(found), facts, flat, static)


def to_xarray(chips: Sequence[Chip], *, scaled: bool, stacked: bool) -> "xr.Dataset":
    """Return chips as one Dataset; see :meth:`chipmill.dataset.reader.Dataset.to_xarray`."""
    import xarray as xr

    if not chips:
        raise BadInputError(
            "there is no chip to show: the dataset, or the part of it that was chosen, is empty"
        )
    part, first = chips[0]
    axes = _Axes.of(part.manifest)
    spans = [_spans(own, sample, axes.slots) for own, sample in chips]
    pixels = [_pixels(own.manifest, axes, sample, scaled=scaled) for own, sample in chips]
    lead = ("chip",) if stacked else ()
    kinds = {"image": ("time", "band"), "label": (), "weight": (), "static": ("static",)}
    # a dimension and its coordinate have the name "static" already
    variables: _Variables = {
        "static_image" if name == "static" else name: (
            (*lead, *kinds[name], "y", "x"),
            _joined([one[name] for one in pixels], stacked=stacked),
        )
        for name in pixels[0]
    }
    found = xr.Dataset(variables, attrs={"title": part.manifest.region, "layout": part.manifest.layout})
    found = found.assign_coords(_band_coords(part.manifest, axes))
    found = found.assign_coords(_times(spans, axes.slots, stacked=stacked))
    found = found.assign_coords(_places([sample for _, sample in chips], stacked=stacked))
    if not scaled:
        found.image.attrs |= _encoding(axes.facts, first.image.dtype)
    if not scaled and axes.static:
        own = [part.manifest.bands[place] for place in axes.static]
        found.static_image.attrs |= _encoding(own, first.image.dtype)
    found.label.attrs = {
        "flag_values": [one.code for one in part.manifest.classes],
        "flag_meanings": " ".join(one.name.replace(" ", "_") for one in part.manifest.classes),
        "_FillValue": np.uint8(IGNORE),
    }
    if "spatial_ref" in found.coords:
        for variable in found.data_vars.values():
            variable.attrs["grid_mapping"] = "spatial_ref"
    return found


def _joined(arrays: Sequence[Pixels], *, stacked: bool) -> Pixels:
    return np.stack(arrays) if stacked else arrays[0]


def _pixels(manifest: Manifest, axes: _Axes, sample: Sample, *, scaled: bool) -> dict[str, Pixels]:
    """The variables of one chip: image (time, band, y, x), label (y, x), and weight and static where there are any."""
    flat = planes(sample)
    nodata = np.array([one.nodata for one in manifest.bands])
    if scaled:
        scale, offset = (
            np.array([getattr(one, name) for one in manifest.bands], np.float32)[:, None, None]
            for name in ("scale", "offset")
        )
        flat = np.where(flat == nodata[:, None, None], np.float32(np.nan), flat * scale + offset)
    image = flat[axes.flat]
    for place in np.argwhere(axes.flat < 0):
        image[tuple(place)] = np.nan if scaled else axes.facts[place[1]].nodata
    found = {"image": image, "label": sample.label}
    if sample.weight.size:
        found["weight"] = sample.weight
    if axes.static:
        found["static"] = flat[list(axes.static)]
    return found


def planes(sample: Sample) -> Pixels:
    """Return (band, y, x) in the order of the manifest's bands, whatever the layout."""
    found = np.moveaxis(sample.image, -1, -3)
    found = found.reshape(-1, *found.shape[-2:])
    return np.concatenate([found, np.moveaxis(sample.static, -1, 0)]) if sample.static.size else found


def _spans(part: Part, sample: Sample, slots: Sequence[str]) -> list[tuple[Any, Any]]:
    """Start and end of each slot for a chip's tile; NaT where no table says it; a chip without slots has its anchor."""
    if slots == ("",):
        day = dt.date.fromisoformat(sample.anchor)
        return [(np.datetime64(day, "ns"), np.datetime64(day + dt.timedelta(days=1), "ns"))]
    known = {one.name: one.intervals for one in part.manifest.slots}
    own: dict[str, tuple[Any, Any]] = {}
    if any(len(known.get(slot, ())) != 1 for slot in slots):
        own = _tile_spans(VersionDir(part.root), sample.chip_id)
    spans = []
    for slot in slots:
        span = known[slot][0] if len(known.get(slot, ())) == 1 else own.get(slot)
        spans.append((_instant(span[0]), _instant(span[1])) if span else (np.datetime64("NaT", "ns"),) * 2)
    return spans


def _tile_spans(version: VersionDir, chip_id: str) -> dict[str, tuple[Any, Any]]:
    """Slot -> its interval on the tile of a chip, from ranking.parquet."""
    if not version.ranking.is_file():
        return {}
    tile = read_table(version.chips, _TILE, pc.field("chip_id") == chip_id)["tile_id"][0].as_py()
    rows = read_table(version.ranking, _SPANS, pc.field("tile_id") == tile).to_pylist()
    return {row["slot"]: (row["slot_start"], row["slot_end"]) for row in rows}


def _instant(moment: str | dt.datetime) -> np.datetime64:
    parsed = dt.datetime.fromisoformat(moment) if isinstance(moment, str) else moment
    if parsed.tzinfo is not None:
        parsed = parsed.astimezone(dt.UTC).replace(tzinfo=None)
    return np.datetime64(parsed, "ns")


def _times(
    spans: Sequence[Sequence[tuple[Any, Any]]], slots: Sequence[str], *, stacked: bool
) -> dict[str, Any]:
    """Coordinates of time: start of each slot, its end and name; by chip where chips differ."""
    starts, ends = (np.array([[span[end] for span in one] for one in spans]) for end in (0, 1))
    found: dict[str, Any] = {"slot": ("time", list(slots))}
    if not stacked or (starts == starts[0]).all():
        return found | {"time": ("time", starts[0]), "time_end": ("time", ends[0])}
    return found | {"time_start": (("chip", "time"), starts), "time_end": (("chip", "time"), ends)}


def _band_coords(manifest: Manifest, axes: _Axes) -> dict[str, Any]:
    found: dict[str, Any] = {"band": ("band", list(axes.bands))}
    for name in ("scale", "offset", "nodata"):
        found[name] = ("band", np.array([getattr(one, name) for one in axes.facts]))
    if axes.static:
        own = [manifest.bands[place] for place in axes.static]
        found["static"] = ("static", [one.name for one in own])
        for name in ("scale", "offset", "nodata"):
            found[f"static_{name}"] = ("static", np.array([getattr(one, name) for one in own]))
    return found


def _places(samples: Sequence[Sample], *, stacked: bool) -> dict[str, Any]:
    """Pixel centres in CRS units, the CRS as CF wants it, ids and anchors."""
    x, y = (np.stack(one) for one in zip(*map(_centres, samples), strict=True))
    found: dict[str, Any] = {}
    if samples[0].crs and len({one.crs for one in samples}) == 1:  # imported chips may have no place
        code = np.int32(samples[0].crs.removeprefix("EPSG:"))
        found["spatial_ref"] = ((), code, _spatial_ref(samples[0], moved=stacked))
    if not stacked:
        own = {"chip_id": samples[0].chip_id, "anchor": samples[0].anchor}
        return found | own | {"x": ("x", x[0], {"axis": "X"}), "y": ("y", y[0], {"axis": "Y"})}
    texts = {"chip": "chip_id", "anchor": "anchor", "crs": "crs"}
    found |= {name: ("chip", [getattr(one, field) for one in samples]) for name, field in texts.items()}
    return found | {"x_centre": (("chip", "x"), x), "y_centre": (("chip", "y"), y)}


def _centres(sample: Sample) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    a, _, c, _, e, f = sample.transform
    rows, cols = sample.label.shape
    x, y = (np.arange(count, dtype=np.float64) + 0.5 for count in (cols, rows))
    return c + a * x, f + e * y


def _spatial_ref(sample: Sample, *, moved: bool) -> dict[str, Any]:
    """The CRS after CF, and GDAL's GeoTransform of a single chip."""
    from pyproj import CRS

    a, b, c, d, e, f = sample.transform
    facts = dict(CRS.from_user_input(sample.crs).to_cf())
    return facts if moved else facts | {"GeoTransform": " ".join(map(repr, (c, a, b, f, d, e)))}


def _encoding(facts: Sequence[BandFacts], dtype: npt.DTypeLike) -> dict[str, Any]:
    """What ``xarray.decode_cf`` makes physical values of, where all bands are stored alike."""
    found: dict[str, Any] = {}
    for name, attribute in (("scale", "scale_factor"), ("offset", "add_offset"), ("nodata", "_FillValue")):
        values = {getattr(one, name) for one in facts}
        if len(values) == 1:
            found[attribute] = values.pop()
    if "_FillValue" in found:
        limits, nodata = np.iinfo(dtype), found.pop("_FillValue")
        if limits.min <= nodata <= limits.max:  # else every value is data
            found["_FillValue"] = np.dtype(dtype).type(nodata)
    return found
