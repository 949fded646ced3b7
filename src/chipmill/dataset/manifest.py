"""The last stage: counts, certificate, statistics and dataset.json; then the commit, and whether there is anything to do.

``seal_dataset`` writes everything but the pointer, the report is drawn from what it wrote, ``publish_dataset`` swaps
CURRENT. What dataset.json says is in :mod:`chipmill.dataset.description`, how it is put together in
:mod:`chipmill.dataset.facts`.
"""

import collections
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Final

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import ConfigDict

from chipmill.core.errors import CountError, DamagedFileError, VersionNotFoundError
from chipmill.core.geo import geo_schema
from chipmill.core.paths import VersionDir
from chipmill.core.store import canonical_json, commit_file, fingerprint, is_good, read_json, read_sidecar
from chipmill.core.tables import CHIPS, TILES, read_table, write_table
from chipmill.core.units import UnitFailure, failures, settle, unit_table
from chipmill.core.versions import Versions, prune, publish
from chipmill.dataset import facts, labels, selection, shards, splits, stack, windows
from chipmill.dataset.description import Counts, Manifest, parse_manifest
from chipmill.dataset.index import place_chips
from chipmill.dataset.places import SPLITS
from chipmill.dataset.selection import PLANNED, ChipsRef
from chipmill.dataset.stac import write_catalog
from chipmill.dataset.stack import StackRef
from chipmill.imagery import catalog, composite, planning, ranking
from chipmill.imagery.items import Answer, ItemsRef, RankingRef
from chipmill.region.config import Region
from chipmill.region.identity import config_fingerprint
from chipmill.region.plan import Plan, cell_dir, region_dir
from chipmill.region.tiles import Tile

STAGE_VERSION: Final = 1
WRITTEN, FILTERED, FAILED = "written", "filtered", "failed"

_STAGES: Final = (planning, catalog, ranking, composite, labels, stack, windows, splits, selection, shards)


@dataclasses.dataclass(frozen=True, slots=True)
class DatasetRef:
    """A sealed or committed dataset."""

    # a parameter of flows: the form of the UI shows these texts
    __pydantic_config__: ClassVar = ConfigDict(use_attribute_docstrings=True)

    path: Path
    """Directory of the version; of the attempt before it is committed."""
    version: int
    """Number of the version."""
    fingerprint: str
    """Of what it was made of."""
    chips: int
    """Chips in its shards."""
    shards: int
    """Files that hold them."""
    failed: int
    """Units of work that failed."""


def wanted_fingerprint(config: str, tiles: Sequence[Tile], items: str) -> str:
    """Return what identifies a dataset before it is made: configuration, tiles, items, versions of the stages."""
    places = [
        [
            tile.tile_id,
            tile.lattice.lattice_id,
            tile.window,
            tile.anchor,
            tile.split,
            tile.reject,
            tile.label_content,
        ]
        for tile in tiles
    ]
    versions = [STAGE_VERSION, *(module.STAGE_VERSION for module in _STAGES)]
    return fingerprint("dataset", versions, config, places, items)


def seal_dataset(
    plan: Plan, items: ItemsRef, ranking: RankingRef, stack: StackRef, chips: ChipsRef | None
) -> DatasetRef:
    """Write chips.parquet and dataset.json into the attempt; ``chips`` is None for a region without labels.

    Raises TilesFailedError when a shard failed and the region says stop, CountError when
    planned = written + filtered + failed does not hold over windows, when a train chip shares a pixel with a val or
    test chip, or when no train chip was written.
    """
    table = None
    if chips is not None:
        lost = settle(plan.attempt, [shards.STAGE], plan.region.on_failed, plan.redo)
        table = _close_chips(plan, chips, lost)
    counts = count_chips(table, int(read_json(plan.version.plan)["windows"]))
    _close_tiles(plan)
    wanted = wanted_fingerprint(plan.fingerprint, plan.tiles(), items.fingerprint)
    inputs = facts.made_from(plan, items, ranking, stack, chips)
    version = plan.version
    manifest = facts.describe(plan, inputs, stack, chips, table, counts, wanted)
    pages = facts.files_of(plan.attempt, write_catalog(version, manifest, plan.tiles(), table, wanted))
    manifest = manifest.model_copy(update={"files": (*manifest.files, *pages)})
    prune(
        plan.attempt,
        [plan.attempt / one.path for one in (*manifest.files, *manifest.shards)] + [version.region_yaml],
    )
    with commit_file(version.manifest, wanted, records=counts.written) as temp:
        temp.write_text(canonical_json(manifest.sealed(), indent=1) + "\n")
    return _ref(plan.attempt, manifest)


def _close_chips(plan: Plan, chips: ChipsRef, lost: Sequence[UnitFailure]) -> pa.Table:
    """Write chips.parquet: the plan's rows with what became of them."""
    planned = read_table(chips.path, CHIPS)
    results = unit_table(plan.attempt, shards.STAGE)
    failed = sorted({one.unit for one in lost})
    places = pc.index_in(
        planned["chip_id"],
        value_set=results["chip_id"].combine_chunks() if results.num_columns else pa.array([], pa.string()),
    )
    due = pc.equal(planned["state"], PLANNED)
    gone = pc.and_(due, pc.is_in(planned["shard"], value_set=pa.array(failed, pa.string())))
    written = pc.and_(pc.and_not(due, gone), pc.is_valid(places))
    if (missing := planned.filter(pc.and_not(pc.and_not(due, gone), written))).num_rows:
        chip_id, shard = (missing[name][0].as_py() for name in ("chip_id", "shard"))
        raise CountError(
            f"chip {chip_id} was planned for {shard} and is not in it: run the same command again"
        )
    became = {
        "state": pc.if_else(gone, FAILED, pc.if_else(written, WRITTEN, planned["state"])),
        "reason": pc.if_else(gone, shards.STAGE, pc.if_else(written, "", planned["reason"])),
        "shard": pc.if_else(written, planned["shard"], None),
    }
    if results.num_columns:
        places = pc.if_else(written, places, None)
        became |= {name: results[name].take(places) for name in ("offset", "length", "crc")}
    for name, values in became.items():
        planned = planned.set_column(planned.column_names.index(name), name, values)
    placed, schema = place_chips(planned, {tile.lattice.lattice_id: tile.lattice for tile in plan.tiles()})
    digest = fingerprint(STAGE_VERSION, chips.fingerprint, failed)
    write_table(plan.version.chips, placed, schema, digest)
    return placed


