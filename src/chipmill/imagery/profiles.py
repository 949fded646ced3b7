"""What the numbers of known products mean, where their items do not say it: scale, offset, nodata, platform.

The file to change for another product. What an item declares comes first, here is what its producer's handbook says:
Sentinel-2 (Products Specification Document 14.9), Landsat Collection 2 Level 2 (USGS Science Product Guide, LSDS-1619
and LSDS-1618) and HLS (User Guide 2.0). Where neither knows the scale it stays None, with the evidence "none".
"""

import dataclasses
import math
import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any, Final
from urllib.parse import urlsplit

from chipmill.core.errors import OffsetContradictionError
from chipmill.imagery.items import Asset, mapping
from chipmill.region.imagery import Imagery

Json = Mapping[str, Any]

_S2_SCALE: Final = 1e-4
_S2_OFFSET: Final = -0.1  # BOA_ADD_OFFSET -1000 of baseline 04.00 and later
_S2_BASELINE: Final = 4.0


@dataclasses.dataclass(frozen=True, slots=True)
class Radiometry:
    """Physical value = DN * scale + offset; ``nodata`` is the DN that means no data."""

    profile: str
    """Name of the product, the evidence that is stored."""
    scale: float
    offset: float
    nodata: float


@dataclasses.dataclass(frozen=True, slots=True)
class Decision:
    """An asset with what was decided for it, and what that rests on."""

    asset: Asset
    scale_evidence: str
    """override, declared, the name of a profile, or none."""
    offset_evidence: str
    """override, boa_offset_applied, declared, baseline, the name of a profile, or none."""


_NO_REFLECTANCE: Final = frozenset({"scl", "cld", "snw", "aot", "wvp", "tci", "visual", "sza", "saa"})
_LANDSAT: Final = (
    (r"(^|_)SR_B[1-7]$|^(coastal|blue|green|red|nir08|swir16|swir22)$", 2.75e-5, -0.2, 0.0),
    (r"(^|_)ST_B(6|10)$|^lwir(11)?$", 0.00341802, 149.0, 0.0),  # kelvin
    (r"(^|_)ST_(ATRAN|EMIS|EMSD)$|^(atran|emis|emsd)$", 1e-4, 0.0, -9999.0),
    (r"(^|_)ST_(DRAD|TRAD|URAD)$|^(drad|trad|urad)$", 1e-3, 0.0, -9999.0),
    (r"(^|_)ST_(CDIST|QA)$|^cdist$", 1e-2, 0.0, -9999.0),
)
_HLS_ANGLES: Final = (r"^[SV][ZA]A$", 1e-2, 0.0, 40000.0)
_HLS: Final = {
    "s": ((r"^B(0[1-9]|8A|1[0-2])$", 1e-4, 0.0, -9999.0), _HLS_ANGLES),
    "l": (
        (r"^B0[1-79]$", 1e-4, 0.0, -9999.0),
        (r"^B1[01]$", 1e-2, 0.0, -9999.0),  # degrees Celsius
        _HLS_ANGLES,
    ),
}
"""Sensor (Sentinel-2, Landsat) -> asset key -> scale, offset, nodata: B10 and B11 are other bands in each."""


def decide(imagery: Imagery, raw: Json, asset: Asset) -> Decision:
    """Return an asset of a band with its scale, offset and nodata decided on.

    The scale is the first that exists of: ``scale_override``, what the item declares, the product's own. The offset
    has the same order with ``offset_override``; ``offset: none`` makes it 0, and Sentinel-2 has :func:`sentinel2_offset`.

    Args:
        imagery: the overrides.
        raw: the item as parsed JSON.
        asset: as the item describes it; an offset that it does not declare is NaN.

    Raises:
        OffsetContradictionError: the item contradicts itself on the offset of Sentinel-2.
    """
    known = radiometry(raw, asset)
    declared = None if math.isnan(asset.offset) else asset.offset
    scale, scale_evidence = asset.scale, "declared"
    if imagery.scale_override is not None:
        scale, scale_evidence = imagery.scale_override, "override"
    elif scale is None:
        scale, scale_evidence = (known.scale, known.profile) if known else (None, "none")
    # A producer's offset belongs to the producer's scale: an archive that was rescaled has another.
    fits = known is not None and (asset.scale is None or math.isclose(asset.scale, known.scale))
    if imagery.offset_override is not None:
        offset, offset_evidence = imagery.offset_override, "override"
    elif imagery.offset == "none":
        offset, offset_evidence = 0.0, "none"
    elif known is not None and known.profile == "sentinel-2":
        offset, offset_evidence = sentinel2_offset(raw, declared)
    elif declared is not None:
        offset, offset_evidence = declared, "declared"
    else:
        offset, offset_evidence = (known.offset, known.profile) if known and fits else (0.0, "none")
    nodata = known.nodata if known and asset.nodata is None else asset.nodata
    decided = dataclasses.replace(asset, scale=scale, offset=offset, nodata=nodata)
    return Decision(decided, scale_evidence, offset_evidence)


