"""The only place that opens imagery: how GDAL is set, through which gate it reads, and what an error means.

What is opened is not trusted: only the drivers of an allowlist read it (a .tif that is a VRT in disguise would read
other files), and every connection goes through :mod:`chipmill.imagery.gate`. A pixel that cannot be read is an
error, never a zero: transient where trying again may help, permanent where it cannot.
"""

import contextlib
import math
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import rasterio
from affine import Affine
from rasterio._err import CPLE_BaseError  # what rasterio's own errors stand on; a few come through bare
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader

from chipmill.core.errors import AssetMismatchError, AssetReadError, TransientReadError
from chipmill.core.gdal_cache import bound_cache
from chipmill.core.redact import redact
from chipmill.core.tiff import open_tiff
from chipmill.imagery.auth import header, reach_for, with_query
from chipmill.imagery.gate import gate, proxied
from chipmill.imagery.hrefs import is_url
from chipmill.imagery.items import Asset
from chipmill.imagery.reach import Reach
from chipmill.imagery.signing import forget, login, reach_signed, sign, signed

DRIVERS: Final = ("GTiff", "JP2OpenJPEG")
GDAL_OPTIONS: dict[str, Any] = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",  # no listing, no sidecar files: a request each
    "GDAL_PAM_ENABLED": "NO",
    "GDAL_HTTP_NETRC": "NO",  # a secret is sent where the region file says, nowhere else
    "CPL_VSIL_CURL_AUTHORIZATION_HEADER_ALLOWED_IF_REDIRECT": "NO",
    "GDAL_HTTP_CONNECTTIMEOUT": "10",  # GDAL's own timeouts are "never"
    "GDAL_HTTP_TIMEOUT": "60",
    "GDAL_HTTP_LOW_SPEED_LIMIT": "1000",
    "GDAL_HTTP_LOW_SPEED_TIME": "30",
    "GDAL_HTTP_MAX_RETRY": "4",
    "GDAL_HTTP_RETRY_DELAY": "0.5",
    "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
    "GDAL_INGESTED_BYTES_AT_OPEN": "32768",  # one request gets the whole header of a COG
}
"""The settings of every open; a test may shorten the waits.

One request with all its tries is over after GDAL_HTTP_TIMEOUT x (1 + GDAL_HTTP_MAX_RETRY) seconds and the waits between
them: whatever a server does, an answer that drips included.
"""

_STATUS: Final = re.compile(r"HTTP (?:response|error) code ?:? ?(\d{3})", re.IGNORECASE)
_PASSING: Final = frozenset({408, 425, 429})
_failed: set[str] = set()
"""Locations that failed in this process: GDAL would answer their next read from its cache, without a request."""


@contextlib.contextmanager
def open_asset(
    location: str, drivers: tuple[str, ...] = DRIVERS, *, overview: int | None = None
) -> Iterator[DatasetReader]:
    """Open a raster by its absolute URL or path for reading, or one of its overviews (level from 0).

    Errors of reads inside the block become ours too.

    Raises:
        TransientReadError: throttled, timed out, cut connection; a next open of it bypasses GDAL's cache.
        AssetReadError: missing, corrupt, truncated, without georeference, or of a driver that is not allowed.
    """
    driver = _driver(location, drivers)
    name, options = _request(location)
    level = {} if overview is None else {"overview_level": overview}
    bound_cache()
    # A file handle takes the settings along when it is opened, so they need not hold while it is read.
    with reading(location), rasterio.Env(**options):
        if driver == "GTiff":
            dataset = open_tiff(name, **level)
        else:
            dataset = rasterio.open(name, driver=driver, sharing=False, **level)
    with dataset, reading(location):
        # Looked at here, not by a filter that turns rasterio's warning into an error: filters are the whole process's.
        if dataset.transform.is_identity and not dataset.gcps[0] and dataset.rpcs is None:
            raise AssetReadError(
                f"{redact(location)} has no georeference, most often because it was cut: replace it, or take its item "
                "out of the catalog"
            )
        yield dataset


def _request(location: str) -> tuple[str, dict[str, Any]]:
    """Return GDAL's name of a location and the settings to open it with: the gate, and who asks."""
    options = dict(GDAL_OPTIONS)
    if not is_url(location):
        path = Path(location)
        if not path.is_absolute() or not path.is_file():
            raise AssetReadError(
                f"{location} does not exist: put it back, or take its item out of the catalog"
            )
        return location, options
    name = f"/vsicurl/{sign(location) if signed(location) else with_query(location, location)}"
    if location in _failed:
        options["CPL_VSIL_CURL_NON_CACHED"] = name
    asked = header(location, location) or login(location)
    if not proxied(location):
        options |= gate().options(_reach(location))
    elif asked:
        raise AssetReadError(
            f"{redact(location)} lies behind a proxy, through which a header may be led to another host: "
            "use auth of kind query, or name the host in no_proxy"
        )
    if asked:
        options["GDAL_HTTP_HEADERS"] = (
            f"{asked[0]}: {asked[1]}\r\n"  # the end tells GDAL that commas are text
        )
    return name, options


def _reach(location: str) -> Reach:
    """Return where a read of a location may be led: with a secret or a signature to its own host alone."""
    return reach_signed(location) if signed(location) else reach_for(location, location)


