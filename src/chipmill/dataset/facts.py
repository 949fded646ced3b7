"""How dataset.json is put together from the tables, stacks and sidecars of a sealed attempt."""

import itertools
import os
import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Final
from xml.sax.saxutils import unescape

import pyarrow as pa
import pyarrow.compute as pc

from chipmill.core.paths import RegionDir, VersionDir, relative
from chipmill.core.store import is_good, read_sidecar, seal_file, sha256_file
from chipmill.core.units import failures
from chipmill.dataset.axes import band_facts, dtype_rule, feature_facts, saturated_px
from chipmill.dataset.certificate import certify
from chipmill.dataset.classes import IGNORE, resolve_classes
from chipmill.dataset.cutting import record_spec
from chipmill.dataset.description import (
    SCHEMA_VERSION,
    Certificate,
    ClassFacts,
    Counts,
    FailureFacts,
    FileFacts,
    GridFacts,
    Inputs,
    Manifest,
    ShardFacts,
    SlotFacts,
)
from chipmill.dataset.places import SPLITS
from chipmill.dataset.planned import is_train, planned_chips
from chipmill.dataset.selection import ChipsRef
from chipmill.dataset.shards import shard_sums
from chipmill.dataset.splits import blocks_digest, missing_classes
from chipmill.dataset.stack import StackRef
from chipmill.dataset.statistics import BandSums, merge
from chipmill.imagery.items import ItemsRef, RankingRef
from chipmill.region.grid import Lattice
from chipmill.region.identity import stack_config_fingerprint
from chipmill.region.plan import Plan
from chipmill.region.slots import cell_range, slot_names

_SOURCE: Final = re.compile(r"<SourceFilename[^>]*>([^<]*)</SourceFilename>")


def describe(
    plan: Plan, inputs: Inputs, stack: StackRef, chips: ChipsRef | None, table: pa.Table | None, counts: Counts,
    wanted: str,
) -> Manifest:  # fmt: skip
    """Return the manifest of a sealed attempt; ``table`` is that of chips.parquet. Seals stacks that have no sidecar."""
    region, dataset = plan.region, plan.region.dataset
    lost = failures(plan.attempt)
    written = None if table is None else table.filter(pc.equal(table["state"], "written"))
    sums = (
        None if chips is None else _train_sums(plan, chips, {one.unit for one in lost}, len(stack.predictors))
    )
    time = cell_range(region)
    stacks = _seal_stacks(plan.version, stack)
    sources, spec = _sources(stacks), record_spec(region)
    return Manifest(
        schema_version=SCHEMA_VERSION,
        region=region.name,
        cell=(time.start_date, time.end_date),
        layout=dataset.layout,
        chip_size_px=dataset.chips.size_px,
        stride_px=dataset.chips.stride_px,
        block_px=dataset.splits.block_px,
        dtype=spec.dtype,
        dtype_rule=dtype_rule(stack.layers),
        encoding=spec.encoding,
        compression=spec.compression,
        quality=spec.quality,
        ignore=IGNORE,
        bands=band_facts(stack.layers, sums, saturated_px(plan, map(Path, sources))),
        slots=_slots(plan),
        classes=tuple(
            ClassFacts(code=code, name=one.name, color=one.color, values=one.values)
            for code, one in enumerate(resolve_classes(region))
        ),
        features=feature_facts(spec),
        grids=_grids(plan),
        shards=_shards(plan.version, written, spec.compression),
        counts=counts,
        certificate=None if written is None else _certificate(plan, written),
        failures=tuple(FailureFacts(stage=one.stage, unit=one.unit, reason=one.reason) for one in lost),
        inputs=inputs,
        files=files_of(plan.attempt, itertools.chain(_tables(plan.version), map(Path, stacks))),
        sources=files_of(plan.attempt, map(Path, sources)),
        fingerprint=wanted,
    )


def made_from(
    plan: Plan, items: ItemsRef, ranking: RankingRef, stack: StackRef, chips: ChipsRef | None
) -> Inputs:
    """Return what a dataset was made from."""
    return Inputs(
        config=plan.fingerprint,
        stack_config=stack_config_fingerprint(plan.region),
        items=items.count,
        items_fingerprint=items.fingerprint,
        ranking=ranking.fingerprint,
        stack=stack.fingerprint,
        chips=None if chips is None else chips.fingerprint,
    )


def _train_sums(plan: Plan, chips: ChipsRef, lost: Collection[str], bands: int) -> tuple[BandSums, ...]:
    units = [unit for unit in planned_chips(chips).shards if is_train(unit)]
    missing = [unit for unit in units if unit in lost]
    return merge([shard_sums(plan, chips, unit, missing) for unit in units if unit not in lost], bands)


