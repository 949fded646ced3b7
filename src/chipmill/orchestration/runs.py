"""What is kept of a run beside its products: runs/<run>.json and its page. Host, times and versions: outside every hash."""

import dataclasses
import datetime as dt
import importlib.metadata
import platform
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from chipmill.core.paths import CellDir, VersionDir
from chipmill.core.store import read_json, write_json
from chipmill.core.units import UnitFailure
from chipmill.dataset.manifest import DatasetRef, load_manifest
from chipmill.learning.bundle import ModelRef
from chipmill.learning.files import ModelDir
from chipmill.mapping.files import MapDir
from chipmill.mapping.outputs import MapRef
from chipmill.mapping.prediction import STAGE as PREDICTION
from chipmill.orchestration.progress import Stopwatch, listening
from chipmill.report.run import Made, RunFacts, StageTime, run_page

_PACKAGES: Final = ("chipmill", "rasterio", "numpy", "prefect", "distributed", "tensorflow", "tensorflow-cpu")


@dataclasses.dataclass(frozen=True, slots=True)
class RunRef:
    """What a run made or found in force, and where it is told."""

    dataset: DatasetRef | None
    model: ModelRef | None
    map: MapRef | None
    record: Path | None
    """runs/<run>.json; None where a run belongs to no cell."""
    page: Path | None


@dataclasses.dataclass(frozen=True, slots=True)
class Clock:
    """When a run began, and how long its steps took."""

    started: dt.datetime
    watch: Stopwatch

    def stages(self) -> tuple[StageTime, ...]:
        """Return the steps so far."""
        return tuple(
            StageTime(one.step, round(seconds, 3), one.total, one.failed)
            for one, seconds in self.watch.rows()
        )


@contextmanager
def running_clock() -> Iterator[Clock]:
    """Take the time of every step inside the block."""
    watch = Stopwatch()
    with listening(watch):
        yield Clock(dt.datetime.now(dt.UTC), watch)


def write_run(
    cell: CellDir,
    name: str,
    started: dt.datetime,
    stages: tuple[StageTime, ...],
    products: tuple[DatasetRef | ModelRef | MapRef | None, ...],
    failures: Iterable[UnitFailure] | None = None,
    redo: str = "",
) -> tuple[Path, Path]:
    """Write the record and the page of a run into its cell and return both.

    ``failures`` are those of a run that was stopped; None: those that the products were committed with.
    """
    made = [one for one in products if one is not None]
    lost = tuple(failures) if failures is not None else tuple(one for ref in made for one in failures_of(ref))
    facts = RunFacts(
        name=name,
        state="Failed" if lost else "Completed",
        host=socket.gethostname(),
        started=started.isoformat(timespec="seconds"),
        seconds=(dt.datetime.now(dt.UTC) - started).total_seconds(),
        stages=stages,
        made=tuple(_made(ref) for ref in made),
        failures=lost,
        redo=redo,
        versions=tuple(versions().items()),
    )
    record = cell.runs / f"{started:%Y%m%dT%H%M%S%f}.json"
    write_json(record, facts)
    return record, run_page(facts, record.with_suffix(".html"))


def failures_of(product: DatasetRef | ModelRef | MapRef) -> tuple[UnitFailure, ...]:
    """Return the failed units that a committed product lists."""
    if isinstance(product, DatasetRef) and product.failed:
        listed = load_manifest(product.path).failures
        return tuple(UnitFailure(one.stage, one.unit, one.reason, False) for one in listed)
    if isinstance(product, MapRef) and product.failed:
        units = read_json(MapDir(product.path).facts)["failed"]
        return tuple(UnitFailure(PREDICTION, unit, "nodata in the map", False) for unit in units)
    return ()


def versions() -> dict[str, str]:
    """Return the versions of the software that bytes or times may depend on."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # an image without TensorFlow, or one of its two wheels
    return found


def _made(ref: DatasetRef | ModelRef | MapRef) -> Made:
    if isinstance(ref, DatasetRef):
        return Made("dataset", f"version {ref.version}", VersionDir(ref.path).report)
    if isinstance(ref, ModelRef):
        return Made("model", f"{ref.name}@{ref.version}", ModelDir(ref.path).report)
    return Made("map", f"{ref.region}, version {ref.version}", MapDir(ref.path).report)
