"""From a STAC item as a server or file gives it (any dialect, 0.9 to 1.1) to our :class:`Item`.

The file to change for another dialect, and the home of the rule for Sentinel-2's offset. An item that lacks a band,
or contradicts itself, is kept with the reason, so that the ranking can say why it was left out.
"""

import dataclasses
import datetime as dt
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from chipmill.core.errors import AssetMismatchError, ChipmillError, ItemSearchError
from chipmill.imagery.hrefs import is_url, relative_href, resolve_href
from chipmill.imagery.items import MASK, Asset, Item, item_name
from chipmill.region.imagery import Imagery

Json = Mapping[str, Any]

_NO_REFLECTANCE: Final = frozenset({"scl", "cld", "snw", "aot", "wvp", "tci", "visual", "sza", "saa"})
_S2_SCALE: Final = 1e-4
_S2_OFFSET: Final = -0.1  # BOA_ADD_OFFSET -1000 of baseline 04.00 and later
_S2_BASELINE: Final = 4.0


def parse_item(imagery: Imagery, raw: Json, root: str, base: str) -> Item:
    """Return what an imagery entry sees of a raw item.

    Args:
        imagery: names the bands, the mask and the offset rule.
        raw: the item as parsed JSON.
        root: root of the source, see :func:`chipmill.imagery.sources.source_root`.
        base: URL or absolute path of the document that hrefs are relative to.

    Raises:
        ItemSearchError: no usable id, no geometry or no date: it cannot even be placed.
    """
    item_id = item_name(raw)
    properties = _mapping(raw.get("properties"))
    wkb, bbox = parse_geometry(raw, item_id)
    problem = ""
    assets: dict[str, Asset] = {}
    evidence = "none"
    try:
        assets = _assets(imagery, raw, root, base)
        assets, evidence = _with_offsets(imagery, assets, raw)
    except ChipmillError as error:
        problem = str(error)
    if _number(properties.get("s2:nodata_pixel_percentage")) == 100:
        problem = problem or f"item {item_id} says that it holds no data (s2:nodata_pixel_percentage 100)"
    return Item(
        imagery=imagery.name,
        collection=str(raw.get("collection") or ""),
        item_id=item_id,
        datetime=parse_time(properties, item_id),
        platform=str(properties.get("platform") or properties.get("constellation") or "unknown"),
        cloud_cover_pct=_number(properties.get("eo:cloud_cover")),
        geometry_wkb=wkb,
        bbox=bbox,
        updated=_text(properties.get("updated")),
        assets=assets,
        offset_evidence=evidence,
        problem=problem,
    )


def parse_time(properties: Json, item_id: str, key: str = "datetime") -> dt.datetime:
    """Return a property as a UTC instant; the start of the interval where ``datetime`` is null.

    Raises ItemSearchError where there is none or it is not RFC 3339. A time without zone is UTC.
    """
    text = properties.get(key) or (properties.get("start_datetime") if key == "datetime" else None)
    try:
        when = dt.datetime.fromisoformat(str(text))
    except ValueError as error:
        raise ItemSearchError(f"item {item_id} has no usable {key} ({text!r})") from error
    return (when if when.tzinfo else when.replace(tzinfo=dt.UTC)).astimezone(dt.UTC)


def parse_geometry(raw: Json, item_id: str) -> tuple[bytes, tuple[float, float, float, float]]:
    """Return footprint (WKB, EPSG:4326) and bbox (west, south, east, north); raises ItemSearchError without them."""
    import shapely

    try:
        shape = shapely.geometry.shape(raw["geometry"])
        shape = shape if shape.is_valid else shapely.make_valid(shape)
        if shape.is_empty:
            raise ValueError("it is empty")
    except (KeyError, TypeError, ValueError, AttributeError, shapely.errors.ShapelyError) as error:
        raise ItemSearchError(f"item {item_id} has no usable geometry ({error})") from error
    box = raw.get("bbox")
    values = [_number(value) for value in box] if isinstance(box, Sequence) else []
    if len(values) == 6:
        values = [values[0], values[1], values[3], values[4]]
    numbers = [value for value in values if value is not None]
    west, south, east, north = numbers if len(numbers) == 4 else shape.bounds
    return shapely.to_wkb(shape), (west, south, east, north)


