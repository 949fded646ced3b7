"""What a region's products depend on: its parameters without places and secrets, and the content of the files it names."""

from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from chipmill.core.errors import RegionFileError
from chipmill.core.store import fingerprint, sha256_file
from chipmill.region.config import Region

_SOURCES: Final = ("stac", "catalog", "items", "files", "auth", "pushdown")
"""Endpoints, who asks them and how: the same items from another place are the same items."""
_NOTHING_NEW: Final[tuple[tuple[str, object], ...]] = (
    ("composites", None),
    ("engine", "blocks"),
    ("nearest", None),
    ("offset_check", "warn"),
    ("unit", None),
    ("filter", None),
    ("scale_override", None),
    ("source_links", False),
    ("min_key_px", None),
    ("quotas", {}),
    ("dense", None),
    ("max_static_nodata_fraction", 1.0),
    *((name, None) for name in ("id", "time", "year", "split", "reject", "class_")),
    ("attributes", []),
    ("band", 1),
    ("derive", None),
    ("target", None),
    ("max_m", 1000.0),
    ("azimuth_deg", 315.0),
    ("altitude_deg", 45.0),
    ("weight", False),
    ("full", 100.0),
    ("sure", False),
    ("rule", "paint"),
    ("only", []),
    ("order", None),
    ("outside", "ignore"),
    ("jpeg_quality", 90),
    ("by", "blocks"),
    ("attribute", None),
    ("map", {}),
    ("hold_out", None),
)
"""Fields that came later, at the value that changes nothing: older fingerprints stay as they are."""
_ORDERED: Final = ("bands", "classes", "seasons")
"""Mappings whose order is that of bands, class codes and slots."""
_RUNNING: Final = {"file", "output", "on_failed", "allow_hosts"}
"""Fields of the region that say where and how it is run, not what is made."""
_SHAPEFILE_PARTS: Final = (".shx", ".dbf", ".prj", ".cpg")
"""What belongs to a .shp: attributes and CRS are not in the file that the user names."""


def config_fingerprint(region: Region) -> str:
    """Return the fingerprint of a region: canonical parameters without endpoint, output and file name, plus contents.

    Raises RegionFileError when a named file cannot be read.
    """
    values = region.model_dump(mode="json", exclude=_RUNNING)
    return fingerprint(_without_places(values), file_contents(region))


def stack_config_fingerprint(region: Region) -> str:
    """Return the fingerprint of all that stacks depend on: as :func:`config_fingerprint`, without ``dataset``.

    What ``chipmill select`` must find unchanged. Raises RegionFileError when a named file cannot be read.
    """
    values = region.model_dump(mode="json", exclude={*_RUNNING, "dataset"})
    contents = {name: one for name, one in file_contents(region).items() if not name.startswith("dataset.")}
    return fingerprint("stacks", _without_places(values), contents)


def _without_places(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            # Where ready composites lie does not matter; that they are ready does.
            key: True if key == "composites" else _without_places(_in_order(key, one))
            for key, one in value.items()
            if key not in (*_SOURCES, "path", "like") and (key, one) not in _NOTHING_NEW
        }
    return [_without_places(one) for one in value] if isinstance(value, list) else value


def _in_order(key: str, value: Any) -> Any:
    return [list(pair) for pair in value.items()] if key in _ORDERED and isinstance(value, dict) else value


def named_files(region: Region) -> dict[str, str]:
    """Return the files that a region names: what for -> path as the user wrote it."""
    files = {"aoi": region.aoi.path, "grid.like": region.grid.like, "tiles.path": region.tiles.path}
    files["tiles.year.path"] = region.tiles.year.path if region.tiles.year is not None else None
    files["dataset.splits.path"] = region.dataset.splits.path
    files |= {f"static.{layer.name}": layer.path for layer in region.static}
    if region.labels is not None:
        files |= {f"labels.layers.{number}": layer.path for number, layer in enumerate(region.labels.layers)}
        files["labels.coverage"] = region.labels.coverage
    return {name: path for name, path in files.items() if path is not None}


def check_named_files(region: Region) -> None:
    """Open each file that a region names, without reading it; raises RegionFileError for the first that is not there."""
    for name, path in named_files(region).items():
        try:
            with region.resolve(path).open("rb"):
                continue
        except OSError as error:
            raise RegionFileError(_unreadable(name, region.resolve(path), error)) from error


def _unreadable(name: str, path: Path, error: OSError) -> str:
    return f"{name}: {path} cannot be read ({error.strerror}): check the path"


def file_contents(region: Region) -> dict[str, str]:
    """Return the sha256 of each file that a region names, by what it is for."""
    return {name: content_hash(region.resolve(path), name) for name, path in named_files(region).items()}


def content_hash(path: Path, name: str) -> str:
    """Return the sha256 of a file that the user named, of all parts of a Shapefile.

    Hashed once per process while size and time stay the same; raises RegionFileError when it cannot be read.
    """
    try:
        if path.suffix.lower() != ".shp":
            return _hash_once(path)
        parts = [path, *(part for ending in _SHAPEFILE_PARTS if (part := path.with_suffix(ending)).exists())]
        return fingerprint([_hash_once(part) for part in parts])
    except OSError as error:
        raise RegionFileError(_unreadable(name, path, error)) from error


def _hash_once(path: Path) -> str:
    stat = path.stat()
    return _hash(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=256)
def _hash(path: Path, _size: int, _changed: int) -> str:
    return sha256_file(path)
