"""Cells as a run sees them: one run per cell (the lock), how runs are named, and whose datasets a model learns from."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from chipmill.core.store import lock
from chipmill.dataset.manifest import DatasetRef, dataset_ref
from chipmill.region.config import Region
from chipmill.region.jobs import TrainConfig
from chipmill.region.load import load_region
from chipmill.region.plan import cell_dir
from chipmill.region.roots import check_roots

_held: Final[set[Path]] = set()


@contextlib.contextmanager
def hold_cell(region: Region, run: str = "") -> Iterator[None]:
    """Hold the lock of a region's cell; a flow inside a run that holds it already takes part in that one.

    Raises LockedError that names the holder when another process works on the cell.
    """
    path = cell_dir(region).lock
    if path in _held:
        yield
        return
    with lock(path, run or run_id()):
        _held.add(path)
        try:
            yield
        finally:
            _held.discard(path)


def is_held(region: Region) -> bool:
    """Tell whether this process holds the lock of a region's cell: whoever took it has looked what is to be done."""
    return cell_dir(region).lock in _held


def run_id() -> str:
    """Return the id of the flow run that this code runs in, "" outside of flows."""
    from prefect.runtime import flow_run

    return str(flow_run.id or "")


def cell_name(region: Region) -> str:
    """Return ``<region>/<start>--<end>``."""
    return f"{region.name}/{cell_dir(region).root.name}"


def run_name(flow: str) -> Callable[[], str]:
    """Return the function by which Prefect names the runs of a flow that has a parameter ``region``."""

    def name() -> str:
        from prefect.runtime import flow_run

        parameters: dict[str, Any] = flow_run.parameters
        region = parameters["region"]
        return f"{flow}/{cell_name(region if isinstance(region, Region) else Region.model_validate(region))}"

    return name


def training_set(
    train: TrainConfig, region: Region | None = None, built: DatasetRef | None = None
) -> tuple[DatasetRef, ...]:
    """Return the datasets that a model learns from: the versions in force of the region files that the train file lists.

    ``built`` stands for the cell of ``region``, and is the only one where the file lists none. Raises
    VersionNotFoundError for a region that has no version yet, RegionFileError for one outside CHIPMILL_ROOTS.
    """
    own = cell_dir(region).root if region is not None else None
    if not train.datasets and built is not None:
        return (built,)
    cells = [cell_dir(check_roots(load_region(train.resolve(path)))) for path in train.datasets]
    return tuple(
        built if built is not None and cell.root == own else dataset_ref(cell.versions.current_path())
        for cell in cells
    )
