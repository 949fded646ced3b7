"""The stage build_stacks: per tile one VRT over every slot's bands, the static layers and the label.

The file to change for what a stack holds and in which order. It writes XML only. A stack of a lattice tile reaches
one chip beyond its right and lower edges into the neighbours, so a window can be read from the stack of its tile.
"""

import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Literal

import pyarrow as pa

from chipmill.core.errors import BadInputError
from chipmill.core.store import fingerprint, read_sidecar
from chipmill.core.tables import RANKING, read_table
from chipmill.core.units import failures, settle
from chipmill.dataset.classes import IGNORE, resolve_classes
from chipmill.dataset.labels import has_weights, label_path, static_path
from chipmill.dataset.painting import FULL_WEIGHT
from chipmill.dataset.rasters import Header, read_header
from chipmill.dataset.vrt import Band, Source, write_vrt
from chipmill.imagery.indices import indices_of
from chipmill.imagery.items import RankingRef
from chipmill.imagery.orders import Orders
from chipmill.region.config import Region
from chipmill.region.grid import Lattice, Window, hull
from chipmill.region.imagery import Imagery
from chipmill.region.plan import Plan
from chipmill.region.slots import slot_names
from chipmill.region.tiles import Tile
from chipmill.region.windows import neighbours, reach_px

STAGE_VERSION: Final = 1
LABEL: Final = "label"
"""Name of the label band."""
WEIGHT: Final = "weight"
"""Name of the band before it that says how sure the label is, where the region asks for it."""
STAGES: Final = ("rank_items", "composite_tiles", "grid_layers")
"""The stages that a tile must have passed to have a stack."""
COUNTS: Final = ("valid_count", "observed_count")
"""Bands of a composite that tell cloud from nodata; they are not in the stack."""


@dataclasses.dataclass(frozen=True, slots=True)
class StackBand:
    """One band of a stack, for those who read it."""

    name: str
    kind: Literal["band", "index", "static", "weight", "label"]
    source: str
    """Name of the imagery or static layer; "" for the label and its weight."""
    slot: str
    """"" for what has no time."""
    dtype: str
    scale: float
    """Stored value x scale = physical value."""
    nodata: float


@dataclasses.dataclass(frozen=True, slots=True)
class StackRef:
    """The stacks of an attempt, and what their bands are."""

    path: Path
    """Folder of ``<tile>.vrt``."""
    fingerprint: str
    layers: tuple[StackBand, ...]
    """In the order of the files; the label, where there is one, is last."""
    tiles: tuple[str, ...]
    """Ids of the tiles that have a stack, in the order of the plan; the others failed."""

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of all bands in the order of the files."""
        return tuple(layer.name for layer in self.layers)

    @property
    def predictors(self) -> tuple[StackBand, ...]:
        """All bands but the label and its weight: what a model sees."""
        return tuple(layer for layer in self.layers if layer.kind not in ("weight", "label"))


def build_stacks(plan: Plan, ranking: RankingRef) -> StackRef:
    """Close composite_tiles and grid_layers and write the stack of every tile that did not fail.

    Writes ``stack/<tile>.vrt`` and, per CRS of lattice tiles, ``stack-<epsg>.vrt``. Bands: slot by slot (bands in file
    order, then indices), static layers, weight of the label, label. Raises TilesFailedError when a tile failed and the
    region says stop, AssetMismatchError when a composite or layer does not fit into its mosaic.
    """
    settle(plan.attempt, STAGES[1:], plan.region.on_failed, plan.redo)
    lost = {failure.unit for failure in failures(plan.attempt, STAGES)}
    good = tuple(tile for tile in plan.tiles() if tile.tile_id not in lost and not tile.reject)
    sources = TileSources(plan, read_table(ranking.path, RANKING))
    layers = stack_layers(plan.region)
    names = {tile.tile_id for tile in good}
    prints = []
    for tile in good:
        near = [tile, *(one for one in near_tiles(plan, tile) if one.tile_id in names)]
        path, bands = plan.version.stack(tile.tile_id), sources.bands(layers, near)
        write_vrt(path, tile.lattice, reach(plan, tile), bands, plan.region_dir.root)
        prints.append([tile.tile_id, sources.prints(tile)])
    for lattice, tiles in _by_lattice(good):
        path, bands = plan.version.mosaic(lattice.epsg), sources.bands(layers, tiles)
        write_vrt(path, lattice, hull([tile.window for tile in tiles]), bands, plan.region_dir.root)
    return StackRef(
        plan.version.stacks,
        fingerprint("stack", STAGE_VERSION, plan.region.dataset.chips.size_px, layers, prints),
        layers,
        tuple(tile.tile_id for tile in good),
    )


def stack_layers(region: Region) -> tuple[StackBand, ...]:
    """Return the bands of a region's stacks in their order."""
    layers: list[StackBand] = []
    for slot in slot_names(region):
        for imagery in region.imagery:
            out = (imagery.out.dtype, imagery.out.scale, imagery.out.nodata)
            layers += [
                StackBand(f"{slot}_{name}", "band", imagery.name, slot, *out) for name in imagery.bands
            ]
        for name in region.indices:
            imagery = index_imagery(region, name)
            out = (imagery.out.dtype, imagery.out.scale, imagery.out.nodata)
            layers.append(StackBand(f"{slot}_{name}", "index", imagery.name, slot, *out))
    for static in region.static:
        out = (static.stored.dtype, static.stored.scale, static.stored.nodata)
        layers.append(StackBand(static.name, "static", static.name, "", *out))
    if has_weights(region):
        layers.append(StackBand(WEIGHT, "weight", "", "", "uint8", 1 / FULL_WEIGHT, IGNORE))
    if region.labels is not None:
        layers.append(StackBand(LABEL, "label", "", "", "uint8", 1.0, IGNORE))
    return tuple(layers)