def _driver(location: str, drivers: tuple[str, ...]) -> str:
    """Return the one driver that may open a location, by its ending; the content decides only whether it can."""
    suffix = Path(urlsplit(location).path).suffix.lower()
    wanted = "JP2OpenJPEG" if suffix in (".jp2", ".j2k", ".jpx") else "GTiff"
    if wanted not in drivers:
        raise AssetReadError(
            f"{redact(location)} is no {' or '.join(drivers)}: other formats are not read here"
        )
    return wanted


@contextlib.contextmanager
def reading(location: str) -> Iterator[None]:
    """Turn rasterio's errors inside the block into ours, with the location in the text and no signature."""
    begun = time.monotonic()
    try:
        yield
    except (RasterioError, CPLE_BaseError, NotGeoreferencedWarning) as error:
        text = _whole_text(error)
        if is_url(location):
            _failed.add(location)
            if why := gate().refusal(_reach(location)):
                raise AssetReadError(
                    f"{redact(location)} is not read: it leads to a host that its catalog may not name: {why}"
                ) from error
            if wrong := gate().complaint(_reach(location), begun):
                text = f"{wrong}; {text}"
            if _may_pass(text, signed(location)):
                if not _codes(text) - {403}:
                    forget(location)  # inside a file GDAL does not say what the status was
                raise TransientReadError(
                    f"{redact(location)} could not be read now ({redact(text)}): run it again, "
                    "and if it stays so look at the server"
                ) from error
        raise AssetReadError(
            f"{redact(location)} cannot be read ({redact(text)}): the file is missing, damaged or not an image of "
            f"{' or '.join(DRIVERS)}: replace it, or take its item out of the catalog"
        ) from error


def _may_pass(text: str, signature: bool) -> bool:
    """Over HTTP a cut body, a timeout and a broken file look alike; only a status of 4xx says that it will not pass.

    A signature that is no longer taken is answered by 403; the next one will be.
    """
    passing = _PASSING | {403} if signature else _PASSING
    return not any(400 <= code < 500 for code in _codes(text) - passing)


def _codes(text: str) -> set[int]:
    return {int(code) for code in _STATUS.findall(text)}


def _whole_text(error: BaseException) -> str:
    """Return the messages of an error and its causes: rasterio keeps GDAL's own text in the chain."""
    texts: list[str] = []
    link: BaseException | None = error
    while link is not None and len(texts) < 5:
        text = " ".join(str(link).split())
        if text and text not in texts:
            texts.append(text)
        link = link.__cause__ or link.__context__
    return "; ".join(texts)


def check_metadata(dataset: DatasetReader, asset: Asset, location: str) -> None:
    """Compare a file's georeference with what its item says of it; the file is believed, so a lie is an error.

    Raises:
        AssetMismatchError: EPSG code, shape or transform (by more than a hundredth of a pixel) differ, or no CRS.
    """
    if dataset.crs is None:
        raise AssetMismatchError(
            f"{redact(location)} has no CRS: it cannot be placed: write its georeference into the file"
        )
    if not 1 <= asset.band <= dataset.count:
        raise AssetMismatchError(
            f"{redact(location)} has {dataset.count} bands and its item speaks of band {asset.band}"
        )
    told: list[str] = []
    epsg = dataset.crs.to_epsg() if asset.epsg is not None else None
    if epsg is not None and epsg != asset.epsg:
        told.append(f"EPSG {asset.epsg} against {epsg} in the file")
    if asset.shape is not None and asset.transform is None and asset.shape != dataset.shape:
        told.append(f"shape {asset.shape} against {dataset.shape} in the file")
    if asset.transform is not None and not _same_place(asset.transform, asset.shape, dataset):
        there = f"{tuple(dataset.transform)[:6]}, shape {dataset.shape}"
        told.append(f"transform {asset.transform[:6]}, shape {asset.shape} against {there} in the file")
    if told:
        raise AssetMismatchError(
            f"the item of {redact(location)} says {' and '.join(told)}: the file's georeference is what counts: mend the item"
        )


def _same_place(told: tuple[float, ...], shape: tuple[int, int] | None, dataset: DatasetReader) -> bool:
    """Compare where both put the corners, in pixels of the file.

    An item may give one grid for assets of several resolutions: then their extents must agree to a pixel of it.
    """
    other = Affine(*told[:6])
    height, width = shape or dataset.shape
    size = max(abs(other.a / dataset.transform.a), abs(other.e / dataset.transform.e))
    tolerance_px = (
        0.01 if math.isclose(size, 1.0, rel_tol=1e-6) and dataset.shape == (height, width) else size
    )
    if shape is not None and tolerance_px > 0.01 and math.isclose(size, 1.0, rel_tol=1e-6):
        return False  # equal pixels and another number of them
    pairs = [((0, 0), (0, 0))]
    if shape is not None:
        pairs += [((width, 0), (dataset.width, 0)), ((0, height), (0, dataset.height))]
    inverse = ~dataset.transform
    offs = [(inverse @ (other @ told_corner), corner) for told_corner, corner in pairs]
    return all(abs(a - x) <= tolerance_px and abs(b - y) <= tolerance_px for (a, b), (x, y) in offs)
