"""Figures with what they were measured on, appended to benchmarks/results/<name>.jsonl: one JSON object a line."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from benchmarks.figure import Figure

RESULTS: Final = Path(__file__).parent / "results"
_PACKAGES: Final = (
    "chipmill",
    "numpy",
    "numba",
    "rasterio",
    "xarray",
    "odc-stac",
    "stackstac",
    "bottleneck",
    "tensorflow",
)


def host() -> dict[str, object]:
    """Return what a figure depends on beside the code: cores, memory, versions, the load of the last minute, the date.

    No name of the machine and no path of it.
    """
    import rasterio

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cores": len(os.sched_getaffinity(0)),
        "processor": _processor(),
        "memory_gib": round(memory / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "load_1min": round(os.getloadavg()[0], 2),
        "date": datetime.fromtimestamp(time.time(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "python": platform.python_version(),
        "gdal": rasterio.__gdal_version__,
        "versions": {name: _version(name) for name in _PACKAGES},
    }


def record(name: str, figures: Iterable[Figure], folder: Path = RESULTS) -> Path:
    """Append figures of one benchmark, each with the host as it is now; return the file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.jsonl"
    measured = host()
    with path.open("a") as file:
        for figure in figures:
            file.write(json.dumps(asdict(figure) | {"host": measured}, sort_keys=True) + "\n")
    return path


def _processor() -> str:
    """Return the model of the processor as Linux names it; "" elsewhere."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