def index_imagery(region: Region, name: str) -> Imagery:
    """Return the imagery whose composites hold an index: the first that has all its bands."""
    for imagery in region.imagery:
        if indices_of((name,), imagery.bands):
            return imagery
    raise BadInputError(f"the index {name} needs bands that no imagery of region {region.name} has: add them")


def reach(plan: Plan, tile: Tile) -> Window:
    """Return what a tile's stack shows: the tile, and to the right and below what windows of it may reach."""
    more = reach_px(tile, plan.region.dataset.chips)
    place = tile.window
    return Window(place.col_off, place.row_off, place.width + more, place.height + more)


def near_tiles(plan: Plan, tile: Tile) -> tuple[Tile, ...]:
    """Return the neighbours that a tile's stack reaches into."""
    return neighbours(tile, plan.index(), plan.region.dataset.chips.size_px)


def _by_lattice(tiles: Sequence[Tile]) -> list[tuple[Lattice, list[Tile]]]:
    groups: dict[Lattice, list[Tile]] = {}
    for tile in tiles:
        if tile.lattice_tile:
            groups.setdefault(tile.lattice, []).append(tile)
    return list(groups.items())


class TileSources:
    """The files behind the bands of stacks, their headers opened once."""

    def __init__(self, plan: Plan, ranking: pa.Table) -> None:
        """``ranking`` is the table of ranking.parquet, which the names of composites depend on."""
        self._plan = plan
        self.ranking = ranking
        self._orders = Orders(plan, ranking)
        self._slots = slot_names(plan.region)
        self._imagery = {imagery.name: imagery for imagery in plan.region.imagery}
        self._static = {layer.name: layer for layer in plan.region.static}
        self._headers: dict[str, Header] = {}
        self._composites: dict[tuple[str, str, str], str] = {}

    def composite(self, tile: Tile, imagery: str, slot: str) -> Path:
        """Return where a composite lies; slots go by their place, which all tiles share."""
        key = (tile.tile_id, imagery, slot)
        if key not in self._composites:
            own = self._plan.slots(tile)[self._slots.index(slot)]
            self._composites[key] = os.fspath(self._orders.path(tile, self._imagery[imagery], own))
        return Path(self._composites[key])

    def path(self, tile: Tile, layer: StackBand) -> Path:
        """Return the file behind a band of the stack."""
        if layer.kind in ("weight", "label"):
            return label_path(self._plan, tile)
        if layer.kind == "static":
            return static_path(self._plan, self._static[layer.source], tile)
        return self.composite(tile, layer.source, layer.slot)

    def source(self, tile: Tile, layer: StackBand) -> Source:
        """Return the file and the number of the band behind a band of the stack."""
        header = self._header(self.path(tile, layer))
        return Source(
            header, header.band(layer.name.removeprefix(f"{layer.slot}_") if layer.slot else layer.name)
        )

    def bands(self, layers: Sequence[StackBand], tiles: Sequence[Tile]) -> Iterator[Band]:
        """Yield the bands of a mosaic of tiles."""
        colors = tuple(info.color for info in resolve_classes(self._plan.region))
        for layer in layers:
            sources = tuple(self.source(tile, layer) for tile in tiles)
            own = colors if layer.kind == "label" else ()
            yield Band(layer.name, layer.dtype, layer.nodata, sources, own)

    def count_band(self, tiles: Sequence[Tile], slot: str, imagery: str, name: str) -> Band:
        """Return one of the count bands of a slot's composites as a band of a mosaic of tiles."""
        headers = [self._header(self.composite(tile, imagery, slot)) for tile in tiles]
        sources = tuple(Source(header, header.band(name)) for header in headers)
        first = headers[0]
        # a TIFF has one nodata value for all its bands: that of the data, which no count takes
        nodata = first.nodata[sources[0].band - 1]
        return Band(f"{slot}_{imagery}_{name}", first.dtypes[sources[0].band - 1], nodata or 0, sources)

    def prints(self, tile: Tile) -> list[str]:
        """Return the fingerprints of all files behind a tile's stack; "" for one that is not committed."""
        paths = {self.path(tile, layer) for layer in stack_layers(self._plan.region)}
        sidecars = [read_sidecar(path) for path in sorted(paths)]
        return [sidecar.fingerprint if sidecar else "" for sidecar in sidecars]

    def _header(self, path: Path) -> Header:
        file = os.fspath(path)
        if file not in self._headers:
            self._headers[file] = read_header(path)
        return self._headers[file]
