"""The funnel on the screen: how many windows were planned, written, filtered and lost, with the reason for each.

The same numbers are in dataset.json and in the report; here they become artifacts of the run.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from chipmill.core.paths import VersionDir
from chipmill.core.plain import markdown
from chipmill.dataset.manifest import load_manifest
from chipmill.orchestration.records import for_the_screen

if TYPE_CHECKING:
    from pathlib import Path

    from chipmill.core.units import UnitFailure
    from chipmill.dataset.description import Manifest

_MOST: Final = 200
"""Rows of a table of failures; the store has all of them."""


def show_funnel(region: str, version: "Path") -> None:
    """Make the funnel table of a committed dataset and a note of its report, as artifacts of the current run."""
    from prefect.artifacts import create_markdown_artifact, create_table_artifact

    key, report = slug(region), VersionDir(version).report
    rows = funnel_rows(load_manifest(version))
    with for_the_screen():
        create_table_artifact(rows, key=f"funnel-{key}", description=markdown(f"Windows of {region}"))
        # Browsers refuse file:// links on a page that came over HTTP, so the path is shown as text.
        create_markdown_artifact(
            f"Report of {markdown(region)}: {markdown(str(report))}", key=f"report-{key}"
        )


def funnel_rows(manifest: "Manifest") -> list[dict[str, str | int]]:
    """Return planned = written + filtered(reason) + failed(reason) as rows, then the failed units by stage."""
    counts = manifest.counts
    rows: list[dict[str, str | int]] = [{"what": "windows planned", "reason": "", "count": counts.planned}]
    rows.append({"what": "windows written", "reason": "", "count": counts.written})
    for what, reasons in (("windows filtered", counts.filtered), ("windows failed", counts.failed)):
        rows += [
            {"what": what, "reason": markdown(reason), "count": count} for reason, count in reasons.items()
        ]
    stages = [one.stage for one in manifest.failures]
    for stage in sorted(set(stages)):
        rows.append({"what": "units failed", "reason": stage, "count": stages.count(stage)})
    return rows


def show_failures(stage: str, lost: "Iterable[UnitFailure]") -> None:
    """Make a table of the failed units of a stage with their reasons, where there are any."""
    from prefect.artifacts import create_table_artifact

    rows = [{"unit": markdown(one.unit), "reason": markdown(one.reason)} for one in lost]
    if rows:
        text = markdown(f"{len(rows)} units failed in {stage}")
        with for_the_screen():
            create_table_artifact(rows[:_MOST], key=f"failed-{slug(stage)}", description=text)


def slug(name: str) -> str:
    """Return a name as the key of an artifact: lower-case letters, digits and dashes."""
    return "".join(sign if sign.isascii() and sign.isalnum() else "-" for sign in name.lower())