def _assets(imagery: Imagery, raw: Json, root: str, base: str) -> dict[str, Asset]:
    wanted = dict(imagery.bands) | ({MASK: imagery.mask.asset} if imagery.mask else {})
    return {name: find_asset(raw, key, root, base) for name, key in wanted.items()}


def find_asset(raw: Json, wanted: str, root: str, base: str) -> Asset:
    """Return the band of an item by asset key, else by common name, else by the name of a band.

    Raises AssetMismatchError where there is none or more than one, ItemSearchError for an href that is not allowed.
    """
    assets = _mapping(raw.get("assets"))
    key, number = (wanted, 0) if wanted in assets else _by_name(raw, assets, wanted)
    asset = _mapping(assets[key])
    bands = _bands(asset)
    band = bands[number] if number < len(bands) else {}
    href = asset.get("href")
    if not isinstance(href, str) or not href:
        raise AssetMismatchError(f"item {raw.get('id')}: the asset {key} has no href: mend the item")
    stored = relative_href(root, base, href)
    place = _projection(asset, _mapping(raw.get("properties")))
    size = asset.get("file:size")
    return Asset(
        key=key,
        href=stored,
        band=number + 1,
        scale=_first_number(band.get("scale"), band.get("raster:scale"), asset.get("raster:scale")),
        offset=_first_number(
            band.get("offset"), band.get("raster:offset"), asset.get("raster:offset"), math.nan
        ),
        nodata=_first_number(band.get("nodata"), asset.get("nodata"), asset.get("raster:nodata")),
        bytes=int(size) if isinstance(size, int) else _local_size(root, stored),
        checksum=_text(asset.get("file:checksum")),
        **place,
    )


def _by_name(raw: Json, assets: Json, wanted: str) -> tuple[str, int]:
    found: dict[str, int] = {}
    for key in sorted(assets):
        bands = _bands(_mapping(assets[key]))
        for number, band in enumerate(bands):
            if wanted in (band.get("common_name"), band.get("eo:common_name"), band.get("name")):
                found.setdefault(key, number)
    # A true-colour composite holds every colour too; the file of just this band is meant where there is one.
    single = [key for key in found if len(_bands(_mapping(assets[key]))) == 1] or list(found)
    tiffs = [key for key in single if "tif" in str(_mapping(assets[key]).get("type") or "tif")] or single
    if not tiffs:
        raise AssetMismatchError(
            f"item {raw.get('id')} has no asset or band {wanted}; it has {', '.join(sorted(assets)) or 'no assets'}"
        )
    if len(tiffs) > 1:
        raise AssetMismatchError(
            f"item {raw.get('id')} has several assets for {wanted} ({', '.join(tiffs)}): name the asset key in bands"
        )
    return tiffs[0], found[tiffs[0]]


def _bands(asset: Json) -> list[dict[str, Any]]:
    """Return the bands of an asset with the fields of ``bands``, ``eo:bands`` and ``raster:bands`` merged."""
    merged: list[dict[str, Any]] = []
    for name in ("bands", "eo:bands", "raster:bands"):
        listed = asset.get(name)
        for number, band in enumerate(listed if isinstance(listed, list) else []):
            if number == len(merged):
                merged.append({})
            merged[number] |= {key: value for key, value in _mapping(band).items() if value is not None}
    return merged


def _projection(asset: Json, properties: Json) -> dict[str, Any]:
    def pick(key: str) -> Any:
        return asset.get(key) if asset.get(key) is not None else properties.get(key)

    code = str(pick("proj:code") or "").upper()
    epsg = pick("proj:epsg") if isinstance(pick("proj:epsg"), int) else None
    if code.startswith("EPSG:") and code[5:].isdigit():
        epsg = int(code[5:])
    shape, transform = pick("proj:shape"), pick("proj:transform")
    # An item's own grid is no statement about an asset that gives one part of its grid itself.
    if asset.get("proj:transform") is not None and asset.get("proj:shape") is None:
        shape = None
    if asset.get("proj:shape") is not None and asset.get("proj:transform") is None:
        transform = None
    return {
        "epsg": epsg,
        "shape": (int(shape[0]), int(shape[1])) if isinstance(shape, list) and len(shape) == 2 else None,
        "transform": tuple(float(value) for value in transform[:6])
        if isinstance(transform, list) and len(transform) >= 6
        else None,
    }


