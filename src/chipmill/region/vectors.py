"""The vector files that are opened: told by their first bytes, for GDAL would follow a file in disguise to others."""

from pathlib import Path
from typing import Final

_STARTS: Final[dict[str, tuple[bytes, ...]]] = {
    ".geojson": (b"{",),
    ".json": (b"{",),
    ".gpkg": (b"SQLite format 3\0",),
    ".parquet": (b"PAR1",),
    ".shp": (b"\x00\x00\x27\x0a",),
    ".fgb": (b"fgb\x03fgb",),
}
_LOOKED_AT: Final = 1024


def vector_problem(path: Path) -> str:
    """Return why a file is not opened as vectors, "" where it is: it must be what its ending says."""
    starts = _STARTS.get(path.suffix.lower())
    if starts is None or not path.is_file():
        return "" if starts is not None else f"its ending is none of {', '.join(_STARTS)}"
    with path.open("rb") as stream:
        head = stream.read(_LOOKED_AT)
    if path.suffix.lower() in (".geojson", ".json"):
        head = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    return "" if head.startswith(starts) else f"its content is not that of a {path.suffix} file"
