"""From a STAC item as a server or file gives it (any dialect, 0.9 to 1.1) to our :class:`Item`.

The file to change for another dialect; what the numbers of a product mean is in :mod:`.profiles`. An item that lacks a
band, or contradicts itself, is kept with the reason, so that the ranking can say why it was left out.
"""

import dataclasses
import datetime as dt
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from chipmill.core.errors import AssetMismatchError, ChipmillError, ItemSearchError, OffsetContradictionError
from chipmill.imagery.hrefs import is_url, relative_href, resolve_href
from chipmill.imagery.items import CONTRADICTION, MASK, Asset, Item, item_name, mapping
from chipmill.imagery.profiles import decide, platform_of
from chipmill.region.imagery import Imagery

Json = Mapping[str, Any]


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
    properties = mapping(raw.get("properties"))
    wkb, bbox = parse_geometry(raw, item_id)
    problem = ""
    assets: dict[str, Asset] = {}
    scales = offsets = "none"
    try:
        assets, scales, offsets = _decided(imagery, _assets(imagery, raw, root, base), raw)
    except ChipmillError as error:
        problem = str(error)
        offsets = CONTRADICTION if isinstance(error, OffsetContradictionError) else "none"
    if _number(properties.get("s2:nodata_pixel_percentage")) == 100:
        problem = problem or f"item {item_id} says that it holds no data (s2:nodata_pixel_percentage 100)"
    return Item(
        imagery=imagery.name,
        collection=str(raw.get("collection") or ""),
        item_id=item_id,
        datetime=parse_time(properties, item_id),
        platform=platform_of(raw),
        cloud_cover_pct=_number(properties.get("eo:cloud_cover")),
        geometry_wkb=wkb,
        bbox=bbox,
        updated=_text(properties.get("updated")),
        assets=assets,
        scale_evidence=scales,
        offset_evidence=offsets,
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
    assets = mapping(raw.get("assets"))
    key, number = (wanted, 0) if wanted in assets else _by_name(raw, assets, wanted)
    asset = mapping(assets[key])
    bands = _bands(asset)
    band = bands[number] if number < len(bands) else {}
    href = _href(asset)
    if href is None:
        raise AssetMismatchError(f"item {raw.get('id')}: the asset {key} has no href: mend the item")
    stored = relative_href(root, base, href)
    place = _projection(asset, mapping(raw.get("properties")))
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


def _href(asset: Json) -> str | None:
    """Return where an asset lies: of its alternates the first over http(s), where its own href is of a store."""
    own = asset.get("href")
    others = [mapping(one).get("href") for one in mapping(asset.get("alternate")).values()]
    named = [one for one in (own, *others) if isinstance(one, str) and one]
    stores = [one for one in named if re.match(r"(?!https?:|file:)[a-z][a-z0-9+.-]+://", one, re.IGNORECASE)]
    if own not in stores:
        return named[0] if own in named else None
    return next((one for one in named if is_url(one)), named[0])


def _by_name(raw: Json, assets: Json, wanted: str) -> tuple[str, int]:
    found: dict[str, int] = {}
    for key in sorted(assets):
        bands = _bands(mapping(assets[key]))
        for number, band in enumerate(bands):
            if wanted in (band.get("common_name"), band.get("eo:common_name"), band.get("name")):
                found.setdefault(key, number)
    # A true-colour composite holds every colour too; the file of just this band is meant where there is one.
    single = [key for key in found if len(_bands(mapping(assets[key]))) == 1] or list(found)
    tiffs = [key for key in single if "tif" in str(mapping(assets[key]).get("type") or "tif")] or single
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
            merged[number] |= {key: value for key, value in mapping(band).items() if value is not None}
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


def _decided(imagery: Imagery, assets: Mapping[str, Asset], raw: Json) -> tuple[dict[str, Asset], str, str]:
    """Return the assets with scale and offset decided on, and where the scales and the offsets come from."""
    decided: dict[str, Asset] = {}
    scales: set[str] = set()
    offsets: set[str] = set()
    for name, asset in assets.items():
        if name == MASK:
            decided[name] = dataclasses.replace(asset, scale=None, offset=0.0)
            continue
        made = decide(imagery, raw, asset)
        decided[name] = made.asset
        scales.add(made.scale_evidence)
        offsets.add(made.offset_evidence)
    return decided, "+".join(sorted(scales)), "+".join(sorted(offsets))


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
