"""Jobs: what a run is asked for, what of it the store has already, and how the rest is made ready.

The command line asks before it starts anything, a flow that a worker started asks when it begins: by the same calls, so
that both search once, refuse bad input before any work and say "nothing to do" alike. This module imports neither
Prefect nor distributed.
"""

import contextlib
import dataclasses
from typing import Final, Literal

from chipmill.core.errors import BadInputError
from chipmill.core.store import read_sidecar
from chipmill.dataset.manifest import DatasetRef, current_dataset
from chipmill.dataset.preflight import check_region
from chipmill.imagery.catalog import find_items, freeze_items
from chipmill.imagery.freeze import read_items
from chipmill.imagery.items import Answer, changes
from chipmill.imagery.planning import Placed, place_tiles, tile_aoi
from chipmill.learning.bundle import ModelRef, current_model, find_model
from chipmill.learning.preflight import check_training
from chipmill.mapping.outputs import MapRef, current_map
from chipmill.orchestration.cells import hold_cell, training_set
from chipmill.region.config import Region
from chipmill.region.jobs import PredictConfig, TrainConfig

type Kind = Literal["refresh", "build", "train", "predict"]

UP_TO_DATE: Final = "everything is up to date: nothing to do"


@dataclasses.dataclass(frozen=True, slots=True)
class Job:
    """What is asked for; `kind` names the flow, the others are its files."""

    kind: Kind
    region: Region | None = None
    train: TrainConfig | None = None
    predict: PredictConfig | None = None

    @property
    def command(self) -> str:
        """The command that does the job again: it redoes what failed, and only that."""
        region, train, predict = (
            config and config.file for config in (self.region, self.train, self.predict)
        )
        if self.kind == "train":
            return f"chipmill train {train}"
        if self.kind == "predict":
            return f"chipmill predict {predict}"
        options = [f" --train {train}" if train else "", f" --predict {predict}" if predict else ""]
        return f"chipmill {'run' if self.kind == 'refresh' else 'build'} {region}{''.join(options)}"


@dataclasses.dataclass(frozen=True, slots=True)
class InForce:
    """What of a job the store has already."""

    answer: Answer | None = None
    """Of the search."""
    placed: Placed | None = None
    """The region's tiles."""
    remarks: tuple[str, ...] = ()
    """What was mended or left out of the input, where the dataset has to be built."""
    datasets: tuple[DatasetRef, ...] = ()
    """That the model learns from."""
    dataset: DatasetRef | None = None
    model: ModelRef | None = None
    map: MapRef | None = None


def look(job: Job, trained: ModelRef | None = None) -> InForce:
    """Search once and find out what of the job is in force already; reads the store and the catalog, nothing else.

    ``trained`` is a model that the map is made with, where it has the name that the predict file asks for. Raises
    ItemSearchError, BadInputError and VersionNotFoundError as the library does.
    """
    if job.train is not None:
        _check_training(job)
    standing = _standing_model(job, trained)
    placed = answer = dataset = model = None
    remarks: tuple[str, ...] = ()
    mapped: MapRef | None = None
    if job.region is not None:
        placed = place_tiles(job.region)
        answer = find_items(job.region, placed[1])
        dataset = current_dataset(job.region, answer, placed[1])
        if dataset is None:
            remarks = check_region(*placed, answer)
    datasets: tuple[DatasetRef, ...] = ()
    if job.train is not None and (job.region is None or dataset is not None):
        datasets = training_set(job.train, job.region, dataset)
        model = current_model(job.train, datasets)
    if job.region is not None and job.predict is not None and dataset is not None:
        chosen = standing or model
        mapped = current_map(dataset, job.region, chosen, job.predict) if chosen else None
    return InForce(answer, placed, remarks, datasets, dataset, model, mapped)


def _check_training(job: Job) -> None:
    train = job.train
    assert train is not None  # noqa: S101 - for the type checker
    if job.kind == "train" and not train.datasets:
        raise BadInputError(
            f"{train.file or train.name}: datasets is empty: name at least one region file whose dataset is built"
        )
    check_training(train, job.region)


def _standing_model(job: Job, trained: ModelRef | None) -> ModelRef | None:
    """Return the model that the map is made with, None where the job itself trains it or maps nothing."""
    if job.predict is None or (job.train is not None and job.train.name == job.predict.model):
        return None
    if trained is not None and trained.name == job.predict.model:
        return trained
    return find_model(job.predict.model, job.predict.output_dir)


def is_complete(job: Job, found: InForce) -> bool:
    """Tell whether everything that the job asks for is in force."""
    wanted = [(job.region, found.dataset), (job.train, found.model), (job.predict, found.map)]
    return all(have is not None for asked, have in wanted if asked is not None)


def is_current(job: Job) -> bool:
    """Tell whether the store has everything that a job asks for; raises what `look` raises."""
    return is_complete(job, look(job))


def prepare(job: Job, found: InForce, held: contextlib.ExitStack, *, new: bool = False, run: str = "") -> str:
    """Take the cell's lock, until ``held`` is closed, and freeze the answer of the search into the attempt.

    ``new`` discards an open attempt and its frozen answer, ``run`` is the name that others are told who holds the cell
    (default: the command). Returns what is to be said of it, "" for nothing. Raises
    LockedError when another run works on the cell.
    """
    if job.region is None or found.answer is None:
        return ""
    held.enter_context(hold_cell(job.region, run or f"of {job.command}"))
    if found.dataset is not None:
        return ""
    plan = tile_aoi(job.region, fresh=new, placed=found.placed)
    frozen = read_sidecar(plan.version.items)
    if frozen is not None and frozen.fingerprint != found.answer.fingerprint:
        told = changes(read_items(plan.version.items), found.answer.items)
        return (
            f"the catalog answers differently by now ({told}), the open attempt kept its {frozen.records} items "
            "(--new takes the new ones)"
        )
    freeze_items(plan, found.answer)
    return ""