def count_chips(table: pa.Table | None, planned: int) -> Counts:
    """Return the counts over the rows of chips.parquet.

    Raises CountError when they do not add up to the windows ``planned`` from geometry, or no train chip was written.
    """
    if table is None:
        return Counts(planned=0, written=0, filtered={}, failed={}, splits=dict.fromkeys(SPLITS, 0))
    counts = count_states(table)
    filtered, failed = sum(counts.filtered.values()), sum(counts.failed.values())
    total = counts.written + filtered + failed
    if total != planned:
        raise CountError(
            f"{planned} windows were planned, but {counts.written} written + {filtered} filtered + {failed} failed are "
            f"{total}: nothing is committed; run again with --new"
        )
    if not counts.splits[SPLITS[0]]:
        reasons = {FILTERED: counts.filtered, FAILED: counts.failed}
        raise CountError(f"no train chip was written of {planned} windows ({reasons}): nothing is committed")
    return counts


def count_states(table: pa.Table) -> Counts:
    """Return the counts over the rows of chips.parquet, whatever they are; ``planned`` is the number of rows."""
    groups = table.group_by(["state", "reason", "split"]).aggregate([([], "count_all")]).to_pylist()
    counted: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for one in groups:
        counted[one["state"]][one["split" if one["state"] == WRITTEN else "reason"]] += one["count_all"]
    of_split = counted[WRITTEN]
    return Counts(
        planned=table.num_rows,
        written=of_split.total(),
        filtered=dict(sorted(counted[FILTERED].items())),
        failed=dict(sorted(counted[FAILED].items())),
        splits={name: of_split[name] for name in SPLITS},
    )


def _close_tiles(plan: Plan) -> None:
    """Write into tiles.parquet what became of each tile."""
    sidecar = read_sidecar(plan.version.tiles)
    table = read_table(plan.version.tiles, TILES)
    lost = {one.unit: f"{one.stage}: {one.reason}" for one in reversed(failures(plan.attempt))}
    rejected = dict(zip(table["tile_id"].to_pylist(), table["reject"].to_pylist(), strict=True))
    states = [FAILED if one in lost else "rejected" if rejected[one] else "done" for one in rejected]
    reasons = [lost.get(one, "") for one in rejected]
    for name, values in (("state", states), ("reason", reasons)):
        table = table.set_column(table.column_names.index(name), name, pa.array(values, pa.string()))
    schema = geo_schema(TILES, table, "geometry", "cover")
    write_table(plan.version.tiles, table, schema, sidecar.fingerprint if sidecar else "")


def publish_dataset(plan: Plan) -> DatasetRef:
    """Make the sealed attempt the version in force; safe to repeat after a kill."""
    versions = cell_dir(plan.region).versions
    number = publish(versions, plan.attempt)
    return _ref(versions.path(number), load_manifest(versions.path(number)))


def load_manifest(path: Path) -> Manifest:
    """Return the manifest of a dataset: ``path`` is dataset.json or the directory that holds it.

    Raises VersionNotFoundError where there is none, DamagedFileError where it is not readable as one.
    """
    file = VersionDir(path).manifest if path.is_dir() else path
    if not file.is_file():
        raise VersionNotFoundError(
            f"{path} holds no dataset.json: give a version of a cell, or run the region first"
        )
    return parse_manifest(file.read_bytes(), str(file))


def dataset_ref(path: Path) -> DatasetRef:
    """Return the reference of a committed version by its directory."""
    return _ref(path, load_manifest(path))


def _ref(path: Path, manifest: Manifest) -> DatasetRef:
    number = int(path.name.lstrip("."))
    return DatasetRef(
        path,
        number,
        manifest.fingerprint,
        manifest.counts.written,
        len(manifest.shards),
        len(manifest.failures),
    )


def current_dataset(region: Region, answer: Answer, tiles: Sequence[Tile] | None = None) -> DatasetRef | None:
    """Return the version in force when a run could not change anything, else None.

    It must have the wanted fingerprint, no failed unit, every file that it names must be good, and the region's blocks
    must be those that it was dealt by. ``tiles`` saves making them again.
    """
    versions: Versions = cell_dir(region).versions
    number = versions.current()
    if number is None:
        return None
    try:
        manifest = load_manifest(versions.path(number))
    except (DamagedFileError, VersionNotFoundError):
        return None  # a run makes the version anew
    places = planning.make_tiles(region) if tiles is None else tiles
    wanted = wanted_fingerprint(config_fingerprint(region), places, answer.fingerprint)
    root = versions.path(number)
    good = (
        manifest.fingerprint == wanted
        and not manifest.failures
        and is_good(VersionDir(root).manifest, wanted)
        and facts.blocks_stand(region_dir(region), manifest)
        and all(facts.stands(root, one) for one in manifest.named())
    )
    return _ref(root, manifest) if good else None
