"""Bars while a job works: one line per step of the flow, and a plain line when it is done where nobody watches."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

from chipmill.cli.console import Terminal

if TYPE_CHECKING:
    from chipmill.orchestration.progress import Listener
    from chipmill.orchestration.progress import Progress as Step


@contextmanager
def bars(view: Terminal) -> "Iterator[Listener]":
    """Give a listener that shows the steps on stderr: bars on a terminal, else one line for each step that ended."""
    if not view.err.is_terminal:
        yield _Lines(view)
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description:<18}"),
        BarColumn(bar_width=32),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}", style="red"),
    )
    with Progress(*columns, console=view.err) as progress:
        yield _Bars(progress)


class _Bars:
    """Rich bars, one per step, in the order in which steps begin."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, int] = {}

    def __call__(self, step: "Step") -> None:
        if step.step not in self._tasks:
            name = step.step.replace("_", " ")
            self._tasks[step.step] = self._progress.add_task(name, total=step.total, note="")
        note = f"{step.failed} failed" if step.failed else ""
        task = self._progress.tasks[self._tasks[step.step]].id
        self._progress.update(task, completed=step.done + step.failed, total=step.total, note=note)


class _Lines:
    """One line per step that ended, with its time: what logs can bear."""

    def __init__(self, view: Terminal) -> None:
        self._view = view
        self._began: dict[str, float] = {}
        self._ended: set[str] = set()

    def __call__(self, step: "Step") -> None:
        began = self._began.setdefault(step.step, time.monotonic())
        if step.step in self._ended or step.done + step.failed < step.total:
            return
        self._ended.add(step.step)
        failed = f", {step.failed} failed" if step.failed else ""
        seconds = time.monotonic() - began
        self._view.note(
            f"{step.step.replace('_', ' ')}: {step.done} of {step.total}{failed} in {seconds:.1f} s"
        )
