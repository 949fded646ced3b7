"""The commands that only look: verify, report, status, doctor."""

import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

from chipmill.cli.console import Terminal
from chipmill.cli.places import find_product, shown
from chipmill.cli.standing import CellStanding, read_standing
from chipmill.core.errors import BadInputError, VersionNotFoundError
from chipmill.core.holder import lock_holder
from chipmill.core.plain import plain

NOT_A_DATASET: Final = 10
LOCKED: Final = 11


def check_dataset(view: Terminal, path: Path, *, data: bool, subset: str | None) -> int:
    """Verify a dataset and return the exit code: 0 good, 1 bad, 10 not a dataset, 11 its cell is being worked on."""
    from chipmill.dataset.verify import verify_dataset

    try:
        product = find_product(path)
    except VersionNotFoundError as error:
        return _no_dataset(view, str(error))
    if product.kind != "dataset":
        return _no_dataset(view, f"{shown(product.path)} is a {product.kind}, not a dataset")
    holder = lock_holder(product.path.parents[1] / ".lock")
    if holder is not None:
        view.say(
            f"{shown(product.path)} is being worked on by {holder}: ask again when it has ended", "yellow"
        )
        view.result({"ok": False, "locked": holder, "exit_code": LOCKED})
        return LOCKED
    found = verify_dataset(product.path, data=data, subset=_percent(subset))
    for problem in found.problems:
        view.say(problem, "red")
    depth = (
        f"{found.hashed} of them read in full"
        if found.hashed
        else "names, sizes and counts; --data reads all"
    )
    verdict = "good" if not found.problems else f"bad: {len(found.problems)} problems"
    view.say(
        f"{shown(product.path)} is {verdict} ({found.checked} files, {depth})",
        "green" if not found.problems else "red",
    )
    view.result({"ok": not found.problems, "path": str(product.path), **asdict(found)})
    return 1 if found.problems else 0


def _no_dataset(view: Terminal, reason: str) -> int:
    view.err.print(plain(reason), style="red", markup=False)
    view.result({"ok": False, "error": reason, "exit_code": NOT_A_DATASET})
    return NOT_A_DATASET


def _percent(text: str | None) -> float | None:
    if text is None:
        return None
    if not re.fullmatch(r"\d+(\.\d+)?%?", text):
        raise BadInputError(f"--data-subset takes a percentage such as 5%, got {text!r}")
    return float(text.rstrip("%"))


def draw_report(view: Terminal, path: Path, out: Path, datasets: Sequence[Path]) -> None:
    """Write the page of a committed product to ``out``, which must not lie in a version."""
    product = find_product(path)
    if out.absolute().is_relative_to(product.path):
        raise BadInputError(
            f"{out} lies in the committed version {shown(product.path)}: choose a file outside it"
        )
    if product.kind == "dataset":
        from chipmill.region.load import load_region
        from chipmill.report.dataset import dataset_page

        archive = load_region(path) if path.suffix in (".yaml", ".yml") else None
        dataset_page(product.path, out, archive=archive)
    elif product.kind == "model":
        from chipmill.report.model import model_page

        model_page(product.path, [find_product(dataset).path for dataset in datasets], out)
    else:
        from chipmill.report.map import map_page

        map_page(product.path, out)
    view.say(f"wrote {shown(out)}: the page of {product.kind} {shown(product.path)}")
    view.result(
        {"ok": True, "kind": product.kind, "version": str(product.path), "report": str(out.absolute())}
    )


def show_status(view: Terminal, paths: Sequence[Path]) -> None:
    """Show where the cells of region files or output directories stand: the grid region x period, then each cell."""
    cells = list(dict.fromkeys(cell for path in paths for cell in _cells_of(path)))
    if len(cells) > 1:
        view.table(*grid_table(cells))
        view.say("")
    head = ("Region", "Cell", ">Version", ">Attempt", ">Failed", "Worked on by")
    view.table(head, [_cell_row(cell) for cell in cells])
    for cell in cells:
        _show_stages(view, cell)
    if not cells:
        view.say(f"{', '.join(map(str, paths))}: no run has begun yet")
    view.result(
        {
            "ok": True,
            "cells": [asdict(cell) | {"state": cell.state, "failed": cell.failed} for cell in cells],
        }
    )


def _cells_of(path: Path) -> tuple[CellStanding, ...]:
    """Return all cells of a region file's region or of an output directory."""
    if path.suffix in (".yaml", ".yml"):
        from chipmill.region.load import load_region

        region = load_region(path)
        return read_standing(region.output_dir, region.name)
    if (path / "regions").is_dir():
        return read_standing(path)
    raise BadInputError(
        f"{path} is neither a region file nor an output directory with regions: give one of them"
    )


def grid_table(cells: Sequence[CellStanding]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return head and rows of the grid region x period; the side with fewer names makes the columns."""
    at = {(cell.region, cell.cell): cell.state for cell in cells}
    regions, periods = (list(dict.fromkeys(names)) for names in zip(*at, strict=True))
    if len(periods) <= len(regions):
        return ("Region", *sorted(periods)), [
            (region, *(at.get((region, period), "-") for period in sorted(periods))) for region in regions
        ]
    return ("Period", *regions), [
        (period, *(at.get((region, period), "-") for region in regions)) for period in sorted(periods)
    ]


def _cell_row(cell: CellStanding) -> tuple[str, ...]:
    version = "none" if cell.version is None else str(cell.version)
    attempt = "none" if cell.attempt is None else str(cell.attempt)
    return cell.region, cell.cell, version, attempt, str(cell.failed), cell.holder or "nobody"


def _show_stages(view: Terminal, cell: CellStanding) -> None:
    if cell.stages:
        rows = [(one.stage, str(one.units), str(one.done), str(one.failed)) for one in cell.stages]
        view.table(
            ("Stage", ">Units", ">Done", ">Failed"),
            rows,
            f"attempt {cell.attempt} of {cell.region} {cell.cell}",
        )


def show_checks(view: Terminal, output: Path | None) -> int:
    """Show what doctor found and return the exit code."""
    from chipmill.doctor import run_checks

    checks = run_checks(output)
    for check in checks:
        view.say(
            f"{'ok  ' if check.ok else 'BAD '} {check.name:<8} {check.detail}", "" if check.ok else "red"
        )
        if check.remedy:
            view.say(f"     {'':<8} {check.remedy}")
    good = all(check.ok for check in checks)
    view.result({"ok": good, "checks": [asdict(check) for check in checks]})
    return 0 if good else 1