def _slots(plan: Plan) -> tuple[SlotFacts, ...]:
    spans: dict[str, set[tuple[str, str]]] = {name: set() for name in slot_names(plan.region)}
    for tile in plan.tiles():
        if tile.reject:
            continue  # one that was rejected for want of a time has none, and no chip
        for name, slot in zip(spans, plan.slots(tile), strict=True):
            spans[name].add((slot.time.start.isoformat(), slot.time.end.isoformat()))
    return tuple(SlotFacts(name=name, intervals=tuple(sorted(found))) for name, found in spans.items())


def grid_facts(lattice: Lattice, name: str) -> GridFacts:
    """Describe a lattice that chips know by a name."""
    return GridFacts(
        lattice=name,
        epsg=lattice.epsg,
        origin=(lattice.origin_x, lattice.origin_y),
        resolution=(lattice.res_x, lattice.res_y),
    )


def _grids(plan: Plan) -> tuple[GridFacts, ...]:
    lattices = sorted({tile.lattice for tile in plan.tiles()}, key=lambda one: one.lattice_id)
    return tuple(grid_facts(one, one.lattice_id) for one in lattices)


def _shards(version: VersionDir, written: pa.Table | None, compression: str) -> tuple[ShardFacts, ...]:
    """Shards in the order train, val, test, then by number; counts from the rows that say written."""
    if written is None:
        return ()
    counts = {str(one["values"]): int(one["counts"]) for one in pc.value_counts(written["shard"]).to_pylist()}
    found = []
    for stem in sorted(counts, key=lambda one: (SPLITS.index(one.partition("-")[0]), one)):
        file = _file(version.root, version.shard_file(stem, compression))
        found.append(ShardFacts(**file.model_dump(), split=stem.partition("-")[0], count=counts[stem]))
    return tuple(found)


def _certificate(plan: Plan, written: pa.Table) -> Certificate:
    classes = [one.name for one in resolve_classes(plan.region)]
    certificate = certify(written, len(classes), blocks_digest(plan), plan.region.dataset.splits.by)
    missing = missing_classes(certificate.class_px, classes, plan.region.dataset.splits)
    return certificate.model_copy(update={"infeasible": missing})


def _tables(version: VersionDir) -> list[Path]:
    tables = [version.tiles, version.items, version.ranking, version.windows, version.chips]
    return [path for path in tables if path.exists()]


def _seal_stacks(version: VersionDir, stack: StackRef) -> list[str]:
    """Return the stacks, each with its sidecar; the stage that writes them commits them all at once.

    As texts: a region has thousands, and a Path takes several times the memory.
    """
    paths = [os.fspath(version.stack(tile_id)) for tile_id in sorted(stack.tiles)]
    paths += sorted(map(os.fspath, version.root.glob("stack-*.vrt")))
    for path in map(Path, paths):
        if not is_good(path, stack.fingerprint):
            seal_file(path, stack.fingerprint)
    return paths


def _sources(stacks: Iterable[str]) -> list[str]:
    """Files that the stacks name, each once, by path."""
    found: set[str] = set()
    for path in map(Path, stacks):
        names = {unescape(name) for name in _SOURCE.findall(path.read_text())}
        found |= {os.path.normpath(path.parent / name) for name in names}
    return sorted(found)


def files_of(root: Path, paths: Iterable[Path]) -> tuple[FileFacts, ...]:
    """Return what files must be, with their paths relative to ``root``."""
    return tuple(_file(root, path) for path in paths)


def _file(root: Path, path: Path) -> FileFacts:
    sidecar = read_sidecar(path) if is_good(path) else None
    size, digest = (sidecar.bytes, sidecar.sha256) if sidecar else (path.stat().st_size, sha256_file(path))
    return FileFacts(path=relative(path, root), bytes=size, sha256=digest)


def stands(root: Path, file: FileFacts) -> bool:
    """Tell whether a named file is there with the size and hash that it must have, by its sidecar and its size."""
    path = Path(os.path.normpath(root / file.path))
    sidecar = read_sidecar(path)
    return sidecar is not None and sidecar.sha256 == file.sha256 and is_good(path)


def blocks_stand(region: RegionDir, manifest: Manifest) -> bool:
    """Tell whether the region's blocks are those that a dataset was dealt by."""
    if manifest.certificate is None or manifest.certificate.blocks_sha256 is None:
        return True
    sidecar = read_sidecar(region.blocks)
    return (
        sidecar is not None
        and sidecar.sha256 == manifest.certificate.blocks_sha256
        and is_good(region.blocks)
    )