def radiometry(raw: Json, asset: Asset) -> Radiometry | None:
    """Return what the producer says of an asset of a known product; None for masks and unknown products.

    The offset is that of the product without a rule for Sentinel-2: see :func:`sentinel2_offset`.
    """
    if is_sentinel2(raw):
        reflects = asset.key.lower().split("_")[0].split("-")[0] not in _NO_REFLECTANCE
        return Radiometry("sentinel-2", _S2_SCALE, 0.0, 0.0) if reflects else None
    if is_landsat2(raw):
        name = PurePosixPath(urlsplit(asset.href).path).stem
        return _listed("landsat-c2-l2", _LANDSAT, (asset.key, name))
    if sensor := hls_sensor(raw):
        return _listed("hls", _HLS[sensor], (asset.key,))
    return None


def _listed(
    profile: str, rules: tuple[tuple[str, float, float, float], ...], names: tuple[str, ...]
) -> Radiometry | None:
    for pattern, scale, offset, nodata in rules:
        if any(re.search(pattern, name) for name in names):
            return Radiometry(profile, scale, offset, nodata)
    return None


def platform_of(raw: Json) -> str:
    """Return who took an item: platform, else constellation, else what its product implies, else unknown."""
    properties = mapping(raw.get("properties"))
    told = properties.get("platform") or properties.get("constellation")
    return str(told or {"s": "sentinel-2", "l": "landsat"}.get(hls_sensor(raw) or "", "unknown"))


def is_sentinel2(raw: Json) -> bool:
    """Tell whether an item is of Sentinel-2 as ESA processes it, whose offset has a rule of its own; HLS is not."""
    properties = mapping(raw.get("properties"))
    names = (properties.get("constellation"), properties.get("platform"), raw.get("collection"))
    return hls_sensor(raw) is None and any(str(name or "").lower().startswith("sentinel-2") for name in names)


def is_landsat2(raw: Json) -> bool:
    """Tell whether an item is of Landsat Collection 2 Level 2: surface reflectance and temperature."""
    properties = mapping(raw.get("properties"))
    number = str(properties.get("landsat:collection_number") or "")
    level = str(properties.get("landsat:correction") or "")
    if number and level:
        return number == "02" and level in ("L2SP", "L2SR")
    return bool(re.match(r"landsat-c2-?l2", str(raw.get("collection") or "").lower()))


def hls_sensor(raw: Json) -> str | None:
    """Return s (Sentinel-2) or l (Landsat) for an item of Harmonized Landsat Sentinel-2, None for any other."""
    found = re.match(r"hls(?:2-)?([sl])30", str(raw.get("collection") or "").lower())
    return found[1] if found else None


def sentinel2_offset(raw: Json, declared: float | None) -> tuple[float, str]:
    """Return the offset of a Sentinel-2 band in reflectance, and what it rests on.

    The first that exists counts: boa_offset_applied true (0), the declared raster offset, processing baseline
    04.00 or later (-0.1, Sentinel-2 Products Specification 14.9: BOA_ADD_OFFSET -1000), else 0.

    Raises:
        OffsetContradictionError: the item contradicts itself: flag false with declared 0, or an old baseline with -0.1.
    """
    properties = mapping(raw.get("properties"))
    flags = [value for key, value in properties.items() if key.endswith("boa_offset_applied")]
    baseline = _baseline(properties)
    if True in flags:
        return 0.0, "boa_offset_applied"
    told = None
    if False in flags and declared == 0:
        told = "boa_offset_applied false, and offset 0"
    elif baseline is not None and baseline < _S2_BASELINE and declared is not None and declared != 0:
        told = f"processing baseline {baseline:05.2f}, and offset {declared:g}"
    if told:
        raise OffsetContradictionError(
            f"item {raw.get('id')} declares {told}, which contradict each other: set offset_override to what is right"
        )
    if declared is not None:
        return declared, "declared"
    if baseline is not None and baseline >= _S2_BASELINE:
        return _S2_OFFSET, "baseline"
    return 0.0, "none"


def _baseline(properties: Json) -> float | None:
    told = properties.get("s2:processing_baseline") or properties.get("processing:baseline")
    try:
        return float(told) if isinstance(told, str | int | float) else None
    except ValueError:
        return None
