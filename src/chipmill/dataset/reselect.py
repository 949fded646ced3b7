"""`chipmill select`: other chips, splits or shards of a finished dataset as a new version, without touching imagery.

The file to change for what a re-selection takes over. It works on the version in force: its items, ranking and stacks
are linked, and its windows where they lie as before; from there on every stage is the one that a build runs, so the
bytes are those of a build with these rules from the start. Shards that come out the same are linked, too. It runs in
the process of its caller with threads: no server, no cluster, no search, no composite.
"""

import dataclasses
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import pyarrow as pa

from chipmill.core.errors import BadInputError, DamagedFileError
from chipmill.core.paths import VersionDir
from chipmill.core.store import is_good, link_file, lock, read_sidecar, sidecar_path
from chipmill.core.tables import RANKING, WINDOWS, read_table, write_table
from chipmill.core.units import Batch, BatchResult, load_batches, record_failure, settle
from chipmill.core.versions import open_attempt
from chipmill.dataset import facts, manifest, selection, shards, splits, stack, windows
from chipmill.dataset.cutting import check_storage
from chipmill.dataset.description import Manifest
from chipmill.dataset.manifest import DatasetRef
from chipmill.dataset.outlook import check_splits
from chipmill.dataset.places import Places
from chipmill.dataset.preflight import check_output
from chipmill.dataset.stack import StackRef
from chipmill.dataset.windows import WindowsRef
from chipmill.imagery import planning
from chipmill.imagery.items import ItemsRef, RankingRef
from chipmill.region.config import Region
from chipmill.region.identity import config_fingerprint, stack_config_fingerprint
from chipmill.region.load import load_region
from chipmill.region.plan import Plan, cell_dir, load_tiles, region_dir
from chipmill.region.tiles import Tile
from chipmill.region.windows import block_name

THREADS: Final = 2

type Tell = Callable[[str, int, int], None]
"""Hears (stage, units done, units in all) while a stage goes on."""


