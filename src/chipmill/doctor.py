"""`chipmill doctor`: is this machine able to run us, and if not, what to do.

Each check is a small function that answers with one Check; nothing is changed and nothing outside this machine
is asked. The set-up ends with it, so it must not need more than the installed package.
"""

import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from chipmill.core.errors import CanaryError

MIN_FREE_BYTES: Final = 5 * 1000**3  # a medium demo and its temporary files fit into it with room to spare
PACKAGE: Final = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Check:
    """What was looked at, and what a person should know about it."""

    name: str
    ok: bool
    """False where runs would fail or lie."""
    detail: str
    """What was found."""
    remedy: str = ""
    """The way out; empty where all is well."""


def run_checks(output: Path | None = None) -> list[Check]:
    """Look at this machine, in a fixed order.

    Args:
        output: the directory that runs shall write below; the working directory where None. It need not exist.
    """
    place = _nearest_existing(output or Path.cwd())
    on_place: list[Callable[[Path], Check]] = [check_disk, check_file_links]
    alone: list[Callable[[], Check]] = [
        check_python,
        check_gdal,
        check_proj,
        check_vrt_python,
        check_port,
        check_rooms,
        check_osgeo,
    ]
    return [check() for check in alone] + [check(place) for check in on_place]


def check_python() -> Check:
    """Python 3.12 or 3.13."""
    version = ".".join(map(str, sys.version_info[:3]))
    ok = (3, 12) <= sys.version_info[:2] < (3, 14)
    remedy = "" if ok else "set up again with Python 3.12 or 3.13"
    return Check("python", ok, f"{version} at {sys.executable}", remedy)


def check_gdal() -> Check:
    """rasterio loads, and its GDAL raises for a VRT whose sources are missing."""
    try:
        # Inside, because a missing system library (libexpat) is a finding here, not a crash of the doctor.
        import rasterio

        from chipmill.imagery.canary import require_safe_gdal

        require_safe_gdal()
    except ImportError as error:
        remedy = "install the library that is named (Debian and Ubuntu: apt-get install libexpat1)"
        return Check("gdal", False, f"rasterio does not load: {error}", remedy)
    except CanaryError as error:
        return Check("gdal", False, str(error), "install rasterio >= 1.5.2")
    detail = f"rasterio {rasterio.__version__} with GDAL {rasterio.__gdal_version__}; the canary raises"
    return Check("gdal", True, detail)


def check_proj() -> Check:
    """rasterio and pyproj both find a PROJ database that they can read.

    PROJ_LIB and PROJ_DATA of another installation (conda, QGIS, PostGIS) are how they lose it.
    """
    variables = [f"{name}={os.environ[name]}" for name in ("PROJ_LIB", "PROJ_DATA") if name in os.environ]
    try:
        import pyproj
        import rasterio.crs

        rasterio.crs.CRS.from_epsg(32633).to_wkt()
        pyproj.CRS.from_epsg(32633)
    except Exception as error:  # noqa: BLE001  (each library has errors of its own, and all mean the same here)
        found = ", ".join(variables) or "neither PROJ_LIB nor PROJ_DATA is set"
        detail = f"EPSG:32633 cannot be looked up ({error}); {found}"
        return Check("proj", False, detail, "unset PROJ_LIB PROJ_DATA")
    return Check("proj", True, " in spite of ".join(["EPSG:32633 found", *variables]))


def check_vrt_python() -> Check:
    """GDAL_VRT_ENABLE_PYTHON lets a downloaded file run code, so it must not be set."""
    value = os.environ.get("GDAL_VRT_ENABLE_PYTHON", "NO")
    ok = value.upper() in {"NO", "FALSE", "OFF", "0"}
    if ok:
        return Check("vrt-python", True, "Python inside VRT files is off")
    detail = f"GDAL_VRT_ENABLE_PYTHON={value} lets raster files run code"
    return Check("vrt-python", False, detail, "unset GDAL_VRT_ENABLE_PYTHON")


def check_port() -> Check:
    """A port on the loopback address can be opened: server, cluster and the demo's archive need one each."""
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            with socket.create_connection(("127.0.0.1", port), timeout=5):
                return Check("port", True, f"127.0.0.1:{port} opened and reached")
    except OSError as error:
        remedy = "allow connections on the loopback address"
        return Check("port", False, f"no port on 127.0.0.1: {error}", remedy)


def check_rooms() -> Check:
    """chipmill.flows and chipmill.tasks are there: links in a clone, folders in a wheel."""
    lost = [name for name in ("flows", "tasks") if not (PACKAGE / name / "__init__.py").is_file()]
    if lost:
        remedy = "clone again with `git config core.symlinks true`, or install the wheel"
        return Check("rooms", False, f"{' and '.join(lost)} missing in {PACKAGE}", remedy)
    return Check("rooms", True, "flows and tasks are in the package")


def check_osgeo() -> Check:
    """The optional GDAL bindings; told, never required."""
    found = find_spec("osgeo") is not None
    return Check("osgeo", True, "bindings found" if found else "no bindings; rasterio's GDAL does all work")


def check_disk(place: Path) -> Check:
    """Free space below place, in GB of 10^9 bytes."""
    free = shutil.disk_usage(place).free
    ok = free >= MIN_FREE_BYTES
    remedy = "" if ok else f"make {MIN_FREE_BYTES / 1e9:.0f} GB free, or choose another output"
    return Check("disk", ok, f"{free / 1e9:.1f} GB free at {place}", remedy)


def check_file_links(place: Path) -> Check:
    """Whether place can be written, and hard links made: without them new versions are copies."""
    try:
        with tempfile.TemporaryDirectory(prefix=".chipmill-doctor-", dir=place) as folder:
            source = Path(folder, "source")
            source.touch()
            missing = [name for name in _LINKS if not _works(_LINKS[name], source, Path(folder, name))]
    except OSError as error:
        return Check("output", False, f"{place} cannot be written: {error}", "choose another output")
    if missing:
        return Check("output", True, f"{place} has no {' and no '.join(missing)}: files will be copied")
    return Check("output", True, f"hard and symbolic links work in {place}")


_LINKS: Final[dict[str, Callable[[Path, Path], None]]] = {"hard links": os.link, "symbolic links": os.symlink}


def _works(link: Callable[[Path, Path], None], source: Path, target: Path) -> bool:
    try:
        link(source, target)
    except OSError:
        return False
    return True


def _nearest_existing(path: Path) -> Path:
    return next(place for place in (path.absolute(), *path.absolute().parents) if place.is_dir())
