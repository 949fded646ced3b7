"""The grid of a backfill, region files x time ranges: its cells and the keys of their runs.

Nothing here knows Prefect: what a cell needs next is said in :mod:`chipmill.orchestration.choosing`,
:mod:`chipmill.orchestration.backfill` goes over the grid, and :mod:`chipmill.orchestration.cell_runs` speaks with the
workflow server.
"""

import collections
import dataclasses
import datetime as dt
import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import ValidationError

from chipmill.core.errors import BadInputError, ChipmillError, RegionFileError
from chipmill.core.paths import span_name
from chipmill.core.store import fingerprint
from chipmill.core.units import describe
from chipmill.orchestration.jobs import Job, Kind
from chipmill.region.config import Region, Time
from chipmill.region.fields import Model
from chipmill.region.identity import file_contents
from chipmill.region.jobs import PredictConfig, TrainConfig
from chipmill.region.load import explain, load_predict, load_region, load_train
from chipmill.region.plan import cell_dir
from chipmill.region.roots import check_place, check_roots, roots

type FlowName = Literal["build_dataset", "predict_map", "refresh_region"]
type Span = tuple[dt.date, dt.date]
"""Half-open: the first day, and the day after the last."""


class Period(Model):
    """A time range of a backfill's form."""

    start: dt.date
    """First day."""
    end: dt.date
    """The day after the last one."""


KINDS: Final[dict[FlowName, Kind]] = {
    "build_dataset": "build",
    "predict_map": "predict",
    "refresh_region": "refresh",
}
AS_IN_FILE: Final = "as in the file"
"""Period of a cell whose file could not be read."""
_DIGITS: Final = 16


@dataclasses.dataclass(frozen=True, slots=True)
class Cell:
    """One cell of the grid: a region file in a period."""

    flow: FlowName
    file: str
    """As it was given."""
    period: str
    """``start--end``."""
    job: Job | None = None
    """None where the cell cannot be run: ``trouble`` says why."""
    trouble: str = ""
    parameters: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Of its run, plain values."""
    fingerprint: str = ""
    """16 hex digits of the parameters and of the content of the files that they name."""

    @property
    def region(self) -> str:
        """Name of the region; the file where that could not be read."""
        return self.job.region.name if self.job and self.job.region else self.file

    @property
    def name(self) -> str:
        """``<region>/<start>--<end>``."""
        return f"{self.region}/{self.period}"

    @property
    def slug(self) -> str:
        """Name of the flow as deployments and runs have it, ``refresh-region``."""
        return self.flow.replace("_", "-")

    @property
    def stem(self) -> str:
        """What the keys of all runs of this cell begin with, whatever its parameters were."""
        return f"{self.slug}/{self.name}/"

    @property
    def tag(self) -> str:
        """Tag of all runs of this cell in its output: regions of one name may lie in several."""
        region = self.job.region if self.job else None
        place = fingerprint(cell_dir(region).root)[:8] if region else "none"
        return f"cell:{self.stem.rstrip('/')}@{place}"

    def key(self, number: int) -> str:
        """Return the key of the cell's n-th run: the server never makes two runs of one key."""
        return f"{self.stem}{self.fingerprint}/{number}"


@dataclasses.dataclass(frozen=True, slots=True)
class Grid:
    """What a backfill was asked for."""

    flow: FlowName
    cells: tuple[Cell, ...]
    options: str
    """Of the command line: all but the region files."""

    def redo(self, cells: Sequence[Cell]) -> str:
        """Return the command that redoes cells that failed, and only those."""
        files = shlex.join(dict.fromkeys(cell.file for cell in cells))
        return f"chipmill backfill {self.flow} {files}{self.options} --only-failed"


