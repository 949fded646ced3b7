"""`chipmill select`: runs in this process, and shows how far it is and what came of it."""

import os
import time
from pathlib import Path
from typing import Final

import typer

from chipmill.cli.console import Terminal
from chipmill.cli.places import shown
from chipmill.region.load import load_region

_MOST_THREADS: Final = 4
"""Each holds a shard in memory."""


def run_select(view: Terminal, file: Path, *, redeal: bool) -> None:
    """Re-cut or re-split the dataset in force of a region; exits with 3 where units failed."""
    from chipmill.dataset.reselect import select_dataset
    from chipmill.imagery.canary import require_safe_gdal
    from chipmill.report.dataset import dataset_page
    from chipmill.report.numbers import plural

    region = load_region(file)
    require_safe_gdal()
    done = select_dataset(
        region,
        redeal=redeal,
        threads=min(_MOST_THREADS, len(os.sched_getaffinity(0))),
        draw=lambda path: dataset_page(path, archive=region),
        tell=_Lines(view),
    )
    made = done.dataset
    if not done.changed:
        view.say(f"{shown(made.path)} has these rules already: nothing to do", "green")
    else:
        held = f"{plural(made.chips, 'chip')} in {plural(made.shards, 'shard')}, {done.linked} of them as they were"
        view.say(f"{shown(made.path)} is in force: {held}", "green")
    if made.failed:
        view.say(f"{plural(made.failed, 'unit')} failed; the list is in its report", "red")
    view.say(f"  dataset  {shown(made.path / 'report.html')}")
    code = 3 if made.failed else 0
    facts = {"ok": not code, "exit_code": code, "changed": done.changed, "path": str(made.path)}
    view.result({**facts, "chips": made.chips, "shards": made.shards, "linked": done.linked})
    if code:
        raise typer.Exit(code)


class _Lines:
    """One line per stage that ended, with its time."""

    def __init__(self, view: Terminal) -> None:
        self._view = view
        self._began = time.monotonic()

    def __call__(self, stage: str, done: int, total: int) -> None:
        if done < total:
            return
        now = time.monotonic()
        self._view.note(f"{stage.replace('_', ' ')}: {done} of {total} in {now - self._began:.1f} s")
        self._began = now
