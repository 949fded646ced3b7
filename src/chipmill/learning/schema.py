"""What a model expects of its input: bands in order, scale, nodata, classes, chip size, resolution, statistics.

It is taken from the manifest of a dataset, stored in model.json, and compared wherever a model meets data. Datasets
that are learnt from together must agree in all of it; their exact sums are added, so the statistics of the union are
exact too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from chipmill.core.errors import SchemaMismatchError
from chipmill.core.paths import VersionDir
from chipmill.dataset.description import Manifest
from chipmill.dataset.manifest import load_manifest
from chipmill.dataset.stack import StackBand
from chipmill.dataset.statistics import BandSums, merge
from chipmill.region.plan import load_tiles
from chipmill.region.tiles import Tile

STAGE_VERSION: Final = 2
_RESOLUTION_TOLERANCE: Final = 0.25
_SAME_RESOLUTION: Final = 1e-3  # less apart is rounding, and is not told
_COMPARED: Final = ("name", "kind", "slot", "dtype", "scale", "nodata")


@dataclass(frozen=True, slots=True)
class ModelClass:
    """One class; its code is its place."""

    name: str
    color: str  # #rrggbb


@dataclass(frozen=True, slots=True)
class InputSchema:
    """What a dataset offers and a model expects."""

    layout: str
    dtype: str  # of a chip; bands may be stored in smaller types
    bands: tuple[StackBand, ...]
    sums: tuple[BandSums, ...]  # exact, train only; one per band
    classes: tuple[ModelClass, ...]
    chip_px: int
    resolution_m: float  # pixel side, of the coarsest tile

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the bands in order."""
        return tuple(band.name for band in self.bands)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes in the order of their codes."""
        return tuple(one.name for one in self.classes)


@lru_cache(maxsize=32)
def dataset_schema(path: Path) -> InputSchema:
    """Return the schema of a dataset version by its directory; a committed version never changes."""
    return manifest_schema(load_manifest(path), load_tiles(VersionDir(path).tiles))


def manifest_schema(manifest: Manifest, tiles: Sequence[Tile]) -> InputSchema:
    """Return the schema of a manifest and its tiles; bands of a dataset without chips have empty sums."""
    bands = manifest.bands
    return InputSchema(
        layout=manifest.layout,
        dtype=manifest.dtype,
        bands=tuple(
            StackBand(one.name, one.kind, one.source, one.slot, one.dtype, one.scale, one.nodata)
            for one in bands
        ),
        sums=tuple(one.statistics.sums if one.statistics is not None else BandSums() for one in bands),
        classes=tuple(ModelClass(one.name, one.color) for one in manifest.classes),
        chip_px=manifest.chip_size_px,
        resolution_m=max(resolution_m(tile) for tile in tiles),
    )


def resolution_m(tile: Tile) -> float:
    """Return the side in metres of a square as large as a pixel of the tile.

    Degrees are measured on WGS 84 in the middle of the tile, where a degree of longitude may be half of one
    of latitude; a projected CRS is taken at its word.
    """
    from pyproj import CRS, Geod

    crs, (left, bottom, right, top) = CRS.from_epsg(tile.lattice.epsg), tile.bounds
    width, height = tile.lattice.res_x, tile.lattice.res_y
    if not crs.is_geographic:
        return math.sqrt(width * height) * float(crs.axis_info[0].unit_conversion_factor)
    geod, x, y = Geod(ellps="WGS84"), (left + right) / 2, (bottom + top) / 2
    across = geod.line_length([x - width / 2, x + width / 2], [y, y])
    down = geod.line_length([x, x], [y - height / 2, y + height / 2])
    return math.sqrt(across * down)


def merged_schema(datasets: Sequence[Path]) -> InputSchema:
    """Return the schema of the union of dataset versions; raises SchemaMismatchError when they do not fit together."""
    return merge_schemas([(str(path), dataset_schema(path)) for path in datasets])


def merge_schemas(named: Sequence[tuple[str, InputSchema]]) -> InputSchema:
    """Return the schema of the union of datasets, given as (name, schema); raises SchemaMismatchError."""
    (first_name, merged), *others = named
    for name, schema in others:
        check_input(merged, schema, first_name, name)
        for what in ("classes", "chip_px"):
            _same(what, getattr(merged, what), getattr(schema, what), first_name, name)
    return replace(merged, sums=merge([schema.sums for _, schema in named], len(merged.bands)))


def check_input(
    expected: InputSchema, got: InputSchema, expected_name: str, got_name: str
) -> tuple[str, ...]:
    """Raise SchemaMismatchError unless pixels of `got` mean to a model what those of `expected` do.

    Compared: layout, dtype, the bands with their order, slot, dtype, scale and nodata, and the resolution within 25 %.
    Returns what is allowed and yet has to be told: a resolution that differs at all, one sentence.
    """
    _same("layout", expected.layout, got.layout, expected_name, got_name)
    _same("dtype", expected.dtype, got.dtype, expected_name, got_name)
    _same("bands", list(expected.names), list(got.names), expected_name, got_name)
    for one, other in zip(expected.bands, got.bands, strict=True):
        for field in _COMPARED:
            what = f"{field} of band {one.name}"
            _same(what, getattr(one, field), getattr(other, field), expected_name, got_name)
    apart = abs(got.resolution_m / expected.resolution_m - 1)
    both = f"{got_name} has pixels of {got.resolution_m:.4g} m and {expected_name} of {expected.resolution_m:.4g} m"
    if apart > _RESOLUTION_TOLERANCE + 1e-9:
        raise SchemaMismatchError(f"{both}, more than 25 % apart: use a region with the same grid.resolution")
    if apart < _SAME_RESOLUTION:
        return ()
    return (f"{both}, {100 * apart:.1f} % apart: things look larger or smaller to the model than it learnt",)


def _same(what: str, expected: object, got: object, expected_name: str, got_name: str) -> None:
    if expected != got:
        raise SchemaMismatchError(
            f"{what} differs: {expected_name} has {expected}, {got_name} has {got}: "
            "use regions with the same imagery, slots and classes"
        )


def schema_to_json(schema: InputSchema) -> dict[str, Any]:
    """Return the schema as plain values for model.json; mean and standard deviation are there to be read."""
    bands = [
        {**asdict(band), "sums": sums.texts(), "mean": sums.mean, "std": sums.std}
        for band, sums in zip(schema.bands, schema.sums, strict=True)
    ]
    return {
        "layout": schema.layout,
        "dtype": schema.dtype,
        "bands": bands,
        "classes": [
            {"code": code, "name": one.name, "color": one.color} for code, one in enumerate(schema.classes)
        ],
        "chip_px": schema.chip_px,
        "resolution_m": schema.resolution_m,
    }


def schema_from_json(facts: Mapping[str, Any]) -> InputSchema:
    """Return what `schema_to_json` stored; the sums come back exact."""
    names = StackBand.__dataclass_fields__
    return InputSchema(
        layout=facts["layout"],
        dtype=facts["dtype"],
        bands=tuple(StackBand(**{name: band[name] for name in names}) for band in facts["bands"]),
        sums=tuple(BandSums.of_texts(band["sums"]) for band in facts["bands"]),
        classes=tuple(ModelClass(one["name"], one["color"]) for one in facts["classes"]),
        chip_px=facts["chip_px"],
        resolution_m=facts["resolution_m"],
    )
