"""The table of a backfill on the screen: a row per cell, kept up to date, and read by the next backfill.

A cell whose region file is broken, or that the search refuses, has no run that the server could remember; that it failed
stands in the tables of earlier backfills alone.
"""

import dataclasses
import json
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal
from uuid import UUID

from chipmill.core.plain import markdown
from chipmill.orchestration.grid_of_cells import AS_IN_FILE, Cell
from chipmill.orchestration.records import for_the_screen

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

_EVERY_S: Final = 2.0
_REASON: Final = 500
_TABLES: Final = 100
"""Earlier tables that are read for what failed."""

type RowState = Literal["waiting", "running", "current", "done", "failed", "passed over"]


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """How a cell stands."""

    region: str
    file: str
    period: str
    state: RowState
    seconds: float
    """That its run has worked; 0 without one."""
    reason: str
    run: str
    """Link to the run's page, "" without one."""


class CellTable:
    """The artifacts of a backfill: how far it is, and its table; shown at most every two seconds."""

    def __init__(self, client: "SyncPrefectClient", slug: str) -> None:
        self._client, self._slug = client, slug
        self._made: tuple[UUID, UUID] | None = None
        self._shown: tuple[Row, ...] = ()
        self._shown_at = 0.0

    def show(self, rows: tuple[Row, ...]) -> None:
        """Show how the cells stand, where that changed."""
        over = not any(row.state in ("waiting", "running") for row in rows)
        soon = time.monotonic() - self._shown_at < _EVERY_S
        if rows == self._shown or (self._made and soon and not over):
            return
        self._shown_at = time.monotonic()
        open_rows = sum(row.state in ("waiting", "running") for row in rows)
        percent = 100.0 * (len(rows) - open_rows) / max(len(rows), 1)
        with for_the_screen():
            if self._made is None:
                self._made = self._make(rows)
            self._update(self._made, rows, percent)
            self._shown = rows

    def _make(self, rows: Sequence[Row]) -> tuple[UUID, UUID]:
        from prefect.artifacts import create_progress_artifact, create_table_artifact

        text = f"{len(rows)} cells of {self._slug}"
        progress: Any = create_progress_artifact(0.0, key=f"backfill-{self._slug}", description=text)
        table: Any = create_table_artifact(table_rows(rows), key=_key(self._slug), description=text)
        return progress, table

    def _update(self, made: tuple[UUID, UUID], rows: Sequence[Row], percent: float) -> None:
        from prefect.artifacts import update_progress_artifact
        from prefect.client.schemas.actions import ArtifactUpdate

        progress, table = made
        update_progress_artifact(progress, progress=percent)
        self._client.update_artifact(table, ArtifactUpdate(data=json.dumps(table_rows(rows))))


def table_rows(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Return the rows as the table artifact has them: texts escaped, since one of the server's pages reads markdown."""
    return [
        {
            "region": markdown(row.region),
            "period": row.period,
            "state": row.state,
            "seconds": round(row.seconds, 1),
            "reason": markdown(row.reason[:_REASON]),
            "run": f"[run]({row.run})" if row.run else "",
            "file": markdown(row.file),
        }
        for row in rows
    ]


def failed_cells(client: "SyncPrefectClient", slug: str, cells: Sequence[Cell]) -> frozenset[str]:
    """Return the names of the cells that failed when an earlier backfill of the flow last went through them."""
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
    from prefect.client.schemas.sorting import ArtifactSort

    tables = client.read_artifacts(
        artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=[_key(slug)])),
        sort=ArtifactSort.CREATED_DESC,
        limit=_TABLES,
    )
    return named_failed([json.loads(str(table.data)) for table in tables], cells)


def named_failed(tables: Iterable[Sequence[dict[str, Any]]], cells: Sequence[Cell]) -> frozenset[str]:
    """Return the names of the cells whose newest row says that they failed; ``tables`` are those of backfills, newest first.

    A row of a file that could not be read has no period of its own: it speaks for each cell of the file.
    """
    newest: dict[tuple[str, str], str] = {}
    for table in tables:
        for row in table:
            if row["state"] in ("current", "done", "failed"):
                newest.setdefault((row["file"], row["period"]), row["state"])
    return frozenset(
        cell.name
        for cell in cells
        if (newest.get((markdown(cell.file), cell.period)) or newest.get((markdown(cell.file), AS_IN_FILE)))
        == "failed"
    )


def _key(slug: str) -> str:
    return f"cells-{slug}"
