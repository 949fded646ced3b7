"""Several datasets as one: what must match, exact statistics of all together, and no ground on both sides of a split.

The file to change for what datasets that are used together, or a model and the data that it meets, must agree in.
Statistics merge from exact sums, so those of the union are exact too.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import combinations
from pathlib import Path
from typing import Final

import pyarrow.compute as pc

from chipmill.core.errors import SchemaMismatchError, SplitMismatchError
from chipmill.core.paths import VersionDir
from chipmill.dataset.description import BandFacts, Manifest, Statistics
from chipmill.dataset.leaks import Ground, check_leaks
from chipmill.dataset.manifest import load_manifest
from chipmill.dataset.opening import Part, read_ground
from chipmill.dataset.stack import StackBand
from chipmill.dataset.statistics import BandSums, merge
from chipmill.region.grid import Lattice
from chipmill.region.plan import load_tiles
from chipmill.region.tiles import Tile

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
    resolution_m: float  # pixel side, of the coarsest tile; 0 for imported chips without a place

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
    """Return the schema of a dataset version by its directory; a committed version never changes.

    Bands of a dataset without chips have empty sums.
    """
    manifest = load_manifest(path)
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
        resolution_m=_coarsest_m(VersionDir(path), manifest),
    )


def _coarsest_m(version: VersionDir, manifest: Manifest) -> float:
    """The side of the largest pixel: of the tiles, or of the chips where they were imported; 0 without any place."""
    if version.tiles.is_file():
        return max(resolution_m(tile) for tile in load_tiles(version.tiles))
    ground = Ground.of(str(version.root), manifest, read_ground(version.root))
    sides = [pixel_m(lattice, ground.bounds(name)) for name, lattice in ground.lattices.items()]
    return max(sides, default=0.0)


def resolution_m(tile: Tile) -> float:
    """Return the side in metres of a square as large as a pixel of the tile."""
    return pixel_m(tile.lattice, tile.bounds)


def pixel_m(lattice: Lattice, bounds: tuple[float, float, float, float]) -> float:
    """Return the side in metres of a square as large as a pixel of a lattice within (left, bottom, right, top).

    Degrees are measured on WGS 84 in the middle of the bounds, where a degree of longitude may be half of one
    of latitude; a projected CRS is taken at its word.
    """
    from pyproj import CRS, Geod

    crs, (left, bottom, right, top) = CRS.from_epsg(lattice.epsg), bounds
    width, height = lattice.res_x, lattice.res_y
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


def united_bands(manifests: Sequence[Manifest]) -> tuple[BandFacts, ...]:
    """Return the bands of datasets that fit together, each with the statistics of all of them, exact."""
    bands = manifests[0].bands
    if len(manifests) == 1:
        return bands
    sums = merge(
        [[one.statistics.sums if one.statistics else BandSums() for one in own.bands] for own in manifests],
        len(bands),
    )
    return tuple(
        band.model_copy(update={"statistics": Statistics.of_sums(own) if own.n else None})
        for band, own in zip(bands, sums, strict=True)
    )


@lru_cache(maxsize=8)
def check_parts(parts: tuple[Part, ...]) -> None:
    """Refuse datasets that cannot be read as one.

    Raises SchemaMismatchError where bands, scales, classes, layout or chip size differ or the resolution is more than
    25 % off, SplitMismatchError where a chip is in two of them or one trains on ground that another one holds back.
    """
    merged_schema([part.root for part in parts])
    first = parts[0]
    for part in parts[1:]:
        for band, own in zip(first.manifest.bands, part.manifest.bands, strict=True):
            what = f"offset of band {band.name}"
            _same(what, band.offset, own.offset, str(first.root), str(part.root))
    for one, other in combinations(parts, 2):
        shared = one.chip_ids.filter(pc.is_in(one.chip_ids, other.chip_ids))
        if len(shared):
            raise SplitMismatchError(
                f"chip {shared[0]} and {len(shared) - 1} others are in {one.root} and in {other.root}: a place and day "
                "may be in one dataset only, so leave one out or part the areas"
            )
    check_leaks([Ground.of(str(part.root), part.manifest, read_ground(part.root)) for part in parts])


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
    if not expected.resolution_m or not got.resolution_m:
        return ()  # chips of another program that have no place
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
