"""The only owner of file names: where everything lies below an output directory (the public contract).

Names carry no meaning that is not also in a table; code asks here for a path and never builds one.
"""

import dataclasses
import os
from pathlib import Path, PurePosixPath
from typing import Final

from chipmill.core.versions import Versions

_LAYERS: Final = ("composites", "static", "labels")


def span_name(start: str, end: str) -> str:
    """Return the folder name of a half-open interval of two ISO dates, ``2019-01-01--2020-01-01``."""
    return f"{start}--{end}"


@dataclasses.dataclass(frozen=True, slots=True)
class VersionDir:
    """One version of a cell, or an attempt, which has the same depth and files plus units/, started/, staging/."""

    root: Path

    @property
    def plan(self) -> Path:
        """The frozen plan of an attempt."""
        return self.root / "units" / "plan.json"

    @property
    def region_yaml(self) -> Path:
        """The region as resolved; outside every hash."""
        return self.root / "region.yaml"

    @property
    def tiles(self) -> Path:
        """tile_id, CRS, transform, shape, state, reason."""
        return self.root / "tiles.parquet"

    @property
    def items(self) -> Path:
        """The frozen answer of the search, stac-geoparquet."""
        return self.root / "items.parquet"

    @property
    def ranking(self) -> Path:
        """Tile x slot x acquisition."""
        return self.root / "ranking.parquet"

    @property
    def stacks(self) -> Path:
        """The folder of the per-tile stacks."""
        return self.root / "stack"

    def stack(self, tile_id: str) -> Path:
        """The multi-band VRT of one tile."""
        return self.stacks / f"{tile_id}.vrt"

    def mosaic(self, epsg: int) -> Path:
        """The stack of all lattice tiles of one CRS."""
        return self.root / f"stack-{epsg}.vrt"

    @property
    def windows(self) -> Path:
        """Every candidate window with its class histogram."""
        return self.root / "windows.parquet"

    @property
    def chips(self) -> Path:
        """Every window again: split, kept or why not, and where its record lies."""
        return self.root / "chips.parquet"

    @property
    def shards(self) -> Path:
        """The folder of the TFRecord shards."""
        return self.root / "shards"

    def shard(self, split: str, number: int, count: int) -> Path:
        """One shard, ``<split>-00000-of-00008.tfrecord``."""
        return self.shards / f"{split}-{number:05d}-of-{count:05d}.tfrecord"

    def shard_file(self, stem: str, compression: str = "none") -> Path:
        """The file of the shard that chips.parquet calls ``stem``."""
        return self.shards / f"{stem}.tfrecord{'.gz' if compression == 'gzip' else ''}"

    @property
    def manifest(self) -> Path:
        """THE list that is the dataset."""
        return self.root / "dataset.json"

    @property
    def catalog(self) -> Path:
        """STAC of what was made."""
        return self.root / "catalog"

    def catalog_item(self, item_id: str) -> Path:
        """The STAC item of a tile or a shard."""
        return self.catalog / "items" / f"{item_id}.json"

    @property
    def report(self) -> Path:
        """The page for people."""
        return self.root / "report.html"

    @property
    def staging(self) -> Path:
        """Working files of an attempt."""
        return self.root / "staging"

    def units_json(self, stage: str) -> Path:
        """Units and batches of a stage, frozen."""
        return self.root / "units" / f"{stage}.json"

    def unit(self, stage: str, unit: str) -> Path:
        """The result of a finished unit."""
        return self.root / "units" / stage / f"{unit}.parquet"

    def failure(self, stage: str, unit: str) -> Path:
        """Why a unit failed."""
        return self.root / "units" / stage / f"{unit}.failed.json"

    def started(self, run: str, unit: str) -> Path:
        """One byte for each time that a worker of this run began the unit and did not end it."""
        return self.root / "started" / run / unit


@dataclasses.dataclass(frozen=True, slots=True)
class CellDir:
    """Region x time range: one lock, one row of versions."""

    root: Path

    @property
    def versions(self) -> Versions:
        """The cell's attempts, versions and pointer."""
        return Versions(self.root / "versions", self.root / "CURRENT")

    @property
    def lock(self) -> Path:
        """Held by the one run that may write."""
        return self.root / ".lock"

    @property
    def runs(self) -> Path:
        """Host, times and versions of each run; outside every hash."""
        return self.root / "runs"


@dataclasses.dataclass(frozen=True, slots=True)
class RegionDir:
    """All that belongs to one region; relative paths of stacks never climb above it."""

    root: Path

    @property
    def blocks(self) -> Path:
        """Split block -> split; sticky."""
        return self.root / "blocks.parquet"

    @property
    def all_blocks_lock(self) -> Path:
        """Held while blocks are dealt that regions of one output share."""
        return self.root.parent / ".blocks.lock"

    def sibling(self, name: str) -> "RegionDir":
        """The directory of another region of the same output."""
        return RegionDir(self.root.parent / name)

    def old_blocks(self, sha256: str) -> Path:
        """Blocks that were dealt anew since, by their content."""
        return self.root / f"blocks-{sha256[:8]}.parquet"

    @property
    def blocks_lock(self) -> Path:
        """Held while blocks are dealt."""
        return self.root / ".blocks.lock"

    def composite(self, imagery: str, slot_start: str, slot_end: str, tile_id: str, fp: str) -> Path:
        """One composite; ``slot_start`` and ``slot_end`` are ISO dates, the first 8 digits of ``fp`` name the content."""
        return (
            self.root / "composites" / imagery / span_name(slot_start, slot_end) / f"{tile_id}-{fp[:8]}.tif"
        )

    def static(self, name: str, tile_id: str, fp: str) -> Path:
        """A static layer on a tile's grid."""
        return self.root / "static" / name / f"{tile_id}-{fp[:8]}.tif"

    def label(self, tile_id: str, fp: str) -> Path:
        """The label on a tile's grid."""
        return self.root / "labels" / f"{tile_id}-{fp[:8]}.tif"

    def cell(self, start: str, end: str) -> CellDir:
        """The cell of a half-open interval of two ISO dates."""
        return CellDir(self.root / span_name(start, end))


@dataclasses.dataclass(frozen=True, slots=True)
class OutputDir:
    """The directory that the field ``output`` names."""

    root: Path

    def region(self, name: str) -> RegionDir:
        """The directory of a region."""
        return RegionDir(self.root / "regions" / name)

    def models(self, name: str) -> Versions:
        """The versions of a model."""
        folder = self.root / "models" / name
        return Versions(folder, folder / "CURRENT")

    def maps(self, model: str, number: int, region: str, start: str, end: str) -> Versions:
        """The versions of the map of a cell by one version of a model."""
        folder = self.root / "maps" / f"{model}@{number}" / region / span_name(start, end)
        return Versions(folder, folder / "CURRENT")


def layer_of(path: str) -> tuple[str, str]:
    """Return what a composite, static layer or label is and of which tile, by its path as a manifest names it.

    ("s2-2019-01-01--2019-04-01", tile_id) for a composite, (name, tile_id) for a static layer, ("labels", tile_id).
    """
    parts = PurePosixPath(path).parts
    at = next(index for index, part in enumerate(parts) if part in _LAYERS)
    name = "-".join(parts[at + 1 : -1]) or parts[at]
    return name, PurePosixPath(path).stem.rpartition("-")[0]


def relative(path: Path, start: Path) -> str:
    """Return ``path`` relative to the folder ``start`` with forward slashes; it may climb."""
    # pathlib's walk_up takes a millisecond a path, and stacks name hundreds of files
    return Path(os.path.relpath(path, start)).as_posix()
