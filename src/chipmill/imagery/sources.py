"""The only place that opens imagery: which hrefs are allowed, how GDAL is set, and what an error means.

Hrefs come from catalogs and are not trusted: only http(s), and local files below the root of a local catalog, read
by the drivers of an allowlist (a .tif that is a VRT in disguise would read other files). A pixel that cannot be
read is an error, never a zero: transient where trying again may help, permanent where it cannot.
"""

import contextlib
import ipaddress
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urljoin, urlsplit, urlunsplit

import rasterio
from affine import Affine
from rasterio._err import CPLE_BaseError  # what rasterio's own errors stand on; a few come through bare
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader

from chipmill.core.errors import AssetMismatchError, AssetReadError, ItemSearchError, TransientReadError
from chipmill.core.redact import redact
from chipmill.imagery.items import Asset
from chipmill.region.config import Region
from chipmill.region.fields import Source

DRIVERS: Final = ("GTiff", "JP2OpenJPEG")
GDAL_OPTIONS: dict[str, Any] = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",  # no listing, no sidecar files: a request each
    "GDAL_PAM_ENABLED": "NO",
    "GDAL_HTTP_CONNECTTIMEOUT": "10",  # GDAL's own timeouts are "never"
    "GDAL_HTTP_TIMEOUT": "60",
    "GDAL_HTTP_LOW_SPEED_LIMIT": "1000",
    "GDAL_HTTP_LOW_SPEED_TIME": "30",
    "GDAL_HTTP_MAX_RETRY": "4",
    "GDAL_HTTP_RETRY_DELAY": "0.5",
    "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
    "GDAL_INGESTED_BYTES_AT_OPEN": "32768",  # one request gets the whole header of a COG
    "GDAL_CACHEMAX": 256
    << 20,  # bytes here, unlike in the environment; not 5 % of a machine that others share
}
"""The settings of every open; a test may shorten the waits."""

_SIGNATURE: Final = re.compile(
    r"^(sig|se|sp|sv|sr|st|spr|sk[a-z]+|x-(amz|goog)-.*|signature|expires|key-pair-id)$", re.IGNORECASE
)
_STATUS: Final = re.compile(r"HTTP (?:response|error) code ?:? ?(\d{3})", re.IGNORECASE)
_PASSING: Final = frozenset({408, 425, 429})
_failed: set[str] = set()
"""Locations that failed in this process: GDAL would answer their next read from its cache, without a request."""


def source_path(region: Region, source: Source) -> Path:
    """Return the absolute path of a source that is a file, without ``..``, so that paths can be compared by text."""
    return Path(os.path.normpath(region.resolve(source.catalog or source.items or "")))


def source_root(region: Region, source: Source) -> str:
    """Return the root of a source: the base URL of its API, or the absolute folder of its catalog file."""
    return source.stac if source.stac is not None else str(source_path(region, source).parent)


def is_url(text: str) -> bool:
    """Tell whether a href or root is http(s)."""
    return urlsplit(text).scheme.lower() in ("http", "https")


def relative_href(root: str, base: str, href: str) -> str:
    """Return an asset's href as it is stored: unsigned, and relative to the root where it lies below it.

    Args:
        root: URL or absolute folder of the source.
        base: URL or absolute path of the document that holds ``href``.
        href: as written in the item.

    Raises:
        ItemSearchError: a scheme that is not read, or a local file outside the root.
    """
    if is_url(href) or is_url(base):
        url = _unsigned(urljoin(base, href))
        _check_url(url, root)
        return _relative_url(url, root)
    path = os.path.normpath(Path(base).parent / _local_path(href))
    _check_local(path, root, href)
    return Path(path).relative_to(root).as_posix()


def resolve_href(root: str, href: str) -> str:
    """Return the URL or absolute path of a stored href; raises ItemSearchError as :func:`relative_href` does."""
    if is_url(root) or is_url(href):
        url = urljoin(root.rstrip("/") + "/", href)
        _check_url(url, root)
        return url
    path = os.path.normpath(Path(root) / _local_path(href))
    _check_local(path, root, href)
    return path