def _local_size(root: str, href: str) -> int | None:
    """Return the size of a local file; None for a URL, and for a file that is missing: its reading will say so."""
    if is_url(root) or is_url(href):
        return None
    path = Path(resolve_href(root, href))
    return path.stat().st_size if path.is_file() else None


def _with_offsets(imagery: Imagery, assets: Mapping[str, Asset], raw: Json) -> tuple[dict[str, Asset], str]:
    """Decide scale and offset of each band and return the assets with them and where the offset comes from."""
    decided: dict[str, Asset] = {}
    evidence: set[str] = set()
    for name, asset in assets.items():
        declared = None if math.isnan(asset.offset) else asset.offset
        if name == MASK:
            decided[name] = dataclasses.replace(asset, scale=None, offset=0.0)
            continue
        s2 = is_sentinel2(raw) and asset.key.lower().split("_")[0].split("-")[0] not in _NO_REFLECTANCE
        scale = _S2_SCALE if s2 and asset.scale is None else asset.scale
        if imagery.offset_override is not None:
            offset, source = imagery.offset_override, "override"
        elif imagery.offset == "none":
            offset, source = 0.0, "none"
        elif s2:
            offset, source = sentinel2_offset(raw, declared)
        else:
            offset, source = (0.0, "none") if declared is None else (declared, "declared")
        decided[name] = dataclasses.replace(asset, scale=scale, offset=offset)
        evidence.add(source)
    return decided, "+".join(sorted(evidence))


def is_sentinel2(raw: Json) -> bool:
    """Tell whether an item is of Sentinel-2, whose offset has a rule of its own."""
    properties = _mapping(raw.get("properties"))
    names = (properties.get("constellation"), properties.get("platform"), raw.get("collection"))
    return any(str(name or "").lower().startswith("sentinel-2") for name in names)


def sentinel2_offset(raw: Json, declared: float | None) -> tuple[float, str]:
    """Return the offset of a Sentinel-2 band in reflectance, and what it rests on.

    The first that exists counts: boa_offset_applied true (0), the declared raster offset, processing baseline
    04.00 or later (-0.1, Sentinel-2 Products Specification 14.9: BOA_ADD_OFFSET -1000), else 0.

    Raises:
        AssetMismatchError: the item contradicts itself: flag false with declared 0, or an old baseline with -0.1.
    """
    properties = _mapping(raw.get("properties"))
    flags = [value for key, value in properties.items() if key.endswith("boa_offset_applied")]
    baseline = _number(properties.get("s2:processing_baseline") or properties.get("processing:baseline"))
    if True in flags:
        return 0.0, "boa_offset_applied"
    told = None
    if False in flags and declared == 0:
        told = "boa_offset_applied false, and offset 0"
    elif baseline is not None and baseline < _S2_BASELINE and declared is not None and declared != 0:
        told = f"processing baseline {baseline:05.2f}, and offset {declared:g}"
    if told:
        raise AssetMismatchError(
            f"item {raw.get('id')} declares {told}, which contradict each other: set offset_override to what is right"
        )
    if declared is not None:
        return declared, "declared"
    if baseline is not None and baseline >= _S2_BASELINE:
        return _S2_OFFSET, "baseline"
    return 0.0, "none"


def _mapping(value: Any) -> Json:
    return value if isinstance(value, Mapping) else {}


def _text(value: Any) -> str | None:
    return str(value) if value not in (None, "") else None


def _number(value: Any) -> float | None:
    """Return a finite number, also from text ("nan" of the raster extension becomes nan), else None."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except ValueError:
        return None


def _first_number(*values: Any) -> Any:
    return next((number for value in values if (number := _number(value)) is not None), None)
