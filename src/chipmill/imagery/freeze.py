"""The frozen answer of a search: items.parquet, stac-geoparquet that other programs can read too.

Items are written as we understood them: only the assets in use, with the scale and offset that were decided on, hrefs
unsigned and relative to the root of their source. The same items give the same bytes, wherever the archive lies.
"""

import datetime as dt
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from chipmill.core.store import commit_file
from chipmill.core.tables import read_table
from chipmill.imagery.items import Asset, Item

_EXTENSIONS: Final = (
    "https://stac-extensions.github.io/eo/v2.0.0/schema.json",
    "https://stac-extensions.github.io/file/v2.1.0/schema.json",
    "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
    "https://stac-extensions.github.io/raster/v2.0.0/schema.json",
)


def write_items(path: Path, items: Sequence[Item], fingerprint: str) -> None:
    """Commit items.parquet in the order of the items; ``fingerprint`` is that of the answer."""
    from stac_geoparquet.arrow import to_parquet

    # parse_stac_items_to_arrow does the same after it has summed up all memory of the process for a log
    from stac_geoparquet.arrow._api import stac_items_to_arrow

    rows = [_row(item) for item in items]
    with commit_file(path, fingerprint, records=len(items)) as temp:
        if not rows:
            _write_empty(temp)
            return
        batch = stac_items_to_arrow(rows)
        to_parquet(pa.RecordBatchReader.from_batches(batch.schema, [batch]), temp, compression="zstd")


def _write_empty(path: Path) -> None:
    import pyarrow.parquet as pq

    names = ("id", "collection", "chipmill:imagery")
    pq.write_table(pa.table({name: pa.array([], pa.string()) for name in names}), path, compression="zstd")


def read_items(path: Path, ids: Collection[str] | None = None) -> tuple[Item, ...]:
    """Return the items of an items.parquet in order; all of them are kept in memory until the file changes.

    ``ids`` reads just the items of these ids, and keeps nothing. Raises DamagedFileError when it is not the table it
    should be.
    """
    if ids is None:
        return _read_items(path, path.stat().st_mtime_ns)
    table = read_table(path, where=pc.field("id").isin(pa.array(sorted(ids), pa.string())))
    return tuple(_item(row) for row in table.to_pylist())


@lru_cache(maxsize=4)
def _read_items(path: Path, _changed: int) -> tuple[Item, ...]:
    return tuple(_item(row) for row in read_table(path).to_pylist())


def _row(item: Item) -> dict[str, Any]:
    import shapely

    properties = {
        "datetime": item.datetime.isoformat(),
        "platform": item.platform,
        "eo:cloud_cover": item.cloud_cover_pct,
        # Text, not a timestamp: what the source wrote is part of the identity.
        "chipmill:updated": item.updated,
        "chipmill:imagery": item.imagery,
        "chipmill:scale_evidence": item.scale_evidence,
        "chipmill:offset_evidence": item.offset_evidence,
        "chipmill:problem": item.problem,
        "chipmill:tiles": " ".join(item.tiles),
    }
    grouped: dict[str, dict[str, Any]] = {}
    for number, (name, asset) in enumerate(item.assets.items()):
        entry = grouped.setdefault(asset.key, _asset_row(asset))
        entry["chipmill:names"].append(name)
        entry["chipmill:order"].append(number)
        entry["chipmill:bands"].append(asset.band)
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": list(_EXTENSIONS),
        "id": item.item_id,
        "collection": item.collection,
        "geometry": shapely.geometry.mapping(shapely.from_wkb(item.geometry_wkb)),
        "bbox": list(item.bbox),
        "links": [],
        # The key that no item has keeps the column a struct where no asset could be read.
        "assets": grouped or {"none": _asset_row(Asset("none", ""))},
        "properties": properties,
    }


def _asset_row(asset: Asset) -> dict[str, Any]:
    return {
        "href": asset.href,
        "roles": ["data"],
        "raster:scale": asset.scale,
        "raster:offset": asset.offset,
        "nodata": asset.nodata,
        "file:size": asset.bytes,
        "file:checksum": asset.checksum,
        "proj:code": f"EPSG:{asset.epsg}" if asset.epsg else None,
        "proj:shape": list(asset.shape) if asset.shape else None,
        "proj:transform": list(asset.transform) if asset.transform else None,
        "chipmill:names": [],
        "chipmill:order": [],
        "chipmill:bands": [],
    }


def _item(row: Mapping[str, Any]) -> Item:
    import shapely

    box = row["bbox"]
    geometry = shapely.from_wkb(row["geometry"])
    when: dt.datetime = row["datetime"]
    return Item(
        imagery=row["chipmill:imagery"],
        collection=row["collection"] or "",
        item_id=row["id"],
        datetime=when.astimezone(dt.UTC),
        platform=row["platform"],
        cloud_cover_pct=row["eo:cloud_cover"],
        geometry_wkb=shapely.to_wkb(geometry),
        bbox=(box["xmin"], box["ymin"], box["xmax"], box["ymax"]),
        updated=row["chipmill:updated"],
        assets=_assets(row["assets"]),
        # an attempt that was begun before a column existed is continued
        scale_evidence=row.get("chipmill:scale_evidence", "none"),
        offset_evidence=row["chipmill:offset_evidence"],
        problem=row["chipmill:problem"],
        tiles=tuple(row.get("chipmill:tiles", "").split()),
    )


def _assets(struct: Mapping[str, Any]) -> dict[str, Asset]:
    placed: list[tuple[int, str, Asset]] = []
    for key, entry in struct.items():
        if entry is None:
            continue
        for name, number, band in zip(
            entry["chipmill:names"], entry["chipmill:order"], entry["chipmill:bands"], strict=True
        ):
            placed.append((number, name, _asset(key, entry, band)))
    return {name: asset for _, name, asset in sorted(placed, key=lambda one: one[0])}


def _asset(key: str, entry: Mapping[str, Any], band: int) -> Asset:
    code, shape, transform = entry["proj:code"], entry["proj:shape"], entry["proj:transform"]
    return Asset(
        key=key,
        href=entry["href"],
        band=band,
        scale=entry["raster:scale"],
        offset=entry["raster:offset"],
        nodata=entry["nodata"],
        bytes=entry["file:size"],
        checksum=entry["file:checksum"],
        epsg=int(code.removeprefix("EPSG:")) if code else None,
        shape=(shape[0], shape[1]) if shape else None,
        transform=tuple(transform) if transform else None,
    )
