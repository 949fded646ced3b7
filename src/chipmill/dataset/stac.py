"""catalog/ of a version: what was made as STAC 1.1, one item per tile and one per shard, all links relative.

Label, projection, file and classification extensions say what a tile's label is, on which pixels it lies, and that a
file is the one that was written. Nothing here depends on when or where it was written.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from chipmill.core.paths import VersionDir, layer_of, relative
from chipmill.core.store import canonical_json, commit_file
from chipmill.dataset.description import FileFacts, Manifest, ShardFacts
from chipmill.region.tiles import Tile

STAC_VERSION: Final = "1.1.0"
EXTENSIONS: Final = {
    name: f"https://stac-extensions.github.io/{name}/v{number}/schema.json"
    for name, number in (
        ("classification", "2.0.0"),
        ("file", "2.1.0"),
        ("label", "1.0.1"),
        ("projection", "2.0.0"),
    )
}
_TYPES: Final = {
    ".tif": "image/tiff; application=geotiff; profile=cloud-optimized",
    ".vrt": "application/xml",
    ".parquet": "application/vnd.apache.parquet",
    ".json": "application/json",
}
_SHA256: Final = "1220"
"""Multihash prefix: function 0x12, 32 bytes."""
_BOX: Final = ("xmin", "ymin", "xmax", "ymax")

type Json = dict[str, Any]
type Box = Sequence[float]
"""West, south, east and north in degrees."""


def write_catalog(
    version: VersionDir, manifest: Manifest, tiles: Sequence[Tile], chips: pa.Table | None, stamp: str
) -> list[Path]:
    """Write the catalog of a sealed attempt and return its files in order.

    Args:
        version: the attempt.
        manifest: of it, without the files that are written here.
        tiles: of the plan; those that were rejected have no item.
        chips: rows of chips.parquet as committed, None where there are no chips.
        stamp: fingerprint of the dataset.
    """
    own = {one.path: one for one in manifest.named()}
    written: list[Path] = []

    def write(path: Path, content: Json) -> None:
        with commit_file(path, stamp) as temp:
            temp.write_text(canonical_json(content, indent=1) + "\n", encoding="utf-8")
        written.append(path)

    shown: list[tuple[str, Box]] = []
    for item in _items(version, manifest, tiles, chips, own):
        write(version.catalog_item(item["id"]), item)
        shown.append((item["id"], item["bbox"]))
    write(version.catalog / "collection.json", _collection(manifest, shown, own))
    write(version.catalog / "catalog.json", _catalog(manifest))
    return written


def _items(
    version: VersionDir,
    manifest: Manifest,
    tiles: Sequence[Tile],
    chips: pa.Table | None,
    own: Mapping[str, FileFacts],
) -> Iterator[Json]:
    """Yield the items of tiles and shards one by one: all of a large region are more than memory should hold."""
    layers = _by_tile(manifest.sources)
    for tile in tiles:
        if not tile.reject and relative(version.stack(tile.tile_id), version.root) in own:
            yield _tile_item(manifest, tile, [_stack_of(version, tile, own), *layers.get(tile.tile_id, ())])
    if chips is not None:
        boxes = _shard_boxes(chips)
        for shard in manifest.shards:
            yield _shard_item(manifest, shard, boxes[_stem(shard.path)])


def _catalog(manifest: Manifest) -> Json:
    return {
        "type": "Catalog",
        "stac_version": STAC_VERSION,
        "id": _id(manifest),
        "description": f"Training dataset of {manifest.region}, {' to '.join(manifest.cell)}",
        "links": [_link("root", "./catalog.json"), _link("child", "./collection.json")],
    }


def _collection(manifest: Manifest, items: Sequence[tuple[str, Box]], own: Mapping[str, FileFacts]) -> Json:
    whole = [pick(box[axis] for _, box in items) for axis, pick in enumerate((min, min, max, max))]
    tables = {PurePosixPath(path).stem: own[path] for path in sorted(own) if path.endswith(".parquet")}
    return {
        "type": "Collection",
        "stac_version": STAC_VERSION,
        "stac_extensions": [EXTENSIONS["file"]],
        "id": _id(manifest),
        "description": f"Tiles with labels, and shards of chips of {manifest.chip_size_px} px, of {manifest.region}",
        "license": "other",
        "extent": {
            "spatial": {"bbox": [whole]},
            "temporal": {"interval": [list(_span(manifest))]},
        },
        "summaries": {"bands": [{"name": band.name} for band in manifest.bands]},
        "links": [
            _link("root", "./catalog.json"),
            _link("parent", "./catalog.json"),
            *(_link("item", f"./items/{name}.json", "application/geo+json") for name, _ in items),
        ],
        "assets": {
            "manifest": {"href": "../dataset.json", "type": _TYPES[".json"], "roles": ["metadata"]},
            **{name: _asset(file, "..", "metadata") for name, file in tables.items()},
        },
    }


def _tile_item(manifest: Manifest, tile: Tile, layers: Sequence[tuple[str, FileFacts]]) -> Json:
    import shapely

    outline = tile.lattice.footprint(tile.window)
    assets = {name: _asset(file, "../..", _role(name)) for name, file in layers}
    for name, asset in assets.items():
        if name == "labels":
            asset["classification:classes"] = _classes(manifest)
    start, end = _span(manifest) if tile.time is None else (_utc(tile.time.start), _utc(tile.time.end))
    properties: Json = {
        "proj:code": tile.crs,
        "proj:transform": list(tile.transform)[:6],
        "proj:shape": list(tile.shape),
    }
    return _item(manifest, tile.tile_id, shapely.geometry.mapping(outline), (start, end), properties, assets)


def _shard_item(manifest: Manifest, shard: ShardFacts, box: tuple[float, float, float, float]) -> Json:
    import shapely

    properties = {"chipmill:split": shard.split, "chipmill:records": shard.count}
    asset = _asset(shard, "../..", "data") | {"type": "application/octet-stream"}
    outline = shapely.geometry.mapping(shapely.box(*box))
    return _item(manifest, _stem(shard.path), outline, _span(manifest), properties, {"records": asset})


def _item(
    manifest: Manifest, name: str, outline: Json, span: tuple[str, str], own: Json, assets: Mapping[str, Json]
) -> Json:
    import shapely

    labelled = "labels" in assets or "records" in assets
    properties = {"datetime": None, "start_datetime": span[0], "end_datetime": span[1], **own}
    wanted = ["file", *(["label"] if labelled else []), *(["projection"] if "proj:code" in own else [])]
    if any("classification:classes" in asset for asset in assets.values()):
        wanted.append("classification")
    if labelled:
        properties |= {
            "label:type": "raster",
            "label:tasks": ["segmentation"],
            "label:properties": None,
            "label:classes": [{"name": None, "classes": [one.name for one in manifest.classes]}],
            "label:description": f"one class of {len(manifest.classes)} per pixel, {manifest.ignore} is not labelled",
        }
    return {
        "type": "Feature",
        "stac_version": STAC_VERSION,
        "stac_extensions": [EXTENSIONS[one] for one in sorted(wanted)],
        "id": name,
        "collection": _id(manifest),
        "geometry": outline,
        "bbox": list(shapely.geometry.shape(outline).bounds),
        "properties": properties,
        "links": [
            _link("root", "../catalog.json"),
            _link("parent", "../collection.json"),
            _link("collection", "../collection.json"),
        ],
        "assets": dict(sorted(assets.items())),
    }


def _classes(manifest: Manifest) -> list[Json]:
    known = [
        {
            "value": one.code,
            "name": one.name,
            "description": ", ".join(one.values),
            "color_hint": one.color[1:].upper(),
        }
        for one in manifest.classes
    ]
    return [
        *known,
        {"value": manifest.ignore, "name": "not-labelled", "description": "no label", "nodata": True},
    ]


def _asset(file: FileFacts, up: str, role: str) -> Json:
    return {
        "href": os.path.normpath(f"{up}/{file.path}"),
        "type": _TYPES.get(PurePosixPath(file.path).suffix, "application/octet-stream"),
        "roles": [role],
        "file:size": file.bytes,
        "file:checksum": _SHA256 + file.sha256,
    }


def _by_tile(sources: Sequence[FileFacts]) -> dict[str, list[tuple[str, FileFacts]]]:
    """Return the composites, static layers and labels of each tile, each with the name of its asset."""
    found: dict[str, list[tuple[str, FileFacts]]] = {}
    for file in sources:
        name, tile_id = layer_of(file.path)
        found.setdefault(tile_id, []).append((name, file))
    return found


def _stack_of(version: VersionDir, tile: Tile, own: Mapping[str, FileFacts]) -> tuple[str, FileFacts]:
    return "stack", own[relative(version.stack(tile.tile_id), version.root)]


def _shard_boxes(chips: pa.Table) -> dict[str, tuple[float, float, float, float]]:
    """Return the box in degrees of the written chips of each shard."""
    corners = pa.table(
        {"shard": chips["shard"], **{name: pc.struct_field(chips["bbox"], name) for name in _BOX}}
    )
    grouped = corners.filter(pc.is_valid(corners["shard"])).group_by("shard")
    found = grouped.aggregate([(name, "min" if name.endswith("min") else "max") for name in _BOX])
    names = [f"{name}_{name[1:]}" for name in _BOX]
    return {row["shard"]: tuple(row[name] for name in names) for row in found.to_pylist()}


def _role(name: str) -> str:
    return "labels" if name == "labels" else "data"


def _stem(path: str) -> str:
    return PurePosixPath(path).name.partition(".")[0]


def _id(manifest: Manifest) -> str:
    return f"{manifest.region}-{'--'.join(manifest.cell)}"


def _span(manifest: Manifest) -> tuple[str, str]:
    """The cell's interval; STAC's end is inside, ours is not, and the day is the finest that we promise."""
    return f"{manifest.cell[0]}T00:00:00Z", f"{manifest.cell[1]}T00:00:00Z"


def _utc(when: Any) -> str:
    return f"{when:%Y-%m-%dT%H:%M:%SZ}"


def _link(rel: str, href: str, kind: str = "application/json") -> Json:
    return {"rel": rel, "href": href, "type": kind}