@dataclasses.dataclass(frozen=True, slots=True)
class Selected:
    """How a re-selection ended."""

    dataset: DatasetRef
    """The version in force."""
    changed: bool
    """False where the version in force has these rules already."""
    linked: int
    """Shards that are those of the version before, by hard link."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Base:
    """The version in force, which a re-selection starts from."""

    path: Path
    manifest: Manifest
    region: Region
    """The region as asked for, with the classes that label items brought when the version was made."""
    tiles: tuple[Tile, ...]

    @property
    def files(self) -> VersionDir:
        """File names of the version."""
        return VersionDir(self.path)


def select_dataset(
    region: Region,
    *,
    redeal: bool = False,
    threads: int = THREADS,
    draw: Callable[[Path], object] | None = None,
    tell: Tell | None = None,
) -> Selected:
    """Make the rules ``dataset`` of a region those of its cell, from the version in force; safe to repeat after a kill.

    Args:
        region: as its file has it; nothing but ``dataset`` may differ from what the version was made of.
        redeal: deal all split blocks of the region anew by these rules, instead of keeping those that were dealt.
        threads: units worked on at the same time; each holds one shard in memory.
        draw: called with the directory of the sealed attempt, to write its report.
        tell: hears how far a stage is.

    Raises:
        VersionNotFoundError: the cell has no version in force.
        BadInputError: something else than ``dataset`` differs, or the region has no labels.
        SplitError: blocks were dealt by other rules and ``redeal`` is not set; or as the stages raise it.
        DamagedFileError: a file of the version in force is missing or bad.
        LockedError: another run works on the cell.
        TilesFailedError: a unit failed and the region says stop.
    """
    cell = cell_dir(region)
    with lock(cell.lock, f"of {region.command('select')}"):
        base = _base(region)
        if not redeal and _has_rules(region, base):
            return Selected(manifest.dataset_ref(base.path), changed=False, linked=len(base.manifest.shards))
        check_output(base.region, base.tiles)
        check_storage(base.region)
        if not redeal:
            check_splits(base.region, base.tiles)
        plan = _open(region, base)
        sealed = _run(plan, base, redeal=redeal, threads=threads, tell=tell or _silent)
        if draw is not None:
            draw(sealed.path)
        dataset = manifest.publish_dataset(plan)
        return Selected(dataset, changed=True, linked=_linked(base.manifest, dataset.path))


def _silent(_stage: str, _done: int, _total: int) -> None:
    pass


def _base(region: Region) -> _Base:
    """Return the version in force; raises as :func:`select_dataset` where it is not one of this region."""
    if region.labels is None:
        raise BadInputError(f"{region.name} has no labels, so there are no chips to select: give it labels")
    path = cell_dir(region).versions.current_path()
    files, made = VersionDir(path), manifest.load_manifest(path)
    again = region.command("build")
    for one in (*made.files, *made.sources):
        if not facts.stands(path, one):
            raise DamagedFileError(f"{path}: {one.path} is missing or bad: mend it first with: {again}")
    resolved, asked = _placed(region, files)
    if stack_config_fingerprint(resolved) != made.inputs.stack_config:
        raise BadInputError(
            f"{region.file or region.name}: more than dataset differs from what {path} was made of, in the region file "
            f"or in a file that it names: select changes dataset alone, run instead: {again}"
        )
    own, tiles = (made.inputs.config, made.inputs.items_fingerprint), load_tiles(files.tiles)
    if manifest.wanted_fingerprint(own[0], tiles, own[1]) != made.fingerprint:
        raise BadInputError(f"{path} was made by another version of chipmill: run instead: {again}")
    if manifest.wanted_fingerprint(own[0], asked, own[1]) != made.fingerprint:
        raise BadInputError(
            f"{region.name}: these rules need other tiles than {path} has: run instead: {again}"
        )
    return _Base(path, made, resolved, tiles)


def _placed(region: Region, files: VersionDir) -> planning.Placed:
    """Return the region with all that its tiles bring, and its tiles, without asking a source of label items again."""
    made = load_region(files.region_yaml).labels
    if region.tiles.from_ != "label-items" or region.labels is None or made is None:
        return planning.place_tiles(region)
    if not region.labels.classes:
        labels = region.labels.model_copy(update={"classes": made.classes})
        region = region.model_copy(update={"labels": labels})
    return region, load_tiles(files.tiles)


def _has_rules(region: Region, base: _Base) -> bool:
    """Tell whether a re-selection could not change anything."""
    made = base.manifest
    return (
        made.inputs.config == config_fingerprint(region)
        and not made.failures
        and is_good(base.files.manifest, made.fingerprint)
        and facts.blocks_stand(region_dir(region), made)
        and all(facts.stands(base.path, one) for one in made.shards)
    )


def _open(region: Region, base: _Base) -> Plan:
    """Return the plan of an attempt that has the tiles, items and ranking of the version in force, and its failures."""
    attempt = open_attempt(cell_dir(region).versions, config_fingerprint(region))
    frozen = read_sidecar(VersionDir(attempt).items)
    other = frozen is not None and frozen.fingerprint != base.manifest.inputs.items_fingerprint
    plan = planning.tile_aoi(region, fresh=other, placed=(base.region, base.tiles))
    _take(plan, base, [base.files.items, base.files.ranking])
    lost = [one for one in base.manifest.failures if one.stage != shards.STAGE]
    for one in lost:
        record_failure(plan.attempt, one.stage, one.unit, one.reason)
    settle(plan.attempt, sorted({one.stage for one in lost}), region.on_failed, plan.redo)
    return plan


def _take(plan: Plan, base: _Base, paths: Iterable[Path]) -> None:
    """Link files of the version in force into the attempt, in place of other ones."""
    for path in paths:
        target = plan.attempt / path.relative_to(base.path)
        own, wanted = read_sidecar(target), read_sidecar(path)
        if own is None or own != wanted or not is_good(target):
            sidecar_path(target).unlink(missing_ok=True)
            target.unlink(missing_ok=True)
            link_file(path, target)


def _run(plan: Plan, base: _Base, *, redeal: bool, threads: int, tell: Tell) -> DatasetRef:
    """Run the stages from the stacks on, and seal."""
    inputs, files = base.manifest.inputs, plan.version
    items = ItemsRef(files.items, inputs.items_fingerprint, inputs.items)
    table = read_table(files.ranking, RANKING)
    ranking = RankingRef(files.ranking, inputs.ranking, table.num_rows, sum(table["chosen"].to_pylist()))
    stacks, found = _windows(plan, base, ranking, threads, tell)
    chips = selection.select_chips(plan, splits.assign_splits(plan, found, redeal=redeal))
    _work(plan, shards.STAGE, lambda batch: shards.write_shards(plan, chips, batch), threads, tell)
    return manifest.seal_dataset(plan, items, ranking, stacks, chips)


def _windows(
    plan: Plan, base: _Base, ranking: RankingRef, threads: int, tell: Tell
) -> tuple[StackRef, WindowsRef]:
    """Return stacks and windows: those of the version in force where the windows lie as they did, else made anew."""
    stacks = _old_stacks(plan, base)
    lost = windows.lost_tiles(plan)
    wanted = windows.windows_fingerprint(plan, stacks.fingerprint, lost)
    old = read_sidecar(base.files.windows)
    if old is not None and old.fingerprint == wanted:
        _take(plan, base, [base.files.windows, *_stack_files(base)])
        return stacks, windows.close_windows(plan, stacks)
    before = windows.windows_fingerprint(
        _with_block_px(plan, base.manifest.block_px), stacks.fingerprint, lost
    )
    if old is not None and old.fingerprint == before:
        _take(plan, base, _stack_files(base))
        if not is_good(plan.version.windows, wanted):
            table = _with_blocks(read_table(base.files.windows, WINDOWS), plan.region.dataset.splits.block_px)
            write_table(plan.version.windows, table, WINDOWS, wanted)
        return stacks, windows.close_windows(plan, stacks)
    stacks = stack.build_stacks(plan, ranking)
    _work(plan, windows.STAGE, lambda batch: windows.index_windows(plan, stacks, batch), threads, tell)
    return stacks, windows.close_windows(plan, stacks)


def _old_stacks(plan: Plan, base: _Base) -> StackRef:
    standing = tuple(tile.tile_id for tile in base.tiles if base.files.stack(tile.tile_id).exists())
    return StackRef(
        plan.version.stacks, base.manifest.inputs.stack, stack.stack_layers(plan.region), standing
    )


def _stack_files(base: _Base) -> list[Path]:
    paths = [base.path / one.path for one in base.manifest.files]
    return [path for path in paths if path.suffix == ".vrt"]


def _with_block_px(plan: Plan, block_px: int) -> Plan:
    dataset = plan.region.dataset
    rules = dataset.splits.model_copy(update={"block_px": block_px})
    region = plan.region.model_copy(update={"dataset": dataset.model_copy(update={"splits": rules})})
    return dataclasses.replace(plan, region=region)


def _with_blocks(table: pa.Table, block_px: int) -> pa.Table:
    """Return WINDOWS with the names of blocks of another side, as :class:`chipmill.region.windows.Laid` has them."""
    places = Places.of_table(table)
    columns, rows = places.blocks(block_px)
    names = [
        block_name(*block) for block in zip(places.lattice, columns.tolist(), rows.tolist(), strict=True)
    ]
    return table.set_column(table.column_names.index("block"), "block", pa.array(names, pa.string()))


def _work(plan: Plan, stage: str, verb: Callable[[Batch], BatchResult], threads: int, tell: Tell) -> None:
    """Work on every unit of a stage; one that fails is written down for the stage that closes it."""
    units = [unit for batch in load_batches(plan.attempt, stage) for unit in batch.units]
    with ThreadPoolExecutor(threads) as pool:
        # an error that is not the unit's own ends the map, which then drops the units that have not begun
        for done, _ in enumerate(pool.map(lambda unit: verb(Batch(stage, 0, (unit,))), units), 1):
            tell(stage, done, len(units))


def _linked(before: Manifest, path: Path) -> int:
    """Return how many shards of a version are those of the one before."""
    old = {(one.path, one.sha256) for one in before.shards}
    return sum((one.path, one.sha256) in old for one in manifest.load_manifest(path).shards)