def lay_grid(
    flow: FlowName,
    regions: Sequence[str],
    time_ranges: Sequence[Span] = (),
    train: str | None = None,
    predict: str | None = None,
) -> Grid:
    """Return the cells of region files x time ranges, in that order.

    Args:
        flow: what is run for each cell.
        regions: paths of region files, relative to the first directory of CHIPMILL_ROOTS, else to the working directory.
        time_ranges: half-open (start, end) days; none: as each file says.
        train: path of a train file, for refresh_region.
        predict: path of a predict file, for refresh_region and predict_map.

    A region file that is missing, broken, or outside the roots becomes a cell with its ``trouble``: it never stops the
    others. Raises BadInputError for what concerns all cells: a cell that is named twice, files that do not go with the
    flow, a train or predict file that is broken.
    """
    _check_files(flow, regions, train, predict)
    spans = _check_spans(time_ranges)
    trained = check_roots(load_train(_place(train))) if train else None
    predicted = check_roots(load_predict(_place(predict))) if predict else None
    cells = tuple(
        _cell(flow, file, span, trained, predicted) for file in regions for span in (spans or (None,))
    )
    _check_cells(cells, trained)
    options = "".join(f" --time-range {span_name(*map(str, span))}" for span in spans)
    named = {"train": train, "predict": predict}
    options += "".join(f" --{name} {shlex.quote(path)}" for name, path in named.items() if path)
    return Grid(flow, cells, options)


def _check_files(flow: FlowName, regions: Sequence[str], train: str | None, predict: str | None) -> None:
    if not regions:
        raise BadInputError("regions is empty: name at least one region file")
    if flow == "predict_map" and not predict:
        raise BadInputError("predict is missing: predict_map needs a predict file")
    if train and flow != "refresh_region":
        raise BadInputError(f"train: {flow} trains no model: leave the file out, or backfill refresh_region")
    if predict and flow == "build_dataset":
        raise BadInputError("predict: build_dataset makes no map: leave the file out, or choose predict_map")


def _check_spans(time_ranges: Sequence[Span]) -> list[Span]:
    for start, end in time_ranges:
        if start >= end:
            raise BadInputError(f"time_ranges: start {start} must lie before end {end}, which is excluded")
    doubled = [span for span, count in collections.Counter(map(tuple, time_ranges)).items() if count > 1]
    if doubled:
        raise BadInputError(f"time_ranges: {span_name(*map(str, doubled[0]))} is named twice: name it once")
    return list(time_ranges)


def _check_cells(cells: Sequence[Cell], train: TrainConfig | None) -> None:
    """Raise BadInputError where two cells have one name: they could not be told apart, and may be one directory."""
    seen: dict[str, Cell] = {}
    for cell in cells:
        if (twin := seen.setdefault(cell.name, cell)) is not cell:
            raise BadInputError(
                f"{cell.name} is named twice, by {twin.file} and {cell.file}: name it once, or give the regions "
                "different names"
            )
    if train is not None and not train.datasets and len(cells) > 1:
        raise BadInputError(
            f"train: {train.file} lists no datasets, so each cell would train {train.name} on its own data and undo "
            "the one before: list the region files in datasets"
        )


def _cell(
    flow: FlowName, file: str, span: Span | None, train: TrainConfig | None, predict: PredictConfig | None
) -> Cell:
    period = span_name(*map(str, span)) if span else AS_IN_FILE
    try:
        region = check_roots(load_region(_place(file)))
        if span is not None:
            region = _at(region, span)
        period = cell_dir(region).root.name
        given = {"region": region, "train": train, "predict": predict}
        parameters = {
            name: config.model_dump(mode="json", by_alias=True) for name, config in given.items() if config
        }
        mark = fingerprint("cell", parameters, file_contents(region))[:_DIGITS]
    except ChipmillError as error:
        return Cell(flow, file, period, trouble=describe(error))
    return Cell(flow, file, period, Job(KINDS[flow], region, train, predict), "", parameters, mark)


def _place(file: str) -> Path:
    """Return the absolute path of a file that a parameter names; raises RegionFileError where it may not lie."""
    allowed = roots()
    place = Path(os.path.normpath((allowed[0] if allowed else Path.cwd()) / file))
    # before it is opened: what stands in a file elsewhere, or whether there is one, is nobody's business
    check_place("regions", place)
    return place


def _at(region: Region, span: Span) -> Region:
    """Return a region in another time range; slots are cut anew."""
    if region.time.slots.list is not None:
        raise RegionFileError(
            f"{region.file}: time.slots.list names days of its own, which cannot be moved to another time range: use "
            "n, every or seasons"
        )
    try:
        time = Time.model_validate({"range": span, "slots": region.time.slots})
    except ValidationError as error:
        raise RegionFileError(f"{region.file}: time: {explain(error, Time)}") from error
    return region.model_copy(update={"time": time})