def _local_path(href: str) -> str:
    parts = urlsplit(href)
    if parts.scheme.lower() == "file":
        return parts.path
    if parts.scheme or href.startswith(("/vsi", "\\")):
        raise ItemSearchError(
            f"the href {redact(href)} has a scheme that is not read: expected http(s), or a file below the catalog"
        )
    return href


def _check_local(path: str, root: str, href: str) -> None:
    if is_url(root) or not Path(path).is_relative_to(root):
        raise ItemSearchError(
            f"the href {redact(href)} leads outside {redact(root)}: "
            "a catalog may name only files below its own folder: move them there, or the catalog up"
        )


def _check_url(url: str, root: str) -> None:
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme.lower() not in ("http", "https") or not host:
        raise ItemSearchError(f"the href {redact(url)} is not http(s): other schemes are not read")
    if host != urlsplit(root).hostname and _is_private(host):
        raise ItemSearchError(
            f"the href {redact(url)} leads to the private host {host}, but its catalog is at {redact(root)}: "
            "use a catalog on that host"
        )


def _is_private(host: str) -> bool:
    try:
        return not ipaddress.ip_address(host).is_global
    except ValueError:
        return host == "localhost" or host.endswith((".localhost", ".local", ".internal"))


def _relative_url(url: str, root: str) -> str:
    """Below the root's path relative to it, on the same host from the slash on, else the whole URL."""
    one, base = urlsplit(url), urlsplit(root)
    if (one.scheme, one.netloc) != (base.scheme, base.netloc):
        return url
    folder = base.path.rstrip("/") + "/"
    path = one.path.removeprefix(folder) if one.path.startswith(folder) else one.path
    return urlunsplit(("", "", path, one.query, ""))


def _unsigned(url: str) -> str:
    parts = urlsplit(url)
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    kept = [(key, value) for key, value in pairs if not _SIGNATURE.match(key)]
    return url if len(kept) == len(pairs) else urlunsplit(parts._replace(query=urlencode(kept)))


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
    name = f"/vsicurl/{location}" if is_url(location) else location
    if name == location and not Path(location).is_file():
        raise AssetReadError(f"{location} does not exist: put it back, or take its item out of the catalog")
    options = dict(GDAL_OPTIONS)
    if location in _failed:
        options["CPL_VSIL_CURL_NON_CACHED"] = name
    level = {} if overview is None else {"overview_level": overview}
    # A file handle takes the settings along when it is opened, so they need not hold while it is read.
    with reading(location), rasterio.Env(**options):
        dataset = rasterio.open(name, driver=_driver(location, drivers), sharing=False, **level)
    with dataset, reading(location):
        if dataset.transform.is_identity and not dataset.gcps[0] and dataset.rpcs is None:
            raise AssetReadError(
                f"{redact(location)} has no georeference, most often because it was cut: replace it, or take its item "
                "out of the catalog"
            )
        yield dataset


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
    try:
        yield
    except (RasterioError, CPLE_BaseError, NotGeoreferencedWarning) as error:
        text = _whole_text(error)
        if is_url(location):
            _failed.add(location)
            if _may_pass(text):
                raise TransientReadError(
                    f"{redact(location)} could not be read now ({redact(text)}): run it again, "
                    "and if it stays so look at the server"
                ) from error
        raise AssetReadError(
            f"{redact(location)} cannot be read ({redact(text)}): the file is missing, damaged or not an image of "
            f"{' or '.join(DRIVERS)}: replace it, or take its item out of the catalog"
        ) from error


def _may_pass(text: str) -> bool:
    """Over HTTP a cut body, a timeout and a broken file look alike; only a status of 4xx says that it will not pass."""
    codes = {int(code) for code in _STATUS.findall(text)}
    return not any(400 <= code < 500 for code in codes - _PASSING)


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
    name = redact(location)
    if dataset.crs is None:
        raise AssetMismatchError(
            f"{name} has no CRS: it cannot be placed: write its georeference into the file"
        )
    if not 1 <= asset.band <= dataset.count:
        raise AssetMismatchError(f"{name} has {dataset.count} bands and its item speaks of band {asset.band}")
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
            f"the item of {name} says {' and '.join(told)}: the file's georeference is what counts: mend the item"
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
