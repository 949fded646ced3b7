"""The page of a run: what it did, how long each stage took, what failed and how to redo that, and where to look."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from chipmill.core.units import UnitFailure
from chipmill.report.blocks import Cell, Chart, Page, Pair, Section, Text, facts, section, table
from chipmill.report.charts import Bar, bar_chart
from chipmill.report.numbers import count, duration, percent
from chipmill.report.page import write_page


@dataclass(frozen=True, slots=True)
class StageTime:
    """One step of a run."""

    name: str
    seconds: float
    units: int
    failed: int


@dataclass(frozen=True, slots=True)
class Made:
    """A product that the run made or found in force."""

    kind: str
    """dataset, model or map."""
    name: str
    report: Path


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What a page says of a run; it belongs to no hash, so it may name the host and the time."""

    name: str
    """``refresh-region/<region>/<cell>``."""
    state: str
    """Completed, Failed, Crashed."""
    host: str
    started: str
    """ISO 8601, UTC."""
    seconds: float
    stages: tuple[StageTime, ...]
    made: tuple[Made, ...]
    failures: tuple[UnitFailure, ...]
    redo: str
    """The command that redoes what failed."""
    versions: tuple[tuple[str, str], ...]
    """(software, version)."""


def run_page(run: RunFacts, out: Path) -> Path:
    """Write the page of a run to ``out`` and return it; links are relative to its folder."""
    good = run.state == "Completed" and not run.failures
    page = Page(
        run.name,
        f"Run on {run.host} · {run.started}",
        (run.state.lower(), "good" if good else "bad"),
        facts(
            {
                "Duration": duration(run.seconds),
                "Stages": count(len(run.stages)),
                "Units": count(sum(stage.units for stage in run.stages)),
                "Failed units": count(len(run.failures)),
            },
            large=True,
        ),
        (_products(run.made, out.parent), _stages(run), _failures(run), _software(run)),
        f"Run {run.name}, started {run.started}",
    )
    return write_page(out, page)


def _products(made: Sequence[Made], folder: Path) -> Section:
    rows = [
        (one.kind, one.name, Cell("report", href=Path(os.path.relpath(one.report, folder)).as_posix()))
        for one in made
    ]
    lead = "Each product has a page of its own."
    empty = "Nothing was committed, because the run ended before."
    return section(
        "products", "Products", lead, (table(("Product", "Name", "Page"), rows),) if rows else (), empty
    )


def _stages(run: RunFacts) -> Section:
    total = sum(stage.seconds for stage in run.stages) or 1.0
    bars = [Bar(stage.name, stage.seconds, "var(--accent)", duration(stage.seconds)) for stage in run.stages]
    rows = [
        (
            stage.name,
            duration(stage.seconds),
            percent(stage.seconds / total),
            count(stage.units),
            count(stage.failed),
        )
        for stage in run.stages
    ]
    lead = "Wall time of each stage in the order of the flow; stages that found their work done take next to nothing."
    blocks = (
        Pair(
            (
                Chart(bar_chart(bars, "Seconds per stage", width=500, name_px=140)),
                table(("Stage", ">Time", ">Share", ">Units", ">Failed"), rows),
            )
        ),
    )
    return section("stages", "Stages", lead, blocks if rows else (), "No stage began.")


def _failures(run: RunFacts) -> Section:
    lead = "All other units are done. This command redoes only these:"
    rows = [
        (one.stage, one.unit, one.reason, "may pass" if one.transient else "lasting") for one in run.failures
    ]
    blocks = (Text(run.redo, "code"), table(("Stage", "Unit", "Reason", "Kind"), rows))
    empty = "Nothing failed."
    return section("failures", "Failures", lead, blocks if rows else (), empty)


def _software(run: RunFacts) -> Section:
    rows = list(run.versions)
    lead = "Identity of bytes is promised for one lock file and processor architecture."
    empty = "The run did not note the versions of its software."
    return section(
        "software", "Software", lead, (table(("Package", "Version"), rows),) if rows else (), empty
    )
