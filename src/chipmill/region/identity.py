"""What a region's products depend on: its parameters without places and secrets, and the content of the files it names."""

from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from chipmill.core.errors import RegionFileError
from chipmill.core.store import fingerprint, sha256_file
from chipmill.region.config import Region

_SOURCES: Final = ("stac", "catalog", "items", "files", "auth", "pushdown")
"""Endpoints, who asks them and how: the same items from another place are the same items."""
_NOTHING_NEW: Final = (
    ("composites", None),
    ("engine", "blocks"),
    ("nearest", None),
    ("offset_check", "warn"),
    ("unit", None),
    ("filter", None),
    ("scale_override", None),
    ("source_links", False),
)
"""Fields that came later, at the value that changes nothing: older fingerprints stay as they are."""
_SHAPEFILE_PARTS: Final = (".shx", ".dbf", ".prj", ".cpg")
"""What belongs to a .shp: attributes and CRS are not in the file that the user names."""


def config_fingerprint(region: Region) -> str:
    """Return the fingerprint of a region: canonical parameters without endpoint, output and file name, plus contents.

    Raises RegionFileError when a named file cannot be read.
    """
    values = region.model_dump(mode="json", exclude={"file", "output", "on_failed", "allow_hosts"})
    return fingerprint(_without_places(values), file_contents(region))


def _without_places(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            # Where ready composites lie does not matter; that they are ready does.
            key: True if key == "composites" else _without_places(one)
            for key, one in value.items()
            if key not in (*_SOURCES, "path", "like") and (key, one) not in _NOTHING_NEW
        }
    return [_without_places(one) for one in value] if isinstance(value, list) else value


def named_files(region: Region) -> dict[str, str]:
    """Return the files that a region names: what for -> path as the user wrote it."""
    files = {"aoi": region.aoi.path, "grid.like": region.grid.like}
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
