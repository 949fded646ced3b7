"""How far a run is: a progress artifact per stage for the screen, listeners for bars, and the time that steps took."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, Self
from uuid import UUID

from chipmill.core.plain import markdown
from chipmill.orchestration.funnel import slug
from chipmill.orchestration.records import for_the_screen, hearing_cancel

if TYPE_CHECKING:
    from types import TracebackType

_EVERY_S: Final = 2.0


@dataclasses.dataclass(frozen=True, slots=True)
class Progress:
    """Where a step stands; a direct step has one unit."""

    step: str
    done: int
    failed: int
    total: int


type Listener = Callable[[Progress], None]
_listeners: Final[list[Listener]] = []


@contextlib.contextmanager
def listening(listener: Listener | None) -> Iterator[None]:
    """Call ``listener`` in the flow's process for each change inside the block."""
    if listener is None:
        yield
        return
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


def tell(progress: Progress) -> None:
    """Tell the listeners where a step stands."""
    for listener in tuple(_listeners):
        listener(progress)


class Stopwatch:
    """A listener that keeps when each step began and how it stood last."""

    def __init__(self) -> None:
        self._began: dict[str, float] = {}
        self._last: dict[str, tuple[float, Progress]] = {}

    def __call__(self, progress: Progress) -> None:
        """Take a change."""
        now = time.monotonic()
        self._began.setdefault(progress.step, now)
        self._last[progress.step] = (now, progress)

    def rows(self) -> list[tuple[Progress, float]]:
        """Return the steps in order: how each stands, and its seconds so far."""
        return [(self._last[name][1], self._last[name][0] - began) for name, began in self._began.items()]


class StageProgress:
    """Counts the units of one stage and shows them, at most every two seconds (an update is an API call)."""

    def __init__(self, stage: str, total: int) -> None:
        self._stage, self._total = stage, total
        self._done = self._failed = 0
        self._shown_at = 0.0
        self._artifact: UUID | None = None
        self._listening = contextlib.ExitStack()

    def __enter__(self) -> Self:
        """Make the artifact."""
        from prefect.artifacts import create_progress_artifact

        text = markdown(f"{self._stage}: {self._total} units")
        with for_the_screen():
            made = create_progress_artifact(0.0, key=f"progress-{slug(self._stage)}", description=text)
            self._artifact = made if isinstance(made, UUID) else None
        self._listening.enter_context(hearing_cancel())
        self._tell()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: "TracebackType | None"
    ) -> None:
        """Show where the stage ended, unless the run is being cut off."""
        self._listening.close()
        if kind is None:
            self._show()

    def add(self, done: int, failed: int) -> None:
        """Count units that ended; ``failed`` is negative where units are tried again."""
        self._done += done
        self._failed += failed
        self._tell()
        if time.monotonic() - self._shown_at >= _EVERY_S:
            self._show()

    def _tell(self) -> None:
        tell(Progress(self._stage, self._done, self._failed, self._total))

    def _show(self) -> None:
        from prefect.artifacts import update_progress_artifact

        percent = 100.0 * (self._done + self._failed) / max(self._total, 1)
        if self._artifact is not None:
            with for_the_screen():
                update_progress_artifact(self._artifact, progress=min(percent, 100.0))
        self._shown_at = time.monotonic()


@contextlib.contextmanager
def epochs(step: str) -> Iterator[Callable[[int, int, Mapping[str, Any]], None]]:
    """Give the function that a training calls after each epoch, with an artifact that follows it."""
    with contextlib.ExitStack() as stack:
        shown: list[StageProgress] = []

        def after_epoch(done: int, most: int, row: Mapping[str, Any]) -> None:  # noqa: ARG001 - training's signature
            if not shown:
                shown.append(stack.enter_context(StageProgress(step, most)))
            shown[0].add(1, 0)

        yield after_epoch
