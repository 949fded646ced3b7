"""`chipmill status`: where each cell of an output directory stands, read from the store alone."""

from dataclasses import dataclass
from pathlib import Path

from chipmill.core.holder import lock_holder
from chipmill.core.paths import CellDir, OutputDir, VersionDir
from chipmill.core.store import read_json


@dataclass(frozen=True, slots=True)
class StageStanding:
    """Units of one stage of an open attempt."""

    stage: str
    units: int
    done: int
    failed: int


@dataclass(frozen=True, slots=True)
class CellStanding:
    """Where one cell stands."""

    region: str
    cell: str
    version: int | None
    """In force."""
    attempt: int | None
    """Open, to be continued by the next run."""
    stages: tuple[StageStanding, ...]
    """Of the open attempt."""
    holder: str | None
    """Of the lock: run, host, process, since when; None where nobody works on the cell."""
    listed: int = 0
    """Failed units that the version in force was committed with."""

    @property
    def failed(self) -> int:
        """Failed units: of the open attempt, else of the version in force."""
        return sum(stage.failed for stage in self.stages) if self.attempt is not None else self.listed

    @property
    def state(self) -> str:
        """One phrase for the grid: ``version 3, attempt 4 running``, ``version 1, attempt 2: 5 failed``, ``new``."""
        version = "" if self.version is None else f"version {self.version}"
        lost = f": {self.failed} failed" if self.failed else ""
        attempt = "" if self.attempt is None else f"attempt {self.attempt}"
        work = " ".join(part for part in (attempt, "running" if self.holder else "") if part)
        parts = [part for part in (version, work) if part]
        return (", ".join(parts) or "new") + lost


def read_standing(output: Path, region: str | None = None) -> tuple[CellStanding, ...]:
    """Return the cells of an output directory, all or those of one region, in order of name."""
    regions = OutputDir(output).region(region or "x").root.parent
    names = [region] if region else sorted(path.name for path in regions.glob("*") if path.is_dir())
    cells = [
        (name, path) for name in names for path in sorted((regions / name).glob("*--*")) if path.is_dir()
    ]
    return tuple(_read_cell(name, CellDir(path)) for name, path in cells)


def _read_cell(region: str, cell: CellDir) -> CellStanding:
    attempts = cell.versions.attempts()
    attempt = attempts[-1] if attempts else None
    stages = () if attempt is None else _read_stages(cell.versions.attempt_path(attempt))
    version, holder = cell.versions.current(), lock_holder(cell.lock)
    listed = 0 if version is None else _listed(VersionDir(cell.versions.path(version)))
    return CellStanding(region, cell.root.name, version, attempt, stages, holder, listed)


def _listed(version: VersionDir) -> int:
    """Return how many failed units the manifest of a version lists; 0 where there is none, `verify` says so."""
    return len(read_json(version.manifest).get("failures", ())) if version.manifest.is_file() else 0


def _read_stages(attempt: Path) -> tuple[StageStanding, ...]:
    """Count the results that stand below ``units/``, in the order in which the stages were planned."""
    plans = [path for path in (attempt / "units").glob("*.json") if not path.name.endswith(".parquet.json")]
    stages = []
    for path in sorted(plans, key=lambda path: path.stat().st_mtime_ns):
        plan = read_json(path)
        if "batches" in plan:
            folder = path.with_suffix("")
            done, failed = (len(list(folder.glob(f"*.{kind}"))) for kind in ("parquet", "failed.json"))
            stages.append(StageStanding(path.stem, len(plan["units"]), done, failed))
    return tuple(stages)
